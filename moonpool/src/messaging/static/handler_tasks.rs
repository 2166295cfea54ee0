//! The tasks of a transport that handle requests for a [`Serving`](super::Serving): how many there
//! are, who waits until there is none, and their end with the transport.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use moonpool_foundation::JoinHandle;

use super::slot_table::{SlotKey, SlotTable};

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct HandlerTasks {
    /// Of each its handle, once it is known.
    tasks: RefCell<SlotTable<Option<JoinHandle<()>>>>,
    running: Cell<usize>,
    /// Streams that are received from.
    streams: Cell<usize>,
    is_closed: Cell<bool>,
    /// Of those who wait until nothing is left.
    wakers: RefCell<Vec<Waker>>,
}

impl HandlerTasks {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            tasks: RefCell::new(SlotTable::new()),
            running: Cell::new(0),
            streams: Cell::new(0),
            is_closed: Cell::new(false),
            wakers: RefCell::default(),
        })
    }

    /// Number of tasks.
    pub(crate) fn running(&self) -> usize {
        self.running.get()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Ready once every stream has ended, and every handler.
    pub(crate) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_until(self.running.get() == 0 && self.streams.get() == 0, cx)
    }

    /// Ready once no handler is left.
    pub(crate) fn poll_stopped(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_until(self.running.get() == 0, cx)
    }

    fn poll_until(&self, is_done: bool, cx: &Context<'_>) -> Poll<()> {
        if is_done {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|noted| noted.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends every handler where it stands. None begins after this.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        let handles = self.tasks.borrow_mut().drain();
        for handle in handles.into_iter().flatten() {
            handle.abort();
        }
    }

    /// Counts a stream until the guard is dropped.
    pub(crate) fn begin_stream(self: &Rc<Self>) -> StreamGuard {
        self.streams.set(self.streams.get() + 1);
        StreamGuard(self.clone())
    }

    /// Counts a task until the guard, which its future owns, is dropped. `None`: no more can be.
    pub(crate) fn begin_task(self: &Rc<Self>) -> Option<TaskGuard> {
        if self.is_closed.get() {
            return None;
        }
        let key = self.tasks.borrow_mut().insert(None).ok()?;
        self.running.set(self.running.get() + 1);
        Some(TaskGuard {
            tasks: self.clone(),
            key,
        })
    }

    /// The task that owns the guard with this key has begun, and may have ended.
    pub(crate) fn set_handle(&self, key: SlotKey, handle: JoinHandle<()>) {
        let mut tasks = self.tasks.borrow_mut();
        if let Some(slot) = tasks.get_mut(key) {
            *slot = Some(handle);
        }
    }

    fn wake_waiting(&self) {
        let wakers = std::mem::take(&mut *self.wakers.borrow_mut());
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// See [`HandlerTasks::begin_stream`].
#[derive(Debug)]
pub(crate) struct StreamGuard(Rc<HandlerTasks>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.wake_waiting();
    }
}

/// See [`HandlerTasks::begin_task`].
#[derive(Debug)]
pub(crate) struct TaskGuard {
    tasks: Rc<HandlerTasks>,
    key: SlotKey,
}

impl TaskGuard {
    pub(crate) fn key(&self) -> SlotKey {
        self.key
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let handle = self.tasks.tasks.borrow_mut().remove(self.key);
        drop(handle);
        self.tasks.running.set(self.tasks.running.get() - 1);
        self.tasks.wake_waiting();
    }
}
