//! The same figures as tables for a document.

use std::fmt::Write;

use serde_json::Value;

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

/// Three significant digits, with a unit of thousands or millions.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

fn figure(object: &Value) -> String {
    let value = object["value"].as_f64().map_or("-".to_owned(), short);
    format!("{value} {}", text(object, "unit"))
}

/// The system of this kind that is ahead of the others of its kind.
fn best<'a>(row: &'a [Value], kind: &str) -> Option<&'a Value> {
    let of_kind = row.iter().filter(|object| text(object, "kind") == kind);
    of_kind.reduce(|best, other| {
        let [best_value, value] = [best, other].map(|object| object["value"].as_f64());
        if (value > best_value) == (is_better_with_more(other)) {
            other
        } else {
            best
        }
    })
}

fn is_better_with_more(object: &Value) -> bool {
    object["more_is_better"].as_bool().unwrap_or(true)
}

/// A line for each of our figures, with the best peer and the floor beside it.
pub fn compare(figures: &[Value]) -> String {
    let mut table = "| work | ours | best peer | x best peer | x floor | target | |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for row in figures.chunk_by(|one, other| one["work"] == other["work"]) {
        let peer = best(row, "peer").map_or("-".to_owned(), |peer| {
            format!("{} ({})", figure(peer), text(peer, "system"))
        });
        for ours in row.iter().filter(|object| text(object, "kind") == "ours") {
            let times = |key: &str| {
                let times = ours[key].as_f64();
                times.map_or("-".to_owned(), |times| format!("{times:.2}"))
            };
            let met = match ours["met"].as_bool() {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "",
            };
            // Where the floor itself misses the target, nobody reaches it on that machine.
            let met = match text(ours, "note") {
                "" => met.to_owned(),
                note => format!("{met}; {note}"),
            };
            let line = [
                format!("`{}`, {}", text(ours, "work"), text(ours, "system")),
                figure(ours),
                peer.clone(),
                times("ratio_to_best_peer"),
                times("ratio_to_floor"),
                text(ours, "target").to_owned(),
                met,
            ];
            let _ = writeln!(table, "| {} |", line.join(" | "));
        }
    }
    table
}

/// A line for each size of each curve.
pub fn growth(points: &[Value]) -> String {
    let mut table =
        "| what grows | size | us each | x smallest |\n| --- | --- | --- | --- |\n".to_owned();
    for point in points {
        let number = |key: &str| point[key].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(
            table,
            "| {} | {} | {:.3} | {:.2} |",
            text(point, "size_name"),
            point["size"],
            number("us_each"),
            number("times_smallest"),
        );
    }
    table
}
