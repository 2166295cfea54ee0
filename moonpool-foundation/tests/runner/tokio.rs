//! The same workloads on real sockets.

use std::time::Duration;

use moonpool_foundation::{
    SimulationError, SimulationMetrics, TimeProvider, TokioProviders, TokioReport, TokioRunner,
    Verdict,
};

use crate::echo;

fn done() -> moonpool_foundation::SimulationResult<SimulationMetrics> {
    Ok(SimulationMetrics::default())
}

fn only_verdict(mut report: TokioReport) -> Verdict {
    assert_eq!((report.iterations, report.failed_runs), (1, 1));
    report.individual_metrics.remove(0).verdict
}

#[test]
fn workloads_of_the_simulation_pass_on_real_sockets() {
    let report = TokioRunner::new()
        .set_iterations(3)
        .register_workload("server", echo::server::<TokioProviders>)
        .register_workload("client", echo::client::<TokioProviders>)
        .run();
    report.assert_passed();
    assert_eq!((report.iterations, report.successful_runs), (3, 3));
    assert!((report.success_rate() - 100.0).abs() < 1e-9);
    assert!(
        report
            .to_string()
            .starts_with("3 runs on real sockets: 3 passed, 0 failed")
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["individual_metrics"][2]["verdict"], "Passed");
}

#[test]
fn runs_side_by_side_use_the_same_port() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(workloads_of_the_simulation_pass_on_real_sockets);
        }
    });
}

#[test]
fn a_panic_is_the_verdict_of_its_workload_alone() {
    let verdict = only_verdict(
        TokioRunner::new()
            .register_workload("other", |_, _| std::future::pending())
            .register_workload("bad", |_, _| async { panic!("as planted") })
            .run(),
    );
    let Verdict::Panic { task, message, .. } = &verdict else {
        panic!("{verdict}");
    };
    assert_eq!((task.as_str(), message.as_str()), ("bad", "as planted"));
}

#[test]
fn an_error_ends_the_run() {
    let runner = TokioRunner::new()
        .register_workload("other", |_, _| std::future::pending())
        .register_workload("bad", |_, _| async {
            Err(SimulationError::workload("as planted"))
        });
    let verdict = only_verdict(runner.run());
    assert_eq!(
        verdict.headline(),
        "workload `bad` returned an error: as planted"
    );
}

#[test]
fn a_run_beyond_its_time_limit_says_who_has_not_returned() {
    let runner = TokioRunner::new()
        .set_time_limit(Duration::ZERO)
        .register_workload("quick", |_, _| async { done() })
        .register_workload("slow", |providers: TokioProviders, _| async move {
            use moonpool_foundation::Providers;
            providers.time().sleep(Duration::MAX).await;
            done()
        });
    let verdict = only_verdict(runner.run());
    let Verdict::TimeBudget { waiting, .. } = &verdict else {
        panic!("{verdict}");
    };
    assert_eq!(*waiting, ["workload `slow` has not returned"]);
}

#[test]
fn each_workload_has_an_address_and_knows_the_others() {
    TokioRunner::new()
        .register_workload("one", |_, topology| async move {
            assert_eq!(topology.peer_names, ["two"]);
            assert_eq!(
                topology.get_peer_by_name("two"),
                Some(topology.peer_ips[0].clone())
            );
            done()
        })
        .register_workload("two", |_, topology| async move {
            topology.shutdown_signal.cancelled().await;
            assert_eq!(topology.peer_names, ["one"]);
            done()
        })
        .run()
        .assert_passed();
}
