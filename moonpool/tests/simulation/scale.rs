//! Many clients of one server.

use std::cell::Cell;
use std::time::Duration;

use moonpool::foundation::{
    NetworkConfiguration, SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult,
    WorkloadTopology,
};
use moonpool::prelude::*;

use super::workloads::check_gauges;

const CLIENTS: usize = 1_000;
const CALLS: u64 = 10;
const DOUBLE: UID = UID::new(0x5CA1E, 1);
const GRACE: Duration = Duration::from_secs(1);
/// Of the transport's, for one client that has called: what its session keeps.
const PACKETS_PER_CLIENT: usize = 64;

/// What the server held at most.
#[derive(Default)]
struct Peak {
    sessions: Cell<usize>,
    queued_packets: Cell<usize>,
    answered: Cell<u64>,
}

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let peak = topology.shared::<Peak>();
    let address = format!("{}:4500", topology.my_ip).parse().unwrap();
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(DOUBLE, JsonCodec);
    loop {
        moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            Some((number, reply)) = requests.recv_with_transport(&transport) => {
                reply.send(2 * number);
                peak.answered.set(peak.answered.get() + 1);
                // `stats` visits every peer.
                if peak.answered.get() % 100 == 0 {
                    let stats = transport.stats();
                    peak.sessions.set(peak.sessions.get().max(stats.incoming_sessions));
                    let queued = peak.queued_packets.get().max(stats.queued_packets);
                    peak.queued_packets.set(queued);
                    assert_eq!(stats.pending_calls, 0);
                }
            }
            else => break,
        }
    }
    assert_eq!(peak.answered.get(), CLIENTS as u64 * CALLS);
    assert_eq!(peak.sessions.get(), CLIENTS, "all were there at one time");
    assert!(peak.queued_packets.get() <= CLIENTS * PACKETS_PER_CLIENT);
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(())
}

async fn call(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let server = topology.get_peer_by_name("server").unwrap();
    let endpoint = Endpoint::new(format!("{server}:4500").parse().unwrap(), DOUBLE);
    for number in 0..CALLS {
        let reply = send_request(&transport, &endpoint, number, JsonCodec).unwrap();
        assert_eq!(reply.await, Ok(2 * number));
        let pause = providers.random().random_range(10..100);
        providers.time().sleep(Duration::from_millis(pause)).await;
    }
    transport.shutdown(GRACE).await;
    check_gauges(&transport.stats());
    Ok(SimulationMetrics::default())
}

#[test]
fn slow_simulation_a_thousand_clients_of_one_server_are_all_answered() {
    let mut builder = SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::fast_local())
        .shutdown_after_all()
        .with_seed_range(0..1)
        .process("server", serve);
    for number in 0..CLIENTS {
        builder = builder.register_providers_workload(format!("client-{number}"), call);
    }
    let report = builder.run();
    report.assert_passed();
    let seconds = report.metrics.wall_time.as_secs_f64();
    println!(
        "{CLIENTS} clients, {CALLS} calls each: {seconds:.2} s for {} seeds",
        report.iterations
    );
}
