//! One test body, two worlds: real TCP on the loopback interface, and the simulator.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

#[cfg(feature = "sim")]
use moonpool::foundation::{FaultKind, NetworkConfiguration, SimProviders, SimWorld};
use moonpool::{
    FlowTransport, FlowTransportBuilder, JoinHandle, NetworkAddress, PeerConfig, Providers,
    TaskProvider, TimeProvider, TokioProviders, TransportStats,
};

/// A transport over a bundle of providers.
pub(crate) type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

/// Two hosts. In the real world both are this process.
pub(crate) struct Hosts<P> {
    pub server: P,
    pub client: P,
    pub server_ip: IpAddr,
}

impl<P: Providers> Hosts<P> {
    /// A builder for the server, listening on a free port.
    pub(crate) fn server_builder(&self) -> FlowTransportBuilder<P::Network, P::Time, P::Task> {
        FlowTransportBuilder::from_providers(&self.server)
            .local_address(NetworkAddress::new(self.server_ip, 0))
    }

    pub(crate) async fn serve(&self) -> Rc<Transport<P>> {
        self.server_builder().build_listening().await.unwrap()
    }

    pub(crate) fn client_builder(&self) -> FlowTransportBuilder<P::Network, P::Time, P::Task> {
        FlowTransportBuilder::from_providers(&self.client)
    }

    pub(crate) fn connect(&self) -> Rc<Transport<P>> {
        self.client_builder().build()
    }

    /// Starts a task of the server.
    pub(crate) fn spawn_server<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        self.server.task().spawn_task("test-server", future)
    }

    /// Waits until the condition holds, however long that takes: a test that hangs is a red test.
    pub(crate) async fn until(&self, mut condition: impl FnMut() -> bool) {
        while !condition() {
            self.client.time().sleep(Duration::from_millis(1)).await;
        }
    }

    /// A failure to connect is reported this soon, after several attempts. In the real world it is
    /// waited for.
    pub(crate) fn impatient(&self) -> PeerConfig {
        PeerConfig {
            patience: Some(Duration::from_millis(250)),
            ..PeerConfig::default()
        }
    }
}

pub(crate) fn gauges(stats: &TransportStats) -> Vec<(&'static str, usize)> {
    vec![
        ("peers", stats.peers),
        ("incoming_connections", stats.incoming_connections),
        ("endpoints", stats.endpoints),
        ("incoming_sessions", stats.incoming_sessions),
        ("pending_calls", stats.pending_calls),
        ("open_requests", stats.open_requests),
        ("watches", stats.watches),
        ("missing_endpoints", stats.missing_endpoints),
        ("queued_packets", stats.queued_packets),
        ("queued_bytes", stats.queued_bytes),
        ("local_packets", stats.local_packets),
        ("local_bytes", stats.local_bytes),
        ("tasks", stats.tasks),
    ]
}

/// Shuts a transport down and checks that nothing of it is left.
pub(crate) async fn shut_down<P: Providers>(transport: &Transport<P>) {
    transport.shutdown(Duration::from_secs(1)).await;
    let left: Vec<_> = gauges(&transport.stats())
        .into_iter()
        .filter(|(_, gauge)| *gauge != 0)
        .collect();
    assert!(left.is_empty(), "left after shutdown: {left:?}");
}

/// Runs a body on real TCP.
pub(crate) fn on_tokio<Fut: Future>(
    body: impl FnOnce(Hosts<TokioProviders>) -> Fut,
) -> Fut::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let hosts = Hosts {
        server: TokioProviders::new(),
        client: TokioProviders::new(),
        server_ip: Ipv4Addr::LOCALHOST.into(),
    };
    runtime.block_on(body(hosts))
}

/// Runs a body in simulated worlds, which have to end without a task, connection or listener. The
/// first two seeds run twice, and have to agree in every step.
#[cfg(feature = "sim")]
pub(crate) fn in_simulation<Fut: Future>(seeds: u64, body: impl Fn(Hosts<SimProviders>) -> Fut) {
    in_simulation_over(&reachable(), seeds, body);
}

/// The same over a network without any fault, for bytes that nobody sends again.
#[cfg(feature = "sim")]
pub(crate) fn in_faultless_simulation<Fut: Future>(
    seeds: u64,
    body: impl Fn(Hosts<SimProviders>) -> Fut,
) {
    in_simulation_over(&NetworkConfiguration::disabled(), seeds, body);
}

#[cfg(feature = "sim")]
fn in_simulation_over<Fut: Future>(
    network: &NetworkConfiguration,
    seeds: u64,
    body: impl Fn(Hosts<SimProviders>) -> Fut,
) {
    for seed in 0..seeds {
        let digest = simulate_over(network, seed, &body);
        if seed < 2 {
            let again = simulate_over(network, seed, &body);
            assert_eq!(again, digest, "seed {seed} does not repeat");
        }
    }
}

/// The default network, where who is dialled answers and no connection closes by chance: these tests
/// break connections themselves, and count what comes of it.
#[cfg(feature = "sim")]
fn reachable() -> NetworkConfiguration {
    NetworkConfiguration::default()
        .without(FaultKind::ConnectRefused)
        .without(FaultKind::ConnectHang)
        .without(FaultKind::RandomClose)
}

#[cfg(feature = "sim")]
pub(crate) fn simulate<Fut: Future>(seed: u64, body: &impl Fn(Hosts<SimProviders>) -> Fut) -> u64 {
    simulate_over(&reachable(), seed, body)
}

#[cfg(feature = "sim")]
fn simulate_over<Fut: Future>(
    network: &NetworkConfiguration,
    seed: u64,
    body: &impl Fn(Hosts<SimProviders>) -> Fut,
) -> u64 {
    let world = SimWorld::new_with_network_config_and_seed(network.clone(), seed).unwrap();
    world.set_time_budget(Some(Duration::from_secs(600)));
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let hosts = Hosts {
        server: server.providers(),
        client: client.providers(),
        server_ip: server.ip(),
    };
    if let Err(error) = world.block_on(body(hosts)) {
        panic!("seed {seed}: {error}");
    }
    if let Err(error) = world.run_until_empty() {
        panic!("seed {seed}, after the end: {error}");
    }
    let left = world.leftovers();
    assert_eq!(
        (left.tasks, left.connections, left.listeners),
        (0, 0, 0),
        "seed {seed}: left behind: {left:?} {:?}",
        world.pending_tasks()
    );
    world.digest()
}

/// A test of each name in each world, from an `async fn name<P: Providers>(hosts: Hosts<P>)`.
#[macro_export]
macro_rules! in_both_worlds {
    ($($name:ident: $seeds:expr;)*) => {
        $(mod $name {
            #[test]
            fn real() {
                $crate::common::on_tokio(super::$name);
            }

            #[cfg(feature = "sim")]
            #[test]
            fn simulated() {
                $crate::common::in_simulation($seeds, super::$name);
            }
        })*
    };
}
