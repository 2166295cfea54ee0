//! Calls to servers that die, stand still and come back, under the seed runner.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{
    Attrition, FaultKind, KillKind, NetworkConfiguration, Phases, SimProviders, SimWorld,
    SimulationBuilder, SimulationMetrics, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{SimulationError, SimulationResult};

const DOUBLE: UID = UID::new(0xD1E5, 1);

fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

/// Takes requests and keeps their promises until it dies.
async fn hold(providers: SimProviders, held: Rc<RefCell<u32>>) {
    let address = "10.0.0.1:4500".parse().unwrap();
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(DOUBLE, JsonCodec);
    let mut promises = Vec::new();
    while let Some((number, reply)) = requests.recv_with_transport(&transport).await {
        let number: u64 = number;
        let reply: ReplyPromise<u64, JsonCodec> = reply;
        *held.borrow_mut() += u32::from(number == 7);
        promises.push(reply);
    }
}

#[test]
fn a_promise_that_dies_with_its_process_tells_nobody() {
    for seed in 0..20 {
        let kind = match seed % 3 {
            0 => KillKind::Crash,
            1 => KillKind::PowerLoss,
            _ => KillKind::Graceful {
                grace: Duration::from_millis(10),
            },
        };
        let world = SimWorld::new_with_seed(seed);
        let held: Rc<RefCell<u32>> = Rc::default();
        let server = world.start_process("server", {
            let held = Rc::clone(&held);
            move |providers| hold(providers, Rc::clone(&held))
        });
        let client = world.add_process("client").providers();
        let call = client.task().spawn_task("client", {
            let client = client.clone();
            async move {
                let transport = FlowTransportBuilder::from_providers(&client).build();
                let endpoint = Endpoint::new("10.0.0.1:4500".parse().unwrap(), DOUBLE);
                let reply = send_request(&transport, &endpoint, 7_u64, JsonCodec).unwrap();
                let limit = Duration::from_secs(60);
                let outcome = client.time().timeout(limit, reply).await;
                transport.shutdown(Duration::from_secs(1)).await;
                outcome
            }
        });
        world.run_for(Duration::from_secs(5)).unwrap();
        assert_eq!(*held.borrow(), 1, "seed {seed}: the promise is held");
        assert!(world.kill(server.id(), kind));
        world.run_for(Duration::from_secs(5)).unwrap();
        assert!(world.restart(server.id()));
        // Not a broken promise: the dead say nothing. What the caller learns, its transport found out.
        let outcome: Result<Result<u64, _>, _> = world.block_on(call).unwrap().unwrap();
        // After a power loss nothing says that the server is gone: the call's deadline comes first.
        assert!(
            matches!(
                outcome,
                Err(_) | Ok(Err(ReplyError::MaybeDelivered | ReplyError::Timeout))
            ),
            "seed {seed}: {outcome:?}"
        );
    }
}

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = format!("{}:4500", topology.my_ip).parse().map_err(boxed)?;
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.map_err(boxed)?;
    let requests = transport.register_handler::<u64, _>(DOUBLE, JsonCodec);
    loop {
        moonpool::select! { biased;
            () = topology.shutdown_signal.cancelled() => break,
            request = requests.recv_with_transport(&transport) => match request {
                Some((number, reply)) => reply.send(2 * number),
                None => break,
            },
        }
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// Calls each server in turn, and again until it answers.
async fn call(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let servers = topology.get_peers_with_prefix("server");
    for number in 0..30_u64 {
        let (_, ip) = &servers[usize::try_from(number).unwrap_or(0) % servers.len()];
        let endpoint = Endpoint::new(format!("{ip}:4500").parse().map_err(boxed)?, DOUBLE);
        loop {
            let reply = send_request(&transport, &endpoint, number, JsonCodec).map_err(boxed)?;
            let limit = Duration::from_secs(2);
            match providers.time().timeout(limit, reply).await {
                Ok(Ok(doubled)) => {
                    let doubled: u64 = doubled;
                    assert_eq!(doubled, 2 * number);
                    break;
                }
                Ok(Err(_)) | Err(_) => providers.time().sleep(limit / 10).await,
            }
        }
        providers.time().sleep(Duration::from_secs(1)).await;
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

fn campaign() -> SimulationBuilder {
    let network = NetworkConfiguration {
        nat_addresses: true,
        ..NetworkConfiguration::default()
    };
    SimulationBuilder::new()
        .set_iterations(60)
        .with_network_config(network)
        .attrition(Attrition {
            probability: 0.5,
            max_dead: 2,
            ..Attrition::default()
        })
        .process("server-1", serve)
        .process("server-2", serve)
        .process("server-3", serve)
        .register_providers_workload("client-1", call)
        .register_providers_workload("client-2", call)
        .shutdown_after_all()
}

#[test]
fn calls_get_through_to_servers_that_die_and_come_back_behind_a_translator() {
    let report = campaign().run();
    report.assert_passed();
    for kind in [
        FaultKind::Kill,
        FaultKind::Graceful,
        FaultKind::Reboot,
        FaultKind::Pause,
    ] {
        assert!(report.faults.of(kind) > 10, "{kind}");
    }
}

#[test]
fn in_a_healed_world_nothing_is_left_of_servers_that_died() {
    let phases = Phases {
        chaos: Duration::from_secs(5)..Duration::from_secs(30),
        ..Phases::default()
    };
    let report = campaign().phases(phases).run();
    report.assert_passed();
    for seed in &report.individual_metrics {
        let left = seed.leftovers;
        assert_eq!(
            (left.tasks, left.connections, left.listeners),
            (0, 0, 0),
            "seed {}: {left:?}",
            seed.seed
        );
    }
}
