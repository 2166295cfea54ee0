//! `MOONPOOL_MINIMIZE`: which of the faults that fired a failure needs.

use std::collections::BTreeSet;

use crate::chaos::FaultId;

/// Runs that a search takes at most.
const MAX_RUNS: usize = 500;

/// The faults among `fired` that can be skipped, together, while `still_fails` says so: first large
/// parts of them, then smaller ones, down to single faults. Greedy: another order might find more.
pub(super) fn skippable(
    fired: &[FaultId],
    mut still_fails: impl FnMut(&BTreeSet<FaultId>) -> bool,
) -> BTreeSet<FaultId> {
    let mut skipped = BTreeSet::new();
    let mut needed = fired.to_vec();
    let mut size = needed.len();
    let mut runs = 0;
    while size > 0 {
        let mut kept = Vec::new();
        for part in needed.chunks(size) {
            let mut tried = skipped.clone();
            tried.extend(part);
            runs += 1;
            if runs <= MAX_RUNS && still_fails(&tried) {
                skipped = tried;
            } else {
                kept.extend(part);
            }
        }
        needed = kept;
        size = if size == 1 {
            0
        } else {
            size.min(needed.len()).div_ceil(2)
        };
    }
    skipped
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

    #[test]
    fn all_but_the_faults_that_are_needed_are_skipped() {
        let fired: Vec<FaultId> = (1..=100).map(cut).collect();
        for needed in [vec![], vec![1], vec![17, 60, 100], vec![3, 4, 5]] {
            let needed: BTreeSet<FaultId> = needed.into_iter().map(cut).collect();
            let skipped = skippable(&fired, |skipped| skipped.is_disjoint(&needed));
            assert!(skipped.is_disjoint(&needed));
            assert_eq!(skipped.len() + needed.len(), fired.len());
        }
    }

    #[test]
    fn the_search_ends() {
        let fired: Vec<FaultId> = (1..=10_000).map(cut).collect();
        let mut runs = 0;
        let skipped = skippable(&fired, |_| {
            runs += 1;
            false
        });
        assert!(skipped.is_empty() && runs <= MAX_RUNS, "{runs}");
    }
}
