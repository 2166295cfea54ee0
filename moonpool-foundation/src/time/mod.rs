//! Time: [`TimeProvider`], its [`Timeout`] combinator and the tokio implementation.

#[cfg(feature = "sim")]
mod sim;
mod tokio;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

#[cfg(feature = "sim")]
pub use sim::SimTimeProvider;
pub use tokio::TokioTimeProvider;

/// Tells the time and sleeps. Times are durations since the run began.
pub trait TimeProvider: Clone + 'static {
    /// The future of [`sleep`](Self::sleep). Dropping it cancels the timer.
    type Sleep: Future<Output = ()> + 'static;

    /// Completes `duration` after this call. The deadline is fixed now, not at the first poll.
    ///
    /// # Cancel safety
    /// Dropping the future removes the timer; nothing else happens.
    fn sleep(&self, duration: Duration) -> Self::Sleep;

    /// A sleep that nothing depends on: an idle close, the end of something kept in reserve. In
    /// simulation it neither keeps a run alive nor hides a deadlock; elsewhere it is
    /// [`sleep`](Self::sleep).
    ///
    /// # Cancel safety
    /// As [`sleep`](Self::sleep).
    fn background_sleep(&self, duration: Duration) -> Self::Sleep {
        self.sleep(duration)
    }

    /// Runs `future` for at most `duration`; a future that is ready at the deadline wins.
    ///
    /// # Errors
    /// [`Elapsed`] when the time has passed; `future` is then dropped with the returned future.
    ///
    /// # Cancel safety
    /// That of `future`.
    fn timeout<F: Future>(&self, duration: Duration, future: F) -> Timeout<F, Self::Sleep> {
        Timeout {
            future,
            sleep: self.sleep(duration),
        }
    }

    /// Exact time since the run began.
    fn now(&self) -> Duration;

    /// This process's own clock since the run began: it may run ahead of [`now`](Self::now), never
    /// behind it. Leases and deadlines that other processes judge must survive the difference.
    fn timer(&self) -> Duration;

    /// Wall-clock time since the Unix epoch. In simulation the run begins at a fixed date.
    fn unix_time(&self) -> Duration;
}

/// A [`timeout`](TimeProvider::timeout) passed before its future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline has elapsed")]
#[non_exhaustive]
pub struct Elapsed;

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

pin_project! {
    /// The future of [`TimeProvider::timeout`]: the inner future is polled first, then the timer.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Timeout<F, S> {
        #[pin]
        future: F,
        #[pin]
        sleep: S,
    }
}

impl<F: Future, S: Future<Output = ()>> Future for Timeout<F, S> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(cx).map(|()| Err(Elapsed))
    }
}
