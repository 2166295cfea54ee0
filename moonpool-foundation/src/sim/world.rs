//! [`SimWorld`]: the owner of everything that a seed decides.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use super::clock::SimInstant;
use super::connections::{AttemptId, ConnectionId, Network, Side};
use super::digest::Digest;
use super::events::{EventClass, EventKey, EventQueue};
use super::executor::{Executor, JoinState, PendingTask, SchedulePolicy};
use super::faults::Faults;
use super::process::{KillKind, ProcessId, ProcessRef, Processes};
use super::rng::{Draws, Stream, StreamId};
use super::sleep::SleepFuture;
use super::trace::{Recorder, TraceMode, TraceStep};
use super::{context, executor};
use crate::error::SimulationError;
use crate::network::{NetworkConfigError, NetworkConfiguration};
use crate::wait::{MAX_NOTES, WaitReason};

/// A simulated world: clock, event queue, executor, network and random streams, all of one seed.
///
/// Dropping it drops its tasks; what their destructors do reaches nobody.
///
/// ```
/// use moonpool_foundation::{SimWorld, TimeProvider};
/// use std::time::Duration;
///
/// let world = SimWorld::new_with_seed(7);
/// let time = world.time_provider();
/// world.block_on(async move { time.sleep(Duration::from_secs(3600)).await })?;
/// assert_eq!(world.now(), Duration::from_secs(3600));
/// # Ok::<(), moonpool_foundation::SimulationError>(())
/// ```
#[derive(Debug)]
pub struct SimWorld {
    pub(super) shared: Rc<Shared>,
}

/// What providers and futures hold: it does not keep the world alive.
#[derive(Clone)]
pub struct WeakSimWorld(Weak<Shared>);

impl fmt::Debug for WeakSimWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakSimWorld")
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    world: RefCell<World>,
}

/// What happens at a point in virtual time.
pub(crate) enum Event {
    /// A sleep is over.
    Wake(Waker),
    /// The first segment of one direction reaches its reader.
    Segment {
        connection: ConnectionId,
        from: Side,
    },
    /// A RST reaches this end.
    Reset { connection: ConnectionId, to: Side },
    /// A connect reaches the host it is for.
    ConnectArrives(AttemptId),
    /// Its answer is back.
    ConnectAnswered(AttemptId),
    /// A closure of the test's.
    Call(Box<dyn FnOnce()>),
    /// A mark of the test's: it only shows in digest and trace.
    Mark(u64),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake(_) => f.write_str("timer fires"),
            Self::Segment { connection, from } => {
                write!(
                    f,
                    "segment arrives, connection {} from {from:?}",
                    connection.number()
                )
            }
            Self::Reset { connection, to } => {
                write!(
                    f,
                    "reset arrives, connection {} at {to:?}",
                    connection.number()
                )
            }
            Self::ConnectArrives(attempt) => write!(f, "connect {} arrives", attempt.number()),
            Self::ConnectAnswered(attempt) => {
                write!(f, "connect {} is answered", attempt.number())
            }
            Self::Call(_) => f.write_str("scheduled closure"),
            Self::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}

impl Event {
    /// What the digest folds: the kind, and what it happens to.
    fn fold_into(&self, digest: &mut Digest) {
        let (kind, subject) = match self {
            Self::Wake(_) => (1, 0),
            Self::Segment { connection, from } => (2 + from.number(), connection.number()),
            Self::Reset { connection, to } => (4 + to.number(), connection.number()),
            Self::ConnectArrives(attempt) => (6, attempt.number()),
            Self::ConnectAnswered(attempt) => (7, attempt.number()),
            Self::Call(_) => (8, 0),
            Self::Mark(mark) => (9, *mark),
        };
        digest.fold(kind);
        digest.fold(subject);
    }
}

/// The state behind [`SimWorld`]. Nobody holds a borrow of it while user code runs: wakers are
/// collected in `wakes` and called afterwards.
#[derive(Debug)]
pub(crate) struct World {
    pub(super) seed: u64,
    pub(super) clock: SimInstant,
    pub(super) events: EventQueue<Event>,
    pub(super) executor: Executor,
    pub(super) scheduler: Stream,
    select: Stream,
    pub(super) network: Network,
    pub(super) processes: Processes,
    pub(super) faults: Faults,
    pub(super) digest: Digest,
    pub(super) trace: Recorder,
    pub(super) wakes: Vec<Waker>,
    pub(super) events_processed: u64,
    pub(super) time_budget: Option<Duration>,
    pub(super) livelock_limit: u64,
    /// What the main future's last poll was waiting for.
    pub(super) main_waits: ([Option<WaitReason>; MAX_NOTES], usize),
    /// What sealed processes draw from: their draws must not disturb the living.
    inert: (Stream, Digest),
}

/// Polls of one task at one instant beyond which it counts as a livelock.
const DEFAULT_LIVELOCK_LIMIT: u64 = 1_000_000;

impl World {
    fn new(seed: u64, config: NetworkConfiguration) -> Self {
        Self {
            seed,
            clock: SimInstant::ZERO,
            events: EventQueue::default(),
            executor: Executor::new(),
            scheduler: Stream::new(seed, StreamId::Scheduler),
            select: Stream::new(seed, StreamId::Select),
            network: Network::default(),
            processes: Processes::new(seed),
            faults: Faults::new(seed, config),
            digest: Digest::new(seed),
            trace: Recorder::default(),
            wakes: Vec::new(),
            events_processed: 0,
            time_budget: None,
            livelock_limit: DEFAULT_LIVELOCK_LIMIT,
            main_waits: ([None; MAX_NOTES], 0),
            inert: (Stream::new(0, StreamId::Workload(0)), Digest::new(0)),
        }
    }

    pub(super) fn schedule(&mut self, at: SimInstant, event: Event) -> EventKey {
        self.events.push(at, EventClass::Foreground, event)
    }

    /// Moves the clock to the next event and applies it. A closure is handed back, to be called
    /// without a borrow of the world.
    pub(super) fn apply_next_event(&mut self) -> Option<Box<dyn FnOnce()>> {
        let (at, event) = self.events.pop()?;
        assert!(at >= self.clock, "virtual time never goes back");
        self.clock = at;
        self.events_processed += 1;
        self.digest.fold(at.as_nanos());
        event.fold_into(&mut self.digest);
        let described = self.trace.is_on().then(|| format!("{event:?}"));
        let mut call = None;
        match event {
            Event::Wake(waker) => self.wakes.push(waker),
            Event::Segment { connection, from } => self.deliver_segment(connection, from),
            Event::Reset { connection, to } => self.deliver_reset(connection, to),
            Event::ConnectArrives(attempt) => self.connect_arrives(attempt),
            Event::ConnectAnswered(attempt) => self.connect_answered(attempt),
            Event::Call(closure) => call = Some(closure),
            Event::Mark(_) => {}
        }
        if let Some(what) = described {
            self.record(what);
        }
        call
    }

    pub(crate) fn bind_latency(&mut self) -> Duration {
        self.faults.bind_latency(&mut self.digest)
    }

    pub(crate) fn accept_latency(&mut self) -> Duration {
        self.faults.accept_latency(&mut self.digest)
    }

    pub(super) fn record(&mut self, what: String) {
        self.trace
            .record(self.clock.since_start(), self.digest.value(), what);
    }

    pub(super) fn pending_tasks(&self) -> Vec<PendingTask> {
        self.executor
            .pending(|process| self.processes.get(process).name.to_string())
    }

    /// Who waits on what, a line each.
    pub(super) fn pending_report(&self) -> String {
        let tasks = self.pending_tasks();
        let lines: Vec<String> = tasks.iter().map(|task| format!("  {task}")).collect();
        lines.join("\n")
    }
}

impl Shared {
    pub(crate) fn seed(&self) -> u64 {
        self.world.borrow().seed
    }

    /// Runs `f` on the state, then calls the wakers it collected.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.world.borrow_mut();
        let result = f(&mut world);
        if world.wakes.is_empty() {
            return result;
        }
        let mut wakes = std::mem::take(&mut world.wakes);
        drop(world);
        for waker in wakes.drain(..) {
            waker.wake();
        }
        // The buffer goes back for the next time, unless a wake has filled a new one.
        let mut world = self.world.borrow_mut();
        if world.wakes.is_empty() {
            world.wakes = wakes;
        }
        result
    }

    pub(crate) fn instant(&self) -> SimInstant {
        self.world.borrow().clock
    }

    /// A sleep of `owner` from now.
    pub(crate) fn sleep(self: &Rc<Self>, owner: ProcessRef, duration: Duration) -> SleepFuture {
        SleepFuture::starting_now(WeakSimWorld(Rc::downgrade(self)), owner, duration)
    }

    /// Where the current process's clock stands. It does not drift yet.
    pub(crate) fn timer(&self) -> SimInstant {
        self.instant()
    }

    pub(crate) fn arm_timer(&self, at: SimInstant, waker: &Waker) -> EventKey {
        let waker = self.register(waker);
        self.with(|world| world.schedule(at, Event::Wake(waker)))
    }

    /// Lets a queued timer wake `waker`. False if it has fired.
    pub(crate) fn rearm_timer(&self, key: EventKey, waker: &Waker) -> bool {
        let same = self.with(|world| match world.events.get_mut(key) {
            Some(Event::Wake(armed)) => Some(armed.will_wake(waker)),
            _ => None,
        });
        match same {
            None => false,
            Some(true) => true,
            Some(false) => {
                let waker = self.register(waker);
                let replaced = self.with(|world| {
                    world
                        .events
                        .get_mut(key)
                        .map(|event| std::mem::replace(event, Event::Wake(waker)))
                });
                replaced.is_some()
            }
        }
    }

    pub(crate) fn disarm_timer(&self, key: EventKey) {
        let removed = self.with(|world| world.events.remove(key));
        drop(removed);
    }

    /// A copy of `waker` to be kept by the world. Called with no borrow of it.
    pub(crate) fn register(&self, waker: &Waker) -> Waker {
        context::check_not_blocking();
        waker.clone()
    }

    /// Starts a task of `owner`, or drops the future if `owner` is sealed.
    pub(crate) fn spawn<T: 'static>(
        &self,
        name: Cow<'static, str>,
        owner: ProcessRef,
        spawned_at: &'static Location<'static>,
        future: impl Future<Output = T> + 'static,
    ) -> Option<Rc<JoinState<T>>> {
        let mut future = Some(future);
        let state = self.with(|world| {
            if !world.processes.is_live(owner) {
                return None;
            }
            let future = future.take()?;
            Some(world.executor.spawn(name, owner, spawned_at, future))
        });
        // A sealed process's future is dropped here, outside the borrow.
        drop(future);
        state
    }

    pub(crate) fn abort(&self, key: executor::TaskKey) {
        let cancelled = self.with(|world| world.executor.cancel(key));
        drop(cancelled);
    }

    /// Lends the stream of the workload's draws, or an inert one if `owner` is sealed.
    pub(crate) fn workload_draws<R>(
        &self,
        owner: ProcessRef,
        f: impl FnOnce(&mut Draws<'_>) -> R,
    ) -> R {
        self.with(|world| {
            if !world.processes.is_live(owner) {
                let (stream, digest) = &mut world.inert;
                return f(&mut stream.draws(digest));
            }
            let process = world.processes.get_mut(owner.id);
            f(&mut process.workload.draws(&mut world.digest))
        })
    }

    pub(crate) fn library_u64(&self, owner: ProcessRef) -> u64 {
        self.with(|world| {
            if !world.processes.is_live(owner) {
                let (stream, digest) = &mut world.inert;
                return stream.draws(digest).next_u64();
            }
            let process = world.processes.get_mut(owner.id);
            process.library.draws(&mut world.digest).next_u64()
        })
    }

    /// Where a `select!` of `branches` branches starts.
    pub(crate) fn select_start(&self, branches: u32) -> u32 {
        self.with(|world| world.select.below(branches, &mut world.digest))
    }

    /// Ends the current life of `process`, as [`SimWorld::kill`] tells.
    fn kill(&self, process: ProcessId, kind: KillKind) {
        let KillKind::Crash = kind;
        let cancelled = self.with(|world| {
            if !world.processes.is_alive(process) {
                return Vec::new();
            }
            world.processes.seal(process);
            world.digest.fold(u64::from(process.number()));
            world.crash_sockets(process);
            if world.trace.is_on() {
                let name = world.processes.get(process).name.to_string();
                world.record(format!("`{name}` is killed ({kind:?})"));
            }
            world.executor.cancel_process(process)
        });
        drop(cancelled);
        self.run_cancelled();
    }

    /// Drops the futures of cancelled tasks. Returns the first panic of a destructor.
    pub(super) fn run_cancelled(&self) -> Option<(String, context::PanicSite)> {
        let mut panicked = None;
        loop {
            let cancelled = self.with(|world| world.executor.take_cancelled());
            if cancelled.is_empty() {
                return panicked;
            }
            for task in cancelled {
                let process = task.metadata().process;
                let _running = context::run_as(context::Current { process });
                if let executor::Polled::Panicked(message) = executor::run(task) {
                    panicked.get_or_insert((message, context::take_panic_site()));
                }
            }
        }
    }
}

impl WeakSimWorld {
    /// The world, if it is still there.
    pub(crate) fn upgrade(&self) -> Option<Rc<Shared>> {
        self.0.upgrade()
    }

    /// The world, if what `owner` does there still counts.
    pub(crate) fn live(&self, owner: ProcessRef) -> Option<Rc<Shared>> {
        let shared = self.0.upgrade()?;
        let live = shared.world.borrow().processes.is_live(owner);
        live.then_some(shared)
    }

    pub(crate) fn workload_u64(&self, owner: ProcessRef) -> u64 {
        match self.upgrade() {
            Some(world) => world.workload_draws(owner, |draws| draws.next_u64()),
            None => 0,
        }
    }
}

/// A simulated host, as [`SimWorld::add_process`] makes it.
#[derive(Clone, Debug)]
pub struct SimProcess {
    pub(crate) world: WeakSimWorld,
    id: ProcessId,
    name: Rc<str>,
    ip: IpAddr,
}

impl SimProcess {
    /// Its number in the world.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Its name: `name:port` reaches it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.world
            .upgrade()
            .is_some_and(|world| world.with(|world| world.processes.is_alive(self.id)))
    }

    /// Its current life: what providers made now belong to.
    pub(crate) fn life(&self) -> ProcessRef {
        match self.world.upgrade() {
            Some(world) => world.with(|world| world.processes.life(self.id)),
            None => ProcessRef {
                id: self.id,
                incarnation: 0,
            },
        }
    }
}

/// What a world still holds: all zero after an orderly end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Leftovers {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Queued events.
    pub events: usize,
    /// Connections with an open end.
    pub connections: usize,
    /// Bound listeners.
    pub listeners: usize,
}

impl Default for SimWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl SimWorld {
    /// A world of seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self::new_with_seed(0)
    }

    /// A world of this seed, with the default network.
    #[must_use]
    pub fn new_with_seed(seed: u64) -> Self {
        Self::make(NetworkConfiguration::default(), seed)
    }

    /// A world of seed 0 on this network.
    ///
    /// # Errors
    /// What [`NetworkConfiguration::validate`] finds.
    pub fn new_with_network_config(
        config: NetworkConfiguration,
    ) -> Result<Self, NetworkConfigError> {
        Self::new_with_network_config_and_seed(config, 0)
    }

    /// A world of this seed on this network.
    ///
    /// # Errors
    /// What [`NetworkConfiguration::validate`] finds.
    pub fn new_with_network_config_and_seed(
        config: NetworkConfiguration,
        seed: u64,
    ) -> Result<Self, NetworkConfigError> {
        config.validate()?;
        Ok(Self::make(config, seed))
    }

    fn make(config: NetworkConfiguration, seed: u64) -> Self {
        Self {
            shared: Rc::new(Shared {
                world: RefCell::new(World::new(seed, config)),
            }),
        }
    }

    /// A handle that does not keep the world alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakSimWorld {
        WeakSimWorld(Rc::downgrade(&self.shared))
    }

    /// The world's own process: the owner of what its own providers make, and of the future that
    /// `block_on` is given.
    #[must_use]
    pub fn world_process(&self) -> SimProcess {
        self.handle(ProcessId::WORLD)
    }

    /// The process of that name; made, with the next address from 10.0.0.1 upward, if there is none.
    pub fn add_process(&self, name: &str) -> SimProcess {
        let id = self.shared.with(|world| world.processes.add(name));
        self.handle(id)
    }

    /// The process of that name.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<SimProcess> {
        let id = self.shared.with(|world| world.processes.by_name(name))?;
        Some(self.handle(id))
    }

    /// All processes but the world's own, in the order they were made.
    #[must_use]
    pub fn all_processes(&self) -> Vec<SimProcess> {
        let ids = self.shared.with(|world| world.processes.ids());
        ids.map(|id| self.handle(id)).collect()
    }

    fn handle(&self, id: ProcessId) -> SimProcess {
        let (name, ip) = self.shared.with(|world| {
            let process = world.processes.get(id);
            (Rc::clone(&process.name), process.ip)
        });
        SimProcess {
            world: self.downgrade(),
            id,
            name,
            ip,
        }
    }

    /// Ends a process: seals it first (nothing it does from now on is seen by anyone), breaks its
    /// sockets, then drops its tasks. Destructors run, without effect. A task that kills its own
    /// process is dropped when its current poll ends. Does nothing to a process that is dead.
    pub fn kill(&self, process: ProcessId, kind: KillKind) {
        self.shared.kill(process, kind);
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed()
    }

    /// A digest of all that has happened: of times and kinds of events, tasks chosen, bytes
    /// delivered and numbers drawn.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.with(|world| world.digest.value())
    }

    /// How many events have been processed.
    #[must_use]
    pub fn events_processed(&self) -> u64 {
        self.shared.with(|world| world.events_processed)
    }

    /// Virtual time since the run began.
    #[must_use]
    pub fn current_time(&self) -> Duration {
        self.shared.instant().since_start()
    }

    /// Virtual time since the run began; the same as [`current_time`](Self::current_time).
    #[must_use]
    pub fn now(&self) -> Duration {
        self.current_time()
    }

    /// The clock of the world's own process.
    #[must_use]
    pub fn timer(&self) -> Duration {
        self.shared.timer().since_start()
    }

    /// Whether an event is queued.
    #[must_use]
    pub fn has_pending_events(&self) -> bool {
        self.pending_event_count() > 0
    }

    /// How many events are queued.
    #[must_use]
    pub fn pending_event_count(&self) -> usize {
        self.shared.with(|world| world.events.len())
    }

    /// Queues a mark `delay` from now: nothing happens then, but digest and trace show it.
    pub fn schedule_event(&self, mark: u64, delay: Duration) {
        self.shared.with(|world| {
            let at = world.clock.after(delay);
            world.schedule(at, Event::Mark(mark));
        });
    }

    /// Queues a mark at a point in virtual time, or now if that has passed.
    pub fn schedule_event_at(&self, mark: u64, at: Duration) {
        let delay = at.saturating_sub(self.current_time());
        self.schedule_event(mark, delay);
    }

    /// Calls `f` `delay` from now, as the world's own process.
    pub fn schedule_after(&self, delay: Duration, f: impl FnOnce() + 'static) {
        self.shared.with(|world| {
            let at = world.clock.after(delay);
            world.schedule(at, Event::Call(Box::new(f)));
        });
    }

    /// In what order ready tasks are polled from now on.
    pub fn set_schedule_policy(&self, policy: SchedulePolicy) {
        self.shared.with(|world| world.executor.set_policy(policy));
    }

    /// How much virtual time a run may use; `None`, the default, sets no limit.
    pub fn set_time_budget(&self, budget: Option<Duration>) {
        self.shared.with(|world| world.time_budget = budget);
    }

    /// How often one task may be polled at one instant before that counts as a livelock. One
    /// million by default.
    pub fn set_livelock_limit(&self, polls: u64) {
        self.shared.with(|world| world.livelock_limit = polls);
    }

    /// What is recorded from now on.
    pub fn set_trace(&self, mode: TraceMode) {
        self.shared.with(|world| world.trace.set_mode(mode));
    }

    /// The recorded steps, oldest first.
    #[must_use]
    pub fn recent_steps(&self) -> Vec<TraceStep> {
        self.shared.with(|world| world.trace.steps())
    }

    /// Every task that has not ended, and what it waits on.
    #[must_use]
    pub fn pending_tasks(&self) -> Vec<PendingTask> {
        self.shared.with(|world| world.pending_tasks())
    }

    /// What the world still holds.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        self.shared.with(|world| Leftovers {
            tasks: world.executor.live(),
            events: world.events.len(),
            connections: world.network.connections(),
            listeners: world.network.listeners(),
        })
    }

    /// A panic of a task or destructor, as the verdict it is.
    pub(super) fn panic_error(
        &self,
        task: Cow<'static, str>,
        process: ProcessRef,
        message: String,
        site: context::PanicSite,
    ) -> SimulationError {
        let process = self
            .shared
            .with(|world| world.processes.get(process.id).name.to_string());
        match site.escape {
            Some(advice) => SimulationError::Escape(format!(
                "task `{task}` of process `{process}`{}: {advice}",
                match site.location {
                    Some(location) => format!(" at {location}"),
                    None => String::new(),
                }
            )),
            None => SimulationError::Panic {
                task: task.into_owned(),
                process,
                message,
                location: site.location,
            },
        }
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        // Tasks hold weak handles only, so the state is still there while their destructors run;
        // sealed, they reach nobody.
        let cancelled: Vec<_> = self.shared.with(|world| {
            let ids: Vec<ProcessId> = std::iter::once(ProcessId::WORLD)
                .chain(world.processes.ids())
                .collect();
            ids.into_iter()
                .flat_map(|id| {
                    world.processes.seal(id);
                    world.executor.cancel_process(id)
                })
                .collect()
        });
        drop(cancelled);
        if let Some((message, _)) = self.shared.run_cancelled() {
            tracing::error!(message, "a destructor panicked while its world was dropped");
        }
    }
}
