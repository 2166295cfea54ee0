//! Tasks: [`TaskProvider`], its handles and the tokio implementation.

#[cfg(feature = "sim")]
mod sim;
mod tokio;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "sim")]
pub use sim::SimTaskProvider;
pub use tokio::TokioTaskProvider;

/// Starts tasks on the current thread. Futures need not be `Send`.
pub trait TaskProvider: Clone + 'static {
    /// Starts `future` as a task of its own; `name` shows in deadlock reports and traces.
    ///
    /// Dropping the handle detaches the task. A panic ends the task only: the handle gives
    /// [`JoinError::Panicked`] (inside the simulator it also fails the seed).
    fn spawn_task<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static;

    /// [`spawn_task`](Self::spawn_task), for a task that only carries a transport's bytes: in
    /// simulation, that it runs does not count as progress when a deadlock is looked for.
    #[doc(hidden)]
    fn spawn_driver<F>(
        &self,
        name: impl Into<Cow<'static, str>>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawn_task(name, future)
    }

    /// Lets other ready tasks run first.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect: a task that polled it once is woken all the same.
    fn yield_now(&self) -> impl Future<Output = ()>;

    /// Runs blocking work, such as writing a file, on a thread pool. What is handed over first need not
    /// be done first.
    ///
    /// In simulation it runs on the one thread that there is, at a moment of virtual time that the seed
    /// draws, and its output arrives later still: mostly within half a millisecond, now and then after
    /// tens. Others run between, other blocking work among them, and the process may be killed before
    /// the work was done or before anybody learned of it.
    ///
    /// # Errors
    /// [`JoinError::Panicked`] if `work` panicked, [`JoinError::Cancelled`] if the runtime stopped.
    ///
    /// # Cancel safety
    /// Work is handed over when the future is first polled, and is done then even if the future is
    /// dropped, unless the process ends before.
    fn run_blocking<F, R>(&self, work: F) -> impl Future<Output = Result<R, JoinError>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static;

    /// 64 random bits for the library's own decisions: backoff jitter, tokens, incarnations. In
    /// simulation they come from a stream apart, so that a user's draws are not disturbed by them.
    fn internal_random(&self) -> u64;
}

/// A started task: await it for its output. Dropping it detaches the task.
///
/// One type for all providers, so that generic code stores and names it without naming theirs.
///
/// # Errors
/// [`JoinError`] if the task panicked or was cancelled.
///
/// # Cancel safety
/// Awaiting it by reference in a `select!` loses nothing.
pub struct JoinHandle<T>(Handle<T>);

enum Handle<T> {
    /// Worlds start so many tasks that it matters whether each handle is an allocation.
    #[cfg(feature = "sim")]
    Sim(sim::SimTask<T>),
    Other(Box<dyn RawTask<T>>),
}

impl<T> JoinHandle<T> {
    /// The handle of a task that another [`TaskProvider`] started.
    pub fn new(task: impl RawTask<T> + 'static) -> Self {
        Self(Handle::Other(Box::new(task)))
    }

    #[cfg(feature = "sim")]
    fn of_sim(task: sim::SimTask<T>) -> Self {
        Self(Handle::Sim(task))
    }

    /// Cancels the task: its future is dropped soon, its handle gives [`JoinError::Cancelled`].
    /// A task that is already finished is not affected.
    pub fn abort(&self) {
        match &self.0 {
            #[cfg(feature = "sim")]
            Handle::Sim(task) => task.abort(),
            Handle::Other(task) => task.abort(),
        }
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            #[cfg(feature = "sim")]
            Handle::Sim(task) => task.is_finished(),
            Handle::Other(task) => task.is_finished(),
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            #[cfg(feature = "sim")]
            Handle::Sim(task) => task.poll_join(cx),
            Handle::Other(task) => task.poll_join(cx),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// What a [`TaskProvider`] gives its [`JoinHandle`]s to work with.
pub trait RawTask<T> {
    /// The task's output, once. Keeps the waker of the last call.
    fn poll_join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>>;

    /// As [`JoinHandle::abort`].
    fn abort(&self);

    /// As [`JoinHandle::is_finished`].
    fn is_finished(&self) -> bool;
}

/// Why a task gave no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The task was aborted, or its process or runtime ended.
    #[error("task was cancelled")]
    Cancelled,
    /// The task panicked with this message.
    #[error("task panicked: {0}")]
    Panicked(String),
}

/// The text of a panic, as `panic!` was given it.
pub(crate) fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match payload.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => "panic with a payload that is no text".to_owned(),
    }
}
