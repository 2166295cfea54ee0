//! What a workload is given, and when it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moonpool_foundation::{SimulationBuilder, SimulationMetrics, TaskProvider, TimeProvider};

fn done() -> moonpool_foundation::SimulationResult<SimulationMetrics> {
    Ok(SimulationMetrics::default())
}

#[test]
fn each_workload_knows_its_address_and_the_others() {
    SimulationBuilder::new()
        .set_iterations(3)
        .register_workload("server", |_, _, _, _, topology| async move {
            assert_eq!(topology.my_ip, "10.0.0.1");
            assert_eq!(topology.peer_names, ["client-1", "client-2"]);
            assert_eq!(topology.peer_ips, ["10.0.0.2", "10.0.0.3"]);
            done()
        })
        .register_workload("client-1", |_, _, _, _, topology| async move {
            assert_eq!(
                topology.get_peer_by_name("server").as_deref(),
                Some("10.0.0.1")
            );
            let clients = topology.get_peers_with_prefix("client");
            assert_eq!(clients, [("client-2".to_owned(), "10.0.0.3".to_owned())]);
            done()
        })
        .register_workload("client-2", |_, _, _, _, _| async { done() })
        .run()
        .assert_passed();
}

#[test]
fn the_first_ok_fires_the_shutdown_signal() {
    let report = SimulationBuilder::new()
        .set_iterations(3)
        .register_workload("server", |_, _, time, _, topology| async move {
            topology.shutdown_signal.cancelled().await;
            assert_eq!(time.now(), Duration::from_secs(2));
            done()
        })
        .register_workload("client", |_, _, time, _, topology| async move {
            time.sleep(Duration::from_secs(2)).await;
            assert!(!topology.shutdown_signal.is_cancelled());
            done()
        })
        .run();
    report.assert_passed();
    assert_eq!(report.average_simulated_time(), Duration::from_secs(2));
}

#[test]
fn with_shutdown_after_all_the_last_ok_fires_it_and_those_who_wait_still_run() {
    let told = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&told);
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .shutdown_after_all()
        .register_workload("early", move |_, _, _, task, topology| {
            let told = Arc::clone(&told);
            async move {
                let signal = topology.shutdown_signal.clone();
                task.spawn_task("watcher", async move {
                    signal.cancelled().await;
                    told.store(true, Ordering::Relaxed);
                });
                done()
            }
        })
        .register_workload("late", |_, _, time, _, topology| async move {
            time.sleep(Duration::from_secs(1)).await;
            assert!(!topology.shutdown_signal.is_cancelled());
            done()
        })
        .run();
    report.assert_passed();
    assert!(seen.load(Ordering::Relaxed));
    assert_eq!(report.individual_metrics[0].leftovers.tasks, 0);
}

#[test]
fn workloads_without_a_name_get_one_by_their_place() {
    SimulationBuilder::new()
        .set_iterations(1)
        .with_workload(|_, _, _, _, topology| async move {
            assert_eq!(topology.peer_names, ["workload-2"]);
            done()
        })
        .with_workload(|_, _, _, _, _| async { done() })
        .run()
        .assert_passed();
}
