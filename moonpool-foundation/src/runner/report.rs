//! [`SimulationReport`]: what a campaign came to.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::coverage::{AssertionResult, BuggifyResult, SiteResults};
use super::metrics::{self, SimulationMetrics, ratio};
use super::regressions::Recorder;
use super::verdict::Verdict;
use crate::chaos::{FaultCounts, FaultKind};
use crate::sim::Leftovers;

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
    /// What its world still held when the last workload had returned, or when it failed. With
    /// [`phases`](crate::SimulationBuilder::phases) a seed that passes has come to rest by then;
    /// without, a workload that wants to show that nothing leaks sleeps until its last FIN has
    /// travelled.
    pub leftovers: Leftovers,
    /// How often each kind of fault fired.
    pub faults: FaultCounts,
}

/// What a campaign's numbers come to per seed, for machines; the report's methods give the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SimulationRates {
    /// See [`SimulationReport::success_rate`].
    pub success_rate: f64,
    /// See [`SimulationReport::simulated_to_real_ratio`].
    pub simulated_to_real_ratio: f64,
    /// See [`SimulationReport::average_wall_time`].
    pub average_wall_time: Duration,
    /// See [`SimulationReport::average_simulated_time`].
    pub average_simulated_time: Duration,
    /// See [`SimulationReport::average_events_processed`].
    pub average_events_processed: f64,
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
    /// What that comes to per seed.
    pub rates: SimulationRates,
    /// What became of each seed, in the order of `seeds_used`.
    pub individual_metrics: Vec<SeedReport>,
    /// The seeds, in order.
    pub seeds_used: Vec<u64>,
    /// Those that failed, in order.
    pub seeds_failing: Vec<u64>,
    /// How often each kind of fault fired, in all seeds together.
    pub faults: FaultCounts,
    /// The kinds that some seed may have had by chance, and that never fired: nothing was tested with
    /// them. Faults of the network count only if, by the occasions that there were, at least ten were
    /// to be expected.
    pub dead_faults: Vec<FaultKind>,
    /// Every `always_assert!` and `sometimes_assert!` in the binary, and how often each was checked
    /// and held in all seeds together; sorted by name.
    pub assertion_results: Vec<AssertionResult>,
    /// What the assertions say against the campaign, a line each: every `always_assert!` that did not
    /// hold, and every required `sometimes_assert!` that was missed, if the builder asked for coverage.
    pub assertion_violations: Vec<String>,
    /// Every `buggify!` in the binary, and how often it fired; sorted by module, line and column.
    pub buggify_results: Vec<BuggifyResult>,
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
    pub(super) fn of(seeds: Vec<SeedReport>, sites: SiteResults, wall_time: Duration) -> Self {
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
        let dead = |kind: &FaultKind| sites.is_dead(*kind);
        report.dead_faults = FaultKind::ALL.iter().copied().filter(dead).collect();
        report.assertion_violations = sites.violations();
        report.assertion_results = sites.assertions;
        report.buggify_results = sites.buggify;
        report.failed_runs = report.seeds_failing.len();
        report.successful_runs = report.iterations - report.failed_runs;
        report.individual_metrics = seeds;
        report.rates = SimulationRates {
            success_rate: report.success_rate(),
            simulated_to_real_ratio: report.simulated_to_real_ratio(),
            average_wall_time: report.average_wall_time(),
            average_simulated_time: report.average_simulated_time(),
            average_events_processed: report.average_events_processed(),
        };
        report
    }

    /// Per cent of the seeds that passed, 0.0-100.0; 0.0 if none ran.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        metrics::percentage(self.successful_runs, self.iterations)
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

    /// The required `sometimes_assert!` sites that never held: see
    /// [`coverage`](crate::SimulationBuilder::coverage).
    pub fn missed_assertions(&self) -> impl Iterator<Item = &AssertionResult> {
        let required = self.assertion_results.iter();
        required.filter(|found| found.is_required && found.is_missed())
    }

    /// Whether every required `sometimes_assert!` held at least once.
    #[must_use]
    pub fn coverage_complete(&self) -> bool {
        self.missed_assertions().next().is_none()
    }

    /// The `buggify!` sites of the required modules that never fired.
    pub fn dead_buggify_sites(&self) -> impl Iterator<Item = &BuggifyResult> {
        let sites = self.buggify_results.iter();
        sites.filter(|found| found.is_required && found.fired == 0)
    }

    /// What the campaign was to reach and has not, a line each; and that it had no seed, if so. Of one
    /// seed, a replay for example, nobody expects to reach all.
    fn unreached(&self) -> Vec<String> {
        match self.iterations {
            0 => return vec![NO_SEED.to_owned()],
            1 => return Vec::new(),
            _ => {}
        }
        let missed = self.missed_assertions();
        let missed = missed.map(|site| format!("MISSED: {site}"));
        missed.chain(self.dead_lines()).collect()
    }

    /// Faults and `buggify!` sites that might have fired, and never did: a line each.
    fn dead_lines(&self) -> Vec<String> {
        let kinds = self.dead_faults.iter();
        let kinds = kinds.map(|kind| format!("DEAD: fault {kind} may fire, and never did"));
        let was_asked = self.buggify_results.iter().any(|site| site.calls > 0);
        let sites = self.dead_buggify_sites().filter(|_| was_asked);
        kinds
            .chain(sites.map(|site| format!("DEAD: {site}")))
            .collect()
    }

    /// Returns if every seed passed, and the campaign reached what it had to. What it did not reach and
    /// did not have to is written to standard error: required sites that were missed, without
    /// [coverage](crate::SimulationBuilder::coverage), and faults that never fired.
    ///
    /// # Panics
    /// If a seed did not pass: with the first one's verdict and the command that replays it. If the
    /// builder asked for [coverage](crate::SimulationBuilder::coverage) and a required
    /// `sometimes_assert!` was missed: with those that were.
    #[track_caller]
    #[expect(clippy::panic, reason = "an assertion for tests")]
    pub fn assert_passed(&self) {
        let Some(first) = self.failures().next() else {
            if !self.assertion_violations.is_empty() {
                let missed = self.assertion_violations.join("\n  ");
                panic!("all {} seeds passed, but:\n  {missed}", self.iterations);
            }
            for line in self.unreached() {
                eprintln!("{line}");
            }
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

impl SimulationReport {
    /// What the required sites came to. Of the others, which may be many, only the number.
    fn write_sites(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let required = || {
            self.assertion_results
                .iter()
                .filter(|site| site.is_required)
        };
        let others = self.assertion_results.len() - required().count();
        for site in required() {
            let missed = if site.is_missed() { "MISSED: " } else { "" };
            write!(f, "\n{missed}{site}")?;
        }
        let reached = |site: &&AssertionResult| !site.is_required && site.checks > 0;
        if others > 0 {
            let reached = self.assertion_results.iter().filter(reached).count();
            write!(f, "\nof {others} other assertions {reached} were reached")?;
        }
        for line in self.dead_lines() {
            write!(f, "\n{line}")?;
        }
        Ok(())
    }
}

/// What a campaign without seeds has to say.
const NO_SEED: &str = "no seed ran: this shard of the campaign is empty, and nothing was tested";

/// Failing seeds that `Display` lists; the others are counted.
const LISTED_FAILURES: usize = 20;

impl fmt::Display for SimulationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.iterations == 0 {
            return f.write_str(NO_SEED);
        }
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
        self.write_sites(f)?;
        match &self.replay_command {
            Some(command) => write!(f, "\nreplay: {command}"),
            None => Ok(()),
        }
    }
}

/// Exact up to 2^53, and near enough beyond.
fn float(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{AssertionKind, Place};

    #[test]
    fn a_report_without_seeds_says_that_nothing_was_tested() {
        let report = SimulationReport::default();
        assert!(report.to_string().starts_with("no seed ran"), "{report}");
        assert_eq!(report.unreached(), [NO_SEED]);
    }

    #[test]
    fn what_a_passing_campaign_missed_is_told_but_not_of_a_single_seed() {
        let mut report = SimulationReport {
            iterations: 2,
            dead_faults: vec![FaultKind::Cut],
            assertion_results: vec![AssertionResult {
                name: "orders_overtake",
                kind: AssertionKind::Sometimes,
                message: "",
                place: Place {
                    module: "orders",
                    file: "orders.rs",
                    line: 3,
                    column: 5,
                },
                is_required: true,
                checks: 0,
                held: 0,
            }],
            ..SimulationReport::default()
        };
        let [missed, dead] = &report.unreached()[..] else {
            panic!("{:?}", report.unreached());
        };
        assert!(missed.starts_with("MISSED: ") && missed.contains("orders_overtake"));
        assert_eq!(dead, "DEAD: fault cut may fire, and never did");
        report.iterations = 1;
        assert!(report.unreached().is_empty());
    }
}
