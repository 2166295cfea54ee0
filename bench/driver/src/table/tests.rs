//! What a table says of figures that are given.

use super::*;
use crate::rows;

/// A row that has our figure, two peers' and a floor's, of which the first may be what the goal names.
fn row(more_is_better: bool) -> Row {
    let mut rows = rows::all(true);
    let name = if more_is_better {
        "sim-stream"
    } else {
        "instructions-sim-stream"
    };
    let at = rows.iter().position(|row| row.name == name).unwrap();
    rows.swap_remove(at)
}

fn measured(medians: [f64; 4]) -> Vec<Measured> {
    let one = |median: f64| Measured {
        values: if median.is_nan() {
            vec![]
        } else {
            vec![median]
        },
        failure: median.is_nan().then(|| "it ended".to_owned()),
    };
    medians.map(one).into()
}

const FAILED: f64 = f64::NAN;

#[test]
fn ratios_above_one_are_better_whether_more_is_or_less() {
    assert_eq!(ratio(&row(true), 6.0, 2.0), 3.0);
    assert_eq!(ratio(&row(false), 6.0, 2.0), 1.0 / 3.0);
}

#[test]
fn the_best_peer_has_the_most_or_the_least() {
    let figures = measured([50.0, 10.0, 20.0, 100.0]);
    assert_eq!(best(&row(true), &figures, Kind::Peer), Some(20.0));
    assert_eq!(best(&row(false), &figures, Kind::Peer), Some(10.0));
    assert_eq!(best(&row(true), &figures, Kind::Floor), Some(100.0));
}

#[test]
fn a_peer_that_failed_is_not_the_best() {
    for more_is_better in [true, false] {
        let row = row(more_is_better);
        let one = measured([50.0, FAILED, 20.0, 100.0]);
        assert_eq!(best(&row, &one, Kind::Peer), Some(20.0));
        let none = measured([50.0, FAILED, FAILED, 100.0]);
        assert_eq!(best(&row, &none, Kind::Peer), None);
    }
}

#[test]
fn goals_are_met_by_their_figure_and_missed_below_it() {
    let (more, less) = (row(true), row(false));
    let figures = measured([50.0, 10.0, 20.0, 100.0]);
    let met = |row: &Row, goal, value| met(row, &figures, &goal, value);
    assert_eq!(met(&more, Goal::BestPeer(2.5), 50.0), Some(true));
    assert_eq!(met(&more, Goal::BestPeer(2.5), 49.0), Some(false));
    assert_eq!(met(&less, Goal::BestPeer(2.5), 4.0), Some(true));
    assert_eq!(met(&less, Goal::BestPeer(2.5), 5.0), Some(false));
    assert_eq!(met(&more, Goal::Floor(0.5), 50.0), Some(true));
    assert_eq!(met(&more, Goal::Floor(0.5), 49.0), Some(false));
    assert_eq!(met(&more, Goal::Against("turmoil", 5.0), 50.0), Some(true));
    assert_eq!(met(&more, Goal::Against("turmoil", 5.1), 50.0), Some(false));
    assert_eq!(met(&less, Goal::AtMost(3.0), 3.0), Some(true));
    assert_eq!(met(&less, Goal::AtMost(3.0), 3.1), Some(false));
    assert_eq!(met(&more, Goal::AtLeast(3.0), 3.0), Some(true));
    assert_eq!(met(&more, Goal::AtLeast(3.0), 2.9), Some(false));
}

#[test]
fn a_goal_says_nothing_without_what_it_compares_with() {
    let row = row(true);
    let figures = measured([50.0, FAILED, FAILED, FAILED]);
    let met = |goal| met(&row, &figures, &goal, 50.0);
    assert_eq!(met(Goal::BestPeer(2.0)), None);
    assert_eq!(met(Goal::Floor(0.5)), None);
    assert_eq!(met(Goal::Against("turmoil", 1.0)), None);
    assert_eq!(met(Goal::Against("of another row", 1.0)), None);
    assert_eq!(met(Goal::AtLeast(1.0)), Some(true));
}

#[test]
fn our_own_failure_misses_every_goal() {
    let row = row(true);
    let figures = measured([FAILED, 10.0, 20.0, 100.0]);
    let ours = &json(&row, &figures)[0];
    assert_eq!(ours["met"], false);
    assert_eq!(ours["value"], Value::Null);
    assert_eq!(ours["ratio_to_best_peer"], Value::Null);
}

#[test]
fn failures_are_told_and_leave_the_other_figures() {
    let figures = json(&row(true), &measured([50.0, FAILED, 20.0, 100.0]));
    let failures = failures(&figures);
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("turmoil") && failures[0].contains("it ended"));
    assert_eq!(figures[0]["ratio_to_best_peer"], 2.5);
}

#[test]
fn a_peer_that_does_less_has_a_ratio_beside_that_of_the_others() {
    let mut row = row(true);
    let figures = measured([50.0, 25.0, 10.0, 100.0]);
    assert_eq!(
        json(&row, &figures)[0]["ratio_to_best_like_peer"],
        Value::Null
    );
    row.systems[1].does_less = Some("half of it");
    let ours = &json(&row, &figures)[0];
    assert_eq!(ours["ratio_to_best_peer"], 2.0);
    assert_eq!(ours["ratio_to_best_like_peer"], 5.0);
}

#[test]
fn a_floor_that_misses_the_goal_as_well_is_told() {
    let row = row(true);
    let note = |floor, value| {
        let figures = measured([value, 10.0, 20.0, floor]);
        floor_note(&row, &figures, &Goal::BestPeer(4.0), value)
    };
    assert_eq!(note(60.0, 50.0).as_deref(), Some("floor: 3.00 x best peer"));
    assert_eq!(note(100.0, 50.0), None);
    assert_eq!(note(60.0, 80.0), None);
}
