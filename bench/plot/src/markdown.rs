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
    // Without a value it failed.
    let of_kind = of_kind.filter(|object| object["value"].is_number());
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
            let met = match text(ours, "failure") {
                "" => met,
                _ => "**failed**".to_owned(),
            };
            // Where the best peer does less than the others, the best of those stands beside it.
            let times_peer = match ours["ratio_to_best_like_peer"].as_f64() {
                Some(like) => format!(
                    "{} ({like:.2} of one that does the same)",
                    times("ratio_to_best_peer")
                ),
                None => times("ratio_to_best_peer"),
            };
            let line = [
                format!("`{}`, {}", text(ours, "work"), text(ours, "system")),
                figure(ours),
                peer.clone(),
                times_peer,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figure_of(kind: &str, system: &str, value: Value, more_is_better: bool) -> Value {
        json!({
            "work": "work", "kind": kind, "system": system, "value": value, "unit": "/s",
            "more_is_better": more_is_better,
        })
    }

    #[test]
    fn the_best_is_the_most_or_the_least_of_those_that_have_a_value() {
        for (more_is_better, expected) in [(true, "c"), (false, "b")] {
            let row = [
                ("a", Value::Null),
                ("b", json!(1.0)),
                ("c", json!(2.0)),
                ("d", Value::Null),
            ];
            let row = row.map(|(system, value)| figure_of("peer", system, value, more_is_better));
            assert_eq!(
                best(&row, "peer").map(|best| text(best, "system")),
                Some(expected)
            );
            assert_eq!(best(&row, "floor"), None);
        }
    }

    #[test]
    fn a_line_tells_failures_and_peers_that_do_less() {
        let mut ours = figure_of("ours", "moonpool", json!(10.0), true);
        ours["ratio_to_best_peer"] = json!(2.0);
        ours["ratio_to_best_like_peer"] = json!(5.0);
        assert!(compare(&[ours]).contains("2.00 (5.00 of one that does the same)"));
        let mut failed = figure_of("ours", "moonpool", Value::Null, true);
        failed["failure"] = json!("it ended");
        assert!(compare(&[failed]).contains("**failed**"));
    }
}
