//! What the assertions and `buggify!` sites of a campaign came to: merged over its seeds in their
//! order, so that the number of threads does not matter.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::chaos::assertions::{self, AssertionCount};
use crate::chaos::buggify::{self, BuggifyCount};
use crate::chaos::{AssertionKind, FaultCounts, FaultId, FaultKind, FaultSet, Place};
use crate::sim::SiteCounts;

/// Which sites a campaign has to reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Requirement {
    modules: Vec<String>,
    /// Whether a report without them passes.
    pub(super) is_enforced: bool,
}

impl Requirement {
    /// The sites of `modules` and of those below them.
    pub(super) fn new(modules: Vec<String>, is_enforced: bool) -> Self {
        Self {
            modules,
            is_enforced,
        }
    }

    fn covers(&self, module: &str) -> bool {
        self.modules.iter().any(|prefix| {
            let rest = module.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }
}

/// One assertion in the source, and what a campaign came to there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AssertionResult {
    /// Its name.
    pub name: &'static str,
    /// What it asks for.
    pub kind: AssertionKind,
    /// Its message, if that is a literal: with placeholders, not their values.
    pub message: &'static str,
    /// Where it stands.
    pub place: Place,
    /// Whether the campaign was to reach it.
    pub is_required: bool,
    /// How often it was checked, over all seeds.
    pub checks: u64,
    /// How often it held.
    pub held: u64,
}

impl AssertionResult {
    /// How often it did not hold.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.checks - self.held
    }

    /// Whether it is a `sometimes_assert!` that never held.
    #[must_use]
    pub fn is_missed(&self) -> bool {
        self.kind == AssertionKind::Sometimes && self.held == 0
    }

    /// Whether it is an `always_assert!` that did not hold.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.kind == AssertionKind::Always && self.failures() > 0
    }
}

impl fmt::Display for AssertionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` ", self.kind, self.name)?;
        match (self.kind, self.checks) {
            (_, 0) => f.write_str("was never reached")?,
            (AssertionKind::Always, checks) => {
                write!(f, "failed {} of {checks} times", self.failures())?;
            }
            (AssertionKind::Sometimes, checks) => {
                write!(f, "held {} of {checks} times", self.held)?;
            }
        }
        write!(f, " ({})", self.place)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// One `buggify!` in the source, and what a campaign came to there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BuggifyResult {
    /// Where it stands.
    pub place: Place,
    /// Whether it is in a module that the campaign was to reach.
    pub is_required: bool,
    /// How often it was asked, over all seeds.
    pub calls: u64,
    /// How often it fired; skipped firings are not counted.
    pub fired: u64,
}

impl fmt::Display for BuggifyResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            calls,
            fired,
            ..
        } = self;
        match calls {
            0 => write!(f, "buggify! at {place} was never reached"),
            _ => write!(f, "buggify! at {place} fired {fired} of {calls} times"),
        }
    }
}

/// The counts of a campaign: those of its seeds, added in order.
#[derive(Debug)]
pub(super) struct Coverage {
    requirement: Requirement,
    merged: SiteCounts,
    /// Required sites that have not held yet, by number.
    missing: Vec<usize>,
    /// How many there are.
    required: usize,
    /// The position with which every required site had held. `None` also if nothing is required: then
    /// there is nothing to wait for.
    complete_at: Option<usize>,
    /// Seeds after that one are not counted.
    stops_when_complete: bool,
}

impl Coverage {
    pub(super) fn new(requirement: Requirement, stops_when_complete: bool) -> Self {
        let required = assertions::sites().iter().enumerate().filter(|(_, site)| {
            site.kind == AssertionKind::Sometimes && requirement.covers(site.place.module)
        });
        let missing: Vec<usize> = required.map(|(number, _)| number).collect();
        Self {
            requirement,
            merged: SiteCounts::default(),
            required: missing.len(),
            missing,
            complete_at: None,
            stops_when_complete,
        }
    }

    /// The position of the last seed, if the campaign ends as soon as all required sites have held, and
    /// they have.
    pub(super) fn stop_at(&self) -> Option<usize> {
        self.complete_at.filter(|_| self.stops_when_complete)
    }

    #[cfg(test)]
    pub(super) fn requiring(missing: Vec<usize>) -> Self {
        Self {
            missing,
            ..Self::new(Requirement::default(), true)
        }
    }

    #[cfg(test)]
    pub(super) fn merged(&self) -> &SiteCounts {
        &self.merged
    }

    /// How many required sites have held, and how many there are.
    pub(super) fn reached(&self) -> (usize, usize) {
        let reached = self.required.saturating_sub(self.missing.len());
        (reached, self.required)
    }

    /// Adds the counts of the seeds up to `position`, from the one behind those that were added before.
    pub(super) fn merge(&mut self, position: usize, counts: &SiteCounts) {
        add(&mut self.merged, counts);
        if self.missing.is_empty() {
            return;
        }
        let merged = &self.merged.assertions;
        self.missing
            .retain(|number| merged.get(*number).is_none_or(|count| count.held == 0));
        if self.missing.is_empty() {
            self.complete_at = Some(position);
        }
    }

    /// What every site of the binary came to, sorted by name.
    pub(super) fn results(&self) -> SiteResults {
        let assertions = assertions::sites()
            .iter()
            .enumerate()
            .map(|(number, site)| {
                let AssertionCount { checks, held } = at(&self.merged.assertions, number);
                AssertionResult {
                    name: site.name,
                    kind: site.kind,
                    message: site.message,
                    place: site.place,
                    is_required: self.requirement.covers(site.place.module),
                    checks,
                    held,
                }
            });
        let buggify = buggify::sites().iter().enumerate().map(|(number, site)| {
            let BuggifyCount { calls, fired } = at(&self.merged.buggify, number);
            BuggifyResult {
                place: site.place,
                is_required: self.requirement.covers(site.place.module),
                calls,
                fired,
            }
        });
        SiteResults {
            assertions: assertions.collect(),
            buggify: buggify.collect(),
            is_enforced: self.requirement.is_enforced,
            enabled_faults: self.merged.enabled_faults,
            expected_faults: self.merged.expected_faults.clone(),
            drawn_faults: self.merged.drawn_faults.clone(),
        }
    }
}

/// A fault that was to be expected so often and never fired is dead: by chance that happens to one
/// kind in 20,000.
const DEAD_BEYOND: u64 = 10;

/// What a report says about sites.
#[derive(Clone, Debug, Default)]
pub(super) struct SiteResults {
    pub(super) assertions: Vec<AssertionResult>,
    pub(super) buggify: Vec<BuggifyResult>,
    pub(super) is_enforced: bool,
    /// The faults that any seed's network may have had.
    pub(super) enabled_faults: FaultSet,
    /// How often each kind was to be expected in all seeds, in units of 2^-32.
    pub(super) expected_faults: FaultCounts,
    /// How often each kind was drawn in the seed that drew it most often.
    pub(super) drawn_faults: FaultCounts,
}

impl SiteResults {
    /// Whether a fault of this kind never fired though it might have, again and again. Faults of the
    /// network are drawn at each occasion, and too few occasions are no defect; what has no occasions
    /// that could be counted is dead if it was on.
    pub(super) fn is_dead(&self, kind: FaultKind) -> bool {
        if !self.enabled_faults.contains(kind) || self.drawn_faults.of(kind) > 0 {
            return false;
        }
        match kind {
            FaultKind::Kill
            | FaultKind::Reboot
            | FaultKind::Graceful
            | FaultKind::Pause
            | FaultKind::Buggify
            | FaultKind::BuggifiedDelay
            | FaultKind::ClockDrift => true,
            // They are drawn out of one stream.
            FaultKind::ConnectHang => self.is_expected(FaultKind::ConnectRefused),
            network => self.is_expected(network),
        }
    }

    fn is_expected(&self, kind: FaultKind) -> bool {
        self.expected_faults.of(kind) >> 32 >= DEAD_BEYOND
    }

    /// Those of `skipped` that no seed has drawn: nothing was skipped for them.
    pub(super) fn never_drawn(&self, skipped: &BTreeSet<FaultId>) -> Vec<FaultId> {
        let drawn = |fault: &&FaultId| fault.ordinal <= self.drawn_faults.of(fault.kind);
        let never = skipped.iter().filter(|fault| !drawn(fault));
        never.copied().collect()
    }

    /// What is wrong, a line each: guarantees that did not hold, and required sites that were missed.
    pub(super) fn violations(&self) -> Vec<String> {
        let violated = self.assertions.iter().filter(|found| found.is_violated());
        let missed = self.assertions.iter();
        let missed =
            missed.filter(|found| self.is_enforced && found.is_required && found.is_missed());
        violated.chain(missed).map(ToString::to_string).collect()
    }
}

/// Adds what the sites of one or several seeds came to: in any order, the sum is the same.
pub(super) fn add(sum: &mut SiteCounts, counts: &SiteCounts) {
    sum.enabled_faults.add(counts.enabled_faults);
    sum.expected_faults.merge(&counts.expected_faults);
    sum.drawn_faults.raise(&counts.drawn_faults);
    grow(&mut sum.assertions, counts.assertions.len());
    for (sum, count) in sum.assertions.iter_mut().zip(&counts.assertions) {
        sum.checks += count.checks;
        sum.held += count.held;
    }
    grow(&mut sum.buggify, counts.buggify.len());
    for (sum, count) in sum.buggify.iter_mut().zip(&counts.buggify) {
        sum.calls += count.calls;
        sum.fired += count.fired;
    }
}

fn grow<T: Clone + Default>(counts: &mut Vec<T>, len: usize) {
    if counts.len() < len {
        counts.resize(len, T::default());
    }
}

fn at<T: Copy + Default>(counts: &[T], number: usize) -> T {
    counts.get(number).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_covered_with_those_below_it() {
        let requirement = Requirement::new(vec!["service::log".into()], true);
        assert!(requirement.covers("service::log"));
        assert!(requirement.covers("service::log::disk"));
        assert!(!requirement.covers("service::logger"));
        assert!(!requirement.covers("service"));
    }
}
