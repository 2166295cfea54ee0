//! [`SimulationReport`]: what a campaign came to.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::regressions::Recorder;
use super::verdict::Verdict;
use crate::chaos::FaultCounts;
use crate::sim::Leftovers;

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

/// What became of one seed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// What it cost, and its digest.
    pub metrics: SimulationMetrics,
    /// What its world still held when the last workload had returned, or when it failed. A workload
    /// that wants to show that nothing leaks sleeps until its last FIN has travelled.
    pub leftovers: Leftovers,
    /// How often each kind of fault fired.
    pub faults: FaultCounts,
}

/// What a campaign came to. `Display` prints it for people, [`Serialize`] for machines.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SimulationReport {
    /// How many seeds ran.
    pub iterations: usize,
    /// How many of them passed.
    pub successful_runs: usize,
    /// How many did not.
    pub failed_runs: usize,
    /// What the whole campaign cost.
    pub metrics: SimulationMetrics,
    /// What became of each seed, in the order of `seeds_used`.
    pub individual_metrics: Vec<SeedReport>,
    /// The seeds, in order.
    pub seeds_used: Vec<u64>,
    /// Those that failed, in order.
    pub seeds_failing: Vec<u64>,
    /// How often each kind of fault fired, in all seeds together.
    pub faults: FaultCounts,
    /// Seeds of the regression file that ran before the campaign. Those that passed count nowhere
    /// else; one that failed stands in front of the campaign's own seeds, unless it is one of them.
    pub regressions_run: usize,
    /// The command that replays the first failing seed.
    pub replay_command: Option<String>,
    /// Keeps that seed if the test fails.
    #[serde(skip)]
    pub(super) recorder: Recorder,
}

impl SimulationReport {
    /// A report of these seeds, which took `wall_time` together.
    pub(super) fn of(seeds: Vec<SeedReport>, wall_time: Duration) -> Self {
        let mut report = Self {
            iterations: seeds.len(),
            seeds_used: seeds.iter().map(|seed| seed.seed).collect(),
            ..Self::default()
        };
        report.metrics.wall_time = wall_time;
        for seed in &seeds {
            report.faults.merge(&seed.faults);
            let total = &mut report.metrics;
            total.simulated_time = total
                .simulated_time
                .saturating_add(seed.metrics.simulated_time);
            total.events_processed += seed.metrics.events_processed;
            total.digest = total.digest.rotate_left(7) ^ seed.metrics.digest;
            if !seed.verdict.is_passed() {
                report.seeds_failing.push(seed.seed);
            }
        }
        report.failed_runs = report.seeds_failing.len();
        report.successful_runs = report.iterations - report.failed_runs;
        report.individual_metrics = seeds;
        report
    }

    /// Per cent of the seeds that passed, 0.0-100.0; 0.0 if none ran.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        100.0 * ratio(count(self.successful_runs), count(self.iterations))
    }

    /// Real time per seed, summed over threads; zero if none ran.
    #[must_use]
    pub fn average_wall_time(&self) -> Duration {
        let total = self.individual_metrics.iter();
        let total: Duration = total.map(|seed| seed.metrics.wall_time).sum();
        self.per_seed(total)
    }

    /// Virtual time per seed; zero if none ran.
    #[must_use]
    pub fn average_simulated_time(&self) -> Duration {
        self.per_seed(self.metrics.simulated_time)
    }

    /// Events per seed; 0.0 if none ran.
    #[must_use]
    pub fn average_events_processed(&self) -> f64 {
        ratio(float(self.metrics.events_processed), count(self.iterations))
    }

    /// Virtual seconds per real second of the campaign.
    #[must_use]
    pub fn simulated_to_real_ratio(&self) -> f64 {
        ratio(
            self.metrics.simulated_time.as_secs_f64(),
            self.metrics.wall_time.as_secs_f64(),
        )
    }

    /// The seeds that failed, in order.
    pub fn failures(&self) -> impl Iterator<Item = &SeedReport> {
        self.individual_metrics
            .iter()
            .filter(|seed| !seed.verdict.is_passed())
    }

    /// Returns if every seed passed.
    ///
    /// # Panics
    /// If one did not: with the first one's verdict and the command that replays it.
    #[track_caller]
    #[expect(clippy::panic, reason = "an assertion for tests")]
    pub fn assert_passed(&self) {
        let Some(first) = self.failures().next() else {
            return;
        };
        let replay = match &self.replay_command {
            Some(command) => format!(" Replay with: {command}"),
            None => String::new(),
        };
        panic!(
            "seed {} failed with {}: {} ({} of {} seeds failed).{replay}",
            first.seed,
            first.verdict.name(),
            first.verdict.headline().replace('\n', " "),
            self.failed_runs,
            self.iterations,
        );
    }

    fn per_seed(&self, total: Duration) -> Duration {
        match u32::try_from(self.iterations) {
            Ok(seeds) if seeds > 0 => total / seeds,
            _ => Duration::ZERO,
        }
    }
}

/// Failing seeds that `Display` lists; the others are counted.
const LISTED_FAILURES: usize = 20;

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds: {} passed, {} failed ({:.1} % passed)",
            self.iterations,
            self.successful_runs,
            self.failed_runs,
            self.success_rate()
        )?;
        writeln!(
            f,
            "simulated {:?} in {:?} ({:.0} s per s), {} events",
            self.metrics.simulated_time,
            self.metrics.wall_time,
            self.simulated_to_real_ratio(),
            self.metrics.events_processed
        )?;
        writeln!(
            f,
            "per seed: {:?} simulated, {:?} real, {:.0} events",
            self.average_simulated_time(),
            self.average_wall_time(),
            self.average_events_processed()
        )?;
        write!(f, "digest: {:016x}", self.metrics.digest)?;
        for seed in self.failures().take(LISTED_FAILURES) {
            write!(f, "\nseed {}: {}", seed.seed, seed.verdict.name())?;
            let headline = seed.verdict.headline();
            write!(f, ": {}", headline.lines().next().unwrap_or_default())?;
        }
        if self.failed_runs > LISTED_FAILURES {
            write!(f, "\nand {} more", self.failed_runs - LISTED_FAILURES)?;
        }
        match &self.replay_command {
            Some(command) => write!(f, "\nreplay: {command}"),
            None => Ok(()),
        }
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Exact up to 2^53, and near enough beyond.
fn float(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    number as f64
}
