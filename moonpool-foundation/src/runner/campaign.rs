//! Many seeds at once: whatever the number of threads, one report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::coverage::{Coverage, SiteResults};
use super::metrics::SimulationMetrics;
use super::orchestrator::{self, SeedRun};
use super::plan::Plan;
use super::progress::SeedProgress;
use super::report::SeedReport;
use super::verdict::{Divergence, Nondeterminism, Verdict};
use crate::sim::SiteCounts;

/// Runs every seed of `plan`, or those up to the first failure if it says so. The reports are in
/// the order of the seeds.
pub(super) fn run(plan: &Plan<'_>) -> (Vec<SeedReport>, SiteResults) {
    let queue = Queue::new(plan);
    let jobs = plan.jobs.min(plan.seeds.len());
    let mut done = if jobs <= 1 {
        undisturbed(|| work(plan, &queue))
    } else {
        side_by_side(plan, &queue, jobs)
    };
    done.sort_unstable_by_key(|(position, _)| *position);
    let stop_at = queue.stop_at.load(Ordering::Acquire);
    let coverage = queue.coverage.into_inner();
    let coverage = coverage.unwrap_or_else(PoisonError::into_inner);
    let reports = done
        .into_iter()
        // What was run beyond the first failure depends on the number of threads.
        .take_while(|(position, _)| *position <= stop_at)
        .map(|(_, report)| report)
        .collect();
    (reports, coverage.results())
}

/// Calls `f` on this thread, or on another if this one is inside a tokio runtime: there tokio's own
/// timers and sockets would work unnoticed, and no world lets itself be driven.
pub(super) fn undisturbed<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    if tokio::runtime::Handle::try_current().is_err() {
        return f();
    }
    let log = current_log();
    thread::scope(|scope| joined(scope.spawn(|| with_log(&log, f))))
}

/// Seeds to run: whose turn it is, and the position of the last one if that is known.
struct Queue {
    turn: AtomicUsize,
    stop_at: AtomicUsize,
    coverage: Mutex<Coverage>,
    progress: SeedProgress,
    began: Instant,
    time_limit: Option<Duration>,
}

impl Queue {
    #[expect(
        clippy::disallowed_methods,
        reason = "a time limit is real time; it decides how many seeds run, and nothing within one"
    )]
    fn new(plan: &Plan<'_>) -> Self {
        Self {
            turn: AtomicUsize::new(0),
            stop_at: AtomicUsize::new(usize::MAX),
            coverage: Mutex::new(Coverage::new(
                plan.coverage.clone(),
                plan.stops_when_covered,
            )),
            progress: SeedProgress::begin(plan.seeds_to_run()),
            began: Instant::now(),
            time_limit: plan.time_limit,
        }
    }

    /// The next turn, position and seed, or `None` if none is to begin any more. Positions are given
    /// out in order and each that is given out is run, so all before one that ends the campaign are.
    fn next(&self, plan: &Plan<'_>) -> Option<(usize, usize, u64)> {
        // A campaign without seeds would pass whatever the code does, so the first always runs.
        let begun = self.turn.load(Ordering::Relaxed) > 0;
        if begun && self.is_time_up() {
            return None;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let position = plan.shard.position(turn)?;
        if position > self.stop_at.load(Ordering::Acquire) {
            return None;
        }
        Some((turn, position, plan.seeds.get(position)?))
    }

    /// Adds what the sites of a seed came to. Seeds beyond the end of the campaign add nothing.
    /// Tells how many of the required sites have been reached, and how many there are.
    fn cover(&self, turn: usize, position: usize, counts: SiteCounts) -> (usize, usize) {
        let mut coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let stop_at = self.stop_at.load(Ordering::Acquire);
        coverage.add(turn, position, counts, stop_at);
        if let Some(last) = coverage.stop_at() {
            self.stop_at.fetch_min(last, Ordering::AcqRel);
        }
        coverage.reached()
    }

    fn is_time_up(&self) -> bool {
        self.time_limit
            .is_some_and(|limit| self.began.elapsed() >= limit)
    }
}

fn side_by_side(plan: &Plan<'_>, queue: &Queue, jobs: usize) -> Vec<(usize, SeedReport)> {
    let log = current_log();
    thread::scope(|scope| {
        let spawn = || scope.spawn(|| with_log(&log, || work(plan, queue)));
        let workers: Vec<_> = (0..jobs).map(|_| spawn()).collect();
        workers.into_iter().flat_map(joined).collect()
    })
}

/// Runs seeds until there are none, each with its position.
fn work(plan: &Plan<'_>, queue: &Queue) -> Vec<(usize, SeedReport)> {
    let mut done = Vec::new();
    while let Some((turn, position, seed)) = queue.next(plan) {
        let (report, counts) = judge(plan, position, seed);
        if plan.stop_on_failure && !report.verdict.is_passed() {
            queue.stop_at.fetch_min(position, Ordering::AcqRel);
        }
        let reached = queue.cover(turn, position, counts);
        queue
            .progress
            .seed_done(report.verdict.is_passed(), reached);
        done.push((position, report));
    }
    done
}

/// Runs a seed once, or twice if the plan wants it checked.
#[expect(
    clippy::disallowed_methods,
    reason = "what a seed costs is real time; it decides nothing"
)]
fn judge(plan: &Plan<'_>, position: usize, seed: u64) -> (SeedReport, SiteCounts) {
    let began = Instant::now();
    let mut first = orchestrator::run_seed(plan, seed);
    let metrics = SimulationMetrics {
        wall_time: began.elapsed(),
        simulated_time: first.simulated_time,
        events_processed: first.events_processed,
        digest: first.digest,
    };
    let (leftovers, faults) = (first.leftovers, first.faults);
    // Of the first run alone: a second one checks, and adds nothing.
    let counts = std::mem::take(&mut first.sites);
    let verdict = if plan.check.covers(position, first.verdict.is_passed()) {
        compared(first, orchestrator::run_seed(plan, seed))
    } else {
        first.verdict
    };
    let report = SeedReport {
        seed,
        verdict,
        metrics,
        leftovers,
        faults,
    };
    (report, counts)
}

/// The verdict over two runs of one seed.
fn compared(first: SeedRun, second: SeedRun) -> Verdict {
    let is_escape = |run: &SeedRun| matches!(run.verdict, Verdict::Escape { .. });
    // An escape explains by itself why runs differ: another thread's timing is no seed's.
    if is_escape(&first) {
        return first.verdict;
    }
    if is_escape(&second) {
        return second.verdict;
    }
    if (first.digest, &first.verdict) == (second.digest, &second.verdict) {
        return first.verdict;
    }
    Verdict::Nondeterminism(Box::new(Nondeterminism {
        first: (first.digest, first.verdict),
        second: (second.digest, second.verdict),
        divergence: Divergence::NotSearched,
    }))
}

fn joined<T>(worker: thread::ScopedJoinHandle<'_, T>) -> T {
    match worker.join() {
        Ok(result) => result,
        // Not a workload's panic, which is a verdict: ours.
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Where the calling thread logs to: its workers log there too.
fn current_log() -> tracing::Dispatch {
    tracing::dispatcher::get_default(Clone::clone)
}

fn with_log<T>(log: &tracing::Dispatch, f: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(log, f)
}
