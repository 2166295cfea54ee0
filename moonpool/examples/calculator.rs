//! An interface of four methods, each with a stream of its own, served by one `select!`.
//!
//! - `cargo run --example calculator`: server and client in one process, on a free port.
//! - `cargo run --example calculator -- server [address]`: the server alone, until Ctrl-C.
//! - `cargo run --example calculator -- client <address>`: one round of calls to it.
//!
//! The client also divides by zero, which the server answers with an error of its own, and calls a
//! method that does not exist, which nobody answers but the transport.

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::select;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Names the interface; a method's token is this and its index.
const CALCULATOR: u64 = 0xCA1C_0000;
const ADD: u64 = 0;
const SUBTRACT: u64 = 1;
const MULTIPLY: u64 = 2;
const DIVIDE: u64 = 3;
/// Nobody registers this one.
const SQUARE_ROOT: u64 = 4;

/// The calculator's own error codes.
const DIVISION_BY_ZERO: u32 = 1;
const OVERFLOW: u32 = 2;

const DEFAULT_ADDRESS: &str = "127.0.0.1:4501";
const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Operands {
    a: i64,
    b: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Quotient {
    quotient: i64,
    remainder: i64,
}

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;
type Method = RequestStream<Operands, JsonCodec>;

// The server.

struct CalculatorServer<P: Providers> {
    transport: Rc<Transport<P>>,
    add: Method,
    subtract: Method,
    multiply: Method,
    divide: Method,
}

impl<P: Providers> CalculatorServer<P> {
    async fn listen(providers: &P, address: NetworkAddress) -> Result<Self, BuildError> {
        let transport = FlowTransportBuilder::from_providers(providers)
            .local_address(address)
            .build_listening()
            .await?;
        let method = |index| {
            let (stream, _token) = transport.register_handler_at(CALCULATOR, index, JsonCodec);
            stream
        };
        Ok(Self {
            add: method(ADD),
            subtract: method(SUBTRACT),
            multiply: method(MULTIPLY),
            divide: method(DIVIDE),
            transport,
        })
    }

    fn address(&self) -> Result<NetworkAddress, Box<dyn Error>> {
        let address = self.transport.local_address();
        address.ok_or_else(|| "the server has no address to be reached at".into())
    }

    /// Answers until `stop`, then lets the last answers leave.
    async fn run(self, stop: impl Future<Output = ()>) {
        let transport = &self.transport;
        let mut stop = std::pin::pin!(stop);
        loop {
            select! {
                () = &mut stop => break,
                Some((Operands { a, b }, reply)) = self.add.recv_with_transport(transport) => {
                    answer(reply, a.checked_add(b));
                }
                Some((Operands { a, b }, reply)) = self.subtract.recv_with_transport(transport) => {
                    answer(reply, a.checked_sub(b));
                }
                Some((Operands { a, b }, reply)) = self.multiply.recv_with_transport(transport) => {
                    answer(reply, a.checked_mul(b));
                }
                Some((Operands { a, b }, reply)) = self.divide.recv_with_transport(transport) => {
                    if b == 0 {
                        reply.send_error(ReplyError::application(
                            DIVISION_BY_ZERO,
                            "division by zero",
                        ));
                        continue;
                    }
                    let quotient = a.checked_div(b).zip(a.checked_rem(b));
                    answer(reply, quotient.map(|(quotient, remainder)| Quotient {
                        quotient,
                        remainder,
                    }));
                }
                else => break,
            }
        }
        self.transport.shutdown(GRACE).await;
    }
}

fn answer<T: Serialize>(reply: ReplyPromise<T, JsonCodec>, result: Option<T>) {
    match result {
        Some(result) => reply.send(result),
        None => reply.send_error(ReplyError::application(OVERFLOW, "out of range")),
    }
}

// The client.

struct CalculatorClient<P: Providers> {
    transport: Rc<Transport<P>>,
    server: NetworkAddress,
}

impl<P: Providers> CalculatorClient<P> {
    fn new(providers: &P, server: NetworkAddress) -> Self {
        Self {
            transport: FlowTransportBuilder::from_providers(providers).build(),
            server,
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: u64,
        a: i64,
        b: i64,
    ) -> Result<T, ReplyError> {
        let endpoint = Endpoint::new(self.server, UID::new(CALCULATOR, method));
        send_request(&self.transport, &endpoint, Operands { a, b }, JsonCodec)?.await
    }

    async fn close(self) {
        self.transport.shutdown(GRACE).await;
    }
}

/// One call to each method, and two that cannot succeed. Gives what is to be printed.
async fn calculate<P: Providers>(client: &CalculatorClient<P>) -> Result<Vec<String>, ReplyError> {
    let sum: i64 = client.call(ADD, 10, 5).await?;
    let difference: i64 = client.call(SUBTRACT, 10, 5).await?;
    let product: i64 = client.call(MULTIPLY, 10, 5).await?;
    let divided: Quotient = client.call(DIVIDE, 17, 5).await?;
    let by_zero = client.call::<Quotient>(DIVIDE, 1, 0).await;
    let no_method = client.call::<i64>(SQUARE_ROOT, 2, 0).await;
    Ok(vec![
        format!("10 + 5 = {sum}"),
        format!("10 - 5 = {difference}"),
        format!("10 * 5 = {product}"),
        format!(
            "17 / 5 = {}, remainder {}",
            divided.quotient, divided.remainder
        ),
        format!("1 / 0: {}", outcome(by_zero)),
        format!("the square root of 2: {}", outcome(no_method)),
    ])
}

fn outcome<T: std::fmt::Debug>(result: Result<T, ReplyError>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

// The program.

async fn demonstrate<P: Providers>(
    providers: &P,
    address: NetworkAddress,
) -> Result<Vec<String>, Box<dyn Error>> {
    let server = CalculatorServer::listen(providers, address).await?;
    let address = server.address()?;
    let (stop, stopped) = stop_signal();
    let serving = providers
        .task()
        .spawn_task("calculator", server.run(stopped));
    let client = CalculatorClient::new(providers, address);
    let lines = calculate(&client).await?;
    client.close().await;
    stop();
    serving.await?;
    Ok(lines)
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

/// Resolves at the first Ctrl-C.
async fn interrupted() {
    if let Err(error) = tokio::signal::ctrl_c().await {
        println!("cannot wait for Ctrl-C ({error}); stop me with a signal");
        std::future::pending().await
    }
}

async fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let providers = TokioProviders::new();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let lines = match arguments[..] {
        [] => demonstrate(&providers, "127.0.0.1:0".parse()?).await?,
        ["server"] => serve(&providers, DEFAULT_ADDRESS).await?,
        ["server", address] => serve(&providers, address).await?,
        ["client", address] => {
            let client = CalculatorClient::new(&providers, address.parse()?);
            let lines = calculate(&client).await?;
            client.close().await;
            lines
        }
        _ => return Err("usage: calculator [server [address] | client <address>]".into()),
    };
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

async fn serve<P: Providers>(providers: &P, address: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let address = address.parse()?;
    let server = CalculatorServer::listen(providers, address).await?;
    // Listening on 0.0.0.0, it is reached at any of the host's addresses, and has none of its own.
    let address = server.address().unwrap_or(address);
    println!("listening on {address}; Ctrl-C ends this");
    server.run(interrupted()).await;
    Ok(vec!["done".to_owned()])
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
    use std::future::pending;

    use moonpool::foundation::{NetworkConfiguration, SimWorld};

    use super::*;

    /// A network without faults: the demonstrations count what they get.
    #[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn calm_world(seed: u64) -> SimWorld {
        let config = NetworkConfiguration::disabled();
        SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
    }

    const EXPECTED: [&str; 6] = [
        "10 + 5 = 15",
        "10 - 5 = 5",
        "10 * 5 = 50",
        "17 / 5 = 3, remainder 2",
        "1 / 0: application error 1: division by zero",
        "the square root of 2: nobody is registered for the endpoint",
    ];

    #[test]
    fn the_calculator_calculates_on_two_simulated_hosts() {
        for seed in 0..100 {
            let world = calm_world(seed);
            let (server, client) = (world.add_process("server"), world.add_process("client"));
            let address = NetworkAddress::new(server.ip(), 4501);
            let (at_server, at_client) = (server.providers(), client.providers());
            let lines = world.block_on(async move {
                let server = CalculatorServer::listen(&at_server, address).await.unwrap();
                let task = at_server.task().clone();
                task.spawn_task("calculator", server.run(pending()));
                let client = CalculatorClient::new(&at_client, address);
                let overflow = client.call::<i64>(MULTIPLY, i64::MAX, 2).await;
                let expected = ReplyError::application(OVERFLOW, "out of range");
                assert_eq!(overflow, Err(expected));
                calculate(&client).await.unwrap()
            });
            assert_eq!(lines.unwrap(), EXPECTED, "seed {seed}");
        }
    }

    #[test]
    fn the_demonstration_runs_in_the_simulator_too() {
        let world = calm_world(0);
        let host = world.add_process("host");
        let (providers, address) = (host.providers(), NetworkAddress::new(host.ip(), 0));
        let lines = world.block_on(async move { demonstrate(&providers, address).await.unwrap() });
        assert_eq!(lines.unwrap(), EXPECTED);
    }
}
