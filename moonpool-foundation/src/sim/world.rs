//! The state behind [`SimWorld`]: everything that a seed decides.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use super::addresses::Translator;
use super::clock::SimInstant;
use super::clocks::Clocks;
use super::connections::{ConnectionId, Network};
use super::digest::Digest;
pub(crate) use super::event::Event;
use super::event::{Queued, SpareBoxes};
use super::events::{EventClass, EventKey, EventQueue};
use super::executor::Executor;
use super::faults::{Faults, Occasion};
use super::join::JoinState;
use super::lifecycle::Lifecycle;
use super::notices::Notice;
use super::pending::PendingTask;
use super::polling::{self, CancelledTask};
use super::process::{Death, Factory, ProcessId, ProcessRef, Processes};
use super::remains::Remains;
use super::rng::{Draws, Stream, StreamId};
use super::sleep::SleepFuture;
use super::trace::Recorder;
use super::wakes::{TaskRole, Waiter};
use super::{SimWorld, context, executor, remains, wakes};
use crate::chaos::assertions::{self, Tally};
use crate::chaos::buggify::Buggify;
use crate::chaos::invariants::Invariants;
use crate::chaos::{FaultKind, FaultTarget};
use crate::error::SimulationError;
use crate::network::NetworkConfiguration;
use crate::wait::WaitReason;

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
    pub(super) invariants: OnceCell<Invariants>,
}

/// The state behind [`SimWorld`]. Nobody holds a borrow of it while user code runs: wakers are
/// collected in `wakes` and called afterwards.
#[derive(Debug)]
pub(crate) struct World {
    pub(super) seed: u64,
    pub(super) clock: SimInstant,
    pub(super) events: EventQueue<Queued>,
    pub(super) spare_boxes: SpareBoxes,
    pub(super) executor: Executor,
    pub(super) scheduler: Stream,
    select: Stream,
    pub(super) network: Network,
    pub(super) translator: Translator,
    pub(super) processes: Processes,
    pub(super) lifecycle: Lifecycle,
    pub(super) clocks: Clocks,
    pub(super) faults: Faults,
    pub(super) digest: Digest,
    pub(super) trace: Recorder,
    pub(super) wakes: Vec<Waker>,
    /// To be logged when nobody borrows the world.
    pub(super) notices: Vec<Notice>,
    pub(super) events_processed: u64,
    /// No event is processed after it.
    pub(super) budget_ends: SimInstant,
    pub(super) livelock_limit: u64,
    /// How many polls and events at one instant are still no livelock.
    pub(super) turns_limit: u64,
    /// Nothing but background events was left, and no task but transport drivers ran since.
    pub(super) only_drivers_ran: bool,
    /// Polls and events at the current instant.
    pub(super) turns: u64,
    /// A destructor panicked in a kill: told when the world is driven next, or closed.
    pub(super) unreported_panic: Option<SimulationError>,
    /// What assertions came to; while the world is driven, the thread has it.
    pub(super) tally: Tally,
    pub(super) buggify: Buggify,
    /// What the main future's last poll was waiting for.
    pub(super) main_waits: Vec<WaitReason>,
    /// What sealed processes draw from: their draws must not disturb the living.
    inert: (Stream, Digest),
}

/// Traffic between drivers that takes longer than this was held up, by a fault for example.
const KEEPALIVE_FLIGHT: Duration = Duration::from_secs(1);

/// Polls of one task at one instant beyond which it counts as a livelock.
const DEFAULT_LIVELOCK_LIMIT: u64 = 1_000_000;
/// All tasks together may be polled this many times as often at one instant as one of them: a task
/// that spawns its successor is a new one each time.
const TOGETHER_FACTOR: u64 = 16;

impl World {
    fn new(seed: u64, config: Box<NetworkConfiguration>, remains: Remains) -> Self {
        Self {
            seed,
            clock: SimInstant::ZERO,
            events: remains.events,
            spare_boxes: SpareBoxes::default(),
            executor: remains.executor,
            scheduler: Stream::new(seed, StreamId::Scheduler),
            select: Stream::new(seed, StreamId::Select),
            network: remains.network,
            translator: Translator::new(seed, &config),
            processes: Processes::new(seed, remains.processes),
            lifecycle: Lifecycle::new(seed),
            clocks: Clocks::new(seed, &config.chaos),
            faults: Faults::new(seed, config),
            digest: Digest::new(seed),
            trace: Recorder::default(),
            wakes: Vec::new(),
            notices: Vec::new(),
            events_processed: 0,
            budget_ends: SimInstant::NEVER,
            livelock_limit: DEFAULT_LIVELOCK_LIMIT,
            turns_limit: DEFAULT_LIVELOCK_LIMIT * TOGETHER_FACTOR,
            only_drivers_ran: false,
            turns: 0,
            unreported_panic: None,
            tally: Tally::default(),
            buggify: Buggify::new(seed),
            main_waits: Vec::new(),
            inert: (Stream::new(0, StreamId::Workload(0)), Digest::new(0)),
        }
    }

    pub(super) fn set_livelock_limit(&mut self, polls: u64) {
        self.livelock_limit = polls;
        self.turns_limit = polls.saturating_mul(TOGETHER_FACTOR);
    }

    /// A fault was drawn or asked for: whether it happens.
    pub(super) fn fault_fires(&mut self, kind: FaultKind, target: FaultTarget) -> bool {
        let now = self.clock.since_start();
        self.faults.log.fires(kind, target, now, &mut self.digest)
    }

    pub(super) fn schedule(&mut self, at: SimInstant, event: Event) -> EventKey {
        let is_traffic = matches!(
            event,
            Event::Segment { .. }
                | Event::Break { .. }
                | Event::ConnectArrives(_)
                | Event::ConnectAnswered(_)
        );
        let only_drivers_ran = self.only_drivers_ran && is_traffic;
        let class = class_of_traffic(only_drivers_ran, self.clock, at);
        self.queue(at, class, event)
    }

    /// Wakes a task at once, and anybody else when nobody borrows the world.
    #[inline]
    pub(super) fn wake(&mut self, waiter: Waiter) {
        match waiter {
            Waiter::Task(key) => self.executor.wake(key),
            Waiter::Other(waker) => self.wakes.push(waker),
        }
    }

    /// Wakes whoever waits, if anybody does.
    #[inline]
    pub(super) fn wake_if(&mut self, waiter: Option<Waiter>) {
        if let Some(waiter) = waiter {
            self.wake(waiter);
        }
    }

    /// What the ledger is told of a fault that meets `connection` now.
    pub(super) fn occasion(&self, connection: ConnectionId) -> Occasion {
        Occasion {
            now: self.clock,
            target: FaultTarget::Connection(connection.number()),
        }
    }

    fn occasion_of(&self, owner: ProcessRef) -> Occasion {
        Occasion {
            now: self.clock,
            target: FaultTarget::Process(owner.id.number()),
        }
    }

    pub(crate) fn bind_latency(&mut self, owner: ProcessRef) -> Duration {
        let on = self.occasion_of(owner);
        self.faults.bind_latency(on, &mut self.digest)
    }

    pub(crate) fn accept_latency(&mut self, owner: ProcessRef) -> Duration {
        let on = self.occasion_of(owner);
        self.faults.accept_latency(on, &mut self.digest)
    }

    pub(super) fn record(&mut self, process: Option<ProcessId>, what: String) {
        self.trace_faults();
        let process = process.map(|id| self.processes.get(id).name.to_string());
        self.trace
            .record(self.clock.since_start(), self.digest.value(), process, what);
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

/// Wakes a task at once, and adds anybody else to `wakes`. For events: what wakers have woken is collected
/// before them.
#[inline]
pub(super) fn wake(executor: &mut Executor, wakes: &mut Vec<Waker>, waiter: Waiter) {
    match waiter {
        Waiter::Task(key) => executor.make_ready(key),
        Waiter::Other(waker) => wakes.push(waker),
    }
}

/// Whether traffic that sets out now and arrives then keeps the run alive.
///
/// If only drivers ran, whoever caused it was one, and so will be whoever it wakes first. Where there
/// are many of them, some such event is queued at any time. One that is late is waited for.
#[inline]
pub(super) fn class_of_traffic(
    only_drivers_ran: bool,
    now: SimInstant,
    at: SimInstant,
) -> EventClass {
    if only_drivers_ran && at <= now.after(KEEPALIVE_FLIGHT) {
        EventClass::Background
    } else {
        EventClass::Foreground
    }
}

impl Shared {
    pub(super) fn new(seed: u64, config: Box<NetworkConfiguration>) -> Rc<Self> {
        Rc::new(Self {
            world: RefCell::new(World::new(seed, config, remains::take())),
            invariants: OnceCell::new(),
        })
    }

    pub(crate) fn downgrade(self: &Rc<Self>) -> WeakSimWorld {
        WeakSimWorld(Rc::downgrade(self))
    }

    pub(crate) fn seed(&self) -> u64 {
        self.world.borrow().seed
    }

    /// Runs `f` on the state, then calls the wakers it collected.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.world.borrow_mut();
        let result = f(&mut world);
        let has_news = !(world.wakes.is_empty() && world.notices.is_empty());
        drop(world);
        if has_news {
            self.tell_news();
        }
        result
    }

    /// Calls the wakers that were collected, and logs the notices.
    #[cold]
    #[inline(never)]
    fn tell_news(&self) {
        let mut world = self.world.borrow_mut();
        let notices = std::mem::take(&mut world.notices);
        let mut wakes = std::mem::take(&mut world.wakes);
        drop(world);
        for notice in notices {
            notice.log();
        }
        for waker in wakes.drain(..) {
            waker.wake();
        }
        // The buffer goes back for the next time, unless a wake has filled a new one.
        let mut world = self.world.borrow_mut();
        if world.wakes.is_empty() {
            world.wakes = wakes;
        }
    }

    /// As [`with`](Self::with), if what `owner` does still counts.
    #[inline]
    pub(crate) fn with_live<R>(
        &self,
        owner: ProcessRef,
        f: impl FnOnce(&mut World) -> R,
    ) -> Option<R> {
        self.with(|world| world.processes.is_live(owner).then(|| f(world)))
    }

    pub(crate) fn instant(&self) -> SimInstant {
        self.world.borrow().clock
    }

    /// A sleep of `owner` from now, as long as it says.
    pub(crate) fn sleep(self: &Rc<Self>, owner: ProcessRef, duration: Duration) -> SleepFuture {
        let (now, class) = (self.instant(), EventClass::Foreground);
        SleepFuture::starting_at(now, self.downgrade(), owner, duration, class)
    }

    /// Now, and when a sleep of `duration` ends that begins now in `owner`'s process.
    #[inline]
    pub(super) fn sleep_ends(
        &self,
        owner: ProcessRef,
        duration: Duration,
    ) -> (SimInstant, SimInstant) {
        // Nobody is woken by this, and nothing is there to be logged.
        let mut world = self.world.borrow_mut();
        let slept = world.slept(owner, duration);
        (world.clock, world.clock.after(slept))
    }

    /// Reads the clock of `owner`'s process.
    pub(crate) fn timer(&self, owner: ProcessRef) -> SimInstant {
        self.with(|world| world.timer(owner))
    }

    pub(crate) fn disarm_timer(&self, key: EventKey) {
        let removed = self.with(|world| world.take_event(key));
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
        role: TaskRole,
        spawned_at: &'static Location<'static>,
        future: impl Future<Output = T> + 'static,
    ) -> Option<Rc<JoinState<T>>> {
        let mut future = Some(future);
        let state = self.with(|world| {
            if !world.processes.is_live(owner) {
                return None;
            }
            let future = future.take()?;
            Some(world.executor.spawn(name, owner, role, spawned_at, future))
        });
        // A sealed process's future is dropped here, outside the borrow.
        drop(future);
        state
    }

    pub(crate) fn abort(&self, key: executor::TaskKey) {
        self.with(|world| world.executor.cancel(key));
    }

    /// Nobody has the task's handle any more.
    pub(crate) fn detach(&self, key: executor::TaskKey) {
        self.with(|world| world.executor.detach(key));
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

    pub(crate) fn set_factory(&self, process: ProcessId, factory: Factory) {
        let replaced = self.with(|world| world.processes.get_mut(process).factory.replace(factory));
        drop(replaced);
    }

    /// A panic of a destructor that ran while the world was not driven.
    pub(super) fn take_unreported_panic(&self) -> Option<SimulationError> {
        self.with(|world| world.unreported_panic.take())
    }

    /// Seals all processes, drops all tasks, and returns the first panic of a destructor.
    pub(super) fn end(&self) -> Option<SimulationError> {
        // Tasks hold weak handles only, so the state is still there while their destructors run;
        // sealed, they reach nobody.
        let cancelled: Vec<_> = self.with(|world| {
            if wakes::is_any_abroad() {
                // Behind a lock of all threads: other workers end worlds too.
                world.executor.take_woken_abroad();
            }
            let ids = std::iter::once(ProcessId::WORLD).chain(world.processes.ids());
            for id in ids {
                world.processes.seal(id, Death::Crash);
            }
            world.executor.cancel_all()
        });
        let unreported = self.take_unreported_panic();
        let panic = self.drop_cancelled(cancelled);
        // A destructor may have woken a task that was still to be dropped: nobody else would take that
        // off this thread's list.
        self.with(|world| world.executor.collect_woken());
        unreported.or(panic)
    }

    /// Drops the futures of cancelled tasks. Returns the first panic of a destructor.
    pub(super) fn drop_cancelled(&self, cancelled: Vec<CancelledTask>) -> Option<SimulationError> {
        let mut panicked = None;
        for task in cancelled {
            let (key, process) = (task.meta.key, task.meta.process);
            let running = context::run_as(context::Current { process });
            let dropped = polling::discard(task);
            drop(running);
            if let Some(message) = dropped {
                let site = context::take_panic_site();
                let name = self.with(|world| world.executor.name(key));
                panicked.get_or_insert_with(|| self.panic_error(name, process, message, site));
            }
            self.with(|world| world.executor.forget(key));
        }
        panicked
    }

    /// A panic of a task or destructor, as the verdict it is.
    pub(super) fn panic_error(
        &self,
        task: Cow<'static, str>,
        process: ProcessRef,
        message: String,
        site: context::PanicSite,
    ) -> SimulationError {
        let process = self.with(|world| world.processes.get(process.id).name.to_string());
        if let Some(failed) = assertions::take_failure() {
            let who = Some(Box::new((task.into_owned(), process)));
            return self.with(|world| world.assertion_error(failed, who));
        }
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

impl WeakSimWorld {
    /// The world, if it is still there: for commands. It cannot be driven from inside, and does not
    /// end when this handle is dropped.
    #[must_use]
    pub fn world(&self) -> Option<SimWorld> {
        self.upgrade().map(SimWorld::borrowed)
    }

    /// The world's state, if it is still there.
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
