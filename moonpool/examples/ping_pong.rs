//! A server that answers pings and a client that sends them, over real TCP.
//!
//! - `cargo run --example ping_pong`: both in one process, on a free port. Prints what a call
//!   costs and exits.
//! - `cargo run --example ping_pong -- server [address]`: the server alone, until Ctrl-C or SIGTERM.
//! - `cargo run --example ping_pong -- client <address>`: the client alone, until the same. Kill the
//!   server meanwhile and start it again: calls wait for it, or say what became of them, and go on.
//!   At the end the client counts what it got.
//!
//! Everything but `main` is generic over `Providers`: the tests at the end run the same server and
//! client in a simulated world, where a server is killed and restarted in microseconds.

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::collections::VecDeque;
use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::select;
use serde::{Deserialize, Serialize};

const PING: UID = UID::new(0x9176_9076, 0);
const DEFAULT_ADDRESS: &str = "127.0.0.1:4500";

/// How long connections have to write what is queued when a process ends.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Ping {
    sequence: u64,
    message: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Pong {
    sequence: u64,
    echo: String,
    /// The start of the server's process that answers.
    process: UID,
}

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

// The server.

struct PingServer<P: Providers> {
    transport: Rc<Transport<P>>,
    pings: RequestStream<Ping, JsonCodec>,
}

impl<P: Providers> PingServer<P> {
    async fn listen(providers: &P, address: NetworkAddress) -> Result<Self, BuildError> {
        let transport = FlowTransportBuilder::from_providers(providers)
            .local_address(address)
            .build_listening()
            .await?;
        let pings = transport.register_handler(PING, JsonCodec);
        Ok(Self { transport, pings })
    }

    fn address(&self) -> Result<NetworkAddress, Box<dyn Error>> {
        let address = self.transport.local_address();
        address.ok_or_else(|| "the server has no address to be reached at".into())
    }

    /// Answers until `stop`, then lets the last answers leave.
    async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let process = self.transport.incarnation();
        loop {
            select! {
                biased;
                () = &mut stop => break,
                Some((ping, reply)) = self.pings.recv_with_transport(&self.transport) => {
                    let Ping { sequence, message } = ping;
                    reply.send(Pong { sequence, echo: message, process });
                }
                else => break,
            }
        }
        self.transport.shutdown(GRACE).await;
    }
}

// The client.

struct PingClient<P: Providers> {
    transport: Rc<Transport<P>>,
    time: P::Time,
    endpoint: Endpoint,
}

/// What a number of calls took.
struct Measured {
    elapsed: Duration,
    /// Of each call, ascending.
    latencies: Vec<Duration>,
}

impl<P: Providers> PingClient<P> {
    fn new(providers: &P, server: NetworkAddress) -> Self {
        Self {
            transport: FlowTransportBuilder::from_providers(providers).build(),
            time: providers.time().clone(),
            endpoint: Endpoint::new(server, PING),
        }
    }

    fn send(&self, sequence: u64) -> Result<ReplyFuture<Pong, JsonCodec>, ReplyError> {
        let message = "hello".to_owned();
        let ping = Ping { sequence, message };
        Ok(send_request(
            &self.transport,
            &self.endpoint,
            ping,
            JsonCodec,
        )?)
    }

    async fn ping(&self, sequence: u64) -> Result<Pong, ReplyError> {
        self.send(sequence)?.await
    }

    /// Makes `calls` calls, `in_flight` of them at a time.
    async fn measure(&self, calls: u64, in_flight: usize) -> Result<Measured, ReplyError> {
        let mut latencies = Vec::new();
        let mut pending = VecDeque::with_capacity(in_flight);
        let began = self.time.now();
        for sequence in 0..calls {
            if pending.len() == in_flight {
                self.take(&mut pending, &mut latencies).await?;
            }
            pending.push_back((self.time.now(), sequence, self.send(sequence)?));
        }
        while !pending.is_empty() {
            self.take(&mut pending, &mut latencies).await?;
        }
        let elapsed = self.time.now() - began;
        latencies.sort_unstable();
        Ok(Measured { elapsed, latencies })
    }

    async fn take(
        &self,
        pending: &mut VecDeque<(Duration, u64, ReplyFuture<Pong, JsonCodec>)>,
        latencies: &mut Vec<Duration>,
    ) -> Result<(), ReplyError> {
        if let Some((sent, sequence, reply)) = pending.pop_front() {
            let pong = reply.await?;
            assert_eq!(pong.sequence, sequence, "an answer to another question");
            latencies.push(self.time.now() - sent);
        }
        Ok(())
    }

    /// Pings every `pause` until `stop`, and reports each outcome.
    async fn converse(
        &self,
        pause: Duration,
        stop: impl Future<Output = ()>,
        mut report: impl FnMut(u64, Duration, Result<Pong, ReplyError>),
    ) {
        let mut stop = std::pin::pin!(stop);
        for sequence in 0.. {
            let sent = self.time.now();
            let outcome = select! {
                biased;
                () = &mut stop => break,
                outcome = self.ping(sequence) => outcome,
            };
            report(sequence, self.time.now() - sent, outcome);
            select! {
                biased;
                () = &mut stop => break,
                () = self.time.sleep(pause) => {}
            }
        }
    }

    async fn close(self) {
        self.transport.shutdown(GRACE).await;
    }
}

/// What a client got for its pings.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    answered: u32,
    surely_not_executed: u32,
    /// Without an answer, and executed or not.
    unknown: u32,
    /// How often another process answered than the time before.
    replaced: u32,
    process: Option<UID>,
}

impl Tally {
    /// Counts an outcome, and gives what is to be said about it.
    fn add(&mut self, took: Duration, outcome: Result<Pong, ReplyError>) -> String {
        match outcome {
            Ok(pong) => {
                self.answered += 1;
                let before = self.process.replace(pong.process);
                if before.is_none_or(|before| before == pong.process) {
                    return format!("answered after {took:.1?}");
                }
                self.replaced += 1;
                format!("answered after {took:.1?}, by a new process: the server was restarted")
            }
            Err(error) if error.is_surely_not_executed() => {
                self.surely_not_executed += 1;
                format!("surely not executed, after {took:.1?}: {error}")
            }
            Err(error) => {
                self.unknown += 1;
                format!("no answer, after {took:.1?}: {error}")
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} answered, {} surely not executed, {} without an answer; new server processes: {}",
            self.answered, self.surely_not_executed, self.unknown, self.replaced
        )
    }
}

// The program.

/// The server and the client of one process, and what calls between them cost.
async fn demonstrate<P: Providers>(
    providers: &P,
    address: NetworkAddress,
    calls: u64,
) -> Result<[Measured; 2], Box<dyn Error>> {
    let server = PingServer::listen(providers, address).await?;
    let address = server.address()?;
    let (stop, stopped) = stop_signal();
    let serving = providers
        .task()
        .spawn_task("ping-server", server.run(stopped));
    let client = PingClient::new(providers, address);
    let pong = client.ping(0).await?;
    println!("the server at {address} answers: {}", pong.echo);
    let measured = [
        client.measure(calls, 1).await?,
        client.measure(calls * 10, 256).await?,
    ];
    client.close().await;
    stop();
    serving.await?;
    Ok(measured)
}

fn print(title: &str, measured: &Measured) {
    let calls = measured.latencies.len();
    let Some(last) = calls.checked_sub(1) else {
        return;
    };
    let percentile = |percent: usize| measured.latencies[last * percent / 100];
    let per_call = measured.elapsed / u32::try_from(calls).unwrap_or(u32::MAX);
    let per_second = 1.0 / per_call.as_secs_f64();
    println!(
        "{title}: {calls} calls, {per_second:.0} calls/s; latency p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        percentile(50),
        percentile(90),
        percentile(99),
        percentile(100),
    );
}

/// Something to call, and a future that is ready once it was called.
fn stop_signal() -> (impl FnOnce(), impl Future<Output = ()>) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let stop = move || drop(sender);
    // Nothing is ever sent: the sender's end is the signal.
    let stopped = async move {
        let _ended = receiver.await;
    };
    (stop, stopped)
}

/// Resolves at the first Ctrl-C, or when a supervisor asks the process to end.
async fn interrupted() {
    let ended = select! {
        ended = tokio::signal::ctrl_c() => ended,
        ended = terminated() => ended,
    };
    if let Err(error) = ended {
        println!("cannot wait for signals ({error}); kill me");
        std::future::pending().await
    }
}

#[cfg(unix)]
async fn terminated() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    signal(SignalKind::terminate())?.recv().await;
    Ok(())
}

#[cfg(not(unix))]
async fn terminated() -> std::io::Result<()> {
    std::future::pending().await
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let providers = TokioProviders::new();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            let free_port = "127.0.0.1:0".parse()?;
            let [sequential, pipelined] = demonstrate(&providers, free_port, 2_000).await?;
            print("one after the other", &sequential);
            print("256 in flight", &pipelined);
        }
        ["server"] => serve(&providers, DEFAULT_ADDRESS).await?,
        ["server", address] => serve(&providers, address).await?,
        ["client", address] => {
            let client = PingClient::new(&providers, address.parse()?);
            println!("pinging {address}; Ctrl-C ends this");
            let pause = Duration::from_millis(500);
            let mut tally = Tally::default();
            let report = |sequence, took, outcome| {
                println!("ping {sequence}: {}", tally.add(took, outcome));
            };
            client.converse(pause, interrupted(), report).await;
            client.close().await;
            println!("{tally}");
        }
        _ => return Err("usage: ping_pong [server [address] | client <address>]".into()),
    }
    Ok(())
}

async fn serve<P: Providers>(providers: &P, address: &str) -> Result<(), Box<dyn Error>> {
    let address = address.parse()?;
    let server = PingServer::listen(providers, address).await?;
    // Listening on 0.0.0.0, it is reached at any of the host's addresses, and has none of its own.
    let address = server.address().unwrap_or(address);
    println!("listening on {address}; Ctrl-C ends this");
    server.run(interrupted()).await;
    println!("done");
    Ok(())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtime.block_on(run(&arguments))
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As a sentence: an error that `main` returns is printed for debugging.
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    #![expect(
        clippy::unwrap_used,
        reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
    )]

    use std::cell::{Cell, RefCell};
    use std::future::pending;

    use moonpool::foundation::{NetworkConfiguration, SimProviders, SimWorld};

    use super::*;

    /// A network without faults: the demonstrations count what they get.
    #[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn calm_world(seed: u64) -> SimWorld {
        let config = NetworkConfiguration::disabled();
        SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
    }

    /// Ten calls between two simulated hosts. Gives the digest of the run.
    fn ten_calls(seed: u64) -> u64 {
        let world = calm_world(seed);
        let (server, client) = (world.add_process("server"), world.add_process("client"));
        let address = NetworkAddress::new(server.ip(), 4500);
        let (at_server, at_client) = (server.providers(), client.providers());
        let main = async move {
            let server = PingServer::listen(&at_server, address).await.unwrap();
            let (stop, stopped) = stop_signal();
            let task = at_server.task().clone();
            let serving = task.spawn_task("ping-server", server.run(stopped));
            let client = PingClient::new(&at_client, address);
            for sequence in 0..10 {
                let pong = client.ping(sequence).await.unwrap();
                assert_eq!(pong.sequence, sequence);
            }
            client.close().await;
            stop();
            serving.await.unwrap();
        };
        world.block_on(main).unwrap();
        world.run_until_empty().unwrap();
        let left = world.leftovers();
        assert_eq!((left.tasks, left.connections, left.listeners), (0, 0, 0));
        world.digest()
    }

    #[test]
    fn a_hundred_seeds_of_ten_calls() {
        let digests: Vec<u64> = (0..100).map(ten_calls).collect();
        let again: Vec<u64> = (0..100).map(ten_calls).collect();
        assert_eq!(digests, again);
    }

    #[test]
    fn the_demonstration_runs_in_the_simulator_too() {
        let world = calm_world(0);
        let host = world.add_process("host");
        let providers = host.providers();
        let address = NetworkAddress::new(host.ip(), 0);
        let [sequential, pipelined] = world
            .block_on(async move { demonstrate(&providers, address, 50).await.unwrap() })
            .unwrap();
        assert_eq!(sequential.latencies.len(), 50);
        assert_eq!(pipelined.latencies.len(), 500);
        assert!(pipelined.elapsed < sequential.elapsed);
    }

    async fn live(providers: SimProviders, address: NetworkAddress, life: Duration) {
        let time = providers.time().clone();
        let server = PingServer::listen(&providers, address).await.unwrap();
        // Killed: the server and its transport are dropped where they stand.
        let _killed = time.timeout(life, server.run(pending())).await;
    }

    #[test]
    fn the_client_finds_a_server_that_was_killed_and_restarted() {
        for seed in 0..50 {
            let world = calm_world(seed);
            let (server, client) = (world.add_process("server"), world.add_process("client"));
            let address = NetworkAddress::new(server.ip(), 4500);
            let providers = server.providers();
            let time = providers.time().clone();
            let task = providers.task().clone();
            let stopped = Rc::new(Cell::new(false));
            let seen = stopped.clone();
            let lives = task.spawn_task("lives", async move {
                for life in 1..4 {
                    live(providers.clone(), address, Duration::from_secs(life)).await;
                    time.sleep(Duration::from_secs(5)).await;
                }
                live(providers.clone(), address, Duration::from_secs(2)).await;
                seen.set(true);
            });
            let outcomes = RefCell::new(Vec::new());
            let client = PingClient::new(&client.providers(), address);
            let stop = async move { lives.await.unwrap() };
            let pause = Duration::from_millis(100);
            let mut tally = Tally::default();
            let report = |_, took, outcome: Result<Pong, ReplyError>| {
                outcomes.borrow_mut().push(outcome.as_ref().err().cloned());
                tally.add(took, outcome);
            };
            world
                .block_on(client.converse(pause, stop, report))
                .unwrap();
            assert!(stopped.get());
            // Answered in every life, not answered between them.
            let outcomes = outcomes.into_inner();
            let mut changes: Vec<bool> = outcomes.iter().map(Option::is_none).collect();
            changes.dedup();
            let lives = changes.iter().filter(|answered| **answered).count();
            assert_eq!(lives, 4, "seed {seed}: {outcomes:?}");
            assert_eq!(
                tally.replaced, 3,
                "seed {seed}: each life is another process"
            );
        }
    }
}
