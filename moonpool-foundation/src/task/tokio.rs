//! Tasks of tokio's `LocalRuntime`.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{JoinError, JoinHandle, RawTask, TaskProvider, panic_message};
use crate::random::{RandomProvider, SystemRandomProvider};

/// Tasks on tokio's current `LocalRuntime` (or `LocalSet`).
///
/// ```
/// use moonpool_foundation::{TaskProvider, TokioTaskProvider};
///
/// let runtime = tokio::runtime::Builder::new_current_thread()
///     .enable_all()
///     .build_local(Default::default())?;
/// let answer = runtime.block_on(async {
///     TokioTaskProvider::new().spawn_task("adder", async { 40 + 2 }).await
/// });
/// assert_eq!(answer, Ok(42));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioTaskProvider;

impl TokioTaskProvider {
    /// A spawner for whatever `LocalRuntime` is current when it is used.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl TaskProvider for TokioTaskProvider {
    /// # Panics
    /// Outside a `LocalRuntime` or `LocalSet`, as `tokio::task::spawn_local` does.
    #[expect(
        clippy::disallowed_methods,
        reason = "this adapter is where real tasks come from"
    )]
    fn spawn_task<F>(&self, name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        // Task names need tokio's unstable builder: here they only exist in traces.
        tracing::trace!(task = %name.into(), "spawned");
        JoinHandle::new(TokioTask(::tokio::task::spawn_local(future)))
    }

    fn yield_now(&self) -> impl Future<Output = ()> {
        ::tokio::task::yield_now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this adapter is where real tasks come from"
    )]
    async fn run_blocking<F, R>(&self, work: F) -> Result<R, JoinError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        ::tokio::task::spawn_blocking(work)
            .await
            .map_err(join_error)
    }

    fn internal_random(&self) -> u64 {
        SystemRandomProvider::new().random()
    }
}

struct TokioTask<T>(::tokio::task::JoinHandle<T>);

impl<T> RawTask<T> for TokioTask<T> {
    fn poll_join(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, JoinError>> {
        let joined = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(joined.map_err(join_error))
    }

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

fn join_error(error: ::tokio::task::JoinError) -> JoinError {
    match error.try_into_panic() {
        Ok(payload) => JoinError::Panicked(panic_message(&*payload)),
        Err(_cancelled) => JoinError::Cancelled,
    }
}
