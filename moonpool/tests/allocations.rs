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
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use foundation::{
    LatencyModel, NetworkConfiguration, Peer, PeerConfig, SimProviders, SimWorld, UID,
};
use moonpool::prelude::*;
use moonpool::{TcpListenerTrait, foundation};
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

async fn echo_packets(providers: SimProviders) {
    let listener = providers.network().bind("server:80").await.unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let (time, task) = (providers.time().clone(), providers.task().clone());
    let peer: Peer<<SimProviders as Providers>::Network, _, _> =
        Peer::new_incoming(stream, from, time, task, PeerConfig::default());
    while let Ok((token, payload)) = peer.receive().await {
        peer.handle().send_reliable(token, payload).unwrap();
    }
}

async fn count_packets(providers: SimProviders) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let (network, time) = (providers.network().clone(), providers.time().clone());
    let task = providers.task().clone();
    let address = "server:80".to_owned();
    let peer = Peer::new(network, time, task, address, PeerConfig::default());
    let mut region = Region::new(ALLOCATOR);
    for operation in 0..WARM_UP + COUNTED {
        if operation == WARM_UP {
            region.reset();
        }
        let payload = Bytes::from_static(&[7; PAYLOAD]);
        peer.handle().send_reliable(TOKEN, payload).unwrap();
        peer.receive().await.unwrap();
    }
    allocations(&region)
}

type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

async fn serve_calls(providers: SimProviders) {
    let transport: Rc<Transport> = FlowTransportBuilder::from_providers(&providers)
        .local_address("10.0.0.1:80".parse().unwrap())
        .build_listening()
        .await
        .unwrap();
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((request, reply)) = stream.recv_with_transport::<_, _, _, u64>(&transport).await
    {
        reply.send(request + 1);
    }
}

/// Numbers, whose JSON needs no memory of its own.
async fn count_calls(providers: SimProviders) -> usize {
    providers.time().sleep(Duration::from_secs(1)).await;
    let transport = FlowTransportBuilder::from_providers(&providers).build();
    let endpoint = Endpoint::new("10.0.0.1:80".parse().unwrap(), TOKEN);
    let mut region = Region::new(ALLOCATOR);
    for operation in 0..WARM_UP + COUNTED {
        if operation == WARM_UP {
            region.reset();
        }
        let reply: ReplyFuture<u64, JsonCodec> =
            send_request(&transport, &endpoint, u64::from(operation), JsonCodec).unwrap();
        assert_eq!(reply.await.unwrap(), u64::from(operation) + 1);
    }
    allocations(&region)
}

#[test]
fn steady_traffic_in_simulation_allocates_nothing() {
    let of_streams = in_a_world(echo_bytes, count_round_trips);
    let of_sleeps = in_a_world(echo_bytes, count_sleeps);
    let of_packets = in_a_world(echo_packets, count_packets);
    let of_calls = in_a_world(serve_calls, count_calls);
    println!(
        "{COUNTED} round trips: {of_streams}, sleeps: {of_sleeps}, packets: {of_packets}, calls: {of_calls}"
    );
    assert_eq!(of_streams, 0, "round trips on a stream");
    assert_eq!(of_sleeps, 0, "sleeps");
    // Payloads are handed out where they were read. So they have memory of their own: a buffer, and
    // the count of those who use it, for some forty of them.
    assert!(of_packets <= COUNTED as usize / 8, "{of_packets}");
    assert!(of_calls <= COUNTED as usize / 20, "{of_calls}");
}
