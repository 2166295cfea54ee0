//! The simulator, driven through its public API.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sim/integration.rs"]
mod integration;
