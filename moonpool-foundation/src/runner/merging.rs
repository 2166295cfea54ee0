//! What workers hand over, in the order of the turns: so the report of a campaign does not depend on
//! how many there are, and nothing is left to be sorted or copied at its end. Pure.

use std::collections::BTreeMap;

use super::coverage::{self, Coverage, SiteResults};
use super::report::SeedReport;
use crate::sim::SiteCounts;

/// Seeds of consecutive turns that one worker has run.
#[derive(Debug, Default)]
pub(super) struct Batch {
    first_turn: usize,
    /// The position of its last seed.
    position: usize,
    reports: Vec<SeedReport>,
    /// Of all its seeds together. A campaign that may end with any seed has one in each batch.
    counts: SiteCounts,
}

impl Batch {
    /// Begins one with this turn. The last one must have been handed over.
    pub(super) fn begin(&mut self, first_turn: usize) {
        self.first_turn = first_turn;
    }

    /// Adds the seed at `position`, whose turn comes after those that are in it.
    pub(super) fn add(&mut self, position: usize, report: SeedReport, counts: &SiteCounts) {
        self.position = position;
        self.reports.push(report);
        coverage::add(&mut self.counts, counts);
    }

    pub(super) fn reports(&self) -> &[SeedReport] {
        &self.reports
    }

    /// Empties it, and keeps its memory.
    fn clear(&mut self) {
        self.reports.clear();
        self.counts.clear();
    }
}

/// What a campaign has come to so far: its seeds' reports and counts, put together in their order.
#[derive(Debug)]
pub(super) struct Merged {
    coverage: Coverage,
    reports: Vec<SeedReport>,
    /// Batches that are done before one whose turn came earlier, by their first turns.
    early: BTreeMap<usize, Batch>,
    next_turn: usize,
}

impl Merged {
    pub(super) fn new(coverage: Coverage) -> Self {
        Self {
            coverage,
            reports: Vec::new(),
            early: BTreeMap::new(),
            next_turn: 0,
        }
    }

    /// Takes over what is in `batch`, which is empty then. Each turn comes once, in any order; seeds
    /// beyond the position `stop_at` are not counted. A seed that ends the campaign has set it before
    /// it comes here, so whatever is merged knows of all that come earlier.
    pub(super) fn add(&mut self, batch: &mut Batch, stop_at: usize) {
        if batch.first_turn != self.next_turn {
            self.early.insert(batch.first_turn, std::mem::take(batch));
            return;
        }
        self.merge(batch, stop_at);
        while let Some(mut batch) = self.early.remove(&self.next_turn) {
            self.merge(&mut batch, stop_at);
        }
    }

    fn merge(&mut self, batch: &mut Batch, stop_at: usize) {
        let stop_at = self.stop_at().map_or(stop_at, |at| at.min(stop_at));
        self.next_turn += batch.reports.len();
        if batch.position <= stop_at {
            self.reports.append(&mut batch.reports);
            self.coverage.merge(batch.position, &batch.counts);
        }
        batch.clear();
    }

    /// The position of the last seed, if the campaign ends as soon as all required sites have held, and
    /// they have.
    pub(super) fn stop_at(&self) -> Option<usize> {
        self.coverage.stop_at()
    }

    /// How many required sites have held, and how many there are.
    pub(super) fn reached(&self) -> (usize, usize) {
        self.coverage.reached()
    }

    /// The reports in the order of their seeds, and what every site came to.
    pub(super) fn finish(self) -> (Vec<SeedReport>, SiteResults) {
        let results = self.coverage.results();
        (self.reports, results)
    }
}

#[cfg(test)]
mod tests {
    use super::super::coverage::Requirement;
    use super::super::metrics::SimulationMetrics;
    use super::super::verdict::Verdict;
    use super::*;
    use crate::chaos::FaultCounts;
    use crate::chaos::assertions::AssertionCount;
    use crate::sim::Leftovers;

    fn report(seed: usize) -> SeedReport {
        SeedReport {
            seed: seed as u64,
            verdict: Verdict::Passed,
            metrics: SimulationMetrics::default(),
            leftovers: Leftovers::default(),
            faults: FaultCounts::default(),
        }
    }

    fn held(number: usize) -> SiteCounts {
        let mut assertions = vec![AssertionCount::default(); 3];
        assertions[number] = AssertionCount { checks: 2, held: 1 };
        SiteCounts {
            assertions,
            ..SiteCounts::default()
        }
    }

    /// Hands over seeds whose turns and positions are their numbers.
    fn hand_over(merged: &mut Merged, seeds: &[usize], site: usize, stop_at: usize) {
        let mut batch = Batch::default();
        batch.begin(seeds[0]);
        for seed in seeds {
            batch.add(*seed, report(*seed), &held(site));
        }
        merged.add(&mut batch, stop_at);
        assert!(batch.reports.is_empty());
        assert!(batch.counts.assertions.iter().all(|site| site.checks == 0));
    }

    #[test]
    fn seeds_beyond_the_end_of_the_campaign_add_nothing() {
        let mut merged = Merged::new(Coverage::new(Requirement::default(), false));
        // The third was on its way when the second ended the campaign.
        for (turn, stop_at) in [(2, usize::MAX), (0, usize::MAX), (1, 1)] {
            hand_over(&mut merged, &[turn], 0, stop_at);
        }
        let (reports, _) = (merged.reports, merged.early);
        assert_eq!(
            reports.iter().map(|run| run.seed).collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(merged.coverage.merged().assertions[0].checks, 4);
    }

    #[test]
    fn coverage_is_complete_at_the_same_seed_whatever_order_they_end_in() {
        let sites = [0, 0, 2, 1];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut merged = Merged::new(Coverage::requiring(vec![0, 2]));
            for seed in order {
                hand_over(&mut merged, &[seed], sites[seed], 10);
            }
            assert_eq!(merged.stop_at(), Some(2), "{order:?}");
            let [first, second, _] = merged.coverage.merged().assertions[..] else {
                panic!("there are three")
            };
            assert_eq!((first.checks, first.held), (4, 2));
            assert_eq!(second.checks, 0, "a seed after the last one is not counted");
            assert_eq!(merged.reports.len(), 3);
        }
    }

    #[test]
    fn batches_are_merged_in_the_order_of_their_turns_whatever_order_they_end_in() {
        let batches: [&[usize]; 3] = [&[0, 1, 2], &[3], &[4, 5]];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut merged = Merged::new(Coverage::new(Requirement::default(), false));
            for batch in order {
                hand_over(&mut merged, batches[batch], 1, usize::MAX);
            }
            let seeds: Vec<u64> = merged.reports.iter().map(|run| run.seed).collect();
            assert_eq!(seeds, [0, 1, 2, 3, 4, 5], "{order:?}");
            assert_eq!(merged.coverage.merged().assertions[1].checks, 12);
            assert!(merged.early.is_empty());
        }
    }
}
