//! The simulator, driven through its public API.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "sim/addresses.rs"]
mod addresses;
#[path = "sim/breakage.rs"]
mod breakage;
#[path = "sim/deadlock.rs"]
mod deadlock;
#[path = "sim/determinism.rs"]
mod determinism;
#[path = "sim/escapes.rs"]
mod escapes;
#[path = "sim/integration.rs"]
mod integration;
#[path = "sim/processes.rs"]
mod processes;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/select.rs"]
mod select;
#[path = "sim/sleep.rs"]
mod sleep;
#[path = "sim/streams.rs"]
mod streams;
#[path = "sim/tasks.rs"]
mod tasks;
#[path = "sim/waiters.rs"]
mod waiters;
