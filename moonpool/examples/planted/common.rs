//! What the examples with a planted bug have in common: how they listen, stop, and are run.

use std::future::Future;
use std::process::ExitCode;
use std::rc::Rc;

use moonpool::foundation::{
    Regressions, SimProviders, SimulationBuilder, SimulationResult, WorkloadTopology,
};
use moonpool::prelude::*;
use moonpool::{SimulationError, select};

const PORT: u16 = 4500;

/// Seeds in which the bug is looked for.
const SEEDS: u64 = 10_000;

pub(crate) type Transport = FlowTransport<
    <SimProviders as Providers>::Network,
    <SimProviders as Providers>::Time,
    <SimProviders as Providers>::Task,
>;

/// Where the process of this name listens.
pub(crate) fn address(topology: &WorkloadTopology, name: &str) -> SimulationResult<NetworkAddress> {
    let ip = topology.get_peer_by_name(name).unwrap_or_default();
    Ok(NetworkAddress::new(
        ip.parse().map_err(SimulationError::workload)?,
        PORT,
    ))
}

pub(crate) async fn listen(
    providers: &SimProviders,
    topology: &WorkloadTopology,
) -> SimulationResult<Rc<Transport>> {
    let ip = topology.my_ip.parse().map_err(SimulationError::workload)?;
    let builder = FlowTransportBuilder::from_providers(providers);
    let builder = builder.local_address(NetworkAddress::new(ip, PORT));
    builder
        .build_listening()
        .await
        .map_err(SimulationError::workload)
}

/// Runs `service` until it ends, or the process is to stop.
pub(crate) async fn until_shutdown(
    topology: WorkloadTopology,
    service: impl Future<Output = SimulationResult<()>>,
) -> SimulationResult<()> {
    select! {
        () = topology.shutdown_signal.cancelled() => Ok(()),
        ended = service => ended,
    }
}

/// The first seed that fails, and what it says.
#[derive(Debug)]
pub(crate) struct Found {
    /// How many seeds ran, the failing one included.
    pub(crate) seeds: usize,
    pub(crate) headline: String,
}

/// Looks for a failing seed from `first` upward.
pub(crate) fn first_failure(campaign: SimulationBuilder, first: u64) -> Option<Found> {
    let report = campaign
        .with_seed_range(first..first + SEEDS)
        .regressions(Regressions::Off)
        .stop_on_failure()
        .run();
    let found = report.failures().next()?;
    Some(Found {
        seeds: report.iterations,
        headline: found.verdict.headline(),
    })
}

/// `fixed [seeds]` runs the fixed version, `median` tells how many seeds the bug takes to be found
/// from twenty starting seeds, nothing shows one failure.
#[expect(clippy::print_stdout, reason = "an example talks to its user")]
pub(crate) fn run(
    planted: impl Fn() -> SimulationBuilder,
    fixed: impl Fn() -> SimulationBuilder,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let seeds = match arguments[..] {
        [] => return show_first_failure(planted()),
        ["median"] => {
            println!("{} seeds (median of 20)", median(planted));
            return ExitCode::SUCCESS;
        }
        ["fixed"] => 1_000,
        ["fixed", seeds] => match seeds.parse() {
            Ok(seeds) => seeds,
            Err(error) => return refuse(&format!("`{seeds}` is no number of seeds: {error}")),
        },
        _ => return refuse("usage: [median | fixed [seeds]]"),
    };
    let report = fixed().set_iterations(seeds).run();
    println!("{report}");
    if report.failed_runs == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[expect(clippy::print_stdout, reason = "an example talks to its user")]
fn show_first_failure(planted: SimulationBuilder) -> ExitCode {
    match first_failure(planted, 0) {
        Some(found) => {
            println!("found in seed number {}: {}", found.seeds, found.headline);
            ExitCode::SUCCESS
        }
        None => refuse(&format!("not found in {SEEDS} seeds")),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::FAILURE
}

/// Seeds to the first finding, the median over twenty starting seeds. One that does not find it
/// counts as all its seeds.
pub(crate) fn median(planted: impl Fn() -> SimulationBuilder) -> u64 {
    let mut found: Vec<u64> = (0..20)
        .map(|start| {
            let found = first_failure(planted(), start * SEEDS);
            found.map_or(SEEDS, |found| found.seeds as u64)
        })
        .collect();
    found.sort_unstable();
    (found[9] + found[10]) / 2
}
