//! One body per case, run over real sockets and over the simulator.
//!
//! A body records what each step gave, as one line of text. The lines of the real run must equal
//! the lines written beside the case, and so must those of the simulated run, for every seed tried.
//! The lines are what Linux does; where other systems are known to differ the case says so.
//!
//! A body never waits for real time to be right: it waits for bytes, for EOF or for an error. Where
//! a reset's arrival can only be seen by writing, it writes until a write fails.

mod addresses;
mod listeners;
mod resets;
mod runtime;
mod streams;

use std::cell::RefCell;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use moonpool_foundation::{NetworkProvider, Providers, TcpListenerTrait, TimeProvider};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Stream<P> = <<P as Providers>::Network as NetworkProvider>::TcpStream;
type Listener<P> = <<P as Providers>::Network as NetworkProvider>::TcpListener;

/// What a case gave, step by step. Clones share the lines.
#[derive(Clone, Default)]
struct Table(Rc<RefCell<Vec<String>>>);

impl Table {
    /// Records that `step` gave `Ok` or which kind of error.
    fn step<T>(&self, step: &str, result: io::Result<T>) -> io::Result<T> {
        let outcome = match &result {
            Ok(_) => "Ok".to_owned(),
            Err(error) => format!("{:?}", error.kind()),
        };
        self.fact(step, outcome);
        result
    }

    /// Records that `step` gave `Ok` with which value, or which kind of error.
    fn value<T: Debug>(&self, step: &str, result: io::Result<T>) -> io::Result<T> {
        let outcome = match &result {
            Ok(value) => format!("Ok({value:?})"),
            Err(error) => format!("{:?}", error.kind()),
        };
        self.fact(step, outcome);
        result
    }

    /// Records something that is no I/O result.
    fn fact(&self, step: &str, outcome: impl Display) {
        self.0.borrow_mut().push(format!("{step}: {outcome}"));
    }

    /// Reads once, up to 64 bytes, and records them as text.
    async fn read(&self, step: &str, stream: &mut (impl AsyncReadExt + Unpin)) {
        let mut buffer = [0; 64];
        let result = stream.read(&mut buffer).await;
        let text = result.map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned());
        let _recorded = self.value(step, text);
    }

    /// Reads exactly `count` bytes and records them as text.
    async fn read_exact(&self, step: &str, stream: &mut (impl AsyncReadExt + Unpin), count: usize) {
        let mut buffer = vec![0; count];
        let result = stream.read_exact(&mut buffer).await;
        let text = result.map(|_| String::from_utf8_lossy(&buffer).into_owned());
        let _recorded = self.value(step, text);
    }

    /// Reads up to EOF and records everything as text.
    async fn read_to_end(&self, step: &str, stream: &mut (impl AsyncReadExt + Unpin)) {
        let mut buffer = Vec::new();
        let result = stream.read_to_end(&mut buffer).await;
        let text = result.map(|_| String::from_utf8_lossy(&buffer).into_owned());
        let _recorded = self.value(step, text);
    }

    /// Writes once and records how many bytes were taken.
    async fn write(&self, step: &str, stream: &mut (impl AsyncWriteExt + Unpin), text: &str) {
        let _recorded = self.value(step, stream.write(text.as_bytes()).await);
    }

    /// Writes single bytes until a write fails, and records how.
    async fn write_until_error<P: Providers>(
        &self,
        step: &str,
        host: &P,
        stream: &mut (impl AsyncWriteExt + Unpin),
    ) {
        let error = loop {
            match stream.write(b"x").await {
                Ok(_) => host.time().sleep(Duration::from_millis(1)).await,
                Err(error) => break error,
            }
        };
        self.fact(step, format_args!("{:?}", error.kind()));
    }
}

/// The two hosts of a case: a server, which has an address, and a client.
struct Hosts<P> {
    server: P,
    client: P,
    /// The server's IP address. No other case uses it.
    ip: String,
    /// A name that resolves to an address of the server.
    name: &'static str,
    table: Table,
}

impl<P: Providers> Hosts<P> {
    /// A listener on a free port of the server, and its address.
    async fn listener(&self) -> (Listener<P>, String) {
        let listener = self
            .server
            .network()
            .bind(&format!("{}:0", self.ip))
            .await
            .expect("bind to a free port");
        let addr = listener.local_addr().expect("a bound address");
        (listener, addr)
    }

    async fn connect(&self, addr: &str) -> Stream<P> {
        let connected = self.client.network().connect(addr).await;
        connected.expect("connect to a listener")
    }

    /// A connection: the client's end, then the server's. The listener is gone.
    async fn pair(&self) -> (Stream<P>, Stream<P>) {
        let (listener, addr) = self.listener().await;
        let client = self.connect(&addr).await;
        let (server, _peer) = listener.accept().await.expect("accept");
        (client, server)
    }
}

/// The port of `ip:port`.
fn port_of(addr: &str) -> u16 {
    let (_ip, port) = addr.rsplit_once(':').expect("an address with a port");
    port.parse().expect("a port number")
}

/// Polls `future` once; true if it is not done yet.
fn is_pending(future: impl Future + Unpin) -> bool {
    future.now_or_never().is_none()
}

/// `len` bytes in which every run of 251 is the same.
fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = Vec::from_iter(0_u8..251).repeat(len.div_ceil(251));
    bytes.truncate(len);
    bytes
}

/// Reads up to EOF or an error, at first so slowly that the sender has to wait for room.
async fn read_slowly<P: Providers>(
    host: &P,
    stream: &mut (impl AsyncReadExt + Unpin),
) -> (Vec<u8>, io::Result<()>) {
    let mut all = Vec::new();
    let mut buffer = vec![0; 10_000];
    for reads in 0.. {
        match stream.read(&mut buffer).await {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) => return (all, Err(error)),
        }
        if reads < 30 {
            host.time().sleep(Duration::from_millis(1)).await;
        }
    }
    (all, Ok(()))
}

mod real {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use moonpool_foundation::{Providers, TimeProvider, TokioProviders};

    use super::{Hosts, Table};

    /// A loopback address that no other case and no other run uses at this time, so that a port a
    /// case has freed is not taken by someone else before the case has looked at it. Only Linux
    /// answers on all of 127.0.0.0/8.
    fn own_loopback_address() -> String {
        static CASES: AtomicU32 = AtomicU32::new(1);
        if !cfg!(target_os = "linux") {
            return Ipv4Addr::LOCALHOST.to_string();
        }
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let [.., case] = CASES.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Ipv4Addr::new(127, high, low, case).to_string()
    }

    pub(super) fn run(case: impl AsyncFnOnce(Hosts<TokioProviders>)) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(Default::default())
            .expect("a runtime");
        let table = Table::default();
        let lines = table.clone();
        runtime.block_on(async move {
            let providers = TokioProviders::new();
            let hosts = Hosts {
                server: providers.clone(),
                client: providers.clone(),
                ip: own_loopback_address(),
                name: "localhost",
                table: table.clone(),
            };
            // A guard against a hang, far longer than any case takes.
            let minute = Duration::from_secs(60);
            let done = providers.time().timeout(minute, case(hosts)).await;
            assert!(done.is_ok(), "stuck after {:#?}", table.0.borrow());
        });
        lines.0.take()
    }
}

#[cfg(feature = "sim")]
mod simulated {
    use std::time::Duration;

    use moonpool_foundation::{
        LatencyModel, Leftovers, NetworkConfiguration, SimProviders, SimWorld,
    };

    use super::{Hosts, Table};

    /// Seeds tried: each orders tasks and draws latencies in its own way.
    const SEEDS: u64 = 16;

    /// Small buffers, and latencies so unlike each other that whatever is not kept in order by
    /// the simulator itself comes out of order.
    fn erratic() -> NetworkConfiguration {
        let latency = LatencyModel::uniform(Duration::ZERO, Duration::from_millis(50));
        NetworkConfiguration {
            bind_latency: latency,
            accept_latency: latency,
            connect_latency: latency,
            read_latency: latency,
            write_latency: latency,
            send_buffer_bytes: Some(5_000),
            receive_buffer_bytes: 3_000,
            ..NetworkConfiguration::disabled()
        }
    }

    /// Runs the case on every seed and network; each time it must give `expected`.
    pub(super) fn check(case: impl AsyncFn(Hosts<SimProviders>), expected: &[String]) {
        for seed in 0..SEEDS {
            for (name, config) in [
                ("disabled", NetworkConfiguration::disabled()),
                ("fast_local", NetworkConfiguration::fast_local()),
                ("erratic", erratic()),
            ] {
                let lines = run(&case, seed, config);
                assert_eq!(lines, expected, "seed {seed}, network {name}");
            }
        }
    }

    fn run(
        case: impl AsyncFn(Hosts<SimProviders>),
        seed: u64,
        config: NetworkConfiguration,
    ) -> Vec<String> {
        let world = SimWorld::new_with_network_config_and_seed(config, seed)
            .expect("a valid configuration");
        let server = world.add_process("server");
        let client = world.add_process("client");
        let table = Table::default();
        let hosts = Hosts {
            server: server.providers(),
            client: client.providers(),
            ip: server.ip().to_string(),
            name: "server",
            table: table.clone(),
        };
        if let Err(error) = world.block_on(case(hosts)) {
            panic!("seed {seed}: {error}\nafter {:#?}", table.0.borrow());
        }
        // What is under way arrives somewhere; then nothing of the case may be left.
        world.run_until_empty().expect("an orderly end");
        let left = world.leftovers();
        assert_eq!(left, Leftovers::default(), "seed {seed}");
        table.0.take()
    }
}

/// Declares cases: each name is an `async fn name<P: Providers>(hosts: Hosts<P>)` beside it, and
/// the lines are what it records.
macro_rules! cases {
    ($($name:ident => [$($line:literal),* $(,)?];)*) => {$(
        mod $name {
            use moonpool_foundation::TokioProviders;

            use crate::network::conformance::real;
            #[cfg(feature = "sim")]
            use crate::network::conformance::simulated;

            #[test]
            fn on_real_sockets() {
                let lines = real::run(super::$name::<TokioProviders>);
                let expected: &[&str] = &[$($line),*];
                assert_eq!(lines, expected);
            }

            #[cfg(feature = "sim")]
            #[test]
            fn in_simulation_as_on_real_sockets() {
                let lines = real::run(super::$name::<TokioProviders>);
                simulated::check(super::$name::<moonpool_foundation::SimProviders>, &lines);
            }
        }
    )*};
}
use cases;
