//! What goes wrong on purpose, each kind reached through a provider.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "chaos/attrition.rs"]
mod attrition;
#[path = "chaos/buggified_delay.rs"]
mod buggified_delay;
#[path = "chaos/clock_drift.rs"]
mod clock_drift;
