//! How a wake finds its way: onto a list of this thread, or, from another thread, into a verdict.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use async_task::Runnable;

use super::connections::Asked;
use super::context::{self, thread_tag};
use super::executor::TaskKey;
use super::process::ProcessRef;

/// What a task cell carries: enough to schedule it without looking anything up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskMeta {
    pub(super) world: u32,
    pub(super) thread: u32,
    pub(crate) key: TaskKey,
    pub(crate) process: ProcessRef,
    /// It only carries bytes: that it runs is no sign that the run gets anywhere.
    pub(crate) role: TaskRole,
}

impl TaskMeta {
    pub(super) fn home(&self) -> Home {
        Home {
            world: self.world,
            thread: self.thread,
            key: self.key,
        }
    }
}

/// Where a task belongs: what the waker of its futures has to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    world: u32,
    thread: u32,
    key: TaskKey,
}

/// What a task is for, as far as deadlock detection wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskRole {
    /// Everything that users start.
    Ordinary,
    /// It drives a transport's connections, and does so for ever.
    Driver,
}

pub(crate) type ReadyTask = Runnable<TaskMeta>;

/// Whom the world wakes when what was waited for comes.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A task of the same world, by its key: nothing to clone, to keep alive and to drop, and no
    /// reason to wait for the end of a borrow, for waking a task only makes it ready.
    Task(TaskKey),
    /// Whoever this wakes: a combinator with wakers of its own, the main future.
    Other(Waker),
}

impl Waiter {
    /// Whether whoever asks with `waker`, as the task `polled` if it is that one's own, is woken. A
    /// task takes another's place at once.
    pub(super) fn asked_by<T>(&mut self, polled: Option<TaskKey>, waker: &Waker) -> Asked<T> {
        match (&*self, polled) {
            (Self::Task(kept), Some(polled)) if *kept == polled => Asked::Parked,
            (Self::Task(_), Some(polled)) => {
                *self = Self::Task(polled);
                Asked::Parked
            }
            (Self::Other(kept), _) if kept.will_wake(waker) => Asked::Parked,
            // A waker is neither cloned nor dropped while the world is borrowed.
            (Self::Task(_), None) | (Self::Other(_), _) => Asked::Park,
        }
    }

    /// Keeps whoever asks in `place`, if that can be done at once.
    pub(super) fn park<T>(
        place: &mut Option<Self>,
        polled: Option<TaskKey>,
        waker: &Waker,
    ) -> Asked<T> {
        match (place, polled) {
            (Some(kept), _) => kept.asked_by(polled, waker),
            (place, Some(polled)) => {
                context::check_not_blocking();
                *place = Some(Self::Task(polled));
                Asked::Parked
            }
            (None, None) => Asked::Park,
        }
    }
}

thread_local! {
    static WOKEN: RefCell<Vec<ReadyTask>> = const { RefCell::new(Vec::new()) };
    /// Whether there is anything in it.
    static ANY_WOKEN: Cell<bool> = const { Cell::new(false) };
    /// The data of the waker that the polled task sees; null between polls.
    static POLLED_WAKER: Cell<*const ()> = const { Cell::new(ptr::null()) };
    /// That task's world and key; of the last one, between polls.
    static POLLED_TASK: Cell<(u32, TaskKey)> = const { Cell::new((0, TaskKey::FIRST)) };
}

/// A task's future is polled with `waker` from now on.
#[inline]
pub(super) fn begin_poll(waker: &Waker, home: &Home) {
    POLLED_WAKER.set(waker.data());
    POLLED_TASK.set((home.world, home.key));
}

#[inline]
pub(super) fn end_poll() {
    POLLED_WAKER.set(ptr::null());
}

/// The task of `world` that is polled right now, if `waker` is its own.
#[inline]
pub(super) fn polled_task(world: u32, waker: &Waker) -> Option<TaskKey> {
    let (polled_in, key) = POLLED_TASK.get();
    (POLLED_WAKER.get() == waker.data() && polled_in == world).then_some(key)
}

/// Moves the woken tasks of `world` to `ready`; those of this thread's other worlds stay.
#[inline]
pub(super) fn collect_woken(world: u32, ready: &mut VecDeque<ReadyTask>) {
    if ANY_WOKEN.get() {
        collect_some(world, ready);
    }
}

fn collect_some(world: u32, ready: &mut VecDeque<ReadyTask>) {
    WOKEN.with_borrow_mut(|woken| {
        // Mostly it is one, or none.
        while let [one] = woken.as_slice()
            && one.metadata().world == world
            && let Some(one) = woken.pop()
        {
            ready.push_back(one);
        }
        if woken.is_empty() {
            ANY_WOKEN.set(false);
            return;
        }
        if woken.iter().all(|task| task.metadata().world == world) {
            ready.extend(woken.drain(..));
        } else {
            ready.extend(woken.extract_if(.., |task| task.metadata().world == world));
        }
        ANY_WOKEN.set(!woken.is_empty());
    });
}

/// What other threads did to tasks, until their own thread asks.
static ABROAD: Mutex<Abroad> = Mutex::new(Abroad {
    woken: Vec::new(),
    cells: Vec::new(),
});
/// How many entries there are: asked after every poll, and nearly always 0.
static ABROAD_COUNT: AtomicUsize = AtomicUsize::new(0);

struct Abroad {
    /// Who was woken.
    woken: Vec<Home>,
    /// Those that became ready by it: a task cell may only be run or dropped where it was made.
    cells: Vec<ReadyTask>,
}

fn note_abroad(note: impl FnOnce(&mut Abroad)) {
    note(&mut ABROAD.lock().unwrap_or_else(PoisonError::into_inner));
    ABROAD_COUNT.fetch_add(1, Ordering::Release);
}

pub(super) fn schedule(task: ReadyTask) {
    if task.metadata().thread == thread_tag() {
        WOKEN.with_borrow_mut(|woken| woken.push(task));
        ANY_WOKEN.set(true);
    } else {
        note_abroad(|abroad| abroad.cells.push(task));
    }
}

/// The waker that a task's futures see: it tells on other threads, also while the task runs.
pub(super) struct HomeWaker {
    cell: Waker,
    home: Home,
    /// A thread that wakes a task after its end does no harm, and must not be held against the next
    /// world of this thread.
    ended: AtomicBool,
}

impl HomeWaker {
    pub(super) fn new(cell: Waker, home: Home) -> Self {
        Self {
            cell,
            home,
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn check(&self) {
        if self.home.thread != thread_tag() && !self.ended.load(Ordering::Acquire) {
            note_abroad(|abroad| abroad.woken.push(self.home));
        }
    }
}

impl Wake for HomeWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.check();
        self.cell.wake_by_ref();
    }
}

/// Whether other threads did anything to tasks of any.
pub(super) fn is_any_abroad() -> bool {
    ABROAD_COUNT.load(Ordering::Acquire) > 0
}

/// Takes note of what other threads did to the tasks of `world`: the first that was woken. Those of
/// this thread that became ready by it are ready here now.
pub(super) fn take_woken_abroad(world: u32) -> Option<TaskKey> {
    let here = thread_tag();
    let mut abroad = ABROAD.lock().unwrap_or_else(PoisonError::into_inner);
    let cells = abroad
        .cells
        .extract_if(.., |cell| cell.metadata().thread == here);
    let cells: Vec<ReadyTask> = cells.collect();
    let woken = abroad
        .woken
        .extract_if(.., |home| home.thread == here && home.world == world);
    let woken: Vec<Home> = woken.collect();
    ABROAD_COUNT.fetch_sub(cells.len() + woken.len(), Ordering::Release);
    drop(abroad);
    let first = woken.first().map(|home| home.key);
    cells.into_iter().for_each(schedule);
    first
}
