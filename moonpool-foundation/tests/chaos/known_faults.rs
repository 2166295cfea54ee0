//! Faults of other simulators that ours must not have.

use std::io::ErrorKind;

use moonpool_foundation::{
    ConnectionSide, KillKind, NetworkConfiguration, NetworkProvider, Providers, SimTcpStream,
    TaskProvider, TcpListenerTrait, TimeProvider, TraceMode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet, read_all};

#[test]
fn a_listener_keeps_every_pending_connect() {
    let pair = Pair::new(quiet(), 1);
    let (server, client) = (
        pair.server.network_provider(),
        pair.client.network_provider(),
    );
    let told = pair.world.block_on(async move {
        let listener = server.bind("server:81").await.unwrap();
        let mut dialled = Vec::new();
        for number in 0..50_u8 {
            let mut stream = client.connect("server:81").await.unwrap();
            stream.write_u8(number).await.unwrap();
            dialled.push(stream);
        }
        let mut told = Vec::new();
        for _ in 0..50 {
            let (mut stream, _) = listener.accept().await.unwrap();
            told.push(stream.read_u8().await.unwrap());
        }
        told
    });
    assert_eq!(told.unwrap(), (0..50).collect::<Vec<_>>());
}

/// The dialler names the server, not its address; the server sees an address that is not the
/// client's listening one.
#[test]
fn a_partition_matches_a_client_that_dials_by_name() {
    let mut pair = Pair::new(quiet(), 1);
    let (server, client) = (pair.server.ip(), pair.client.id());
    pair.world.partition_pair(server, client, 10 * SECOND);
    pair.client_writes(b"held").unwrap();
    assert!(!pair.server_hears_within(9 * SECOND));
    assert!(pair.server_hears_within(2 * SECOND));
}

#[test]
fn a_reset_is_told_from_an_end_on_a_half_closed_connection() {
    let mut pair = Pair::new(quiet(), 1);
    let mut dialled = pair.dialled();
    let dialled = pair.world.block_on(async move {
        dialled.shutdown().await.unwrap();
        dialled
    });
    pair.dialled = Some(dialled.unwrap());
    // The server has seen the client's end; then the connection is reset.
    assert_eq!(pair.server_reads().0, Ok(vec![]));
    pair.world.close_connection_abort(pair.connection);
    assert_eq!(pair.client_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.server_writes(b"x"), Err(ErrorKind::BrokenPipe));
}

#[test]
fn a_write_larger_than_the_send_buffer_completes() {
    let config = NetworkConfiguration {
        send_buffer_bytes: Some(1000),
        receive_buffer_bytes: 700,
        ..NetworkConfiguration::default()
    };
    let mut pair = Pair::new(config, 1);
    let (mut dialled, mut accepted) = (pair.dialled(), pair.accepted());
    let sent = pattern(300_000);
    let expected = sent.clone();
    let writing = async move {
        dialled.write_all(&sent).await.unwrap();
    };
    let reading = async move { read_all(&mut accepted).await };
    let both = futures_util::future::join(writing, reading);
    let (_, (received, end)) = pair.world.block_on(both).unwrap();
    assert_eq!((received == expected, end), (true, Ok(())));
}

/// A writer that waits for room, and what ends its wait.
fn blocked_writer(ends: impl FnOnce(&Pair)) -> ErrorKind {
    let config = NetworkConfiguration {
        send_buffer_bytes: Some(1000),
        receive_buffer_bytes: 1000,
        ..quiet()
    };
    let mut pair = Pair::new(config, 1);
    let mut dialled: SimTcpStream = pair.dialled();
    let writer = pair
        .client
        .task_provider()
        .spawn_task("writer", async move {
            dialled
                .write_all(&pattern(10_000))
                .await
                .unwrap_err()
                .kind()
        });
    pair.world.run_for(SECOND).unwrap();
    assert!(!writer.is_finished());
    ends(&pair);
    pair.world.block_on(writer).unwrap().unwrap()
}

#[test]
fn an_abort_wakes_a_blocked_writer() {
    let kind = blocked_writer(|pair| pair.world.close_connection_abort(pair.connection));
    assert_eq!(kind, ErrorKind::ConnectionReset);
    let kind = blocked_writer(|pair| {
        let side = ConnectionSide::Dialer;
        pair.world.close_connection_graceful(pair.connection, side);
    });
    assert_eq!(kind, ErrorKind::BrokenPipe);
    let kind = blocked_writer(|pair| pair.world.disconnect_pair(&pair.server, &pair.client));
    assert_eq!(kind, ErrorKind::ConnectionReset);
    let kind = blocked_writer(|pair| {
        let side = ConnectionSide::Acceptor;
        pair.world
            .simulate_peer_crash(pair.connection, side, SECOND);
    });
    assert!(matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::TimedOut
    ));
}

#[test]
fn an_abort_wakes_a_clogged_reader_and_writer() {
    for clogs_write in [false, true] {
        let mut pair = Pair::new(quiet(), 1);
        let side = ConnectionSide::Dialer;
        pair.server_writes(b"there").unwrap();
        pair.world.run_for(SECOND).unwrap();
        if clogs_write {
            pair.world.clog_write(pair.connection, side, 1000 * SECOND);
        } else {
            pair.world.clog_read(pair.connection, side, 1000 * SECOND);
        }
        let mut dialled = pair.dialled();
        let task = pair.client.task_provider().spawn_task("waits", async move {
            if clogs_write {
                dialled.write_all(b"x").await.map_err(|error| error.kind())
            } else {
                read_all(&mut dialled).await.1
            }
        });
        pair.world.run_for(SECOND).unwrap();
        pair.world.close_connection_abort(pair.connection);
        let end = pair.world.block_on(task).unwrap().unwrap();
        assert_eq!(end, Err(ErrorKind::ConnectionReset));
        assert!(pair.world.now() < 10 * SECOND);
    }
}

#[test]
fn nothing_of_faults_stays_queued_or_kept_once_connections_are_gone() {
    let mut config = NetworkConfiguration::chaos();
    config.chaos.connect_failure_mode = moonpool_foundation::ConnectFailureMode::Disabled;
    let world = moonpool_foundation::SimWorld::new_with_network_config_and_seed(config, 5).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let (accepting, connecting) = (server.providers(), client.providers());
    world
        .block_on(async move {
            let listener = accepting.network().bind("server:80").await.unwrap();
            accepting.task().spawn_task("server", async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    drop(stream.write_all(&pattern(500)).await);
                }
            });
            for _ in 0..300 {
                let connect = connecting.network().connect("server:80");
                let connected = connecting.time().timeout(SECOND, connect).await;
                if let Ok(Ok(mut stream)) = connected {
                    let read = read_all(&mut stream);
                    drop(connecting.time().timeout(SECOND, read).await);
                }
            }
        })
        .unwrap();
    world.heal_network();
    world.run_for(600 * SECOND).unwrap();
    let left = world.leftovers();
    assert_eq!((left.events, left.connections), (0, 0), "{left:?}");
}

#[test]
fn idle_hosts_and_links_cost_no_events() {
    let mut pair = Pair::new(
        NetworkConfiguration::chaos().without(moonpool_foundation::FaultKind::Partition),
        2,
    );
    for number in 0..200 {
        pair.world.add_process(&format!("idle-{number}"));
    }
    pair.world.mark_stable(pair.connection);
    let before = pair.world.events_processed();
    pair.client_writes(b"one").unwrap();
    pair.server_reads().0.unwrap();
    pair.world.run_for(3600 * SECOND).unwrap();
    assert_eq!(pair.world.events_processed() - before, 1);
}

#[test]
fn a_connect_to_an_unbound_address_is_refused_under_chaos_too() {
    for seed in 0..20 {
        let mut config = NetworkConfiguration::chaos();
        config.chaos.connect_failure_mode = moonpool_foundation::ConnectFailureMode::Disabled;
        config.chaos.partition_probability = 0.0;
        let pair = Pair::new(config, seed);
        let network = pair.client.network_provider();
        let connect = async move { network.connect("server:9").await.unwrap_err().kind() };
        assert_eq!(
            pair.world.block_on(connect).unwrap(),
            ErrorKind::ConnectionRefused
        );
        assert!(pair.world.now() < SECOND + 100 * MILLISECOND);
    }
}

/// Whoever reads a trace finds what `MOONPOOL_SKIP_FAULTS` takes, and where it happened.
#[test]
fn a_trace_names_each_fault_that_fires_by_its_id_and_whom_it_meets() {
    let pair = Pair::new(quiet(), 1);
    pair.world
        .set_skipped_faults(["partition#2".parse().unwrap()]);
    pair.world.set_trace(TraceMode::Full);
    let (world, client, server) = (&pair.world, &pair.client, &pair.server);
    world.set_asymmetric_delays(pair.connection, MILLISECOND, MILLISECOND);
    world.partition_pair(client, server, SECOND);
    world.partition_pair(client, server, SECOND);
    world.kill(server.id(), KillKind::Crash);
    let steps = world.recent_steps();
    let faults: Vec<&str> = steps
        .iter()
        .map(|step| step.what.as_str())
        .filter(|what| what.starts_with("fault "))
        .collect();
    let connection = faults[0].split(" (").next().unwrap();
    assert!(connection.starts_with("fault asymmetric-delay#1: connection "));
    assert_eq!(
        faults,
        [
            &format!("{connection} (client -> server)"),
            "fault partition#1: client -> server",
            "fault partition#2: client -> server (skipped)",
            "fault kill#1: server",
        ]
    );
}
