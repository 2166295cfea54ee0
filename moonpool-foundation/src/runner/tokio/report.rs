//! [`TokioReport`]: what runs on real sockets came to, in the shape of a campaign's report.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::runner::metrics::{self, SimulationMetrics};
use crate::runner::verdict::Verdict;

/// What became of one run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TokioRunReport {
    /// How it ended.
    pub verdict: Verdict,
    /// What it cost: only real time is measured.
    pub metrics: SimulationMetrics,
}

impl TokioRunReport {
    pub(super) fn new(verdict: Verdict, wall_time: Duration) -> Self {
        Self {
            verdict,
            metrics: metrics::of_real_time(wall_time),
        }
    }
}

/// What runs on real sockets came to. `Display` prints it for people, [`Serialize`] for machines; the
/// fields that it has in common with a simulation's report have the same names.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct TokioReport {
    /// How many runs there were.
    pub iterations: usize,
    /// How many of them passed.
    pub successful_runs: usize,
    /// How many did not.
    pub failed_runs: usize,
    /// What all of them cost: only real time is measured.
    pub metrics: SimulationMetrics,
    /// What became of each run, in order.
    pub individual_metrics: Vec<TokioRunReport>,
}

impl TokioReport {
    pub(super) fn of(runs: Vec<TokioRunReport>, wall_time: Duration) -> Self {
        let passed = runs.iter().filter(|run| run.verdict.is_passed()).count();
        Self {
            iterations: runs.len(),
            successful_runs: passed,
            failed_runs: runs.len() - passed,
            metrics: metrics::of_real_time(wall_time),
            individual_metrics: runs,
        }
    }

    /// Per cent of the runs that passed, 0.0-100.0; 0.0 if there was none.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        metrics::percentage(self.successful_runs, self.iterations)
    }

    /// Real time per run; zero if there was none.
    #[must_use]
    pub fn average_wall_time(&self) -> Duration {
        match u32::try_from(self.iterations) {
            Ok(runs) if runs > 0 => self.metrics.wall_time / runs,
            _ => Duration::ZERO,
        }
    }

    /// The runs that failed, in order.
    pub fn failures(&self) -> impl Iterator<Item = &TokioRunReport> {
        let runs = self.individual_metrics.iter();
        runs.filter(|run| !run.verdict.is_passed())
    }

    /// Returns if there was a run and every one passed.
    ///
    /// # Panics
    /// If not: with the first failing one's verdict.
    #[track_caller]
    #[expect(clippy::panic, reason = "an assertion for tests")]
    pub fn assert_passed(&self) {
        if self.iterations == 0 {
            panic!("nothing was run");
        }
        if let Some(failed) = self.failures().next() {
            panic!(
                "{} of {} runs on real sockets failed, the first with {}",
                self.failed_runs, self.iterations, failed.verdict
            );
        }
    }
}

impl fmt::Display for TokioReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs on real sockets: {} passed, {} failed, in {:?}",
            self.iterations, self.successful_runs, self.failed_runs, self.metrics.wall_time
        )?;
        for run in self.failures() {
            let headline = run.verdict.headline();
            let line = headline.lines().next().unwrap_or_default();
            write!(f, "\n{}: {line}", run.verdict.name())?;
        }
        Ok(())
    }
}
