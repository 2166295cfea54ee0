//! What a task and its handle share: the output, or why there is none.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::executor::{self, TASK_DONE, TaskKey};
use super::wakes::{self, Home, HomeWaker};
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

pin_project! {
    /// A task's future, with its end told to the join handle and its panic caught.
    pub(super) struct Tracked<F: Future> {
        // Dropped before the promise: a handle learns of the end after the destructors ran.
        #[pin]
        future: Option<F>,
        promise: JoinPromise<F::Output>,
        home: Home,
        // Made at the first poll. It keeps the cell alive until the task has ended or is dropped.
        waker: Option<(Arc<HomeWaker>, Waker)>,
    }

    impl<F: Future> PinnedDrop for Tracked<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some((home, _)) = this.waker {
                home.end();
            }
            // A cell aborts the whole process if a destructor panics in it.
            let dropped = catch_unwind(AssertUnwindSafe(|| this.future.set(None)));
            if let Err(payload) = dropped {
                executor::note_panic(panic_message(&*payload));
            }
        }
    }
}

impl<F: Future> Tracked<F> {
    pub(super) fn new(future: F, state: Rc<JoinState<F::Output>>, home: Home) -> Self {
        Self {
            future: Some(future),
            promise: JoinPromise(Some(state)),
            home,
            waker: None,
        }
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return Poll::Ready(());
        };
        let (_, waker) = this.waker.get_or_insert_with(|| {
            if this.promise.awaited().is_none() {
                // The handle was dropped at once, as most are: the waker takes the state's memory.
                this.promise.0 = None;
            }
            let home = Arc::new(HomeWaker::new(cx.waker().clone(), *this.home));
            (Arc::clone(&home), home.into())
        });
        let mut cx = Context::from_waker(waker);
        wakes::begin_poll(waker, this.home);
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(&mut cx)));
        wakes::end_poll();
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(payload) => {
                let message = panic_message(&*payload);
                executor::note_panic(message.clone());
                Err(JoinError::Panicked(message))
            }
        };
        TASK_DONE.set(true);
        this.future.set(None);
        match this.promise.awaited() {
            // Nobody will ask for it. Here its destructor may panic; in the cell it would abort.
            None => drop(result),
            Some(state) => state.complete(result),
        }
        Poll::Ready(())
    }
}
