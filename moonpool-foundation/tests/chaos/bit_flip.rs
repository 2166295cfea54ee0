//! Bits that are flipped on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use moonpool_foundation::{
    FaultKind, NetworkConfiguration, UID, serialize_packet, try_deserialize_packet,
};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet};

fn always() -> NetworkConfiguration {
    let mut config = quiet();
    config.chaos.bit_flip_probability = 1.0;
    config
}

fn differing_bits(one: &[u8], other: &[u8]) -> u32 {
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    pairs.map(|(one, other)| (one ^ other).count_ones()).sum()
}

#[test]
fn a_delivery_loses_nothing_and_one_to_thirty_two_of_its_bits_are_flipped() {
    let sent = pattern(1000);
    let mut counts = BTreeMap::new();
    for seed in 0..400 {
        let mut pair = Pair::new(always(), seed);
        pair.client_writes(&sent).unwrap();
        let received = pair.server_reads().0.unwrap();
        let bits = differing_bits(&sent, &received);
        assert!((1..=32).contains(&bits), "seed {seed}: {bits}");
        assert_eq!(pair.world.fault_counts().of(FaultKind::BitFlip), 1);
        *counts.entry(bits).or_insert(0) += 1;
    }
    // Each count is half as likely as the one before.
    let of = |bits: u32| counts.get(&bits).copied().unwrap_or(0);
    assert!((150..250).contains(&of(1)), "{counts:?}");
    assert!((60..140).contains(&of(2)), "{counts:?}");
    assert!(of(3) < of(1) && counts.len() > 4, "{counts:?}");
}

#[test]
fn the_checksum_of_a_packet_catches_the_flip() {
    let mut caught = 0;
    for seed in 0..100 {
        let mut pair = Pair::new(always(), seed);
        let packet = serialize_packet(UID::new(1, 2), &pattern(100));
        pair.client_writes(&packet).unwrap();
        let received = pair.server_reads().0.unwrap();
        assert_ne!(received, packet);
        // A flip in the length may ask for more bytes than there are; no flip passes for a packet.
        if !matches!(try_deserialize_packet(&received, 1 << 20), Ok(Some(_))) {
            caught += 1;
        }
    }
    assert_eq!(caught, 100);
}

#[test]
fn any_byte_may_be_hit() {
    let sent = pattern(64);
    let mut hit = [false; 64];
    for seed in 0..600 {
        let mut pair = Pair::new(always(), seed);
        pair.client_writes(&sent).unwrap();
        let received = pair.server_reads().0.unwrap();
        for place in 0..sent.len() {
            hit[place] |= sent[place] != received[place];
        }
    }
    assert!(hit.iter().all(|hit| *hit), "{hit:?}");
}

#[test]
fn a_stable_connection_is_spared() {
    let mut pair = Pair::new(always(), 1);
    pair.world.mark_stable(pair.connection);
    let sent = pattern(1000);
    pair.client_writes(&sent).unwrap();
    assert_eq!(pair.server_reads().0.unwrap(), sent);
    assert_eq!(pair.world.fault_counts().total(), 0);
}

#[test]
fn after_a_flip_there_is_none_for_the_cooldown() {
    let mut config = always();
    config.chaos.bit_flip_cooldown = Duration::from_millis(100);
    let mut pair = Pair::new(config, 1);
    let sent = pattern(50);
    let mut flipped = Vec::new();
    for _ in 0..50 {
        pair.client_writes(&sent).unwrap();
        let (received, at) = pair.server_reads();
        if received.unwrap() != sent {
            flipped.push(at);
        }
        pair.world.run_for(9 * MILLISECOND).unwrap();
    }
    assert_eq!(flipped.len(), 5, "{flipped:?}");
    assert!(
        flipped
            .windows(2)
            .all(|two| two[1] - two[0] >= 100 * MILLISECOND)
    );
    assert!(pair.world.now() < SECOND);
}
