//! Processes beside workloads: who waits for whom, and who is told what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moonpool_foundation::{
    Check, KillKind, Providers, RunError, SimulationBuilder, SimulationError, SimulationMetrics,
    SimulationResult, TimeProvider, Verdict,
};

const SECOND: Duration = Duration::from_secs(1);

fn done() -> SimulationResult<SimulationMetrics> {
    Ok(SimulationMetrics::default())
}

#[test]
fn a_topology_lists_processes_and_workloads_alike() {
    SimulationBuilder::new()
        .set_iterations(2)
        .process("server-1", |_, topology| async move {
            assert_eq!(topology.my_ip, "10.0.0.1");
            assert_eq!(topology.peer_names, ["client", "server-2"]);
            Ok(())
        })
        .register_workload("client", |_, _, _, _, topology| async move {
            assert_eq!(topology.my_ip, "10.0.0.2");
            assert_eq!(topology.peer_ips, ["10.0.0.1", "10.0.0.3"]);
            assert_eq!(
                topology.get_peer_by_name("server-2").as_deref(),
                Some("10.0.0.3")
            );
            assert_eq!(topology.get_peers_with_prefix("server-").len(), 2);
            done()
        })
        .process("server-2", |_, _| async { Ok(()) })
        .run()
        .assert_passed();
}

#[test]
fn a_seed_does_not_wait_for_its_processes() {
    let report = SimulationBuilder::new()
        .set_iterations(2)
        .process("server", |_, topology| async move {
            topology.shutdown_signal.cancelled().await;
            Ok(())
        })
        .process("brief", |_, _| async { Ok(()) })
        .register_workload("client", |_, _, time, _, _| async move {
            time.sleep(SECOND).await;
            done()
        })
        .run();
    report.assert_passed();
    assert_eq!(report.average_simulated_time(), SECOND);
    assert_eq!(report.individual_metrics[0].leftovers.tasks, 0);
}

#[test]
fn processes_are_told_to_stop_when_all_workloads_have_returned_and_get_time_for_it() {
    let stopped = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&stopped);
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .check(Check::Off)
        .process("server", move |providers, topology| {
            let stopped = Arc::clone(&stopped);
            async move {
                topology.shutdown_signal.cancelled().await;
                assert_eq!(providers.time().now(), 3 * SECOND);
                providers.time().sleep(SECOND).await;
                stopped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        })
        .register_workload("early", |_, _, time, _, _| async move {
            time.sleep(SECOND).await;
            done()
        })
        .register_workload("late", |_, _, time, _, topology| async move {
            topology.shutdown_signal.cancelled().await;
            assert_eq!(time.now(), SECOND);
            time.sleep(2 * SECOND).await;
            done()
        })
        .run();
    report.assert_passed();
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    assert_eq!(report.average_simulated_time(), 4 * SECOND);
}

#[test]
fn a_process_that_does_not_stop_fails_nothing() {
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .process("deaf", |_, _| std::future::pending())
        .register_workload("client", |_, _, _, _, _| async { done() })
        .run();
    report.assert_passed();
    assert_eq!(report.individual_metrics[0].leftovers.tasks, 1);
}

#[test]
fn an_error_of_a_process_fails_the_seed_and_names_it() {
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .process("server", |providers, _| async move {
            providers.time().sleep(SECOND).await;
            Err(SimulationError::workload("disk full"))
        })
        .register_workload("client", |_, _, _, _, topology| async move {
            topology.shutdown_signal.cancelled().await;
            done()
        })
        .run();
    assert_eq!(
        report.individual_metrics[0].verdict,
        Verdict::WorkloadError {
            workload: "server".into(),
            message: "disk full".into()
        }
    );
}

#[test]
fn processes_alone_are_nothing_to_run() {
    let builder = SimulationBuilder::new().process("server", |_, _| async { Ok(()) });
    assert_eq!(builder.try_run().unwrap_err(), RunError::NoWorkloads);
}

#[test]
fn a_name_is_unique_among_processes_and_workloads() {
    let builder = SimulationBuilder::new()
        .process("server", |_, _| async { Ok(()) })
        .register_workload("server", |_, _, _, _, _| async { done() });
    let error = builder.try_run().unwrap_err();
    assert!(matches!(error, RunError::WorkloadName { .. }), "{error}");
}

#[test]
fn a_process_killed_by_a_workload_begins_its_next_life_with_fresh_memory() {
    let lives = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&lives);
    SimulationBuilder::new()
        .set_iterations(1)
        .check(Check::Off)
        .process("server", move |_, topology| {
            let counted = Arc::clone(&counted);
            async move {
                // The signal is that of this life.
                assert!(!topology.shutdown_signal.is_cancelled());
                counted.fetch_add(1, Ordering::Relaxed);
                topology.shutdown_signal.cancelled().await;
                std::future::pending().await
            }
        })
        .register_workload("killer", |_, _, time, _, topology| async move {
            let server = topology.world().unwrap().process("server").unwrap();
            let grace = SECOND;
            time.sleep(SECOND).await;
            for _ in 0..3 {
                let world = topology.world().unwrap();
                assert!(world.kill(server.id(), KillKind::Graceful { grace }));
                drop(world);
                time.sleep(2 * SECOND).await;
                assert!(!server.is_alive());
                assert!(topology.world().unwrap().restart(server.id()));
                time.sleep(SECOND).await;
            }
            done()
        })
        .run()
        .assert_passed();
    assert_eq!(lives.load(Ordering::Relaxed), 4);
}

#[test]
fn nobody_lives_again_once_the_workloads_are_done() {
    let lives = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&lives);
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .check(Check::Off)
        .process("rebooting", move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        })
        .process("paused", |_, topology| async move {
            topology.shutdown_signal.cancelled().await;
            Ok(())
        })
        .register_workload("killer", |_, _, time, _, topology| async move {
            time.sleep(SECOND).await;
            let world = topology.world().unwrap();
            let [rebooting, paused] =
                ["rebooting", "paused"].map(|name| world.process(name).unwrap().id());
            world.kill(
                rebooting,
                KillKind::Reboot {
                    after: SECOND..SECOND,
                },
            );
            world.pause(paused);
            done()
        })
        .run();
    report.assert_passed();
    assert_eq!(lives.load(Ordering::Relaxed), 1);
    assert_eq!(report.average_simulated_time(), SECOND, "all have ended");
    let left = report.individual_metrics[0].leftovers;
    assert_eq!((left.tasks, left.events), (0, 0));
}
