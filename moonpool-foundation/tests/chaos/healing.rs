//! The end of all trouble.

use std::io::ErrorKind;

use moonpool_foundation::{
    ConnectFailureMode, ConnectionSide, FaultKind, NetworkConfiguration, NetworkProvider,
    Providers, TaskProvider,
};

use crate::worlds::{Pair, SECOND, pattern, quiet, with_sink};

#[test]
fn healing_lifts_whatever_is_in_progress() {
    let mut pair = Pair::new(quiet(), 1);
    let (server, client) = (pair.server.clone(), pair.client.clone());
    let long = 1000 * SECOND;
    pair.world.partition_pair(&server, &client, long);
    pair.world.clog_pair(&server, &client, long);
    pair.world.cut_connection(pair.connection, long);
    pair.world
        .clog_read(pair.connection, ConnectionSide::Acceptor, long);
    pair.world
        .clog_write(pair.connection, ConnectionSide::Acceptor, long);
    pair.world
        .set_asymmetric_delays(pair.connection, long, long);
    pair.client_writes(b"waits").unwrap();
    assert!(!pair.server_hears_within(10 * SECOND));
    let healed_at = pair.world.now();
    pair.world.heal_network();
    assert!(!pair.world.is_partitioned(&server, &client));
    assert!(!pair.world.is_connection_cut(pair.connection));
    assert!(
        !pair
            .world
            .is_read_clogged(pair.connection, ConnectionSide::Acceptor)
    );
    let (read, at) = pair.server_reads();
    assert_eq!(read.unwrap(), b"waits");
    assert!(at - healed_at < SECOND, "{at:?}");
    pair.server_writes(b"back").unwrap();
    assert_eq!(pair.client_reads().0.unwrap(), b"back");
    pair.world.run_until_empty().unwrap();
    assert!(
        pair.world.now() < 60 * SECOND,
        "a dead event kept the run alive"
    );
}

#[test]
fn after_healing_nothing_goes_wrong_by_chance() {
    let mut config = NetworkConfiguration {
        packet_loss_probability: 1.0,
        random_close_probability: 1.0,
        partial_write_probability: 1.0,
        partial_read_probability: 1.0,
        segmentation_probability: 1.0,
        ..NetworkConfiguration::chaos()
    };
    config.chaos.connect_failure_mode = ConnectFailureMode::Disabled;
    config.chaos.bit_flip_probability = 1.0;
    let mut pair = Pair::new(config, 3);
    pair.world.heal_network();
    let before = pair.world.fault_counts().total();
    let sent = pattern(5000);
    pair.client_writes(&sent).unwrap();
    assert_eq!(pair.server_reads().0.unwrap(), sent);
    assert_eq!(pair.world.fault_counts().total(), before);
}

#[test]
fn a_segment_that_was_lost_too_often_is_sent_again() {
    let config = NetworkConfiguration {
        packet_loss_probability: 1.0,
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    pair.client_writes(b"lost").unwrap();
    pair.client_writes(b", lost").unwrap();
    pair.world.run_for(SECOND).unwrap();
    assert_eq!(pair.world.fault_counts().of(FaultKind::PacketLoss), 10);
    pair.world.heal_network();
    let healed_at = pair.world.now();
    let mut received = Vec::new();
    while received.len() < 10 {
        received.extend(pair.server_reads().0.unwrap());
    }
    assert_eq!(received, b"lost, lost");
    assert!(pair.world.now() - healed_at < SECOND);
    pair.world.run_for(60 * SECOND).unwrap();
    pair.client_writes(b"fine").unwrap();
    assert_eq!(pair.server_reads().0.unwrap(), b"fine");
}

#[test]
fn connects_that_nobody_answered_are_tried_again() {
    let mut config = quiet();
    config.chaos.connect_failure_mode = ConnectFailureMode::Probabilistic;
    config.chaos.connect_failure_probability = 0.0;
    config.chaos.connect_failure_activation = 1.0;
    config.chaos.connect_failure_firing = 1.0;
    let (world, client) = with_sink(config, 1);
    let network = client.network().clone();
    let hanging = client.task().spawn_task("hanging", async move {
        network.connect("server:80").await.is_ok()
    });
    world.run_for(500 * SECOND).unwrap();
    let client = world.process("client").unwrap();
    world.partition_send_from(&client, 1000 * SECOND);
    let network = client.network_provider();
    let tasks = client.task_provider();
    world.heal_network();
    assert!(world.block_on(hanging).unwrap().unwrap());
    assert!(world.now() < 502 * SECOND, "{:?}", world.now());

    world.partition_send_from(&client, 1000 * SECOND);
    let waiting = tasks.spawn_task("waiting", async move {
        network.connect("server:80").await.is_ok()
    });
    world.run_for(40 * SECOND).unwrap();
    world.heal_network();
    let healed_at = world.now();
    assert!(world.block_on(waiting).unwrap().unwrap());
    assert!(world.now() - healed_at < SECOND);
}

#[test]
fn what_is_broken_stays_broken_and_pairs_can_connect_again() {
    let mut pair = Pair::new(quiet(), 1);
    let (server, client) = (pair.server.clone(), pair.client.clone());
    pair.world.disconnect_pair(&server, &client);
    pair.world.heal_network();
    assert_eq!(pair.client_reads().0, Err(ErrorKind::ConnectionReset));
    let listener = server.network_provider();
    let dialler = client.network_provider();
    let connected = pair.world.block_on(async move {
        let _listener = listener.bind("server:81").await.unwrap();
        dialler.connect("server:81").await.map(drop)
    });
    assert!(connected.unwrap().is_ok());
}
