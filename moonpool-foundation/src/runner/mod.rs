//! The seed runner: one service, a thousand worlds, one report.
//!
//! `SimulationBuilder` takes workloads and seeds, runs each seed in a world of its own (several at
//! once, on all cores), judges it, and prints how to repeat the first that failed. What it reports
//! depends on source, seeds and configuration alone, never on the number of threads.
//!
//! [`TokioRunner`] runs the same workloads on real sockets.

#[cfg(feature = "sim")]
mod banner;
#[cfg(feature = "sim")]
mod builder;
#[cfg(feature = "sim")]
mod campaign;
#[cfg(feature = "sim")]
mod checks;
#[cfg(feature = "sim")]
mod coverage;
#[cfg(feature = "sim")]
mod divergence;
#[cfg(feature = "sim")]
mod environment;
#[cfg(feature = "sim")]
mod error;
#[cfg(feature = "sim")]
mod execution;
#[cfg(feature = "sim")]
mod merging;
mod metrics;
#[cfg(feature = "sim")]
mod minimize;
#[cfg(feature = "sim")]
mod orchestrator;
#[cfg(feature = "sim")]
mod phases;
#[cfg(feature = "sim")]
mod plan;
#[cfg(feature = "sim")]
mod processes;
#[cfg(feature = "sim")]
mod progress;
#[cfg(feature = "sim")]
mod regressions;
#[cfg(feature = "sim")]
mod replay;
#[cfg(feature = "sim")]
mod report;
mod shared;
mod tokio;
mod topology;
#[cfg(feature = "sim")]
mod trace_files;
mod verdict;
#[cfg(feature = "sim")]
mod workload;

pub use metrics::SimulationMetrics;
pub use tokio::{TokioReport, TokioRunReport, TokioRunner};
pub use topology::WorkloadTopology;
pub use verdict::{Divergence, Nondeterminism, Verdict};

#[cfg(feature = "sim")]
pub use builder::{IterationControl, SimulationBuilder};
#[cfg(feature = "sim")]
pub use coverage::{AssertionResult, BuggifyResult};
#[cfg(feature = "sim")]
pub use environment::Check;
#[cfg(feature = "sim")]
pub use error::RunError;
#[cfg(feature = "sim")]
pub use phases::Phases;
#[cfg(feature = "sim")]
pub use regressions::Regressions;
#[cfg(feature = "sim")]
pub use report::{SeedReport, SimulationRates, SimulationReport};
