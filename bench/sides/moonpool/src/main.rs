//! moonpool, as its users take it: `moonpool` with the features `sim` and `postcard`.
//!
//! Simulated work runs on a network without faults, 1 ms one way, and keeps its digest. See
//! `bench-common` for how a side is called.

mod calls;
mod mesh;
mod queue;
mod seeds;
mod sim_calls;
mod sleeps;
mod streams;
mod tcp;

use bench_common::Arguments;

fn main() {
    let arguments = Arguments::parse();
    match arguments.work.as_str() {
        "version" => bench_common::print("version", env!("MOONPOOL_VERSION")),
        "sim-stream" => streams::sequential(arguments.number("n", 100_000)),
        "sim-rpc" => sim_calls::sequential(&arguments),
        "sim-mesh" => mesh::streams(&arguments),
        "sim-mesh-rpc" => sim_calls::mesh(&arguments),
        "sim-heartbeat" => mesh::heartbeats(&arguments),
        "sim-ring" => mesh::ring(&arguments),
        "sim-ring-beats" => mesh::ring_beats(&arguments),
        "sim-seeds" => seeds::bare(arguments.number("n", 10_000)),
        "sim-seeds-builder" => seeds::builder(&arguments),
        "sim-sleeps" => sleeps::repeated(&arguments),
        "sim-concurrent-sleeps" => sleeps::concurrent(arguments.number("n", 1_000_000)),
        "sim-switch" => sleeps::switches(arguments.number("n", 1_000_000)),
        "queue" => queue::pop_and_push(&arguments),
        "packets-encode" => queue::encode_packets(arguments.number("n", 1_000_000)),
        "packets-decode" => queue::decode_packets(arguments.number("n", 1_000_000)),
        "tcp" => tcp::one_process(&arguments),
        "tcp-server" => tcp::server(&arguments),
        "tcp-client" => tcp::client(&arguments),
        "tcp-large" => tcp::large(arguments.number("n", 100)),
        "tcp-connections-client" => tcp::connections(&arguments),
        _ => arguments.unknown(),
    }
}
