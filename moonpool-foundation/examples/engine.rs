//! What the simulator's engine costs, a row per piece of work: for a clock, and for an instruction
//! counter, which repeats where a clock does not.
//!
//! `cargo run --release --example engine` times every row, the median of five runs;
//! `-- row operations` does one row so often, once, and prints nothing: under
//! `valgrind --tool=callgrind` the difference between two counts is what one operation takes.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, fails by panicking and reads the real clock"
)]

// The queue is no part of the API: it is compiled in here once more.
#[path = "../src/sim/chunks.rs"]
mod chunks;
#[expect(dead_code, reason = "the rows need some of it")]
#[path = "../src/sim/clock.rs"]
mod clock;
#[expect(dead_code, reason = "the rows need some of it")]
#[path = "../src/sim/events.rs"]
mod events;
#[path = "../src/sim/near.rs"]
mod near;
#[path = "../src/sim/recycle.rs"]
mod recycle;

use std::time::{Duration, Instant};

use clock::SimInstant;
use events::{EventClass, EventQueue, Popped};
use moonpool_foundation::{
    LatencyModel, NetworkConfiguration, NetworkProvider, Providers, RandomProvider, SimProviders,
    SimWorld, SimulationBuilder, SimulationMetrics, TaskProvider, TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PAYLOAD: usize = 64;
/// Requests in flight on each connection of the full mesh.
const WINDOW: usize = 8;
const MESH: usize = 10;

fn world(seed: u64) -> SimWorld {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::fixed(Duration::from_millis(1)),
        read_latency: LatencyModel::fixed(Duration::ZERO),
        ..NetworkConfiguration::disabled()
    };
    SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
}

/// Numbers for the event queue, from a multiplicative generator: the cost of drawing is not measured.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        self.0 >> 33
    }
}

/// Pops the earliest event and pushes a later one, with `pending` queued.
fn queue(pending: u64, operations: u64) -> f64 {
    let mut numbers = Numbers(1);
    let mut queue = EventQueue::default();
    // Up to a second ahead, as timers and segments are.
    for _ in 0..pending {
        let delay = Duration::from_nanos(numbers.next() % 1_000_000_000);
        queue.push(
            SimInstant::ZERO.after(delay),
            EventClass::Foreground,
            pending,
        );
    }
    let began = Instant::now();
    for _ in 0..operations {
        let Popped::Event(at, event) = queue.pop_by(SimInstant::NEVER) else {
            return 0.0;
        };
        let delay = Duration::from_nanos(1 + numbers.next() % 1_000_000_000);
        queue.push(at.after(delay), EventClass::Foreground, event);
    }
    operations as f64 / began.elapsed().as_secs_f64()
}

/// Two tasks that yield to each other.
fn switches(operations: u64) -> f64 {
    let world = world(1);
    for name in ["one", "other"] {
        let task = world.task_provider();
        world.task_provider().spawn_task(name, async move {
            for _ in 0..operations / 2 {
                task.yield_now().await;
            }
        });
    }
    let began = Instant::now();
    world.run_until_empty().unwrap();
    operations as f64 / began.elapsed().as_secs_f64()
}

/// `tasks` tasks that sleep for random times one after the other.
fn sleeps(tasks: u64, operations: u64) -> f64 {
    let world = world(1);
    for _ in 0..tasks {
        let (time, random) = (world.time_provider(), world.random_provider());
        world.task_provider().spawn_task("sleeper", async move {
            for _ in 0..operations / tasks {
                let micros = random.random_range(1..1_000_u64);
                time.sleep(Duration::from_micros(micros)).await;
            }
        });
    }
    let began = Instant::now();
    world.run_until_empty().unwrap();
    operations as f64 / began.elapsed().as_secs_f64()
}

async fn echo(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut bytes = [0; PAYLOAD];
    while stream.read_exact(&mut bytes).await.is_ok() {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Sequential echoes over one stream.
fn round_trips(operations: u64) -> f64 {
    let world = world(1);
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    let network = server.network().clone();
    server.task().spawn_task("server", async move {
        let listener = network.bind("server:80").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        echo(stream).await;
    });
    let network = client.network().clone();
    let time = client.time().clone();
    let calls = client.task().spawn_task("client", async move {
        time.sleep(Duration::from_secs(1)).await;
        let mut stream = network.connect("server:80").await.unwrap();
        let mut bytes = [7; PAYLOAD];
        for _ in 0..operations {
            stream.write_all(&bytes).await.unwrap();
            stream.read_exact(&mut bytes).await.unwrap();
        }
    });
    let began = Instant::now();
    world.block_on(calls).unwrap().unwrap();
    operations as f64 / began.elapsed().as_secs_f64()
}

async fn serve_echo(providers: SimProviders, address: String) {
    let listener = providers.network().bind(&address).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        providers.task().spawn_task("echo", echo(stream));
    }
}

/// Ten clients, each connected to each of ten servers, with eight echoes in flight on each connection.
fn mesh(operations: u64) -> f64 {
    let world = world(1);
    for server in 0..MESH {
        let providers = world.add_process(&format!("server-{server}")).providers();
        let serves = serve_echo(providers.clone(), format!("server-{server}:80"));
        providers.task().spawn_task("server", serves);
    }
    let each = usize::try_from(operations).unwrap() / (MESH * MESH * WINDOW);
    let mut clients = Vec::new();
    for client in 0..MESH {
        let providers = world.add_process(&format!("client-{client}")).providers();
        for server in 0..MESH {
            let (network, time) = (providers.network().clone(), providers.time().clone());
            clients.push(providers.task().spawn_task("client", async move {
                time.sleep(Duration::from_secs(1)).await;
                let address = format!("server-{server}:80");
                let mut stream = network.connect(&address).await.unwrap();
                let mut bytes = [7; PAYLOAD];
                stream.write_all(&[7; PAYLOAD * WINDOW]).await.unwrap();
                for _ in 0..each * WINDOW {
                    stream.read_exact(&mut bytes).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                }
            }));
        }
    }
    let began = Instant::now();
    world
        .block_on(async move {
            for client in clients {
                client.await.unwrap();
            }
        })
        .unwrap();
    (each * MESH * MESH * WINDOW) as f64 / began.elapsed().as_secs_f64()
}

/// Sends to the other end every `period`; what comes from there is read and dropped.
async fn beat(providers: SimProviders, address: String, period: Duration) {
    let mut stream = providers.network().connect(&address).await.unwrap();
    loop {
        providers.time().sleep(period).await;
        stream.write_all(&[7; PAYLOAD]).await.unwrap();
    }
}

async fn listen_to_beats(providers: SimProviders) {
    let listener = providers.network().bind("0.0.0.0:80").await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        providers.task().spawn_task("listens", async move {
            let mut bytes = [0; PAYLOAD];
            while stream.read_exact(&mut bytes).await.is_ok() {}
        });
    }
}

/// Nodes that beat to some others, for so many simulated seconds: those per second.
fn beats(nodes: usize, others: usize, period: Duration, seconds: u64) -> f64 {
    let began = Instant::now();
    let world = world(1);
    for node in 0..nodes {
        let providers = world.add_process(&format!("node-{node}")).providers();
        let listens = listen_to_beats(providers.clone());
        providers.task().spawn_task("listener", listens);
        for other in 1..=others {
            let providers = providers.clone();
            let address = format!("node-{}:80", (node + other) % nodes);
            providers.clone().task().spawn_task("beats", async move {
                providers.time().sleep(Duration::from_millis(100)).await;
                beat(providers, address, period).await;
            });
        }
    }
    world.run_for(Duration::from_secs(seconds)).unwrap();
    seconds as f64 / began.elapsed().as_secs_f64()
}

async fn exchange(providers: SimProviders, address: &str) {
    let mut stream = providers.network().connect(address).await.unwrap();
    let mut bytes = [7; PAYLOAD];
    stream.write_all(&bytes).await.unwrap();
    stream.read_exact(&mut bytes).await.unwrap();
}

async fn serve_once(providers: SimProviders) {
    let listener = providers.network().bind("0.0.0.0:80").await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    echo(stream).await;
}

/// Worlds of two hosts and one exchange.
fn bare_seeds(operations: u64) -> f64 {
    let began = Instant::now();
    for seed in 0..operations {
        let world = world(seed);
        let server = world.add_process("server").providers();
        let client = world.add_process("client").providers();
        server
            .task()
            .spawn_task("server", serve_once(server.clone()));
        let done = client.clone().task().spawn_task("client", async move {
            client.time().sleep(Duration::from_millis(10)).await;
            exchange(client, "server:80").await;
        });
        world.block_on(done).unwrap().unwrap();
    }
    operations as f64 / began.elapsed().as_secs_f64()
}

/// The same through the runner.
fn built_seeds(jobs: usize, operations: u64) -> f64 {
    let config = NetworkConfiguration {
        write_latency: LatencyModel::fixed(Duration::from_millis(1)),
        read_latency: LatencyModel::fixed(Duration::ZERO),
        ..NetworkConfiguration::disabled()
    };
    let began = Instant::now();
    let report = SimulationBuilder::new()
        .with_network_config(config)
        .with_seed_range(0..operations)
        .jobs(jobs)
        .process("server", |providers: SimProviders, _| async move {
            serve_once(providers).await;
            Ok(())
        })
        .register_providers_workload("client", |providers: SimProviders, _| async move {
            providers.time().sleep(Duration::from_millis(10)).await;
            exchange(providers, "server:80").await;
            Ok(SimulationMetrics::default())
        })
        .run();
    assert_eq!(report.failed_runs, 0);
    operations as f64 / began.elapsed().as_secs_f64()
}

const HEARTBEAT: Duration = Duration::from_millis(100);

/// A row: its name, how many operations make a run, what does them, and the unit of what that gives.
type Row = (&'static str, u64, fn(u64) -> f64, &'static str);

const ROWS: [Row; 15] = [
    (
        "queue-1k",
        2_000_000,
        |n| queue(1_000, n),
        "pops and pushes/s",
    ),
    (
        "queue-100k",
        2_000_000,
        |n| queue(100_000, n),
        "pops and pushes/s",
    ),
    (
        "queue-1m",
        2_000_000,
        |n| queue(1_000_000, n),
        "pops and pushes/s",
    ),
    ("switch", 1_000_000, switches, "task switches/s"),
    ("sleep", 1_000_000, |n| sleeps(1, n), "sleeps/s"),
    (
        "sleep-1k",
        1_000_000,
        |n| sleeps(1_000, n),
        "sleeps/s, a thousand tasks",
    ),
    (
        "sleep-1m",
        1_000_000,
        |n| sleeps(n, n),
        "sleeps/s, all at once",
    ),
    ("stream", 400_000, round_trips, "round trips/s"),
    ("mesh", 400_000, mesh, "round trips/s, 10 x 10, window 8"),
    (
        "heartbeat",
        600,
        |n| beats(10, 9, HEARTBEAT, n),
        "simulated s/s",
    ),
    (
        "ring-100",
        60,
        |n| beats(100, 1, 10 * HEARTBEAT, n),
        "simulated s/s",
    ),
    (
        "ring-1000",
        60,
        |n| beats(1_000, 1, 10 * HEARTBEAT, n),
        "simulated s/s",
    ),
    ("seeds", 20_000, bare_seeds, "worlds/s"),
    ("seeds-built", 20_000, |n| built_seeds(1, n), "seeds/s"),
    (
        "seeds-two",
        20_000,
        |n| built_seeds(2, n),
        "seeds/s, two workers",
    ),
];

fn main() {
    let mut args = std::env::args().skip(1);
    let filter = args.next();
    if let (Some(name), Some(operations)) = (&filter, args.next()) {
        let row = ROWS.iter().find(|row| row.0 == name.as_str()).unwrap();
        row.2(operations.parse().unwrap());
        return;
    }
    for (name, operations, run, unit) in ROWS {
        if filter
            .as_ref()
            .is_none_or(|filter| name.contains(filter.as_str()))
        {
            let mut figures: Vec<f64> = (0..5).map(|_| run(operations)).collect();
            figures.sort_by(f64::total_cmp);
            println!("{name:<12} {:>14.0} {unit}", figures[2]);
        }
    }
}
