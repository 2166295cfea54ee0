//! Prints `seed digest` for the seeds of a simulated echo service, to be compared between two
//! processes, two builds, or two numbers of threads: `digests [seeds] [jobs]`.

#[path = "../tests/runner/echo.rs"]
mod echo;

use std::io::{self, Write};
use std::process::ExitCode;

use moonpool_foundation::{SimProviders, SimulationBuilder};

fn main() -> ExitCode {
    let numbers: Result<Vec<usize>, _> = std::env::args().skip(1).map(|a| a.parse()).collect();
    let (seeds, jobs) = match numbers.as_deref() {
        Ok([]) => (1000, 0),
        Ok([seeds]) => (*seeds, 0),
        Ok([seeds, jobs]) => (*seeds, *jobs),
        _ => {
            eprintln!("usage: digests [seeds] [jobs]");
            return ExitCode::FAILURE;
        }
    };
    let report = SimulationBuilder::new()
        .set_iterations(seeds)
        .jobs(jobs)
        .register_providers_workload("server", echo::server::<SimProviders>)
        .register_providers_workload("client", echo::client::<SimProviders>)
        .run();
    let mut output = io::stdout().lock();
    for seed in &report.individual_metrics {
        let line = writeln!(output, "{} {:016x}", seed.seed, seed.metrics.digest);
        if line.is_err() {
            return ExitCode::FAILURE;
        }
    }
    eprintln!("{report}");
    match report.failed_runs {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
