//! Many seeds at once: whatever the number of threads, one report.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::coverage::{Coverage, SiteResults};
use super::merging::{Batch, Merged};
use super::metrics::SimulationMetrics;
use super::orchestrator::{self, SeedRun};
use super::plan::Plan;
use super::progress::SeedProgress;
use super::report::SeedReport;
use super::verdict::{Divergence, Nondeterminism, Verdict};
use crate::sim::SiteCounts;

/// Seeds that a worker is given at once, at most: what it hands over then is handed over under a lock.
const MAX_BATCH: usize = 64;
/// About how long it may take to run them: so long a campaign may be longer than its time limit, and
/// so old what its progress shows.
const BATCH_TIME: Duration = Duration::from_millis(1);
/// Batches that each worker should still get: the last ones are small, so that nobody waits long for
/// the others at the end.
const BATCHES_LEFT: usize = 4;

/// Runs every seed of `plan`, or those up to the first failure if it says so. The reports are in
/// the order of the seeds.
pub(super) fn run(plan: &Plan<'_>) -> (Vec<SeedReport>, SiteResults) {
    let queue = Queue::new(plan);
    let jobs = plan.jobs.min(plan.seeds.len());
    if jobs <= 1 {
        undisturbed(|| work(plan, &queue));
    } else {
        side_by_side(plan, &queue, jobs);
    }
    let merged = queue.merged.into_inner();
    merged.unwrap_or_else(PoisonError::into_inner).finish()
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
    merged: Mutex<Merged>,
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
        let coverage = Coverage::new(plan.coverage.clone(), plan.stops_when_covered);
        Self {
            turn: AtomicUsize::new(0),
            stop_at: AtomicUsize::new(usize::MAX),
            merged: Mutex::new(Merged::new(coverage)),
            progress: SeedProgress::begin(plan.seeds_to_run()),
            began: Instant::now(),
            time_limit: plan.time_limit,
        }
    }

    /// The next turns, for a worker that can run `quick` seeds in a batch's time, or `None` if none is
    /// to begin any more. Turns are given out in order and each that is given out and has a seed is
    /// run, so all before one that ends the campaign are.
    fn next(&self, plan: &Plan<'_>, quick: usize) -> Option<Range<usize>> {
        // A campaign without seeds would pass whatever the code does, so the first always runs.
        let begun = self.turn.load(Ordering::Relaxed);
        if begun > 0 && self.is_time_up() {
            return None;
        }
        let left = plan.turns().saturating_sub(begun);
        // Within a batch nobody looks at the clock: seeds may become slower than those before them.
        let seeds = match plan.may_end_early() || self.time_limit.is_some() {
            true => 1,
            false => batch_size(left, plan.jobs, quick),
        };
        let first = self.turn.fetch_add(seeds, Ordering::Relaxed);
        Some(first..first + seeds)
    }

    /// The position and the seed of a turn, or `None` if none is to be run any more.
    fn seed(&self, plan: &Plan<'_>, turn: usize) -> Option<(usize, u64)> {
        let position = plan.shard.position(turn)?;
        if position > self.stop_at.load(Ordering::Acquire) {
            return None;
        }
        Some((position, plan.seeds.get(position)?))
    }

    /// Adds what seeds came to. Those beyond the end of the campaign add nothing.
    fn hand_over(&self, batch: &mut Batch) {
        let seeds = batch.reports().len();
        let is_failed = |seed: &&SeedReport| !seed.verdict.is_passed();
        let failed = batch.reports().iter().filter(is_failed).count();
        let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
        merged.add(batch, self.stop_at.load(Ordering::Acquire));
        if let Some(last) = merged.stop_at() {
            self.stop_at.fetch_min(last, Ordering::AcqRel);
        }
        let reached = merged.reached();
        drop(merged);
        self.progress.seeds_done(seeds, failed, reached);
    }

    fn is_time_up(&self) -> bool {
        self.time_limit
            .is_some_and(|limit| self.began.elapsed() >= limit)
    }
}

/// How many of the seeds that are `left` a worker is given that can run `quick` of them in time.
fn batch_size(left: usize, jobs: usize, quick: usize) -> usize {
    let fair = left / jobs.saturating_mul(BATCHES_LEFT).max(1);
    fair.min(quick).clamp(1, MAX_BATCH)
}

fn side_by_side(plan: &Plan<'_>, queue: &Queue, jobs: usize) {
    let log = current_log();
    thread::scope(|scope| {
        let spawn = || scope.spawn(|| with_log(&log, || work(plan, queue)));
        let workers: Vec<_> = (0..jobs).map(|_| spawn()).collect();
        workers.into_iter().for_each(joined);
    });
}

/// Runs seeds until there are none.
#[expect(
    clippy::disallowed_methods,
    reason = "how many seeds are run at once goes by real time; it decides nothing"
)]
fn work(plan: &Plan<'_>, queue: &Queue) {
    let mut batch = Batch::default();
    let mut quick = 1;
    while let Some(turns) = queue.next(plan, quick) {
        let began = Instant::now();
        batch.begin(turns.start);
        for turn in turns {
            let Some((position, seed)) = queue.seed(plan, turn) else {
                break;
            };
            let (report, counts) = judge(plan, position, seed);
            if plan.stop_on_failure && !report.verdict.is_passed() {
                queue.stop_at.fetch_min(position, Ordering::AcqRel);
            }
            batch.add(position, report, &counts);
        }
        let seeds = batch.reports().len();
        if seeds == 0 {
            return;
        }
        quick = seeds_in_time(seeds, began.elapsed());
        queue.hand_over(&mut batch);
    }
}

/// How many seeds are run in a batch's time, where so many took `elapsed`.
fn seeds_in_time(seeds: usize, elapsed: Duration) -> usize {
    let each = elapsed.as_nanos() / seeds.max(1) as u128;
    usize::try_from(BATCH_TIME.as_nanos() / each.max(1)).unwrap_or(MAX_BATCH)
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
    let leftovers = first.leftovers;
    // Of the first run alone: a second one checks, and adds nothing.
    let faults = std::mem::take(&mut first.faults);
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
