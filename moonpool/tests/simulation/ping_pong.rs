//! The basic scenarios of FoundationDB's network tests (`fdbserver/workloads/Ping.actor.cpp`,
//! `ClogSingleConnection.actor.cpp`): typed messages between two hosts, connections that fail and
//! recover, endpoints that are not there, promises that are kept and broken.

use std::time::Duration;

use moonpool::foundation::{
    ConnectFailureMode, FaultKind, NetworkConfiguration, Phases, SimProviders, SimulationBuilder,
    SimulationMetrics, SimulationResult, WorkloadTopology, clog_random_pair, disconnect_pair_for,
    enable_connection_failures, sometimes_assert,
};
use moonpool::prelude::*;
use moonpool::{RetryPolicy, SimulationError, buggify_with_prob};
use serde::{Deserialize, Serialize};

use super::workloads::{assert_held, check_gauges};

#[derive(Debug, Serialize, Deserialize)]
struct Ping {
    number: u64,
    /// What is to become of the promise.
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fate {
    Kept,
    /// Kept by another task, later.
    KeptLater,
    Dropped,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pong {
    number: u64,
}

const PING: UID = UID::new(0x9176, 1);
const NOBODY: UID = UID::new(0x9176, 2);
const GRACE: Duration = Duration::from_secs(1);

fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = format!("{}:4500", topology.my_ip).parse().map_err(boxed)?;
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.map_err(boxed)?;
    let pings = transport.register_handler::<Ping, _>(PING, JsonCodec);
    loop {
        let received = moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            received = pings.recv_with_transport(&transport) => received,
        };
        let Some((Ping { number, fate }, promise)) = received else {
            break;
        };
        let promise: ReplyPromise<Pong, JsonCodec> = promise;
        match fate {
            Fate::Kept => promise.send(Pong { number }),
            Fate::KeptLater => {
                let time = providers.time().clone();
                drop(providers.task().spawn_task("keep a promise", async move {
                    time.sleep(Duration::from_millis(20)).await;
                    promise.send(Pong { number });
                }));
            }
            Fate::Dropped => drop(promise),
        }
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(())
}

struct Client {
    transport: std::rc::Rc<super::rpc_oracle::SimTransport>,
    server: NetworkAddress,
}

impl Client {
    fn new(providers: &SimProviders, topology: &WorkloadTopology) -> Self {
        let ip = topology.get_peer_by_name("server").unwrap();
        Self {
            transport: FlowTransportBuilder::from_providers(providers).build(),
            server: format!("{ip}:4500").parse().unwrap(),
        }
    }

    async fn ping(&self, token: UID, number: u64, fate: Fate) -> Result<Pong, ReplyError> {
        let endpoint = Endpoint::new(self.server, token);
        send_request(&self.transport, &endpoint, Ping { number, fate }, JsonCodec)?.await
    }

    /// For a request that may be executed twice.
    async fn insist(&self, number: u64) -> Result<Pong, ReplyError> {
        let endpoint = Endpoint::new(self.server, PING);
        let fate = Fate::Kept;
        let call = self
            .transport
            .call(&endpoint, Ping { number, fate }, JsonCodec);
        let call = call
            .retry(RetryPolicy::new())
            .timeout(Duration::from_secs(300));
        call.send()?.await
    }

    async fn finish(self) -> SimulationResult<SimulationMetrics> {
        self.transport.shutdown(GRACE).await;
        check_gauges(&self.transport.stats());
        Ok(SimulationMetrics::default())
    }
}

/// Who is dialled answers, and nothing closes by chance: what a call gives is what was asked for.
fn calm() -> SimulationBuilder {
    let mut network = NetworkConfiguration::default().without(FaultKind::RandomClose);
    network.chaos.connect_failure_mode = ConnectFailureMode::Disabled;
    SimulationBuilder::new()
        .with_network_config(network)
        .process("server", serve)
}

#[test]
fn test_ping_pong_simulation() {
    let report = calm()
        .with_seed_range(0..1000)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            for number in 0..5 {
                let pong = client.ping(PING, number, Fate::Kept).await;
                assert_eq!(pong, Ok(Pong { number }));
            }
            client.finish().await
        })
        .run();
    report.assert_passed();
    assert_eq!(report.successful_runs, 1000);
}

#[test]
fn test_connection_failure_recovery() {
    let report = SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::chaos())
        .phases(Phases {
            chaos: Duration::from_secs(5)..Duration::from_secs(10),
            ..Phases::default()
        })
        .with_seed_range(0..60)
        .process("server", serve)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            for number in 0..30 {
                if buggify_with_prob!(0.5)
                    && let Some(world) = topology.world()
                {
                    for connection in world.connections() {
                        world.close_connection_abort(connection);
                    }
                    sometimes_assert!(a_disconnection_was_injected, true, "by buggify");
                }
                assert_eq!(client.insist(number).await, Ok(Pong { number }));
                let pause = providers.random().random_range(0..100);
                providers.time().sleep(Duration::from_millis(pause)).await;
            }
            let peer = client.transport.get_or_open_peer(&client.server).unwrap();
            let attempts = peer.metrics().connection_attempts;
            sometimes_assert!(a_client_reconnected, attempts > 1, "it dialled again");
            drop(peer);
            client.finish().await
        })
        .run();
    assert_held(
        &report,
        &["a_disconnection_was_injected", "a_client_reconnected"],
    );
}

#[test]
fn test_endpoint_not_found() {
    let report = calm()
        .with_seed_range(0..100)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            for token in [NOBODY, UID::well_known(40)] {
                let began = providers.time().now();
                let outcome = client.ping(token, 7, Fate::Kept).await;
                assert_eq!(outcome, Err(ReplyError::EndpointNotFound));
                // At once: the server says so, no deadline passes.
                assert!(providers.time().now() - began < Duration::from_secs(5));
            }
            assert!(client.ping(PING, 7, Fate::Kept).await.is_ok());
            client.finish().await
        })
        .run();
    assert_held(&report, &["dispatch_undelivered"]);
}

#[test]
fn test_reply_promise_network() {
    let report = calm()
        .with_seed_range(0..100)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            for number in 0..10 {
                let pong = client.ping(PING, number, Fate::KeptLater).await;
                assert_eq!(pong, Ok(Pong { number }));
            }
            client.finish().await
        })
        .run();
    assert_held(&report, &["reply_sent", "reply_received"]);
}

#[test]
fn test_broken_promise() {
    let report = calm()
        .with_seed_range(0..100)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            let outcome = client.ping(PING, 7, Fate::Dropped).await;
            assert_eq!(outcome, Err(ReplyError::BrokenPromise));
            client.finish().await
        })
        .run();
    assert_held(&report, &["broken_promise_detected"]);
}

/// The three patterns of chaos, each while a client insists on its answers.
#[test]
fn calls_get_through_clogs_disconnections_and_windows_of_failures() {
    let mut network = NetworkConfiguration::default();
    network.chaos.reset_probability = 0.1;
    let report = SimulationBuilder::new()
        .with_network_config(network)
        .with_seed_range(0..60)
        .process("server", serve)
        .register_providers_workload("client", |providers, topology| async move {
            let client = Client::new(&providers, &topology);
            let own: std::net::IpAddr = topology.my_ip.parse().unwrap();
            for number in 0..30 {
                let world = topology.world().unwrap();
                let duration = Duration::from_millis(providers.random().random_range(10..2_000));
                match providers.random().random_range(0..6) {
                    0 => clog_random_pair(&world),
                    1 => disconnect_pair_for(&world, own, &client.server, duration),
                    2 => enable_connection_failures(&world, duration),
                    _ => {}
                }
                drop(world);
                assert_eq!(client.insist(number).await, Ok(Pong { number }));
            }
            client.finish().await
        })
        .run();
    report.assert_passed();
    for kind in [FaultKind::PairClog, FaultKind::Disconnect] {
        assert!(report.faults.of(kind) > 0, "{kind}");
    }
}

#[test]
fn test_build_listening_in_simulation() {
    SimulationBuilder::new()
        .with_seed_range(0..20)
        .register_providers_workload("host", |providers, topology| async move {
            let address: NetworkAddress = format!("{}:4500", topology.my_ip).parse().unwrap();
            let builder = || FlowTransportBuilder::from_providers(&providers);
            let listening = builder().local_address(address).build_listening().await;
            let listening = listening.unwrap();
            assert_eq!(listening.local_address(), Some(address));
            let taken = builder().local_address(address).build_listening().await;
            assert!(
                matches!(&taken, Err(BuildError::Bind { source, .. })
                    if source.kind() == std::io::ErrorKind::AddrInUse),
                "{taken:?}"
            );
            let nowhere = builder().build_listening().await;
            assert!(matches!(nowhere, Err(BuildError::MissingLocalAddress)));
            listening.shutdown(GRACE).await;
            let again = builder().local_address(address).build_listening().await;
            again.unwrap().shutdown(GRACE).await;
            Ok(SimulationMetrics::default())
        })
        .run()
        .assert_passed();
}
