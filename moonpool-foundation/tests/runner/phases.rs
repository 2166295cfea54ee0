//! Faults for a while, then quiet: what has to have come to an end by then, has.

use std::time::Duration;

use moonpool_foundation::{
    KillKind, NetworkProvider, Phases, ProcessId, Providers, RunError, SeedReport, SimWorld,
    SimulationBuilder, SimulationMetrics, SimulationResult, TaskProvider, TcpListenerTrait,
    TimeProvider, Verdict,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn phases() -> Phases {
    Phases {
        chaos: Duration::from_secs(5)..Duration::from_secs(10),
        quiet: Duration::from_secs(60),
    }
}

fn done() -> SimulationResult<SimulationMetrics> {
    Ok(SimulationMetrics::default())
}

fn only_seed(builder: SimulationBuilder) -> SeedReport {
    let mut report = builder.phases(phases()).set_iterations(1).run();
    report.individual_metrics.remove(0)
}

fn polling(until: Duration) -> SimulationBuilder {
    SimulationBuilder::new().register_workload("client", move |_, _, time, _, _| async move {
        while time.now() < until {
            time.sleep(Duration::from_secs(1)).await;
        }
        done()
    })
}

#[test]
fn workloads_that_do_not_finish_in_the_quiet_phase_fail_with_who_waits_on_what() {
    let seed = only_seed(polling(Duration::MAX));
    let Verdict::Liveness {
        healed_at,
        quiet,
        waiting,
    } = &seed.verdict
    else {
        panic!("{}", seed.verdict);
    };
    assert!(phases().chaos.contains(healed_at), "{healed_at:?}");
    assert_eq!(*quiet, phases().quiet);
    assert!(
        waiting[0].starts_with("task `client` of `client` waits on sleep until"),
        "{waiting:?}"
    );
    assert!(seed.metrics.simulated_time <= *healed_at + *quiet);
}

#[test]
fn workloads_that_finish_in_either_phase_pass() {
    for finished_at in [1, 30] {
        let seed = only_seed(polling(Duration::from_secs(finished_at)));
        assert_eq!(seed.verdict, Verdict::Passed);
        assert_eq!(
            seed.metrics.simulated_time,
            Duration::from_secs(finished_at)
        );
    }
}

#[test]
fn the_length_of_the_chaos_is_drawn_per_seed() {
    let report = polling(Duration::MAX)
        .phases(phases())
        .with_seed_range(0..20)
        .run();
    let healed = report.individual_metrics.iter();
    let mut healed: Vec<Duration> = healed
        .map(|seed| match &seed.verdict {
            Verdict::Liveness { healed_at, .. } => *healed_at,
            other => panic!("{other}"),
        })
        .collect();
    healed.sort_unstable();
    healed.dedup();
    assert_eq!(healed.len(), 20);
}

#[test]
fn a_world_that_stands_still_under_faults_is_no_deadlock_before_they_end() {
    let waiting = SimulationBuilder::new().register_workload("client", |_, _, _, _, _| async {
        std::future::pending::<()>().await;
        done()
    });
    let seed = only_seed(waiting);
    let Verdict::Deadlock { at, .. } = &seed.verdict else {
        panic!("{}", seed.verdict);
    };
    assert!(*at >= phases().chaos.start, "{at:?}");
}

#[test]
fn the_time_budget_of_the_seed_still_holds() {
    let seed = only_seed(polling(Duration::MAX).set_time_budget(Duration::from_secs(20)));
    assert_eq!(seed.verdict.name(), "TimeBudget");
    assert!(seed.metrics.simulated_time <= Duration::from_secs(20));
}

#[test]
fn what_is_under_way_when_the_last_workload_returns_is_not_left_over() {
    let hasty = || {
        SimulationBuilder::new()
            .register_workload("server", |_, network, _, task, _| async move {
                let listener = network.bind("server:7000").await?;
                task.spawn_task("accept", async move { listener_accepts(listener).await });
                done()
            })
            .register_workload("client", |_, network, time, _, _| async move {
                time.sleep(Duration::from_secs(1)).await;
                drop(network.connect("server:7000").await?);
                done()
            })
    };
    let without = hasty().set_iterations(1).run();
    assert_ne!(without.individual_metrics[0].leftovers.connections, 0);
    let with = only_seed(hasty());
    assert_eq!(with.verdict, Verdict::Passed);
    assert_eq!(with.leftovers.connections, 0);
    assert_eq!(with.leftovers.tasks, 0);
}

async fn listener_accepts(listener: impl moonpool_foundation::TcpListenerTrait) {
    use tokio::io::AsyncReadExt;
    if let Ok((mut stream, _)) = listener.accept().await {
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).await.ok(), Some(0));
    }
}

/// A server that is gone, as `fault` has it, and a client that asks until it is answered.
fn unanswered(fault: fn(&SimWorld, ProcessId)) -> SimulationBuilder {
    SimulationBuilder::new()
        .process("server", |providers, _topology| async move {
            let listener = providers.network().bind("0.0.0.0:80").await?;
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.write_u8(7).await.ok();
            }
        })
        .register_workload("client", move |_, network, time, _, topology| async move {
            let world = topology.world().unwrap();
            fault(&world, world.process("server").unwrap().id());
            drop(world);
            loop {
                let answer = time.timeout(Duration::from_secs(1), async {
                    network.connect("server:80").await?.read_u8().await
                });
                if let Ok(Ok(7)) = answer.await {
                    return done();
                }
                time.sleep(Duration::from_millis(100)).await;
            }
        })
}

#[test]
fn the_quiet_phase_begins_with_every_process_running() {
    let faults: [fn(&SimWorld, ProcessId); 3] = [
        |world, server| {
            world.kill(server, KillKind::Crash);
        },
        |world, server| {
            world.kill(server, KillKind::PowerLoss);
        },
        |world, server| {
            world.pause(server);
        },
    ];
    for fault in faults {
        let seed = only_seed(unanswered(fault));
        assert_eq!(seed.verdict, Verdict::Passed);
        assert!(seed.metrics.simulated_time >= phases().chaos.start);
    }
}

#[test]
fn phases_without_time_are_refused() {
    let mut inverted = phases();
    std::mem::swap(&mut inverted.chaos.start, &mut inverted.chaos.end);
    let hurried = Phases {
        quiet: Duration::ZERO,
        ..phases()
    };
    for bad in [inverted, hurried] {
        let refused = polling(Duration::ZERO).phases(bad).try_run();
        assert!(matches!(refused, Err(RunError::Phases { .. })));
    }
}
