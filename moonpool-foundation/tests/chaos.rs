//! What goes wrong on purpose, and how a crate's own tests say what must hold.
#![cfg(feature = "sim")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "chaos/assertions.rs"]
mod assertions;
#[path = "chaos/attrition.rs"]
mod attrition;
#[path = "chaos/buggified_delay.rs"]
mod buggified_delay;
#[path = "chaos/buggify.rs"]
mod buggify;
#[path = "chaos/clock_drift.rs"]
mod clock_drift;
#[path = "chaos/invariants.rs"]
mod invariants;
