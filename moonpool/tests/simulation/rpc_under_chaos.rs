//! The clients of the other scenarios under faults of the network, with servers that die: every
//! outcome is compared with what servers executed, across all nodes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use moonpool::foundation::{
    Attrition, FaultKind, NetworkConfiguration, Phases, SimProviders, SimulationBuilder,
    SimulationMetrics, SimulationResult, WorkloadTopology,
};
use moonpool::prelude::*;

use super::messages::{PORT, WORK, Work};
use super::operations::Weights;
use super::workloads::{Target, assert_held, check_gauges, execute};

/// What each server executed of each client's requests, in order; it survives them.
#[derive(Default)]
struct Executed(RefCell<BTreeMap<(String, String), Vec<u64>>>);

const GRACE: Duration = Duration::from_secs(1);

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = NetworkAddress::new(topology.my_ip.parse().unwrap(), PORT);
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let work = transport.register_handler::<Work, _>(WORK, JsonCodec);
    let executed = topology.shared::<Executed>();
    loop {
        moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            Some((request, promise)) = work.recv_with_transport(&transport) => {
                let request: Work = request;
                let key = (topology.my_ip.clone(), request.client.clone());
                executed.0.borrow_mut().entry(key).or_default().push(request.id);
                execute(&providers, request, promise);
            }
            else => break,
        }
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(())
}

/// What clients do and suffer.
#[derive(Clone, Copy)]
struct Plan {
    clients: usize,
    servers: usize,
    operations: u64,
    weights: Weights,
    servers_die: bool,
}

async fn call(
    providers: SimProviders,
    topology: WorkloadTopology,
    plan: Plan,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let mut targets = Target::all(&providers, &topology, &transport, plan.servers_die);
    for id in 0..plan.operations {
        let pick = providers.random().random_range(0..targets.len());
        let op = plan.weights.draw(providers.random());
        targets[pick].perform(id, op).await;
    }
    let executed = topology.shared::<Executed>();
    for target in &mut targets {
        target.await_all().await;
        let key = (target.server_ip(), target.name().to_owned());
        let executed = executed.0.borrow().get(&key).cloned();
        target.check_against(&executed.unwrap_or_default());
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(SimulationMetrics::default())
}

fn campaign(plan: Plan, network: NetworkConfiguration) -> SimulationBuilder {
    let mut builder = SimulationBuilder::new()
        .with_network_config(network)
        .shutdown_after_all()
        .phases(Phases {
            chaos: Duration::from_secs(2)..Duration::from_secs(20),
            ..Phases::default()
        });
    if plan.servers_die {
        builder = builder.attrition(Attrition {
            probability: 0.3,
            max_dead: plan.servers.div_ceil(2),
            ..Attrition::default()
        });
    }
    for number in 0..plan.servers {
        builder = builder.process(format!("server-{number}"), serve);
    }
    for number in 0..plan.clients {
        let name = format!("client-{number}");
        builder = builder.register_providers_workload(name, move |providers, topology| {
            call(providers, topology, plan)
        });
    }
    builder
}

const HAPPY: Plan = Plan {
    clients: 2,
    servers: 1,
    operations: 100,
    weights: Weights::HAPPY_PATH,
    servers_die: false,
};

const SUCCESS: &[&str] = &[
    "rpc_request_sent",
    "rpc_server_received_request",
    "rpc_response_sent",
    "rpc_success_path",
];

#[test]
fn slow_simulation_rpc_happy_path() {
    let report = campaign(HAPPY, NetworkConfiguration::chaos())
        .with_seed_range(0..100)
        .run();
    assert_held(&report, SUCCESS);
}

#[test]
fn slow_simulation_rpc_error_paths() {
    let plan = Plan {
        servers: 2,
        weights: Weights::ERRORS,
        servers_die: true,
        ..HAPPY
    };
    let report = campaign(plan, NetworkConfiguration::chaos())
        .with_seed_range(0..100)
        .run();
    assert_held(&report, SUCCESS);
    let errors = [
        "rpc_promise_dropped",
        "rpc_broken_promise_path",
        "rpc_timeout_path",
    ];
    assert_held(&report, &errors);
}

/// Congestion and nothing else: messages queue up, and no session ends.
#[test]
fn slow_simulation_rpc_with_clogging() {
    let mut network = NetworkConfiguration::disabled();
    network.chaos.write_clog_probability = 0.05;
    network.chaos.read_clog_probability = 0.05;
    let report = campaign(HAPPY, network).with_seed_range(0..100).run();
    assert_held(&report, SUCCESS);
    for kind in [FaultKind::WriteClog, FaultKind::ReadClog] {
        assert!(report.faults.of(kind) > 100, "{kind}");
    }
}

#[test]
fn slow_simulation_multi_node_rpc_10x10() {
    let plan = Plan {
        clients: 10,
        servers: 10,
        weights: Weights::EVERYTHING,
        servers_die: true,
        ..HAPPY
    };
    let report = campaign(plan, NetworkConfiguration::chaos())
        .with_seed_range(0..20)
        .run();
    assert_held(&report, SUCCESS);
    assert!(report.faults.of(FaultKind::Kill) > 0);
}
