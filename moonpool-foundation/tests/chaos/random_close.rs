//! Connections that close while somebody reads or writes.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use moonpool_foundation::{FaultKind, NetworkConfiguration, Providers, enable_connection_failures};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet, read_all};

fn closing(explicit: f64) -> NetworkConfiguration {
    NetworkConfiguration {
        random_close_probability: 1.0,
        random_close_explicit_ratio: explicit,
        ..quiet()
    }
}

#[test]
fn an_explicit_close_fails_the_operation_and_resets_the_other_end() {
    let mut pair = Pair::new(closing(1.0), 1);
    assert_eq!(pair.client_writes(b"x"), Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.server_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.client_writes(b"x"), Err(ErrorKind::BrokenPipe));
    assert_eq!(pair.world.fault_counts().of(FaultKind::RandomClose), 1);
}

#[test]
fn a_read_closes_its_connection_too() {
    let mut pair = Pair::new(closing(1.0), 2);
    pair.world.set_connection_failures_enabled(false);
    pair.client_writes(b"x").unwrap();
    pair.world.set_connection_failures_enabled(true);
    assert_eq!(pair.server_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.client_reads().0, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_quiet_close_lets_the_operation_succeed_and_tells_by_fin_or_reset() {
    let mut ends = BTreeSet::new();
    for seed in 0..60 {
        let mut pair = Pair::new(closing(0.0), seed);
        pair.client_writes(b"hello").unwrap();
        pair.world.set_connection_failures_enabled(false);
        pair.world.run_for(SECOND).unwrap();
        let written = pair.client_writes(b"more");
        let mut accepted = pair.accepted();
        let time = pair.time();
        let heard = pair
            .world
            .block_on(async move {
                moonpool_foundation::TimeProvider::timeout(&time, SECOND, read_all(&mut accepted))
                    .await
                    .ok()
            })
            .unwrap();
        if let Some((bytes, end)) = &heard {
            assert!(
                b"hellomore".starts_with(&bytes[..]),
                "seed {seed}: {bytes:?}"
            );
            // Bytes were pending when the write closed its connection, so a FIN is out of the question
            // for what the client sends.
            assert_eq!(*end, Err(ErrorKind::ConnectionReset), "seed {seed}");
        }
        ends.insert(format!("{written:?} {}", heard.is_some()));
    }
    // By FIN towards the client, whose bytes still arrive; or by RST.
    assert_eq!(
        ends.into_iter().collect::<Vec<_>>(),
        ["Err(ConnectionReset) true", "Ok(()) false"]
    );
}

#[test]
fn a_quiet_direction_ends_by_fin_with_every_byte_delivered() {
    let mut ends = BTreeSet::new();
    for seed in 0..60 {
        let mut pair = Pair::new(closing(0.0), seed);
        pair.world.set_connection_failures_enabled(false);
        let sent = pattern(3000);
        pair.client_writes(&sent).unwrap();
        pair.world.run_for(SECOND).unwrap();
        // Nothing is pending now: the read that closes its connection may do so by FIN.
        pair.world.set_connection_failures_enabled(true);
        let mut received = pair.server_reads().0.unwrap();
        pair.world.set_connection_failures_enabled(false);
        let mut accepted = pair.accepted();
        let time = pair.time();
        let rest = pair
            .world
            .block_on(async move {
                moonpool_foundation::TimeProvider::timeout(&time, SECOND, read_all(&mut accepted))
                    .await
                    .ok()
            })
            .unwrap();
        let end = rest.map(|(rest, end)| {
            received.extend(rest);
            end
        });
        assert_eq!(received, sent, "seed {seed}");
        ends.insert(format!("{end:?}"));
    }
    assert_eq!(
        ends.into_iter().collect::<Vec<_>>(),
        ["None", "Some(Err(ConnectionReset))", "Some(Ok(()))"]
    );
}

#[test]
fn a_close_is_followed_by_a_cooldown() {
    let config = NetworkConfiguration {
        random_close_cooldown: 5 * SECOND,
        ..closing(1.0)
    };
    let (world, client) = crate::worlds::with_sink(config, 3);
    let network = client.network().clone();
    let time = client.time().clone();
    let closed_at = world
        .block_on(async move {
            use moonpool_foundation::{NetworkProvider, TimeProvider};
            use tokio::io::AsyncWriteExt;
            let mut closed_at = Vec::new();
            while closed_at.len() < 4 {
                let mut stream = network.connect("server:80").await.unwrap();
                while stream.write_all(b"x").await.is_ok() {
                    time.sleep(10 * MILLISECOND).await;
                }
                closed_at.push(time.now());
            }
            closed_at
        })
        .unwrap();
    let apart = closed_at.windows(2).map(|two| two[1] - two[0]);
    for apart in apart {
        assert!((5 * SECOND..6 * SECOND).contains(&apart), "{apart:?}");
    }
}

#[test]
fn the_window_of_connection_failures_gates_random_closes() {
    let mut pair = Pair::new(closing(1.0), 4);
    pair.world.set_connection_failures_enabled(false);
    assert!(!pair.world.are_connection_failures_enabled());
    pair.client_writes(b"fine").unwrap();
    enable_connection_failures(&pair.world, SECOND);
    assert!(pair.world.are_connection_failures_enabled());
    pair.world.run_for(2 * SECOND).unwrap();
    assert!(!pair.world.are_connection_failures_enabled());
    pair.client_writes(b"fine").unwrap();
    enable_connection_failures(&pair.world, SECOND);
    assert_eq!(pair.client_writes(b"x"), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_stable_connection_is_not_closed() {
    let mut pair = Pair::new(closing(1.0), 5);
    pair.world.mark_stable(pair.connection);
    pair.client_writes(b"fine").unwrap();
    assert_eq!(pair.server_reads().0.unwrap(), b"fine");
}

#[test]
fn the_end_of_a_window_leaves_a_later_one_open() {
    let pair = Pair::new(quiet(), 1);
    let (world, began) = (&pair.world, pair.world.now());
    enable_connection_failures(world, 5 * SECOND);
    enable_connection_failures(world, 50 * SECOND);
    enable_connection_failures(world, 20 * SECOND);
    world.run_until(began + 49 * SECOND).unwrap();
    assert!(world.are_connection_failures_enabled());
    world.run_until(began + 51 * SECOND).unwrap();
    assert!(!world.are_connection_failures_enabled());
    enable_connection_failures(world, SECOND);
    world.set_connection_failures_enabled(true);
    world.run_until(began + 60 * SECOND).unwrap();
    assert!(world.are_connection_failures_enabled(), "a call overrules");
}
