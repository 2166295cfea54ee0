//! One seed: a fresh world, a process per workload, and the verdict.

use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use super::verdict::Verdict;
use super::workload::{Launch, Progress, Workload};
use crate::chaos::invariants::Invariants;
use crate::chaos::{FaultCounts, FaultRecord, StateRegistry};
use crate::error::SimulationResult;
use crate::sim::{Leftovers, SimProcess, SimWorld, SiteCounts, TraceMode, TraceStep};

/// One run of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeedRun {
    pub(super) digest: u64,
    pub(super) verdict: Verdict,
    pub(super) simulated_time: Duration,
    pub(super) events_processed: u64,
    pub(super) leftovers: Leftovers,
    pub(super) faults: FaultCounts,
    /// How often assertions and `buggify!` sites were reached.
    pub(super) sites: SiteCounts,
}

/// What a run left for people to read.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) steps: Vec<TraceStep>,
    /// Every task that had not ended, and what it waited on.
    pub(super) pending: Vec<String>,
    /// Every fault that fired, the last 100,000 of very many.
    pub(super) faults: Vec<FaultRecord>,
}

/// Runs `seed`, and records nothing.
pub(super) fn run_seed(plan: &Plan<'_>, seed: u64) -> SeedRun {
    let world = SimWorld::make(plan.network.clone(), seed);
    let run = drive(plan, &world);
    closed(world, run)
}

/// Runs `seed` with its steps recorded as `mode` says, of those the ones within `window`.
pub(super) fn run_recorded(
    plan: &Plan<'_>,
    seed: u64,
    mode: TraceMode,
    window: Range<u64>,
) -> (SeedRun, Recording) {
    let world = SimWorld::make(plan.network.clone(), seed);
    world.set_trace(mode);
    world.set_trace_window(window);
    world.record_faults();
    let run = drive(plan, &world);
    let recording = Recording {
        steps: world.recent_steps(),
        pending: pending_tasks(&world),
        faults: world.fault_records(),
    };
    (closed(world, run), recording)
}

/// Runs the workloads in `world` to their end, or to the first failure.
fn drive(plan: &Plan<'_>, world: &SimWorld) -> SeedRun {
    world.set_time_budget(Some(plan.time_budget));
    if let Some(polls) = plan.livelock_limit {
        world.set_livelock_limit(polls);
    }
    world.set_buggify(plan.buggify);
    let progress = Rc::new(Progress::new(plan.workloads.len(), plan.shutdown_after));
    let registry = StateRegistry::new();
    if !plan.invariants.is_empty() {
        let checks = Arc::clone(&plan.invariants);
        world.set_invariants(Invariants::new(registry.clone(), checks));
    }
    launch(plan, world, &progress, &registry);
    let verdict = match finish(world, &progress) {
        Err(error) => Verdict::of(error, || pending_tasks(world)),
        Ok(()) => match progress.failure() {
            None => Verdict::Passed,
            Some((index, message)) => Verdict::WorkloadError {
                workload: plan.workloads[index].name.to_string(),
                message,
            },
        },
    };
    SeedRun {
        digest: world.digest(),
        verdict,
        simulated_time: world.now(),
        events_processed: world.events_processed(),
        leftovers: world.leftovers(),
        faults: world.fault_counts(),
        sites: world.take_site_counts(),
    }
}

fn launch(plan: &Plan<'_>, world: &SimWorld, progress: &Rc<Progress>, registry: &StateRegistry) {
    // All processes first: the name of each resolves for whoever runs before it.
    let processes: Vec<SimProcess> = plan
        .workloads
        .iter()
        .map(|workload| world.add_process(&workload.name))
        .collect();
    for (index, workload) in plan.workloads.iter().enumerate() {
        Workload::launch(Launch {
            workload,
            index,
            process: &processes[index],
            topology: plan.places[index].topology(&progress.shutdown, registry),
            progress: Rc::clone(progress),
        });
    }
}

/// Waits until all workloads have returned, or one has failed. Whoever the last of them woke, by the
/// shutdown signal for one, still runs; time does not move any more.
fn finish(world: &SimWorld, progress: &Progress) -> SimulationResult<()> {
    world.block_on(poll_fn(|cx| progress.poll(cx)))?;
    world.run_until(world.now())?;
    world.check_assertions()?;
    match progress.has_failed() {
        true => Ok(()),
        false => world.check_invariants_at_end(),
    }
}

/// Ends the world. A destructor that panics then fails a seed that has passed so far.
fn closed(world: SimWorld, mut run: SeedRun) -> SeedRun {
    if let Err(panic) = world.close()
        && run.verdict.is_passed()
    {
        run.verdict = Verdict::of(panic, Vec::new);
    }
    run
}

fn pending_tasks(world: &SimWorld) -> Vec<String> {
    let tasks = world.pending_tasks();
    tasks.iter().map(ToString::to_string).collect()
}
