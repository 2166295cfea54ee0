//! Counts that make a run long enough, rounds in turns, medians.

use std::collections::BTreeMap;

use crate::Options;
use crate::instructions;
use crate::rows::{Amount, Figure, Row, System};
use crate::sides::{self, Figures, Layout, Side};

/// The figures of one system in one row.
#[derive(Debug, Default)]
pub struct Measured {
    /// One a round, ascending. None if a run failed: what the others gave says nothing then.
    pub values: Vec<f64>,
    /// Why there are none.
    pub failure: Option<String>,
}

impl Measured {
    fn of(runs: Result<Vec<f64>, String>) -> Self {
        match runs {
            Ok(mut values) => {
                values.sort_by(f64::total_cmp);
                Self {
                    values,
                    failure: None,
                }
            }
            Err(message) => Self {
                values: Vec::new(),
                failure: Some(message),
            },
        }
    }

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

/// Sides that did not build, and why.
pub type Broken = BTreeMap<Side, String>;

/// Runs a row's systems in turns: what disturbs one disturbs the others as well. One that fails does not run
/// again in this row.
pub fn row(row: &Row, broken: &Broken, options: &Options) -> Vec<Measured> {
    let able = row
        .systems
        .iter()
        .map(|system| match broken.get(&system.side) {
            Some(message) => Err(message.clone()),
            None => Ok(system),
        });
    if row.figure == Figure::Instructions {
        return able
            .map(|system| Measured::of(system.and_then(instructions_of)))
            .collect();
    }
    let first: Vec<_> = able
        .map(|system| system.and_then(|system| First::of(row, system, options)))
        .collect();
    let mut runs: Vec<_> = unlike(row, first)
        .into_iter()
        .map(|first| first.map(|first| (first.count, Vec::new())))
        .collect();
    for round in 0..options.rounds.unwrap_or(5).max(1) {
        for (system, runs) in row.systems.iter().zip(&mut runs) {
            let Ok((count, values)) = runs else {
                continue;
            };
            if round > 0 && system.once {
                continue;
            }
            match run(system, *count) {
                Ok(figures) => values.push(figure(row.figure, system, &figures, options)),
                Err(message) => *runs = Err(message),
            }
        }
    }
    let values = runs.into_iter().map(|runs| runs.map(|(_, values)| values));
    values.map(Measured::of).collect()
}

/// How long a run is to be.
pub fn run_seconds(options: &Options) -> f64 {
    if options.quick { 0.06 } else { 0.5 }
}

/// Counts repeat: one round will do. Without callgrind there are none.
fn instructions_of(system: &System) -> Result<Vec<f64>, String> {
    if !instructions::available() {
        return Ok(Vec::new());
    }
    Ok(vec![instructions::of_one(system, system.amount.first())?])
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

/// What the run says that is not counted: it has also warmed the caches.
struct First {
    /// How many operations take as long as a run is to be.
    count: u64,
    /// What it did, if its work says that.
    checksum: Option<f64>,
}

impl First {
    fn of(row: &Row, system: &System, options: &Options) -> Result<Self, String> {
        let run_seconds = seconds(row, system, options);
        let least = match system.amount {
            Amount::Fixed(count) => {
                return Ok(Self {
                    count,
                    checksum: None,
                });
            }
            Amount::AtLeast(least) => least,
        };
        let (mut count, mut checksum) = (least, None);
        for _ in 0..2 {
            let figures = run(system, count)?;
            let wall = figures.get("wall_s").copied().unwrap_or(run_seconds);
            if count == least {
                checksum = figures.get("checksum").copied();
            }
            // A first run that was very short says little: it is asked again.
            count = ((count as f64 * run_seconds / wall.max(1e-6)) as u64).max(least);
            if wall > run_seconds / 10.0 {
                break;
            }
        }
        Ok(Self { count, checksum })
    }
}

/// All that did something else than the others of the row fail: it is not said who is right.
fn unlike(row: &Row, first: Vec<Result<First, String>>) -> Vec<Result<First, String>> {
    let able = || first.iter().flatten();
    let told = able().filter_map(|first| first.checksum);
    let all: Vec<String> = told.map(|checksum| format!("{checksum}")).collect();
    let is_same = all.windows(2).all(|pair| pair[0] == pair[1]);
    let complete = all.is_empty() || all.len() == able().count();
    if is_same && complete {
        return first;
    }
    let message = format!("{}: checksums differ: {}", row.name, all.join(", "));
    let fail = |first: Result<First, String>| first.and(Err(message.clone()));
    first.into_iter().map(fail).collect()
}

/// How long the runs of a system are. CPU time needs some, or it is that of a few moments.
fn seconds(row: &Row, system: &System, options: &Options) -> f64 {
    let by_cpu = row.figure == Figure::CpuMicros || options.cpu && row.figure.is_rate();
    let least = if by_cpu { 0.5 } else { 0.0 };
    run_seconds(options).max(system.seconds).max(least)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    fn first(checksum: Option<f64>) -> Result<First, String> {
        Ok(First { count: 1, checksum })
    }

    fn failed(first: Vec<Result<First, String>>) -> Vec<bool> {
        let first = unlike(&rows::all(true)[0], first);
        first.iter().map(Result::is_err).collect()
    }

    #[test]
    fn systems_whose_checksums_differ_fail() {
        let all = |values: [f64; 3]| values.map(|value| first(Some(value))).into();
        assert_eq!(failed(all([7.0, 7.0, 7.0])), [false; 3]);
        assert_eq!(failed(all([7.0, 7.0, 8.0])), [true; 3]);
        assert_eq!(failed(vec![first(None), first(None)]), [false; 2]);
        assert_eq!(failed(vec![first(Some(7.0)), first(None)]), [true; 2]);
    }

    #[test]
    fn a_system_that_failed_before_leaves_the_others() {
        let broken = || Err("broken".to_owned());
        let one = || first(Some(7.0));
        assert_eq!(failed(vec![one(), broken(), one()]), [false, true, false]);
    }

    #[test]
    fn a_failed_run_takes_all_figures_of_its_system() {
        let measured = Measured::of(Err("ended".to_owned()));
        assert!(measured.median().is_nan() && measured.spread().is_nan());
        assert_eq!(measured.failure.as_deref(), Some("ended"));
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_figures() {
        let measured = Measured::of(Ok(vec![9.0, 1.0, 2.0]));
        assert_eq!((measured.median(), measured.spread()), (2.0, 4.0));
    }

    #[test]
    fn a_side_that_did_not_build_fails_in_its_rows() {
        let row = rows::all(true).swap_remove(0);
        let broken = row.systems.iter();
        let broken = broken.map(|system| (system.side, "did not build".to_owned()));
        let measured = super::row(&row, &broken.collect(), &Options::default());
        assert!(measured.iter().all(|one| one.failure.is_some()));
        assert_eq!(measured.len(), row.systems.len());
    }
}
