//! Processes of a campaign: servers beside the workloads, which are killed and started again.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::RangeInclusive;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::builder::SimulationBuilder;

use super::plan::{Network, Plan};
use super::topology::WorkloadTopology;
use super::workload::{Launch, Progress, Role, Workload};
use crate::chaos::Attrition;
use crate::error::SimulationResult;
use crate::providers::SimProviders;
use crate::sim::{ProcessId, SimProcess, SimWorld, TaskRole};
use crate::time::TimeProvider;

/// Virtual time that processes have to end by themselves, once the workloads have returned.
const WIND_DOWN: Duration = Duration::from_secs(5);

impl SimulationBuilder {
    /// Adds a process: a server that can be killed and started again. It runs beside the workloads,
    /// and a seed does not wait for it to return.
    ///
    /// `factory` runs at the beginning of each life, with fresh memory: what the process must keep it
    /// keeps outside the future, and per seed, since seeds run at once. The future is the process's
    /// main task; as it ends, tasks that it spawned go on. `Ok` ends it quietly.
    ///
    /// The shutdown signal of its topology is its own: it fires when a graceful kill of this process
    /// begins, and when all workloads of the seed have returned. The process has five seconds of
    /// virtual time then to close what it has open; a seed whose processes have all returned ends at
    /// once.
    ///
    /// `name` is its host's, as [`register_workload`](Self::register_workload) has it; processes and
    /// workloads get their addresses in the order they are registered.
    ///
    /// # Errors
    /// An `Err` of the future fails the seed with [`Verdict::WorkloadError`](crate::Verdict), which
    /// names the process.
    ///
    /// ```
    /// use moonpool_foundation::{
    ///     NetworkProvider, Providers, SimulationBuilder, SimulationMetrics, TcpListenerTrait,
    /// };
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let report = SimulationBuilder::new()
    ///     .set_iterations(10)
    ///     .process("server", |providers, topology| async move {
    ///         let listener = providers.network().bind("0.0.0.0:80").await?;
    ///         loop {
    ///             tokio::select! { biased;
    ///                 () = topology.shutdown_signal.cancelled() => return Ok(()),
    ///                 accepted = listener.accept() => accepted?.0.write_u8(7).await?,
    ///             }
    ///         }
    ///     })
    ///     .register_workload("client", |_random, network, _time, _task, _topology| async move {
    ///         let mut stream = loop {
    ///             if let Ok(stream) = network.connect("server:80").await {
    ///                 break stream;
    ///             }
    ///         };
    ///         assert_eq!(stream.read_u8().await?, 7);
    ///         Ok(SimulationMetrics::default())
    ///     })
    ///     .run();
    /// report.assert_passed();
    /// ```
    #[track_caller]
    pub fn process<F, Fut>(mut self, name: impl Into<Cow<'static, str>>, factory: F) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<()>> + 'static,
    {
        self.checks.note_workload::<F>();
        let process = Workload::process(name.into(), Location::caller(), factory);
        self.workloads.push(process);
        self
    }
}

impl SimulationBuilder {
    /// Lets processes (not workloads) die, restart and stand still at drawn times. None by default.
    /// With [`use_random_config`](Self::use_random_config) each seed draws how often, for how long and
    /// which of the given kinds ([`Attrition::random_for_seed`]), never more than is given: a
    /// probability of 0.0 stays off, times stay within the given ranges, and so does the bound.
    ///
    /// ```
    /// use moonpool_foundation::{
    ///     Attrition, FaultKind, SimulationBuilder, SimulationMetrics, TimeProvider,
    /// };
    /// use std::time::Duration;
    ///
    /// let report = SimulationBuilder::new()
    ///     .set_iterations(10)
    ///     .attrition(Attrition { probability: 0.3, ..Attrition::default() })
    ///     .process("server", |_providers, _topology| std::future::pending())
    ///     .register_workload("client", |_random, _network, time, _task, _topology| async move {
    ///         time.sleep(Duration::from_secs(60)).await;
    ///         Ok(SimulationMetrics::default())
    ///     })
    ///     .run();
    /// report.assert_passed();
    /// assert!(report.faults.of(FaultKind::Kill) > 0);
    /// ```
    pub fn attrition(mut self, attrition: Attrition) -> Self {
        self.attrition = Some(attrition);
        self
    }
}

/// The attrition of `seed`: as the builder was told, or drawn within that if its network is.
pub(super) fn attrition_of(plan: &Plan<'_>, seed: u64) -> Option<Attrition> {
    let given = plan.attrition.as_ref()?;
    match plan.network {
        Network::Fixed(_) => Some(given.clone()),
        Network::Swarm => {
            let drawn = within(given, Attrition::random_for_seed(seed, given.max_dead));
            (!drawn.kinds.is_empty() && drawn.probability > 0.0).then_some(drawn)
        }
    }
}

/// What was drawn, as far as it is within what was given.
fn within(given: &Attrition, drawn: Attrition) -> Attrition {
    let mut kinds = drawn.kinds;
    kinds.retain(|kind| given.kinds.contains(kind));
    Attrition {
        probability: drawn.probability.min(given.probability),
        interval: overlap(&given.interval, drawn.interval),
        kinds,
        max_dead: given.max_dead,
        downtime: overlap(&given.downtime, drawn.downtime),
        reboot: overlap(&given.reboot, drawn.reboot),
        grace: overlap(&given.grace, drawn.grace),
        pause: overlap(&given.pause, drawn.pause),
    }
}

/// The part of `drawn` that is in `given`; all of `given` if there is none.
fn overlap(
    given: &RangeInclusive<Duration>,
    drawn: RangeInclusive<Duration>,
) -> RangeInclusive<Duration> {
    let (start, end) = (
        *given.start().max(drawn.start()),
        *given.end().min(drawn.end()),
    );
    if start <= end {
        start..=end
    } else {
        given.clone()
    }
}

/// Lets the plan's attrition begin among the processes of a seed.
pub(super) fn start_attrition(plan: &Plan<'_>, world: &SimWorld, progress: &Progress) {
    let Some(attrition) = attrition_of(plan, world.seed()) else {
        return;
    };
    let victims: Vec<ProcessId> = {
        let processes = progress.servers.list.borrow();
        processes.iter().map(SimProcess::id).collect()
    };
    // What was given was validated with the plan, and what is drawn is valid.
    let started = world.start_attrition(attrition, victims);
    debug_assert_eq!(started, Ok(()));
}

impl Workload {
    fn process<F, Fut>(
        name: Cow<'static, str>,
        registered_at: &'static Location<'static>,
        factory: F,
    ) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<()>> + 'static,
    {
        let factory = Arc::new(factory);
        Self {
            name,
            role: Role::Process,
            registered_at,
            launch: Box::new(move |launch| launch.start_process(&factory)),
        }
    }
}

impl Launch<'_> {
    /// Begins the first life, and lets every restart begin another.
    fn start_process<F, Fut>(self, factory: &Arc<F>)
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + 'static,
        Fut: Future<Output = SimulationResult<()>> + 'static,
    {
        let (name, registered_at) = (self.workload.name.clone(), self.workload.registered_at);
        let (index, process, progress) = (self.index, self.process.clone(), self.progress);
        let (factory, topology) = (Arc::clone(factory), self.topology);
        progress.servers.list.borrow_mut().push(process.clone());
        let handle = process.clone();
        let start = move || {
            let Some(world) = handle.world.upgrade() else {
                return;
            };
            let mut topology = topology.clone();
            topology.shutdown_signal = handle.shutdown_token();
            let (factory, providers) = (Arc::clone(&factory), handle.providers());
            topology.providers = Some(providers.clone());
            let running = Running::new(&progress);
            // The factory is called inside the task, where a panic in it is the process's.
            let main = async move {
                if let Err(error) = factory(providers, topology).await {
                    running.progress.process_failed(index, &error);
                }
                drop(running);
            };
            drop(world.spawn(
                name.clone(),
                handle.life(),
                TaskRole::Ordinary,
                registered_at,
                main,
            ));
        };
        start();
        process.set_factory(Rc::new(start));
    }
}

/// The processes of a seed.
#[derive(Debug, Default)]
pub(super) struct Servers {
    list: RefCell<Vec<SimProcess>>,
    /// How many main futures have not ended.
    running: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Servers {
    /// Tells all processes to stop, and runs on until they have, or until their time is over.
    pub(super) fn wind_down(&self, world: &SimWorld) -> SimulationResult<()> {
        if self.list.borrow().is_empty() {
            return Ok(());
        }
        world.settle_processes();
        let tokens: Vec<_> = self
            .list
            .borrow()
            .iter()
            .map(SimProcess::shutdown_token)
            .collect();
        for token in tokens {
            token.cancel();
        }
        // The budget is what workloads may use, and they are done.
        world.set_time_budget(None);
        let ended = poll_fn(|cx| self.poll_ended(cx));
        let time = world.time_provider();
        // Whether they make it is no failure: what they leave behind, the report shows.
        world.block_on(time.timeout(WIND_DOWN, ended)).map(drop)
    }

    fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.running.get() == 0 {
            return Poll::Ready(());
        }
        let replaced = self.waker.replace(Some(cx.waker().clone()));
        drop(replaced);
        Poll::Pending
    }
}

/// A main future that has not ended, until dropped.
struct Running {
    progress: Rc<Progress>,
}

impl Running {
    fn new(progress: &Rc<Progress>) -> Self {
        let running = &progress.servers.running;
        running.set(running.get() + 1);
        Self {
            progress: Rc::clone(progress),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let servers = &self.progress.servers;
        servers.running.set(servers.running.get() - 1);
        if servers.running.get() == 0 {
            let waker = servers.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
