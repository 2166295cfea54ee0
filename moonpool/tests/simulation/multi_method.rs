//! An interface of several methods under chaos: each request reaches the handler of its method.

use std::time::Duration;

use moonpool::RetryPolicy;
use moonpool::foundation::{
    NetworkConfiguration, Phases, SimProviders, SimulationBuilder, SimulationMetrics,
    SimulationReport, SimulationResult, WorkloadTopology, always_assert, sometimes_assert,
};
use moonpool::prelude::*;
use serde::{Deserialize, Serialize};

use super::workloads::check_gauges;

const CALCULATOR: u64 = 0xCA1C;
const ADD: u64 = 0;
const SUBTRACT: u64 = 1;
const MULTIPLY: u64 = 2;

/// The same for all methods, so that a request that takes a wrong turn still decodes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Operands {
    method: u64,
    left: i64,
    right: i64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    method: u64,
    result: i64,
}

const GRACE: Duration = Duration::from_secs(1);

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = format!("{}:4500", topology.my_ip).parse().unwrap();
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let register = |method| {
        let registered =
            transport.register_handler_at::<Operands, _>(CALCULATOR, method, JsonCodec);
        registered.0
    };
    let (add, subtract, multiply) = (register(ADD), register(SUBTRACT), register(MULTIPLY));
    loop {
        moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            Some((operands, reply)) = add.recv_with_transport(&transport) => {
                answer(ADD, operands, reply, operands.left + operands.right);
            }
            Some((operands, reply)) = subtract.recv_with_transport(&transport) => {
                answer(SUBTRACT, operands, reply, operands.left - operands.right);
            }
            Some((operands, reply)) = multiply.recv_with_transport(&transport) => {
                answer(MULTIPLY, operands, reply, operands.left * operands.right);
            }
            else => break,
        }
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(())
}

fn answer(method: u64, operands: Operands, reply: ReplyPromise<Answered, JsonCodec>, result: i64) {
    always_assert!(
        a_request_reaches_its_method,
        operands.method == method,
        "method {method} was given {operands:?}"
    );
    sometimes_assert!(multi_method_add, method == ADD, "a sum");
    sometimes_assert!(multi_method_subtract, method == SUBTRACT, "a difference");
    sometimes_assert!(multi_method_multiply, method == MULTIPLY, "a product");
    reply.send(Answered { method, result });
}

/// Calls all methods at once, again and again.
async fn multi_method_workload(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let server = topology.get_peer_by_name("server").unwrap();
    let server: NetworkAddress = format!("{server}:4500").parse().unwrap();
    for _ in 0..20 {
        let mut calls = Vec::new();
        for method in [ADD, SUBTRACT, MULTIPLY] {
            let (left, right) = (
                i64::from(providers.random().random::<i32>()),
                i64::from(providers.random().random::<i32>()),
            );
            let operands = Operands {
                method,
                left,
                right,
            };
            let result = match method {
                ADD => left + right,
                SUBTRACT => left - right,
                _ => left * right,
            };
            let endpoint = Endpoint::new(server, UID::new(CALCULATOR, method));
            let call = transport.call(&endpoint, operands, JsonCodec);
            let call = call
                .retry(RetryPolicy::new())
                .timeout(Duration::from_secs(300));
            let reply: ReplyFuture<Answered, _> = call.send().unwrap();
            calls.push((reply, Answered { method, result }));
        }
        for (reply, expected) in calls {
            assert_eq!(reply.await, Ok(expected));
        }
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(SimulationMetrics::default())
}

fn run(network: NetworkConfiguration, seeds: u64) -> SimulationReport {
    SimulationBuilder::new()
        .with_network_config(network)
        .phases(Phases {
            chaos: Duration::from_secs(2)..Duration::from_secs(20),
            ..Phases::default()
        })
        .coverage(["simulation::multi_method"])
        .with_seed_range(0..seeds)
        .shutdown_after_all()
        .process("server", serve)
        .register_providers_workload("client-1", multi_method_workload)
        .register_providers_workload("client-2", multi_method_workload)
        .run()
}

#[test]
fn test_multi_method_basic() {
    run(NetworkConfiguration::default(), 50).assert_passed();
}

#[test]
fn slow_simulation_multi_method() {
    run(NetworkConfiguration::chaos(), 100).assert_passed();
}
