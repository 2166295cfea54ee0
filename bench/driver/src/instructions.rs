//! Instructions of one operation, counted by callgrind: what two runs of different lengths differ by. In
//! simulation they repeat within a hundredth of a percent, over TCP, where the kernel says how many reads a call
//! takes, within one or two, and times vary by a quarter; so a baseline of them can be committed and held.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::Options;
use crate::measure::{self, Broken};
use crate::rows::{Kind, Row, System};
use crate::{sides, table};

/// How much longer the longer of the two runs is.
const LONGER: u64 = 3;

/// What a count may rise by, in parts of the baseline.
const TOLERANCE: f64 = 0.05;

/// The same where the compiler is not that of the baseline: what another one makes of the same code.
const OTHER_COMPILER: f64 = 0.20;

pub fn available() -> bool {
    let version = Command::new("valgrind").arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// Instructions of one of `count` operations.
pub fn of_one(system: &System, count: u64) -> Result<f64, String> {
    let short = of_run(system, count)?;
    let long = of_run(system, LONGER * count)?;
    Ok((long - short) / ((LONGER - 1) * count) as f64)
}

fn of_run(system: &System, count: u64) -> Result<f64, String> {
    let name = format!("moonpool-bench-{}.callgrind", std::process::id());
    let file = std::env::temp_dir().join(name);
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(system.side.program());
    command
        .arg(system.work)
        .arg(format!("n={count}"))
        .args(&system.parameters);
    let output = command
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file:?}: {error}"))?;
    std::fs::remove_file(&file).map_err(|error| format!("{file:?}: {error}"))?;
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let totals = totals.and_then(|total| total.trim().parse().ok());
    totals.ok_or_else(|| format!("{command:?} wrote no totals"))
}

fn baseline_file() -> std::path::PathBuf {
    sides::workspace().join("instructions.json")
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "?".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Our systems of all rows that count instructions, with their names in the baseline.
fn ours(rows: &[Row]) -> Vec<(String, &System)> {
    let systems = rows.iter().flat_map(|row| {
        let ours = row
            .systems
            .iter()
            .filter(|system| system.kind == Kind::Ours);
        ours.map(|system| (format!("{} {}", row.name, system.name), system))
    });
    systems.collect()
}

fn count_ours(rows: &[Row]) -> Result<BTreeMap<String, f64>, String> {
    let mut counts = BTreeMap::new();
    for (name, system) in ours(rows) {
        counts.insert(name, of_one(system, system.amount.first())?);
    }
    Ok(counts)
}

/// Writes the baseline anew.
pub fn update(rows: &[Row]) -> Result<(), String> {
    let counts = count_ours(rows)?;
    let counts: Map<String, Value> = counts
        .into_iter()
        .map(|(name, count)| (name, (count.round() as u64).into()))
        .collect();
    let baseline = json!({ "compiler": compiler(), "instructions": counts });
    let text = serde_json::to_string_pretty(&baseline).map_err(|error| error.to_string())? + "\n";
    print!("{text}");
    let file = baseline_file();
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Compares with the baseline, and what stands in `bounded` with its goals.
///
/// # Errors
/// If a count has risen by more than the tolerance or has no baseline, if the baseline has one that is not
/// counted any more, or if a goal of `bounded` is missed.
pub fn check(rows: &[Row], bounded: &Row) -> Result<(), String> {
    let file = baseline_file();
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let baseline: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let theirs = baseline["compiler"].as_str().unwrap_or("no compiler");
    let tolerance = if theirs == compiler() {
        TOLERANCE
    } else {
        println!(
            "the baseline is of {theirs}, this is {}: {:.0} % are allowed instead of {:.0} %",
            compiler(),
            100.0 * OTHER_COMPILER,
            100.0 * TOLERANCE
        );
        OTHER_COMPILER
    };
    let counts = count_ours(rows)?;
    let changes = compare(&baseline["instructions"], &counts, tolerance);
    for line in changes.lines.iter().chain(&changes.hints) {
        println!("{line}");
    }
    let mut wrong = changes.wrong;
    let measured = measure::row(bounded, &Broken::new(), &Options::default());
    table::print(bounded, &measured);
    for object in table::json(bounded, &measured) {
        if object["met"] == false {
            wrong.push(format!("{} is not {}", object["title"], object["target"]));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nIf that is meant: cargo run --release -- --update, and say in the commit what it buys.",
        wrong.join("\n")
    ))
}

/// What a comparison with the baseline tells.
struct Changes {
    lines: Vec<String>,
    hints: Vec<String>,
    wrong: Vec<String>,
}

fn compare(baseline: &Value, counts: &BTreeMap<String, f64>, tolerance: f64) -> Changes {
    let (mut lines, mut hints, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (name, count) in counts {
        let Some(before) = baseline[name].as_f64() else {
            wrong.push(format!("{name} is not in the baseline"));
            continue;
        };
        let change = count / before - 1.0;
        let percent = change * 100.0;
        lines.push(format!(
            "{name:<44} {before:>9.0} -> {count:>9.0} {percent:>+7.2} %"
        ));
        if change > tolerance {
            wrong.push(format!("{name} rose by {percent:.1} %"));
        } else if change < -tolerance {
            hints.push(format!(
                "{name} fell by {:.1} %: --update keeps it there",
                -percent
            ));
        }
    }
    let old = baseline.as_object().into_iter().flat_map(Map::keys);
    let stale = old.filter(|name| !counts.contains_key(*name));
    wrong.extend(stale.map(|name| format!("{name} is in the baseline and not counted any more")));
    Changes {
        lines,
        hints,
        wrong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(now: &[(&str, f64)]) -> Changes {
        let baseline = json!({ "calls": 1000, "sleeps": 100 });
        let counts = now.iter().map(|(name, count)| ((*name).to_owned(), *count));
        compare(&baseline, &counts.collect(), TOLERANCE)
    }

    #[test]
    fn a_count_that_rises_beyond_the_tolerance_is_wrong() {
        assert!(
            changes(&[("calls", 1049.0), ("sleeps", 100.0)])
                .wrong
                .is_empty()
        );
        let wrong = changes(&[("calls", 1051.0), ("sleeps", 100.0)]).wrong;
        assert_eq!(wrong, ["calls rose by 5.1 %"]);
    }

    #[test]
    fn a_count_that_falls_is_told_and_not_wrong() {
        let changes = changes(&[("calls", 940.0), ("sleeps", 96.0)]);
        assert_eq!(
            changes.hints,
            ["calls fell by 6.0 %: --update keeps it there"]
        );
        assert!(changes.wrong.is_empty());
    }

    #[test]
    fn names_that_only_one_of_the_two_has_are_wrong() {
        let wrong = changes(&[("calls", 1000.0), ("naps", 100.0)]).wrong;
        let expected = [
            "naps is not in the baseline",
            "sleeps is in the baseline and not counted any more",
        ];
        assert_eq!(wrong, expected);
    }
}
