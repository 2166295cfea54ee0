//! Promises that three processes hand on to each other, under the faults of the default
//! network, and with all kinds of faults and deaths.
//!
//! Each process makes promises, sends them to a neighbour inside an order, and the neighbour meets
//! them, hands them on, drops them, or keeps them to itself, as a draw says. Whatever becomes of the
//! orders: each promise ends within its deadline, and an answer is the one to its own order.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moonpool::foundation::{
    Attrition, FaultKind, NetworkConfiguration, Phases, SimProviders, SimulationBuilder,
    SimulationMetrics, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{EmbeddedPromise, SimulationError, SimulationResult};
use serde::{Deserialize, Serialize};

const ORDERS: UID = UID::new(0xE3BD, 2);
const PROMISES: u64 = 12;
const HOPS: u8 = 3;

/// A simulated timer may be late by this much, in any drawn configuration.
const LATE: Duration = Duration::from_millis(150);

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

/// Which start of which shop.
type Maker = (NetworkAddress, UID);

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    /// Who waits for the answer, and since which start of its process.
    maker: Maker,
    number: u64,
    hops_left: u8,
    answer: EmbeddedPromise<Answer>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    maker: Maker,
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
                    let (maker, number) = (order.maker, order.number);
                    let promise = order.answer.bind(&transport, JsonCodec);
                    promise.send(Answer { maker, number, by });
                }
            }
        }
    }
}

/// How promises ended: answered, broken, by their deadlines.
type Ended = [AtomicU32; 3];

struct Shop {
    providers: SimProviders,
    transport: Rc<Transport>,
    neighbours: Vec<Endpoint>,
    maker: Maker,
    working: JoinHandle<()>,
}

impl Shop {
    async fn open(providers: SimProviders, topology: &WorkloadTopology) -> SimulationResult<Self> {
        let address = format!("{}:4500", topology.my_ip).parse().map_err(boxed)?;
        let builder = FlowTransportBuilder::from_providers(&providers).local_address(address);
        let transport = builder.build_listening().await.map_err(boxed)?;
        let neighbours = listed(topology);
        let working = work(providers.clone(), transport.clone(), neighbours.clone());
        Ok(Self {
            working: providers.task().spawn_task("orders", working),
            maker: (address, transport.incarnation()),
            providers,
            transport,
            neighbours,
        })
    }

    /// Makes promises, all at once, and waits for them.
    async fn order(&self, ended: &Ended) {
        let waiting = (0..PROMISES).map(|number| self.order_one(number, ended));
        futures_util::future::join_all(waiting).await;
        assert_eq!(self.transport.stats().pending_calls, 0);
    }

    async fn order_one(&self, number: u64, ended: &Ended) {
        let (maker, time) = (self.maker, self.providers.time());
        let timeout = Duration::from_secs(1 + number);
        let promise = self.transport.promise::<Answer, _>(JsonCodec);
        let started = time.now();
        let (answer, outcome) = promise.timeout(timeout).open().unwrap();
        let at = usize::try_from(number).unwrap() % self.neighbours.len();
        let order = Order {
            maker,
            number,
            hops_left: HOPS,
            answer,
        };
        let bytes = JsonCodec.encode(&order).unwrap();
        let neighbour = &self.neighbours[at];
        self.transport.send_reliable(neighbour, &bytes).unwrap();
        let outcome = outcome.await;
        let took = time.now() - started;
        // Who stands still meets no deadline.
        let world = self.providers.world();
        let may_stand_still =
            world.is_some_and(|world| world.fault_counts().of(FaultKind::Pause) > 0);
        assert!(
            took <= timeout + LATE || may_stand_still,
            "it outlasts its deadline: {took:?}"
        );
        let kind: usize = match outcome {
            Ok(answer) => {
                let of = (answer.maker, answer.number);
                assert_eq!(of, (maker, number), "an answer to another promise");
                0
            }
            Err(ReplyError::BrokenPromise) => 1,
            Err(ReplyError::Timeout) => 2,
            Err(error) => panic!("promise {number}: {error}"),
        };
        ended[kind].fetch_add(1, Ordering::Relaxed);
    }

    async fn close(self) -> SimulationResult<()> {
        self.transport.shutdown(Duration::from_secs(1)).await;
        self.working.await.map_err(boxed)?;
        let stats = self.transport.stats();
        assert_eq!((stats.pending_calls, stats.queued_packets), (0, 0));
        Ok(())
    }
}

fn assert_all_seen(ended: &Ended) {
    let [answered, broken, late] = ended.each_ref().map(|kind| kind.load(Ordering::Relaxed));
    println!("{answered} answered, {broken} broken, {late} ended by their deadlines");
    assert!(
        answered > 100 && broken > 100 && late > 100,
        "{answered} answered, {broken} broken, {late} ended by their deadlines"
    );
}

#[test]
fn each_forwarded_promise_ends_in_time_with_the_answer_to_its_own_order() {
    static ENDED: Ended = [const { AtomicU32::new(0) }; 3];
    let shop = async |providers: SimProviders, topology: WorkloadTopology| {
        let shop = Shop::open(providers.clone(), &topology).await?;
        shop.order(&ENDED).await;
        // The others may still need this one.
        providers.time().sleep(Duration::from_secs(20)).await;
        shop.close().await?;
        Ok(SimulationMetrics::default())
    };
    SimulationBuilder::new()
        .set_iterations(60)
        .with_network_config(NetworkConfiguration::default())
        .register_providers_workload("shop-1", shop)
        .register_providers_workload("shop-2", shop)
        .register_providers_workload("shop-3", shop)
        .run()
        .assert_passed();
    assert_all_seen(&ENDED);
}

/// Shops that die and come back: each life has promises of the same numbers, and is only given the
/// answers to its own.
#[test]
fn forwarded_promises_end_in_time_with_their_own_answers_while_shops_die() {
    static ENDED: Ended = [const { AtomicU32::new(0) }; 3];
    let shop = async |providers: SimProviders, topology: WorkloadTopology| {
        let shop = Shop::open(providers, &topology).await?;
        let mut told = Box::pin(topology.shutdown_signal.cancelled());
        loop {
            moonpool::select! {
                () = &mut told => break,
                () = shop.order(&ENDED) => {}
            }
        }
        drop(told);
        shop.close().await
    };
    let attrition = Attrition {
        probability: 0.5,
        interval: Duration::from_millis(500)..=Duration::from_secs(5),
        ..Attrition::default()
    };
    let mut builder = SimulationBuilder::new();
    for name in ["shop-1", "shop-2", "shop-3"] {
        builder = builder.process(name, shop);
    }
    let report = builder
        .set_iterations(60)
        .use_random_config()
        .shutdown_after_all()
        .phases(Phases {
            chaos: Duration::from_secs(20)..Duration::from_secs(30),
            ..Phases::default()
        })
        .attrition(attrition)
        .register_providers_workload("town", async |providers: SimProviders, _| {
            providers.time().sleep(Duration::from_secs(40)).await;
            Ok(SimulationMetrics::default())
        })
        .run();
    report.assert_passed();
    let (kills, reboots) = (FaultKind::Kill, FaultKind::Reboot);
    let deaths = report.faults.of(kills) + report.faults.of(reboots);
    assert!(deaths > 50, "{deaths} deaths");
    assert_all_seen(&ENDED);
}
