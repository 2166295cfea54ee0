//! The seed runner: one service, a thousand worlds, one report.
//!
//! [`SimulationBuilder`] takes workloads and seeds, runs each seed in a world of its own (several at
//! once, on all cores), judges it, and prints how to repeat the first that failed. What it reports
//! depends on source, seeds and configuration alone, never on the number of threads.

mod banner;
mod builder;
mod campaign;
mod divergence;
mod environment;
mod error;
mod execution;
mod orchestrator;
mod phases;
mod plan;
mod processes;
mod regressions;
mod replay;
mod report;
mod shared;
mod topology;
mod trace_files;
mod verdict;
mod workload;

pub use builder::{IterationControl, SimulationBuilder};
pub use environment::Check;
pub use error::RunError;
pub use phases::Phases;
pub use regressions::Regressions;
pub use report::{SeedReport, SimulationMetrics, SimulationReport};
pub use topology::WorkloadTopology;
pub use verdict::{Divergence, Nondeterminism, Verdict};
