//! What an operation costs as the system grows: CPU time of one, against the size; wall time where it is
//! workers that grow.

use serde_json::{Value, json};

use crate::Options;
use crate::sides::{self, Figures, Layout, Side};

/// Works of growing size, all of one kind. Each run is of half a second or more on the machine this was
/// written on.
struct Growth {
    work: &'static str,
    layout: Layout,
    /// What the size is called on the command line.
    size: &'static str,
    sizes: &'static [u64],
    /// Operations of a run of that size.
    count: fn(u64) -> u64,
    /// What is read off each run.
    curves: &'static [Curve],
}

struct Curve {
    name: &'static str,
    title: &'static str,
    /// What the size is called.
    size: &'static str,
    micros: fn(&Figures) -> f64,
}

fn cpu(figures: &Figures) -> f64 {
    of(figures, "cpu_us")
}

fn of(figures: &Figures, name: &str) -> f64 {
    figures.get(name).copied().unwrap_or(f64::NAN)
}

const GROWTHS: [Growth; 4] = [
    Growth {
        work: "sim-ring-beats",
        layout: Layout::OneCore,
        size: "nodes",
        sizes: &[10, 100, 1000, 10_000, 100_000],
        // Simulated seconds: the work's own unit. As many as say something beside the world's making.
        count: |nodes| (1_200_000 / nodes).clamp(10, 120_000),
        curves: &[
            Curve {
                name: "nodes",
                title: "simulated: a ring's beat, from node to node",
                size: "nodes",
                micros: cpu,
            },
            Curve {
                name: "nodes made",
                title: "simulated: a node of that ring made, connected, and dropped again",
                size: "nodes made",
                micros: |figures| of(figures, "made_us"),
            },
        ],
    },
    Growth {
        work: "sim-sleeps",
        layout: Layout::OneCore,
        size: "tasks",
        sizes: &[1, 10, 100, 1000, 10_000, 100_000, 1_000_000],
        count: |tasks| (2 * tasks).max(5_000_000),
        curves: &[Curve {
            name: "timers",
            title: "simulated: a sleep, among as many tasks that sleep",
            size: "tasks",
            micros: cpu,
        }],
    },
    Growth {
        work: "tcp-connections",
        // An open file a connection in each of them: 20,000 in one process is a usual limit.
        layout: Layout::TwoProcessesOneCore,
        size: "connections",
        sizes: &[1, 10, 100, 1000, 10_000],
        count: |connections| (10 * connections).max(30_000),
        curves: &[Curve {
            name: "connections",
            title: "TCP: a call, among as many connections with one call in flight each",
            size: "connections",
            micros: cpu,
        }],
    },
    Growth {
        work: "sim-seeds-builder",
        layout: Layout::TwoCores,
        size: "jobs",
        sizes: &[1, 2],
        count: |jobs| 100_000 * jobs,
        curves: &[Curve {
            name: "workers",
            title: "SimulationBuilder: a seed, with as many workers; wall time",
            size: "jobs",
            // Workers have ended with their CPU time; what they are for is wall time.
            micros: |figures| 1e6 / of(figures, "rate"),
        }],
    },
];

/// Measures and prints all curves; one object a point.
pub fn measure(options: &Options) -> Result<Vec<Value>, String> {
    let wanted = |growth: &&Growth| {
        let mut names = growth.curves.iter().map(|curve| curve.name);
        options.only.is_empty()
            || names.any(|name| options.only.iter().any(|part| name.contains(part.as_str())))
    };
    let growths = GROWTHS.iter().filter(wanted);
    Ok(growths
        .flat_map(|growth| curves_of(growth, options))
        .collect())
}

pub fn rounds(options: &Options) -> usize {
    options.rounds.unwrap_or(3).max(1)
}

/// All curves of one kind of work. The sizes take turns, so that what disturbs one disturbs the others
/// as well.
fn curves_of(growth: &Growth, options: &Options) -> Vec<Value> {
    let mut runs = vec![Ok(Vec::new()); growth.sizes.len()];
    for _ in 0..rounds(options) {
        for (&size, runs) in growth.sizes.iter().zip(&mut runs) {
            let Ok(so_far) = runs else {
                continue;
            };
            let parameters = [format!("{}={size}", growth.size)];
            let count = (growth.count)(size);
            match sides::run(
                Side::Moonpool,
                growth.layout,
                growth.work,
                &parameters,
                count,
            ) {
                Ok(figures) => so_far.push(figures),
                Err(message) => *runs = Err(message),
            }
        }
    }
    let measured: Vec<_> = growth.sizes.iter().copied().zip(runs).collect();
    let curves = growth.curves.iter();
    curves.flat_map(|curve| points(curve, &measured)).collect()
}

fn points(curve: &Curve, measured: &[(u64, Result<Vec<Figures>, String>)]) -> Vec<Value> {
    println!("\n{}: {}", curve.name, curve.title);
    println!(
        "  {:>12} {:>14} {:>8} {:>14} {:>10}",
        curve.size, "us each", "", "each a second", "x smallest"
    );
    let mut smallest = None;
    let mut points = Vec::new();
    for (size, runs) in measured {
        let runs = match runs {
            Ok(runs) => runs,
            // A machine's limits, of open files most likely, end a curve and not the run.
            Err(message) => {
                let last = message.lines().last().unwrap_or_default();
                println!("  {size:>12} not possible here: {last}");
                continue;
            }
        };
        let mut micros: Vec<f64> = runs.iter().map(curve.micros).collect();
        micros.sort_by(f64::total_cmp);
        let median = micros[micros.len() / 2];
        let spread = (micros[micros.len() - 1] - micros[0]) / median;
        let times = median / *smallest.get_or_insert(median);
        let rate = 1e6 / median;
        let percent = spread * 50.0;
        println!("  {size:>12} {median:>14.3} +-{percent:>3.0} % {rate:>14.0} {times:>10.2}");
        points.push(json!({
            "curve": curve.name,
            "title": curve.title,
            "size_name": curve.size,
            "size": size,
            "us_each": median,
            "rounds": micros.len(),
            "spread": spread,
            "rate": rate,
            "times_smallest": times,
        }));
    }
    points
}
