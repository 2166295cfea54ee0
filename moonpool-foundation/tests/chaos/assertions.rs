//! What a campaign says about `always_assert!` and `sometimes_assert!`.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::time::Duration;

use moonpool_foundation::{
    AssertionResult, Check, FaultKind, NetworkConfiguration, NetworkProvider, RandomProvider,
    SimNetworkProvider, SimTimeProvider, SimWorld, SimulationBuilder, SimulationError,
    SimulationMetrics, SimulationReport, TimeProvider, Verdict, always_assert, sometimes_assert,
};
use tokio::io::AsyncWriteExt;

const HERE: &str = module_path!();

fn result<'a>(report: &'a SimulationReport, name: &str) -> &'a AssertionResult {
    let mut named = report.assertion_results.iter().filter(|r| r.name == name);
    let found = named.next().unwrap();
    assert!(named.next().is_none(), "{name} is there twice");
    found
}

/// A campaign whose workload holds a guarantee in all seeds but one, and in some seeds reaches a rare
/// path.
fn dice() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_seed_range(0..40)
        .register_workload("dice", |random, _, time, _, _| async move {
            for _ in 0..3 {
                time.sleep(Duration::from_millis(1)).await;
                let rolled: u32 = random.random_range(1..=20);
                always_assert!(dice_have_twenty_sides, rolled <= 20, "rolled {rolled}");
                sometimes_assert!(a_twenty_was_rolled, rolled == 20, "somebody is lucky");
                sometimes_assert!(more_than_twenty, rolled > 20, "never happens");
            }
            Ok(SimulationMetrics::default())
        })
}

fn never_called() {
    sometimes_assert!(in_code_that_nobody_calls, true, "this is never reached");
}

#[test]
fn counts_are_those_of_every_seed_and_the_same_on_any_number_of_threads() {
    let alone = dice().jobs(1).run();
    let together = dice().jobs(3).run();
    assert_eq!(alone.assertion_results, together.assertion_results);
    assert_eq!(result(&alone, "dice_have_twenty_sides").checks, 120);
    assert_eq!(result(&alone, "dice_have_twenty_sides").held, 120);
    let lucky = result(&alone, "a_twenty_was_rolled");
    assert!((1..20).contains(&lucky.held), "{lucky}");
    assert_eq!(lucky.message, "somebody is lucky");
    assert!(alone.seeds_failing.is_empty());
}

#[test]
fn second_runs_add_nothing() {
    let once = dice().check(Check::Off).run();
    let twice = dice().check(Check::All).run();
    assert_eq!(once.assertion_results, twice.assertion_results);
}

#[test]
fn sites_are_sorted_by_name_and_known_without_being_reached() {
    let _ = never_called as fn();
    let report = dice().run();
    let names: Vec<&str> = report.assertion_results.iter().map(|r| r.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    let unreached = result(&report, "in_code_that_nobody_calls");
    assert_eq!((unreached.checks, unreached.is_missed()), (0, true));
}

#[test]
fn a_required_site_that_never_held_is_missed() {
    let report = dice().coverage([HERE]).run();
    assert!(!report.coverage_complete());
    let missed: Vec<&str> = report.missed_assertions().map(|r| r.name).collect();
    assert!(missed.contains(&"more_than_twenty"));
    assert!(missed.contains(&"in_code_that_nobody_calls"));
    assert!(!missed.contains(&"a_twenty_was_rolled"));
    let text = report.to_string();
    assert!(
        text.contains("MISSED: sometimes `more_than_twenty` held 0 of 120 times"),
        "{text}"
    );
    assert!(
        text.contains("MISSED: sometimes `in_code_that_nobody_calls` was never reached"),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    let results = json["assertion_results"].as_array().unwrap();
    assert!(
        results
            .iter()
            .any(|r| r["name"] == "more_than_twenty" && r["held"] == 0)
    );
    let panic = catch_unwind(|| report.assert_passed()).unwrap_err();
    let panic = panic.downcast_ref::<String>().unwrap();
    assert!(panic.contains("more_than_twenty"), "{panic}");
}

#[test]
fn coverage_that_nobody_asked_for_is_reported_and_fails_nothing() {
    let report = dice().run();
    assert!(!report.coverage_complete());
    assert!(report.assertion_violations.is_empty());
    report.assert_passed();
    // The workload is written in this crate, so its sites are what the report looks at.
    assert!(result(&report, "more_than_twenty").is_required);
    let required = dice().require_coverage().run();
    assert!(!required.assertion_violations.is_empty());
}

#[test]
fn other_modules_are_listed_and_not_required() {
    let report = dice().coverage(["some_other_crate"]).run();
    assert!(!result(&report, "more_than_twenty").is_required);
    assert_eq!(result(&report, "more_than_twenty").checks, 120);
    assert!(report.coverage_complete());
    report.assert_passed();
}

/// A campaign that breaks a guarantee in every seed, at 5 ms.
fn broken() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_seed_range(3..5)
        .register_workload("service", |_, _, time, _, _| async move {
            time.sleep(Duration::from_millis(5)).await;
            let total = 7;
            always_assert!(totals_agree, total == 8, "the total is {}, not 8", total);
            panic!("nothing runs after a guarantee is broken");
        })
}

#[test]
fn a_broken_guarantee_fails_the_seed_with_its_name_message_and_place() {
    let report = broken().run();
    assert_eq!(report.seeds_failing, [3, 4]);
    let Verdict::AlwaysAssert {
        at,
        who,
        name,
        message,
        location,
    } = &report.individual_metrics[0].verdict
    else {
        panic!("{}", report.individual_metrics[0].verdict)
    };
    assert_eq!(*at, Duration::from_millis(5));
    assert_eq!(name, "totals_agree");
    let (task, process) = who.clone().unwrap();
    assert_eq!((task.as_str(), process.as_str()), ("service", "service"));
    let text = report.individual_metrics[0].verdict.to_string();
    assert!(
        text.contains("in task `service` of process `service`"),
        "{text}"
    );
    assert_eq!(message, "the total is 7, not 8");
    assert!(location.contains("assertions.rs:"), "{location}");
    let [violation] = &report.assertion_violations[..] else {
        panic!("{:?}", report.assertion_violations)
    };
    assert!(
        violation.starts_with("always `totals_agree` failed 2 of 2 times"),
        "{violation}"
    );
}

#[test]
fn a_broken_guarantee_fails_the_seed_also_if_its_panic_is_caught() {
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .register_workload("service", |_, _, _, _, _| async move {
            let caught = catch_unwind(|| always_assert!(swallowed, 1 > 2, "it is not"));
            assert!(caught.is_err());
            Ok(SimulationMetrics::default())
        })
        .run();
    assert!(matches!(
        report.individual_metrics[0].verdict,
        Verdict::AlwaysAssert { .. }
    ));
}

#[test]
fn a_world_that_is_driven_by_hand_gives_the_broken_guarantee_as_an_error() {
    let failed = SimWorld::new().block_on(async {
        always_assert!(by_hand, 1 > 2, String::from("a message that is no literal"));
    });
    let Err(SimulationError::AlwaysAssert { name, message, .. }) = failed else {
        panic!("{failed:?}")
    };
    assert_eq!(
        (name.as_str(), message.as_str()),
        ("by_hand", "a message that is no literal")
    );
}

#[test]
fn outside_a_simulation_nothing_is_evaluated() {
    let evaluated = Cell::new(0);
    let touch = || {
        evaluated.set(evaluated.get() + 1);
        false
    };
    always_assert!(outside_always, touch(), "{}", touch());
    sometimes_assert!(outside_sometimes, touch(), "no");
    assert_eq!(evaluated.get(), 0);
    let report = dice().set_iterations(1).run();
    assert_eq!(result(&report, "outside_always").checks, 0);
}

#[test]
fn the_message_is_not_made_while_the_guarantee_holds() {
    let made = SimWorld::new()
        .block_on(async {
            let made = Cell::new(false);
            always_assert!(holds, true, "{}", made.replace(true));
            sometimes_assert!(holds_sometimes, true, "{}", made.replace(true));
            made.get()
        })
        .unwrap();
    assert!(!made);
}

#[test]
fn seeds_behind_the_one_that_ends_the_campaign_are_not_counted() {
    let campaign = |jobs| {
        SimulationBuilder::new()
            .with_seed_range(0..200)
            .stop_on_failure()
            .jobs(jobs)
            .register_workload("dice", |random, _, _, _, _| async move {
                let rolled: u32 = random.random_range(1..=20);
                sometimes_assert!(counted_before_the_end, rolled < 20, "most of the time");
                if rolled == 20 {
                    return Err(SimulationError::workload("over"));
                }
                Ok(SimulationMetrics::default())
            })
            .run()
    };
    let (alone, together) = (campaign(1), campaign(3));
    let checks = result(&alone, "counted_before_the_end").checks;
    assert_eq!(checks, alone.iterations as u64);
    assert!(alone.iterations < 200);
    assert_eq!(alone.assertion_results, together.assertion_results);
}

/// A byte cannot be split, so all writes travel whole.
#[test]
fn a_fault_that_might_have_fired_often_and_never_did_is_reported_as_dead() {
    let quiet = NetworkConfiguration {
        segmentation_probability: 1.0,
        packet_loss_probability: 0.001,
        ..NetworkConfiguration::disabled()
    };
    let bytes = |count: u32| {
        let builder = SimulationBuilder::new().set_iterations(1);
        let builder = builder.with_network_config(quiet.clone());
        let writes = move |_, network: SimNetworkProvider, time: SimTimeProvider, _, _| async move {
            let listener = network.bind("writer:80").await?;
            let mut stream = network.connect("writer:80").await?;
            for _ in 0..count {
                stream.write_u8(7).await?;
                time.sleep(Duration::from_secs(60)).await;
            }
            drop(listener);
            Ok(SimulationMetrics::default())
        };
        builder.register_workload("writer", writes).run()
    };
    let report = bytes(20);
    assert_eq!(report.dead_faults, [FaultKind::Segmentation]);
    let text = report.to_string();
    assert!(
        text.contains("DEAD: fault segmentation may fire, and never did"),
        "{text}"
    );
    assert!(bytes(2).dead_faults.is_empty(), "too few to say");
    let calm = dice().with_network_config(NetworkConfiguration::disabled());
    assert!(calm.run().dead_faults.is_empty());
}
