//! Assertions, `buggify!` and invariants, used as a crate's own tests use them.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "chaos/assertions.rs"]
mod assertions;
#[path = "chaos/buggify.rs"]
mod buggify;
#[path = "chaos/invariants.rs"]
mod invariants;
