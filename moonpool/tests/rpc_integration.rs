//! Requests and replies between two hosts: every body runs on real TCP and in the simulator.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

mod common;
#[path = "rpc_integration/failures.rs"]
mod failures;
#[path = "rpc_integration/final_api.rs"]
mod final_api;
#[path = "rpc_integration/interfaces.rs"]
mod interfaces;
#[path = "rpc_integration/limits.rs"]
mod limits;
#[path = "rpc_integration/load.rs"]
mod load;
#[path = "rpc_integration/outcomes.rs"]
mod outcomes;
#[path = "rpc_integration/sessions.rs"]
mod sessions;
