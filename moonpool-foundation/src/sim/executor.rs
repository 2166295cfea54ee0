//! The executor: tasks in a slab, those that are ready in a queue, and the next one drawn from the seed.
//!
//! A task is one block of memory with its future, and an entry here. While it is polled, its future is
//! out of its entry, so nobody borrows the world meanwhile. A task is woken by its key from inside the
//! world; a waker pushes that to a list of this thread, so it needs no lock and no borrow of the world.
//! A wake from another thread cannot be ordered by the seed: it is caught and becomes a verdict.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;
use std::task::Waker;

use super::clock::SimInstant;
use super::digest::Digest;
use super::events::index_u32;
use super::join::{Body, JoinState, Tracked};
use super::pending::PendingTask;
use super::polling::{AfterPoll, CancelledTask, PickedTask};
use super::process::{ProcessId, ProcessRef};
use super::ready::Ready;
use super::recycle::{Recycle, recycle};
use super::rng::Stream;
use super::roster::{Roster, Sites};
use super::slab::{Key, Slab};
pub(super) use super::task_entry::TaskEntry;
use super::wakes::{self, OwnWaker, TaskMeta, TaskRole};
use crate::wait;

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

/// With so many tasks, they are no longer in the processor's own caches.
pub(super) const FAR: usize = 1 << 12;
/// How many of them are read at once.
const LOOK_AHEAD: usize = 16;

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

/// Whose turn it is.
#[derive(Clone, Copy)]
pub(crate) enum Turn {
    Main,
    /// The task's that was picked.
    Task,
}

pub(crate) struct Executor {
    world: u32,
    tasks: Slab<TaskEntry>,
    /// Those among them that are cancelled.
    cancelled: usize,
    /// Also the keys of some tasks that have gone: they are passed over.
    ready: Ready,
    /// Ready tasks of paused processes: there is an entry for each of these.
    held: BTreeMap<ProcessId, Vec<TaskKey>>,
    roster: Roster,
    sites: Sites,
    /// For whoever is polled next and has none of its own: as long as nobody keeps a copy, no task needs
    /// one.
    waker: Option<OwnWaker>,
    /// The data of the waker that the polled task sees; null between polls.
    polled_waker: *const (),
    /// That task; the last one, between polls.
    polled: TaskKey,
    /// Draws whose tasks were [looked at](Self::look_ahead) and are still to come.
    looked_ahead: usize,
    policy: SchedulePolicy,
    /// Under [`SchedulePolicy::Pct`], of tasks that were ready once: the highest runs first.
    priorities: BTreeMap<u64, u64>,
    /// The priority of the next task that is put last.
    next_demoted: u64,
    main_priority: u64,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("live", &self.live())
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

recycle!(Executor { tasks, ready, roster } Self::new());

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
            cancelled: 0,
            ready: Ready::default(),
            held: BTreeMap::new(),
            roster: Roster::default(),
            sites: Sites::default(),
            waker: None,
            polled_waker: ptr::null(),
            polled: TaskKey::FIRST,
            looked_ahead: 0,
            policy: SchedulePolicy::default(),
            priorities: BTreeMap::new(),
            next_demoted: PCT_LOWEST_DRAWN,
            main_priority: PCT_MAIN,
        }
    }

    pub(crate) fn set_policy(&mut self, policy: SchedulePolicy) {
        self.policy = policy;
    }

    /// How many tasks have not ended.
    pub(crate) fn live(&self) -> usize {
        self.tasks.len() - self.cancelled
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
        let site = self.sites.of(name, spawned_at);
        let (key, state) = self.tasks.insert_with(|key| {
            let state = Rc::new(JoinState::new(key));
            let body: Body = Box::pin(Tracked::new(future, Rc::clone(&state)));
            let entry = TaskEntry::new(body, site, process, role);
            (entry, state)
        });
        self.roster.add(&mut self.tasks, process.id, key);
        self.ready.push_back(key);
        state
    }

    /// Reads a task's memory, and says nothing of use.
    pub(super) fn look_at(&self, key: TaskKey) -> usize {
        let Some(entry) = self.tasks.get(key) else {
            return 0;
        };
        let neighbours = self.roster.look(&self.tasks, entry.links);
        let body = entry.body.as_ref();
        body.map_or(0, |body| body.look()) + neighbours
    }

    /// Nobody has the task's handle any more.
    pub(crate) fn detach(&mut self, key: TaskKey) {
        if let Some(entry) = self.tasks.get_mut(key)
            && let Some(body) = &mut entry.body
        {
            body.as_mut().detach();
        }
    }

    /// Draws the next to poll among the ready tasks and, if it is woken, the main future. A task is put into
    /// `picked`. Those that wakers have woken are [collected](Self::collect_woken) before.
    #[inline]
    pub(crate) fn next_turn(
        &mut self,
        main_woken: bool,
        picked: &mut PickedTask,
        scheduler: &mut Stream,
        digest: &mut Digest,
    ) -> Option<Turn> {
        if !self.held.is_empty() {
            self.set_paused_aside();
        }
        loop {
            let Some(key) = self.pick(main_woken, scheduler, digest)? else {
                digest.fold(u64::MAX);
                return Some(Turn::Main);
            };
            if self.take_out(key, picked) {
                digest.fold(key.number());
                return Some(Turn::Task);
            }
        }
    }

    /// Draws whose turn it is: a task's, or the main future's. `None` if nobody is ready.
    #[inline]
    #[expect(
        clippy::option_option,
        reason = "a turn, if there is one, is a task's or not"
    )]
    fn pick(
        &mut self,
        main_woken: bool,
        scheduler: &mut Stream,
        digest: &mut Digest,
    ) -> Option<Option<TaskKey>> {
        let candidates = self.ready.len() + usize::from(main_woken);
        Some(match (candidates, self.policy) {
            (0, _) => return None,
            (_, SchedulePolicy::Pct { depth }) => {
                let pick = self.pick_by_priority(main_woken, depth, scheduler, digest);
                self.ready.swap_remove_back(pick)
            }
            (1, _) | (_, SchedulePolicy::Fifo) => self.ready.pop_front(),
            (_, SchedulePolicy::Random) => {
                if candidates > FAR {
                    self.look_ahead(scheduler);
                }
                let pick = scheduler.below(index_u32(candidates), digest) as usize;
                self.ready.swap_remove_back(pick)
            }
        })
    }

    /// Where very many are ready, reads those that the next draws will probably be of: so their memory comes
    /// together, where each would be waited for in its turn. This decides nothing.
    fn look_ahead(&mut self, scheduler: &Stream) {
        if self.looked_ahead > 0 {
            self.looked_ahead -= 1;
            return;
        }
        self.looked_ahead = LOOK_AHEAD - 1;
        let ready = self.ready.len();
        let drawn = scheduler.peek::<LOOK_AHEAD>();
        let mut keys = [TaskKey::FIRST; LOOK_AHEAD];
        for (index, (key, drawn)) in keys.iter_mut().zip(drawn).enumerate() {
            let place = (u64::from(drawn) * (ready - index) as u64) >> 32;
            let place = usize::try_from(place).unwrap_or(0);
            *key = self.ready.get(place).unwrap_or(*key);
        }
        let entries = keys.iter().filter_map(|key| self.tasks.get(*key));
        let seen = entries.filter(|entry| entry.body.is_some()).count();
        let looks = keys.iter().map(|key| self.look_at(*key));
        std::hint::black_box(looks.fold(seen, |seen, look| seen ^ look));
    }

    #[cfg(test)]
    pub(super) fn has_waker(&self) -> bool {
        self.waker.is_some()
    }

    /// Takes a ready task out to be polled. False if it has gone.
    #[inline]
    fn take_out(&mut self, key: TaskKey, picked: &mut PickedTask) -> bool {
        let Some(entry) = self.tasks.get_mut(key) else {
            return false;
        };
        let Some(body) = entry.body.take() else {
            return false;
        };
        entry.is_ready = false;
        entry.forget_waits();
        if let Some(own) = entry.take_waker() {
            self.waker = picked.waker.replace(own).or(self.waker.take());
        }
        let spare = &mut self.waker;
        let waker = picked
            .waker
            .get_or_insert_with(|| spare.take().unwrap_or_else(|| OwnWaker::new(self.world)));
        waker.aim_at(key);
        picked.is_out = true;
        picked.meta = TaskMeta {
            key,
            process: entry.process,
            role: entry.role,
        };
        picked.body = Some(body);
        picked.is_cancelled = entry.is_cancelled;
        if !entry.is_cancelled {
            self.polled = key;
            self.polled_waker = waker.waker().data();
        }
        true
    }

    /// Nobody picks any more: the waker serves the next who do.
    pub(super) fn give_back(&mut self, waker: OwnWaker) {
        self.waker.get_or_insert(waker);
    }

    /// The place of the ready task with the highest priority; beyond the last for the main future.
    #[cold]
    fn pick_by_priority(
        &mut self,
        main_woken: bool,
        depth: u32,
        scheduler: &mut Stream,
        digest: &mut Digest,
    ) -> usize {
        for key in self.ready.iter() {
            let priority = self.priorities.entry(key.number());
            priority.or_insert_with(|| {
                let drawn = scheduler.draws(digest).next_u32();
                PCT_LOWEST_DRAWN + 1 + u64::from(drawn)
            });
        }
        let mut pick = self.highest(main_woken);
        if scheduler.below(PCT_WINDOW, digest) < depth.saturating_sub(1) {
            self.next_demoted = self.next_demoted.saturating_sub(1).max(1);
            match self.ready.get(pick) {
                Some(key) => {
                    self.priorities.insert(key.number(), self.next_demoted);
                }
                None => self.main_priority = self.next_demoted,
            }
            pick = self.highest(main_woken);
        }
        pick
    }

    fn highest(&self, main_woken: bool) -> usize {
        let tasks = self.ready.iter().enumerate().map(|(place, key)| {
            let runs = self.tasks.get(key).filter(|entry| !entry.is_cancelled);
            let priority = runs.and_then(|_| self.priorities.get(&key.number()));
            // A cancelled task goes first: only its destructors are left to run.
            (priority.copied().unwrap_or(u64::MAX), place)
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
        let held = self.held.remove(&process).into_iter().flatten();
        held.for_each(|key| self.ready.push_back(key));
    }

    #[cold]
    fn set_paused_aside(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            let process = self.tasks.get(key).map(|entry| entry.process.id);
            match process.and_then(|process| self.held.get_mut(&process)) {
                Some(held) => held.push(key),
                None => self.ready.push_back(key),
            }
        }
    }

    /// The task that is polled right now, if `waker` is its own and it is one of this world.
    #[inline]
    pub(super) fn polled_task(&self, waker: &Waker) -> Option<TaskKey> {
        let own = self.polled_waker;
        // Between polls it is null, as that of a waker that does nothing.
        (own == waker.data() && !own.is_null()).then_some(self.polled)
    }

    /// Notes what the polled task waits for.
    #[inline]
    pub(super) fn note(&mut self, polled: TaskKey, note: impl FnOnce(&mut TaskEntry)) {
        if let Some(entry) = self.tasks.get_mut(polled) {
            note(entry);
        }
    }

    /// Makes a task ready, if it has not ended. This runs nobody's code.
    #[inline]
    pub(super) fn wake(&mut self, key: TaskKey) {
        // Those that wakers have woken came before.
        self.collect_woken();
        self.make_ready(key);
    }

    /// As [`wake`](Self::wake), where all that wakers have woken are collected.
    #[inline]
    pub(super) fn make_ready(&mut self, key: TaskKey) {
        if let Some(entry) = self.tasks.get_mut(key)
            && !std::mem::replace(&mut entry.is_ready, true)
        {
            self.ready.push_back(key);
        }
    }

    #[inline]
    pub(super) fn collect_woken(&mut self) {
        if wakes::has_woken() {
            self.collect_some();
        }
    }

    fn collect_some(&mut self) {
        while wakes::has_woken()
            && let Some(key) = wakes::next_woken(self.world)
        {
            self.make_ready(key);
        }
    }

    /// Takes note of a finished poll.
    #[inline]
    pub(crate) fn after_poll(&mut self, picked: &mut PickedTask, now: SimInstant) -> AfterPoll {
        self.polled_waker = ptr::null();
        if let Some(entry) = self.tasks.get_mut(picked.meta.key)
            && picked.body.is_some()
        {
            if let Some(kept) = picked.waker.take_if(|waker| waker.is_kept()) {
                entry.keep_waker(kept);
            }
            if entry.is_cancelled {
                return AfterPoll::Cancelled;
            }
            entry.body = picked.body.take();
            if wait::has_any() {
                wait::take_each(|reason| entry.note(reason));
            }
            return AfterPoll::Polls(entry.polls.count(now));
        }
        self.after_last_poll(picked)
    }

    /// The task has ended, or is gone.
    #[inline(never)]
    fn after_last_poll(&mut self, picked: &mut PickedTask) -> AfterPoll {
        wait::take_each(drop);
        if let Some(kept) = picked.waker.take_if(|waker| waker.is_kept()) {
            kept.end();
        }
        if picked.body.is_some() {
            return AfterPoll::Cancelled;
        }
        // Its future is gone: no user code is run here.
        self.forget(picked.meta.key);
        AfterPoll::Ended
    }

    /// Takes note of a poll that ended with a panic: the future is gone.
    pub(crate) fn after_panic(&mut self, picked: &mut PickedTask) {
        self.polled_waker = ptr::null();
        picked.is_out = false;
        picked.body = None;
        self.after_last_poll(picked);
    }

    /// Cancels a task: its future is dropped when its turn comes, or at the end of its current poll.
    pub(crate) fn cancel(&mut self, key: TaskKey) {
        let Some(entry) = self.tasks.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut entry.is_cancelled, true) {
            return;
        }
        self.cancelled += 1;
        if entry.body.is_some() {
            self.collect_woken();
            self.make_ready(key);
        }
    }

    /// A task has ended, or a cancelled one's future has been dropped.
    pub(crate) fn forget(&mut self, key: TaskKey) {
        let process = match self.tasks.get(key) {
            Some(entry) => entry.process.id,
            None => return,
        };
        self.roster.remove(&mut self.tasks, process, key);
        if let Some(mut entry) = self.tasks.remove(key) {
            self.cancelled -= usize::from(entry.is_cancelled);
            if let Some(own) = entry.take_waker() {
                own.end();
            }
        }
        if !self.priorities.is_empty() {
            self.priorities.remove(&key.number());
        }
    }

    /// Takes out all tasks of `process`, also if it is paused. Each is to be [forgotten](Self::forget) when it
    /// is dropped. One that is polled right now goes at the end of that.
    pub(crate) fn cancel_process(&mut self, process: ProcessId) -> Vec<CancelledTask> {
        self.release(process);
        let mut taken = Vec::new();
        let mut next = self.roster.first(&self.tasks, process);
        while let Some(key) = next {
            next = self.roster.after(&self.tasks, key);
            let Some(entry) = self.tasks.get_mut(key) else {
                continue;
            };
            self.cancelled += usize::from(!std::mem::replace(&mut entry.is_cancelled, true));
            if let Some(body) = entry.body.take() {
                let meta = TaskMeta {
                    key,
                    process: entry.process,
                    role: entry.role,
                };
                taken.push(CancelledTask { meta, body });
            }
        }
        taken
    }

    /// Takes out all tasks, process by process.
    pub(crate) fn cancel_all(&mut self) -> Vec<CancelledTask> {
        let processes = self.roster.processes();
        processes
            .flat_map(|process| self.cancel_process(process))
            .collect()
    }

    pub(crate) fn name(&self, key: TaskKey) -> Cow<'static, str> {
        match self.tasks.get(key) {
            Some(entry) => entry.site.name.clone(),
            None => Cow::Borrowed("a task that has ended"),
        }
    }

    pub(crate) fn pending(&self, process_name: impl Fn(ProcessId) -> String) -> Vec<PendingTask> {
        self.tasks
            .iter()
            .filter(|(_, entry)| !entry.is_cancelled)
            .map(|(_, entry)| PendingTask {
                name: entry.site.name.clone().into_owned(),
                process: entry.process.id,
                process_name: process_name(entry.process.id),
                spawned_at: entry.site.spawned_at,
                paused: self.held.contains_key(&entry.process.id),
                waits_on: entry.waits().collect(),
            })
            .collect()
    }

    /// Takes note of wakes from other threads: the first of our tasks that was woken so.
    pub(super) fn take_woken_abroad(&mut self) -> Option<TaskKey> {
        let woken = wakes::take_woken_abroad(self.world);
        for key in &woken {
            self.make_ready(*key);
        }
        woken.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::task::{Poll, Waker};
    use std::time::Duration;

    use crate::Providers;
    use crate::sim::slab::LOOKS;
    use crate::sim::{KillKind, SimWorld};
    use crate::task::{JoinHandle, TaskProvider};
    use crate::time::TimeProvider;

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

    /// Whoever drops first wakes one that is still to be dropped: that must not stay with the thread.
    #[test]
    fn the_end_of_a_world_leaves_no_wakes_behind() {
        let world = SimWorld::new();
        let task = world.task_provider();
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        task.spawn_task("holds", async move {
            std::future::pending::<()>().await;
            drop(sender);
        });
        task.spawn_task("waits", async move { drop(receiver.await) });
        world.run_until_empty().unwrap();
        drop(world);
        assert!(!crate::sim::wakes::has_woken());
    }

    #[test]
    fn the_end_of_a_process_looks_at_its_own_tasks_only() {
        let world = SimWorld::new();
        let [few, many] = ["few", "many"].map(|name| world.add_process(name));
        for (process, tasks) in [(&many, 1000), (&few, 3)] {
            for _ in 0..tasks {
                let task = process.providers();
                drop(
                    task.task()
                        .spawn_task("waits", std::future::pending::<()>()),
                );
            }
        }
        world.run_until_empty().unwrap();
        LOOKS.set(0);
        world.kill(few.id(), KillKind::Crash);
        assert_eq!((LOOKS.get(), world.leftovers().tasks), (3, 1000));
    }

    #[test]
    fn the_end_of_a_process_finds_its_tasks_behind_one_that_has_ended() {
        let world = SimWorld::new();
        let process = world.add_process("host");
        let dropped = Rc::new(RefCell::new(Vec::new()));
        for number in 0..3 {
            let tell = Tell(number, Rc::clone(&dropped));
            drop(process.providers().task().spawn_task("one", async move {
                if number != 1 {
                    std::future::pending::<()>().await;
                }
                drop(tell);
            }));
        }
        world.run_until_empty().unwrap();
        world.kill(process.id(), KillKind::Crash);
        assert_eq!(*dropped.borrow(), [1, 0, 2]);
    }

    #[test]
    fn a_wake_from_another_thread_after_the_end_of_a_task_is_no_escape() {
        enum End {
            Returns,
            IsAborted,
            IsKilled,
        }
        let world = SimWorld::new();
        let pass = || world.run_for(Duration::from_secs(1)).unwrap();
        for end in [End::Returns, End::IsAborted, End::IsKilled] {
            let process = world.add_process("host");
            let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
            let keeper = Rc::clone(&kept);
            let returns = matches!(end, End::Returns);
            let keeps = std::future::poll_fn(move |cx| {
                keeper.replace(Some(cx.waker().clone()));
                if returns {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            });
            let task = process.providers().task().spawn_task("keeps", keeps);
            pass();
            match end {
                End::Returns => {}
                End::IsAborted => task.abort(),
                End::IsKilled => assert!(world.kill(process.id(), KillKind::Crash)),
            }
            pass();
            let waker = kept.take().unwrap();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            let time = world.time_provider();
            let next = async move { time.sleep(Duration::from_secs(1)).await };
            world.block_on(next).unwrap();
        }
    }

    #[test]
    fn what_a_million_sleeps_have_is_small() {
        assert_eq!(size_of::<crate::sim::SleepFuture>(), 32);
        assert_eq!(size_of::<Option<crate::sim::event::Queued>>(), 16);
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
            assert_eq!(world.executor.tasks.len(), 0);
        });
    }
}
