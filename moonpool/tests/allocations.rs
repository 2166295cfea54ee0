//! Steady traffic allocates nothing: not per segment, not per packet, not per call.
//!
//! A counting allocator sees the whole process, both ends and the simulator. So this binary holds
//! one test, and what is counted happens on its thread while no other one works.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    reason = "the root of an integration test: a failure is a panic here"
)]

use std::alloc::System;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use foundation::{
    LatencyModel, NetworkConfiguration, Peer, PeerConfig, PeerHandle, SimProviders, SimWorld, UID,
};
use moonpool::prelude::*;
use moonpool::{Blob, MessageCodec, TcpListenerTrait, foundation};
use moonpool_traits::PostcardCodec;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Operations before the count begins: buffers, tables and the wheel of timers have their sizes then.
const WARM_UP: u32 = 5_000;
const COUNTED: u32 = 10_000;
const PAYLOAD: usize = 64;
const TOKEN: UID = UID::new(0xA110C, 0);

/// How often memory was asked for.
fn allocations(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

/// Two processes, a millisecond apart. `client` is run to its end, and what it gives is the count.
fn in_a_world<S, C>(
    server: impl FnOnce(SimProviders) -> S,
    client: impl FnOnce(SimProviders) -> C,
) -> usize
where
    S: Future<Output = ()> + 'static,
    C: Future<Output = usize> + 'static,
{
    let config = NetworkConfiguration {
        write_latency: LatencyModel::fixed(Duration::from_millis(1)),
        ..NetworkConfiguration::disabled()
    };
    let world = SimWorld::new_with_network_config_and_seed(config, 1).unwrap();
    let serving = world.add_process("server").providers();
    let calling = world.add_process("client").providers();
    let task = serving.task().clone();
    task.spawn_task("server", server(serving));
    let task = calling.task().clone();
    let counted = task.spawn_task("client", client(calling));
    world.block_on(counted).unwrap().unwrap()
}

async fn echo_bytes(providers: SimProviders) {
    let listener = providers.network().bind("server:80").await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = [0; PAYLOAD];
    while stream.read_exact(&mut bytes).await.is_ok() {
        stream.write_all(&bytes).await.unwrap();
    }
}

async fn count_round_trips(providers: SimProviders) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let mut stream = providers.network().connect("server:80").await.unwrap();
    let mut bytes = [7; PAYLOAD];
    let mut region = Region::new(ALLOCATOR);
    for operation in 0..WARM_UP + COUNTED {
        if operation == WARM_UP {
            region.reset();
        }
        stream.write_all(&bytes).await.unwrap();
        stream.read_exact(&mut bytes).await.unwrap();
    }
    allocations(&region)
}

/// Timers that are set, fire, and are set again and dropped before they fire.
async fn count_sleeps(providers: SimProviders) -> usize {
    let time = providers.time();
    let mut region = Region::new(ALLOCATOR);
    for operation in 0..WARM_UP + COUNTED {
        if operation == WARM_UP {
            region.reset();
        }
        let short = time.sleep(Duration::from_micros(u64::from(operation % 977)));
        let long = time.timeout(Duration::from_secs(30), short);
        long.await.unwrap();
    }
    allocations(&region)
}

async fn echo_packets(providers: SimProviders, reliable: bool) {
    let listener = providers.network().bind("server:80").await.unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let (time, task) = (providers.time().clone(), providers.task().clone());
    let peer: Peer<<SimProviders as Providers>::Network, _, _> =
        Peer::new_incoming(stream, from, time, task, PeerConfig::default());
    while let Ok((token, payload)) = peer.receive().await {
        send(peer.handle(), token, payload, reliable);
    }
}

fn send(peer: &PeerHandle, token: UID, payload: Bytes, reliable: bool) {
    if reliable {
        peer.send_reliable(token, payload).unwrap();
    } else {
        peer.send_unreliable(token, payload).unwrap();
    }
}

async fn count_packets(providers: SimProviders, reliable: bool) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let (network, time) = (providers.network().clone(), providers.time().clone());
    let task = providers.task().clone();
    let address = "server:80".to_owned();
    let peer = Peer::new(network, time, task, address, PeerConfig::default());
    // What is not reliable does not wait for a connection.
    send(peer.handle(), TOKEN, Bytes::new(), true);
    peer.receive().await.unwrap();
    let mut region = Region::new(ALLOCATOR);
    for operation in 0..WARM_UP + COUNTED {
        if operation == WARM_UP {
            region.reset();
        }
        let payload = Bytes::from_static(&[7; PAYLOAD]);
        send(peer.handle(), TOKEN, payload, reliable);
        peer.receive().await.unwrap();
    }
    allocations(&region)
}

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

async fn listening(providers: &SimProviders) -> Rc<Transport> {
    FlowTransportBuilder::from_providers(providers)
        .local_address("10.0.0.1:80".parse().unwrap())
        .build_listening()
        .await
        .unwrap()
}

async fn serve_calls<C: MessageCodec>(providers: SimProviders, codec: C) {
    let transport = listening(&providers).await;
    let stream = transport.register_handler::<u64, _>(TOKEN, codec);
    while let Some((request, reply)) = stream.recv_with_transport::<_, _, _, u64>(&transport).await
    {
        reply.send(request + 1);
    }
}

/// Asks for so many answers from now on to be counted, and tells how often memory was asked for meanwhile.
struct Count {
    region: Cell<Option<Region<'static, System>>>,
    operations: Cell<u32>,
    counted: Cell<usize>,
}

impl Count {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            region: Cell::new(None),
            operations: Cell::new(0),
            counted: Cell::new(usize::MAX),
        })
    }

    /// One more operation was done.
    fn note(&self) {
        let operations = self.operations.get() + 1;
        self.operations.set(operations);
        if operations == WARM_UP {
            self.region.set(Some(Region::new(ALLOCATOR)));
        } else if operations == WARM_UP + COUNTED
            && let Some(region) = self.region.take()
        {
            self.counted.set(allocations(&region));
        }
    }
}

/// Numbers, which need no memory of their own, from that many callers at once.
async fn count_calls<C: MessageCodec>(providers: SimProviders, codec: C, callers: u32) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let endpoint = Endpoint::new("10.0.0.1:80".parse().unwrap(), TOKEN);
    let count = Count::new();
    let caller = |_| {
        let (transport, count) = (Rc::clone(&transport), Rc::clone(&count));
        let (endpoint, codec) = (endpoint, codec.clone());
        providers.task().spawn_task("caller", async move {
            // Whoever is done goes on until all are, so that as many stay in flight.
            while count.operations.get() < WARM_UP + COUNTED {
                let reply: ReplyFuture<u64, C> =
                    send_request(&transport, &endpoint, 7_u64, codec.clone()).unwrap();
                assert_eq!(reply.await.unwrap(), 8);
                count.note();
            }
        })
    };
    let callers: Vec<_> = (0..callers).map(caller).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    count.counted.get()
}

async fn echo_blobs(providers: SimProviders) {
    let transport = listening(&providers).await;
    let stream = transport.register_handler::<Blob, _>(TOKEN, PostcardCodec);
    while let Some((request, reply)) = stream
        .recv_with_transport::<_, _, _, Blob>(&transport)
        .await
    {
        reply.send(request);
    }
}

/// The same bytes again and again: on their way out they are shared, not copied.
async fn count_blobs(providers: SimProviders) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let endpoint = Endpoint::new("10.0.0.1:80".parse().unwrap(), TOKEN);
    let blob = Blob::from(vec![7; 4096]);
    let count = Count::new();
    while count.operations.get() < WARM_UP + COUNTED {
        let reply: ReplyFuture<Blob, PostcardCodec> =
            send_request(&transport, &endpoint, blob.clone(), PostcardCodec).unwrap();
        assert_eq!(reply.await.unwrap().len(), blob.len());
        count.note();
    }
    count.counted.get()
}

#[test]
fn steady_traffic_in_simulation_allocates_nothing() {
    let packets = |reliable| {
        in_a_world(
            move |providers| echo_packets(providers, reliable),
            move |providers| count_packets(providers, reliable),
        )
    };
    let of = [
        ("round trips", in_a_world(echo_bytes, count_round_trips)),
        ("sleeps", in_a_world(echo_bytes, count_sleeps)),
        ("reliable packets", packets(true)),
        ("unreliable packets", packets(false)),
        (
            "calls with JSON",
            in_a_world(
                |providers| serve_calls(providers, JsonCodec),
                |providers| count_calls(providers, JsonCodec, 1),
            ),
        ),
        (
            "64 calls at once with postcard",
            in_a_world(
                |providers| serve_calls(providers, PostcardCodec),
                |providers| count_calls(providers, PostcardCodec, 64),
            ),
        ),
        ("blobs of 4 KiB", in_a_world(echo_blobs, count_blobs)),
    ];
    println!("asked for memory in {COUNTED} operations: {of:?}");
    for (what, count) in of {
        // An echo of a blob arrives twice, and what arrived is a payload with memory of its own.
        let payloads = if what.starts_with("blobs") {
            2 * COUNTED
        } else {
            0
        };
        assert_eq!(count, payloads as usize, "{what}");
    }
}
