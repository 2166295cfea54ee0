//! The floors: what the work costs when nothing is offered beyond it.
//!
//! - `sim-*`: a bare loop with async-task cells, seeded order, byte pipes and a digest. No hosts, no
//!   addresses, no limits, no faults, no errors.
//! - `queue`: std's `BinaryHeap`, and a timer wheel of four levels.
//! - `tcp*`: tokio's sockets with length-prefixed frames, whatever a read brought answered with one write.

mod bare;
mod queue;
mod sim;
mod tcp;

use bench_common::Arguments;

fn main() {
    let arguments = Arguments::parse();
    match arguments.work.as_str() {
        "version" => bench_common::print("version", "std, tokio 1.54"),
        "sim-stream" => sim::streams(1, 1, arguments.number("n", 1_000_000)),
        "sim-mesh" => sim::mesh(&arguments),
        "sim-sleeps" => sim::repeated_sleeps(&arguments),
        "sim-concurrent-sleeps" => sim::concurrent_sleeps(arguments.number("n", 1_000_000)),
        "sim-switch" => sim::switches(arguments.number("n", 1_000_000)),
        "queue" => queue::pop_and_push(&arguments),
        "tcp" => tcp::one_process(&arguments),
        "tcp-server" => tcp::server(),
        "tcp-client" => tcp::client(&arguments),
        "tcp-large" => tcp::large(arguments.number("n", 100)),
        _ => arguments.unknown(),
    }
}
