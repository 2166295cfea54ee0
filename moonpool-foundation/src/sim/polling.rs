//! Polling one task, outside any borrow of the world.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use super::join::Body;
use super::wakes::{self, OwnWaker, TaskMeta};
use crate::task::panic_message;
use crate::wait;

/// A task whose turn it is, out of the executor.
pub(crate) struct PickedTask {
    pub(crate) meta: TaskMeta,
    /// `None` when it has ended.
    pub(super) body: Option<Body>,
    /// `None` when it is back in the executor.
    pub(super) waker: Option<Box<OwnWaker>>,
    pub(super) is_cancelled: bool,
}

/// A cancelled task, to be [dropped](discard) with no borrow of the world.
pub(crate) struct CancelledTask {
    pub(super) meta: TaskMeta,
    pub(super) body: Body,
}

/// What a poll left of its task.
pub(crate) enum AfterPoll {
    /// It waits, and was polled so often at this instant.
    Polls(u64),
    Ended,
    /// It was cancelled in that very poll.
    Cancelled(CancelledTask),
}

/// How a poll of a task went.
pub(crate) enum Polled {
    Fine,
    /// A panic in the task or in a destructor, with its message.
    Panicked(String),
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

/// Polls a task once, with whatever it waits on noted; of a cancelled one, drops the future. Must be called with
/// no borrow of the world.
pub(crate) fn run(task: &mut PickedTask) -> Polled {
    wait::reset();
    if task.is_cancelled {
        return discard_body(task.body.take());
    }
    let Some(own) = &task.waker else {
        return Polled::Fine;
    };
    let waker = own.waker();
    let mut cx = Context::from_waker(waker);
    wakes::begin_poll(waker, &task.meta);
    let Some(body) = &mut task.body else {
        return Polled::Fine;
    };
    let polled = catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(&mut cx)));
    wakes::end_poll();
    let message = match polled {
        Ok(Poll::Pending) => return Polled::Fine,
        Ok(Poll::Ready(())) => None,
        Err(payload) => {
            let message = panic_message(&*payload);
            body.as_mut().panicked(&message);
            Some(message)
        }
    };
    match (discard_body(task.body.take()), message) {
        (Polled::Fine, Some(message)) => Polled::Panicked(message),
        (polled, _) => polled,
    }
}

/// Drops a cancelled task's future. Must be called with no borrow of the world.
pub(crate) fn discard(task: CancelledTask) -> Polled {
    discard_body(Some(task.body))
}

fn discard_body(body: Option<Body>) -> Polled {
    drop(body);
    match take_panic() {
        Some(message) => Polled::Panicked(message),
        None => Polled::Fine,
    }
}
