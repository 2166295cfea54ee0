//! Peers end to end: clients that do what a seed draws, servers that die, and an oracle that compares
//! what was accepted with what arrived.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "e2e/invariants.rs"]
mod invariants;
#[path = "e2e/operations.rs"]
mod operations;
#[path = "e2e/tests.rs"]
mod tests;
#[path = "e2e/workloads.rs"]
mod workloads;

use bytes::Bytes;
use moonpool_foundation::UID;
use serde::{Deserialize, Serialize};

/// Where every message goes.
const TOKEN: UID = UID::new(0xE2E, 1);

/// A message that says who sent it, and the number that the oracle knows it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TestMessage {
    sender: String,
    number: u64,
    is_reliable: bool,
    padding: String,
}

impl TestMessage {
    fn new(sender: &str, number: u64, is_reliable: bool, padding: usize) -> Self {
        Self {
            sender: sender.to_owned(),
            number,
            is_reliable,
            padding: "x".repeat(padding),
        }
    }

    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap().into()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap()
    }
}
