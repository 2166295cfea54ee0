//! The service that is called, its callers, and what they are measured by.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::{PeerConfig, TransportStats};
use serde::{Deserialize, Serialize};

use crate::ledger::{Ending, Ledger};
use crate::{Failure, ensure, row};

const WORK: UID = UID::new(0xE4D0, 0);

/// Calls in flight at one time, where connections break under them.
pub(crate) const IN_FLIGHT: usize = 64;

/// What connections get to write what is queued.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// What resident memory may grow by after the first tenth of the work.
const ALLOWED_GROWTH: u64 = 16 * 1024 * 1024;

pub(crate) type Transport = FlowTransport<
    <TokioProviders as Providers>::Network,
    <TokioProviders as Providers>::Time,
    <TokioProviders as Providers>::Task,
>;

#[derive(Debug, Serialize, Deserialize)]
struct Work {
    number: u64,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Done {
    number: u64,
}

/// How long a handler takes between executing a call and answering it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    AtOnce,
    /// Up to 3 ms: calls are then at every stage at any time, instead of all at the same.
    Mixed,
}

/// A server whose handler tells `execute` the number of each call before it answers.
pub(crate) async fn serve(
    providers: &TokioProviders,
    address: &str,
    pace: Pace,
    execute: impl Fn(u64) + 'static,
) -> Result<Rc<Transport>, Failure> {
    let transport = FlowTransportBuilder::from_providers(providers)
        .local_address(address.parse()?)
        .peer_config(quick_to_retry())
        .build_listening()
        .await?;
    let requests = transport.register_handler::<Work, _>(WORK, JsonCodec);
    let (serving, context) = (Rc::clone(&transport), providers.clone());
    providers.task().spawn_task("service", async move {
        while let Some((work, reply)) = requests
            .recv_with_transport::<_, _, _, Done>(&serving)
            .await
        {
            let number = work.number;
            execute(number);
            if pace == Pace::AtOnce {
                reply.send(Done { number });
                continue;
            }
            let delay = Duration::from_micros(context.random().random_range(0..3_000));
            let pause = context.time().sleep(delay);
            context.task().spawn_task("answer", async move {
                pause.await;
                reply.send(Done { number });
            });
        }
    });
    Ok(transport)
}

pub(crate) fn client(providers: &TokioProviders) -> Rc<Transport> {
    FlowTransportBuilder::from_providers(providers)
        .peer_config(quick_to_retry())
        .build()
}

/// Connections are lost all the time here, so the usual delays would be all that is measured.
fn quick_to_retry() -> PeerConfig {
    PeerConfig {
        initial_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(5),
        patience: Some(Duration::from_secs(3)),
        ..PeerConfig::default()
    }
}

/// One call, with its ending noted.
pub(crate) async fn call(transport: &Transport, server: NetworkAddress, ledger: &Ledger) -> Ending {
    let number = ledger.begin();
    let work = Work {
        number,
        text: "x".repeat(usize::try_from(number % 300).unwrap_or_default()),
    };
    let endpoint = Endpoint::new(server, WORK);
    let ending = match send_request::<_, Done, _, _, _, _>(transport, &endpoint, work, JsonCodec) {
        Err(_) => Ending::NotSent,
        Ok(reply) => match reply.await {
            Ok(done) if done.number == number => Ending::Replied,
            Ok(done) => Ending::ReplyTo(done.number),
            Err(error) => Ending::Failed(error),
        },
    };
    ledger.end(number, ending.clone());
    ending
}

/// Calls without a pause, `in_flight` at a time, until `is_over`.
pub(crate) async fn call_until(
    providers: &TokioProviders,
    transport: &Rc<Transport>,
    server: NetworkAddress,
    ledger: &Rc<Ledger>,
    in_flight: usize,
    is_over: impl Fn() -> bool + Clone + 'static,
) -> Result<(), Failure> {
    let lanes: Vec<_> = (0..in_flight)
        .map(|_| {
            let (transport, ledger) = (Rc::clone(transport), Rc::clone(ledger));
            let (time, is_over) = (*providers.time(), is_over.clone());
            providers.task().spawn_task("caller", async move {
                while !is_over() {
                    if call(&transport, server, &ledger).await != Ending::Replied {
                        time.sleep(Duration::from_millis(1)).await;
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await?;
    }
    Ok(())
}

/// Numbers of the calls that were executed in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Executed(Rc<RefCell<Vec<u64>>>);

impl Executed {
    pub(crate) fn note(&self) -> impl Fn(u64) + 'static {
        let executed = Rc::clone(&self.0);
        move |number| executed.borrow_mut().push(number)
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.0.borrow().clone()
    }
}

/// Waits until nothing is under way: acknowledgements may come a second later, by a ping.
pub(crate) async fn ensure_settled(
    providers: &TokioProviders,
    who: &str,
    transport: &Transport,
    is_settled: impl Fn(&TransportStats) -> bool,
) -> Result<(), Failure> {
    for _ in 0..500 {
        if is_settled(&transport.stats()) {
            return Ok(());
        }
        providers.time().sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{who} does not settle: {:?}", transport.stats()).into())
}

/// Shuts the transport down, after which every gauge is 0.
pub(crate) async fn ensure_ends_at_zero(who: &str, transport: &Transport) -> Result<(), Failure> {
    transport.shutdown(GRACE).await;
    let stats = transport.stats();
    let gauges = [
        stats.peers,
        stats.incoming_connections,
        stats.incoming_sessions,
        stats.endpoints,
        stats.pending_calls,
        stats.queued_packets,
        stats.queued_bytes,
        stats.local_packets,
        stats.local_bytes,
        stats.tasks,
    ];
    ensure(gauges.iter().all(|gauge| *gauge == 0), || {
        format!("{who} ends with gauges above 0: {stats:?}")
    })
}

/// Resident memory of this process in bytes; `None` where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn mebibytes(bytes: Option<u64>) -> String {
    match bytes {
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0)),
        None => "unknown".to_owned(),
    }
}

/// Resident memory before the work, after its first tenth, and after all of it. What is cached and
/// pooled is there after the first tenth; what grows from then on is lost.
#[derive(Debug)]
pub(crate) struct Memory {
    before: Option<u64>,
    warm: Cell<Option<u64>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            before: resident(),
            warm: Cell::new(None),
        }
    }

    pub(crate) fn note_warm(&self) {
        self.warm.set(resident());
    }

    /// Says what it is now.
    pub(crate) fn show(&self, after: &str) {
        row(
            &format!("resident memory after {after}"),
            mebibytes(resident()),
        );
    }

    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let after = resident();
        row("resident memory before", mebibytes(self.before));
        row("resident memory after a tenth", mebibytes(self.warm.get()));
        row("resident memory after", mebibytes(after));
        let (Some(warm), Some(after)) = (self.warm.get(), after) else {
            return Ok(());
        };
        ensure(after <= warm + ALLOWED_GROWTH, || {
            format!("resident memory grew by {} bytes", after - warm)
        })
    }
}
