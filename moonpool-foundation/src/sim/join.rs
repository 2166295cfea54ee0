//! What a task and its handle share: the output, or why there is none.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::executor::TaskKey;
use super::polling;
use crate::task::{JoinError, panic_message};
use crate::wait::{self, WaitReason};

/// What a join handle and its task share.
pub(crate) struct JoinState<T> {
    pub(crate) key: TaskKey,
    progress: Cell<Progress<T>>,
}

/// Where the task is, and whom that concerns. Worlds of a million tasks have as many of these.
enum Progress<T> {
    /// It has not ended; the waker is of whoever waits for that.
    Running(Option<Waker>),
    /// It has; the result is there until it is asked for.
    Ended(Option<Result<T, JoinError>>),
}

impl<T> JoinState<T> {
    pub(super) fn new(key: TaskKey) -> Self {
        Self {
            key,
            progress: Cell::new(Progress::Running(None)),
        }
    }

    /// Takes the progress out, to be put back by whoever takes it.
    fn take(&self) -> Progress<T> {
        self.progress.replace(Progress::Ended(None))
    }

    pub(crate) fn is_finished(&self) -> bool {
        let progress = self.take();
        let is_finished = matches!(progress, Progress::Ended(_));
        self.progress.set(progress);
        is_finished
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        // Cloned and dropped while nothing is taken: both may run somebody's code.
        let waker = cx.waker().clone();
        let replaced = match self.take() {
            Progress::Ended(Some(result)) => return Poll::Ready(result),
            Progress::Ended(None) => None,
            Progress::Running(replaced) => {
                self.progress.set(Progress::Running(Some(waker)));
                replaced
            }
        };
        drop(replaced);
        wait::note(WaitReason::Join {
            task: self.key.number(),
        });
        Poll::Pending
    }

    fn complete(&self, result: Result<T, JoinError>) {
        match self.take() {
            ended @ Progress::Ended(_) => self.progress.set(ended),
            Progress::Running(waker) => {
                self.progress.set(Progress::Ended(Some(result)));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

/// The task's side of a [`JoinState`]: a task that is dropped before its end was cancelled. Empty if
/// there is nobody to tell.
struct JoinPromise<T>(Option<Rc<JoinState<T>>>);

impl<T> JoinPromise<T> {
    /// The state, if anybody has the handle.
    fn awaited(&self) -> Option<&Rc<JoinState<T>>> {
        self.0.as_ref().filter(|state| Rc::strong_count(state) > 1)
    }
}

impl<T> Drop for JoinPromise<T> {
    fn drop(&mut self) {
        if let Some(state) = &self.0 {
            state.complete(Err(JoinError::Cancelled));
        }
    }
}

/// A task's future, as the executor keeps it.
pub(super) type Body = Pin<Box<dyn TaskBody>>;

/// What the executor does to a task's future. It is dropped without a panic, whatever is in it: what a
/// destructor panics with is [noted](polling::note_panic).
pub(super) trait TaskBody {
    /// Polls it. At its end the destructors have run, and the handle has the output.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// It panicked in its poll.
    fn panicked(self: Pin<&mut Self>, message: &str);

    /// Reads its memory, and says nothing of use.
    fn look(&self) -> usize;

    /// Nobody will ask for the output.
    fn detach(self: Pin<&mut Self>);
}

pin_project! {
    /// A task's future, with its end told to the join handle.
    pub(super) struct Tracked<F: Future> {
        // Dropped before the promise: a handle learns of the end after the destructors ran.
        #[pin]
        future: Option<F>,
        promise: JoinPromise<F::Output>,
    }

    impl<F: Future> PinnedDrop for Tracked<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_future();
        }
    }
}

impl<F: Future> Tracked<F> {
    pub(super) fn new(future: F, state: Rc<JoinState<F::Output>>) -> Self {
        Self {
            future: Some(future),
            promise: JoinPromise(Some(state)),
        }
    }

    fn drop_future(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.future.is_none() {
            return;
        }
        let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
        if let Err(payload) = dropped {
            polling::note_panic(panic_message(&*payload));
        }
    }
}

impl<F: Future> TaskBody for Tracked<F> {
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        let Poll::Ready(output) = future.poll(cx) else {
            return Poll::Pending;
        };
        this.future.set(None);
        match this.promise.awaited() {
            // Nobody will ask for it.
            None => drop(output),
            Some(state) => state.complete(Ok(output)),
        }
        Poll::Ready(())
    }

    fn panicked(mut self: Pin<&mut Self>, message: &str) {
        // If the future is gone it was a destructor that panicked: the handle learns of no output.
        if self.future.is_some() {
            self.as_mut().drop_future();
            if let Some(state) = self.promise.awaited() {
                state.complete(Err(JoinError::Panicked(message.to_owned())));
            }
        }
    }

    fn look(&self) -> usize {
        usize::from(self.future.is_some()) + usize::from(self.promise.0.is_some())
    }

    fn detach(self: Pin<&mut Self>) {
        self.project().promise.0 = None;
    }
}
