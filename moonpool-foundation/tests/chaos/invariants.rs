//! Invariants over the states of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moonpool_foundation::{
    Check, InvariantCheck, SimulationBuilder, SimulationError, SimulationMetrics, States,
    TimeProvider, Verdict, always_assert,
};
use serde_json::json;

const MILLI: Duration = Duration::from_millis(1);

/// Counts to 5, a step a millisecond, and publishes each number.
fn counting() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_seed_range(0..4)
        .jobs(1)
        .check(Check::Off)
        .register_workload("counting", |_, _, time, _, topology| async move {
            for count in 1..=5 {
                time.sleep(MILLI).await;
                topology.state_registry.register_state("count", count);
                time.sleep(MILLI).await;
            }
            Ok(SimulationMetrics::default())
        })
}

fn below(limit: i64) -> impl Fn(&States, u64) -> Result<(), String> + Send + Sync {
    move |states, _| match states.get("count").and_then(serde_json::Value::as_i64) {
        Some(count) if count >= limit => Err(format!("it is {count}")),
        _ => Ok(()),
    }
}

#[test]
fn an_invariant_fails_its_seed_at_the_instant_of_the_change() {
    let report = counting()
        .with_invariants(vec![InvariantCheck::new("small count", below(3))])
        .run();
    assert_eq!(report.failed_runs, 4);
    assert_eq!(
        report.individual_metrics[0].verdict,
        Verdict::Invariant {
            at: 5 * MILLI,
            name: "small count".into(),
            message: "it is 3".into(),
        }
    );
}

#[test]
fn invariants_run_once_per_event_that_changed_a_state_and_once_at_the_end() {
    let runs = Arc::new(AtomicU64::new(0));
    let times = Arc::new(AtomicU64::new(0));
    let (counted, summed) = (Arc::clone(&runs), Arc::clone(&times));
    counting()
        .set_iterations(1)
        .with_invariants(vec![InvariantCheck::new("counted", move |_, time_ms| {
            counted.fetch_add(1, Ordering::Relaxed);
            summed.fetch_add(time_ms, Ordering::Relaxed);
        })])
        .run()
        .assert_passed();
    assert_eq!(runs.load(Ordering::Relaxed), 6);
    assert_eq!(times.load(Ordering::Relaxed), 1 + 3 + 5 + 7 + 9 + 10);
}

#[test]
fn a_panic_in_an_invariant_is_its_verdict() {
    for (check, expected) in [
        (
            InvariantCheck::new("panics", |states: &States, _| {
                assert!(states.len() > 7, "too few states");
            }),
            "too few states",
        ),
        (
            InvariantCheck::new("asserts", |states: &States, _| {
                always_assert!(many_states, states.len() > 7, "only {}", states.len());
            }),
            "`many_states`: only 1",
        ),
    ] {
        let name = check.name().to_owned();
        let report = counting().with_invariants(vec![check]).run();
        let expected = Verdict::Invariant {
            at: MILLI,
            name,
            message: expected.into(),
        };
        assert_eq!(report.individual_metrics[0].verdict, expected);
    }
}

#[test]
fn what_holds_at_quiescence_alone_is_checked_at_the_end() {
    let report = counting()
        .with_invariants(vec![InvariantCheck::at_end(
            "counted to ten",
            |states: &States, _| match states["count"].as_i64() {
                Some(10) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )])
        .run();
    let verdict = &report.individual_metrics[0].verdict;
    assert_eq!(
        verdict.to_string(),
        "Invariant: invariant `counted to ten` broken at 10ms: Some(5)"
    );
}

#[test]
fn a_workload_that_failed_is_not_judged_by_what_holds_at_the_end() {
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .register_workload("failing", |_, _, _, _, _| async {
            Err(SimulationError::workload("as expected"))
        })
        .with_invariants(vec![InvariantCheck::at_end("never", |_: &States, _| {
            Err("no")
        })])
        .run();
    assert_eq!(report.individual_metrics[0].verdict.name(), "WorkloadError");
}

#[test]
fn every_seed_has_states_of_its_own() {
    SimulationBuilder::new()
        .set_iterations(20)
        .register_workload("first", |_, _, _, _, topology| async move {
            assert_eq!(topology.state_registry.get_state("mark"), None);
            topology
                .state_registry
                .register_state("mark", json!({ "by": "first" }));
            Ok(SimulationMetrics::default())
        })
        .register_workload("second", |_, _, time, _, topology| async move {
            time.sleep(MILLI).await;
            let mark = topology.state_registry.get_state("mark");
            assert_eq!(mark, Some(json!({ "by": "first" })));
            Ok(SimulationMetrics::default())
        })
        .run()
        .assert_passed();
}
