//! Each way a seed can fail, and what is said about it.

use std::future::Future;
use std::io;
use std::task::Poll;
use std::time::Duration;

use moonpool_foundation::{
    NetworkProvider, Providers, SimProviders, SimulationBuilder, SimulationError,
    SimulationMetrics, SimulationResult, TaskProvider, TcpListenerTrait, TimeProvider, Verdict,
    WorkloadTopology,
};
use tokio::io::AsyncReadExt;

fn done() -> SimulationResult<SimulationMetrics> {
    Ok(SimulationMetrics::default())
}

/// The verdict over one seed of a workload named `node`.
fn verdict_of<F, Fut>(workload: F) -> Verdict
where
    F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
{
    let builder = SimulationBuilder::new().register_providers_workload("node", workload);
    only_verdict(builder)
}

fn only_verdict(builder: SimulationBuilder) -> Verdict {
    let mut report = builder.set_iterations(1).run();
    report.individual_metrics.remove(0).verdict
}

#[test]
fn a_panic_names_task_process_place_and_message() {
    let verdict = verdict_of(|providers, _| async move {
        providers.time().sleep(Duration::from_secs(1)).await;
        panic!("broken {}", 1)
    });
    let Verdict::Panic {
        task,
        process,
        message,
        location,
    } = &verdict
    else {
        panic!("{verdict}");
    };
    assert_eq!(
        (task.as_str(), process.as_str(), message.as_str()),
        ("node", "node", "broken 1")
    );
    assert!(location.as_ref().unwrap().contains("verdicts.rs"));
    let text = verdict.to_string();
    assert!(
        text.starts_with("Panic: task `node` of process `node` panicked at "),
        "{text}"
    );
    assert!(text.ends_with(": broken 1"), "{text}");
}

#[test]
fn a_panic_of_the_closure_itself_is_the_workloads() {
    let verdict = verdict_of(
        |_, _| -> std::future::Ready<SimulationResult<SimulationMetrics>> {
            panic!("before any future")
        },
    );
    assert!(
        verdict.to_string().contains("before any future"),
        "{verdict}"
    );
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[test]
fn a_panic_in_a_workloads_destructor_fails_the_seed() {
    let verdict = verdict_of(|_, _| async {
        let _bomb = Bomb;
        done()
    });
    assert_eq!(verdict.name(), "Panic");
    assert!(verdict.to_string().contains("in drop"), "{verdict}");
}

#[test]
fn a_panic_in_a_destructor_at_the_seeds_end_names_the_task() {
    let verdict = verdict_of(|providers, _| async move {
        let time = providers.time().clone();
        providers.task().spawn_task("left behind", async move {
            let _bomb = Bomb;
            time.sleep(Duration::from_secs(60)).await;
        });
        providers.time().sleep(Duration::from_secs(1)).await;
        done()
    });
    let Verdict::Panic { task, message, .. } = &verdict else {
        panic!("{verdict}");
    };
    assert_eq!(
        (task.as_str(), message.as_str()),
        ("left behind", "in drop")
    );
}

#[test]
fn an_error_names_the_workload() {
    let verdict = verdict_of(|_, _| async { Err(SimulationError::workload("no quorum")) });
    assert_eq!(
        verdict.to_string(),
        "WorkloadError: workload `node` returned an error: no quorum"
    );
    let verdict = verdict_of(|providers, _| async move {
        providers.network().connect("nobody:1").await?;
        done()
    });
    assert!(
        verdict.to_string().contains("no process is named `nobody`"),
        "{verdict}"
    );
    let verdict = verdict_of(|_, _| async {
        let error = io::Error::other("the inner cause");
        Err(SimulationError::Other(Box::new(error)))
    });
    assert!(verdict.to_string().contains("the inner cause"), "{verdict}");
}

#[test]
fn the_first_error_ends_the_seed() {
    let mut report = SimulationBuilder::new()
        .set_iterations(1)
        .register_workload("endless", |_, _, time, _, _| async move {
            loop {
                time.sleep(Duration::from_secs(1)).await;
            }
        })
        .register_workload("failing", |_, _, time, _, _| async move {
            time.sleep(Duration::from_millis(2500)).await;
            Err(SimulationError::workload("enough"))
        })
        .run();
    let seed = report.individual_metrics.remove(0);
    assert_eq!(seed.verdict.name(), "WorkloadError");
    assert_eq!(seed.metrics.simulated_time, Duration::from_millis(2500));
}

#[test]
fn a_deadlock_lists_who_waits_on_what() {
    let builder = SimulationBuilder::new()
        .register_workload("server", |_, network, _, _, _| async move {
            let listener = network.bind("server:7000").await?;
            let (_first, _) = listener.accept().await?;
            listener.accept().await?;
            done()
        })
        .register_workload("client", |_, network, time, _, _| async move {
            time.sleep(Duration::from_secs(1)).await;
            let mut stream = network.connect("server:7000").await?;
            stream.read_u8().await?;
            done()
        });
    let verdict = only_verdict(builder);
    let Verdict::Deadlock { at, waiting } = &verdict else {
        panic!("{verdict}");
    };
    assert!(*at > Duration::from_secs(1));
    let here = "spawned at moonpool-foundation/tests/runner/verdicts.rs:";
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    let server = "task `server` of `server` waits on accept on 10.0.0.1:7000; ";
    let client = "task `client` of `client` waits on read from 10.0.0.1:7000; ";
    assert!(
        waiting[0].starts_with(&format!("{server}{here}")),
        "{}",
        waiting[0]
    );
    assert!(
        waiting[1].starts_with(&format!("{client}{here}")),
        "{}",
        waiting[1]
    );
    let text = verdict.to_string();
    assert!(
        text.starts_with("Deadlock: nothing is ready and no event is queued"),
        "{text}"
    );
}

#[test]
fn a_seed_beyond_its_time_budget_fails_with_who_waits() {
    let builder = SimulationBuilder::new()
        .set_time_budget(Duration::from_secs(10))
        .register_workload("endless", |_, _, time, _, _| async move {
            loop {
                time.sleep(Duration::from_secs(3)).await;
            }
        });
    let verdict = only_verdict(builder);
    let Verdict::TimeBudget { budget, waiting } = &verdict else {
        panic!("{verdict}");
    };
    assert_eq!(*budget, Duration::from_secs(10));
    assert!(
        waiting[0].contains("waits on sleep until 12s"),
        "{waiting:?}"
    );
}

#[test]
fn the_time_budget_is_an_hour_unless_told_otherwise() {
    let within = verdict_of(|providers, _| async move {
        providers.time().sleep(Duration::from_secs(3600)).await;
        done()
    });
    assert_eq!(within, Verdict::Passed);
    let beyond = verdict_of(|providers, _| async move {
        providers.time().sleep(Duration::from_secs(3601)).await;
        done()
    });
    assert_eq!(beyond.name(), "TimeBudget");
}

#[test]
fn a_task_that_spins_is_a_livelock() {
    let builder = SimulationBuilder::new()
        .set_livelock_limit(1000)
        .register_workload("spinner", |_, _, _, task, _| async move {
            loop {
                task.yield_now().await;
            }
        });
    let verdict = only_verdict(builder);
    let Verdict::Livelock { task, polls, .. } = &verdict else {
        panic!("{verdict}");
    };
    assert_eq!((task.as_str(), *polls), ("spinner", 1001));
}

fn escape_of<F, Fut>(workload: F) -> String
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let verdict = verdict_of(move |_, _| {
        let escaping = workload();
        async move {
            escaping.await;
            done()
        }
    });
    assert_eq!(verdict.name(), "Escape", "{verdict}");
    verdict.to_string()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_sleep_is_an_escape() {
    let text = escape_of(|| async { tokio::time::sleep(Duration::from_secs(1)).await });
    assert!(
        text.contains("`node`") && text.contains("TimeProvider::sleep"),
        "{text}"
    );
}

#[test]
fn tokios_sockets_are_an_escape() {
    let text = escape_of(|| async {
        drop(tokio::net::TcpStream::connect("127.0.0.1:9").await);
    });
    assert!(text.contains("NetworkProvider::connect"), "{text}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the escape under test")]
fn tokios_spawn_is_an_escape() {
    let text = escape_of(|| async {
        tokio::spawn(async {});
    });
    assert!(text.contains("TaskProvider::spawn_task"), "{text}");
}

#[test]
fn a_wake_from_another_thread_is_an_escape() {
    let text = escape_of(|| {
        std::future::poll_fn(|cx| {
            let waker = cx.waker().clone();
            // Joined, so that the wake is certain to come before the end of this poll.
            std::thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        })
    });
    assert!(
        text.contains("another thread") && text.contains("run_blocking"),
        "{text}"
    );
}

/// Fails on seeds that are multiples of 3.
fn fails_sometimes() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_seed_range(1..11)
        .register_workload("picky", |_, _, _, _, _| async {
            if moonpool_foundation::get_current_sim_seed().is_multiple_of(3) {
                return Err(SimulationError::workload("a multiple of three"));
            }
            done()
        })
}

#[test]
fn a_failing_seed_does_not_end_the_campaign() {
    let report = fails_sometimes().run();
    assert_eq!(
        (
            report.iterations,
            report.successful_runs,
            report.failed_runs
        ),
        (10, 7, 3)
    );
    assert_eq!(report.seeds_failing, [3, 6, 9]);
}

#[test]
fn it_does_if_asked_on_any_number_of_threads() {
    for jobs in [1, 2, 5] {
        let report = fails_sometimes().stop_on_failure().jobs(jobs).run();
        assert_eq!(report.seeds_used, [1, 2, 3], "{jobs} jobs");
        assert_eq!(report.seeds_failing, [3]);
    }
}
