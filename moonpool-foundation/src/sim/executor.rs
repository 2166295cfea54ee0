//! The executor: task cells from `async-task`, a ready queue that is ours, and the next task drawn
//! from the seed.
//!
//! A wake pushes the task to a list of this thread, so it needs no lock and no borrow of the world.
//! A wake from another thread cannot be ordered by the seed: it is caught and becomes a verdict.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;
use std::task::Waker;

use async_task::Task;

use super::clock::SimInstant;
use super::context::thread_tag;
use super::digest::Digest;
use super::events::index_u32;
use super::join::{JoinState, Tracked};
use super::process::{ProcessId, ProcessRef};
use super::rng::Stream;
use super::slab::{Key, Slab};
use super::wakes::{self, ReadyTask, TaskMeta, TaskRole, schedule};
use crate::task::panic_message;
use crate::wait::{self, WaitReason, Waits};

/// In what order ready tasks are polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulePolicy {
    /// The next task is drawn from the seed: another seed, another interleaving.
    #[default]
    Random,
    /// In the order they were woken, as tokio's single-threaded runtime does.
    Fifo,
    /// By priorities drawn when tasks start; now and then the one that would run is put last
    /// instead. Finds bugs that need `depth` ordered steps far more often than a uniform draw
    /// does (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
    /// Bugs", ASPLOS 2010); the main future has the middle priority.
    Pct {
        /// How many ordered steps the bug is thought to need; `depth - 1` tasks in ten thousand
        /// polls are put last.
        depth: u32,
    },
}

/// Names a task of one world.
pub(crate) type TaskKey = Key;

thread_local! {
    /// Set by a task that panicked, read by the executor right after its poll.
    static TASK_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether that is set.
    static TASK_PANICKED: Cell<bool> = const { Cell::new(false) };
    /// Set by a task that has ended.
    pub(super) static TASK_DONE: Cell<bool> = const { Cell::new(false) };
}

/// A task panicked, in its future or in a destructor.
pub(super) fn note_panic(message: String) {
    TASK_PANIC.set(Some(message));
    TASK_PANICKED.set(true);
}

fn take_panic() -> Option<String> {
    if TASK_PANICKED.take() {
        TASK_PANIC.take()
    } else {
        None
    }
}

struct TaskEntry {
    name: Cow<'static, str>,
    process: ProcessRef,
    spawned_at: &'static Location<'static>,
    /// Dropping it cancels the task.
    cell: Task<(), TaskMeta>,
    /// The cell's own: only this thread has it.
    waker: Waker,
    waits: Waits,
    polls: PollCount,
    /// Under [`SchedulePolicy::Pct`]: the highest runs first.
    priority: u64,
}

/// Polls among which `depth - 1` change points of [`SchedulePolicy::Pct`] fall.
const PCT_WINDOW: u32 = 10_000;
/// Priorities are drawn above this; those that were put last count down from it.
const PCT_LOWEST_DRAWN: u64 = 1 << 32;
const PCT_MAIN: u64 = PCT_LOWEST_DRAWN + (1 << 31);

/// How often something was polled at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PollCount {
    at: SimInstant,
    polls: u64,
}

impl PollCount {
    pub(crate) fn count(&mut self, now: SimInstant) -> u64 {
        if self.at != now {
            *self = Self { at: now, polls: 0 };
        }
        self.polls += 1;
        self.polls
    }
}

/// One line of a deadlock report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingTask {
    /// The task's name.
    pub name: String,
    /// The process it belongs to.
    pub process: ProcessId,
    /// That process's name.
    pub process_name: String,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// Whether its process is paused: it runs on when that is resumed.
    pub paused: bool,
    /// What its last poll was waiting for; empty if that is nothing of the simulation's: a channel,
    /// a lock, another thread.
    pub waits_on: Vec<WaitReason>,
}

impl fmt::Display for PendingTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paused = if self.paused { " (paused)" } else { "" };
        write!(
            f,
            "task `{}` of `{}`{paused} waits on ",
            self.name, self.process_name
        )?;
        if self.waits_on.is_empty() {
            write!(
                f,
                "something that is not the simulation's (a channel, a lock, another thread)"
            )?;
        }
        for (index, reason) in self.waits_on.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", or " };
            write!(f, "{separator}{reason}")?;
        }
        write!(f, "; spawned at {}", self.spawned_at)
    }
}

/// Whose turn it is.
pub(crate) enum Turn {
    Main,
    Task(ReadyTask),
}

/// How a poll of a task went.
pub(crate) enum Polled {
    Fine,
    /// A panic in the task or in a destructor, with its message.
    Panicked(String),
}

pub(crate) struct Executor {
    world: u32,
    tasks: Slab<TaskEntry>,
    ready: VecDeque<ReadyTask>,
    /// Ready tasks of paused processes: there is an entry for each of these.
    held: BTreeMap<ProcessId, Vec<ReadyTask>>,
    policy: SchedulePolicy,
    /// The names of cancelled tasks whose futures have not been dropped yet.
    cancelled: BTreeMap<u64, Cow<'static, str>>,
    /// The priority of the next task that is put last.
    next_demoted: u64,
    main_priority: u64,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("live", &self.tasks.len())
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

impl Executor {
    pub(crate) fn new() -> Self {
        thread_local! {
            static NEXT_WORLD: Cell<u32> = const { Cell::new(0) };
        }
        // Tells the worlds of one thread apart in its list of woken tasks; it decides nothing else.
        let world = NEXT_WORLD.get();
        NEXT_WORLD.set(world.wrapping_add(1));
        Self {
            world,
            tasks: Slab::default(),
            ready: VecDeque::new(),
            held: BTreeMap::new(),
            policy: SchedulePolicy::default(),
            cancelled: BTreeMap::new(),
            next_demoted: PCT_LOWEST_DRAWN,
            main_priority: PCT_MAIN,
        }
    }

    pub(crate) fn set_policy(&mut self, policy: SchedulePolicy) {
        self.policy = policy;
    }

    /// How many tasks have not ended.
    pub(crate) fn live(&self) -> usize {
        self.tasks.len()
    }

    /// Takes up a new task, ready to run.
    pub(crate) fn spawn<T: 'static>(
        &mut self,
        name: Cow<'static, str>,
        process: ProcessRef,
        role: TaskRole,
        spawned_at: &'static Location<'static>,
        future: impl Future<Output = T> + 'static,
    ) -> Rc<JoinState<T>> {
        let world = self.world;
        let (_, (runnable, state)) = self.tasks.insert_with(|key| {
            let state = Rc::new(JoinState::new(key));
            let meta = TaskMeta {
                world,
                thread: thread_tag(),
                key,
                process,
                role,
            };
            let tracked = Tracked::new(future, Rc::clone(&state), meta.home());
            let (runnable, cell) = async_task::Builder::new()
                .metadata(meta)
                .spawn_local(move |_| tracked, schedule);
            let entry = TaskEntry {
                name,
                process,
                spawned_at,
                cell,
                waker: runnable.waker(),
                waits: Waits::default(),
                polls: PollCount::default(),
                priority: 0,
            };
            (entry, (runnable, state))
        });
        self.ready.push_back(runnable);
        state
    }

    /// Draws the next to poll among the ready tasks and, if it is woken, the main future.
    pub(crate) fn next_turn(
        &mut self,
        main_woken: bool,
        scheduler: &mut Stream,
        digest: &mut Digest,
    ) -> Option<Turn> {
        self.collect_woken();
        if !self.held.is_empty() {
            self.set_paused_aside();
        }
        let ready = self.ready.len();
        let candidates = ready + usize::from(main_woken);
        let picked = match (candidates, self.policy) {
            (0, _) => return None,
            (_, SchedulePolicy::Pct { depth }) => {
                let pick = self.pick_by_priority(main_woken, depth, scheduler, digest);
                self.ready.swap_remove_back(pick)
            }
            (1, _) | (_, SchedulePolicy::Fifo) => self.ready.pop_front(),
            (_, SchedulePolicy::Random) => {
                let pick = scheduler.below(index_u32(candidates), digest) as usize;
                self.ready.swap_remove_back(pick)
            }
        };
        match picked {
            Some(task) => {
                digest.fold(task.metadata().key.number());
                Some(Turn::Task(task))
            }
            None => {
                digest.fold(u64::MAX);
                Some(Turn::Main)
            }
        }
    }

    /// The place of the ready task with the highest priority; beyond the last for the main future.
    fn pick_by_priority(
        &mut self,
        main_woken: bool,
        depth: u32,
        scheduler: &mut Stream,
        digest: &mut Digest,
    ) -> usize {
        for task in &self.ready {
            if let Some(entry) = self.tasks.get_mut(task.metadata().key)
                && entry.priority == 0
            {
                let drawn = scheduler.draws(digest).next_u32();
                entry.priority = PCT_LOWEST_DRAWN + 1 + u64::from(drawn);
            }
        }
        let mut pick = self.highest(main_woken);
        if scheduler.below(PCT_WINDOW, digest) < depth.saturating_sub(1) {
            self.next_demoted = self.next_demoted.saturating_sub(1).max(1);
            let key = self.ready.get(pick).map(|task| task.metadata().key);
            match key.and_then(|key| self.tasks.get_mut(key)) {
                Some(entry) => entry.priority = self.next_demoted,
                None => self.main_priority = self.next_demoted,
            }
            pick = self.highest(main_woken);
        }
        pick
    }

    fn highest(&self, main_woken: bool) -> usize {
        let tasks = self.ready.iter().enumerate().map(|(place, task)| {
            let entry = self.tasks.get(task.metadata().key);
            // A cancelled task goes first: only its destructors are left to run.
            (entry.map_or(u64::MAX, |entry| entry.priority), place)
        });
        let main = main_woken.then_some((self.main_priority, self.ready.len()));
        tasks.chain(main).max().map_or(0, |(_, place)| place)
    }

    /// From now on no task of `process` is polled.
    pub(crate) fn hold(&mut self, process: ProcessId) {
        self.held.entry(process).or_default();
    }

    /// Its tasks are polled again; those that became ready meanwhile are ready now.
    pub(crate) fn release(&mut self, process: ProcessId) {
        self.ready
            .extend(self.held.remove(&process).into_iter().flatten());
    }

    fn set_paused_aside(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(task) = self.ready.pop_front() else {
                return;
            };
            match self.held.get_mut(&task.metadata().process.id) {
                Some(held) => held.push(task),
                None => self.ready.push_back(task),
            }
        }
    }

    /// The task that is polled right now, if `waker` is its own and it is one of this world.
    pub(super) fn polled_task(&self, waker: &Waker) -> Option<TaskKey> {
        wakes::polled_task(self.world, waker)
    }

    /// Makes a task ready, if it has not ended. This runs nobody's code.
    pub(super) fn wake(&self, key: TaskKey) {
        if let Some(entry) = self.tasks.get(key) {
            entry.waker.wake_by_ref();
        }
    }

    fn collect_woken(&mut self) {
        wakes::collect_woken(self.world, &mut self.ready);
    }

    /// Takes note of a finished poll. `Some(polls)` is how often the task was polled at `now`.
    pub(crate) fn after_poll(&mut self, key: TaskKey, now: SimInstant) -> Option<u64> {
        if TASK_DONE.take() {
            // A finished task's cell holds no future any more: dropping it runs no user code.
            drop(self.tasks.remove(key));
            // It may have been cancelled in this very poll.
            self.forget_cancelled(key);
            return None;
        }
        let Some(entry) = self.tasks.get_mut(key) else {
            self.forget_cancelled(key);
            return None;
        };
        entry.waits.take();
        Some(entry.polls.count(now))
    }

    /// Takes a task out to cancel it: drop the result outside any borrow of the world, then run
    /// what that schedules.
    pub(crate) fn cancel(&mut self, key: TaskKey) -> Option<CancelledTask> {
        let entry = self.tasks.remove(key)?;
        self.cancelled.insert(key.number(), entry.name);
        Some(CancelledTask(entry.cell, entry.waker))
    }

    /// A cancelled task's future has been dropped.
    pub(crate) fn forget_cancelled(&mut self, key: TaskKey) {
        self.cancelled.remove(&key.number());
    }

    /// Takes out all tasks of `process`, also if it is paused.
    pub(crate) fn cancel_process(&mut self, process: ProcessId) -> Vec<CancelledTask> {
        self.release(process);
        let keys: Vec<TaskKey> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.process.id == process)
            .map(|(key, _)| key)
            .collect();
        keys.into_iter()
            .filter_map(|key| self.cancel(key))
            .collect()
    }

    /// Takes out all tasks, process by process: as [`cancel_process`](Self::cancel_process) of each
    /// would, but without a look at all tasks for each.
    pub(crate) fn cancel_all(&mut self) -> Vec<CancelledTask> {
        self.ready
            .extend(std::mem::take(&mut self.held).into_values().flatten());
        let mut keys: Vec<(ProcessId, TaskKey)> = self
            .tasks
            .iter()
            .map(|(key, entry)| (entry.process.id, key))
            .collect();
        // Stable: those of one process stay in the order of their slots.
        keys.sort_by_key(|(process, _)| *process);
        keys.into_iter()
            .filter_map(|(_, key)| self.cancel(key))
            .collect()
    }

    /// Those of the ready tasks that were cancelled: running them drops their futures.
    pub(crate) fn take_cancelled(&mut self) -> Vec<ReadyTask> {
        self.collect_woken();
        let mut cancelled = Vec::new();
        for task in std::mem::take(&mut self.ready) {
            if self.tasks.get(task.metadata().key).is_some() {
                self.ready.push_back(task);
            } else {
                cancelled.push(task);
            }
        }
        cancelled
    }

    pub(crate) fn name(&self, key: TaskKey) -> Cow<'static, str> {
        let cancelled = || self.cancelled.get(&key.number());
        let name = self.tasks.get(key).map(|entry| &entry.name);
        match name.or_else(cancelled) {
            Some(name) => name.clone(),
            None => Cow::Borrowed("a task that has ended"),
        }
    }

    pub(crate) fn pending(&self, process_name: impl Fn(ProcessId) -> String) -> Vec<PendingTask> {
        self.tasks
            .iter()
            .map(|(_, entry)| PendingTask {
                name: entry.name.clone().into_owned(),
                process: entry.process.id,
                process_name: process_name(entry.process.id),
                spawned_at: entry.spawned_at,
                paused: self.held.contains_key(&entry.process.id),
                waits_on: entry.waits.iter().collect(),
            })
            .collect()
    }

    /// Takes note of wakes from other threads: the first of our tasks that was woken so.
    pub(super) fn take_woken_abroad(&self) -> Option<TaskKey> {
        wakes::take_woken_abroad(self.world)
    }
}

/// A cancelled task's cell. Dropping it schedules the task once more, for its future to be dropped.
pub(crate) struct CancelledTask(
    #[expect(dead_code, reason = "held to be dropped")] Task<(), TaskMeta>,
    #[expect(dead_code, reason = "held to be dropped")] Waker,
);

/// Polls a task once, with whatever it waits on noted. Must be called with no borrow of the world.
pub(crate) fn run(task: ReadyTask) -> Polled {
    wait::reset();
    TASK_DONE.set(false);
    // Left behind by a cell that was dropped, not run.
    drop(take_panic());
    let outcome = catch_unwind(AssertUnwindSafe(|| task.run()));
    let message = take_panic();
    match (outcome, message) {
        (_, Some(message)) => Polled::Panicked(message),
        (Err(payload), None) => Polled::Panicked(panic_message(&*payload)),
        (Ok(_), None) => Polled::Fine,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::Providers;
    use crate::sim::SimWorld;
    use crate::sim::slab::LOOKS;
    use crate::task::{JoinHandle, TaskProvider};

    /// Writes its number down when it is dropped.
    struct Tell(usize, Rc<RefCell<Vec<usize>>>);

    impl Drop for Tell {
        fn drop(&mut self) {
            self.1.borrow_mut().push(self.0);
        }
    }

    #[test]
    fn the_end_of_a_world_looks_at_each_task_once_and_drops_them_process_by_process() {
        const PROCESSES: usize = 100;
        let world = SimWorld::new();
        let dropped = Rc::new(RefCell::new(Vec::new()));
        let processes: Vec<_> = (0..PROCESSES)
            .map(|process| world.add_process(&process.to_string()).providers())
            .collect();
        for number in 0..2 * PROCESSES {
            let tell = Tell(number, Rc::clone(&dropped));
            let task = processes[number % PROCESSES].task();
            task.spawn_task("waits", async move {
                std::future::pending::<()>().await;
                drop(tell);
            });
        }
        world.run_until_empty().unwrap();
        LOOKS.set(0);
        drop(world);
        assert_eq!(LOOKS.get(), 2 * PROCESSES);
        let expected: Vec<usize> = (0..PROCESSES)
            .flat_map(|process| [process, process + PROCESSES])
            .collect();
        assert_eq!(*dropped.borrow(), expected);
    }

    #[test]
    fn a_task_that_aborts_itself_and_ends_leaves_nothing_behind() {
        let world = SimWorld::new();
        let handle: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let own = Rc::clone(&handle);
        let task = world.task_provider().spawn_task("suicide", async move {
            if let Some(handle) = own.take() {
                handle.abort();
            }
        });
        handle.replace(Some(task));
        world.run_until_empty().unwrap();
        world.shared.with(|world| {
            assert_eq!(world.executor.live(), 0);
            assert!(world.executor.cancelled.is_empty());
        });
    }
}
