//! Promises that three processes hand on to each other, under the faults of the default network.
//!
//! Each process makes promises, sends them to a neighbour inside an order, and the neighbour meets
//! them, hands them on, drops them, or keeps them to itself, as a draw says. Whatever becomes of the
//! orders: each promise ends within its deadline, and an answer is the one to its own order.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moonpool::foundation::{
    NetworkConfiguration, SimProviders, SimulationBuilder, SimulationMetrics, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{EmbeddedPromise, SimulationError, SimulationResult};
use serde::{Deserialize, Serialize};

const ORDERS: UID = UID::new(0xE3BD, 2);
const PROMISES: u64 = 12;
const HOPS: u8 = 3;

/// How promises ended in all runs: answered, broken, by their deadlines.
static ENDED: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// A simulated timer may be late by this much.
const LATE: Duration = Duration::from_millis(100);

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    number: u64,
    hops_left: u8,
    answer: EmbeddedPromise<Answer>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    number: u64,
    by: String,
}

fn boxed<E: std::error::Error + 'static>(error: E) -> SimulationError {
    SimulationError::Other(Box::new(error))
}

fn listed(topology: &WorkloadTopology) -> Vec<Endpoint> {
    let neighbours = topology.get_peers_with_prefix("shop");
    neighbours
        .iter()
        .map(|(_, ip)| Endpoint::new(format!("{ip}:4500").parse().unwrap(), ORDERS))
        .collect()
}

/// Takes orders until the transport is shut down.
async fn work(providers: SimProviders, transport: Rc<Transport>, neighbours: Vec<Endpoint>) {
    let orders = transport.register_handler::<Order, _>(ORDERS, JsonCodec);
    let mut unbound = Vec::new();
    while let Some((order, _)) = orders.recv_with_transport::<_, _, _, ()>(&transport).await {
        let random = providers.random();
        match random.random_range(0..8_u8) {
            0 => unbound.push(order.answer),
            1 => drop(order.answer.bind(&transport, JsonCodec)),
            _ if order.hops_left > 0 => {
                let order = Order {
                    hops_left: order.hops_left - 1,
                    ..order
                };
                let at = random.random_range(0..neighbours.len());
                let bytes = JsonCodec.encode(&order).unwrap();
                // One that is lost leaves its promise to its deadline.
                transport.send_reliable(&neighbours[at], &bytes).unwrap();
            }
            times => {
                for _ in 0..=times / 7 {
                    let by = transport.local_address().unwrap().to_string();
                    let number = order.number;
                    let promise = order.answer.bind(&transport, JsonCodec);
                    promise.send(Answer { number, by });
                }
            }
        }
    }
}

async fn shop(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let address = format!("{}:4500", topology.my_ip).parse().map_err(boxed)?;
    let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
    let transport = builder.build_listening().await.map_err(boxed)?;
    let neighbours = listed(&topology);
    let working = work(providers.clone(), transport.clone(), neighbours.clone());
    let working = providers.task().spawn_task("orders", working);
    let time = providers.time();
    let waiting = (0..PROMISES).map(|number| {
        let (transport, neighbours) = (&transport, &neighbours);
        async move {
            let timeout = Duration::from_secs(1 + number);
            let promise = transport.promise::<Answer, _>(JsonCodec).timeout(timeout);
            let started = time.now();
            let (answer, outcome) = promise.open().unwrap();
            let at = usize::try_from(number).unwrap() % neighbours.len();
            let order = Order {
                number,
                hops_left: HOPS,
                answer,
            };
            let bytes = JsonCodec.encode(&order).unwrap();
            transport.send_reliable(&neighbours[at], &bytes).unwrap();
            let outcome = outcome.await;
            let took = time.now() - started;
            assert!(took <= timeout + LATE, "it outlasts its deadline: {took:?}");
            let kind: usize = match outcome {
                Ok(answer) => {
                    assert_eq!(answer.number, number, "an answer to another promise");
                    0
                }
                Err(ReplyError::BrokenPromise) => 1,
                Err(ReplyError::Timeout) => 2,
                Err(error) => panic!("promise {number}: {error}"),
            };
            ENDED[kind].fetch_add(1, Ordering::Relaxed);
        }
    });
    futures_util::future::join_all(waiting).await;
    assert_eq!(transport.stats().pending_calls, 0);
    // The others may still need this one.
    time.sleep(Duration::from_secs(20)).await;
    transport.shutdown(Duration::from_secs(1)).await;
    working.await.map_err(boxed)?;
    let stats = transport.stats();
    assert_eq!((stats.pending_calls, stats.queued_packets), (0, 0));
    Ok(SimulationMetrics::default())
}

#[test]
fn each_forwarded_promise_ends_in_time_with_the_answer_to_its_own_order() {
    SimulationBuilder::new()
        .set_iterations(60)
        .with_network_config(NetworkConfiguration::default())
        .register_providers_workload("shop-1", shop)
        .register_providers_workload("shop-2", shop)
        .register_providers_workload("shop-3", shop)
        .run()
        .assert_passed();
    let [answered, broken, late] = ENDED.each_ref().map(|kind| kind.load(Ordering::Relaxed));
    assert!(
        answered > 100 && broken > 100 && late > 100,
        "{answered} answered, {broken} broken, {late} ended by their deadlines"
    );
}
