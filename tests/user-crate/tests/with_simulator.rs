//! The macros with the simulator, from a crate that is not ours.
#![cfg(feature = "simulation")]
#![forbid(unsafe_code)]

use moonpool::foundation::{SimulationBuilder, SimulationMetrics};
use moonpool_user_crate::use_everything;

fn campaign() -> SimulationBuilder {
    SimulationBuilder::new()
        .set_iterations(3)
        .register_workload("user", |_, _, _, _, _| async {
            // Five conditions and, in seeds in which the site is asked, a probability.
            assert_eq!(use_everything(), 6);
            Ok(SimulationMetrics::default())
        })
}

#[test]
fn sites_of_a_users_crate_count_in_a_crate_that_forbids_unsafe_code() {
    let report = campaign().run();
    report.assert_passed();
    for name in ["user_always", "user_sometimes", "user_always_format"] {
        let mut found = report.assertion_results.iter().filter(|r| r.name == name);
        let found = found.next().expect(name);
        assert_eq!((found.checks, found.held), (3, 3), "{name}");
        assert_eq!(found.place.module, "moonpool_user_crate");
    }
}

#[test]
fn a_site_in_a_library_that_nobody_calls_is_known_and_missed() {
    let report = campaign().coverage(["moonpool_user_crate"]).run();
    let missed: Vec<&str> = report.missed_assertions().map(|r| r.name).collect();
    assert_eq!(missed, ["user_unreached"]);
    assert!(!report.coverage_complete());
    assert_eq!(report.assertion_violations.len(), 1);
}

#[test]
fn outside_a_simulation_no_argument_is_evaluated() {
    assert_eq!(use_everything(), 0);
}
