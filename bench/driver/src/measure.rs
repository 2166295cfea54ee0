//! Counts that make a run long enough, rounds in turns, medians.

use crate::Options;
use crate::instructions;
use crate::rows::{Amount, Figure, Row, System};
use crate::sides::{self, Figures, Layout};

/// The figures of one system in one row.
pub struct Measured {
    /// One a round, ascending.
    pub values: Vec<f64>,
}

impl Measured {
    pub fn median(&self) -> f64 {
        match self.values.len() {
            0 => f64::NAN,
            length => self.values[length / 2],
        }
    }

    /// From the lowest to the highest, in parts of the median.
    pub fn spread(&self) -> f64 {
        match (self.values.first(), self.values.last()) {
            (Some(lowest), Some(highest)) => (highest - lowest) / self.median(),
            _ => f64::NAN,
        }
    }
}

/// Runs a row's systems in turns: what disturbs one disturbs the others as well.
pub fn row(row: &Row, options: &Options) -> Result<Vec<Measured>, String> {
    if row.figure == Figure::Instructions {
        return instructions_of(row);
    }
    let run_seconds = run_seconds(options);
    let rounds = options.rounds.unwrap_or(5).max(1);
    let mut counts = Vec::new();
    for system in &row.systems {
        counts.push(count(system, run_seconds.max(system.seconds))?);
    }
    let mut values = vec![Vec::new(); row.systems.len()];
    for round in 0..rounds {
        for (index, system) in row.systems.iter().enumerate() {
            if round > 0 && system.once {
                continue;
            }
            let figures = run(system, counts[index])?;
            values[index].push(figure(row.figure, system, &figures, options));
        }
    }
    let measured = values.into_iter().map(|mut values| {
        values.sort_by(f64::total_cmp);
        Measured { values }
    });
    Ok(measured.collect())
}

/// How long a run is to be.
pub fn run_seconds(options: &Options) -> f64 {
    if options.quick { 0.06 } else { 0.5 }
}

/// Counts repeat: one round will do. Without callgrind there are none.
fn instructions_of(row: &Row) -> Result<Vec<Measured>, String> {
    let available = instructions::available();
    let measured = row.systems.iter().map(|system| {
        let count = system.amount.first();
        let values = if available {
            vec![instructions::of_one(system, count)?]
        } else {
            Vec::new()
        };
        Ok(Measured { values })
    });
    measured.collect()
}

fn run(system: &System, count: u64) -> Result<Figures, String> {
    sides::run(
        system.side,
        system.layout,
        system.work,
        &system.parameters,
        count,
    )
}

/// How many operations take about that long. The run that finds out is not counted: it has also
/// warmed the caches.
fn count(system: &System, run_seconds: f64) -> Result<u64, String> {
    match system.amount {
        Amount::Fixed(count) => Ok(count),
        Amount::AtLeast(least) => {
            let mut count = least;
            for _ in 0..2 {
                let figures = run(system, count)?;
                let wall = figures.get("wall_s").copied().unwrap_or(run_seconds);
                // A first run that was very short says little: it is asked again.
                count = ((count as f64 * run_seconds / wall.max(1e-6)) as u64).max(least);
                if wall > run_seconds / 10.0 {
                    break;
                }
            }
            Ok(count)
        }
    }
}

fn figure(kind: Figure, system: &System, figures: &Figures, options: &Options) -> f64 {
    let of = |name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    let by_cpu = options.cpu && system.layout == Layout::OneCore;
    let rate = if by_cpu {
        1e6 / of("cpu_us")
    } else {
        of("rate")
    };
    match kind {
        Figure::Rate => rate,
        Figure::Millions => rate / 1e6,
        Figure::Megabytes => rate * (1 << 20) as f64 / 1e6,
        Figure::WallSeconds => of("wall_s"),
        Figure::Bytes => of("bytes"),
        Figure::CpuMicros => of("cpu_us"),
        Figure::Instructions => f64::NAN,
    }
}
