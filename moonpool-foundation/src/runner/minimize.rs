//! `MOONPOOL_MINIMIZE`: which of the faults that fired a failure needs.

use std::collections::BTreeSet;

use super::verdict::Verdict;
use crate::chaos::FaultId;

/// Runs that a search takes at most.
const MAX_RUNS: usize = 500;

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Minimised {
    /// The failure does not need these.
    pub(super) skipped: BTreeSet<FaultId>,
    /// What still fires once they are skipped.
    pub(super) needed: Vec<FaultId>,
    /// There was no time to try all of `needed`.
    pub(super) is_cut_off: bool,
}

/// Looks for faults that can be skipped, together, such that the failure stays: first large parts of
/// those that fired, then smaller ones, down to single faults. Greedy: another order might find more.
///
/// `run` skips what it is given, and tells what fired all the same if the failure is still the same
/// one. Without a fault a run goes another way, and others may fire in its place; so what is needed is
/// what fired in the last such run, and a run counts only if fewer fire in it than before.
pub(super) fn minimised(
    fired: Vec<FaultId>,
    mut run: impl FnMut(&BTreeSet<FaultId>) -> Option<Vec<FaultId>>,
) -> Minimised {
    let mut found = Minimised {
        needed: fired,
        ..Minimised::default()
    };
    let mut size = found.needed.len();
    let mut runs = 0;
    while size > 0 {
        let mut begin = 0;
        let mut is_smaller = false;
        while begin < found.needed.len() {
            if runs == MAX_RUNS {
                found.is_cut_off = true;
                return found;
            }
            runs += 1;
            let end = found.needed.len().min(begin + size);
            let mut tried = found.skipped.clone();
            tried.extend(&found.needed[begin..end]);
            match run(&tried) {
                Some(fired) if fired.len() < found.needed.len() => {
                    found.skipped = tried;
                    found.needed = fired;
                    is_smaller = true;
                }
                _ => begin = end,
            }
        }
        size = match size {
            // What could not be skipped alone may be, now that others are.
            1 if is_smaller => 1,
            1 => 0,
            _ => size.min(found.needed.len()).div_ceil(2),
        };
    }
    found
}

/// Whether both are one failure: in the same place, or in the same words but for the numbers.
pub(super) fn is_same_failure(one: &Verdict, other: &Verdict) -> bool {
    if one.name() != other.name() {
        return false;
    }
    match (place(one), place(other)) {
        (Some(one), Some(other)) => one == other,
        _ => without_numbers(&one.headline()) == without_numbers(&other.headline()),
    }
}

fn place(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Panic { location, .. } => location.as_deref(),
        Verdict::AlwaysAssert { location, .. } => Some(location),
        _ => None,
    }
}

/// `text` with each number, its fraction and its unit as `#`.
fn without_numbers(text: &str) -> String {
    let mut stripped = String::new();
    let mut in_number = false;
    for character in text.chars() {
        in_number = character.is_ascii_digit()
            || (in_number && (character.is_alphanumeric() || character == '.'));
        if !in_number {
            stripped.push(character);
        } else if !stripped.ends_with('#') {
            stripped.push('#');
        }
    }
    stripped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::FaultKind;

    fn cut(ordinal: u64) -> FaultId {
        FaultId {
            kind: FaultKind::Cut,
            ordinal,
        }
    }

    fn without(fired: &[FaultId], skipped: &BTreeSet<FaultId>) -> Vec<FaultId> {
        let left = fired.iter().filter(|fault| !skipped.contains(fault));
        left.copied().collect()
    }

    #[test]
    fn all_but_the_faults_that_are_needed_are_skipped() {
        let fired: Vec<FaultId> = (1..=100).map(cut).collect();
        for needed in [vec![], vec![1], vec![17, 60, 100], vec![3, 4, 5]] {
            let needed: Vec<FaultId> = needed.into_iter().map(cut).collect();
            let found = minimised(fired.clone(), |skipped| {
                let fails = needed.iter().all(|fault| !skipped.contains(fault));
                fails.then(|| without(&fired, skipped))
            });
            assert_eq!(found.needed, needed);
            assert_eq!(found.skipped.len() + needed.len(), fired.len());
            assert!(!found.is_cut_off);
        }
    }

    #[test]
    fn what_fires_in_place_of_a_skipped_fault_is_needed_in_its_place() {
        // Any cut makes it fail, and there are twelve: each run ends with the first.
        let all: Vec<FaultId> = (1..=12).map(cut).collect();
        let first = |skipped: &BTreeSet<FaultId>| without(&all, skipped).into_iter().take(1);
        let found = minimised((1..=3).map(cut).collect(), |skipped| {
            let fired: Vec<FaultId> = first(skipped).collect();
            (!fired.is_empty()).then_some(fired)
        });
        assert_eq!(found.needed.len(), 1, "{found:?}");
        assert!(!found.skipped.contains(&found.needed[0]), "{found:?}");
    }

    #[test]
    fn the_search_ends_and_says_that_it_was_cut_off() {
        let mut runs = 0;
        let found = minimised((1..=10_000).map(cut).collect(), |_| {
            runs += 1;
            None
        });
        assert!(found.skipped.is_empty() && found.is_cut_off);
        assert_eq!(runs, MAX_RUNS);
    }

    #[test]
    fn failures_are_the_same_in_one_place_or_in_the_same_words_but_for_numbers() {
        let error = |message: &str| Verdict::WorkloadError {
            workload: "client".into(),
            message: message.into(),
        };
        let lost = error("lost 3 orders at 1.5s");
        assert!(is_same_failure(&lost, &error("lost 17 orders at 150ms")));
        assert!(!is_same_failure(&lost, &error("lost the connection")));
        let panic = |message: &str, location: &str| Verdict::Panic {
            task: "main".into(),
            process: "server".into(),
            message: message.into(),
            location: Some(location.into()),
        };
        let one = panic("orders: [a, b]", "src/orders.rs:3:5");
        assert!(is_same_failure(
            &one,
            &panic("orders: [a]", "src/orders.rs:3:5")
        ));
        assert!(!is_same_failure(
            &one,
            &panic("orders: [a, b]", "src/orders.rs:9:5")
        ));
    }
}
