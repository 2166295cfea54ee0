//! What the library says of itself under test: each of its parts takes each of its paths.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool::foundation::{
    SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult, WorkloadTopology,
};
use moonpool::prelude::*;

use super::local::{endpoint_lifecycle_workload, local_delivery_workload};
use super::workloads::check_gauges;

/// By part: the endpoint map, the transport, the queue, promises and replies.
const NAMES: [&str; 22] = [
    "well_known_registered",
    "dynamic_lookup_found",
    "well_known_removal_rejected",
    "endpoint_deregistered",
    "local_delivery_path",
    "remote_peer_path",
    "endpoint_found_local",
    "endpoint_not_found_local",
    "peer_created",
    "peer_reused",
    "dispatch_success",
    "dispatch_undelivered",
    "deserialization_success",
    "deserialization_failed",
    "waker_notified",
    "message_available",
    "queue_closed_empty",
    "recv_pending",
    "reply_sent",
    "broken_promise_detected",
    "reply_received",
    "reply_queue_closed",
];

const ECHO: UID = UID::new(0xC04E, 1);
const GRACE: Duration = Duration::from_secs(1);

async fn serve(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = format!("{}:4500", topology.my_ip).parse().unwrap();
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.unwrap();
    let requests = transport.register_handler::<u64, _>(ECHO, JsonCodec);
    let mut held = Vec::new();
    loop {
        moonpool::select! {
            () = topology.shutdown_signal.cancelled() => break,
            Some((number, reply)) = requests.recv_with_transport(&transport) => match number {
                0 => drop(reply),
                1 => held.push(reply),
                number => reply.send(number),
            },
            else => break,
        }
    }
    drop(held);
    transport.shutdown(GRACE).await;
    assert!(
        requests
            .recv_with_transport::<_, _, _, u64>(&transport)
            .await
            .is_none()
    );
    Ok(())
}

async fn call(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let server = topology.get_peer_by_name("server").unwrap();
    let server: NetworkAddress = format!("{server}:4500").parse().unwrap();
    let endpoint = Endpoint::new(server, ECHO);
    for number in [7, 0, 8] {
        let _outcome: Result<u64, ReplyError> =
            send_request(&transport, &endpoint, number, JsonCodec)
                .unwrap()
                .await;
    }
    let text = "no number".to_owned();
    let _outcome: Result<u64, ReplyError> = send_request(&transport, &endpoint, text, JsonCodec)
        .unwrap()
        .await;
    assert!(!transport.remove_endpoint(&UID::well_known(40)));
    let another = FlowTransportBuilder::from_providers(&providers).build();
    let abandoned: ReplyFuture<u64, _> =
        send_request(&another, &endpoint, 1_u64, JsonCodec).unwrap();
    let held: ReplyFuture<u64, _> = send_request(&transport, &endpoint, 1_u64, JsonCodec).unwrap();
    providers.time().sleep(Duration::from_millis(500)).await;
    transport.shutdown(GRACE).await;
    assert!(held.await.is_err());
    // It ends where it stands, and the call with it.
    drop(another);
    assert!(abandoned.await.is_err());
    check_gauges(&transport.stats());
    Ok(SimulationMetrics::default())
}

#[test]
fn every_component_assertion_is_reached_and_no_other_is_there() {
    let report = SimulationBuilder::new()
        .coverage(["moonpool"])
        .with_seed_range(0..50)
        .shutdown_after_all()
        .process("server", serve)
        .register_providers_workload("client", call)
        .register_providers_workload("messages", local_delivery_workload::<SimProviders>)
        .register_providers_workload("endpoints", endpoint_lifecycle_workload::<SimProviders>)
        .run();
    report.assert_passed();
    let required = report
        .assertion_results
        .iter()
        .filter(|result| result.is_required);
    let names: BTreeSet<&str> = required.map(|result| result.name).collect();
    assert_eq!(names, BTreeSet::from(NAMES));
}
