//! What no seed decides is found by running seeds twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moonpool_foundation::runner::Divergence;
use moonpool_foundation::{
    Check, NetworkProvider, Providers, SimProviders, SimulationBuilder, SimulationMetrics,
    SimulationReport, SimulationResult, TcpListenerTrait, TimeProvider, Verdict, WorkloadTopology,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs a server that takes bytes until the end, and `client` that is given the stream.
fn run_with_client<F, Fut>(seeds: usize, check: Check, client: F) -> SimulationReport
where
    F: Fn(
            SimProviders,
            <<SimProviders as Providers>::Network as NetworkProvider>::TcpStream,
        ) -> Fut
        + Copy
        + Send
        + Sync
        + 'static,
    Fut: Future<Output = SimulationResult<()>> + 'static,
{
    SimulationBuilder::new()
        .set_iterations(seeds)
        .check(check)
        .register_providers_workload("server", sink)
        .register_providers_workload("client", move |providers, _topology| async move {
            providers.time().sleep(Duration::from_millis(50)).await;
            let stream = providers.network().connect("server:7000").await?;
            client(providers, stream).await?;
            Ok(SimulationMetrics::default())
        })
        .run()
}

async fn sink(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<SimulationMetrics> {
    let address = format!("{}:7000", topology.my_ip);
    let listener = providers.network().bind(&address).await?;
    let (mut stream, _peer) = listener.accept().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(SimulationMetrics::default())
}

fn text_of_the_first_failure(report: &SimulationReport) -> String {
    let failed = report.failures().next().unwrap();
    assert_eq!(failed.verdict.name(), "Nondeterminism");
    failed.verdict.to_string()
}

#[test]
#[expect(clippy::disallowed_types, reason = "the defect under test")]
fn iteration_over_a_std_hash_map_that_reaches_the_network_is_caught() {
    let report = run_with_client(5, Check::All, |_providers, mut stream| async move {
        let map: std::collections::HashMap<u8, ()> = (0..32).map(|key| (key, ())).collect();
        let bytes: Vec<u8> = map.keys().copied().collect();
        Ok(stream.write_all(&bytes).await?)
    });
    assert_eq!(report.failed_runs, 5);
    let text = text_of_the_first_failure(&report);
    assert!(
        text.contains("HashMap") && text.contains("they part at step"),
        "{text}"
    );
}

#[test]
fn a_hash_map_of_ours_repeats() {
    let report = run_with_client(5, Check::All, |_providers, mut stream| async move {
        let map: moonpool_foundation::collections::HashMap<u8, ()> =
            (0..32).map(|key| (key, ())).collect();
        #[expect(clippy::iter_over_hash_type, reason = "its hasher is fixed")]
        for key in map.keys() {
            stream.write_u8(*key).await?;
        }
        Ok(())
    });
    report.assert_passed();
}

#[test]
fn tokios_select_is_caught_and_ours_is_named() {
    let report = run_with_client(5, Check::All, |_providers, mut stream| async move {
        for _ in 0..32 {
            let byte = tokio::select! {
                () = std::future::ready(()) => 1,
                () = std::future::ready(()) => 2,
            };
            stream.write_u8(byte).await?;
        }
        Ok(())
    });
    assert_eq!(report.failed_runs, 5);
    let text = text_of_the_first_failure(&report);
    assert!(text.contains("moonpool_foundation::select!"), "{text}");
}

#[test]
fn our_select_repeats_and_takes_both_branches() {
    let report = run_with_client(20, Check::All, |providers, mut stream| async move {
        let mut taken = [0_u32; 2];
        for _ in 0..32 {
            let branch = moonpool_foundation::select! {
                () = std::future::ready(()) => 0,
                () = std::future::ready(()) => 1,
            };
            taken[usize::from(branch)] += 1;
            stream.write_u8(branch).await?;
            providers.time().sleep(Duration::from_millis(1)).await;
        }
        assert!(taken[0] > 0 && taken[1] > 0, "{taken:?}");
        Ok(())
    });
    report.assert_passed();
}

/// A campaign whose runs sleep for a time that a counter shared by all runs decides, after `steady`
/// sleeps that do not depend on it.
fn counting(steady: u64) -> SimulationBuilder {
    let runs = Arc::new(AtomicU64::new(0));
    SimulationBuilder::new().register_workload("counter", move |_, _, time, _, _| {
        let runs = Arc::clone(&runs);
        async move {
            for _ in 0..steady {
                time.sleep(Duration::from_millis(1)).await;
            }
            let millis = runs.fetch_add(1, Ordering::Relaxed);
            time.sleep(Duration::from_millis(millis)).await;
            Ok(SimulationMetrics::default())
        }
    })
}

#[test]
fn the_first_diverging_step_is_shown_with_the_twenty_before_it_of_both_runs() {
    let report = counting(30).set_iterations(1).run();
    let verdict = &report.failures().next().unwrap().verdict;
    let Verdict::Nondeterminism(found) = verdict else {
        panic!("{verdict}");
    };
    assert_ne!(found.first.0, found.second.0);
    let Divergence::At {
        step,
        first,
        second,
        ..
    } = &found.divergence
    else {
        panic!("{}", found.divergence);
    };
    assert_eq!((first.len(), second.len()), (21, 21));
    assert_eq!(first[..20], second[..20]);
    assert_ne!(first[20], second[20]);
    assert!(first[20].starts_with(&format!("#{step}")), "{}", first[20]);
    assert!(first[20].contains("timer fires"), "{}", first[20]);
}

#[test]
fn by_default_some_of_the_passing_seeds_and_every_failing_one_run_twice() {
    let failing = |report: &SimulationReport| report.seeds_failing.clone();
    assert_eq!(
        failing(&counting(0).with_seed_range(0..250).jobs(1).run()),
        [0, 16, 32, 48, 64, 80, 96, 100, 200]
    );
    let unchecked = counting(0).with_seed_range(0..250).check(Check::Off);
    assert!(failing(&unchecked.run()).is_empty());
}

#[test]
fn second_runs_add_nothing_to_the_metrics() {
    let run = |check| {
        let report = run_with_client(3, check, |_, mut stream| async move {
            Ok(stream.write_u8(1).await?)
        });
        let metrics = report.metrics;
        (
            report.iterations,
            metrics.events_processed,
            metrics.simulated_time,
            metrics.digest,
        )
    };
    assert_eq!(run(Check::All), run(Check::Off));
}

#[test]
fn an_escape_that_another_thread_times_stays_an_escape() {
    // The first run is woken from another thread, the second waits for ever.
    let runs = Arc::new(AtomicU64::new(0));
    let report = SimulationBuilder::new()
        .set_iterations(1)
        .register_workload("threaded", move |_, _, _, _, _| {
            let first = runs.fetch_add(1, Ordering::Relaxed) == 0;
            let mut woken = !first;
            std::future::poll_fn(move |cx| {
                if !std::mem::replace(&mut woken, true) {
                    let waker = cx.waker().clone();
                    std::thread::spawn(move || waker.wake()).join().unwrap();
                }
                std::task::Poll::Pending
            })
        })
        .run();
    let verdict = &report.failures().next().unwrap().verdict;
    assert_eq!(verdict.name(), "Escape");
}
