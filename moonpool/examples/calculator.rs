//! An interface of four methods: answers, errors of the application, and calls that nobody answers.
//!
//! - `cargo run --example calculator`: server and client in one process, on a free port.
//! - `cargo run --example calculator -- server [address]`: the server alone, until Ctrl-C.
//! - `cargo run --example calculator -- client <address>`: one round of calls to it.
//!
//! The client also divides by zero, which the server answers with an error of its own; gives a
//! division less time than the server takes for one; and calls a method that only a newer version
//! of the interface has, which nobody answers but the transport.

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::{Client, Server, Serving, define_interface};
use serde::{Deserialize, Serialize};

/// Of both versions of the interface: a method's token is this and the method's index.
const CALCULATOR: u64 = 0xCA1C_0000;

define_interface! {
    /// Arithmetic on whole numbers.
    Calculator, id CALCULATOR, {
        add: Operands => i64,
        subtract: Operands => i64,
        multiply: Operands => i64,
        /// Takes [`DIVISION_TAKES`].
        divide: Operands => Quotient,
    }
}

mod newer {
    //! The interface as a later release has it: the same id, and one method more at the end.

    use super::{CALCULATOR, Operands, Quotient};

    moonpool::define_interface! {
        pub(super) Calculator, id CALCULATOR, {
            add: Operands => i64,
            subtract: Operands => i64,
            multiply: Operands => i64,
            divide: Operands => Quotient,
            square_root: i64 => i64,
        }
    }
}

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

/// The calculator's own error codes.
const DIVISION_BY_ZERO: u32 = 1;
const OVERFLOW: u32 = 2;

/// Long division is done by hand here.
const DIVISION_TAKES: Duration = Duration::from_millis(50);
/// Less than that.
const HASTE: Duration = Duration::from_millis(10);

const DEFAULT_ADDRESS: &str = "127.0.0.1:4501";
const GRACE: Duration = Duration::from_secs(1);

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

// The server.

struct CalculatorServer<P: Providers> {
    providers: P,
    transport: Rc<Transport<P>>,
    methods: Server<Calculator>,
}

impl<P: Providers> CalculatorServer<P> {
    async fn listen(providers: &P, address: NetworkAddress) -> Result<Self, Box<dyn Error>> {
        let transport = FlowTransportBuilder::from_providers(providers)
            .local_address(address)
            .build_listening()
            .await?;
        Ok(Self {
            providers: providers.clone(),
            methods: Calculator::serve(&transport, JsonCodec)?,
            transport,
        })
    }

    fn address(&self) -> Result<NetworkAddress, Box<dyn Error>> {
        let address = self.transport.local_address();
        address.ok_or_else(|| "the server has no address to be reached at".into())
    }

    /// Answers until `stop`, then lets the handlers that run finish, and their answers leave.
    async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            providers,
            transport,
            methods,
        } = self;
        // A handler per request: while one waits, the others go on. One whose caller has gone, or
        // whose deadline has passed, is dropped.
        let serving = Serving::new(&transport).max_concurrency(64);
        let time = providers.time().clone();
        let answering = async move {
            tokio::join!(
                serving.serve(methods.add, async |Operands { a, b }, _| {
                    in_range(a.checked_add(b))
                }),
                serving.serve(methods.subtract, async |Operands { a, b }, _| {
                    in_range(a.checked_sub(b))
                }),
                serving.serve(methods.multiply, async |Operands { a, b }, _| {
                    in_range(a.checked_mul(b))
                }),
                serving.serve(methods.divide, async move |operands, _| {
                    time.sleep(DIVISION_TAKES).await;
                    divide(operands)
                }),
            );
        };
        providers.task().spawn_task("calculator", answering);
        stop.await;
        transport.shutdown(GRACE).await;
    }
}

fn divide(Operands { a, b }: Operands) -> Result<Quotient, ReplyError> {
    if b == 0 {
        return Err(ReplyError::application(
            DIVISION_BY_ZERO,
            "division by zero",
        ));
    }
    let parts = a.checked_div(b).zip(a.checked_rem(b));
    in_range(parts.map(|(quotient, remainder)| Quotient {
        quotient,
        remainder,
    }))
}

fn in_range<T>(result: Option<T>) -> Result<T, ReplyError> {
    result.ok_or_else(|| ReplyError::application(OVERFLOW, "out of range"))
}

// The client.

struct CalculatorClient<P: Providers> {
    transport: Rc<Transport<P>>,
    calculator: Client<Calculator>,
    newer: Client<newer::Calculator>,
}

impl<P: Providers> CalculatorClient<P> {
    fn new(providers: &P, server: NetworkAddress) -> Self {
        let transport = FlowTransportBuilder::from_providers(providers).build();
        Self {
            calculator: Calculator::remote(&transport, server, JsonCodec),
            newer: newer::Calculator::remote(&transport, server, JsonCodec),
            transport,
        }
    }

    async fn close(self) {
        self.transport.shutdown(GRACE).await;
    }
}

/// One call to each method, and three that cannot succeed. Gives what is to be printed.
async fn calculate<P: Providers>(client: &CalculatorClient<P>) -> Result<Vec<String>, ReplyError> {
    let calculator = &client.calculator;
    let operands = Operands { a: 10, b: 5 };
    let sum = calculator.add(operands).await?;
    let difference = calculator.subtract(operands).await?;
    let product = calculator.multiply(operands).await?;
    let divided = calculator.divide(Operands { a: 17, b: 5 }).await?;
    let by_zero = calculator.divide(Operands { a: 1, b: 0 }).await;
    let in_haste = calculator.divide(operands).timeout(HASTE).await;
    let no_method = client.newer.square_root(2).await;
    Ok(vec![
        format!("10 + 5 = {sum}"),
        format!("10 - 5 = {difference}"),
        format!("10 * 5 = {product}"),
        format!(
            "17 / 5 = {}, remainder {}",
            divided.quotient, divided.remainder
        ),
        format!("1 / 0: {}", outcome(by_zero)),
        format!("10 / 5 within {HASTE:?}: {}", outcome(in_haste)),
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
        .spawn_task("calculator-server", server.run(stopped));
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

    const EXPECTED: [&str; 7] = [
        "10 + 5 = 15",
        "10 - 5 = 5",
        "10 * 5 = 50",
        "17 / 5 = 3, remainder 2",
        "1 / 0: application error 1: division by zero",
        "10 / 5 within 10ms: the deadline passed before an answer came",
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
                task.spawn_task("calculator-server", server.run(pending()));
                let client = CalculatorClient::new(&at_client, address);
                let product = Operands { a: i64::MAX, b: 2 };
                let overflow = client.calculator.multiply(product).await;
                let expected = ReplyError::application(OVERFLOW, "out of range");
                assert_eq!(overflow, Err(expected));
                calculate(&client).await.unwrap()
            });
            assert_eq!(lines.unwrap(), EXPECTED, "seed {seed}");
        }
    }

    #[test]
    fn a_division_keeps_no_other_call_waiting() {
        let world = calm_world(0);
        let (server, client) = (world.add_process("server"), world.add_process("client"));
        let address = NetworkAddress::new(server.ip(), 4501);
        let (at_server, at_client) = (server.providers(), client.providers());
        let main = async move {
            let server = CalculatorServer::listen(&at_server, address).await.unwrap();
            let task = at_server.task().clone();
            task.spawn_task("calculator-server", server.run(pending()));
            let client = CalculatorClient::new(&at_client, address);
            let operands = Operands { a: 10, b: 5 };
            let slow = client.calculator.divide(operands).send().unwrap();
            let sum = client.calculator.add(operands).timeout(DIVISION_TAKES / 2);
            assert_eq!(sum.await, Ok(15));
            assert_eq!(slow.await.unwrap().quotient, 2);
        };
        world.block_on(main).unwrap();
    }

    #[test]
    fn a_division_that_runs_at_shutdown_is_answered() {
        let world = calm_world(0);
        let (server, client) = (world.add_process("server"), world.add_process("client"));
        let address = NetworkAddress::new(server.ip(), 4501);
        let (at_server, at_client) = (server.providers(), client.providers());
        let main = async move {
            let server = CalculatorServer::listen(&at_server, address).await.unwrap();
            let (stop, stopped) = stop_signal();
            let task = at_server.task().clone();
            let serving = task.spawn_task("calculator-server", server.run(stopped));
            let client = CalculatorClient::new(&at_client, address);
            let operands = Operands { a: 10, b: 5 };
            client.calculator.add(operands).await.unwrap();
            let slow = client.calculator.divide(operands).send().unwrap();
            at_client.time().sleep(DIVISION_TAKES / 2).await;
            stop();
            assert_eq!(slow.await.unwrap().quotient, 2);
            serving.await.unwrap();
        };
        world.block_on(main).unwrap();
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
