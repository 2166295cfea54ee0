//! What stands still for a while, and goes on: clogs of a direction, of a pair, and cuts.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool_foundation::{
    ConnectionSide, FaultKind, FaultTarget, NetworkConfiguration, clog_random_pair, swizzle,
};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet};

#[test]
fn a_read_clog_keeps_bytes_that_are_there_from_their_reader() {
    let mut pair = Pair::new(quiet(), 1);
    let side = ConnectionSide::Acceptor;
    pair.client_writes(b"hello").unwrap();
    pair.world.run_for(5 * MILLISECOND).unwrap();
    let clogged_at = pair.world.now();
    pair.world
        .clog_read(pair.connection, side, 200 * MILLISECOND);
    assert!(pair.world.is_read_clogged(pair.connection, side));
    assert!(
        !pair
            .world
            .is_read_clogged(pair.connection, ConnectionSide::Dialer)
    );
    let (read, at) = pair.server_reads();
    assert_eq!(
        (read.unwrap().as_slice(), at - clogged_at),
        (&b"hello"[..], 200 * MILLISECOND)
    );
    assert!(!pair.world.is_read_clogged(pair.connection, side));
}

#[test]
fn a_write_clog_takes_no_bytes_and_the_other_direction_goes_on() {
    let mut pair = Pair::new(quiet(), 1);
    let side = ConnectionSide::Dialer;
    let clogged_at = pair.world.now();
    pair.world
        .clog_write(pair.connection, side, 200 * MILLISECOND);
    assert!(pair.world.is_write_clogged(pair.connection, side));
    pair.server_writes(b"back").unwrap();
    assert_eq!(pair.client_reads().0.unwrap(), b"back");
    assert_eq!(pair.world.now() - clogged_at, MILLISECOND);
    pair.client_writes(b"hello").unwrap();
    assert_eq!(pair.world.now() - clogged_at, 200 * MILLISECOND);
}

#[test]
fn a_clog_is_lifted_by_call() {
    let mut pair = Pair::new(quiet(), 1);
    let side = ConnectionSide::Dialer;
    pair.world.clog_write(pair.connection, side, 100 * SECOND);
    assert_eq!(pair.world.pending_event_count(), 1);
    pair.world.unclog(pair.connection, side);
    assert_eq!(
        pair.world.pending_event_count(),
        0,
        "a dead event stays queued"
    );
    let began = pair.world.now();
    pair.client_writes(b"hello").unwrap();
    assert_eq!(pair.world.now(), began);
}

#[test]
fn clogs_by_chance_last_as_long_as_configured_and_let_the_waiting_operation_through() {
    let mut config = quiet();
    config.chaos.write_clog_probability = 1.0;
    config.chaos.read_clog_probability = 1.0;
    let mut pair = Pair::new(config, 1);
    let mut waits = BTreeSet::new();
    for _ in 0..20 {
        let began = pair.world.now();
        pair.client_writes(b"hello").unwrap();
        waits.insert(pair.world.now() - began);
        let written = pair.world.now();
        assert_eq!(pair.server_reads().0.unwrap(), b"hello");
        waits.insert(pair.world.now() - written - MILLISECOND);
    }
    let bounds = Duration::from_millis(100)..=Duration::from_millis(300);
    assert!(waits.iter().all(|wait| bounds.contains(wait)), "{waits:?}");
    assert_eq!(waits.len(), 40);
    let counts = pair.world.fault_counts();
    assert_eq!(
        (
            counts.of(FaultKind::WriteClog),
            counts.of(FaultKind::ReadClog)
        ),
        (20, 20)
    );
}

#[test]
fn a_clogged_pair_delivers_late_in_both_directions_and_connects_late() {
    let mut pair = Pair::new(quiet(), 1);
    pair.client_writes(b"under way").unwrap();
    let began = pair.world.now();
    let (server, client) = (pair.server.clone(), pair.client.clone());
    pair.world.clog_pair(&server, &client, 30 * SECOND);
    assert!(pair.world.is_pair_clogged(&server, &client));
    assert!(pair.world.is_pair_clogged(&client, &server));
    pair.server_writes(b"back").unwrap();
    let (read, at) = pair.server_reads();
    assert_eq!(read.unwrap(), b"under way");
    // No time-out, however long: a clog is slow, not gone.
    assert!((30 * SECOND..31 * SECOND).contains(&(at - began)), "{at:?}");
    assert_eq!(pair.client_reads().0.unwrap(), b"back");
    assert!(!pair.world.is_pair_clogged(&server, &client));
}

#[test]
fn a_clog_of_one_pair_leaves_others_alone_and_ends_by_call() {
    let mut pair = Pair::new(quiet(), 1);
    let other = pair.world.add_process("other");
    let (server, client) = (pair.server.clone(), pair.client.clone());
    pair.world.clog_pair(&server, &other, SECOND);
    pair.world.clog_pair(&client, &other, SECOND);
    let began = pair.world.now();
    pair.client_writes(b"fine").unwrap();
    assert_eq!(pair.server_reads().1 - began, MILLISECOND);
    pair.world.clog_pair(&server, &client, 100 * SECOND);
    pair.client_writes(b"held").unwrap();
    assert!(!pair.server_hears_within(SECOND));
    pair.world.unclog_pair(&server, &client);
    assert!(pair.server_hears_within(10 * MILLISECOND));
}

#[test]
fn a_cut_stalls_both_directions_keeps_the_data_and_is_restored() {
    let mut pair = Pair::new(quiet(), 1);
    let began = pair.world.now();
    pair.world.cut_connection(pair.connection, 2 * SECOND);
    assert!(pair.world.is_connection_cut(pair.connection));
    let sent = pattern(3000);
    pair.client_writes(&sent).unwrap();
    pair.server_writes(b"back").unwrap();
    let (read, at) = pair.server_reads();
    assert_eq!(read.unwrap(), sent);
    assert_eq!(at - began, 2 * SECOND);
    assert_eq!(pair.client_reads().0.unwrap(), b"back");
    assert!(!pair.world.is_connection_cut(pair.connection));

    pair.world.cut_connection(pair.connection, 100 * SECOND);
    pair.client_writes(b"later").unwrap();
    assert!(!pair.server_hears_within(10 * SECOND));
    pair.world.restore_connection(pair.connection);
    assert!(pair.server_hears_within(MILLISECOND));
}

#[test]
fn a_connection_that_is_gone_leaves_no_event_of_its_clogs_and_cuts() {
    let mut pair = Pair::new(quiet(), 1);
    let long = 1000 * SECOND;
    pair.world.cut_connection(pair.connection, long);
    for side in [ConnectionSide::Dialer, ConnectionSide::Acceptor] {
        pair.world.clog_read(pair.connection, side, long);
        pair.world.clog_write(pair.connection, side, long);
    }
    assert_eq!(pair.world.leftovers().events, 5);
    pair.world.close_connection_abort(pair.connection);
    drop((pair.dialled(), pair.accepted()));
    let left = pair.world.leftovers();
    assert_eq!((left.connections, left.events), (0, 0));
}

#[test]
fn a_reset_does_not_pass_a_cut() {
    let mut pair = Pair::new(quiet(), 1);
    pair.server_writes(b"unread").unwrap();
    pair.world.run_for(SECOND).unwrap();
    pair.world.cut_connection(pair.connection, 2 * SECOND);
    let began = pair.world.now();
    // Dropped with unread bytes: RST.
    drop(pair.dialled());
    let (read, at) = pair.server_reads();
    assert_eq!(read, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(at - began, 2 * SECOND);
}

#[test]
fn cuts_happen_by_chance_as_a_write_sets_out() {
    let config = NetworkConfiguration {
        chaos: moonpool_foundation::ChaosConfiguration {
            cut_probability: 1.0,
            ..moonpool_foundation::ChaosConfiguration::disabled()
        },
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    let began = pair.world.now();
    pair.client_writes(b"hello").unwrap();
    assert!(pair.world.is_connection_cut(pair.connection));
    let (read, at) = pair.server_reads();
    assert_eq!(read.unwrap(), b"hello");
    assert!(
        (100 * MILLISECOND..=300 * MILLISECOND).contains(&(at - began)),
        "{at:?}"
    );
}

#[test]
fn a_random_pair_is_drawn_from_the_seed() {
    let mut pairs = BTreeSet::new();
    for seed in 0..60 {
        let pair = Pair::new(quiet(), seed);
        pair.world.add_process("third");
        pair.world.record_faults();
        clog_random_pair(&pair.world);
        let records = pair.world.fault_records();
        pairs.insert(records.first().map(|record| record.target.to_string()));
    }
    // Each of six ordered pairs, or none when one process is drawn twice.
    assert_eq!(pairs.len(), 7, "{pairs:?}");
}

#[test]
fn a_swizzle_clogs_half_of_the_processes_one_by_one_and_unclogs_them_in_another_order() {
    let mut reordered = 0;
    for seed in 0..20 {
        let pair = Pair::new(quiet(), seed);
        let mut others = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f"] {
            others.push(pair.world.add_process(name));
        }
        pair.world.record_faults();
        swizzle(&pair.world, 20 * SECOND);
        let (mut clogged, mut lifted) = (Vec::new(), Vec::new());
        for _ in 0..2_100 {
            pair.world.run_for(10 * MILLISECOND).unwrap();
            for process in pair.world.all_processes() {
                // The world's own process is never drawn, so only this one's clog is seen.
                let is = pair
                    .world
                    .is_pair_clogged(&process, &pair.world.world_process());
                let id = process.id();
                if is && !clogged.contains(&id) {
                    clogged.push(id);
                }
                if !is && clogged.contains(&id) && !lifted.contains(&id) {
                    lifted.push(id);
                }
            }
        }
        assert_eq!((clogged.len(), lifted.len()), (4, 4), "seed {seed}");
        reordered += usize::from(clogged != lifted);
        let targets = pair.world.fault_records();
        assert!(
            targets
                .iter()
                .all(|record| matches!(record.target, FaultTarget::Process(_)))
        );
    }
    assert!(reordered > 10, "{reordered}");
}

#[test]
fn a_pair_is_clogged_although_it_is_partitioned_too() {
    let pair = Pair::new(quiet(), 1);
    let (world, one, other) = (&pair.world, &pair.server, &pair.client);
    world.partition_pair(one, other, SECOND);
    assert!(!world.is_pair_clogged(one, other));
    world.clog_pair(one, other, 2 * SECOND);
    assert!(world.is_pair_clogged(one, other) && world.is_partitioned(one, other));
    world.unclog_pair(one, other);
    assert!(!world.is_pair_clogged(one, other) && world.is_partitioned(one, other));
    world.clog_process(other, SECOND);
    assert!(world.is_pair_clogged(one, other) && world.is_pair_clogged(other, one));
    assert!(!world.is_pair_clogged(other, other));
}
