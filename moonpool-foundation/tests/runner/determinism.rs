//! One seed, one digest: whatever runs beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool_foundation::{
    Attrition, Check, FaultCounts, FaultId, FaultKind, NetworkConfiguration, NetworkProvider,
    Phases, SimProviders, SimulationBuilder, SimulationMetrics, TimeProvider,
};

use crate::echo;

fn echoes() -> SimulationBuilder {
    SimulationBuilder::new()
        .with_network_config(NetworkConfiguration::disabled())
        .register_providers_workload("server", echo::server::<SimProviders>)
        .register_providers_workload("client", echo::client::<SimProviders>)
}

fn digests(builder: &SimulationBuilder) -> Vec<u64> {
    let report = builder.run();
    report.assert_passed();
    let seeds = report.individual_metrics.iter();
    seeds.map(|seed| seed.metrics.digest).collect()
}

#[test]
fn a_seed_has_one_digest_alone_in_a_thousand_and_on_any_number_of_threads() {
    let thousand = digests(&echoes().with_seed_range(0..1000).jobs(1));
    assert_eq!(
        digests(&echoes().with_seed_range(0..1000).jobs(2)),
        thousand
    );
    assert_eq!(
        digests(&echoes().with_seed_range(0..1000).jobs(7)),
        thousand
    );
    for seed in [0, 17, 999] {
        let alone = digests(&echoes().set_debug_seeds(vec![seed]));
        assert_eq!(alone, [thousand[usize::try_from(seed).unwrap()]]);
    }
}

/// Everything that is drawn per seed: the network, the length of the chaos, kills and pauses.
fn everything() -> SimulationBuilder {
    SimulationBuilder::new()
        .use_random_config()
        .phases(Phases::default())
        .attrition(Attrition {
            probability: 0.5,
            ..Attrition::default()
        })
        .process("server", |providers, topology| async move {
            let serving = echo::server(providers, topology).await;
            serving.map(drop)
        })
        .register_workload("client", |_, network, time, _, _| async move {
            for _ in 0..20 {
                drop(
                    time.timeout(Duration::from_secs(1), network.connect("server:7000"))
                        .await,
                );
                time.sleep(Duration::from_secs(1)).await;
            }
            Ok(SimulationMetrics::default())
        })
}

#[test]
fn what_is_drawn_per_seed_repeats_on_any_number_of_threads() {
    let campaign = |jobs| everything().with_seed_range(0..60).jobs(jobs);
    let digests = |builder: SimulationBuilder| {
        let seeds = builder.run().individual_metrics;
        let seeds = seeds.into_iter();
        seeds
            .map(|seed| (seed.metrics.digest, seed.verdict.to_string(), seed.faults))
            .collect::<Vec<(u64, String, FaultCounts)>>()
    };
    let alone = digests(campaign(1).check(Check::All));
    assert!(
        alone
            .iter()
            .all(|(_, verdict, _)| !verdict.starts_with("Nondet")),
        "{alone:?}"
    );
    assert!(
        alone
            .iter()
            .any(|(_, _, faults)| faults.of(FaultKind::Kill) > 0)
    );
    let subset = |(_, _, faults): &(u64, String, FaultCounts)| {
        faults.fired().map(|(kind, _)| kind).collect()
    };
    let subsets: BTreeSet<Vec<FaultKind>> = alone.iter().map(subset).collect();
    assert!(subsets.len() > 20, "{subsets:?}");
    assert_eq!(digests(campaign(3)), alone);
}

#[test]
fn a_seed_is_the_same_in_new_memory_and_in_that_of_a_hundred_others() {
    // On a thread of its own each time: a world takes over the memory of the last one of its thread.
    let last = |seeds: Vec<u64>| {
        let run = move || everything().set_debug_seeds(seeds).jobs(1).run();
        let report = std::thread::spawn(run).join().unwrap();
        let last = report.individual_metrics.last().unwrap();
        (last.seed, last.metrics.digest, last.verdict.to_string())
    };
    for seed in [1000, 1001, 1002] {
        let others = 0..100;
        assert_eq!(last(others.chain([seed]).collect()), last(vec![seed]));
    }
}

#[test]
fn a_skipped_fault_is_part_of_the_configuration() {
    let skipped = FaultId {
        kind: FaultKind::Kill,
        ordinal: 1,
    };
    let killed = everything().with_seed_range(0..40).run();
    let mut killed = killed.individual_metrics.iter();
    let seed = killed.find(|seed| seed.faults.of(FaultKind::Kill) > 0);
    let seed = seed.unwrap().seed;
    let run = |builder: SimulationBuilder| {
        let mut report = builder.set_debug_seeds(vec![seed]).check(Check::All).run();
        let seed = report.individual_metrics.remove(0);
        assert_ne!(seed.verdict.name(), "Nondeterminism");
        (seed.metrics.digest, seed.metrics.events_processed)
    };
    let without = run(everything().skip_faults([skipped]));
    // The digest holds that it was skipped; what happened instead shows in the events.
    assert_ne!(run(everything()).1, without.1);
    assert_eq!(run(everything().skip_faults([skipped])), without);
}

#[test]
fn a_thousand_seeds_have_a_thousand_digests() {
    let digests = digests(&echoes().with_seed_range(0..1000).check(Check::Off));
    let distinct: BTreeSet<u64> = digests.into_iter().collect();
    assert!(distinct.len() >= 990, "{} distinct digests", distinct.len());
}

#[test]
fn every_seed_of_a_deterministic_service_runs_twice_alike() {
    digests(&echoes().with_seed_range(0..200).check(Check::All));
}

#[test]
fn a_campaign_started_inside_a_tokio_runtime_is_the_same() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let outside = digests(&echoes().set_iterations(5).jobs(1));
    let inside = runtime.block_on(async { digests(&echoes().set_iterations(5).jobs(1)) });
    assert_eq!(inside, outside);
}

#[test]
fn tracing_does_not_change_the_digest() {
    let silent = digests(&echoes().set_iterations(5));
    let logged =
        tracing::subscriber::with_default(Everything, || digests(&echoes().set_iterations(5)));
    assert_eq!(logged, silent);
}

/// Listens to everything and keeps nothing.
struct Everything;

impl tracing::Subscriber for Everything {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
