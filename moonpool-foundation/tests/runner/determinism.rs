//! One seed, one digest: whatever runs beside it.

use std::collections::BTreeSet;

use moonpool_foundation::{Check, NetworkConfiguration, SimProviders, SimulationBuilder};

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
