//! A campaign from its plan to what is printed: seeds are run, failures are looked at once more, and
//! whoever watches is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::banner::Failure;
use super::coverage::SiteResults;
use super::minimize::Minimised;
use super::plan::Plan;
use super::regressions::{Recorder, RegressionFile};
use super::replay::Invocation;
use super::report::{SeedReport, SimulationReport};
use super::verdict::Verdict;
use super::{campaign, divergence, environment, minimize, orchestrator, trace_files};
use crate::chaos::FaultId;
use crate::sim::TraceMode;

/// A campaign that is about to run.
pub(super) struct Execution<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// Where steps are written.
    pub(super) trace: Option<PathBuf>,
    /// Whether faults that the first failure does not need are looked for.
    pub(super) minimize: bool,
    /// The seeds that `MOONPOOL_SEED` names.
    pub(super) replayed: Vec<u64>,
    pub(super) invocation: Invocation,
    /// Where a failing seed is kept if the test fails.
    pub(super) regressions: Option<RegressionFile>,
    /// Seeds that were kept there; they run first.
    pub(super) kept_seeds: Vec<u64>,
}

impl Execution<'_> {
    /// Runs the campaign, and prints what happened in the first seed that failed.
    #[expect(
        clippy::disallowed_methods,
        reason = "what a campaign costs is real time; it decides nothing"
    )]
    pub(super) fn run(&self) -> SimulationReport {
        let plan = self.plan;
        let began = Instant::now();
        // Kept seeds count nowhere but in their verdicts.
        let (kept, _) = campaign::run(&plan.with_seeds(self.kept_seeds.clone()));
        let kept_run = kept.len();
        let mut sites = SiteResults::default();
        let mut seeds: Vec<SeedReport> = kept
            .into_iter()
            .filter(|seed| !seed.verdict.is_passed())
            .collect();
        if seeds.is_empty() || !plan.stop_on_failure {
            let (campaign, reached) = campaign::run(plan);
            for fault in reached.never_drawn(&plan.skipped_faults) {
                eprintln!("warning: {fault} is to be skipped, and no seed had such a fault");
            }
            sites = reached;
            seeds.retain(|kept| campaign.iter().all(|seed| seed.seed != kept.seed));
            if seeds.is_empty() {
                seeds = campaign;
            } else {
                seeds.extend(campaign);
            }
        }
        let wall_time = began.elapsed();
        let nondeterminism = seeds.iter_mut().find_map(|seed| match &mut seed.verdict {
            Verdict::Nondeterminism(found) => Some((seed.seed, found)),
            _ => None,
        });
        if let Some((seed, found)) = nondeterminism {
            found.divergence = campaign::undisturbed(|| divergence::find(plan, seed));
        }
        let mut report = SimulationReport::of(seeds, sites, wall_time);
        report.regressions_run = kept_run;
        self.trace(&report);
        if let Some(text) = failure(plan, &mut report, &self.invocation) {
            // On the calling thread, whose output libtest captures.
            eprint!("{text}");
        }
        if self.minimize {
            self.minimize(&mut report);
        }
        report.recorder = self.recorder(&report);
        report
    }

    /// Looks for the faults that the first failure needs, and lets its replay skip the others.
    fn minimize(&self, report: &mut SimulationReport) {
        let Some(failed) = report.failures().next() else {
            return;
        };
        let (seed, verdict) = (failed.seed, &failed.verdict);
        let with_skipped = |skipped: &BTreeSet<FaultId>| Plan {
            skipped_faults: self.plan.skipped_faults.union(skipped).copied().collect(),
            ..self.plan.clone()
        };
        // What fired, if it is the same failure.
        let attempt = |skipped: &BTreeSet<FaultId>| {
            let (run, fired) = orchestrator::run_with_faults(&with_skipped(skipped), seed);
            minimize::is_same_failure(&run.verdict, verdict).then_some(fired)
        };
        let found = campaign::undisturbed(|| {
            let fired = attempt(&BTreeSet::new())?;
            let count = fired.len();
            Some((count, minimize::minimised(fired, attempt)))
        });
        let Some((count, found)) = found else {
            eprintln!("not minimised: seed {seed} did not fail in the same way when it ran again");
            return;
        };
        let replay = self
            .invocation
            .replay_command(seed, &with_skipped(&found.skipped).skipped_faults);
        eprintln!("{}\nreplay         {replay}", told(count, &found));
        report.replay_command = Some(replay);
    }

    /// Keeps the first failing seed, should the test fail.
    fn recorder(&self, report: &SimulationReport) -> Recorder {
        let (Some(file), Some(failed)) = (&self.regressions, report.failures().next()) else {
            return Recorder::default();
        };
        let replay = report.replay_command.clone().unwrap_or_default();
        Recorder::new(file.clone(), failed.seed, failed.verdict.name(), replay)
    }

    fn trace(&self, report: &SimulationReport) {
        let Some(dir) = &self.trace else {
            return;
        };
        let failed = report
            .seeds_failing
            .iter()
            .filter(|seed| !self.replayed.contains(seed));
        let traced: Vec<u64> = self.replayed.iter().chain(failed).copied().collect();
        write_traces(self.plan, dir, &traced);
    }
}

/// What a search found, of `fired` faults that fired before it.
fn told(fired: usize, found: &Minimised) -> String {
    let needed: Vec<String> = found.needed.iter().map(ToString::to_string).collect();
    let needed = match needed.as_slice() {
        [] => "none, it fails without any fault".to_owned(),
        needed => needed.join(", "),
    };
    let skipped = found.skipped.len();
    let cut_off = match found.is_cut_off {
        true => " (perhaps fewer: the search was cut off)",
        false => "",
    };
    format!("minimised: {fired} faults fired, {skipped} are skipped; needed: {needed}{cut_off}")
}

/// A variable with a slip of the pen in its name would be obeyed by nobody.
pub(super) fn warn_of_unknown_variables() {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if environment::is_unknown(&name) {
            eprintln!("warning: {name} is no variable of moonpool's, and has no effect");
        }
    }
}

/// Failing seeds whose steps are written to files; each costs another run.
const MAX_TRACES: usize = 16;

/// Writes the steps of `seeds` to files in `dir`, and says where they are. A directory that cannot be
/// written to ends no campaign.
fn write_traces(plan: &Plan<'_>, dir: &Path, seeds: &[u64]) {
    for &seed in seeds.iter().take(MAX_TRACES) {
        match campaign::undisturbed(|| trace_files::write(plan, seed, dir)) {
            Ok([lines, chrome]) => {
                eprintln!(
                    "trace of seed {seed}: {}, {}",
                    lines.display(),
                    chrome.display()
                );
            }
            Err(error) => {
                eprintln!("MOONPOOL_TRACE: cannot write to {}: {error}", dir.display());
                return;
            }
        }
    }
    if seeds.len() > MAX_TRACES {
        eprintln!(
            "traces were written of the first {MAX_TRACES} of {} seeds",
            seeds.len()
        );
    }
}

/// What happened in the first seed that failed, if one did. Keeps how to replay it.
fn failure(
    plan: &Plan<'_>,
    report: &mut SimulationReport,
    invocation: &Invocation,
) -> Option<String> {
    let seed = *report.seeds_failing.first()?;
    report.replay_command = Some(invocation.replay_command(seed, &plan.skipped_faults));
    let (again, recording) = campaign::undisturbed(|| {
        orchestrator::run_recorded(plan, seed, TraceMode::Recent, 0..u64::MAX)
    });
    let failure = Failure {
        plan,
        report,
        again: &again,
        recording: &recording,
        test: invocation.test_name(),
    };
    Some(failure.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::network::NetworkProvider;
    use crate::runner::environment::Environment;
    use crate::runner::{Check, SimulationBuilder, SimulationMetrics};
    use crate::task::TaskProvider;
    use crate::time::TimeProvider;

    fn ok() -> SimulationBuilder {
        SimulationBuilder::new()
            .with_workload(|_, _, _, _, _| async { Ok(SimulationMetrics::default()) })
    }

    /// What is printed for a campaign of `builder` under `cargo test`.
    fn printed(builder: &SimulationBuilder) -> String {
        let plan = builder.plan(Environment::default()).unwrap();
        let (seeds, sites) = campaign::run(&plan);
        let mut report = SimulationReport::of(seeds, sites, Duration::ZERO);
        let invocation = Invocation {
            package: Some("my-service".into()),
            thread: Some("orders::are_answered".into()),
            executable: "/target/debug/deps/orders-0123456789abcdef".into(),
            ..Invocation::default()
        };
        failure(&plan, &mut report, &invocation).unwrap_or_default()
    }

    fn waiting_for_ever() -> SimulationBuilder {
        SimulationBuilder::new()
            .with_seed_range(3..6)
            .register_workload("client", |_, _, time, task, _| async move {
                for _ in 0..30 {
                    time.sleep(Duration::from_millis(1)).await;
                }
                task.spawn_task("helper", std::future::pending::<()>());
                std::future::pending().await
            })
    }

    #[test]
    fn a_failure_is_told_on_one_screen() {
        let text = printed(&waiting_for_ever());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() < 40, "{text}");
        for expected in [
            "Deadlock       nothing is ready and no event is queued at 30ms, but workloads wait",
            "seed           3 (3 of 3 seeds failed)",
            "test           orders::are_answered",
            "configuration  workloads client; network default; time budget 3600s; check sampled",
            "processes      client 10.0.0.1 alive",
            "faults         none fired",
            "also failed    4 Deadlock, 5 Deadlock",
        ] {
            assert!(lines.contains(&expected), "{expected} is not in {text}");
        }
        assert!(
            text.contains("task `client` of `client` waits on"),
            "{text}"
        );
        assert!(
            text.contains("task `helper` of `client` waits on"),
            "{text}"
        );
        let steps = lines
            .iter()
            .filter(|line| line.contains(" poll `") || line.contains("timer"));
        assert_eq!(steps.count(), 20, "{text}");
        assert_eq!(
            lines[lines.len() - 2],
            "replay         MOONPOOL_SEED=3 cargo test -p my-service orders::are_answered \
             -- --exact --nocapture"
        );
    }

    #[test]
    fn a_crowded_failure_still_fits_on_one_screen() {
        let mut crowded = SimulationBuilder::new()
            .use_random_config()
            .phases(crate::runner::Phases::default())
            .with_seed_range(7..20);
        for number in 0..30 {
            let name = format!("a-workload-with-quite-a-long-name-{number}");
            crowded = crowded.register_workload(name, |_, network, time, _, topology| async move {
                let listener = network.bind(&format!("{}:80", topology.my_ip)).await?;
                time.sleep(Duration::from_secs(1)).await;
                for peer in &topology.peer_ips {
                    drop(network.connect(&format!("{peer}:80")).await);
                }
                drop(listener);
                panic!("line\n{}", "another line\n".repeat(50));
            });
        }
        let text = printed(&crowded);
        assert!(text.lines().count() <= 50, "{text}");
        assert!(text.contains("\ndrawn          "), "{text}");
        assert!(text.contains("\n               probabilities: "), "{text}");
        assert!(text.contains("and 26 more\n"), "{text}");
        let last = text.lines().rev().nth(1).unwrap_or_default();
        assert!(last.starts_with("replay         MOONPOOL_SEED=7"), "{text}");
    }

    #[test]
    fn a_failure_lists_the_faults_that_disturb_most_and_whom_they_met() {
        let busy = crate::NetworkConfiguration {
            partial_write_probability: 1.0,
            ..crate::NetworkConfiguration::disabled()
        };
        let builder = SimulationBuilder::new()
            .set_iterations(1)
            .with_network_config(busy)
            .process("server", |_, _| std::future::pending())
            .register_workload("client", |_, network, time, _, topology| async move {
                let world = topology.world().unwrap();
                let server = world.process("server").unwrap();
                let client = world.process("client").unwrap();
                world.partition_pair(&client, &server, Duration::from_secs(1));
                world.kill(server.id(), crate::KillKind::Crash);
                let listener = network.bind("client:80").await?;
                let mut stream = network.connect("client:80").await?;
                for _ in 0..20 {
                    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0; 50]).await?;
                }
                time.sleep(Duration::from_secs(1)).await;
                drop(listener);
                Err(crate::SimulationError::workload("as expected"))
            });
        let text = printed(&builder);
        for expected in [
            "partition#1: client -> server\n",
            "kill#1: server\n",
            "(client -> client)\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }

    #[test]
    fn attrition_is_told_once_and_skipped_faults_by_their_ids() {
        let builder = waiting_for_ever()
            .attrition(crate::Attrition::default())
            .skip_faults(["kill#1".parse().unwrap(), "cut#2".parse().unwrap()]);
        let text = printed(&builder);
        assert_eq!(text.matches("ttrition").count(), 1, "{text}");
        assert!(text.contains("; skipped cut#2, kill#1"), "{text}");
    }

    #[test]
    fn a_skipped_fault_that_no_seed_had_is_told() {
        let builder = SimulationBuilder::new()
            .set_iterations(2)
            .process("server", |_, _| std::future::pending())
            .register_workload("client", |_, _, _, _, topology| async move {
                let world = topology.world().unwrap();
                let server = world.process("server").unwrap().id();
                world.kill(server, crate::KillKind::Crash);
                Ok(SimulationMetrics::default())
            })
            .skip_faults(["kill#1", "kill#2", "cut#1"].map(|id| id.parse().unwrap()));
        let plan = builder.plan(Environment::default()).unwrap();
        let (_, sites) = campaign::run(&plan);
        let never: Vec<String> = sites
            .never_drawn(&plan.skipped_faults)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(never, ["cut#1", "kill#2"]);
    }

    #[test]
    fn what_a_failure_needs_is_told_and_none_only_if_nothing_fires() {
        let found = |needed: &[&str]| Minimised {
            needed: needed.iter().map(|id| id.parse().unwrap()).collect(),
            ..Minimised::default()
        };
        assert!(told(3, &found(&["reboot#4"])).ends_with("needed: reboot#4"));
        assert!(told(3, &found(&[])).ends_with("needed: none, it fails without any fault"));
    }

    #[test]
    fn a_campaign_that_passes_prints_nothing() {
        assert_eq!(printed(&ok()), "");
    }

    #[test]
    fn a_rerun_that_ends_otherwise_is_admitted() {
        let runs = std::sync::atomic::AtomicU64::new(0);
        let text = printed(&ok().set_iterations(1).check(Check::Off).register_workload(
            "moody",
            move |_, _, _, _, _| {
                let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                async move {
                    match run {
                        0 => Err(crate::SimulationError::workload("only once")),
                        _ => Ok(SimulationMetrics::default()),
                    }
                }
            },
        ));
        assert!(text.contains("WorkloadError  workload `moody`"), "{text}");
        assert!(text.contains("differed and ended with: Passed"), "{text}");
    }
}
