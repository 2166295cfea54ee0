//! What goes wrong on purpose: each fault, met through providers by code that knows nothing of it.
#![cfg(feature = "sim")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "chaos/bit_flip.rs"]
mod bit_flip;
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
