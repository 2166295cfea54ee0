//! Instructions of one operation, counted by callgrind: what two runs of different lengths differ by. They
//! repeat within a hundredth of a percent where times vary by a quarter, so a baseline of them
//! can be committed and held.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::rows::{Kind, Row, System};
use crate::sides;

/// How much longer the longer of the two runs is.
const LONGER: u64 = 3;

/// What a count may rise by, in parts of the baseline.
const TOLERANCE: f64 = 0.05;

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

/// Compares with the baseline. Fails if a count has risen by more than the tolerance, or has no baseline.
pub fn check(rows: &[Row]) -> Result<(), String> {
    let file = baseline_file();
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let baseline: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if baseline["compiler"] != compiler().as_str() {
        let theirs = &baseline["compiler"];
        println!(
            "the baseline is of {theirs}, this is {}: nothing is compared",
            compiler()
        );
        return Ok(());
    }
    let mut risen = Vec::new();
    for (name, count) in count_ours(rows)? {
        let Some(before) = baseline["instructions"][&name].as_f64() else {
            risen.push(format!("{name} is not in the baseline"));
            continue;
        };
        let change = count / before - 1.0;
        println!(
            "{name:<44} {before:>9.0} -> {count:>9.0} {:>+7.2} %",
            change * 100.0
        );
        if change > TOLERANCE {
            risen.push(format!("{name} rose by {:.1} %", change * 100.0));
        }
    }
    if risen.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nIf that is meant: cargo run --release -- --update, and say in the commit what it buys.",
        risen.join("\n")
    ))
}
