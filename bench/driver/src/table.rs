//! What a person reads, and what a program reads.

use serde_json::{Value, json};

use crate::measure::Measured;
use crate::rows::{Goal, Kind, Row, System};

/// How many times better `value` is than `other`.
fn ratio(row: &Row, value: f64, other: f64) -> f64 {
    if row.figure.more_is_better() {
        value / other
    } else {
        other / value
    }
}

/// The best of the systems that were measured and are wanted.
fn best_of(row: &Row, measured: &[Measured], wanted: impl Fn(&System) -> bool) -> Option<f64> {
    let figures = row.systems.iter().zip(measured);
    let figures = figures.filter(|(system, _)| wanted(system));
    let medians = figures.map(|(_, measured)| measured.median());
    let medians = medians.filter(|median| median.is_finite());
    if row.figure.more_is_better() {
        medians.reduce(f64::max)
    } else {
        medians.reduce(f64::min)
    }
}

fn best(row: &Row, measured: &[Measured], kind: Kind) -> Option<f64> {
    best_of(row, measured, |system| system.kind == kind)
}

/// The best peer that does all of the row's work, if another one does less.
fn best_like(row: &Row, measured: &[Measured]) -> Option<f64> {
    let is_peer = |system: &System| system.kind == Kind::Peer;
    let does_less = |system: &System| is_peer(system) && system.does_less.is_some();
    row.systems.iter().find(|system| does_less(system))?;
    best_of(row, measured, |system| {
        is_peer(system) && !does_less(system)
    })
}

fn median_of(row: &Row, measured: &[Measured], name: &str) -> Option<f64> {
    let position = row.systems.iter().position(|system| system.name == name)?;
    let median = measured[position].median();
    median.is_finite().then_some(median)
}

/// Whether a goal is met; `None` if what it compares with was not measured.
fn met(row: &Row, measured: &[Measured], goal: &Goal, value: f64) -> Option<bool> {
    Some(match *goal {
        Goal::BestPeer(times) => ratio(row, value, best(row, measured, Kind::Peer)?) >= times,
        Goal::Floor(times) => ratio(row, value, best(row, measured, Kind::Floor)?) >= times,
        Goal::Against(name, times) => ratio(row, value, median_of(row, measured, name)?) >= times,
        Goal::AtLeast(least) => value >= least,
        Goal::AtMost(most) => value <= most,
    })
}

/// What the floor itself comes to, if it misses the goal as `value` does: then nothing that does the work
/// reaches it on this machine.
fn floor_note(row: &Row, measured: &[Measured], goal: &Goal, value: f64) -> Option<String> {
    let floor = best(row, measured, Kind::Floor)?;
    if met(row, measured, goal, value)? || met(row, measured, goal, floor)? {
        return None;
    }
    let times = |other: f64, name: &str| format!("{:.2} x {name}", ratio(row, floor, other));
    let reached = match *goal {
        Goal::BestPeer(_) => times(best(row, measured, Kind::Peer)?, "best peer"),
        Goal::Against(name, _) => times(median_of(row, measured, name)?, name),
        Goal::AtLeast(_) | Goal::AtMost(_) => readable(floor),
        Goal::Floor(_) => return None,
    };
    Some(format!("floor: {reached}"))
}

fn goal_text(goal: &Goal) -> String {
    match *goal {
        Goal::BestPeer(times) => format!(">= {times} x best peer"),
        Goal::Floor(times) => format!(">= {times} x floor"),
        Goal::Against(name, times) => format!(">= {times} x {name}"),
        Goal::AtLeast(least) => format!(">= {least}"),
        Goal::AtMost(most) => format!("<= {most}"),
    }
}

/// One object for each system of the row.
pub fn json(row: &Row, measured: &[Measured]) -> Vec<Value> {
    let best_peer = best(row, measured, Kind::Peer);
    let like_peer = best_like(row, measured);
    let floor = best(row, measured, Kind::Floor);
    let figures = row.systems.iter().zip(measured);
    let object = |(system, figures): (&System, &Measured)| {
        let value = figures.median();
        let against = |other: Option<f64>| {
            let other = other.filter(|_| value.is_finite());
            other.map(|other| ratio(row, value, other))
        };
        let goals: Vec<String> = system.goals.iter().map(goal_text).collect();
        let met: Option<Vec<bool>> = system
            .goals
            .iter()
            .map(|goal| met(row, measured, goal, value))
            .collect();
        let met = met.filter(|met| !met.is_empty());
        let notes = system.goals.iter();
        let notes: Vec<String> = notes
            .filter_map(|goal| floor_note(row, measured, goal, value))
            .collect();
        json!({
            "work": row.name,
            "title": row.title,
            "system": system.name,
            "kind": system.kind.name(),
            "value": value,
            "unit": row.figure.unit(),
            "more_is_better": row.figure.more_is_better(),
            "rounds": figures.values.len(),
            "spread": figures.spread(),
            "ratio_to_best_peer": against(best_peer),
            "ratio_to_best_like_peer": against(like_peer),
            "ratio_to_floor": against(floor),
            "does_less": system.does_less,
            "failure": figures.failure,
            "target": if goals.is_empty() { Value::Null } else { goals.join(", ").into() },
            "met": met.map(|met| met.iter().all(|met| *met)),
            "note": if notes.is_empty() { Value::Null } else { notes.join(", ").into() },
        })
    };
    figures.map(object).collect()
}

pub fn print(row: &Row, measured: &[Measured]) {
    println!("\n{}: {}", row.name, row.title);
    for object in json(row, measured) {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| object[key].as_f64();
        let times = |key: &str| number(key).map_or("-".to_owned(), |times| format!("{times:.2}"));
        let verdict = match object["met"].as_bool() {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        let note = match text("note").as_str() {
            "" => String::new(),
            note => format!("; {note}"),
        };
        if object["failure"].is_string() {
            println!(
                "  {:<26} FAILED: {}",
                text("system"),
                text("failure").trim()
            );
            continue;
        }
        let like = number("ratio_to_best_like_peer");
        let like = like.map_or(String::new(), |times| {
            format!("  best that does the same x {times:.2}")
        });
        let less = match text("does_less").as_str() {
            "" => String::new(),
            less => format!("  ({less})"),
        };
        println!(
            "  {:<26} {:>14} {:<14} +-{:>3.0} %  best peer x {:>7}  floor x {:>6}{like}{less}  {} {verdict}{note}",
            text("system"),
            readable(number("value").unwrap_or(f64::NAN)),
            text("unit"),
            number("spread").unwrap_or(f64::NAN) * 50.0,
            times("ratio_to_best_peer"),
            times("ratio_to_floor"),
            text("target"),
        );
    }
}

/// Four significant digits, thousands apart.
fn readable(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    if value < 1000.0 {
        let digits = (3 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 6) as usize;
        return format!("{value:.digits$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn summary(figures: &[Value]) {
    let judged = figures.iter().filter(|figure| figure["met"].is_boolean());
    let (met, missed): (Vec<_>, Vec<_>) =
        judged.partition(|figure| figure["met"].as_bool() == Some(true));
    println!(
        "\ntargets met: {} of {}",
        met.len(),
        met.len() + missed.len()
    );
    for figure in missed {
        let note = figure["note"].as_str();
        let note = note.map_or(String::new(), |note| format!("; {note}"));
        println!(
            "  not met: {} {} ({}{note})",
            figure["work"], figure["system"], figure["target"]
        );
    }
}

/// Works and systems that gave no figures because they failed.
pub fn failures(figures: &[Value]) -> Vec<String> {
    let failed = figures
        .iter()
        .filter(|figure| figure["failure"].is_string());
    failed
        .map(|figure| {
            format!(
                "{} {}: {}",
                figure["work"], figure["system"], figure["failure"]
            )
        })
        .collect()
}

#[cfg(test)]
mod tests;
