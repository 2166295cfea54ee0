//! Segments that are lost, and sent again.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use moonpool_foundation::{FaultId, FaultKind, LatencyModel, NetworkConfiguration};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet};

fn lossy(probability: f64) -> NetworkConfiguration {
    NetworkConfiguration {
        packet_loss_probability: probability,
        ..quiet()
    }
}

fn loss(ordinal: u64) -> FaultId {
    FaultId {
        kind: FaultKind::PacketLoss,
        ordinal,
    }
}

#[test]
fn each_loss_doubles_the_delay_and_what_is_behind_waits() {
    for (losses, millis) in [(0, 1), (1, 201), (2, 601), (3, 1_401), (4, 3_001)] {
        let mut pair = Pair::new(lossy(1.0), 1);
        // The loss after those does not happen, and the second segment is not lost at all.
        pair.world
            .set_skipped_faults([loss(losses + 1), loss(losses + 2)]);
        let sent_at = pair.world.now();
        pair.client_writes(b"first").unwrap();
        pair.client_writes(b"second").unwrap();
        let (read, at) = pair.server_reads();
        assert_eq!(at - sent_at, millis * MILLISECOND, "{losses} losses");
        let mut received = read.unwrap();
        while received.len() < 11 {
            received.extend(pair.server_reads().0.unwrap());
        }
        assert_eq!(received, b"firstsecond");
        assert_eq!(pair.world.fault_counts().of(FaultKind::PacketLoss), losses);
    }
}

#[test]
fn five_losses_in_a_row_end_the_connection_with_a_time_out() {
    let mut pair = Pair::new(lossy(1.0), 1);
    let sent_at = pair.world.now();
    pair.client_writes(b"lost").unwrap();
    let (read, at) = pair.client_reads();
    assert_eq!(read, Err(ErrorKind::TimedOut));
    assert_eq!(at - sent_at, 6_200 * MILLISECOND);
    // The other end hears nothing, until it sends and is answered by RST.
    assert!(!pair.server_hears_within(60 * SECOND));
    pair.world.set_skipped_faults([loss(6)]);
    pair.server_writes(b"anybody?").unwrap();
    assert_eq!(pair.server_reads().0, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_fin_is_sent_again_too() {
    let mut pair = Pair::new(lossy(1.0), 1);
    pair.world.set_skipped_faults([loss(2)]);
    let sent_at = pair.world.now();
    drop(pair.dialled());
    let (read, at) = pair.server_reads();
    assert_eq!((read, at - sent_at), (Ok(vec![]), 201 * MILLISECOND));
}

#[test]
fn losses_have_their_probability_and_lose_no_byte() {
    let mut pair = Pair::new(lossy(0.05), 7);
    let sent = pattern(40);
    let mut delays = BTreeMap::new();
    for _ in 0..2_000 {
        let sent_at = pair.world.now();
        pair.client_writes(&sent).unwrap();
        let (read, at) = pair.server_reads();
        assert_eq!(read.unwrap(), sent);
        *delays.entry((at - sent_at).as_millis()).or_insert(0) += 1;
    }
    let of = |millis| delays.get(&millis).copied().unwrap_or(0);
    assert!((70..130).contains(&of(201)), "{delays:?}");
    assert!((1..15).contains(&of(601)), "{delays:?}");
}

#[test]
fn a_stable_connection_loses_nothing_and_takes_a_tenth_of_the_time() {
    let mut pair = Pair::new(lossy(1.0), 1);
    pair.world.mark_stable(pair.connection);
    let sent_at = pair.world.now();
    pair.client_writes(b"fine").unwrap();
    let (read, at) = pair.server_reads();
    assert_eq!(
        (read.unwrap().as_slice(), (at - sent_at) * 10),
        (&b"fine"[..], MILLISECOND)
    );
}

/// How long segments of a stable connection take on a network that delays by chance.
fn stable_latencies(config: NetworkConfiguration) -> Vec<Duration> {
    let mut pair = Pair::new(config, 3);
    pair.world.mark_stable(pair.connection);
    let mut latencies = Vec::new();
    for _ in 0..4_000 {
        let sent_at = pair.world.now();
        pair.client_writes(b"x").unwrap();
        latencies.push(pair.server_reads().1 - sent_at);
    }
    latencies
}

#[test]
fn a_stable_connection_meets_no_long_tail() {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::LongTail {
            min: MILLISECOND,
            max: 2 * MILLISECOND,
            tail: SECOND,
        },
        ..quiet()
    };
    let latencies = stable_latencies(config);
    let longest = latencies.into_iter().max().unwrap();
    assert!(longest <= MILLISECOND / 5, "{longest:?}");
}

#[test]
fn a_stable_connection_has_no_delay_but_one_by_call() {
    let config = NetworkConfiguration {
        asymmetric_delay_probability: 1.0,
        asymmetric_delay: SECOND..=2 * SECOND,
        ..quiet()
    };
    let latencies = stable_latencies(config.clone());
    assert!(latencies.iter().all(|latency| *latency * 10 == MILLISECOND));
    let delay = 9 * MILLISECOND;
    let mut pair = Pair::new(config, 3);
    pair.world
        .set_asymmetric_delays(pair.connection, delay, delay);
    pair.world.mark_stable(pair.connection);
    assert_eq!(pair.world.get_send_delay(pair.connection), delay);
    let sent_at = pair.world.now();
    pair.client_writes(b"x").unwrap();
    assert_eq!(pair.server_reads().1 - sent_at, MILLISECOND);
}

#[test]
fn a_stable_connection_learns_of_room_in_a_tenth_of_the_time() {
    let config = NetworkConfiguration {
        read_latency: LatencyModel::fixed(10 * MILLISECOND),
        write_latency: LatencyModel::fixed(Duration::ZERO),
        receive_buffer_bytes: 1,
        ..quiet()
    };
    let mut pair = Pair::new(config, 3);
    pair.world.mark_stable(pair.connection);
    pair.client_writes(b"a").unwrap();
    pair.client_writes(b"b").unwrap();
    pair.world.run_for(SECOND).unwrap();
    let began = pair.world.now();
    assert_eq!(pair.server_reads().0.unwrap(), b"a");
    assert_eq!(
        pair.server_reads(),
        (Ok(b"b".to_vec()), began + MILLISECOND)
    );
}
