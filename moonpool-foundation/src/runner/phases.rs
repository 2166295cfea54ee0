//! [`Phases`]: faults for a while, then quiet, in which everything has to come to its end.

use std::ops::Range;
use std::time::Duration;

use super::error::RunError;

/// A seed in two phases: faults for a drawn while, then a healed world in which the workloads finish.
///
/// Under faults that never end no system has to make progress, so that nothing could be asked of it
/// but safety. After [`SimWorld::heal`](crate::SimWorld::heal) it has no excuse: workloads that do not
/// return within `quiet` fail the seed with [`Verdict::Liveness`](crate::Verdict::Liveness), which
/// lists who waits on what.
///
/// Once the last workload has returned, the world is healed if it was not, and runs on until nothing
/// is queued but background events, for as long as `quiet` at most: what is left then
/// ([`SeedReport::leftovers`](crate::SeedReport::leftovers)) is not just under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phases {
    /// How long faults happen, in virtual time: drawn per seed from this range.
    pub chaos: Range<Duration>,
    /// Virtual time that the workloads have from then on.
    pub quiet: Duration,
}

impl Default for Phases {
    /// 5 s to 60 s of faults, and five quiet minutes: time for a connect that is never answered to
    /// give up (two minutes), and for back-offs to run out.
    fn default() -> Self {
        Self {
            chaos: Duration::from_secs(5)..Duration::from_secs(60),
            quiet: Duration::from_secs(300),
        }
    }
}

impl Phases {
    /// # Errors
    /// [`RunError::Phases`] if the range is inverted, or the quiet time is zero: nothing could finish.
    pub(super) fn validate(&self) -> Result<(), RunError> {
        if self.chaos.start > self.chaos.end {
            return Err(RunError::Phases {
                reason: "the range of the chaos phase is inverted",
            });
        }
        if self.quiet.is_zero() {
            return Err(RunError::Phases {
                reason: "the quiet phase has no time in which anything could finish",
            });
        }
        Ok(())
    }
}
