//! Streams and timers.

use std::net::SocketAddr;
use std::time::Duration;

use bench_common::{
    Arguments, HEARTBEAT, LONGEST_SLEEP, Measurement, Numbers, ONE_WAY, PAYLOAD, RING_BEAT, memory,
    print,
};
use madsim::net::{TcpListener, TcpStream};
use madsim::runtime::Runtime;
use madsim::task::spawn;
use madsim::time::sleep;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::address;

pub fn world(seed: u64) -> Runtime {
    let mut config = madsim::Config::default();
    config.net.send_latency = ONE_WAY..ONE_WAY + Duration::from_nanos(1);
    Runtime::with_seed_and_config(seed, config)
}

async fn connect(address: SocketAddr) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect(address).await {
            return stream;
        }
        sleep(ONE_WAY).await;
    }
}

async fn serve(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) {
    let mut bytes = [0; PAYLOAD];
    while stream.read_exact(&mut bytes).await.is_ok() {
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn ask(mut stream: TcpStream, count: u64, window: u64) {
    let mut bytes = [7; PAYLOAD];
    let window = window.min(count);
    for _ in 0..window {
        stream.write_all(&bytes).await.unwrap();
    }
    stream.flush().await.unwrap();
    for _ in 0..count - window {
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
    }
    for _ in 0..window {
        stream.read_exact(&mut bytes).await.unwrap();
    }
}

pub fn mesh(nodes: u64, window: u64, count: u64) {
    let each = count / (nodes * nodes);
    let runtime = world(1);
    for node in 0..nodes {
        let at = address(0, node);
        runtime.create_node().ip(at.ip()).build().spawn(serve(at));
    }
    let mut asking = Vec::new();
    for node in 0..nodes {
        let client = runtime.create_node().ip(address(1, node).ip()).build();
        for server in 0..nodes {
            asking.push(client.spawn(async move {
                ask(connect(address(0, server)).await, each, window).await;
            }));
        }
    }
    let measurement = Measurement::begin();
    runtime.block_on(async {
        for one in asking {
            one.await.unwrap();
        }
    });
    measurement.end(each * nodes * nodes);
}

async fn hear(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        spawn(async move {
            let mut bytes = [0; PAYLOAD];
            while stream.read_exact(&mut bytes).await.is_ok() {}
        });
    }
}

pub fn heartbeats(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let runtime = world(1);
    let mut beating = Vec::new();
    for node in 0..nodes {
        let at = address(0, node);
        let host = runtime.create_node().ip(at.ip()).build();
        host.spawn(hear(at));
        beating.push(host.spawn(async move {
            let mut others = Vec::new();
            for other in (0..nodes).filter(|other| *other != node) {
                others.push(connect(address(0, other)).await);
            }
            for _ in 0..seconds * 10 {
                for stream in &mut others {
                    stream.write_all(&[7; PAYLOAD]).await.unwrap();
                    stream.flush().await.unwrap();
                }
                sleep(HEARTBEAT).await;
            }
        }));
    }
    let measurement = Measurement::begin();
    runtime.block_on(async {
        for one in beating {
            one.await.unwrap();
        }
    });
    measurement.end(seconds);
}

pub fn ring(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let measurement = Measurement::begin();
    let runtime = world(1);
    let mut beating = Vec::new();
    for node in 0..nodes {
        let at = address(0, node);
        let host = runtime.create_node().ip(at.ip()).build();
        host.spawn(hear(at));
        beating.push(host.spawn(async move {
            let mut next = connect(address(0, (node + 1) % nodes)).await;
            for _ in 0..seconds {
                next.write_all(&[7; PAYLOAD]).await.unwrap();
                next.flush().await.unwrap();
                sleep(RING_BEAT).await;
            }
        }));
    }
    runtime.block_on(async {
        for one in beating {
            one.await.unwrap();
        }
    });
    measurement.end(seconds * nodes);
}

pub fn seeds(count: u64) {
    let measurement = Measurement::begin();
    for seed in 0..count {
        let runtime = world(seed);
        let (at, client) = (address(0, 0), address(1, 0));
        runtime.create_node().ip(at.ip()).build().spawn(async move {
            let listener = TcpListener::bind(at).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; PAYLOAD];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            // It is not flushed by being dropped.
            drop(stream);
        });
        let client = runtime.create_node().ip(client.ip()).build();
        let asking = client.spawn(async move { ask(connect(at).await, 1, 1).await });
        runtime.block_on(asking).unwrap();
    }
    measurement.end(count);
}

pub fn repeated_sleeps(arguments: &Arguments) {
    let tasks: u64 = arguments.number("tasks", 1000);
    let each = arguments.number::<u64>("n", 1_000_000) / tasks;
    let runtime = world(1);
    let host = runtime.create_node().ip(address(0, 0).ip()).build();
    let sleeper = |task| {
        host.spawn(async move {
            let mut numbers = Numbers::new(task);
            for _ in 0..each {
                sleep(numbers.sleep()).await;
            }
        })
    };
    let measurement = Measurement::begin();
    let sleeping: Vec<_> = (0..tasks).map(sleeper).collect();
    runtime.block_on(async {
        for one in sleeping {
            one.await.unwrap();
        }
    });
    measurement.end(each * tasks);
}

pub fn concurrent_sleeps(count: u64) {
    let runtime = world(1);
    let host = runtime.create_node().ip(address(0, 0).ip()).build();
    let resident = memory("VmRSS");
    let measurement = Measurement::begin();
    let mut numbers = Numbers::new(1);
    for _ in 0..count {
        let duration = numbers.sleep();
        host.spawn(async move { sleep(duration).await });
    }
    runtime.block_on(async { sleep(2 * LONGEST_SLEEP).await });
    let most = memory("VmHWM");
    measurement.end(count);
    print("bytes", most.saturating_sub(resident) / count);
}
