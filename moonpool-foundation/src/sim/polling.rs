//! Polling one task, outside any borrow of the world.

use std::cell::{Cell, RefCell};
use std::task::Context;

use super::join::Body;
use super::wakes::{OwnWaker, TaskMeta};

/// The place of the task whose turn it is, out of the executor. One serves all turns of a drive.
#[derive(Default)]
pub(crate) struct PickedTask {
    /// There is one, and the executor is still to take note of its poll.
    pub(crate) is_out: bool,
    pub(crate) meta: TaskMeta,
    /// `None` when it has ended.
    pub(super) body: Option<Body>,
    /// What it is polled with. It stays for the next one, unless somebody keeps a copy.
    pub(super) waker: Option<OwnWaker>,
    pub(super) is_cancelled: bool,
}

/// A cancelled task, to be [dropped](discard) with no borrow of the world.
pub(crate) struct CancelledTask {
    pub(super) meta: TaskMeta,
    pub(super) body: Body,
}

/// What a poll left of its task.
#[derive(Clone, Copy)]
pub(crate) enum AfterPoll {
    /// It waits, and was polled so often at this instant.
    Polls(u64),
    Ended,
    /// It was cancelled in that very poll, which left its future in its place.
    Cancelled,
}

thread_local! {
    /// Set by a task that panicked, read by the executor right after its poll.
    static TASK_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether that is set.
    static TASK_PANICKED: Cell<bool> = const { Cell::new(false) };
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

/// Polls a task once; of a cancelled one, drops the future. Gives the message of a panic in a destructor;
/// one of the future itself goes on to the caller. Must be called with no borrow of the world.
#[inline]
pub(super) fn run(task: &mut PickedTask) -> Option<String> {
    if let (Some(body), Some(own), false) = (&mut task.body, &task.waker, task.is_cancelled) {
        let mut cx = Context::from_waker(own.waker());
        if body.as_mut().poll(&mut cx).is_pending() {
            return None;
        }
    }
    discard_body(task.body.take())
}

/// The task panicked with this message in its poll. Gives that, or of a cancelled task's destructors.
#[cold]
pub(super) fn panicked(task: &mut PickedTask, message: String) -> String {
    if let Some(body) = &mut task.body {
        body.as_mut().panicked(&message);
    }
    discard_body(task.body.take()).unwrap_or(message)
}

/// Drops a cancelled task's future. Gives the message if a destructor panics. Must be called with no
/// borrow of the world.
pub(crate) fn discard(task: CancelledTask) -> Option<String> {
    discard_body(Some(task.body))
}

fn discard_body(body: Option<Body>) -> Option<String> {
    drop(body);
    take_panic()
}
