//! How a wake finds its way: onto a list of this thread, or, from another thread, into a verdict.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use super::context::thread_tag;
use super::executor::TaskKey;
use super::process::{ProcessId, ProcessRef};

/// Which task is meant: what there is to know of it while it is out of the executor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskMeta {
    pub(crate) key: TaskKey,
    pub(crate) process: ProcessRef,
    /// It only carries bytes: that it runs is no sign that the run gets anywhere.
    pub(crate) role: TaskRole,
}

impl Default for TaskMeta {
    /// Of no task.
    fn default() -> Self {
        Self {
            key: TaskKey::FIRST,
            process: ProcessRef {
                id: ProcessId::WORLD,
                incarnation: 0,
            },
            role: TaskRole::Ordinary,
        }
    }
}

/// What a task is for, as far as deadlock detection wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskRole {
    /// Everything that users start.
    Ordinary,
    /// It drives a transport's connections, and does so for ever.
    Driver,
}

/// Whom the world wakes when what was waited for comes.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A task of the same world, by its key: nothing to clone, to keep alive and to drop, and no
    /// reason to wait for the end of a borrow, for waking a task only makes it ready.
    Task(TaskKey),
    /// Whoever this wakes: a combinator with wakers of its own, the main future.
    Other(Waker),
}

thread_local! {
    /// The first task that wakers have woken, with its world.
    static FIRST_WOKEN: Cell<Option<(u32, TaskKey)>> = const { Cell::new(None) };
    /// The others, in their order.
    static WOKEN: RefCell<VecDeque<(u32, TaskKey)>> = const { RefCell::new(VecDeque::new()) };
    /// Whether there is any of either.
    static ANY_WOKEN: Cell<bool> = const { Cell::new(false) };
}

/// Whether wakers have woken any task of this thread.
#[inline]
pub(super) fn has_woken() -> bool {
    ANY_WOKEN.get()
}

/// Takes the first task of `world` that wakers have woken; those of this thread's other worlds stay.
pub(super) fn next_woken(world: u32) -> Option<TaskKey> {
    let first = FIRST_WOKEN.get();
    let key = match first {
        Some((of, key)) if of == world => {
            FIRST_WOKEN.set(None);
            Some(key)
        }
        _ => take_woken(world),
    };
    let is_left = FIRST_WOKEN.get().is_some() || WOKEN.with_borrow(|woken| !woken.is_empty());
    ANY_WOKEN.set(is_left);
    key
}

fn take_woken(world: u32) -> Option<TaskKey> {
    WOKEN.with_borrow_mut(|woken| {
        let place = woken.iter().position(|(of, _)| *of == world)?;
        woken.remove(place).map(|(_, key)| key)
    })
}

#[inline]
fn add_woken(world: u32, key: TaskKey) {
    if ANY_WOKEN.replace(true) {
        WOKEN.with_borrow_mut(|woken| woken.push_back((world, key)));
    } else {
        FIRST_WOKEN.set(Some((world, key)));
    }
}

/// Tasks that other threads woke, until their own thread asks.
static ABROAD: Mutex<Vec<Home>> = Mutex::new(Vec::new());
/// How many there are: asked after every poll, and nearly always 0.
static ABROAD_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Where a task belongs.
#[derive(Clone, Copy, Debug)]
struct Home {
    world: u32,
    thread: u32,
    task: u64,
}

/// The waker that a task's futures see: it tells on other threads, also while the task runs.
struct TaskWaker {
    world: u32,
    thread: u32,
    /// The number of the task's key: of one after the other, while nobody keeps a copy.
    task: AtomicU64,
    /// It has woken the task since that was polled.
    has_woken: AtomicBool,
    /// A thread that wakes a task after its end does no harm, and must not be held against the next
    /// world of this thread.
    ended: AtomicBool,
}

impl TaskWaker {
    fn wake_from_abroad(&self) {
        let home = Home {
            world: self.world,
            thread: self.thread,
            task: self.task.load(Ordering::Acquire),
        };
        let mut abroad = ABROAD.lock().unwrap_or_else(PoisonError::into_inner);
        abroad.push(home);
        ABROAD_COUNT.fetch_add(1, Ordering::Release);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        if self.thread != thread_tag() {
            self.wake_from_abroad();
            return;
        }
        // Only this thread sets it, so this needs no exchange.
        if self.has_woken.load(Ordering::Relaxed) {
            return;
        }
        if let Some(key) = TaskKey::of_number(self.task.load(Ordering::Relaxed)) {
            self.has_woken.store(true, Ordering::Relaxed);
            add_woken(self.world, key);
        }
    }
}

/// A waker that its task, or the executor, owns.
pub(super) struct OwnWaker {
    shared: Arc<TaskWaker>,
    /// Of the same.
    waker: Waker,
}

impl OwnWaker {
    /// One of this thread.
    pub(super) fn new(world: u32) -> Self {
        let shared = Arc::new(TaskWaker {
            world,
            thread: thread_tag(),
            task: AtomicU64::new(0),
            has_woken: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&shared));
        Self { shared, waker }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// A task is about to be polled with it: its own, or any if nobody keeps a copy.
    #[inline]
    pub(super) fn aim_at(&self, key: TaskKey) {
        self.shared.task.store(key.number(), Ordering::Release);
        self.shared.has_woken.store(false, Ordering::Relaxed);
    }

    /// Whether anybody else has a copy, so that it is this task's for good.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        Arc::strong_count(&self.shared) > 2
    }

    /// Its task has ended.
    pub(super) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

/// Whether other threads did anything to tasks of any.
pub(super) fn is_any_abroad() -> bool {
    ABROAD_COUNT.load(Ordering::Acquire) > 0
}

/// Takes note of what other threads did to the tasks of `world`: those that were woken.
pub(super) fn take_woken_abroad(world: u32) -> Vec<TaskKey> {
    let here = thread_tag();
    let mut abroad = ABROAD.lock().unwrap_or_else(PoisonError::into_inner);
    let woken: Vec<Home> = abroad
        .extract_if(.., |home| home.thread == here && home.world == world)
        .collect();
    ABROAD_COUNT.fetch_sub(woken.len(), Ordering::Release);
    let keys = woken.into_iter();
    keys.filter_map(|home| TaskKey::of_number(home.task))
        .collect()
}
