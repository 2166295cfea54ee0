//! What an operation costs as the system grows: CPU time of one, against the size; wall time where it is
//! workers that grow.

use serde_json::{Value, json};

use crate::Options;
use crate::sides::{self, Layout, Side};

/// One curve.
struct Curve {
    name: &'static str,
    title: &'static str,
    work: &'static str,
    /// What the size is called, on the command line and here.
    size: &'static str,
    sizes: &'static [u64],
    /// Operations of a run of that size.
    count: fn(u64) -> u64,
}

const CURVES: [Curve; 4] = [
    Curve {
        name: "nodes",
        title: "simulated: a ring's beat, from node to node",
        work: "sim-ring",
        size: "nodes",
        sizes: &[10, 100, 1000, 10_000, 100_000],
        // Simulated seconds: the work's own unit.
        count: |nodes| (200_000 / nodes).clamp(2, 10_000),
    },
    Curve {
        name: "timers",
        title: "simulated: a sleep, among as many tasks that sleep",
        work: "sim-sleeps",
        size: "tasks",
        sizes: &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        count: |tasks| (2 * tasks).max(200_000),
    },
    Curve {
        name: "connections",
        title: "TCP: a call, among as many connections with one call in flight each",
        work: "tcp-connections",
        size: "connections",
        // Both ends of a connection are open files of one process, of which 20,000 is a usual limit.
        sizes: &[1, 10, 100, 1000, 9_900],
        count: |connections| (10 * connections).max(20_000),
    },
    Curve {
        name: "workers",
        title: "SimulationBuilder: a seed, with as many workers",
        work: "sim-seeds-builder",
        size: "jobs",
        sizes: &[1, 2],
        count: |_| 50_000,
    },
];

/// Measures and prints all curves; one object a point.
pub fn measure(options: &Options) -> Result<Vec<Value>, String> {
    let mut points = Vec::new();
    let wanted = |curve: &&Curve| {
        options.only.is_empty()
            || options
                .only
                .iter()
                .any(|part| curve.name.contains(part.as_str()))
    };
    for curve in CURVES.iter().filter(wanted) {
        println!("\n{}: {}", curve.name, curve.title);
        println!(
            "  {:>12} {:>14} {:>14} {:>10}",
            curve.size, "us each", "each a second", "x smallest"
        );
        let mut smallest = None;
        for &size in curve.sizes {
            let [micros, rate] = match point(curve, size, options) {
                Ok(figures) => figures,
                // A machine's limits, of open files most likely, end a curve and not the run.
                Err(message) => {
                    println!(
                        "  {size:>12} not possible here: {}",
                        message.lines().last().unwrap_or_default()
                    );
                    continue;
                }
            };
            let times = micros / *smallest.get_or_insert(micros);
            println!("  {size:>12} {micros:>14.3} {rate:>14.0} {times:>10.2}");
            points.push(json!({
                "curve": curve.name,
                "title": curve.title,
                "size_name": curve.size,
                "size": size,
                "us_each": micros,
                "rate": rate,
                "times_smallest": times,
            }));
        }
    }
    Ok(points)
}

/// Medians of microseconds for an operation, and operations a second.
fn point(curve: &Curve, size: u64, options: &Options) -> Result<[f64; 2], String> {
    let layout = if curve.name == "workers" {
        Layout::TwoCores
    } else {
        Layout::OneCore
    };
    let parameters = [format!("{}={size}", curve.size)];
    let mut micros = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..options.rounds.unwrap_or(3).max(1) {
        let count = (curve.count)(size);
        let figures = sides::run(Side::Moonpool, layout, curve.work, &parameters, count)?;
        let rate = figures.get("rate").copied().unwrap_or(f64::NAN);
        // Workers have ended with their CPU time; what they are for is wall time.
        let micros_each = match curve.name {
            "workers" => 1e6 / rate,
            _ => figures.get("cpu_us").copied().unwrap_or(f64::NAN),
        };
        micros.push(micros_each);
        rates.push(rate);
    }
    micros.sort_by(f64::total_cmp);
    rates.sort_by(f64::total_cmp);
    Ok([micros[micros.len() / 2], rates[rates.len() / 2]])
}
