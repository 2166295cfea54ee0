//! What a campaign reports.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::time::Duration;

use moonpool_foundation::{
    NetworkProvider, SimulationBuilder, SimulationError, SimulationMetrics, SimulationReport,
    TaskProvider, TimeProvider,
};

fn report() -> SimulationReport {
    SimulationBuilder::new()
        .with_seed_range(10..14)
        .register_workload("sleeper", |_, _, time, _, _| async move {
            time.sleep(Duration::from_secs(5)).await;
            match moonpool_foundation::get_current_sim_seed() {
                12 => Err(SimulationError::workload("twelve")),
                _ => Ok(SimulationMetrics::default()),
            }
        })
        .run()
}

#[test]
fn counts_averages_and_seeds_add_up() {
    let report = report();
    assert_eq!(
        (
            report.iterations,
            report.successful_runs,
            report.failed_runs
        ),
        (4, 3, 1)
    );
    assert_eq!(report.seeds_used, [10, 11, 12, 13]);
    assert_eq!(report.seeds_failing, [12]);
    assert!((report.success_rate() - 75.0).abs() < 1e-9);
    assert_eq!(report.metrics.simulated_time, Duration::from_secs(20));
    assert_eq!(report.average_simulated_time(), Duration::from_secs(5));
    assert_eq!(report.metrics.events_processed, 4);
    assert!((report.average_events_processed() - 1.0).abs() < 1e-9);
    assert!(report.simulated_to_real_ratio() > 0.0);
    for seed in &report.individual_metrics {
        assert_eq!(seed.verdict.is_passed(), seed.seed != 12);
        assert_ne!(seed.metrics.digest, 0);
        assert_eq!(seed.metrics.simulated_time, Duration::from_secs(5));
    }
}

#[test]
fn it_prints_for_people() {
    let text = report().to_string();
    assert!(
        text.starts_with("4 seeds: 3 passed, 1 failed (75.0 % passed)\n"),
        "{text}"
    );
    let failure = "seed 12: WorkloadError: workload `sleeper` returned an error: twelve";
    assert!(text.contains(failure), "{text}");
}

#[test]
fn it_serialises_for_machines() {
    let json = serde_json::to_value(report()).unwrap();
    assert_eq!(json["iterations"], 4);
    assert_eq!(json["seeds_failing"], serde_json::json!([12]));
    let seeds = json["individual_metrics"].as_array().unwrap();
    assert_eq!(seeds[0]["verdict"], "Passed");
    assert_eq!(seeds[2]["verdict"]["WorkloadError"]["message"], "twelve");
    assert_eq!(seeds[2]["leftovers"]["tasks"], 0);
}

#[test]
fn leftovers_are_counted_at_the_seeds_end() {
    let mut report = SimulationBuilder::new()
        .set_iterations(1)
        .register_workload("messy", |_, network, time, task, _| async move {
            let listener = network.bind("messy:7000").await?;
            task.spawn_task("sleeper", {
                let time = time.clone();
                async move {
                    let _listener = listener;
                    time.sleep(Duration::from_secs(60)).await;
                }
            });
            time.sleep(Duration::from_secs(1)).await;
            Ok(SimulationMetrics::default())
        })
        .run();
    report.assert_passed();
    let left = report.individual_metrics.remove(0).leftovers;
    assert_eq!(
        (left.tasks, left.events, left.connections, left.listeners),
        (1, 1, 0, 1)
    );
}

#[test]
fn assert_passed_says_what_failed_and_ends_with_the_command_that_replays_it() {
    let report = report();
    let command = report.replay_command.clone().unwrap();
    assert!(command.starts_with("MOONPOOL_SEED=12 cargo "), "{command}");
    assert!(
        command.contains("report::assert_passed_says_what_failed"),
        "the test's own name: {command}"
    );
    let panic = catch_unwind(|| report.assert_passed()).unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert_eq!(
        *text,
        format!(
            "seed 12 failed with WorkloadError: workload `sleeper` returned an error: twelve \
             (1 of 4 seeds failed). Replay with: {command}"
        )
    );
    assert!(!text.contains('\n'));
}

#[test]
#[should_panic(expected = "no seed to run")]
fn run_panics_with_the_reason_why_it_cannot_start() {
    let empty = SimulationBuilder::new()
        .with_seed_range(5..5)
        .with_workload(|_, _, _, _, _| async { Ok(SimulationMetrics::default()) });
    assert!(empty.try_run().is_err());
    empty.run();
}

/// The path of every value in `json`, with its type. Elements of a list share one path.
fn schema(path: &str, json: &serde_json::Value, found: &mut BTreeSet<String>) {
    use serde_json::Value;
    let kind = match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                schema(&format!("{path}.{name}"), value, found);
            }
            return;
        }
        Value::Array(elements) if !elements.is_empty() => {
            for element in elements {
                schema(&format!("{path}[]"), element, found);
            }
            return;
        }
        Value::Array(_) => "empty list",
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
    };
    found.insert(format!("{path}: {kind}\n"));
}

#[test]
fn what_machines_read_has_the_fields_that_were_written_down() {
    let mut json = serde_json::to_value(report()).unwrap();
    // What other tests of this binary assert is theirs.
    for others in [
        "assertion_results",
        "buggify_results",
        "dead_faults",
        "faults",
    ] {
        json[others] = serde_json::json!([]);
    }
    let mut found = BTreeSet::new();
    schema("", &json, &mut found);
    let found: String = found.into_iter().collect();
    let golden = include_str!("../golden/report_schema.txt");
    assert_eq!(found, golden, "now it is\n{found}");
}
