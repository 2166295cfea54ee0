//! What `buggify!` gives in a campaign.

use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    BuggifyProbabilities, BuggifyResult, Check, FaultKind, KillKind, NetworkConfiguration, Phases,
    SimWorld, SimulationBuilder, SimulationMetrics, SimulationReport, TaskProvider, TimeProvider,
    buggify, buggify_init, buggify_reset, buggify_with_prob,
};

const ALWAYS: (f64, f64) = (1.0, 1.0);

fn probabilities((activation, firing): (f64, f64)) -> BuggifyProbabilities {
    BuggifyProbabilities::new(activation, firing).unwrap()
}

fn never_called() -> bool {
    buggify!()
}

/// A campaign whose workload asks a site 20 times per seed.
fn asking() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_seed_range(0..200)
        .register_workload("asking", |_, _, time, _, _| async move {
            for _ in 0..20 {
                if buggify!() {
                    time.sleep(Duration::from_millis(1)).await;
                }
            }
            Ok(SimulationMetrics::default())
        })
}

/// The one site in [`asking`]: no other is called 4000 times.
fn asked(report: &SimulationReport) -> &BuggifyResult {
    let mut asked = report.buggify_results.iter().filter(|site| site.calls > 0);
    let site = asked.next().unwrap();
    assert!(asked.next().is_none());
    site
}

#[test]
fn a_site_fires_in_a_quarter_of_the_seeds_and_then_a_quarter_of_the_time() {
    let report = asking().run();
    let site = asked(&report);
    assert_eq!(site.calls, 4000);
    assert!((150..350).contains(&site.fired), "{site}");
    let seeds = report.individual_metrics.iter();
    let active = seeds
        .filter(|seed| seed.faults.of(FaultKind::Buggify) > 0)
        .count();
    assert!((30..70).contains(&active), "{active} of 200 seeds");
    assert_eq!(report.faults.of(FaultKind::Buggify), site.fired);
}

#[test]
fn firings_are_the_same_on_any_number_of_threads_and_second_runs_add_none() {
    let alone = asking().jobs(1).check(Check::Off).run();
    let together = asking().jobs(3).check(Check::All).run();
    assert_eq!(alone.buggify_results, together.buggify_results);
    assert_eq!(alone.metrics.digest, together.metrics.digest);
    alone.assert_passed();
}

#[test]
fn a_campaign_says_how_often_sites_fire() {
    let always = asking().with_buggify(probabilities(ALWAYS)).run();
    assert_eq!(asked(&always).fired, 4000);
    let never = asking().with_buggify(BuggifyProbabilities::OFF).run();
    assert!(never.buggify_results.iter().all(|site| site.fired == 0));
    assert_eq!(never.faults.of(FaultKind::Buggify), 0);
}

#[test]
fn a_network_without_faults_is_one_without_buggify() {
    let calm = asking().with_network_config(NetworkConfiguration::fast_local());
    let sites = calm.run().buggify_results;
    assert!(sites.iter().all(|site| site.fired == 0));
}

#[test]
fn a_site_that_never_fired_is_reported_as_dead() {
    let _ = never_called as fn() -> bool;
    let report = asking().coverage([module_path!()]).run();
    assert!(report.dead_buggify_sites().any(|site| site.calls == 0));
    assert!(report.dead_buggify_sites().all(|site| site.fired == 0));
    let text = report.to_string();
    assert!(text.contains("DEAD: buggify! at "), "{text}");
}

#[test]
fn a_probability_of_its_own_counts_in_active_sites() {
    let world = SimWorld::new();
    world.set_buggify(probabilities((1.0, 0.0)));
    let (default, own) = world
        .block_on(async { (buggify!(), buggify_with_prob!(1.0)) })
        .unwrap();
    assert!(!default);
    assert!(own);
}

#[test]
fn a_skipped_firing_does_not_happen_and_renames_no_other() {
    let firings = |skip: &str| {
        let world = SimWorld::new_with_seed(5);
        world.set_buggify(probabilities((1.0, 0.5)));
        if !skip.is_empty() {
            world.set_skipped_faults([skip.parse().unwrap()]);
        }
        world
            .block_on(async { (0..30).map(|_| buggify!()).collect::<Vec<bool>>() })
            .unwrap()
    };
    let all = firings("");
    let second = all.iter().enumerate().filter(|(_, fired)| **fired).nth(1);
    let second = second.unwrap().0;
    let mut expected = all.clone();
    expected[second] = false;
    assert_eq!(firings("buggify#2"), expected);
}

#[test]
fn firings_are_recorded_with_the_place_of_the_site() {
    let world = SimWorld::new();
    world.set_buggify(probabilities(ALWAYS));
    world.record_faults();
    let fired = world.block_on(async { buggify!() }).unwrap();
    assert!(fired);
    let records = world.fault_records();
    assert_eq!(records[0].id.to_string(), "buggify#1");
    let target = records[0].target.to_string();
    assert!(target.contains("chaos/buggify.rs:"), "{target}");
}

#[test]
fn a_world_of_ones_own_has_no_buggify_until_it_is_switched_on() {
    let ask = || SimWorld::new().block_on(async { buggify!() }).unwrap();
    assert!(!ask());
    buggify_init(1.0, 1.0).unwrap();
    assert!(ask());
    assert!(!buggify!(), "outside a simulation it is always false");
    buggify_reset();
    assert!(!ask());
}

#[test]
fn the_dead_do_not_change_what_the_living_get() {
    struct Asks(Rc<dyn Fn() -> bool>);
    impl Drop for Asks {
        fn drop(&mut self) {
            for _ in 0..20 {
                assert!(!(self.0)());
            }
        }
    }
    let draws = |dying: bool| {
        let world = SimWorld::new_with_seed(3);
        world.set_buggify(probabilities((1.0, 0.5)));
        let ask: Rc<dyn Fn() -> bool> = Rc::new(|| buggify!());
        let victim = world.add_process("victim");
        let asks = dying.then(|| Asks(Rc::clone(&ask)));
        victim.task_provider().spawn_task("victim", async move {
            let _asks = asks;
            std::future::pending::<()>().await;
        });
        world.run_until_empty().unwrap();
        let inside = world.world_process().providers();
        world
            .block_on(async move {
                let world = inside.world().unwrap();
                assert!(world.kill(victim.id(), KillKind::Crash));
                (0..20).map(|_| ask()).collect::<Vec<bool>>()
            })
            .unwrap()
    };
    assert_eq!(draws(true), draws(false));
}

#[test]
fn healing_ends_buggify() {
    let second = Duration::from_secs(1);
    let report = SimulationBuilder::new()
        .set_iterations(20)
        .with_buggify(probabilities(ALWAYS))
        .phases(Phases {
            chaos: second..2 * second,
            ..Phases::default()
        })
        .register_workload("asking", move |_, _, time, _, _| async move {
            assert!(buggify!());
            time.sleep(3 * second).await;
            assert!(!buggify!());
            Ok(SimulationMetrics::default())
        })
        .run();
    report.assert_passed();
}
