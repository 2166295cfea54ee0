//! A first line of figures: calls on real TCP beside bare tokio framing in the same process, and
//! round trips in simulation.
//!
//! `cargo run --release --example figures [-- seconds-per-row [part-of-a-row's-name]]`. Both ends of every row share one
//! thread. Figures of one run compare with each other; the machine's speed does not.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints, fails by panicking and reads the real clock"
)]

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use foundation::{LatencyModel, NetworkConfiguration, SimProviders, SimWorld};
use moonpool::prelude::*;
use moonpool::{TcpListenerTrait, foundation};
use serde::{Deserialize, Serialize};

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
        ..NetworkConfiguration::disabled()
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
        time.sleep(Duration::from_secs(1)).await;
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

const TOKEN: UID = UID::new(0xF16, 0);

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

/// About as much as the frames above carry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    id: u64,
    low: f64,
    high: f64,
    name: String,
}

impl Sample {
    fn new() -> Self {
        Self {
            id: 1_234_567,
            low: 0.25,
            high: 1234.5,
            name: "a name of thirty-two characters.".to_owned(),
        }
    }
}

/// Echoes samples until the transport is shut down.
async fn echo_service<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<Sample, _>(TOKEN, JsonCodec);
    while let Some((request, reply)) = stream
        .recv_with_transport::<_, _, _, Sample>(&transport)
        .await
    {
        reply.send(request);
    }
}

/// Makes `calls` calls, `window` at a time.
async fn call_many<P: Providers>(
    transport: &Transport<P>,
    server: NetworkAddress,
    window: usize,
    calls: usize,
) {
    let endpoint = Endpoint::new(server, TOKEN);
    let mut in_flight: VecDeque<ReplyFuture<Sample, JsonCodec>> = VecDeque::new();
    for _ in 0..calls {
        if in_flight.len() == window
            && let Some(reply) = in_flight.pop_front()
        {
            reply.await.unwrap();
        }
        in_flight.push_back(send_request(transport, &endpoint, Sample::new(), JsonCodec).unwrap());
    }
    for reply in in_flight {
        reply.await.unwrap();
    }
}

async fn serve<P: Providers>(providers: &P, address: &str) -> Rc<Transport<P>> {
    let transport = FlowTransportBuilder::from_providers(providers)
        .local_address(address.parse().unwrap())
        .build_listening()
        .await
        .unwrap();
    let service = echo_service::<P>(Rc::clone(&transport));
    providers.task().spawn_task("service", service);
    transport
}

/// Calls over loopback TCP, both ends on this thread: calls per second.
fn real_calls(window: usize, calls: usize) -> f64 {
    real(async move {
        let providers = TokioProviders::new();
        let server = serve(&providers, "127.0.0.1:0").await;
        let client = FlowTransportBuilder::from_providers(&providers).build();
        let address = server.local_address().unwrap();
        call_many::<TokioProviders>(&client, address, window, window).await;
        let began = Instant::now();
        call_many::<TokioProviders>(&client, address, window, calls).await;
        let figure = calls as f64 / began.elapsed().as_secs_f64();
        client.shutdown(Duration::from_secs(1)).await;
        server.shutdown(Duration::from_secs(1)).await;
        figure
    })
}

/// One simulated run of `calls` sequential calls between two processes.
fn simulated_calls(seed: u64, calls: usize) {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    let address = NetworkAddress::new(world.process("server").unwrap().ip(), 7000);
    server.task().spawn_task("server", {
        let server = server.clone();
        async move {
            let transport = serve(&server, "10.0.0.1:7000").await;
            std::future::pending::<()>().await;
            drop(transport);
        }
    });
    let caller = client.task().spawn_task("client", {
        let client = client.clone();
        async move {
            let transport = FlowTransportBuilder::from_providers(&client).build();
            call_many::<SimProviders>(&transport, address, 1, calls).await;
            transport.shutdown(Duration::from_secs(1)).await;
        }
    });
    world.block_on(caller).unwrap().unwrap();
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

/// Runs the row unless the second argument leaves it out.
fn row(name: &str, unit: &str, run: impl FnMut() -> f64) {
    let wanted = std::env::args()
        .nth(2)
        .is_none_or(|filter| name.contains(&filter));
    if wanted {
        println!("{name:<40} {:>14.3} {unit}", median(run));
    }
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(1.0, |arg| {
        arg.parse()
            .expect("the first argument is a number of seconds per row")
    });
    let run = Duration::from_secs_f64(seconds / 5.0);
    for window in [1, 64, 256] {
        let name = format!("bare tokio framing, {window} in flight");
        row(&name, "/s", || raw_tcp(window, run));
        let calls = if window == 1 { 40_000.0 } else { 200_000.0 } * seconds;
        let name = format!("calls on TCP, JSON, {window} in flight");
        row(&name, "/s", || real_calls(window, calls as usize));
    }
    row("simulated stream round trips", "/s", || {
        simulated_streams(100_000)
    });
    row("simulated calls, JSON", "/s", || {
        let began = Instant::now();
        simulated_calls(1, 50_000);
        50_000.0 / began.elapsed().as_secs_f64()
    });
    row("a thousand seeds of ten calls", "s", || {
        let began = Instant::now();
        (0..1000).for_each(|seed| simulated_calls(seed, 10));
        began.elapsed().as_secs_f64()
    });
}
