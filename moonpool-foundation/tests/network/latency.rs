//! How long segments take: models, base latencies of pairs, delays of connections.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool_foundation::{
    FaultKind, LatencyModel, NetworkConfiguration, NetworkProvider, SimConnection, SimProcess,
    SimTcpStream, SimWorld, TcpListenerTrait,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MILLISECOND: Duration = Duration::from_millis(1);

fn immediate() -> NetworkConfiguration {
    let none = LatencyModel::fixed(Duration::ZERO);
    NetworkConfiguration {
        bind_latency: none,
        accept_latency: none,
        connect_latency: none,
        read_latency: none,
        write_latency: none,
        ..NetworkConfiguration::disabled()
    }
}

struct Hosts {
    world: SimWorld,
    server: SimProcess,
    client: SimProcess,
}

fn hosts(config: NetworkConfiguration, seed: u64) -> Hosts {
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    Hosts {
        world,
        server,
        client,
    }
}

impl Hosts {
    /// One more connection from the client to the server.
    fn connect(&self) -> (SimTcpStream, SimTcpStream, SimConnection) {
        let (accepting, connecting) = (
            self.server.network_provider(),
            self.client.network_provider(),
        );
        let streams = self.world.block_on(async move {
            let listener = accepting.bind("server:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let dialled = connecting.connect(&address).await.unwrap();
            (dialled, listener.accept().await.unwrap().0)
        });
        let (dialled, accepted) = streams.unwrap();
        let connection = self.world.connections().pop().unwrap();
        (dialled, accepted, connection)
    }

    /// How long a byte takes from one end to the other.
    fn travel(&self, from: &mut SimTcpStream, to: &mut SimTcpStream) -> Duration {
        let began = self.world.now();
        self.world
            .block_on(async {
                from.write_all(b"x").await.unwrap();
                to.read_u8().await.unwrap();
            })
            .unwrap();
        self.world.now() - began
    }
}

#[test]
fn the_long_tail_is_rare_and_long() {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::LONG_TAIL,
        ..immediate()
    };
    let hosts = hosts(config, 1);
    let (mut dialled, mut accepted, _) = hosts.connect();
    let micros = Duration::from_micros;
    let mut tails = Vec::new();
    let mut usual = Vec::new();
    for _ in 0..10_000 {
        let travel = hosts.travel(&mut dialled, &mut accepted);
        assert!(
            (micros(100)..=100 * MILLISECOND).contains(&travel),
            "{travel:?}"
        );
        if travel > micros(800) {
            tails.push(travel);
        } else {
            usual.push(travel);
        }
    }
    assert!((3..25).contains(&tails.len()), "{tails:?}");
    assert!(
        tails.iter().any(|tail| *tail > 20 * MILLISECOND),
        "{tails:?}"
    );
    assert!(usual.iter().any(|usual| *usual < micros(150)));
    assert!(usual.iter().any(|usual| *usual > micros(750)));
    let counted = hosts.world.fault_counts().of(FaultKind::LongTail);
    assert_eq!(counted, tails.len() as u64);
}

#[test]
fn a_pair_keeps_its_base_latency_and_each_direction_has_its_own() {
    let config = NetworkConfiguration {
        pair_latency: LatencyModel::uniform(MILLISECOND, 50 * MILLISECOND),
        ..immediate()
    };
    let mut drawn = BTreeSet::new();
    for seed in 0..10 {
        let hosts = hosts(config.clone(), seed);
        let (mut dialled, mut accepted, connection) = hosts.connect();
        let there = hosts.travel(&mut dialled, &mut accepted);
        let back = hosts.travel(&mut accepted, &mut dialled);
        assert_eq!(hosts.travel(&mut dialled, &mut accepted), there);
        let (mut dialled, mut accepted, again) = hosts.connect();
        assert_eq!(hosts.travel(&mut dialled, &mut accepted), there);
        let (server, client) = (hosts.server.ip(), hosts.client.ip());
        assert_eq!(hosts.world.get_pair_latency(client, server), Some(there));
        assert_eq!(hosts.world.get_pair_latency(server, client), Some(back));
        assert_eq!(hosts.world.get_connection_latency(connection), there);
        assert_eq!(hosts.world.get_connection_latency(again), there);
        drawn.extend([there, back]);
    }
    assert_eq!(drawn.len(), 20);
}

#[test]
fn a_base_latency_that_is_set_first_holds() {
    let config = NetworkConfiguration {
        pair_latency: LatencyModel::uniform(MILLISECOND, 50 * MILLISECOND),
        ..immediate()
    };
    let hosts = hosts(config, 1);
    let (server, client) = (hosts.server.ip(), hosts.client.ip());
    let long = 70 * MILLISECOND;
    let set = |latency| {
        hosts
            .world
            .set_pair_latency_if_not_set(client, server, latency)
    };
    assert_eq!(set(long), long);
    assert_eq!(set(MILLISECOND), long);
    let (mut dialled, mut accepted, _) = hosts.connect();
    assert_eq!(hosts.travel(&mut dialled, &mut accepted), long);
    assert!(hosts.travel(&mut accepted, &mut dialled) <= 50 * MILLISECOND);
}

#[test]
fn jitter_lies_on_top_of_the_base_latency() {
    let config = NetworkConfiguration {
        pair_latency: LatencyModel::fixed(10 * MILLISECOND),
        pair_latency_jitter: 5 * MILLISECOND,
        ..immediate()
    };
    let hosts = hosts(config, 1);
    let (mut dialled, mut accepted, _) = hosts.connect();
    let mut travels = BTreeSet::new();
    for _ in 0..50 {
        travels.insert(hosts.travel(&mut dialled, &mut accepted));
    }
    assert_eq!(travels.len(), 50);
    assert!(travels.first() >= Some(&(10 * MILLISECOND)));
    assert!(travels.last() <= Some(&(15 * MILLISECOND)));
    assert!(travels.last() > Some(&(14 * MILLISECOND)));
}

#[test]
fn a_process_has_no_base_latency_to_itself() {
    let config = NetworkConfiguration {
        pair_latency: LatencyModel::fixed(10 * MILLISECOND),
        ..immediate()
    };
    let mut hosts = hosts(config, 1);
    hosts.client = hosts.server.clone();
    let (mut dialled, mut accepted, _) = hosts.connect();
    assert!(hosts.travel(&mut dialled, &mut accepted) < MILLISECOND);
}

#[test]
fn a_quarter_of_the_connections_has_delays_of_its_own_in_each_direction() {
    let config = NetworkConfiguration {
        asymmetric_delay_probability: 0.25,
        asymmetric_delay: MILLISECOND..=20 * MILLISECOND,
        ..immediate()
    };
    let hosts = hosts(config, 1);
    let mut delayed = 0;
    for _ in 0..200 {
        let (mut dialled, mut accepted, connection) = hosts.connect();
        let (send, receive) = (
            hosts.world.get_send_delay(connection),
            hosts.world.get_recv_delay(connection),
        );
        let there = hosts.travel(&mut dialled, &mut accepted);
        let back = hosts.travel(&mut accepted, &mut dialled);
        // Segments of one direction are a nanosecond apart at least.
        assert!(
            there.saturating_sub(send) <= Duration::from_nanos(1),
            "{there:?} {send:?}"
        );
        assert!(
            back.saturating_sub(receive) <= Duration::from_nanos(1),
            "{back:?}"
        );
        if send != Duration::ZERO {
            assert_ne!(send, receive);
            delayed += 1;
        }
    }
    assert!((30..70).contains(&delayed), "{delayed}");
    let counted = hosts.world.fault_counts().of(FaultKind::AsymmetricDelay);
    assert_eq!(counted, delayed);
}

#[test]
fn asymmetric_delays_are_set_by_call() {
    let hosts = hosts(immediate(), 1);
    let (mut dialled, mut accepted, connection) = hosts.connect();
    let (send, receive) = (3 * MILLISECOND, 7 * MILLISECOND);
    hosts.world.set_asymmetric_delays(connection, send, receive);
    assert_eq!(hosts.travel(&mut dialled, &mut accepted), send);
    assert_eq!(hosts.travel(&mut accepted, &mut dialled), receive);
    assert_eq!(hosts.world.get_send_delay(connection), send);
    assert_eq!(hosts.world.get_recv_delay(connection), receive);
}
