//! What chance does and what a test does, at once: neither hides nor ends the other.

use moonpool_foundation::NetworkConfiguration;

use crate::worlds::{MILLISECOND, Pair, SECOND, quiet};

/// Chance parts the two hosts for 20 seconds whenever a connection writes. Both ways, in this seed.
fn parted_by_chance(before: impl FnOnce(&Pair), after: impl FnOnce(&Pair)) -> Pair {
    let mut config: NetworkConfiguration = quiet();
    config.chaos.partition_probability = 1.0;
    config.chaos.partition_duration = 20 * SECOND..=20 * SECOND;
    config.chaos.partition_long_probability = 0.0;
    let mut pair = Pair::new(config, 2);
    pair.world.run_for(60 * SECOND).unwrap();
    assert!(!pair.world.is_partitioned(&pair.client, &pair.server));
    before(&pair);
    pair.client_writes(b"x").unwrap();
    after(&pair);
    assert!(pair.world.is_partitioned(&pair.client, &pair.server));
    pair.world.mark_stable(pair.connection);
    pair
}

#[test]
fn a_stable_connection_does_not_meet_a_partition_by_chance() {
    let mut pair = parted_by_chance(|_| {}, |_| {});
    assert!(pair.server_hears_within(10 * MILLISECOND));
}

#[test]
fn a_partition_by_call_holds_inside_a_longer_one_by_chance() {
    let call = |pair: &Pair| {
        pair.world
            .partition_pair(&pair.server, &pair.client, 2 * SECOND);
    };
    for mut pair in [
        parted_by_chance(|_| {}, call),
        parted_by_chance(call, |_| {}),
    ] {
        assert!(!pair.server_hears_within(2 * SECOND - MILLISECOND));
        assert!(pair.server_hears_within(10 * MILLISECOND));
        // What chance did goes on, for those that meet it.
        assert!(pair.world.is_partitioned(&pair.client, &pair.server));
        pair.world.run_for(17 * SECOND).unwrap();
        assert!(pair.world.is_partitioned(&pair.client, &pair.server));
        pair.world.run_for(SECOND).unwrap();
        assert!(!pair.world.is_partitioned(&pair.client, &pair.server));
        assert_eq!(pair.world.pending_event_count(), 0);
    }
}

#[test]
fn a_partition_by_call_outlives_a_shorter_one_by_chance() {
    let call = |pair: &Pair| {
        pair.world
            .partition_pair(&pair.server, &pair.client, 30 * SECOND);
    };
    for mut pair in [
        parted_by_chance(|_| {}, call),
        parted_by_chance(call, |_| {}),
    ] {
        assert!(!pair.server_hears_within(25 * SECOND));
        assert!(pair.world.is_partitioned(&pair.client, &pair.server));
        pair.world.run_for(5 * SECOND).unwrap();
        assert!(!pair.world.is_partitioned(&pair.client, &pair.server));
    }
}

#[test]
fn restoring_a_partition_ends_it_whoever_made_it() {
    let mut pair = parted_by_chance(
        |_| {},
        |pair| {
            pair.world
                .partition_pair(&pair.server, &pair.client, 30 * SECOND);
        },
    );
    pair.world.restore_partition(&pair.server, &pair.client);
    assert!(!pair.world.is_partitioned(&pair.client, &pair.server));
    assert!(pair.server_hears_within(10 * MILLISECOND));
    assert_eq!(pair.world.pending_event_count(), 0);
}
