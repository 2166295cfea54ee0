//! Writes and reads that move less than they could, and segments that split and join.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool_foundation::{ConnectionSide, FaultKind, LatencyModel, NetworkConfiguration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::worlds::{MILLISECOND, Pair, SECOND, next_read, pattern, quiet};

/// What 200 writes of 5000 bytes accept each.
fn accepted(config: NetworkConfiguration) -> Vec<usize> {
    let mut pair = Pair::new(config, 1);
    let mut stream = pair.dialled();
    let mut accepted = pair.accepted();
    let bytes = pattern(5000);
    pair.world
        .block_on(async move {
            let mut counts = Vec::new();
            for _ in 0..200 {
                let count = stream.write(&bytes).await.unwrap();
                let mut arrived = vec![0; count];
                accepted.read_exact(&mut arrived).await.unwrap();
                assert_eq!(arrived, bytes[..count]);
                counts.push(count);
            }
            counts
        })
        .unwrap()
}

#[test]
fn a_quarter_of_the_writes_accepts_between_one_byte_and_the_maximum() {
    let config = NetworkConfiguration {
        partial_write_probability: 0.25,
        ..quiet()
    };
    let counts = accepted(config);
    let partial: BTreeSet<usize> = counts.iter().copied().filter(|c| *c < 5000).collect();
    assert!((30..70).contains(&partial.len()), "{}", partial.len());
    assert!(partial.iter().all(|count| (1..=1000).contains(count)));
    assert!(partial.first() < Some(&100) && partial.last() > Some(&900));
    assert_eq!(
        counts.iter().filter(|count| **count == 5000).count() + partial.len(),
        200
    );
}

#[test]
fn a_write_of_one_byte_accepts_it() {
    let config = NetworkConfiguration {
        partial_write_probability: 1.0,
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    let mut stream = pair.dialled();
    let count = pair
        .world
        .block_on(async move { stream.write(b"x").await.unwrap() });
    assert_eq!(count.unwrap(), 1);
    assert_eq!(pair.world.fault_counts().of(FaultKind::PartialWrite), 0);
}

#[test]
fn a_quarter_of_the_reads_returns_less_than_is_there_and_the_rest_stays() {
    let config = NetworkConfiguration {
        partial_read_probability: 0.25,
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    let sent = pattern(1000);
    let mut partial = 0_u64;
    for _ in 0..200 {
        pair.client_writes(&sent).unwrap();
        let mut received = pair.server_reads().0.unwrap();
        assert!(!received.is_empty());
        partial += u64::from(received.len() < 1000);
        while received.len() < 1000 {
            received.extend(pair.server_reads().0.unwrap());
        }
        assert_eq!(received, sent);
    }
    assert!((30..75).contains(&partial), "{partial}");
    assert!(pair.world.fault_counts().of(FaultKind::PartialRead) >= partial);
}

fn segmented(probability: f64) -> NetworkConfiguration {
    NetworkConfiguration {
        segmentation_probability: probability,
        write_latency: LatencyModel::uniform(MILLISECOND, 3 * MILLISECOND),
        ..quiet()
    }
}

/// The sizes of the reads that 100 writes of 100 bytes, one a millisecond, arrive in.
fn reads(probability: f64) -> Vec<usize> {
    let mut pair = Pair::new(segmented(probability), 1);
    let (mut dialled, mut accepted, time) = (pair.dialled(), pair.accepted(), pair.time());
    let sent = pattern(10_000);
    let expected = sent.clone();
    let writing = async move {
        for chunk in sent.chunks(100) {
            dialled.write_all(chunk).await.unwrap();
            moonpool_foundation::TimeProvider::sleep(&time, MILLISECOND).await;
        }
    };
    let reading = async move {
        let (mut sizes, mut received) = (Vec::new(), Vec::new());
        while received.len() < 10_000 {
            let read = next_read(&mut accepted).await.unwrap();
            sizes.push(read.len());
            received.extend(read);
        }
        assert_eq!(received, expected);
        sizes
    };
    let (_, sizes) = pair
        .world
        .block_on(futures_util::future::join(writing, reading))
        .unwrap();
    sizes
}

#[test]
fn a_write_may_arrive_as_several_reads_and_several_writes_as_one() {
    let whole = reads(0.0);
    assert!(whole.iter().all(|size| size % 100 == 0), "{whole:?}");
    let cut = reads(0.5);
    assert!(cut.iter().any(|size| size % 100 != 0), "no write was split");
    let joined = |sizes: &[usize]| sizes.iter().filter(|size| **size > 100).count();
    assert!(joined(&cut) > joined(&whole) + 5, "{cut:?}");
}

#[test]
fn a_send_buffer_is_bandwidth_times_base_latency_within_bounds() {
    for (millis, capacity) in [(0, 64 << 10), (10, 1_250_000), (200, 4 << 20)] {
        let config = NetworkConfiguration {
            pair_latency: LatencyModel::fixed(Duration::from_millis(millis)),
            ..quiet()
        };
        let pair = Pair::new(config, 1);
        for side in [ConnectionSide::Dialer, ConnectionSide::Acceptor] {
            assert_eq!(
                pair.world.send_buffer_capacity(pair.connection, side),
                capacity
            );
        }
    }
}

#[test]
fn a_full_send_buffer_makes_its_writer_wait_until_it_drains() {
    let config = NetworkConfiguration {
        send_buffer_bytes: Some(4096),
        write_latency: LatencyModel::fixed(SECOND),
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    let (connection, side) = (pair.connection, ConnectionSide::Dialer);
    assert_eq!(pair.world.available_send_buffer(connection, side), 4096);
    pair.client_writes(&pattern(3000)).unwrap();
    assert_eq!(pair.world.send_buffer_used(connection, side), 3000);
    assert_eq!(pair.world.available_send_buffer(connection, side), 1096);
    let began = pair.world.now();
    pair.client_writes(&pattern(2000)).unwrap();
    assert_eq!(pair.world.now() - began, SECOND);
    pair.world.run_for(3 * SECOND).unwrap();
    assert_eq!(pair.world.send_buffer_used(connection, side), 0);
}
