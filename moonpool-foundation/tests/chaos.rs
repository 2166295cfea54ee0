//! What goes wrong on purpose: each fault, met through providers by code that knows nothing of it; and
//! how a crate's own tests say what must hold.
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
#[path = "chaos/bit_flip.rs"]
mod bit_flip;
#[path = "chaos/buggified_delay.rs"]
mod buggified_delay;
#[path = "chaos/buggify.rs"]
mod buggify;
#[path = "chaos/causes.rs"]
mod causes;
#[path = "chaos/clock_drift.rs"]
mod clock_drift;
#[path = "chaos/clogging.rs"]
mod clogging;
#[path = "chaos/closing.rs"]
mod closing;
#[path = "chaos/connect_failure.rs"]
mod connect_failure;
#[path = "chaos/contract.rs"]
mod contract;
#[path = "chaos/healing.rs"]
mod healing;
#[path = "chaos/invariants.rs"]
mod invariants;
#[path = "chaos/known_faults.rs"]
mod known_faults;
#[path = "chaos/ledger.rs"]
mod ledger;
#[path = "chaos/packet_loss.rs"]
mod packet_loss;
#[path = "chaos/random_close.rs"]
mod random_close;
#[path = "chaos/short_io.rs"]
mod short_io;
#[path = "chaos/worlds.rs"]
mod worlds;
