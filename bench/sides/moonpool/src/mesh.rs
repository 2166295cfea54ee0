//! Many nodes: everybody asks everybody, hearts that beat, rings.

use bench_common::{Arguments, HEARTBEAT, Measurement, PAYLOAD, RING_BEAT, cpu_time, print};
use moonpool::foundation::{SimProviders, SimTcpStream, SimWorld};
use moonpool::{NetworkProvider, Providers, TaskProvider, TcpListenerTrait, TimeProvider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::streams;

/// `nodes` clients with a connection to each of as many servers, `window` echoes in flight on each.
pub fn streams(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let window: u64 = arguments.number("window", 8);
    let count = arguments.number::<u64>("n", 200_000) / (nodes * nodes);
    let world = streams::world(1);
    for node in 0..nodes {
        let server = world.add_process(&format!("server{node}")).providers();
        let serving = streams::serve(server.clone(), format!("server{node}:80"));
        server.task().spawn_task("server", serving);
    }
    let mut asking = Vec::new();
    for node in 0..nodes {
        let client = world.add_process(&format!("client{node}")).providers();
        for server in 0..nodes {
            let providers = client.clone();
            asking.push(client.task().spawn_task("client", async move {
                let stream = streams::connect(&providers, &format!("server{server}:80")).await;
                streams::ask(stream, count, window).await;
            }));
        }
    }
    let measurement = Measurement::begin();
    let all = async move {
        for one in asking {
            one.await.unwrap();
        }
    };
    world.block_on(all).unwrap();
    measurement.end(count * nodes * nodes);
}

async fn hear(providers: SimProviders, address: String) {
    let listener = providers.network().bind(&address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        providers.task().spawn_task("listener", listen(stream));
    }
}

async fn listen(mut stream: SimTcpStream) {
    let mut bytes = [0; PAYLOAD];
    while stream.read_exact(&mut bytes).await.is_ok() {}
}

/// Each node beats to each other one every 100 ms, over a connection of its own. The rate is simulated
/// seconds a second.
pub fn heartbeats(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let beats = seconds * 10;
    let world = streams::world(1);
    let mut beating = Vec::new();
    for node in 0..nodes {
        let providers = world.add_process(&format!("node{node}")).providers();
        let hearing = hear(providers.clone(), format!("node{node}:80"));
        providers.task().spawn_task("hear", hearing);
        let own = providers.clone();
        beating.push(providers.task().spawn_task("beat", async move {
            let mut others = Vec::new();
            for other in (0..nodes).filter(|other| *other != node) {
                others.push(streams::connect(&own, &format!("node{other}:80")).await);
            }
            for _ in 0..beats {
                for stream in &mut others {
                    stream.write_all(&[7; PAYLOAD]).await.unwrap();
                    stream.flush().await.unwrap();
                }
                own.time().sleep(HEARTBEAT).await;
            }
        }));
    }
    let measurement = Measurement::begin();
    let all = async move {
        for one in beating {
            one.await.unwrap();
        }
    };
    world.block_on(all).unwrap();
    measurement.end(seconds);
}

/// A world of `nodes` nodes, each of which beats to its successor once a second, `seconds` seconds long; and
/// what ends with the last of them.
fn ring_of(nodes: u64, seconds: u64) -> (SimWorld, impl Future<Output = ()>) {
    let world = streams::world(1);
    let mut beating = Vec::new();
    for node in 0..nodes {
        let providers = world.add_process(&format!("node{node}")).providers();
        let hearing = hear(providers.clone(), format!("node{node}:80"));
        providers.task().spawn_task("hear", hearing);
        let own = providers.clone();
        beating.push(providers.task().spawn_task("beat", async move {
            let next = format!("node{}:80", (node + 1) % nodes);
            let mut stream = streams::connect(&own, &next).await;
            for _ in 0..seconds {
                stream.write_all(&[7; PAYLOAD]).await.unwrap();
                stream.flush().await.unwrap();
                own.time().sleep(RING_BEAT).await;
            }
        }));
    }
    let all = async move {
        for one in beating {
            one.await.unwrap();
        }
    };
    (world, all)
}

/// All of it is measured, from the making of the world to the last beat.
pub fn ring(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let measurement = Measurement::begin();
    let (world, all) = ring_of(nodes, seconds);
    world.block_on(all).unwrap();
    measurement.end(seconds * nodes);
}

/// The beats are measured apart from the making of the world: that ends when the first beat of each
/// node has arrived, half a second before the second leaves. What made a node and dropped it again is
/// measured with as many worlds as have 100,000 nodes.
pub fn ring_beats(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let worlds = (100_000 / nodes).max(1);
    let make = || {
        let (world, all) = ring_of(nodes, seconds + 1);
        world.run_for(RING_BEAT / 2).unwrap();
        (world, all)
    };
    let before = cpu_time();
    for _ in 0..worlds {
        drop(make());
    }
    let made = cpu_time().saturating_sub(before);
    print(
        "made_us",
        made.as_secs_f64() * 1e6 / (nodes * worlds) as f64,
    );
    let (world, all) = make();
    let measurement = Measurement::begin();
    world.block_on(all).unwrap();
    measurement.end(seconds * nodes);
}
