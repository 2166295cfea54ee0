//! Simulated TCP where the conformance suite does not look: time, bounds, and what is left behind.

use std::io::ErrorKind;
use std::time::Duration;

use moonpool_foundation::{
    LatencyModel, NetworkConfiguration, NetworkProvider, Providers, SimProviders, SimTcpStream,
    SimWorld, TaskProvider, TcpListenerTrait, TcpStreamTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn world(config: NetworkConfiguration) -> (SimWorld, SimProviders, SimProviders) {
    let world = SimWorld::new_with_network_config_and_seed(config, 11).unwrap();
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    (world, server, client)
}

fn fixed(millis: u64) -> LatencyModel {
    LatencyModel::fixed(Duration::from_millis(millis))
}

fn fixed_latencies() -> NetworkConfiguration {
    NetworkConfiguration {
        bind_latency: fixed(2),
        accept_latency: fixed(3),
        connect_latency: fixed(10),
        read_latency: fixed(1),
        write_latency: fixed(4),
        ..NetworkConfiguration::disabled()
    }
}

/// A connected pair: the client's end and the server's.
async fn pair(server: &SimProviders, client: &SimProviders) -> (SimTcpStream, SimTcpStream) {
    let listener = server.network().bind("server:80").await.unwrap();
    let dialled = client.network().connect("server:80").await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (dialled, accepted)
}

#[test]
fn every_latency_is_waited_by_its_caller() {
    let (world, server, client) = world(fixed_latencies());
    let times = world
        .block_on(async move {
            let time = client.time().clone();
            let listener = server.network().bind("server:80").await.unwrap();
            let bound = time.now();
            let mut dialled = client.network().connect("server:80").await.unwrap();
            let connected = time.now();
            let (mut accepted, _) = listener.accept().await.unwrap();
            let accepted_at = time.now();
            dialled.write_all(b"x").await.unwrap();
            let written = time.now();
            accepted.read_u8().await.unwrap();
            [bound, connected, accepted_at, written, time.now()]
        })
        .unwrap();
    assert_eq!(times, [2, 12, 15, 15, 20].map(Duration::from_millis));
}

#[test]
fn a_refused_connect_waits_too() {
    let (world, _server, client) = world(fixed_latencies());
    let kind = world
        .block_on(async move {
            client
                .network()
                .connect("server:80")
                .await
                .unwrap_err()
                .kind()
        })
        .unwrap();
    assert_eq!(
        (kind, world.now()),
        (
            std::io::ErrorKind::ConnectionRefused,
            Duration::from_millis(10)
        )
    );
}

#[test]
fn an_address_that_no_host_has_is_unreachable_after_a_while() {
    let (world, _server, client) = world(fixed_latencies());
    let kind = world
        .block_on(async move {
            client
                .network()
                .connect("10.9.9.9:80")
                .await
                .unwrap_err()
                .kind()
        })
        .unwrap();
    assert_eq!(
        (kind, world.now()),
        (std::io::ErrorKind::HostUnreachable, Duration::from_secs(3))
    );
}

#[test]
fn a_writer_waits_for_a_reader_that_does_not_read() {
    let config = NetworkConfiguration {
        send_buffer_bytes: Some(1000),
        receive_buffer_bytes: 500,
        ..fixed_latencies()
    };
    let (world, server, client) = world(config);
    let (written, streams) = world
        .block_on(async move {
            let (mut dialled, accepted) = pair(&server, &client).await;
            let mut written = 0;
            loop {
                let write = dialled.write(&[7; 300]);
                match client.time().timeout(Duration::from_secs(5), write).await {
                    Ok(n) => written += n.unwrap(),
                    Err(_) => break (written, (dialled, accepted)),
                }
            }
        })
        .unwrap();
    // One segment is let into the reader's buffer, a second would not fit, and the rest fills the
    // send buffer.
    assert_eq!(written, 300 + 1000);
    let (mut dialled, mut accepted) = streams;
    let read = world
        .block_on(async move {
            dialled.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            accepted.read_to_end(&mut bytes).await.unwrap();
            bytes.len()
        })
        .unwrap();
    assert_eq!(read, written);
}

#[test]
fn connections_and_ports_are_forgotten_when_both_ends_are_gone() {
    let (world, server, client) = world(NetworkConfiguration::fast_local());
    world
        .block_on(async move {
            let listener = server.network().bind("server:80").await.unwrap();
            // More than there are ephemeral ports: a leaked one would run out.
            for _ in 0..30_000 {
                let dialled = client.network().connect("server:80").await.unwrap();
                let (accepted, _) = listener.accept().await.unwrap();
                drop((dialled, accepted));
            }
        })
        .unwrap();
    world.run_until_empty().unwrap();
    let left = world.leftovers();
    assert_eq!(
        (left.tasks, left.events, left.connections, left.listeners),
        (0, 0, 0, 0)
    );
}

#[test]
fn running_out_of_ports_is_an_error() {
    let (world, server, client) = world(NetworkConfiguration::fast_local());
    let (count, kind) = world
        .block_on(async move {
            let listener = server.network().bind("server:80").await.unwrap();
            let mut open = Vec::new();
            loop {
                match client.network().connect("server:80").await {
                    Ok(stream) => open.push((stream, listener.accept().await.unwrap())),
                    Err(error) => break (open.len(), error.kind()),
                }
            }
        })
        .unwrap();
    assert_eq!(
        (count, kind),
        (28_232, std::io::ErrorKind::AddrNotAvailable)
    );
}

#[test]
fn a_full_backlog_makes_connects_try_again_and_loses_none() {
    let (world, server, client) = world(NetworkConfiguration::fast_local());
    let accepted = world
        .block_on(async move {
            let listener = server.network().bind("server:80").await.unwrap();
            for _ in 0..1500 {
                let client = client.clone();
                client.task().clone().spawn_task("dialler", async move {
                    let mut stream = client.network().connect("server:80").await.unwrap();
                    stream.write_all(b"x").await.unwrap();
                });
            }
            server.time().sleep(Duration::from_millis(500)).await;
            let mut accepted = 0;
            while accepted < 1500 {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
                accepted += 1;
            }
            accepted
        })
        .unwrap();
    assert_eq!(accepted, 1500);
    assert!(world.now() > Duration::from_secs(1));
}

#[test]
fn segments_of_one_direction_keep_their_order_whatever_they_draw() {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::uniform(Duration::ZERO, Duration::from_secs(1)),
        ..NetworkConfiguration::disabled()
    };
    let (world, server, client) = world(config);
    let bytes = world
        .block_on(async move {
            let (mut dialled, mut accepted) = pair(&server, &client).await;
            for byte in 0..=255 {
                dialled.write_u8(byte).await.unwrap();
            }
            dialled.shutdown().await.unwrap();
            let mut bytes = Vec::new();
            accepted.read_to_end(&mut bytes).await.unwrap();
            bytes
        })
        .unwrap();
    assert_eq!(bytes, (0..=255).collect::<Vec<_>>());
}

#[test]
fn segments_of_one_direction_arrive_at_instants_of_their_own() {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::uniform(Duration::ZERO, Duration::from_secs(1)),
        read_latency: fixed(0),
        ..NetworkConfiguration::disabled()
    };
    let (world, server, client) = world(config);
    let arrivals = world
        .block_on(async move {
            let (mut dialled, mut accepted) = pair(&server, &client).await;
            for byte in 0..50 {
                dialled.write_u8(byte).await.unwrap();
            }
            let mut arrivals = Vec::new();
            for _ in 0..50 {
                accepted.read_u8().await.unwrap();
                arrivals.push(server.time().now());
            }
            arrivals
        })
        .unwrap();
    assert!(
        arrivals.windows(2).all(|pair| pair[0] < pair[1]),
        "{arrivals:?}"
    );
}

#[test]
fn a_blocked_writer_is_woken_as_the_buffer_drains() {
    let (world, server, client) = world(fixed_latencies());
    let (finished, end) = world
        .block_on(async move {
            let (mut dialled, mut accepted) = pair(&server, &client).await;
            let writer = client.task().spawn_task("writer", async move {
                dialled.write_all(&vec![1; 1 << 20]).await.unwrap();
            });
            let mut bytes = Vec::new();
            accepted.read_to_end(&mut bytes).await.unwrap();
            (bytes.len(), writer.await)
        })
        .unwrap();
    assert_eq!((finished, end), (1 << 20, Ok(())));
}

/// What Linux gives. It is no case of the conformance suite, because not every machine that runs that
/// has IPv6.
#[test]
fn the_wildcard_of_ipv4_takes_no_ipv6_and_that_of_ipv6_takes_both() {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config(config).unwrap();
    let network = world.network_provider();
    let at = |ip: &str, port: &str| format!("{ip}:{port}");
    let (v4, v6) = world
        .block_on(async move {
            let port_of = |addr: String| addr.rsplit(':').next().unwrap().to_owned();
            let v4 = network.bind("0.0.0.0:0").await.unwrap();
            let port = port_of(v4.local_addr().unwrap());
            let mut with_v4 = Vec::new();
            for ip in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
                let connected = network.connect(&at(ip, &port)).await;
                with_v4.push(connected.map(drop).map_err(|error| error.kind()));
            }
            let beside = network.bind(&at("[::1]", &port)).await;
            with_v4.push(beside.map(drop).map_err(|error| error.kind()));
            let over = network.bind(&at("[::]", &port)).await;
            with_v4.push(over.map(drop).map_err(|error| error.kind()));

            let v6 = network.bind("[::]:0").await.unwrap();
            let port = port_of(v6.local_addr().unwrap());
            let mut with_v6 = Vec::new();
            for ip in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
                let stream = network.connect(&at(ip, &port)).await.unwrap();
                let peer = stream.peer_addr().unwrap();
                with_v6.push(peer.strip_suffix(&format!(":{port}")).unwrap().to_owned());
            }
            let beside = network.bind(&at("127.0.0.1", &port)).await;
            assert_eq!(beside.unwrap_err().kind(), ErrorKind::AddrInUse);
            (with_v4, with_v6)
        })
        .unwrap();
    let (refused, taken) = (ErrorKind::ConnectionRefused, ErrorKind::AddrInUse);
    assert_eq!(
        v4,
        [
            Ok(()),
            Ok(()),
            Err(refused),
            Err(refused),
            Ok(()),
            Err(taken)
        ]
    );
    assert_eq!(v6, ["127.0.0.1", "127.0.0.1", "[::1]", "[::1]"]);
}
