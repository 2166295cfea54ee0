//! Everything at once: raw streams, bare peers and calls between five processes, under every fault of
//! the simulator. Each kind has to fire, and to change what happens; nothing may be left.
//!
//! `CAMPAIGN_SEEDS=10000 cargo test --release -p moonpool --test simulation whole_campaign` is the long
//! form. With `CAMPAIGN_DIGESTS=file` the digest of each seed is written there, to be compared with
//! those of another build.

use std::collections::BTreeSet;
use std::time::Duration;

use moonpool::foundation::chaos::oracle;
use moonpool::foundation::{
    Attrition, FaultId, FaultKind, Phases, SeedReport, SimProviders, SimulationBuilder,
    SimulationReport, SimulationResult, WorkloadTopology,
};

#[path = "whole_campaign/calls.rs"]
mod calls;
#[path = "whole_campaign/ledger.rs"]
mod ledger;
#[path = "whole_campaign/packets.rs"]
mod packets;
#[path = "whole_campaign/streams.rs"]
mod streams;

use ledger::Sightings;

/// Until when faults are caused by call: before the shortest chaos ends.
const TROUBLE_ENDS: Duration = Duration::from_secs(5);
/// Seeds if `CAMPAIGN_SEEDS` says nothing: each kind of fault fires in some of them.
const SEEDS: u64 = 80;
/// How many of those run again with one worker.
const AGAIN: u64 = 20;
/// Seeds that are tried with a firing left out before its kind counts as one without effect.
const TRIES: usize = 20;

/// How many seeds were asked for, or `default`.
fn seeds(default: u64) -> u64 {
    let given = std::env::var("CAMPAIGN_SEEDS");
    given.map_or(default, |seeds| seeds.parse().unwrap())
}

/// A server: all three protocols, until it is told to end.
async fn server(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let (streams, packets, calls) = tokio::join!(
        streams::serve(providers.clone(), topology.clone()),
        packets::serve(providers.clone(), topology.clone()),
        calls::serve(providers, topology),
    );
    streams.and(packets).and(calls)
}

/// As wide as what is drawn from it in each seed.
fn attrition() -> Attrition {
    let millis = |min, max| Duration::from_millis(min)..=Duration::from_millis(max);
    Attrition {
        probability: 0.3,
        interval: millis(100, 3_000),
        downtime: millis(100, 20_000),
        reboot: millis(1, 1_000),
        grace: millis(10, 5_000),
        pause: millis(10, 20_000),
        ..Attrition::default()
    }
}

fn campaign(sightings: &Sightings) -> SimulationBuilder {
    let seen = || sightings.clone();
    let (by_streams, by_packets, by_calls) = (seen(), seen(), seen());
    SimulationBuilder::new()
        .use_random_config()
        .shutdown_after_all()
        .phases(Phases {
            chaos: TROUBLE_ENDS + Duration::from_secs(1)..Duration::from_secs(30),
            ..Phases::default()
        })
        .attrition(attrition())
        .with_invariants(oracle::bare_peers())
        .coverage(["simulation::whole_campaign"])
        .process("server-1", server)
        .process("server-2", server)
        .register_providers_workload("streams", move |providers, topology| {
            streams::client(providers, topology, by_streams.clone())
        })
        .register_providers_workload("packets", move |providers, topology| {
            packets::client(providers, topology, by_packets.clone())
        })
        .register_providers_workload("calls", move |providers, topology| {
            calls::client(providers, topology, by_calls.clone())
        })
}

fn digests(seeds: &[SeedReport]) -> Vec<(u64, u64)> {
    let seeds = seeds.iter();
    seeds.map(|seed| (seed.seed, seed.metrics.digest)).collect()
}

fn print_rates(jobs: usize, report: &SimulationReport) {
    let seconds = report.metrics.wall_time.as_secs_f64();
    println!(
        "{jobs} jobs: {:.1} seeds/s, {:.0} simulated s per s",
        report.iterations as f64 / seconds,
        report.simulated_to_real_ratio(),
    );
}

#[test]
fn slow_simulation_a_whole_campaign_passes_leaves_nothing_and_repeats() {
    let run = |jobs, seeds| {
        let campaign = campaign(&Sightings::default()).with_seed_range(0..seeds);
        let report = campaign.jobs(jobs).run();
        println!("{report}");
        print_rates(jobs, &report);
        report
    };
    let report = run(2, seeds(SEEDS));
    for (kind, count) in report.faults.fired() {
        println!("{kind}: {count}");
    }
    report.assert_passed();
    // A seed that is replayed is no campaign.
    if std::env::var_os("MOONPOOL_SEED").is_none() {
        assert_eq!(report.dead_faults, [], "these may fire and never did");
        let fired: Vec<FaultKind> = report.faults.fired().map(|(kind, _)| kind).collect();
        assert_eq!(fired, FaultKind::ALL, "those by call as well");
    }
    for seed in &report.individual_metrics {
        let left = seed.leftovers;
        let nothing = moonpool::foundation::Leftovers::default();
        assert_eq!(left, nothing, "seed {}", seed.seed);
    }
    let again = run(1, seeds(AGAIN)).individual_metrics;
    assert_eq!(
        digests(&again),
        digests(&report.individual_metrics[..again.len()])
    );
    if let Ok(file) = std::env::var("CAMPAIGN_DIGESTS") {
        let lines = digests(&report.individual_metrics).into_iter();
        let lines: String = lines
            .map(|(seed, digest)| format!("{seed} {digest:016x}\n"))
            .collect();
        std::fs::write(file, lines).unwrap();
    }
}

/// What can be seen of a run without its digest, into which a skip itself is folded.
fn seen(seed: &SeedReport, sightings: &Sightings) -> impl PartialEq + use<> {
    let metrics = &seed.metrics;
    (
        metrics.simulated_time,
        metrics.events_processed,
        sightings.of(seed.seed),
    )
}

#[test]
fn slow_simulation_every_kind_of_fault_changes_what_happens() {
    let sightings = Sightings::default();
    let report = campaign(&sightings).with_seed_range(0..SEEDS).run();
    report.assert_passed();
    let mut without_effect = BTreeSet::new();
    for (kind, _) in report.faults.fired() {
        let fired = report.individual_metrics.iter();
        let mut fired = fired.filter(|seed| seed.faults.of(kind) > 0).take(TRIES);
        let effective = fired.find(|seed| makes_a_difference(seed, kind, &sightings));
        match effective {
            Some(seed) => println!("{kind}#1 of seed {} changes what happens", seed.seed),
            None => drop(without_effect.insert(kind)),
        }
    }
    assert!(
        without_effect.is_empty(),
        "without effect: {without_effect:?}"
    );
}

/// Whether `seed` goes another way without the first firing of `kind`.
fn makes_a_difference(with: &SeedReport, kind: FaultKind, sightings: &Sightings) -> bool {
    let skipped = FaultId { kind, ordinal: 1 };
    let sightings_without = Sightings::default();
    let report = campaign(&sightings_without)
        .set_debug_seeds(vec![with.seed])
        .skip_faults([skipped])
        .jobs(1)
        .run();
    let without = &report.individual_metrics[0];
    assert!(
        without.verdict.is_passed(),
        "without {skipped}: {}",
        without.verdict
    );
    assert_ne!(without.metrics.digest, with.metrics.digest);
    seen(without, &sightings_without) != seen(with, sightings)
}
