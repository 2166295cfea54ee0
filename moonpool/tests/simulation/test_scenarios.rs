//! The scenarios: workloads, how many of each, over how many seeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use moonpool::foundation::{
    FaultKind, NetworkConfiguration, SimProviders, SimulationBuilder, SimulationMetrics,
};

use super::local::{endpoint_lifecycle_workload, local_delivery_workload};
use super::operations::Weights;
use super::workloads::{ClientPlan, ServerPlan, assert_held, client, server};

/// What all clients of all seeds saw together.
#[derive(Clone, Default)]
struct Totals {
    answered: Arc<AtomicUsize>,
    maybe_delivered: Arc<AtomicUsize>,
}

struct Scenario {
    clients: usize,
    servers: usize,
    seeds: u64,
    server: ServerPlan,
    client: ClientPlan,
    /// What some seed has to reach.
    reached: &'static [&'static str],
}

/// Of requests that cross from one node to another.
const MULTI_NODE: &[&str] = &[
    "multi_node_server_listening",
    "multi_node_server_received_request",
    "multi_node_server_sent_response",
    "multi_node_client_sent_request",
    "multi_node_has_clients",
    "multi_node_has_servers",
    "multi_node_requests_sent",
    "multi_node_responses_sent",
];

/// Of those whose answers fail to come, as well.
const MULTI_NODE_ERRORS: &[&str] = &["multi_node_server_dropped_promise", "rpc_timeout_path"];

impl Scenario {
    /// `clients` x `servers`, where nothing fails.
    fn undisturbed(clients: usize, servers: usize, seeds: u64, weights: Weights) -> Self {
        Self {
            clients,
            servers,
            seeds,
            server: ServerPlan { deaths: 0 },
            client: ClientPlan {
                operations: 100,
                weights,
                undisturbed: true,
            },
            reached: MULTI_NODE,
        }
    }

    /// The same, where errors are reached.
    fn reaching_errors(self) -> Self {
        Self {
            reached: MULTI_NODE_ERRORS,
            ..self
        }
    }

    /// The same with servers that die and come back.
    fn with_deaths(mut self, deaths: u32) -> Self {
        self.server.deaths = deaths;
        self.client.undisturbed = false;
        self
    }

    /// Gives how many requests were answered, and how many were lost on the way.
    fn run(self) -> (usize, usize) {
        let totals = Totals::default();
        // A peer that is refused or not answered long enough gives up: those who count answers dial
        // servers that answer.
        let network = NetworkConfiguration::default()
            .without(FaultKind::ConnectRefused)
            .without(FaultKind::ConnectHang);
        let mut builder = SimulationBuilder::new()
            .with_network_config(network)
            .with_seed_range(0..self.seeds);
        for number in 0..self.servers {
            let plan = self.server;
            builder = builder.register_providers_workload(
                format!("server-{number}"),
                move |providers: SimProviders, topology| server(providers, topology, plan),
            );
        }
        for number in 0..self.clients {
            let (plan, totals) = (self.client, totals.clone());
            builder = builder.register_providers_workload(
                format!("client-{number}"),
                move |providers: SimProviders, topology| {
                    let totals = totals.clone();
                    async move {
                        let seen = client(providers, topology, plan).await;
                        totals.answered.fetch_add(seen.answered, Ordering::Relaxed);
                        let lost = &totals.maybe_delivered;
                        lost.fetch_add(seen.maybe_delivered, Ordering::Relaxed);
                        Ok(SimulationMetrics::default())
                    }
                },
            );
        }
        assert_held(&builder.run(), self.reached);
        let (answered, lost) = (&totals.answered, &totals.maybe_delivered);
        (
            answered.load(Ordering::Relaxed),
            lost.load(Ordering::Relaxed),
        )
    }
}

#[test]
fn test_local_delivery() {
    SimulationBuilder::new()
        .with_seed_range(0..100)
        .register_providers_workload("host", local_delivery_workload::<SimProviders>)
        .run()
        .assert_passed();
}

#[test]
fn test_endpoint_lifecycle() {
    SimulationBuilder::new()
        .with_seed_range(0..100)
        .register_providers_workload("host", endpoint_lifecycle_workload::<SimProviders>)
        .run()
        .assert_passed();
}

/// What stays in a process is not touched by what happens to the network.
#[test]
fn slow_simulation_local_delivery_and_endpoint_lifecycle() {
    SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::chaos())
        .with_seed_range(0..100)
        .shutdown_after_all()
        .register_providers_workload("messages", local_delivery_workload::<SimProviders>)
        .register_providers_workload("endpoints", endpoint_lifecycle_workload::<SimProviders>)
        .run()
        .assert_passed();
}

#[test]
fn test_rpc_basic_request_response() {
    let (answered, lost) = Scenario::undisturbed(1, 1, 100, Weights::HAPPY_PATH).run();
    assert!(answered > 1_000);
    assert_eq!(lost, 0);
}

#[test]
fn test_rpc_broken_promise() {
    let (_, lost) = Scenario::undisturbed(1, 1, 100, Weights::BROKEN_PROMISES).run();
    assert_eq!(lost, 0);
}

#[test]
fn test_multi_node_rpc_1x1() {
    Scenario::undisturbed(1, 1, 100, Weights::EVERYTHING).run();
}

#[test]
fn test_multi_node_rpc_2x1() {
    let scenario = Scenario::undisturbed(2, 1, 100, Weights::EVERYTHING);
    scenario.reaching_errors().run();
}

#[test]
fn test_multi_node_rpc_10x10() {
    Scenario::undisturbed(10, 10, 5, Weights::EVERYTHING).run();
}

#[test]
fn test_rpc_survives_server_restarts() {
    let scenario = Scenario::undisturbed(2, 2, 100, Weights::EVERYTHING).with_deaths(3);
    let (answered, lost) = scenario.run();
    assert!(answered > 1_000);
    assert!(lost > 0, "no server died at an awkward moment");
}

#[test]
fn slow_simulation_multi_node_rpc() {
    let mut scenario = Scenario::undisturbed(4, 3, 300, Weights::EVERYTHING).with_deaths(5);
    scenario.client.operations = 300;
    let (_, lost) = scenario.run();
    assert!(lost > 0, "no server died at an awkward moment");
}
