//! [`LatencyModel`]: how long one operation takes.

use std::time::Duration;

use super::config::NetworkConfigError;

/// How long one operation takes, drawn from the seed each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LatencyModel {
    /// Uniform between the two, both included.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Uniform between `min` and `max` in 999 of 1000 cases, and between `max` and `tail` in the
    /// rest. A draw from the tail is a fault of the kind `long-tail`.
    ///
    /// Descends from FoundationDB, `fdbrpc/sim2.actor.cpp`, `SimClogging::halfLatency`.
    LongTail {
        /// The shortest.
        min: Duration,
        /// The longest outside the tail.
        max: Duration,
        /// The longest of all.
        tail: Duration,
    },
}

impl LatencyModel {
    /// FoundationDB's network: 100-800 us, and in one of 1000 cases up to 100 ms.
    pub const LONG_TAIL: Self = Self::LongTail {
        min: Duration::from_micros(100),
        max: Duration::from_micros(800),
        tail: Duration::from_millis(100),
    };

    /// Uniform between `min` and `max`, both included.
    #[must_use]
    pub const fn uniform(min: Duration, max: Duration) -> Self {
        Self::Uniform { min, max }
    }

    /// Always `latency`. Nothing is drawn for it.
    #[must_use]
    pub const fn fixed(latency: Duration) -> Self {
        Self::Uniform {
            min: latency,
            max: latency,
        }
    }

    pub(crate) const fn micros(min: u64, max: u64) -> Self {
        Self::uniform(Duration::from_micros(min), Duration::from_micros(max))
    }

    /// The same without its tail.
    #[must_use]
    pub const fn without_tail(self) -> Self {
        match self {
            Self::Uniform { min, max } | Self::LongTail { min, max, .. } => {
                Self::Uniform { min, max }
            }
        }
    }

    pub(super) fn validate(self, field: &'static str) -> Result<(), NetworkConfigError> {
        let (min, max, tail) = match self {
            Self::Uniform { min, max } => (min, max, max),
            Self::LongTail { min, max, tail } => (min, max, tail),
        };
        if min > max {
            return Err(NetworkConfigError::InvertedRange { field, min, max });
        }
        if max > tail {
            return Err(NetworkConfigError::InvertedRange {
                field,
                min: max,
                max: tail,
            });
        }
        Ok(())
    }
}
