//! Requests and replies between two hosts: every body runs on real TCP and in the simulator.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "rpc_integration/access.rs"]
mod access;
#[path = "rpc_integration/blobs.rs"]
mod blobs;
#[path = "rpc_integration/cancellation.rs"]
mod cancellation;
#[path = "rpc_integration/closing.rs"]
mod closing;
mod common;
#[path = "rpc_integration/deadlines.rs"]
mod deadlines;
#[path = "rpc_integration/embedded_promises.rs"]
mod embedded_promises;
#[path = "rpc_integration/every_outcome.rs"]
mod every_outcome;
#[path = "rpc_integration/failover.rs"]
mod failover;
#[path = "rpc_integration/failures.rs"]
mod failures;
#[path = "rpc_integration/final_api.rs"]
mod final_api;
#[path = "rpc_integration/hostile.rs"]
mod hostile;
#[path = "rpc_integration/interfaces.rs"]
mod interfaces;
#[path = "rpc_integration/limits.rs"]
mod limits;
#[path = "rpc_integration/liveness.rs"]
mod liveness;
#[path = "rpc_integration/load.rs"]
mod load;
#[path = "rpc_integration/middleware.rs"]
mod middleware;
#[path = "rpc_integration/one_way.rs"]
mod one_way;
#[path = "rpc_integration/outcomes.rs"]
mod outcomes;
#[path = "rpc_integration/own_addresses.rs"]
mod own_addresses;
#[path = "rpc_integration/retries.rs"]
mod retries;
#[path = "rpc_integration/room.rs"]
mod room;
#[path = "rpc_integration/serving.rs"]
mod serving;
#[path = "rpc_integration/sessions.rs"]
mod sessions;
