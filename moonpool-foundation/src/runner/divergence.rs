//! Where two runs of one seed part: both are run again, step by step, on this thread, one after the
//! other as the runs that differed were.

use std::ops::Range;

use super::orchestrator;
use super::plan::Plan;
use super::verdict::Divergence;
use crate::sim::{TraceMode, TraceStep};

/// Steps shown before the first that differs.
const STEPS_BEFORE: u64 = 20;
/// Steps of one run that are kept at a time: some 30 MB.
const WINDOW: u64 = 250_000;
/// Windows that are compared before giving up. Each costs two runs of the seed.
const MAX_WINDOWS: u64 = 8;

/// Runs `seed` again, twice for each window of its steps, and compares.
pub(super) fn find(plan: &Plan<'_>, seed: u64) -> Divergence {
    search(WINDOW, |window| {
        orchestrator::run_recorded(plan, seed, TraceMode::Full, window)
            .1
            .steps
    })
}

/// Compares two runs window by window. `run` gives a run's steps within a window.
fn search(size: u64, mut run: impl FnMut(Range<u64>) -> Vec<TraceStep>) -> Divergence {
    for begin in (0..MAX_WINDOWS).map(|window| window * size) {
        // The steps before are kept too, to be shown.
        let window = begin.saturating_sub(STEPS_BEFORE)..begin + size;
        let (first, second) = (run(window.clone()), run(window.clone()));
        let same = same_steps(&first, &second);
        if same < first.len().max(second.len()) {
            return Divergence::At {
                step: window.start + same as u64,
                first: around(&first, same),
                second: around(&second, same),
            };
        }
        let end = window.start + same as u64;
        if end < window.end {
            return Divergence::RerunsAgree { steps: end };
        }
    }
    Divergence::BeyondSearch {
        steps: MAX_WINDOWS * size,
    }
}

fn same_steps(first: &[TraceStep], second: &[TraceStep]) -> usize {
    let pairs = first.iter().zip(second);
    pairs.take_while(|(first, second)| first == second).count()
}

/// The step at `place` and those before it, as text.
fn around(steps: &[TraceStep], place: usize) -> Vec<String> {
    let before = usize::try_from(STEPS_BEFORE).unwrap_or(usize::MAX);
    let begin = place.saturating_sub(before);
    let end = (place + 1).min(steps.len());
    let shown = steps.get(begin..end).unwrap_or_default();
    shown.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Runs of `lengths` steps by turns; the second of each pair differs from `differ_at` on.
    fn searched(size: u64, lengths: [u64; 2], differ_at: u64) -> Divergence {
        let mut runs = 0;
        search(size, |window| {
            let second = runs % 2 == 1;
            runs += 1;
            let end = window.end.min(lengths[usize::from(second)]);
            (window.start..end)
                .map(|index| TraceStep {
                    process: None,
                    index,
                    at: Duration::from_nanos(index),
                    what: format!("step {}", index >= differ_at && second),
                    digest: index,
                })
                .collect()
        })
    }

    fn step_of(found: Divergence) -> (u64, usize, usize) {
        match found {
            Divergence::At {
                step,
                first,
                second,
            } => (step, first.len(), second.len()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_first_differing_step_is_found_with_the_twenty_before_it() {
        assert_eq!(step_of(searched(100, [90, 90], 50)), (50, 21, 21));
        assert_eq!(step_of(searched(100, [90, 90], 3)), (3, 4, 4));
        // In a later window, also right at its begin.
        assert_eq!(step_of(searched(100, [900, 900], 730)), (730, 21, 21));
        assert_eq!(step_of(searched(100, [900, 900], 300)), (300, 21, 21));
    }

    #[test]
    fn a_run_that_ends_early_differs_where_it_ends() {
        assert_eq!(step_of(searched(100, [90, 60], 1000)), (60, 21, 20));
        assert_eq!(step_of(searched(100, [100, 250], 1000)), (100, 20, 21));
    }

    #[test]
    fn runs_that_agree_are_said_to() {
        let agree = Divergence::RerunsAgree { steps: 250 };
        assert_eq!(searched(100, [250, 250], 1000), agree);
        let beyond = Divergence::BeyondSearch { steps: 800 };
        assert_eq!(searched(100, [5000, 5000], 6000), beyond);
    }
}
