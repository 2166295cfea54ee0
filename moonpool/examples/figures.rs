//! A first line of figures: calls on real TCP beside bare tokio framing in the same process, and
//! round trips in simulation.
//!
//! `cargo run --release --example figures [-- seconds-per-row]`. Both ends of every row share one
//! thread. Figures of one run compare with each other; the machine's speed does not.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark prints, fails by panicking and reads the real clock"
)]

use std::time::{Duration, Instant};

use moonpool_foundation::{
    LatencyModel, NetworkConfiguration, NetworkProvider, Providers, SimWorld, TaskProvider,
    TcpListenerTrait, TokioProviders,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PAYLOAD: usize = 64;

/// Echoes length-prefixed frames, all that a read brought with one write.
async fn raw_server<S: AsyncReadExt + AsyncWriteExt + Unpin>(mut stream: S) {
    let mut input = Vec::with_capacity(1 << 16);
    while stream.read_buf(&mut input).await.unwrap_or(0) > 0 {
        let whole = input.len() / (4 + PAYLOAD) * (4 + PAYLOAD);
        if stream.write_all(&input[..whole]).await.is_err() {
            return;
        }
        input.drain(..whole);
    }
}

/// Keeps `window` frames in flight; frames per second.
async fn raw_client<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    mut stream: S,
    window: usize,
    run: Duration,
) -> f64 {
    let mut frame = [7; 4 + PAYLOAD];
    frame[..4].copy_from_slice(&u32::try_from(PAYLOAD).unwrap().to_le_bytes());
    let mut input = Vec::with_capacity(1 << 16);
    let mut frames = 0;
    let began = Instant::now();
    stream.write_all(&frame.repeat(window)).await.unwrap();
    while began.elapsed() < run {
        stream.read_buf(&mut input).await.unwrap();
        let arrived = input.len() / frame.len();
        for answer in input.chunks_exact(frame.len()) {
            assert_eq!(answer[..4], frame[..4]);
        }
        input.drain(..arrived * frame.len());
        frames += arrived;
        stream.write_all(&frame.repeat(arrived)).await.unwrap();
    }
    frames as f64 / began.elapsed().as_secs_f64()
}

fn raw_tcp(window: usize, run: Duration) -> f64 {
    real(async move {
        let providers = TokioProviders::new();
        let listener = providers.network().bind("127.0.0.1:0").await.unwrap();
        let address = TcpListenerTrait::local_addr(&listener).unwrap();
        providers.task().spawn_task("raw server", async move {
            let (stream, _) = TcpListenerTrait::accept(&listener).await.unwrap();
            stream.set_nodelay(true).unwrap();
            raw_server(stream).await;
        });
        let stream = providers.network().connect(&address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        raw_client(stream, window, run).await
    })
}

/// Sequential 64-byte echoes over a simulated stream with 1 ms one way: round trips per second.
fn simulated_streams(round_trips: u32) -> f64 {
    let millisecond = LatencyModel::fixed(Duration::from_millis(1));
    let none = LatencyModel::fixed(Duration::ZERO);
    let config = NetworkConfiguration {
        write_latency: millisecond,
        read_latency: none,
        ..NetworkConfiguration::default()
    };
    let world = SimWorld::new_with_network_config_and_seed(config, 1).unwrap();
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    let network = server.network().clone();
    server.task().spawn_task("server", async move {
        let listener = network.bind("server:80").await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; PAYLOAD];
        while stream.read_exact(&mut bytes).await.is_ok() {
            stream.write_all(&bytes).await.unwrap();
        }
    });
    let network = client.network().clone();
    let time = client.time().clone();
    let calls = client.task().spawn_task("client", async move {
        moonpool_foundation::TimeProvider::sleep(&time, Duration::from_secs(1)).await;
        let mut stream = network.connect("server:80").await.unwrap();
        let mut bytes = [7; PAYLOAD];
        for _ in 0..round_trips {
            stream.write_all(&bytes).await.unwrap();
            stream.read_exact(&mut bytes).await.unwrap();
        }
    });
    let began = Instant::now();
    world.block_on(calls).unwrap().unwrap();
    f64::from(round_trips) / began.elapsed().as_secs_f64()
}

fn real<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap()
        .block_on(future)
}

/// The median of five runs.
fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut figures: Vec<f64> = (0..5).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(1.0, |arg| {
        arg.parse()
            .expect("the argument is a number of seconds per row")
    });
    let run = Duration::from_secs_f64(seconds / 5.0);
    for window in [1, 64, 256] {
        let figure = median(|| raw_tcp(window, run));
        println!("bare tokio framing, {window:>3} in flight: {figure:>12.0} /s");
    }
    let figure = median(|| simulated_streams(100_000));
    println!("simulated stream round trips:       {figure:>12.0} /s");
}
