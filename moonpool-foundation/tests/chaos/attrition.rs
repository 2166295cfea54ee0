//! Processes that die and stand still at drawn times, as many at once as the system survives.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool_foundation::{
    Attrition, AttritionError, AttritionKind, Check, FaultKind, NetworkConfiguration, ProcessId,
    Providers, RunError, SimProcess, SimProviders, SimWorld, SimulationBuilder, SimulationMetrics,
    SimulationResult, TimeProvider, Verdict, WorkloadTopology,
};

const SECOND: Duration = Duration::from_secs(1);

const KINDS: [FaultKind; 4] = [
    FaultKind::Kill,
    FaultKind::Graceful,
    FaultKind::Reboot,
    FaultKind::Pause,
];

fn often(max_dead: usize) -> Attrition {
    Attrition {
        probability: 0.9,
        interval: Duration::from_millis(50)..=SECOND,
        max_dead,
        ..Attrition::default()
    }
}

/// A world of five servers that tick.
fn servers(seed: u64) -> (SimWorld, Vec<SimProcess>) {
    let config = NetworkConfiguration::disabled();
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let start = |name: &&str| {
        world.start_process(name, |providers| async move {
            loop {
                providers.time().sleep(SECOND).await;
            }
        })
    };
    let processes = names.iter().map(start).collect();
    (world, processes)
}

fn ids(processes: &[SimProcess]) -> Vec<ProcessId> {
    processes.iter().map(SimProcess::id).collect()
}

/// How many are dead, ending or paused.
fn down(processes: &[SimProcess]) -> usize {
    let up = |process: &&SimProcess| {
        process.is_alive() && !process.is_paused() && !process.shutdown_token().is_cancelled()
    };
    processes.len() - processes.iter().filter(up).count()
}

#[test]
fn never_more_are_down_than_the_bound_in_a_thousand_seeds() {
    let mut reached = [false; 4];
    let mut fired = [0; 4];
    for seed in 0..1_000 {
        let bound = usize::try_from(seed % 4).unwrap();
        let (world, processes) = servers(seed);
        world
            .start_attrition(often(bound), ids(&processes))
            .unwrap();
        while world.now() < 20 * SECOND {
            world.step().unwrap();
            let down = down(&processes);
            assert!(down <= bound, "seed {seed}: {down} down of {bound}");
            reached[bound] |= down == bound;
        }
        for (count, kind) in fired.iter_mut().zip(KINDS) {
            *count += world.fault_counts().of(kind);
        }
    }
    assert_eq!(reached, [true; 4], "the bound is used up");
    assert!(fired.iter().all(|count| *count > 500), "{fired:?}");
}

#[test]
fn who_is_down_by_a_call_counts_and_is_left_alone() {
    let (world, processes) = servers(1);
    world.start_attrition(often(1), ids(&processes)).unwrap();
    world.pause(processes[0].id());
    world.run_for(60 * SECOND).unwrap();
    assert_eq!(down(&processes), 1);
    assert!(processes[0].is_paused());
    assert_eq!(world.fault_counts().total(), 1);
}

#[test]
fn everyone_comes_back_when_attrition_stops() {
    for seed in 0..50 {
        let (world, processes) = servers(seed);
        world.start_attrition(often(5), ids(&processes)).unwrap();
        world.run_for(20 * SECOND).unwrap();
        world.stop_attrition();
        let fired = world.fault_counts();
        world.run_for(20 * SECOND).unwrap();
        assert_eq!(down(&processes), 0, "seed {seed}");
        assert_eq!(world.fault_counts(), fired);
    }
}

#[test]
fn healing_ends_attrition_and_brings_everyone_back_at_once() {
    for seed in 0..50 {
        let (world, processes) = servers(seed);
        world.start_attrition(often(5), ids(&processes)).unwrap();
        world.run_for(20 * SECOND).unwrap();
        world.heal_processes();
        assert_eq!(down(&processes), 0, "seed {seed}");
        let fired = world.fault_counts();
        world.run_for(20 * SECOND).unwrap();
        assert_eq!((down(&processes), world.fault_counts()), (0, fired));
    }
}

#[test]
fn attrition_keeps_no_run_alive() {
    let world = SimWorld::new();
    let victim = world.add_process("victim");
    let quiet = Attrition {
        probability: 1e-9,
        ..Attrition::default()
    };
    world.start_attrition(quiet, [victim.id()]).unwrap();
    let error = world.block_on(std::future::pending::<()>()).unwrap_err();
    assert!(error.to_string().starts_with("deadlock"), "{error}");
}

#[test]
fn what_cannot_be_simulated_is_refused() {
    let world = SimWorld::new();
    let wrong = Attrition {
        probability: -1.0,
        ..Attrition::default()
    };
    let own = world.world_process().id();
    assert_eq!(
        world.start_attrition(wrong.clone(), [own]),
        Err(AttritionError::Probability(-1.0))
    );
    assert_eq!(
        world.start_attrition(Attrition::default(), [own]),
        Err(AttritionError::WorldProcess)
    );
    let builder = campaign().attrition(wrong);
    assert_eq!(
        builder.try_run().unwrap_err(),
        RunError::Attrition(AttritionError::Probability(-1.0))
    );
}

#[test]
fn drawn_attrition_is_valid_and_differs_between_seeds() {
    let mut subsets = BTreeSet::new();
    for seed in 0..500 {
        let drawn = Attrition::random_for_seed(seed, 2);
        assert_eq!(drawn.validate(), Ok(()));
        assert!((0.0..=0.3).contains(&drawn.probability) && drawn.max_dead == 2);
        subsets.insert(drawn.kinds);
    }
    assert_eq!(subsets.len(), 31, "each subset of five kinds but the empty");
}

async fn server(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let stop = topology.shutdown_signal;
    while !stop.is_cancelled() {
        providers.time().sleep(Duration::from_millis(100)).await;
        providers.time().timer();
    }
    Ok(())
}

fn campaign() -> SimulationBuilder {
    SimulationBuilder::new()
        .set_iterations(50)
        .process("server-1", server)
        .process("server-2", server)
        .process("server-3", server)
        .register_workload("client", |_, _, time, _, _| async move {
            time.sleep(30 * SECOND).await;
            Ok(SimulationMetrics::default())
        })
}

#[test]
fn a_campaign_kills_its_processes_and_not_its_workloads_and_every_kind_fires() {
    let report = campaign().attrition(often(2)).run();
    report.assert_passed();
    for kind in KINDS {
        assert!(report.faults.of(kind) > 0, "{kind}");
    }
    let quiet = campaign().run();
    assert!(KINDS.iter().all(|kind| quiet.faults.of(*kind) == 0));
    for seed in &report.individual_metrics {
        assert_eq!(seed.leftovers.tasks, 0, "seed {}", seed.seed);
    }
}

#[test]
fn a_kind_that_attrition_never_got_to_is_reported() {
    let brief = Attrition {
        kinds: vec![AttritionKind::Pause],
        interval: 60 * SECOND..=60 * SECOND,
        ..often(1)
    };
    let report = campaign().attrition(brief).set_iterations(2).run();
    assert!(report.dead_faults.contains(&FaultKind::Pause));
    assert!(!report.dead_faults.contains(&FaultKind::Kill));
}

#[test]
fn a_random_configuration_draws_attrition_within_what_is_given() {
    let given = Attrition {
        kinds: vec![AttritionKind::Pause, AttritionKind::Reboot],
        ..often(2)
    };
    let report = campaign().attrition(given).use_random_config().run();
    report.assert_passed();
    let (paused, rebooted) = (FaultKind::Pause, FaultKind::Reboot);
    assert!(report.faults.of(paused) > 0 && report.faults.of(rebooted) > 0);
    let unasked = report.faults.of(FaultKind::Kill) + report.faults.of(FaultKind::Graceful);
    assert_eq!(unasked, 0);
    let seeds = report.individual_metrics.iter();
    let quiet = seeds.filter(|seed| seed.faults.of(paused) + seed.faults.of(rebooted) == 0);
    assert!((5..45).contains(&quiet.count()), "some seeds have none");
}

#[test]
fn a_random_configuration_leaves_attrition_off_that_is_off() {
    let off = Attrition {
        probability: 0.0,
        ..often(2)
    };
    let report = campaign().attrition(off).use_random_config().run();
    report.assert_passed();
    assert!(KINDS.iter().all(|kind| report.faults.of(*kind) == 0));
}

#[test]
fn a_random_configuration_keeps_the_dead_down_as_long_as_is_given() {
    let given = Attrition {
        kinds: vec![AttritionKind::Crash],
        downtime: 25 * SECOND..=26 * SECOND,
        ..often(1)
    };
    let report = campaign().attrition(given).use_random_config().run();
    report.assert_passed();
    assert!(report.faults.of(FaultKind::Kill) > 0);
    for seed in &report.individual_metrics {
        let kills = seed.faults.of(FaultKind::Kill);
        assert!(kills <= 2, "{kills} within 30 s, seed {}", seed.seed);
    }
}

#[test]
fn with_attrition_a_seed_has_one_digest_on_any_number_of_threads() {
    let digests = |jobs| {
        let builder = campaign().attrition(often(2)).check(Check::All).jobs(jobs);
        let report = builder.run();
        report.assert_passed();
        let seeds = report.individual_metrics.iter();
        seeds.map(|seed| seed.metrics.digest).collect::<Vec<_>>()
    };
    let alone = digests(1);
    assert_eq!(digests(2), alone);
    let distinct: BTreeSet<&u64> = alone.iter().collect();
    assert_eq!(distinct.len(), alone.len());
}

#[test]
fn a_skipped_strike_does_not_happen_and_the_others_do() {
    let kills = Attrition {
        kinds: vec![AttritionKind::Crash],
        ..often(1)
    };
    let faults = |skip: &str| {
        let builder = campaign().attrition(kills.clone()).set_debug_seeds(vec![3]);
        let report = match skip {
            "" => builder.run(),
            skip => builder.skip_faults([skip.parse().unwrap()]).run(),
        };
        report.assert_passed();
        report.individual_metrics[0].clone()
    };
    let (all, skipped) = (faults(""), faults("kill#1"));
    assert_ne!(all.metrics.digest, skipped.metrics.digest);
    assert!(skipped.faults.of(FaultKind::Kill) > 0);
}

#[test]
fn a_workload_that_hangs_is_found_although_processes_come_and_go() {
    let report = SimulationBuilder::new()
        .set_iterations(2)
        .set_time_budget(600 * SECOND)
        .attrition(often(1))
        .process("server", |_, _| std::future::pending())
        .register_workload("client", |_, _, _, _, _| std::future::pending())
        .run();
    for seed in &report.individual_metrics {
        assert!(
            matches!(
                seed.verdict,
                Verdict::TimeBudget { .. } | Verdict::Deadlock { .. }
            ),
            "{}",
            seed.verdict
        );
    }
}
