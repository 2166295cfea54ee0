//! Real time through tokio's timer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::TimeProvider;

/// Real time. [`now`](TimeProvider::now) counts from the provider's creation; clones share it.
#[derive(Clone, Copy, Debug)]
pub struct TokioTimeProvider {
    began: ::tokio::time::Instant,
}

impl TokioTimeProvider {
    /// A clock that starts at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this adapter is where real time comes from"
    )]
    pub fn new() -> Self {
        Self {
            began: ::tokio::time::Instant::now(),
        }
    }
}

impl Default for TokioTimeProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeProvider for TokioTimeProvider {
    type Sleep = ::tokio::time::Sleep;

    #[expect(
        clippy::disallowed_methods,
        reason = "this adapter is where real time comes from"
    )]
    fn sleep(&self, duration: Duration) -> Self::Sleep {
        ::tokio::time::sleep(duration)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn timer(&self) -> Duration {
        self.now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "this adapter is where real time comes from"
    )]
    fn unix_time(&self) -> Duration {
        // A clock set before 1970 reads as the epoch itself.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}
