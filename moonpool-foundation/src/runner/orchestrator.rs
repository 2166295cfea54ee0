//! One seed: a fresh world, a process per workload, and the verdict.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::environment::Check;
use super::report::SimulationMetrics;
use super::topology::WorkloadTopology;
use super::verdict::{Verdict, with_sources};
use crate::error::SimulationResult;
use crate::network::{NetworkConfigError, NetworkConfiguration};
use crate::providers::SimProviders;
use crate::sim::{Leftovers, SimProcess, SimWorld, TaskRole, TraceMode, TraceStep};

/// A registered workload.
pub(super) struct Workload {
    pub(super) name: Cow<'static, str>,
    registered_at: &'static Location<'static>,
    /// Starts it as a task. It holds the user's function, whose future has a type of its own: one
    /// call through a pointer per workload and seed, and no boxed future.
    launch: Box<dyn Fn(Launch<'_>) + Send + Sync>,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a workload is started with.
struct Launch<'a> {
    workload: &'a Workload,
    index: usize,
    process: &'a SimProcess,
    topology: WorkloadTopology,
    progress: Rc<Progress>,
}

impl Workload {
    pub(super) fn new<F, Fut>(
        name: Cow<'static, str>,
        registered_at: &'static Location<'static>,
        function: F,
    ) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let function = Arc::new(function);
        Self {
            name,
            registered_at,
            launch: Box::new(move |launch| {
                let function = Arc::clone(&function);
                launch.spawn(move |providers, topology| function(providers, topology));
            }),
        }
    }
}

impl Launch<'_> {
    fn spawn<Fut>(self, function: impl FnOnce(SimProviders, WorkloadTopology) -> Fut + 'static)
    where
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let Some(world) = self.process.world.upgrade() else {
            return;
        };
        let providers = self.process.providers();
        let (topology, progress, index) = (self.topology, self.progress, self.index);
        // The function is called inside the task, where a panic in it is the workload's.
        let future = async move {
            let result = function(providers, topology).await;
            progress.returned(index, result);
        };
        let handle = world.spawn(
            self.workload.name.clone(),
            self.process.life(),
            TaskRole::Ordinary,
            self.workload.registered_at,
            future,
        );
        drop(handle);
    }
}

/// When the shutdown signal fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ShutdownAfter {
    #[default]
    First,
    All,
}

/// How far the workloads of a seed are.
struct Progress {
    remaining: Cell<usize>,
    /// The first workload that returned an error, and its text.
    failure: RefCell<Option<(usize, String)>>,
    waker: RefCell<Option<Waker>>,
    shutdown: CancellationToken,
    shutdown_after: ShutdownAfter,
}

impl Progress {
    fn returned(&self, workload: usize, result: SimulationResult<SimulationMetrics>) {
        let remaining = self.remaining.get() - 1;
        self.remaining.set(remaining);
        match result {
            Ok(_) => {
                if remaining == 0 || self.shutdown_after == ShutdownAfter::First {
                    self.shutdown.cancel();
                }
            }
            Err(error) => {
                let text = with_sources(&error);
                self.failure.borrow_mut().get_or_insert((workload, text));
            }
        }
        if self.is_over() {
            let waker = self.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.remaining.get() == 0 || self.failure.borrow().is_some()
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        let replaced = self.waker.replace(Some(cx.waker().clone()));
        drop(replaced);
        Poll::Pending
    }
}

/// Where a workload runs, and who else is there: the same for every seed.
#[derive(Debug)]
struct Place {
    my_ip: String,
    peer_ips: Vec<String>,
    peer_names: Vec<String>,
}

impl Place {
    fn topology(&self, shutdown: &CancellationToken) -> WorkloadTopology {
        WorkloadTopology {
            my_ip: self.my_ip.clone(),
            peer_ips: self.peer_ips.clone(),
            peer_names: self.peer_names.clone(),
            shutdown_signal: shutdown.clone(),
        }
    }
}

/// Which seeds a campaign runs, in order. A range takes no memory, however long it is.
#[derive(Clone, Debug)]
pub(super) enum Seeds {
    Range(Range<u64>),
    List(Vec<u64>),
}

impl Seeds {
    /// How many there are, as far as a `usize` can tell.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Range(range) => {
                usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
            }
            Self::List(seeds) => seeds.len(),
        }
    }

    /// The seed at `position`, if there are that many.
    pub(super) fn get(&self, position: usize) -> Option<u64> {
        match self {
            Self::Range(range) => {
                let seed = range.start.checked_add(u64::try_from(position).ok()?)?;
                range.contains(&seed).then_some(seed)
            }
            Self::List(seeds) => seeds.get(position).copied(),
        }
    }
}

/// Everything that decides a campaign. Shared by its threads.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) workloads: &'a [Workload],
    pub(super) network: &'a NetworkConfiguration,
    pub(super) time_budget: Duration,
    pub(super) livelock_limit: Option<u64>,
    pub(super) shutdown_after: ShutdownAfter,
    pub(super) seeds: Seeds,
    pub(super) jobs: usize,
    pub(super) check: Check,
    pub(super) stop_on_failure: bool,
    places: Vec<Place>,
}

impl<'a> Plan<'a> {
    /// A plan with the addresses that a world will give to these workloads.
    pub(super) fn new(
        workloads: &'a [Workload],
        network: &'a NetworkConfiguration,
    ) -> Result<Self, NetworkConfigError> {
        network.validate()?;
        let world = SimWorld::new();
        let hosts: Vec<(String, String)> = workloads
            .iter()
            .map(|workload| {
                let process = world.add_process(&workload.name);
                (process.name().to_owned(), process.ip().to_string())
            })
            .collect();
        let place = |me: usize| {
            let others = hosts.iter().enumerate().filter(|(index, _)| *index != me);
            let (peer_names, peer_ips) = others.map(|(_, host)| host.clone()).unzip();
            Place {
                my_ip: hosts[me].1.clone(),
                peer_ips,
                peer_names,
            }
        };
        Ok(Self {
            workloads,
            network,
            time_budget: Duration::MAX,
            livelock_limit: None,
            shutdown_after: ShutdownAfter::default(),
            seeds: Seeds::List(Vec::new()),
            jobs: 1,
            check: Check::default(),
            stop_on_failure: false,
            places: (0..hosts.len()).map(place).collect(),
        })
    }
}

/// One run of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeedRun {
    pub(super) digest: u64,
    pub(super) verdict: Verdict,
    pub(super) simulated_time: Duration,
    pub(super) events_processed: u64,
    pub(super) leftovers: Leftovers,
}

/// What a run left for people to read.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) steps: Vec<TraceStep>,
    /// Every task that had not ended, and what it waited on.
    pub(super) pending: Vec<String>,
}

/// Runs `seed`, and records nothing.
pub(super) fn run_seed(plan: &Plan<'_>, seed: u64) -> SeedRun {
    let world = SimWorld::make(plan.network.clone(), seed);
    let run = drive(plan, &world);
    closed(world, run)
}

/// Runs `seed` with its steps recorded as `mode` says, of those the ones within `window`.
pub(super) fn run_recorded(
    plan: &Plan<'_>,
    seed: u64,
    mode: TraceMode,
    window: Range<u64>,
) -> (SeedRun, Recording) {
    let world = SimWorld::make(plan.network.clone(), seed);
    world.set_trace(mode);
    world.set_trace_window(window);
    let run = drive(plan, &world);
    let recording = Recording {
        steps: world.recent_steps(),
        pending: pending_tasks(&world),
    };
    (closed(world, run), recording)
}

/// Runs the workloads in `world` to their end, or to the first failure.
fn drive(plan: &Plan<'_>, world: &SimWorld) -> SeedRun {
    world.set_time_budget(Some(plan.time_budget));
    if let Some(polls) = plan.livelock_limit {
        world.set_livelock_limit(polls);
    }
    let progress = Rc::new(Progress {
        remaining: Cell::new(plan.workloads.len()),
        failure: RefCell::new(None),
        waker: RefCell::new(None),
        shutdown: CancellationToken::new(),
        shutdown_after: plan.shutdown_after,
    });
    launch(plan, world, &progress);
    let verdict = match finish(world, &progress) {
        Err(error) => Verdict::of(error, || pending_tasks(world)),
        Ok(()) => match progress.failure.take() {
            None => Verdict::Passed,
            Some((index, message)) => Verdict::WorkloadError {
                workload: plan.workloads[index].name.to_string(),
                message,
            },
        },
    };
    SeedRun {
        digest: world.digest(),
        verdict,
        simulated_time: world.now(),
        events_processed: world.events_processed(),
        leftovers: world.leftovers(),
    }
}

fn launch(plan: &Plan<'_>, world: &SimWorld, progress: &Rc<Progress>) {
    // All processes first: the name of each resolves for whoever runs before it.
    let processes: Vec<SimProcess> = plan
        .workloads
        .iter()
        .map(|workload| world.add_process(&workload.name))
        .collect();
    for (index, workload) in plan.workloads.iter().enumerate() {
        (workload.launch)(Launch {
            workload,
            index,
            process: &processes[index],
            topology: plan.places[index].topology(&progress.shutdown),
            progress: Rc::clone(progress),
        });
    }
}

/// Waits until all workloads have returned, or one has failed. Whoever the last of them woke, by the
/// shutdown signal for one, still runs; time does not move any more.
fn finish(world: &SimWorld, progress: &Progress) -> SimulationResult<()> {
    world.block_on(poll_fn(|cx| progress.poll(cx)))?;
    world.run_until(world.now())
}

/// Ends the world. A destructor that panics then fails a seed that has passed so far.
fn closed(world: SimWorld, mut run: SeedRun) -> SeedRun {
    if let Err(panic) = world.close()
        && run.verdict.is_passed()
    {
        run.verdict = Verdict::of(panic, Vec::new);
    }
    run
}

fn pending_tasks(world: &SimWorld) -> Vec<String> {
    let tasks = world.pending_tasks();
    tasks.iter().map(ToString::to_string).collect()
}
