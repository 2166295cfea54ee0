//! Virtual time: whole nanoseconds since the run began.

use std::time::Duration;

/// A point in virtual time. [`SimInstant::NEVER`] is later than any event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SimInstant(u64);

impl SimInstant {
    pub(crate) const ZERO: Self = Self(0);
    /// A deadline that is never reached: no event is queued for it.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// This instant and `duration` later; saturates at [`SimInstant::NEVER`].
    #[inline]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// This instant and so many nanoseconds later; saturates as [`after`](Self::after) does.
    pub(crate) fn after_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// The instant right after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) fn as_nanos(self) -> u64 {
        self.0
    }

    /// As the providers tell it.
    pub(crate) fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// Whole nanoseconds of `duration`, saturating at 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    let whole = duration.as_secs().checked_mul(1_000_000_000);
    let nanos = whole.and_then(|whole| whole.checked_add(duration.subsec_nanos().into()));
    nanos.unwrap_or(u64::MAX)
}
