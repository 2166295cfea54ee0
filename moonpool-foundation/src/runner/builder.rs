//! [`SimulationBuilder`]: what to run, on which seeds, and how closely to look.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::future::Future;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checks::Checks;
use super::environment::{Check, Environment};
use super::error::RunError;
use super::execution::{self, Execution};
use super::metrics::SimulationMetrics;
use super::phases::Phases;
use super::plan::{Network, Plan, Seeds, Shard};
use super::regressions::{RegressionFile, Regressions};
use super::replay::Invocation;
use super::report::SimulationReport;
use super::topology::WorkloadTopology;
use super::workload::{self, ShutdownAfter, Workload};
use crate::chaos::{Attrition, FaultId};
use crate::error::SimulationResult;
use crate::network::NetworkConfiguration;
use crate::network::sim::SimNetworkProvider;
use crate::providers::{Providers, SimProviders};
use crate::random::SimRandomProvider;
use crate::task::SimTaskProvider;
use crate::time::SimTimeProvider;

/// How long a campaign goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IterationControl {
    /// This many seeds.
    FixedCount(usize),
    /// As many seeds as begin within this real time, and one at least. It stops between seeds, never
    /// inside one. How many that are depends on the machine; what each comes to does not.
    TimeLimit(Duration),
    /// Until every `sometimes_assert!` that is required has been true once, and this many seeds at
    /// most. The last seed is the first, in order, with which all have been.
    UntilAllSometimesReached(usize),
}

/// Seeds that run if nothing is said: enough for most interleavings of a small test.
const DEFAULT_ITERATIONS: usize = 100;
/// Virtual time that a seed may use if nothing is said.
const DEFAULT_TIME_BUDGET: Duration = Duration::from_secs(3600);

/// Runs workloads in simulation, once per seed, and reports.
///
/// Each seed gets a world of its own, with one process per workload: named as registered, with the
/// addresses 10.0.0.1 upward. A seed ends when all workloads have returned, or at the first failure;
/// a failing seed does not end the campaign. Several seeds run at once, one per core unless told
/// otherwise; the report is the same however many.
///
/// # Environment
/// These go before what the builder was told:
///
/// | variable | takes |
/// | --- | --- |
/// | `MOONPOOL_SEED` | one seed, or several separated by commas: nothing else runs |
/// | `MOONPOOL_ITERATIONS` | how many seeds to run, from the first one upward; a list of debug seeds stays as it is |
/// | `MOONPOOL_TIME_LIMIT` | real time within which seeds begin: `90` (seconds), `500ms`, `10m`, `2h`; with `MOONPOOL_ITERATIONS`, whichever ends first |
/// | `MOONPOOL_SHARD` | `i/n`: only every n-th seed runs, from the i-th on, so that the n shards together run each seed once, and check the same ones |
/// | `MOONPOOL_SKIP_FAULTS` | faults as a failure prints them, `kind#ordinal` separated by commas: these do not happen |
/// | `MOONPOOL_JOBS` | how many seeds to run at once |
/// | `MOONPOOL_MINIMIZE` | `1`: faults that the first failure does not need are looked for, by up to 500 runs of it without some; the command to replay it skips them |
/// | `MOONPOOL_CHECK` | `all`, `sampled` or `off`: see [`Check`] |
/// | `MOONPOOL_TRACE` | a directory: the steps of failing seeds, and of those that `MOONPOOL_SEED` names, are written there as JSON lines (`.jsonl`) and for Perfetto (`.trace.json`) |
///
/// # Example
/// ```
/// use moonpool_foundation::{
///     NetworkProvider, SimulationBuilder, SimulationMetrics, TcpListenerTrait, TimeProvider,
/// };
/// use std::time::Duration;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// let report = SimulationBuilder::new()
///     .with_seed_range(0..20)
///     .register_workload("server", |_random, network, _time, _task, topology| async move {
///         let listener = network.bind(&format!("{}:80", topology.my_ip)).await?;
///         let (mut stream, _) = listener.accept().await?;
///         let byte = stream.read_u8().await?;
///         stream.write_u8(byte).await?;
///         Ok(SimulationMetrics::default())
///     })
///     .register_workload("client", |_random, network, time, _task, _topology| async move {
///         time.sleep(Duration::from_millis(1)).await;
///         let mut stream = network.connect("server:80").await?;
///         stream.write_u8(7).await?;
///         assert_eq!(stream.read_u8().await?, 7);
///         Ok(SimulationMetrics::default())
///     })
///     .run();
/// report.assert_passed();
/// ```
#[derive(Debug)]
#[must_use = "nothing runs before `run` is called"]
pub struct SimulationBuilder {
    pub(super) workloads: Vec<Workload>,
    network: Network,
    first_seed: u64,
    control: IterationControl,
    debug_seeds: Option<Vec<u64>>,
    jobs: Option<NonZeroUsize>,
    check: Check,
    time_budget: Duration,
    livelock_limit: Option<u64>,
    shutdown_after: ShutdownAfter,
    phases: Option<Phases>,
    pub(super) attrition: Option<Attrition>,
    skipped_faults: BTreeSet<FaultId>,
    regressions: Regressions,
    stop_on_failure: bool,
    pub(super) checks: Checks,
}

impl Default for SimulationBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulationBuilder {
    /// No workload, seeds 0 to 99, the default network.
    pub fn new() -> Self {
        Self {
            workloads: Vec::new(),
            network: Network::Fixed(Box::default()),
            first_seed: 0,
            control: IterationControl::FixedCount(DEFAULT_ITERATIONS),
            debug_seeds: None,
            jobs: None,
            check: Check::default(),
            time_budget: DEFAULT_TIME_BUDGET,
            livelock_limit: None,
            shutdown_after: ShutdownAfter::default(),
            phases: None,
            attrition: None,
            skipped_faults: BTreeSet::new(),
            regressions: Regressions::default(),
            stop_on_failure: false,
            checks: Checks::default(),
        }
    }

    /// Adds a workload: a driver that runs in a process of its own and returns when its part is done.
    ///
    /// `name` is its process's: `name:port` reaches it. Names are unique.
    #[track_caller]
    pub fn register_workload<F, Fut>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        workload: F,
    ) -> Self
    where
        F: Fn(
                SimRandomProvider,
                SimNetworkProvider,
                SimTimeProvider,
                SimTaskProvider,
                WorkloadTopology,
            ) -> Fut
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        self.checks.note_workload::<F>();
        self.add_workload(name.into(), move |providers: SimProviders, topology| {
            workload(
                providers.random().clone(),
                providers.network().clone(),
                providers.time().clone(),
                providers.task().clone(),
                topology,
            )
        })
    }

    /// Adds a workload named `workload-1`, `workload-2` ... by its place; see
    /// [`register_workload`](Self::register_workload).
    #[track_caller]
    pub fn with_workload<F, Fut>(self, workload: F) -> Self
    where
        F: Fn(
                SimRandomProvider,
                SimNetworkProvider,
                SimTimeProvider,
                SimTaskProvider,
                WorkloadTopology,
            ) -> Fut
            + Send
            + Sync
            + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let name = format!("workload-{}", workload::drivers(&self.workloads) + 1);
        self.register_workload(name, workload)
    }

    /// Adds a workload that was written for both worlds, with one type parameter for all providers.
    ///
    /// ```
    /// use moonpool_foundation::{
    ///     Providers, SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult,
    ///     TimeProvider, WorkloadTopology,
    /// };
    /// use std::time::Duration;
    ///
    /// async fn pause<P: Providers>(
    ///     providers: P,
    ///     _topology: WorkloadTopology,
    /// ) -> SimulationResult<SimulationMetrics> {
    ///     providers.time().sleep(Duration::from_secs(60)).await;
    ///     Ok(SimulationMetrics::default())
    /// }
    ///
    /// SimulationBuilder::new()
    ///     .register_providers_workload("pause", pause::<SimProviders>)
    ///     .run()
    ///     .assert_passed();
    /// ```
    #[track_caller]
    pub fn register_providers_workload<F, Fut>(
        mut self,
        name: impl Into<Cow<'static, str>>,
        workload: F,
    ) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        self.checks.note_workload::<F>();
        self.add_workload(name.into(), workload)
    }

    #[track_caller]
    fn add_workload<F, Fut>(mut self, name: Cow<'static, str>, workload: F) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let workload = Workload::new(name, Location::caller(), workload);
        self.workloads.push(workload);
        self
    }

    /// Runs the seeds of `range`, in order.
    pub fn with_seed_range(mut self, range: Range<u64>) -> Self {
        self.first_seed = range.start;
        let count = range.end.saturating_sub(range.start);
        self.set_iterations(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Runs `iterations` seeds, from the first one of the seed range (or 0) upward.
    pub fn set_iterations(self, iterations: usize) -> Self {
        self.set_iteration_control(IterationControl::FixedCount(iterations))
    }

    /// Says how long the campaign goes on.
    pub fn set_iteration_control(mut self, control: IterationControl) -> Self {
        self.control = control;
        self
    }

    /// Runs as many seeds as begin within `limit` of real time; see [`IterationControl::TimeLimit`].
    pub fn set_time_limit(self, limit: Duration) -> Self {
        self.set_iteration_control(IterationControl::TimeLimit(limit))
    }

    /// Lets [`run`](Self::run) go on until every required `sometimes_assert!` has been true once, for
    /// `max` seeds at most; see [`IterationControl::UntilAllSometimesReached`].
    pub fn run_until_all_sometimes_reached(self, max: usize) -> Self {
        self.set_iteration_control(IterationControl::UntilAllSometimesReached(max))
    }

    /// Runs these seeds and no others, in this order.
    pub fn set_debug_seeds(mut self, seeds: Vec<u64>) -> Self {
        self.debug_seeds = Some(seeds);
        self
    }

    /// Runs `jobs` seeds at once; 0 stands for one per core, which is the default.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = NonZeroUsize::new(jobs);
        self
    }

    /// Which seeds run twice.
    pub fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// The simulated network.
    pub fn with_network_config(mut self, config: NetworkConfiguration) -> Self {
        self.network = Network::Fixed(Box::new(config));
        self
    }

    /// Draws the network of each seed: a random subset of the kinds of faults, with random rates
    /// ([`NetworkConfiguration::swarm_for_seed`]). A failure prints what was drawn.
    pub fn use_random_config(mut self) -> Self {
        self.network = Network::Swarm;
        self
    }

    /// Virtual time that a seed may use; one hour by default. A seed that wants more fails with
    /// [`Verdict::TimeBudget`](crate::Verdict::TimeBudget).
    pub fn set_time_budget(mut self, budget: Duration) -> Self {
        self.time_budget = budget;
        self
    }

    /// How often one task may be polled at one instant; a million times by default. A seed in which
    /// one is polled more often fails with [`Verdict::Livelock`](crate::Verdict::Livelock).
    pub fn set_livelock_limit(mut self, polls: u64) -> Self {
        self.livelock_limit = Some(polls);
        self
    }

    /// Lets faults end after a while, and asks the workloads to finish then; without it they last as
    /// long as the seed.
    pub fn phases(mut self, phases: Phases) -> Self {
        self.phases = Some(phases);
        self
    }

    /// Skips these faults in every seed: they are drawn and take their ordinals, but do not happen.
    pub fn skip_faults(mut self, faults: impl IntoIterator<Item = FaultId>) -> Self {
        self.skipped_faults = faults.into_iter().collect();
        self
    }

    /// Where the first failing seed is kept if the test fails, to run before all others next time.
    ///
    /// By default, in a test, that is beside the source file that calls [`run`](Self::run): the file
    /// has its name with the extension `moonpool-regressions`, and is meant to be committed. A seed is
    /// added when the report is dropped by a panic - that of
    /// [`assert_passed`](SimulationReport::assert_passed) or of any other assertion - so that a test
    /// which expects a failure and finds it writes nothing. Nothing is written or read when the seeds
    /// are given, by `MOONPOOL_SEED` or [`set_debug_seeds`](Self::set_debug_seeds), and nothing is
    /// written under `MOONPOOL_SKIP_FAULTS`. With shards, the first of them runs the kept seeds.
    pub fn regressions(mut self, regressions: Regressions) -> Self {
        self.regressions = regressions;
        self
    }

    /// Ends the campaign with the first seed that fails, in order; later seeds are not reported.
    pub fn stop_on_failure(mut self) -> Self {
        self.stop_on_failure = true;
        self
    }

    /// Lets the shutdown signal fire when the last workload has returned, not the first. Tasks that
    /// workloads left behind still run then, at that instant.
    pub fn shutdown_after_all(mut self) -> Self {
        self.shutdown_after = ShutdownAfter::All;
        self
    }

    /// Runs the campaign; blocks until it is over. If a seed failed, prints what happened in the
    /// first of them and the command that replays it.
    ///
    /// # Panics
    /// With the text of a [`RunError`], if the campaign cannot start: an environment variable has a
    /// value that it does not take (the text names it and what it takes), the network configuration
    /// is invalid, or there is no workload or no seed. [`try_run`](Self::try_run) returns it.
    #[track_caller]
    #[expect(clippy::panic, reason = "for tests; `try_run` returns the error")]
    pub fn run(&self) -> SimulationReport {
        match self.try_run() {
            Ok(report) => report,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs the campaign, as [`run`](Self::run) does.
    ///
    /// # Errors
    /// Why it cannot start. Seeds that fail are no error: the report tells.
    #[track_caller]
    pub fn try_run(&self) -> Result<SimulationReport, RunError> {
        let lookup = |variable: &str| std::env::var_os(variable);
        self.run_in(Location::caller(), lookup)
    }

    /// Runs the campaign in an environment whose variables `lookup` gives.
    fn run_in(
        &self,
        caller: &Location<'_>,
        lookup: impl Fn(&str) -> Option<OsString>,
    ) -> Result<SimulationReport, RunError> {
        let environment = Environment::read(&lookup)?;
        execution::warn_of_unknown_variables();
        let trace = environment.trace.clone();
        let replayed = environment.seeds.clone();
        let minimize = environment.minimize;
        let is_exploring = environment.skip_faults.is_some();
        let plan = self.plan(environment)?;
        let invocation = Invocation::current(&lookup);
        let manifest_dir = lookup("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let mut regressions = self.regression_file(&plan, &invocation, caller, manifest_dir);
        if replayed.is_some() || self.debug_seeds.is_some() {
            regressions = None;
        }
        let kept_seeds = match &regressions {
            Some(file) if plan.shard.is_first() => file.seeds()?,
            _ => Vec::new(),
        };
        let execution = Execution {
            plan: &plan,
            trace,
            minimize,
            replayed: replayed.unwrap_or_default(),
            invocation,
            regressions: regressions.filter(|_| !is_exploring),
            kept_seeds,
        };
        Ok(execution.run())
    }

    fn regression_file(
        &self,
        plan: &Plan<'_>,
        invocation: &Invocation,
        caller: &Location<'_>,
        manifest_dir: Option<PathBuf>,
    ) -> Option<RegressionFile> {
        let path = match &self.regressions {
            Regressions::Off => return None,
            Regressions::File(path) => path.clone(),
            Regressions::BesideSource => {
                RegressionFile::beside(Path::new(caller.file()), &manifest_dir?)?
            }
        };
        let test = invocation.test_name()?;
        Some(RegressionFile::new(path, test, plan.fingerprint()))
    }

    pub(super) fn plan(&self, environment: Environment) -> Result<Plan<'_>, RunError> {
        check_names(&self.workloads)?;
        if let Some(phases) = &self.phases {
            phases.validate()?;
        }
        if let Some(attrition) = &self.attrition {
            attrition.validate()?;
        }
        let jobs = environment.jobs.or(self.jobs);
        let jobs = jobs.or_else(|| std::thread::available_parallelism().ok());
        let mut plan = Plan::new(&self.workloads, &self.network)?;
        plan.seeds = self.seeds(&environment)?;
        if environment.seeds.is_none() {
            plan.shard = environment.shard.unwrap_or(Shard::WHOLE);
            plan.time_limit = environment.time_limit.or(self.time_limit(&environment));
        }
        plan.jobs = jobs.map_or(1, NonZeroUsize::get);
        plan.check = environment.check.unwrap_or(self.check);
        plan.time_budget = self.time_budget;
        plan.livelock_limit = self.livelock_limit;
        plan.shutdown_after = self.shutdown_after;
        plan.phases = self.phases.clone();
        plan.attrition = self.attrition.clone();
        let skipped = environment.skip_faults;
        plan.skipped_faults = skipped.unwrap_or_else(|| self.skipped_faults.clone());
        plan.stop_on_failure = self.stop_on_failure;
        let is_part = environment.seeds.is_some() || plan.shard != Shard::WHOLE;
        self.checks.apply(&mut plan, is_part);
        Ok(plan)
    }

    /// The builder's own time limit, unless a number of seeds goes before it.
    fn time_limit(&self, environment: &Environment) -> Option<Duration> {
        match self.control {
            IterationControl::TimeLimit(limit) if environment.iterations.is_none() => Some(limit),
            _ => None,
        }
    }

    fn seeds(&self, environment: &Environment) -> Result<Seeds, RunError> {
        let listed = environment.seeds.as_ref().or(self.debug_seeds.as_ref());
        if let Some(seeds) = listed {
            return match seeds.as_slice() {
                [] => Err(RunError::NoSeeds),
                seeds => Ok(Seeds::List(seeds.to_vec())),
            };
        }
        let first = self.first_seed;
        let count = match (environment.iterations, environment.time_limit, self.control) {
            (Some(iterations), _, _) => iterations.get(),
            (None, _, IterationControl::UntilAllSometimesReached(max)) => max,
            (None, Some(_), _) | (None, None, IterationControl::TimeLimit(_)) => {
                return Ok(Seeds::Range(first..u64::MAX));
            }
            (None, None, IterationControl::FixedCount(count)) => count,
        };
        if count == 0 {
            return Err(RunError::NoSeeds);
        }
        match first.checked_add(count as u64) {
            Some(end) => Ok(Seeds::Range(first..end)),
            None => Err(RunError::TooManySeeds {
                first,
                iterations: count,
            }),
        }
    }
}

/// A workload's name is its host's: unique, and usable in `name:port`.
fn check_names(workloads: &[Workload]) -> Result<(), RunError> {
    if workload::drivers(workloads) == 0 {
        return Err(RunError::NoWorkloads);
    }
    for (index, workload) in workloads.iter().enumerate() {
        let name = &workload.name;
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.contains(':') {
            "a colon parts host and port, so it cannot be in a host's name"
        } else if name == "world" || name == "localhost" {
            "that host exists already"
        } else if workloads[..index].iter().any(|other| other.name == *name) {
            "it is registered twice"
        } else {
            continue;
        };
        return Err(RunError::WorkloadName {
            name: name.to_string(),
            reason,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok() -> SimulationBuilder {
        SimulationBuilder::new()
            .with_workload(|_, _, _, _, _| async { Ok(SimulationMetrics::default()) })
    }

    fn run(builder: &SimulationBuilder, variables: &[(&str, &str)]) -> Result<Vec<u64>, RunError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(*value))
        };
        builder
            .run_in(Location::caller(), lookup)
            .map(|report| report.seeds_used)
    }

    #[test]
    fn seeds_come_from_the_environment_then_the_list_then_the_range() {
        let range = ok().with_seed_range(5..8);
        assert_eq!(run(&range, &[]), Ok(vec![5, 6, 7]));
        assert_eq!(
            run(&range, &[("MOONPOOL_ITERATIONS", "4")]),
            Ok(vec![5, 6, 7, 8])
        );
        assert_eq!(run(&range, &[("MOONPOOL_SEED", "17,3")]), Ok(vec![17, 3]));
        let listed = range.set_debug_seeds(vec![9, 2]);
        assert_eq!(run(&listed, &[]), Ok(vec![9, 2]));
        assert_eq!(run(&listed, &[("MOONPOOL_SEED", "1")]), Ok(vec![1]));
        assert_eq!(run(&ok(), &[]).map(|seeds| seeds.len()), Ok(100));
        assert_eq!(run(&ok().set_iterations(3), &[]), Ok(vec![0, 1, 2]));
    }

    #[test]
    fn shards_together_run_every_seed_once() {
        let whole = ok().with_seed_range(10..17);
        let shard = |value| run(&whole, &[("MOONPOOL_SHARD", value)]);
        assert_eq!(shard("1/3"), Ok(vec![10, 13, 16]));
        assert_eq!(shard("2/3"), Ok(vec![11, 14]));
        assert_eq!(shard("3/3"), Ok(vec![12, 15]));
        // A part of a small campaign can be empty.
        assert_eq!(shard("9/9"), Ok(vec![]));
        let replay = [("MOONPOOL_SHARD", "2/2"), ("MOONPOOL_SEED", "5")];
        assert_eq!(run(&whole, &replay), Ok(vec![5]));
    }

    #[test]
    fn the_replay_of_a_minimised_failure_skips_what_it_does_not_need() {
        let builder = SimulationBuilder::new()
            .set_iterations(1)
            .with_network_config(NetworkConfiguration::disabled())
            .process("victim", |_, _| std::future::pending())
            .register_workload("killer", |_, _, _, _, topology| async move {
                let world = topology.world().unwrap();
                let victim = world.process("victim").unwrap().id();
                let kill = || {
                    let killed = world.kill(victim, crate::KillKind::Crash);
                    world.restart(victim);
                    killed
                };
                let killed = [kill(), kill(), kill()];
                match killed[1] {
                    true => Err(crate::SimulationError::workload("the second kill")),
                    false => Ok(SimulationMetrics::default()),
                }
            });
        let lookup = |name: &str| (name == "MOONPOOL_MINIMIZE").then(|| "1".into());
        let report = builder.run_in(Location::caller(), lookup).unwrap();
        let replay = report.replay_command.clone().unwrap_or_default();
        assert!(
            replay.starts_with("MOONPOOL_SEED=0 MOONPOOL_SKIP_FAULTS='kill#1,kill#3' "),
            "{replay}"
        );
    }

    /// Attrition strikes again where a strike is skipped, beyond the last of the first run.
    #[test]
    fn a_minimised_failure_under_attrition_still_has_the_reboot_that_it_needs() {
        let builder = SimulationBuilder::new()
            .set_iterations(1)
            .with_network_config(NetworkConfiguration::disabled())
            .attrition(crate::Attrition {
                probability: 0.5,
                kinds: vec![crate::AttritionKind::Reboot, crate::AttritionKind::Pause],
                ..crate::Attrition::default()
            })
            .process("victim", |_, _| std::future::pending())
            .register_workload("client", |_, _, time, _, topology| async move {
                let world = topology.world().unwrap();
                let victim = world.process("victim").unwrap();
                for _ in 0..6_000 {
                    crate::TimeProvider::sleep(&time, Duration::from_millis(10)).await;
                    if !victim.is_alive() {
                        return Err(crate::SimulationError::workload("the victim is dead"));
                    }
                }
                Ok(SimulationMetrics::default())
            });
        let lookup = |name: &str| (name == "MOONPOOL_MINIMIZE").then(|| "1".into());
        let minimised = builder.run_in(Location::caller(), lookup).unwrap();
        let replay = minimised.replay_command.unwrap_or_default();
        let skipped = replay.split("MOONPOOL_SKIP_FAULTS=").nth(1);
        let skipped = skipped.and_then(|rest| rest.split(' ').next());
        let skipped = skipped.unwrap_or_default().trim_matches('\'').to_owned();
        let lookup = |name: &str| (name == "MOONPOOL_SKIP_FAULTS").then(|| (&skipped).into());
        let replayed = match skipped.as_str() {
            "" => builder.run(),
            _ => builder.run_in(Location::caller(), lookup).unwrap(),
        };
        assert_eq!(replayed.failed_runs, 1, "{replay}");
        let faults = &replayed.faults;
        assert_eq!(faults.of(crate::FaultKind::Reboot), 1, "{replay}");
        assert_eq!(faults.total(), 1, "{replay}");
    }

    #[test]
    fn a_time_limit_stops_between_seeds_and_lets_one_run() {
        let hasty = ok().set_time_limit(Duration::from_nanos(1));
        assert_eq!(run(&hasty, &[]), Ok(vec![0]));
        let patient = ok().set_time_limit(Duration::MAX);
        assert_eq!(
            run(&patient, &[("MOONPOOL_ITERATIONS", "3")]),
            Ok(vec![0, 1, 2])
        );
        let both = [
            ("MOONPOOL_ITERATIONS", "3"),
            ("MOONPOOL_TIME_LIMIT", "1000h"),
        ];
        assert_eq!(run(&ok(), &both), Ok(vec![0, 1, 2]));
        let limited = run(&ok(), &[("MOONPOOL_TIME_LIMIT", "1ms")]).unwrap();
        let unbroken: Vec<u64> = (0..).take(limited.len()).collect();
        assert_eq!(limited, unbroken);
    }

    #[test]
    fn a_range_without_end_starts_at_once_and_stops_at_a_failure() {
        let failing = || {
            SimulationBuilder::new()
                .register_workload("failing", |_, _, _, _, _| async {
                    Err(crate::SimulationError::workload("as expected"))
                })
                .stop_on_failure()
                .jobs(1)
        };
        let endless = failing().with_seed_range(7..u64::MAX);
        assert_eq!(run(&endless, &[]), Ok(vec![7]));
        let iterations = u64::MAX.to_string();
        assert_eq!(
            run(&failing(), &[("MOONPOOL_ITERATIONS", &iterations)]),
            Ok(vec![0])
        );
    }

    #[test]
    fn a_campaign_that_cannot_start_says_why() {
        assert_eq!(
            run(&SimulationBuilder::new(), &[]),
            Err(RunError::NoWorkloads)
        );
        assert_eq!(
            run(&ok().with_seed_range(3..3), &[]),
            Err(RunError::NoSeeds)
        );
        assert_eq!(
            run(&ok().set_debug_seeds(vec![]), &[]),
            Err(RunError::NoSeeds)
        );
        let beyond = ok()
            .with_seed_range(u64::MAX - 1..u64::MAX)
            .set_iterations(5);
        assert_eq!(
            run(&beyond, &[]),
            Err(RunError::TooManySeeds {
                first: u64::MAX - 1,
                iterations: 5
            })
        );
        let environment = run(&ok(), &[("MOONPOOL_JOBS", "many")]);
        assert!(matches!(
            environment,
            Err(RunError::Environment {
                variable: "MOONPOOL_JOBS",
                ..
            })
        ));
        let config = NetworkConfiguration {
            send_buffer_bytes: Some(0),
            ..NetworkConfiguration::default()
        };
        let network = run(&ok().with_network_config(config), &[]);
        assert!(matches!(network, Err(RunError::Network(_))));
    }

    #[test]
    fn names_that_cannot_be_reached_are_refused() {
        for (name, reason) in [
            ("workload-1", "twice"),
            ("", "empty"),
            ("a:b", "colon"),
            ("world", "exists"),
        ] {
            let builder = ok().register_workload(name, |_, _, _, _, _| async {
                Ok(SimulationMetrics::default())
            });
            let error = run(&builder, &[]).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
