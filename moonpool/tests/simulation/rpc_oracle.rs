//! An oracle for calls: servers of every kind, callers that call in every way, under every fault of the
//! simulator, and a ledger outside of them all that knows whether an outcome is true.
//!
//! `ORACLE_SEEDS=10000 cargo test --release -p moonpool --test simulation rpc_oracle` is the long form;
//! it prints how often each outcome was seen.
//!
//! A quarter as many seeds have no fault at all: there a call whose connection broke needs a limit as
//! its cause. Together they reach each limit that `rpc_oracle/limits.rs` lists. A call that never ends
//! is a deadlock, or uses up the time of its seed: each caller waits for all of its calls.
//!
//! A handler that panics is not here: a panic of a task fails a seed, because it is a bug. What its
//! caller is told is tested on real TCP. Embedded promises have an oracle of their own,
//! `forwarded_promises`.

use std::time::Duration;

use moonpool::foundation::{
    Attrition, FaultKind, Leftovers, NetworkConfiguration, Phases, SeedReport, SimProviders,
    SimulationBuilder, SimulationReport, WorkloadTopology,
};

#[path = "rpc_oracle/client.rs"]
mod client;
#[path = "rpc_oracle/coverage.rs"]
mod coverage;
#[path = "rpc_oracle/ledger.rs"]
mod ledger;
#[path = "rpc_oracle/limits.rs"]
mod limits;
#[path = "rpc_oracle/protocol.rs"]
mod protocol;
#[path = "rpc_oracle/server.rs"]
mod server;
#[path = "rpc_oracle/trouble.rs"]
mod trouble;

use client::Character;
use coverage::Tally;
use protocol::Girth;
pub(crate) use protocol::SimTransport;

/// Seeds if `ORACLE_SEEDS` says nothing: each outcome is found in some of them.
const SEEDS: u64 = 60;
/// To so many of them there is one without any fault.
const CALM: u64 = 4;
/// How many of those run again with one worker.
const AGAIN: u64 = 15;

fn seeds() -> u64 {
    let given = std::env::var("ORACLE_SEEDS");
    given.map_or(SEEDS, |seeds| seeds.parse().unwrap())
}

/// As wide as what is drawn from it in each seed.
fn attrition() -> Attrition {
    let millis = |min, max| Duration::from_millis(min)..=Duration::from_millis(max);
    Attrition {
        probability: 0.3,
        interval: millis(100, 3_000),
        max_dead: 2,
        downtime: millis(100, 10_000),
        reboot: millis(1, 1_000),
        grace: millis(10, 3_000),
        pause: millis(10, 8_000),
        ..Attrition::default()
    }
}

/// What happens to a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Every fault there is.
    Chaos,
    /// No fault, and nobody ends before the callers have: no connection may break.
    Calm,
}

fn campaign(weather: Weather, tally: &Tally) -> SimulationBuilder {
    let builder = SimulationBuilder::new().shutdown_after_all();
    let mut builder = match weather {
        Weather::Calm => builder.with_network_config(NetworkConfiguration::disabled()),
        Weather::Chaos => builder
            .use_random_config()
            .phases(Phases {
                chaos: trouble::TROUBLE_ENDS + Duration::from_secs(1)..Duration::from_secs(20),
                ..Phases::default()
            })
            .attrition(attrition())
            .coverage(["simulation::rpc_oracle"])
            .register_providers_workload("trouble", trouble::make),
    };
    for (name, girth) in [
        ("server-1", Girth::Wide),
        ("server-2", Girth::Narrow),
        ("server-3", Girth::Wide),
    ] {
        let tally = tally.clone();
        builder = builder.process(
            name,
            move |providers: SimProviders, topology: WorkloadTopology| {
                server::serve(providers, topology, girth, tally.clone())
            },
        );
    }
    for (name, girth, is_friend, pause_millis) in [
        ("client-1", Girth::Wide, true, 600),
        ("client-2", Girth::Narrow, false, 600),
        ("client-3", Girth::Wide, false, 300),
        ("client-4", Girth::Wide, true, 30),
    ] {
        let character = Character {
            girth,
            is_friend,
            pause_millis,
        };
        let tally = tally.clone();
        builder = builder.register_providers_workload(name, move |providers, topology| {
            client::call(providers, topology, character, tally.clone())
        });
    }
    builder
}

fn digests(seeds: &[SeedReport]) -> Vec<(u64, u64)> {
    let seeds = seeds.iter();
    seeds.map(|seed| (seed.seed, seed.metrics.digest)).collect()
}

fn run(weather: Weather, jobs: usize, seeds: u64, tally: &Tally) -> SimulationReport {
    let builder = campaign(weather, tally).with_seed_range(0..seeds);
    let report = builder.jobs(jobs).run();
    tally.add("kills", report.faults.of(FaultKind::Kill));
    let seconds = report.metrics.wall_time.as_secs_f64();
    println!("{report}");
    tally.print();
    let rate = report.iterations as f64 / seconds;
    println!(
        "{jobs} jobs: {} seeds, {rate:.1} seeds/s",
        report.iterations
    );
    report
}

#[test]
fn slow_simulation_the_outcome_of_every_call_is_true() {
    let tally = Tally::default();
    let report = run(Weather::Chaos, 2, seeds(), &tally);
    report.assert_passed();
    for seed in &report.individual_metrics {
        assert_eq!(seed.leftovers, Leftovers::default(), "seed {}", seed.seed);
    }
    let calm = run(Weather::Calm, 2, seeds().div_ceil(CALM), &tally);
    calm.assert_passed();
    limits::assert_all_reached(&tally, seeds());
    let again = run(Weather::Chaos, 1, seeds().min(AGAIN), &tally).individual_metrics;
    assert_eq!(
        digests(&again),
        digests(&report.individual_metrics[..again.len()])
    );
}
