//! What waits for long keeps its own bytes, and not those of whatever else came in the same read.
//!
//! A counting allocator sees the whole process, both ends and the simulator. So this binary holds
//! one test.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    reason = "the root of an integration test: a failure is a panic here"
)]

use std::alloc::System;
use std::rc::Rc;
use std::time::Duration;

use foundation::{NetworkConfiguration, SimProviders, SimWorld};
use moonpool::foundation;
use moonpool::prelude::*;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KEEPER: UID = UID::new(0x3E9, 1);
const ECHO: UID = UID::new(0x3E9, 2);
const NOBODY: UID = UID::new(0x3E9, 3);
const LARGE: usize = 100 * 1024;

/// Those that wait before the count begins: buffers and tables have their sizes then.
const WARM_UP: usize = 100;
const COUNT: usize = 200;

/// Both ends' memory for one that waits: tables, queues, the call, its packet and its future.
const ALLOWED: isize = 2 * 1024;

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

struct World {
    server: Rc<Transport>,
    client: Rc<Transport>,
    providers: SimProviders,
}

impl World {
    async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            self.providers.time().sleep(Duration::from_millis(1)).await;
        }
    }

    fn endpoint(&self, token: UID) -> Endpoint {
        Endpoint::new(self.server.local_address().unwrap(), token)
    }
}

fn in_a_world<F>(body: impl FnOnce(World) -> F) -> F::Output
where
    F: Future,
{
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, 1).unwrap();
    let (server, client) = (world.add_process("server"), world.add_process("client"));
    let address = NetworkAddress::new(server.ip(), 80);
    let body = async move {
        let builder = FlowTransportBuilder::from_providers(&server.providers());
        let server = builder.local_address(address).build_listening().await;
        body(World {
            server: server.unwrap(),
            client: FlowTransportBuilder::from_providers(&client.providers()).build(),
            providers: client.providers(),
        })
        .await
    };
    world.block_on(body).unwrap()
}

fn live(region: &Region<'_, System>) -> isize {
    let change = region.change();
    isize::try_from(change.bytes_allocated).unwrap()
        - isize::try_from(change.bytes_deallocated).unwrap()
}

/// Bytes for each request that waits for its handler. Large messages come between them, for nobody.
async fn held_by_requests(world: World) -> isize {
    let requests = world.server.register_handler::<u8, _>(KEEPER, JsonCodec);
    let (keeper, nobody) = (world.endpoint(KEEPER), world.endpoint(NOBODY));
    let junk = vec![0; LARGE];
    let mut calls: Vec<ReplyFuture<u8, _>> = Vec::with_capacity(WARM_UP + COUNT);
    let mut region = Region::new(ALLOCATOR);
    for count in 1..=WARM_UP + COUNT {
        let call = world.client.call(&keeper, 7, JsonCodec);
        let call = call
            .timeout(Duration::from_secs(600))
            .metadata("key", "value");
        calls.push(call.send().unwrap());
        world.client.send_reliable(&nobody, &junk).unwrap();
        world.until(|| requests.len() == count).await;
        if count == WARM_UP {
            region.reset();
        }
    }
    let held = live(&region);
    let (_, reply) = requests
        .try_recv_with_transport::<_, _, _, u8>(&world.server)
        .unwrap();
    let pair: Vec<_> = reply.metadata().iter().collect();
    assert_eq!(pair, [("key", &b"value"[..])]);
    reply.send(7);
    held / COUNT as isize
}

/// Bytes for each answer that waits for its caller. Large ones come between them.
async fn held_by_answers(world: World) -> isize {
    let requests = world.server.register_handler::<usize, _>(ECHO, JsonCodec);
    let server = world.server.clone();
    drop(world.providers.task().spawn_task("echo", async move {
        while let Some((length, reply)) = requests.recv_with_transport(&server).await {
            reply.send("x".repeat(length));
        }
    }));
    let echo = world.endpoint(ECHO);
    let ask = |length: usize| -> ReplyFuture<String, _> {
        send_request(&world.client, &echo, length, JsonCodec).unwrap()
    };
    let mut calls = Vec::with_capacity(WARM_UP + COUNT);
    let mut region = Region::new(ALLOCATOR);
    for count in 1..=WARM_UP + COUNT {
        calls.push(ask(7));
        assert_eq!(ask(LARGE).await.unwrap().len(), LARGE);
        if count == WARM_UP {
            region.reset();
        }
    }
    let held = live(&region);
    for call in calls {
        assert_eq!(call.await.unwrap(), "xxxxxxx");
    }
    held / COUNT as isize
}

#[test]
fn what_waits_keeps_its_own_bytes() {
    let by_requests = in_a_world(held_by_requests);
    let by_answers = in_a_world(held_by_answers);
    println!("{by_requests} bytes for each request, {by_answers} for each answer");
    assert!(by_requests <= ALLOWED, "{by_requests} for each request");
    assert!(by_answers <= ALLOWED, "{by_answers} for each answer");
}
