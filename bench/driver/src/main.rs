//! Builds every side by itself, runs them in turns, and prints one table. `README.md` says how to
//! read it.

mod environment;
mod growth;
mod instructions;
mod measure;
mod rows;
mod sides;
mod table;

use std::process::ExitCode;

use measure::Broken;
use serde_json::Value;
use sides::Side;

/// What is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Compare,
    Check,
    Update,
    Growth,
}

/// What the command line asks for.
#[derive(Clone, Default)]
pub struct Options {
    mode: Mode,
    instructions: bool,
    quick: bool,
    json: Option<String>,
    only: Vec<String>,
    systems: Vec<String>,
    rounds: Option<usize>,
    build: bool,
    cpu: bool,
}

const USAGE: &str = "cargo run --release -- [OPTIONS]

  --quick            shorter runs: the whole table in under two minutes, once everything is built
  --json FILE        also write one JSON object a figure, one a line
  --only TEXT        rows whose name contains TEXT; may be repeated
  --systems TEXT     systems whose name contains TEXT; may be repeated. Ratios need their peers
  --rounds N         runs of each system a row, interleaved (5; with --growth 3)
  --cpu              operations per second of CPU instead of wall time, where all is on one core:
                     for machines that are not idle
  --instructions     only what callgrind counts: all rows of that kind
  --check            count instructions of our own operations, and fail if one rose by more than
                     5 % over instructions.json
  --growth           what an operation of ours costs as nodes, timers, connections and workers grow
  --update           write instructions.json anew
  --no-build         use what was built before";

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options {
        build: true,
        ..Options::default()
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--json" => options.json = Some(value()?),
            "--only" => options.only.push(value()?),
            "--systems" => options.systems.push(value()?),
            "--rounds" => {
                let text = value()?;
                let rounds = text.parse().map_err(|_| format!("not a number: {text}"))?;
                options.rounds = Some(rounds);
            }
            "--instructions" => options.instructions = true,
            "--check" => options.mode = Mode::Check,
            "--update" => options.mode = Mode::Update,
            "--growth" => options.mode = Mode::Growth,
            "--cpu" => options.cpu = true,
            "--no-build" => options.build = false,
            "--help" => return Err(USAGE.to_owned()),
            unknown => return Err(format!("unknown option {unknown}\n\n{USAGE}")),
        }
    }
    Ok(options)
}

fn run() -> Result<(), String> {
    let options = parse(std::env::args().skip(1))?;
    match options.mode {
        Mode::Compare => compare(&options),
        Mode::Growth => {
            build(&[Side::Moonpool], &options)?;
            environment::print(&options);
            write_json(&growth::measure(&options)?, &options)
        }
        Mode::Check | Mode::Update if !instructions::available() => {
            Err("instructions are counted by callgrind: install valgrind".to_owned())
        }
        Mode::Check => {
            build(&[Side::Moonpool, Side::Untraced], &options)?;
            instructions::check(&rows::instructions(), &rows::tracing())
        }
        Mode::Update => {
            build(&[Side::Moonpool], &options)?;
            instructions::update(&rows::instructions())
        }
    }
}

fn build(sides: &[Side], options: &Options) -> Result<(), String> {
    if !options.build {
        return Ok(());
    }
    let broken = sides::build_each(sides.iter().copied());
    broken.into_values().next().map_or(Ok(()), Err)
}

fn compare(options: &Options) -> Result<(), String> {
    let rows = if options.instructions {
        let mut rows = rows::instructions();
        rows.push(rows::tracing());
        rows
    } else {
        rows::all(options.quick)
    };
    let rows: Vec<_> = rows
        .into_iter()
        .filter_map(|row| row.restricted_to(&options.only, &options.systems))
        .collect();
    let sides: Vec<Side> = rows
        .iter()
        .flat_map(|row| row.systems.iter().map(|system| system.side))
        .collect();
    let broken = if options.build {
        sides::build_each(sides)
    } else {
        Broken::new()
    };
    environment::print(options);
    let mut json = Vec::new();
    for row in &rows {
        let measured = measure::row(row, &broken, options);
        table::print(row, &measured);
        json.extend(table::json(row, &measured));
    }
    table::summary(&json);
    write_json(&json, options)?;
    match table::failures(&json) {
        failures if failures.is_empty() => Ok(()),
        failures => Err(format!("failed:\n  {}", failures.join("\n  "))),
    }
}

/// One object a line, if a file was named.
fn write_json(objects: &[Value], options: &Options) -> Result<(), String> {
    let Some(file) = &options.json else {
        return Ok(());
    };
    let lines: Vec<String> = objects.iter().map(ToString::to_string).collect();
    std::fs::write(file, lines.join("\n") + "\n").map_err(|error| format!("{file}: {error}"))
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
