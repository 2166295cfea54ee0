//! The seed runner, driven as a user drives it.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "runner/determinism.rs"]
mod determinism;
#[path = "runner/echo.rs"]
mod echo;
#[path = "runner/nondeterminism.rs"]
mod nondeterminism;
#[path = "runner/phases.rs"]
mod phases;
#[path = "runner/processes.rs"]
mod processes;
#[path = "runner/regressions.rs"]
mod regressions;
#[path = "runner/report.rs"]
mod report;
#[path = "runner/tokio.rs"]
mod tokio_runner;
#[path = "runner/verdicts.rs"]
mod verdicts;
#[path = "runner/workloads.rs"]
mod workloads;
