//! What a task and its handle share: the output, or why there is none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use super::executor::{self, TASK_DONE, TaskKey};
use super::wakes::{self, HomeWaker, TaskMeta};
use crate::task::{JoinError, panic_message};
use crate::wait::{self, WaitReason};

/// What a join handle and its task share.
pub(crate) struct JoinState<T> {
    pub(crate) key: TaskKey,
    result: RefCell<Option<Result<T, JoinError>>>,
    finished: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl<T> JoinState<T> {
    pub(super) fn new(key: TaskKey) -> Self {
        Self {
            key,
            result: RefCell::new(None),
            finished: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        if let Some(result) = self.result.take() {
            return Poll::Ready(result);
        }
        wait::note(WaitReason::Join {
            task: self.key.number(),
        });
        let replaced = self.waker.replace(Some(cx.waker().clone()));
        drop(replaced);
        Poll::Pending
    }

    fn complete(&self, result: Result<T, JoinError>) {
        if self.finished.replace(true) {
            return;
        }
        self.result.replace(Some(result));
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The task's side of a [`JoinState`]: a task that is dropped before its end was cancelled.
struct JoinPromise<T>(Rc<JoinState<T>>);

impl<T> Drop for JoinPromise<T> {
    fn drop(&mut self) {
        self.0.complete(Err(JoinError::Cancelled));
    }
}

pin_project! {
    /// A task's future, with its end told to the join handle and its panic caught.
    pub(super) struct Tracked<F: Future> {
        // Dropped before the promise: a handle learns of the end after the destructors ran.
        #[pin]
        future: Option<F>,
        promise: JoinPromise<F::Output>,
        meta: TaskMeta,
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
    pub(super) fn new(future: F, state: Rc<JoinState<F::Output>>, meta: TaskMeta) -> Self {
        Self {
            future: Some(future),
            promise: JoinPromise(state),
            meta,
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
            let home = Arc::new(HomeWaker::new(cx.waker().clone(), *this.meta));
            (Arc::clone(&home), home.into())
        });
        let mut cx = Context::from_waker(waker);
        wakes::begin_poll(waker, this.meta);
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
        if Rc::strong_count(&this.promise.0) == 1 {
            // Nobody will ask for it. Here its destructor may panic; in the cell it would abort.
            drop(result);
        } else {
            this.promise.0.complete(result);
        }
        Poll::Ready(())
    }
}
