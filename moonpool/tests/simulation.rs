//! Workloads over many seeds: random operations, servers that die and come back, and invariants that
//! compare what clients saw with what servers did.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "simulation/broken_connections.rs"]
mod broken_connections;
#[path = "simulation/component_assertions.rs"]
mod component_assertions;
#[path = "simulation/dying_servers.rs"]
mod dying_servers;
#[path = "simulation/forwarded_promises.rs"]
mod forwarded_promises;
#[path = "simulation/hostile_neighbour.rs"]
mod hostile_neighbour;
#[path = "simulation/invariants.rs"]
mod invariants;
#[path = "simulation/liveness.rs"]
mod liveness;
#[path = "simulation/local.rs"]
mod local;
#[path = "simulation/messages.rs"]
mod messages;
#[path = "simulation/multi_method.rs"]
mod multi_method;
#[path = "simulation/operations.rs"]
mod operations;
#[path = "simulation/ping_pong.rs"]
mod ping_pong;
#[path = "simulation/rpc_oracle.rs"]
mod rpc_oracle;
#[path = "simulation/rpc_under_chaos.rs"]
mod rpc_under_chaos;
#[path = "simulation/scale.rs"]
mod scale;
#[path = "simulation/simultaneous_dials.rs"]
mod simultaneous_dials;
#[path = "simulation/test_scenarios.rs"]
mod test_scenarios;
#[path = "simulation/whole_campaign.rs"]
mod whole_campaign;
#[path = "simulation/workloads.rs"]
mod workloads;
