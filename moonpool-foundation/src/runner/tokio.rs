//! [`TokioRunner`]: the same workloads on real sockets, in real time.

mod addresses;
mod report;

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use self::report::{TokioReport, TokioRunReport};

use self::addresses::{Block, Host};
use super::metrics::SimulationMetrics;
use super::topology::WorkloadTopology;
use super::verdict::{Verdict, with_sources};
use crate::error::SimulationResult;
use crate::providers::{Providers, TokioProviders};
use crate::task::{JoinError, JoinHandle, TaskProvider};
use crate::time::TimeProvider;

/// Real time that a run may take if nothing is said.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(60);

type BoxedWorkload = Pin<Box<dyn Future<Output = SimulationResult<SimulationMetrics>>>>;

struct TokioWorkload {
    name: Cow<'static, str>,
    start: Box<dyn Fn(TokioProviders, WorkloadTopology) -> BoxedWorkload + Send + Sync>,
}

/// Runs workloads on real loopback sockets, with real time and the operating system's randomness:
/// what passes in the simulator is tried on the real thing, without a line of difference.
///
/// Each run has a thread and a runtime of its own, on which all its workloads are tasks; panics of
/// tasks that a workload spawned show only where it awaits them. Each workload has an address of its
/// own, 127.x.y.1 upward, that no other run on the machine uses at the same time, so that a fixed port
/// is no conflict; `name:port` reaches it. Where the system has only 127.0.0.1 (macOS, unless told
/// otherwise), all workloads have that, and need different ports.
///
/// ```
/// use moonpool_foundation::runner::{TokioRunner, SimulationMetrics, WorkloadTopology};
/// use moonpool_foundation::{
///     NetworkProvider, Providers, SimulationResult, TcpListenerTrait, TimeProvider, TokioProviders,
/// };
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// async fn server<P: Providers>(
///     providers: P,
///     topology: WorkloadTopology,
/// ) -> SimulationResult<SimulationMetrics> {
///     let listener = providers.network().bind(&format!("{}:7000", topology.my_ip)).await?;
///     let (mut stream, _peer) = listener.accept().await?;
///     stream.write_u8(7).await?;
///     Ok(SimulationMetrics::default())
/// }
///
/// async fn client<P: Providers>(
///     providers: P,
///     _topology: WorkloadTopology,
/// ) -> SimulationResult<SimulationMetrics> {
///     let mut stream = loop {
///         match providers.network().connect("server:7000").await {
///             Ok(stream) => break stream,
///             Err(_) => providers.time().sleep(Duration::from_millis(1)).await,
///         }
///     };
///     assert_eq!(stream.read_u8().await?, 7);
///     Ok(SimulationMetrics::default())
/// }
///
/// TokioRunner::new()
///     .register_workload("server", server::<TokioProviders>)
///     .register_workload("client", client::<TokioProviders>)
///     .run()
///     .assert_passed();
/// ```
#[must_use = "nothing runs before `run` is called"]
pub struct TokioRunner {
    workloads: Vec<TokioWorkload>,
    iterations: usize,
    time_limit: Duration,
    shutdown_after_all: bool,
}

impl fmt::Debug for TokioRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.workloads.iter().map(|w| w.name.as_ref()).collect();
        f.debug_struct("TokioRunner")
            .field("workloads", &names)
            .field("iterations", &self.iterations)
            .field("time_limit", &self.time_limit)
            .finish_non_exhaustive()
    }
}

impl Default for TokioRunner {
    fn default() -> Self {
        Self::new()
    }
}

impl TokioRunner {
    /// No workload, one run, which may take a minute.
    pub fn new() -> Self {
        Self {
            workloads: Vec::new(),
            iterations: 1,
            time_limit: DEFAULT_TIME_LIMIT,
            shutdown_after_all: false,
        }
    }

    /// Adds a workload. `name` is its host's: `name:port` reaches it. Of two with one name, that
    /// reaches the last.
    pub fn register_workload<F, Fut>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        workload: F,
    ) -> Self
    where
        F: Fn(TokioProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        self.workloads.push(TokioWorkload {
            name: name.into(),
            start: Box::new(move |providers, topology| Box::pin(workload(providers, topology))),
        });
        self
    }

    /// How many runs there are, one after the other; 1 by default.
    pub fn set_iterations(mut self, iterations: usize) -> Self {
        self.iterations = iterations;
        self
    }

    /// Real time that a run may take; a minute by default. One that takes longer ends with
    /// [`Verdict::TimeBudget`]. A workload that blocks its thread cannot be ended.
    pub fn set_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Lets the shutdown signal fire when the last workload has returned, not the first.
    pub fn shutdown_after_all(mut self) -> Self {
        self.shutdown_after_all = true;
        self
    }

    /// Runs the workloads; blocks until all runs are over. Runs that fail are no error: the report
    /// tells. So it does if a run could not begin, for want of a thread or an address.
    #[expect(
        clippy::disallowed_methods,
        reason = "what a run costs is real time, as all that happens in it"
    )]
    pub fn run(&self) -> TokioReport {
        let began = Instant::now();
        let run = |_| {
            let began = Instant::now();
            let verdict = self.run_once();
            TokioRunReport::new(verdict, began.elapsed())
        };
        let runs = (0..self.iterations).map(run).collect();
        TokioReport::of(runs, began.elapsed())
    }

    /// On a thread of its own, so that neither the caller's runtime nor its thread-locals are there.
    fn run_once(&self) -> Verdict {
        thread::scope(|scope| {
            let named = thread::Builder::new().name("tokio-runner".to_owned());
            let joined = match named.spawn_scoped(scope, || self.run_here()) {
                Ok(running) => running.join(),
                Err(error) => return not_begun(&error),
            };
            match joined {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(error)) => not_begun(&error),
                // Not a workload's panic, which is a verdict: ours.
                Err(payload) => std::panic::resume_unwind(payload),
            }
        })
    }

    fn run_here(&self) -> std::io::Result<Verdict> {
        let block = Block::reserve(self.workloads.len())?;
        let names = self.workloads.iter().map(|workload| workload.name.as_ref());
        let hosts = block.hosts(names);
        let runtime = ::tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(::tokio::runtime::LocalOptions::default())?;
        Ok(runtime.block_on(self.drive(&hosts)))
    }

    async fn drive(&self, hosts: &[Host]) -> Verdict {
        let providers = TokioProviders::with_hosts(hosts.iter().map(Host::entry));
        let shutdown = CancellationToken::new();
        let start = |(index, workload): (usize, &TokioWorkload)| {
            let topology = topology(hosts, index, &shutdown);
            let future = (workload.start)(providers.clone(), topology);
            Some(providers.task().spawn_task(workload.name.clone(), future))
        };
        let mut running = Running {
            runner: self,
            shutdown: &shutdown,
            tasks: self.workloads.iter().enumerate().map(start).collect(),
        };
        let over = poll_fn(|cx| running.poll(cx));
        let ended = providers.time().timeout(self.time_limit, over).await;
        ended.unwrap_or_else(|_elapsed| Verdict::TimeBudget {
            budget: self.time_limit,
            waiting: running.waiting(),
        })
    }
}

fn not_begun(error: &std::io::Error) -> Verdict {
    Verdict::WorkloadError {
        workload: "the runner".to_owned(),
        message: format!("the run could not begin: {error}"),
    }
}

fn topology(hosts: &[Host], me: usize, shutdown: &CancellationToken) -> WorkloadTopology {
    let others = hosts.iter().enumerate().filter(|(index, _)| *index != me);
    let (peer_names, peer_ips) = others.map(|(_, host)| host.entry()).unzip();
    WorkloadTopology::outside(hosts[me].entry().1, peer_ips, peer_names, shutdown.clone())
}

/// The workloads of a run that have not returned.
struct Running<'a> {
    runner: &'a TokioRunner,
    shutdown: &'a CancellationToken,
    tasks: Vec<Option<JoinHandle<SimulationResult<SimulationMetrics>>>>,
}

impl Running<'_> {
    /// Ready when all have returned, or at the first that failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        for (task, workload) in self.tasks.iter_mut().zip(&self.runner.workloads) {
            let Some(running) = task else {
                continue;
            };
            let Poll::Ready(joined) = Pin::new(running).poll(cx) else {
                continue;
            };
            *task = None;
            let verdict = verdict(&workload.name, joined);
            if !verdict.is_passed() {
                return Poll::Ready(verdict);
            }
            if !self.runner.shutdown_after_all {
                self.shutdown.cancel();
            }
        }
        if self.tasks.iter().any(Option::is_some) {
            return Poll::Pending;
        }
        self.shutdown.cancel();
        Poll::Ready(Verdict::Passed)
    }

    fn waiting(&self) -> Vec<String> {
        let workloads = self.runner.workloads.iter().zip(&self.tasks);
        let waiting = workloads.filter(|(_, task)| task.is_some());
        waiting
            .map(|(workload, _)| format!("workload `{}` has not returned", workload.name))
            .collect()
    }
}

fn verdict(
    workload: &str,
    joined: Result<SimulationResult<SimulationMetrics>, JoinError>,
) -> Verdict {
    match joined {
        Ok(Ok(_)) => Verdict::Passed,
        Ok(Err(error)) => Verdict::WorkloadError {
            workload: workload.to_owned(),
            message: with_sources(&error),
        },
        Err(JoinError::Panicked(message)) => Verdict::Panic {
            task: workload.to_owned(),
            process: workload.to_owned(),
            message,
            location: None,
        },
        Err(JoinError::Cancelled) => Verdict::WorkloadError {
            workload: workload.to_owned(),
            message: "its task was aborted".to_owned(),
        },
    }
}
