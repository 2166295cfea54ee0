//! What spans, events and metrics say of calls, handlers and connections.
//!
//! Alone in its binary: `tracing` asks the thread that first meets a callsite whether anyone listens,
//! and tests of other threads would answer for this one. All tests here listen.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking; ids of spans are small"
)]
#![cfg_attr(
    any(feature = "sim", feature = "metrics"),
    expect(clippy::panic, reason = "a test fails by panicking")
)]

#[path = "observability/capture.rs"]
mod capture;
mod common;
#[path = "observability/connections.rs"]
mod connections;
#[path = "observability/documentation.rs"]
mod documentation;
#[path = "observability/metrics.rs"]
#[cfg(feature = "metrics")]
mod metrics;
#[path = "observability/spans.rs"]
mod spans;
