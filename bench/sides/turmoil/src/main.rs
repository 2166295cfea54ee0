//! turmoil 0.7, as its documentation uses it: a host a node, ticks of 1 ms, messages of 1 ms.

use std::time::Duration;

use bench_common::{
    Arguments, HEARTBEAT, LONGEST_SLEEP, Measurement, Numbers, ONE_WAY, PAYLOAD, RING_BEAT, memory,
    print,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use turmoil::Sim;
use turmoil::net::{TcpListener, TcpStream};

type Outcome = turmoil::Result;

fn main() {
    let arguments = Arguments::parse();
    match arguments.work.as_str() {
        "version" => print("version", "0.7"),
        "sim-stream" => mesh(1, 1, arguments.number("n", 10_000)),
        "sim-mesh" => {
            let window = arguments.number("window", 8);
            mesh(
                arguments.number("nodes", 10),
                window,
                arguments.number("n", 100_000),
            );
        }
        "sim-heartbeat" => heartbeats(&arguments),
        "sim-ring" => ring(&arguments),
        "sim-seeds" => seeds(arguments.number("n", 1000)),
        "sim-sleeps" => repeated_sleeps(&arguments),
        "sim-concurrent-sleeps" => concurrent_sleeps(arguments.number("n", 1_000_000)),
        _ => arguments.unknown(),
    }
}

fn world<'a>(seed: u64) -> Sim<'a> {
    turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(1 << 30))
        .min_message_latency(ONE_WAY)
        .max_message_latency(ONE_WAY)
        .rng_seed(seed)
        .build()
}

async fn connect(host: &str) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect((host, 80)).await {
            return stream;
        }
        tokio::time::sleep(ONE_WAY).await;
    }
}

/// Serves each connection in a task of its own.
async fn serve() -> Outcome {
    let listener = TcpListener::bind(("0.0.0.0", 80)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(echo(stream));
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

fn mesh(nodes: u64, window: u64, count: u64) {
    let each = count / (nodes * nodes);
    let mut sim = world(1);
    for node in 0..nodes {
        sim.host(format!("server{node}"), serve);
    }
    for node in 0..nodes {
        sim.client(format!("client{node}"), async move {
            let asking = (0..nodes).map(|server| {
                spawn_local(async move {
                    let stream = connect(&format!("server{server}")).await;
                    ask(stream, each, window).await;
                })
            });
            for one in asking.collect::<Vec<_>>() {
                one.await?;
            }
            Ok(())
        });
    }
    let measurement = Measurement::begin();
    sim.run().unwrap();
    measurement.end(each * nodes * nodes);
}

async fn hear() {
    let listener = TcpListener::bind(("0.0.0.0", 80)).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        spawn_local(async move {
            let mut bytes = [0; PAYLOAD];
            while stream.read_exact(&mut bytes).await.is_ok() {}
        });
    }
}

fn heartbeats(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 10);
    let mut sim = world(1);
    for node in 0..nodes {
        sim.client(format!("node{node}"), async move {
            spawn_local(hear());
            let mut others = Vec::new();
            for other in (0..nodes).filter(|other| *other != node) {
                others.push(connect(&format!("node{other}")).await);
            }
            for _ in 0..seconds * 10 {
                for stream in &mut others {
                    // A node that was done first has gone, with its host.
                    let _gone = stream.write_all(&[7; PAYLOAD]).await;
                    let _gone = stream.flush().await;
                }
                tokio::time::sleep(HEARTBEAT).await;
            }
            Ok(())
        });
    }
    let measurement = Measurement::begin();
    sim.run().unwrap();
    measurement.end(seconds);
}

fn ring(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let seconds: u64 = arguments.number("n", 60);
    let measurement = Measurement::begin();
    let mut sim = world(1);
    for node in 0..nodes {
        sim.client(format!("node{node}"), async move {
            spawn_local(hear());
            let mut next = connect(&format!("node{}", (node + 1) % nodes)).await;
            for _ in 0..seconds {
                let _gone = next.write_all(&[7; PAYLOAD]).await;
                let _gone = next.flush().await;
                tokio::time::sleep(RING_BEAT).await;
            }
            Ok(())
        });
    }
    sim.run().unwrap();
    measurement.end(seconds * nodes);
}

fn seeds(count: u64) {
    let measurement = Measurement::begin();
    for seed in 0..count {
        let mut sim = world(seed);
        sim.host("server", || async {
            let listener = TcpListener::bind(("0.0.0.0", 80)).await?;
            let (mut stream, _) = listener.accept().await?;
            let mut bytes = [0; PAYLOAD];
            stream.read_exact(&mut bytes).await?;
            stream.write_all(&bytes).await?;
            Ok(())
        });
        sim.client("client", async {
            ask(connect("server").await, 1, 1).await;
            Ok(())
        });
        sim.run().unwrap();
    }
    measurement.end(count);
}

fn repeated_sleeps(arguments: &Arguments) {
    let tasks: u64 = arguments.number("tasks", 1000);
    let each = arguments.number::<u64>("n", 1_000_000) / tasks;
    let mut sim = world(1);
    sim.client("host", async move {
        let sleeping = (0..tasks).map(|task| {
            spawn_local(async move {
                let mut numbers = Numbers::new(task);
                for _ in 0..each {
                    tokio::time::sleep(numbers.sleep()).await;
                }
            })
        });
        for one in sleeping.collect::<Vec<_>>() {
            one.await?;
        }
        Ok(())
    });
    let measurement = Measurement::begin();
    sim.run().unwrap();
    measurement.end(each * tasks);
}

fn concurrent_sleeps(count: u64) {
    let mut sim = world(1);
    sim.client("host", async move {
        let mut numbers = Numbers::new(1);
        for _ in 0..count {
            spawn_local(tokio::time::sleep(numbers.sleep()));
        }
        tokio::time::sleep(2 * LONGEST_SLEEP).await;
        Ok(())
    });
    let resident = memory("VmRSS");
    let measurement = Measurement::begin();
    sim.run().unwrap();
    let most = memory("VmHWM");
    measurement.end(count);
    print("bytes", most.saturating_sub(resident) / count);
}
