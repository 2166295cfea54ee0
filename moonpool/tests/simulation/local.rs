//! Workloads of one process that talks to itself.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{SimulationMetrics, SimulationResult, WorkloadTopology};
use moonpool::{
    Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers, RandomProvider,
    ReplyError, ReplyFuture, RequestStream, SharedNetNotifiedQueue, TaskProvider, TransportError,
    UID, WellKnownId, send_request,
};

use super::workloads::check_gauges;

/// One-way messages to several queues: each gets its own, all of them, in order.
pub(crate) async fn local_delivery_workload<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let address = NetworkAddress::new(topology.my_ip.parse().unwrap(), 4500);
    let transport = FlowTransportBuilder::from_providers(&providers)
        .local_address(address)
        .build();
    let random = providers.random();
    let queues: Vec<SharedNetNotifiedQueue<u64, _>> = (0..4)
        .map(|_| SharedNetNotifiedQueue::new(JsonCodec))
        .collect();
    let id = WellKnownId::user(17).unwrap();
    transport
        .add_well_known_endpoint(id, queues[0].receiver())
        .unwrap();
    let mut endpoints = vec![Endpoint::well_known(address, id)];
    for queue in &queues[1..] {
        endpoints.push(transport.add_endpoint(queue.receiver()).unwrap());
    }
    let mut sent = vec![Vec::new(); queues.len()];
    for number in 0..200_u64 {
        let pick = random.random_range(0..queues.len());
        let payload = number.to_string();
        if random.random_bool(0.5) {
            transport.send_reliable(&endpoints[pick], payload.as_bytes())
        } else {
            transport.send_unreliable(&endpoints[pick], payload.as_bytes())
        }
        .unwrap();
        sent[pick].push(number);
        if random.random_bool(0.2) {
            providers.task().yield_now().await;
        }
    }
    for (queue, sent) in queues.iter().zip(&sent) {
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.push(queue.recv().await.unwrap());
        }
        assert_eq!(received, *sent);
    }
    transport.shutdown(Duration::from_secs(1)).await;
    check_gauges(&transport.stats());
    assert!(
        queues
            .iter()
            .all(|queue| queue.is_closed() && queue.is_empty())
    );
    Ok(SimulationMetrics::default())
}

/// Endpoints come and go while requests are made to those that are there, those that went and those
/// that never were.
pub(crate) async fn endpoint_lifecycle_workload<P: Providers>(
    providers: P,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let address = NetworkAddress::new(topology.my_ip.parse().unwrap(), 4500);
    let transport = FlowTransportBuilder::from_providers(&providers)
        .local_address(address)
        .build();
    let random = providers.random();
    let mut live: BTreeMap<UID, RequestStream<u64, JsonCodec>> = BTreeMap::new();
    let mut dead: Vec<UID> = vec![UID::new(99, 99), UID::well_known(50)];
    for number in 0..200_u64 {
        match random.random_range(0..4_u32) {
            0 => {
                let mut stream = RequestStream::new(JsonCodec);
                let endpoint = stream.make_dynamic_endpoint(&transport).unwrap();
                assert!(!dead.contains(&endpoint.token), "a token was used twice");
                live.insert(endpoint.token, stream);
            }
            1 => {
                if let Some(token) = pick(random, &live) {
                    live.remove(&token);
                    dead.push(token);
                }
            }
            2 => {
                let Some(token) = pick(random, &live) else {
                    continue;
                };
                let reply = request(&transport, address, token, number).unwrap();
                let received = live[&token].recv_with_transport(&transport).await;
                let (message, promise) = received.unwrap();
                promise.send(message + 1);
                assert_eq!(reply.await, Ok(number + 1));
            }
            _ => {
                let token = dead[random.random_range(0..dead.len())];
                let reply = request(&transport, address, token, number).unwrap();
                assert_eq!(reply.await, Err(ReplyError::EndpointNotFound));
            }
        }
        assert_eq!(transport.stats().endpoints, live.len());
    }
    transport.shutdown(Duration::from_secs(1)).await;
    check_gauges(&transport.stats());
    Ok(SimulationMetrics::default())
}

fn request<P, N, T>(
    transport: &Rc<moonpool::FlowTransport<N, T, P>>,
    address: NetworkAddress,
    token: UID,
    number: u64,
) -> Result<ReplyFuture<u64, JsonCodec>, TransportError>
where
    N: moonpool::NetworkProvider,
    T: moonpool::TimeProvider,
    P: TaskProvider,
{
    let endpoint = Endpoint::new(address, token);
    Ok(send_request(transport, &endpoint, number, JsonCodec)?)
}

fn pick<V>(random: &impl RandomProvider, from: &BTreeMap<UID, V>) -> Option<UID> {
    if from.is_empty() {
        return None;
    }
    from.keys().nth(random.random_range(0..from.len())).copied()
}
