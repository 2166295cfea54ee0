//! Driving a world: poll what is ready, then move the clock to the next event.

use std::borrow::Cow;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tracing::Span;

use super::SimWorld;
use super::clock::SimInstant;
use super::context::{self, Current, Driving};
use super::executor::PollCount;
use super::polling::PickedTask;
use super::process::ProcessId;
use super::steps::{Cancelled, Ends, Next, Step, Until};
use super::turns::Place;
use super::wakes;
use super::world::World;
use crate::error::{SimulationError, SimulationResult};
use crate::task::panic_message;

/// How much longer background events run once nothing else is left, before that is a deadlock.
const BACKGROUND_GRACE: Duration = Duration::from_secs(10);

const MAIN: &str = "main future";

/// The waker of `block_on`'s own future.
pub(super) struct MainWaker {
    woken: AtomicBool,
    thread: u32,
    abroad: AtomicBool,
}

impl MainWaker {
    #[inline]
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn is_woken_abroad(&self) -> bool {
        self.abroad.load(Ordering::Acquire)
    }
}

impl Wake for MainWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.thread != context::thread_tag() {
            self.abroad.store(true, Ordering::Release);
        }
        self.woken.store(true, Ordering::Release);
    }
}

/// What moving the clock came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advance {
    Moved,
    /// No event, or none before the limit.
    Nothing,
}

/// How long nothing but transport drivers may run before that is a deadlock. It begins when no
/// event but background ones is queued, and ends as soon as any other task runs.
pub(super) struct Grace<'a> {
    world: &'a SimWorld,
    ends: Option<SimInstant>,
}

impl<'a> Grace<'a> {
    fn new(world: &'a SimWorld) -> Self {
        Self { world, ends: None }
    }

    /// When it ends. What the network does from here on is the drivers' doing.
    fn begin(&mut self, now: SimInstant) -> SimInstant {
        if let Some(ends) = self.ends {
            return ends;
        }
        self.world
            .shared
            .with(|world| world.only_drivers_ran = true);
        *self.ends.insert(now.after(BACKGROUND_GRACE))
    }

    #[inline]
    pub(super) fn end(&mut self) {
        if self.ends.is_some() {
            self.forget();
        }
    }

    #[cold]
    fn forget(&mut self) {
        self.ends = None;
        self.world
            .shared
            .with(|world| world.only_drivers_ran = false);
    }
}

impl Drop for Grace<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl SimWorld {
    /// Runs the world until `future` is done, and returns its output. Other tasks may still be
    /// pending then; driving on continues them.
    ///
    /// `future` belongs to the world's own process.
    ///
    /// # Errors
    /// - [`SimulationError::Deadlock`]: `future` waits, and nothing will ever happen again; or, for
    ///   10 s of virtual time, nothing but keepalives between transports.
    /// - [`SimulationError::Panic`]: a task, a destructor or `future` itself panicked.
    /// - [`SimulationError::Livelock`], [`SimulationError::TimeBudget`]: a limit was reached.
    /// - [`SimulationError::Escape`]: simulated code used the real world, or this was called from
    ///   inside a tokio runtime.
    pub fn block_on<F: Future>(&self, future: F) -> SimulationResult<F::Output> {
        match self.drive(future, None)? {
            Some(output) => Ok(output),
            None => Err(self.deadlock()),
        }
    }

    /// Runs the world until `future` is done, or to virtual time `until`: `None` then, with the clock
    /// at that instant. A world in which nothing happens any more is no deadlock before that.
    pub(crate) fn block_on_until<F: Future>(
        &self,
        future: F,
        until: Duration,
    ) -> SimulationResult<Option<F::Output>> {
        self.drive(future, Some(SimInstant::ZERO.after(until)))
    }

    /// `None` if nothing will happen any more, or not before the limit.
    fn drive<F: Future>(
        &self,
        future: F,
        limit: Option<SimInstant>,
    ) -> SimulationResult<Option<F::Output>> {
        let _driving = self.enter()?;
        let mut future = pin!(future);
        let main = Arc::new(MainWaker {
            woken: AtomicBool::new(true),
            thread: context::thread_tag(),
            abroad: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&main));
        let mut polls = PollCount::default();
        let mut grace = Grace::new(self);
        let until = limit.map_or(Until::Foreground, Until::Instant);
        let mut place = Place::new(&self.shared);
        loop {
            let mut are_due = false;
            match self.take_turns(&mut place, Some(&main), &mut grace, until)? {
                Next::Check(are_invariants_due) => are_due = are_invariants_due,
                Next::Task | Next::Panicked(_) => {}
                Next::Livelock(found) => self.check_livelock(found.polls, found.task)?,
                Next::Main => {
                    grace.end();
                    main.woken.store(false, Ordering::Release);
                    if let Poll::Ready(output) = self.poll_main(future.as_mut(), &waker)? {
                        return Ok(Some(output));
                    }
                    self.check_livelock(polls.count(self.shared.instant()), MAIN.into())?;
                }
                Next::Cancelled(task) => self.drop_cancelled(*task)?,
                Next::Finish(step) => {
                    let advance = match self.finish(step)? {
                        Advance::Moved => Advance::Moved,
                        Advance::Nothing => self.wait_longer(&mut grace, limit)?,
                    };
                    if advance == Advance::Nothing {
                        // Another thread may have woken something just now: that is said first.
                        self.check_escape(main.is_woken_abroad())?;
                        return Ok(None);
                    }
                }
            }
            self.check(&mut place.picked, main.is_woken_abroad(), are_due)?;
        }
    }

    /// What is looked at after every turn, and nearly always in order: then `polled` is left to be
    /// taken note of with the next turn, in one borrow.
    fn check(
        &self,
        polled: &mut PickedTask,
        main_woken_abroad: bool,
        are_invariants_due: bool,
    ) -> SimulationResult<()> {
        let are_invariants_due = self.are_invariants_due() || are_invariants_due;
        if !main_woken_abroad && !wakes::is_any_abroad() && !are_invariants_due {
            return Ok(());
        }
        self.note_polled(polled)?;
        self.check_escape(main_woken_abroad)?;
        if are_invariants_due {
            self.check_invariants()?;
        }
        Ok(())
    }

    /// Polls what is ready and processes events until there is neither, as far as `until` says.
    fn run(&self, until: Until) -> SimulationResult<()> {
        let mut place = Place::new(&self.shared);
        let mut grace = Grace::new(self);
        loop {
            let mut are_due = false;
            match self.take_turns(&mut place, None, &mut grace, until)? {
                Next::Check(are_invariants_due) => are_due = are_invariants_due,
                Next::Livelock(found) => self.check_livelock(found.polls, found.task)?,
                Next::Cancelled(task) => self.drop_cancelled(*task)?,
                Next::Task | Next::Panicked(_) | Next::Main => {}
                Next::Finish(step) => {
                    if self.finish(step)? == Advance::Nothing {
                        return Ok(());
                    }
                }
            }
            self.check(&mut place.picked, false, are_due)?;
        }
    }

    /// Takes note of a poll, if there was one.
    fn note_polled(&self, polled: &mut PickedTask) -> SimulationResult<()> {
        match self.shared.with(|world| world.after_turn(polled)) {
            Some(Next::Livelock(found)) => self.check_livelock(found.polls, found.task),
            Some(Next::Cancelled(task)) => self.drop_cancelled(*task),
            _ => Ok(()),
        }
    }

    /// Polls what is ready, processes the next event, and polls what that made ready. True if there
    /// is more to do.
    ///
    /// # Errors
    /// As [`block_on`](Self::block_on), but for the deadlock.
    pub fn step(&self) -> SimulationResult<bool> {
        let _driving = self.enter()?;
        self.poll_ready()?;
        self.advance(Until::Idle)?;
        self.poll_ready()?;
        Ok(self.has_pending_events())
    }

    /// Runs until nothing is ready and no event is queued but background ones. Tasks that wait for
    /// something else may be left: see [`pending_tasks`](Self::pending_tasks).
    ///
    /// # Errors
    /// As [`block_on`](Self::block_on), but for the deadlock.
    pub fn run_until_empty(&self) -> SimulationResult<()> {
        let _driving = self.enter()?;
        self.run(Until::Foreground)
    }

    /// Runs until nothing is ready and no event is queued but background ones, or to virtual time
    /// `until`, whichever comes first.
    pub(crate) fn run_until_settled(&self, until: Duration) -> SimulationResult<()> {
        let _driving = self.enter()?;
        let limit = SimInstant::ZERO.after(until);
        self.poll_ready()?;
        while self.shared.with(|world| world.events.foreground()) > 0
            && self.advance(Until::Instant(limit))? == Advance::Moved
        {
            self.poll_ready()?;
        }
        Ok(())
    }

    /// Runs for `duration` of virtual time: the clock stands exactly that much later at the end.
    ///
    /// # Errors
    /// As [`block_on`](Self::block_on), but for the deadlock.
    pub fn run_for(&self, duration: Duration) -> SimulationResult<()> {
        self.run_until(self.current_time().saturating_add(duration))
    }

    /// Runs until virtual time `at`, events at that instant included. Does nothing if it has passed.
    ///
    /// # Errors
    /// As [`block_on`](Self::block_on), but for the deadlock.
    pub fn run_until(&self, at: Duration) -> SimulationResult<()> {
        let _driving = self.enter()?;
        let limit = SimInstant::ZERO.after(at);
        self.run(Until::Instant(limit))?;
        self.move_clock(limit);
        Ok(())
    }

    pub(super) fn enter(&self) -> SimulationResult<Driving> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(SimulationError::Escape(
                "this world is driven from inside a tokio runtime, where tokio's own timers, \
                 sockets and tasks would work unnoticed: use #[test] instead of #[tokio::test], \
                 and SimWorld::block_on instead of a runtime's"
                    .to_owned(),
            ));
        }
        if context::current().is_some() {
            return Err(SimulationError::Escape(
                "a world is driven from inside a simulated task: await the future there instead"
                    .to_owned(),
            ));
        }
        self.check_destructors()?;
        Ok(context::drive(self.downgrade()))
    }

    /// Fails if a destructor panicked in a kill.
    fn check_destructors(&self) -> SimulationResult<()> {
        match self.shared.take_unreported_panic() {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }

    fn poll_ready(&self) -> SimulationResult<()> {
        self.run(Until::Now)
    }

    /// Drops a task that was cancelled while it was polled.
    fn drop_cancelled(&self, cancelled: Cancelled) -> SimulationResult<()> {
        let Cancelled { task, livelock } = cancelled;
        match (self.shared.drop_cancelled(vec![task]), livelock) {
            (Some(panic), _) => Err(panic),
            (None, Some(found)) => self.check_livelock(found.polls, found.task),
            (None, None) => Ok(()),
        }
    }

    fn poll_main<F: Future>(
        &self,
        future: Pin<&mut F>,
        waker: &Waker,
    ) -> SimulationResult<Poll<F::Output>> {
        let process = self
            .shared
            .with(|world| world.processes.life(ProcessId::WORLD));
        let running = context::run_as(Current { process });
        let mut cx = Context::from_waker(waker);
        let span = self.span(|_| (ProcessId::WORLD, MAIN.into()));
        let polled = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx))));
        drop(running);
        self.shared.with(|world| {
            if world.trace.is_on() {
                world.record(Some(ProcessId::WORLD), format!("poll {MAIN}"));
            }
            world.main_waits.clear();
            crate::wait::take_each(|reason| world.main_waits.push(reason));
        });
        polled.map_err(|payload| {
            let site = context::take_panic_site();
            self.shared
                .panic_error(MAIN.into(), process, panic_message(&*payload), site)
        })
    }

    /// The span that stamps what a poll logs with virtual time, seed, process and task. Made only
    /// if someone listens.
    pub(super) fn span(&self, who: impl FnOnce(&World) -> (ProcessId, Cow<'static, str>)) -> Span {
        if !tracing::enabled!(tracing::Level::ERROR) {
            return Span::none();
        }
        self.shared.with(|world| {
            let (process, task) = who(world);
            let process = &world.processes.get(process).name;
            let (at, seed) = (world.clock.since_start(), world.seed);
            tracing::error_span!("sim", ?at, seed, %process, %task)
        })
    }

    /// Moves the clock to the next event and applies it.
    fn advance(&self, until: Until) -> SimulationResult<Advance> {
        let step = self.shared.with(|world| world.step(until));
        self.finish(step)
    }

    /// Does what an event came to that needs the world unborrowed.
    fn finish(&self, step: Step) -> SimulationResult<Advance> {
        match step {
            Step::Nothing => Ok(Advance::Nothing),
            Step::Moved => Ok(Advance::Moved),
            Step::OutOfBudget => Err(SimulationError::TimeBudget {
                budget: self.shared.with(|world| world.budget_ends.since_start()),
                report: self.waiting_report(),
            }),
            Step::Ends(ends) => {
                let Ends { call, too_many } = *ends;
                if let Some(call) = call {
                    self.call(call)?;
                }
                if let Some(turns) = too_many {
                    self.check_livelock(turns, "scheduled events".into())?;
                }
                Ok(Advance::Moved)
            }
        }
    }

    fn call(&self, closure: Box<dyn FnOnce()>) -> SimulationResult<()> {
        let process = self
            .shared
            .with(|world| world.processes.life(ProcessId::WORLD));
        let running = context::run_as(Current { process });
        let outcome = catch_unwind(AssertUnwindSafe(closure));
        drop(running);
        if let Err(payload) = outcome {
            let site = context::take_panic_site();
            let message = panic_message(&*payload);
            let name = "scheduled closure".into();
            return Err(self.shared.panic_error(name, process, message, site));
        }
        self.check_destructors()
    }

    /// The main future waits, and no event is left before the limit, or none that keeps the run
    /// alive. Without a limit, background events get some more time to wake somebody who is no driver;
    /// then there is nothing more to come, unless the drivers themselves wait for something by then.
    fn wait_longer(
        &self,
        grace: &mut Grace<'_>,
        limit: Option<SimInstant>,
    ) -> SimulationResult<Advance> {
        if let Some(limit) = limit {
            self.move_clock(limit);
            return Ok(Advance::Nothing);
        }
        let now = self.shared.instant();
        self.advance(Until::Instant(grace.begin(now).max(now)))
    }

    fn move_clock(&self, to: SimInstant) {
        self.shared
            .with(|world| world.set_clock(world.clock.max(to)));
    }

    fn deadlock(&self) -> SimulationError {
        SimulationError::Deadlock {
            at: self.current_time(),
            report: self.waiting_report(),
        }
    }

    fn waiting_report(&self) -> String {
        self.shared.with(|world| {
            let waits = world.main_waits.iter().map(ToString::to_string);
            let waits: Vec<String> = waits.collect();
            let waits = if waits.is_empty() {
                "something that is not the simulation's (a channel, a lock, another thread)".into()
            } else {
                waits.join(", or ")
            };
            let tasks = world.pending_report();
            let separator = if tasks.is_empty() { "" } else { "\n" };
            format!("  {MAIN} waits on {waits}{separator}{tasks}")
        })
    }

    fn check_livelock(&self, polls: u64, task: Cow<'static, str>) -> SimulationResult<()> {
        if polls <= self.shared.with(|world| world.livelock_limit) {
            return Ok(());
        }
        Err(SimulationError::Livelock {
            at: self.current_time(),
            task: task.into_owned(),
            polls,
        })
    }

    fn check_escape(&self, main_woken_abroad: bool) -> SimulationResult<()> {
        if !main_woken_abroad && !wakes::is_any_abroad() {
            return Ok(());
        }
        let woken = self.shared.with(|world| {
            let key = world.executor.take_woken_abroad()?;
            Some(world.executor.name(key))
        });
        let name = match woken {
            Some(name) => name,
            None if main_woken_abroad => MAIN.into(),
            None => return Ok(()),
        };
        Err(SimulationError::Escape(format!(
            "`{name}` was woken from another thread, at a moment that no seed decides: start work \
             with TaskProvider::spawn_task, and blocking work with TaskProvider::run_blocking"
        )))
    }
}
