//! [`SimulationMetrics`]: what running cost.

use std::time::Duration;

use serde::Serialize;

/// What running cost. A workload returns one (`SimulationMetrics::default()` will do: the runner
/// measures these itself), the runner fills one per seed and one for the whole campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SimulationMetrics {
    /// Real time; of a campaign: from its begin to its end, on however many threads.
    pub wall_time: Duration,
    /// Virtual time; of a campaign: of all seeds together.
    pub simulated_time: Duration,
    /// Events processed; of a campaign: of all seeds together.
    pub events_processed: u64,
    /// Digest of all that happened in the seed; of a campaign: of its seeds' digests, in order.
    pub digest: u64,
}

/// What a run on real sockets cost.
pub(super) fn of_real_time(wall_time: Duration) -> SimulationMetrics {
    SimulationMetrics {
        wall_time,
        ..SimulationMetrics::default()
    }
}

/// `part` of `whole` in per cent; 0.0 of nothing.
pub(super) fn percentage(part: usize, whole: usize) -> f64 {
    100.0 * ratio(float(part), float(whole))
}

pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Exact up to 2^53, and near enough beyond.
fn float(number: usize) -> f64 {
    number as f64
}
