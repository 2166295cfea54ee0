//! madsim 0.2, compiled with its own `--cfg madsim`: its streams, and its RPC, which hands values over
//! without serialising them. Time is measured from outside: inside, the standard library's clock is the simulated
//! one.

use std::net::SocketAddr;

use bench_common::Arguments;

#[cfg(not(madsim))]
fn main() {
    eprintln!("built without --cfg madsim; the driver knows how");
    std::process::exit(2);
}

#[cfg(madsim)]
fn main() {
    let arguments = Arguments::parse();
    match arguments.work.as_str() {
        "version" => bench_common::print("version", "0.2"),
        "sim-stream" => work::mesh(1, 1, arguments.number("n", 10_000)),
        "sim-mesh" => {
            let window = arguments.number("window", 8);
            work::mesh(
                arguments.number("nodes", 10),
                window,
                arguments.number("n", 100_000),
            );
        }
        "sim-rpc" => calls::mesh(1, 1, arguments.number("n", 10_000)),
        "sim-mesh-rpc" => {
            let window = arguments.number("window", 8);
            calls::mesh(
                arguments.number("nodes", 10),
                window,
                arguments.number("n", 100_000),
            );
        }
        "sim-heartbeat" => work::heartbeats(&arguments),
        "sim-ring" => work::ring(&arguments),
        "sim-seeds" => work::seeds(arguments.number("n", 1000)),
        "sim-sleeps" => work::repeated_sleeps(&arguments),
        "sim-concurrent-sleeps" => work::concurrent_sleeps(arguments.number("n", 1_000_000)),
        _ => arguments.unknown(),
    }
}

/// Servers are hosts from 10.0.0.1 upwards, clients from 10.1.0.1.
#[cfg_attr(
    not(madsim),
    expect(dead_code, reason = "nothing runs without madsim's own build")
)]
fn address(network: u8, node: u64) -> SocketAddr {
    let node = node + 1;
    SocketAddr::from(([10, network, (node >> 8) as u8, node as u8], 80))
}

#[cfg(madsim)]
mod calls;
#[cfg(madsim)]
mod work;
#[cfg(not(madsim))]
const _: fn() -> Arguments = Arguments::parse;
