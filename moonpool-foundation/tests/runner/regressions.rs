//! Seeds that failed are kept, and run first.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use moonpool_foundation::{
    NetworkConfiguration, Regressions, RunError, SimulationBuilder, SimulationError,
    SimulationMetrics, SimulationReport, get_current_sim_seed,
};

/// A file of its own for each test, gone at its end.
struct Kept(PathBuf);

impl Kept {
    fn new(name: &str) -> Self {
        let name = format!("moonpool-{}-{name}.regressions", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_file(&path));
        Self(path)
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    /// A campaign that keeps its seeds here, of which `bad` fail.
    fn campaign(&self, bad: &'static [u64]) -> SimulationBuilder {
        SimulationBuilder::new()
            .regressions(Regressions::File(self.0.clone()))
            .register_workload("client", move |_, _, _, _, _| async move {
                if bad.contains(&get_current_sim_seed()) {
                    return Err(SimulationError::workload("as planted"));
                }
                Ok(SimulationMetrics::default())
            })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

fn fail_a_test(builder: &SimulationBuilder) {
    let report = AssertUnwindSafe(builder.run());
    let failed = catch_unwind(move || {
        // All of the report is dropped by the panic.
        let report: SimulationReport = { report }.0;
        report.assert_passed();
    });
    assert!(failed.is_err());
}

#[test]
fn the_first_failing_seed_of_a_failing_test_is_kept_once_and_runs_first() {
    let kept = Kept::new("first");
    for _ in 0..2 {
        fail_a_test(&kept.campaign(&[17, 23]).with_seed_range(10..30));
    }
    let lines = kept.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let words: Vec<&str> = lines[0].split(' ').collect();
    assert!(
        words[0].ends_with("the_first_failing_seed_of_a_failing_test_is_kept_once_and_runs_first")
    );
    assert_eq!((words[1], words[3]), ("17", "WorkloadError"));
    // Other seeds: the one that was kept fails in front of them.
    let report = kept.campaign(&[17]).with_seed_range(0..3).run();
    assert_eq!(report.seeds_used, [17, 0, 1, 2]);
    assert_eq!(report.seeds_failing, [17]);
    assert_eq!((report.iterations, report.regressions_run), (4, 1));
    let stopped = kept.campaign(&[17]).with_seed_range(0..3).stop_on_failure();
    assert_eq!(stopped.run().seeds_used, [17]);
    // The same seeds: it is among them.
    let report = kept.campaign(&[17]).with_seed_range(16..18).run();
    assert_eq!(report.seeds_used, [16, 17]);
}

#[test]
fn kept_seeds_that_pass_do_not_change_the_campaign() {
    let kept = Kept::new("pass");
    fail_a_test(&kept.campaign(&[5]).with_seed_range(5..6));
    let report = kept.campaign(&[]).with_seed_range(0..3).run();
    assert_eq!(report.seeds_used, [0, 1, 2]);
    assert_eq!((report.iterations, report.regressions_run), (3, 1));
    let without = kept.campaign(&[]).regressions(Regressions::Off);
    let without = without.with_seed_range(0..3).run();
    assert_eq!(report.metrics.digest, without.metrics.digest);
    assert_eq!(without.regressions_run, 0);
}

#[test]
fn a_seed_belongs_to_its_configuration() {
    let kept = Kept::new("configuration");
    fail_a_test(&kept.campaign(&[5]).with_seed_range(5..6));
    let other = kept.campaign(&[5]).with_seed_range(0..3);
    let report = other
        .with_network_config(NetworkConfiguration::fast_local())
        .run();
    assert_eq!(report.regressions_run, 0);
}

#[test]
fn an_expected_failure_and_given_seeds_leave_no_file() {
    let kept = Kept::new("expected");
    let expected = kept.campaign(&[5]).with_seed_range(0..10).run();
    assert_eq!(expected.failed_runs, 1);
    drop(expected);
    fail_a_test(&kept.campaign(&[5]).set_debug_seeds(vec![5]));
    assert!(!kept.0.exists());
    let off = kept.campaign(&[5]).regressions(Regressions::Off);
    fail_a_test(&off.with_seed_range(5..6));
    assert!(!kept.0.exists());
}

#[test]
fn a_file_that_cannot_be_written_fails_nothing_else() {
    let nowhere = Kept(std::env::temp_dir().join("moonpool-no-such-directory/x.regressions"));
    fail_a_test(&nowhere.campaign(&[5]).with_seed_range(5..6));
    assert!(!nowhere.0.exists());
}

#[test]
fn a_bad_line_stops_the_campaign_before_it_starts() {
    let kept = Kept::new("bad");
    std::fs::write(&kept.0, "# fine\nnonsense\n").unwrap();
    let error = kept.campaign(&[]).try_run().unwrap_err();
    assert!(
        matches!(error, RunError::Regressions { line: 2, .. }),
        "{error}"
    );
}
