//! One seed: a fresh world, a process per workload, and the verdict.

use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::plan::Plan;
use super::processes;
use super::verdict::Verdict;
use super::workload::{self, Launch, Progress, Workload};
use crate::chaos::invariants::Invariants;
use crate::chaos::{FaultCounts, FaultId, FaultRecord, StateRegistry};
use crate::error::SimulationError;
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
    /// Every process and its state.
    pub(super) processes: Vec<String>,
    /// Every task that had not ended, and what it waited on.
    pub(super) pending: Vec<String>,
    /// Every fault that fired, the last 100,000 of very many, with what it happened to by name.
    pub(super) faults: Vec<(FaultRecord, String)>,
}

/// Runs `seed`, and records nothing.
pub(super) fn run_seed(plan: &Plan<'_>, seed: u64) -> SeedRun {
    let world = make_world(plan, seed);
    let run = drive(plan, &world);
    closed(world, run)
}

/// Runs `seed`, and tells which faults fired and were not skipped: of very many, the last 100,000.
pub(super) fn run_with_faults(plan: &Plan<'_>, seed: u64) -> (SeedRun, Vec<FaultId>) {
    let world = make_world(plan, seed);
    world.record_faults();
    let run = drive(plan, &world);
    let records = world.fault_records().into_iter();
    let fired = records.filter(|fault| !fault.skipped).map(|fault| fault.id);
    let fired = fired.collect();
    (closed(world, run), fired)
}

/// Runs `seed` with its steps recorded as `mode` says, of those the ones within `window`.
pub(super) fn run_recorded(
    plan: &Plan<'_>,
    seed: u64,
    mode: TraceMode,
    window: Range<u64>,
) -> (SeedRun, Recording) {
    let world = make_world(plan, seed);
    world.set_trace(mode);
    world.set_trace_window(window);
    world.record_faults();
    let run = drive(plan, &world);
    let recording = Recording {
        steps: world.recent_steps(),
        processes: process_states(&world),
        pending: pending_tasks(&world),
        faults: world.named_faults(),
    };
    (closed(world, run), recording)
}

fn make_world(plan: &Plan<'_>, seed: u64) -> SimWorld {
    let world = SimWorld::make(plan.network.of(seed), seed);
    if !plan.skipped_faults.is_empty() {
        world.set_skipped_faults(plan.skipped_faults.iter().copied());
    }
    world
}

/// Runs the workloads in `world` to their end, or to the first failure.
fn drive(plan: &Plan<'_>, world: &SimWorld) -> SeedRun {
    world.set_time_budget(Some(plan.time_budget));
    if let Some(polls) = plan.livelock_limit {
        world.set_livelock_limit(polls);
    }
    let drivers = workload::drivers(plan.workloads);
    let progress = Rc::new(Progress::new(drivers, plan.shutdown_after));
    watch(plan, world, &progress.registry);
    launch(plan, world, &progress);
    processes::start_attrition(plan, world, &progress);
    let verdict = match finish(plan, world, &progress).and_then(|()| settle(world, &progress)) {
        Err(verdict) => verdict,
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

fn launch(plan: &Plan<'_>, world: &SimWorld, progress: &Rc<Progress>) {
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
            topology: plan.places[index].topology(progress),
            progress: Rc::clone(progress),
        });
    }
}

/// Whether everything that was asserted held, and what holds at the end does.
fn settle(world: &SimWorld, progress: &Progress) -> Result<(), Verdict> {
    let failed = |error| Verdict::of(error, || pending_tasks(world));
    world.check_assertions().map_err(failed)?;
    match progress.failure() {
        None => world.check_invariants_at_end().map_err(failed),
        Some(_) => Ok(()),
    }
}

/// Lets the world look at what is published in `registry`.
fn watch(plan: &Plan<'_>, world: &SimWorld, registry: &StateRegistry) {
    match plan.buggify {
        Some(probabilities) => world.set_buggify(probabilities),
        None => world.set_default_buggify(),
    }
    if !plan.invariants.is_empty() {
        let checks = Arc::clone(&plan.invariants);
        world.set_invariants(Invariants::new(registry.clone(), checks));
    }
}

/// Waits until all workloads have returned, or one has failed.
fn finish(plan: &Plan<'_>, world: &SimWorld, progress: &Progress) -> Result<(), Verdict> {
    let over = || poll_fn(|cx| progress.poll(cx));
    let failed = |error| Verdict::of(error, || pending_tasks(world));
    let wind_down = || match progress.failure() {
        None => progress.servers.wind_down(world).map_err(failed),
        Some(_) => Ok(()),
    };
    let Some(phases) = &plan.phases else {
        world.block_on(over()).map_err(failed)?;
        wind_down()?;
        // Whoever the last of them woke, by the shutdown signal for one, still runs; time does not
        // move any more.
        return world.run_until(world.now()).map_err(failed);
    };
    let healed_at = world.draw_phase(&phases.chaos);
    let finished = world.block_on_until(over(), healed_at).map_err(failed)?;
    if progress.failure().is_some() {
        return Ok(());
    }
    world.heal();
    if finished.is_none() {
        finish_in_quiet(plan, world, over(), phases.quiet)?;
    }
    wind_down()?;
    if progress.failure().is_some() {
        return Ok(());
    }
    // The budget is what workloads may use, and they are done.
    world.set_time_budget(None);
    let settled_at = world.now().saturating_add(phases.quiet);
    world.run_until_settled(settled_at).map_err(failed)
}

/// Waits until all workloads have returned, in a world without faults, for `quiet` at most.
fn finish_in_quiet(
    plan: &Plan<'_>,
    world: &SimWorld,
    over: impl Future<Output = ()>,
    quiet: Duration,
) -> Result<(), Verdict> {
    let healed_at = world.now();
    let limit = healed_at.saturating_add(quiet);
    let in_time = limit <= plan.time_budget;
    world.set_time_budget(Some(limit.min(plan.time_budget)));
    let finished = world.block_on(over);
    world.set_time_budget(Some(plan.time_budget));
    finished.map_err(|error| match error {
        SimulationError::TimeBudget { .. } if in_time => Verdict::Liveness {
            healed_at,
            quiet,
            waiting: pending_tasks(world),
        },
        other => Verdict::of(other, || pending_tasks(world)),
    })
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

/// Every process, and how it was at the end.
fn process_states(world: &SimWorld) -> Vec<String> {
    let processes = world.all_processes();
    let described = processes.iter().map(|process| {
        let (name, ip, state) = (process.name(), process.ip(), process.state_name());
        format!("{name} {ip} {state}")
    });
    described.collect()
}
