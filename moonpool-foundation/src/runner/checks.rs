//! The part of [`SimulationBuilder`] that says what must hold, and what a campaign has to reach.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::builder::SimulationBuilder;
use super::coverage::Requirement;
use super::plan::Plan;
use crate::chaos::{BuggifyProbabilities, InvariantCheck};

/// What a builder was told about checks.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// The crates in which its workloads are written.
    crates: BTreeSet<String>,
    coverage: Option<Vec<String>>,
    is_coverage_required: bool,
    invariants: Vec<InvariantCheck>,
    buggify: Option<BuggifyProbabilities>,
}

impl Checks {
    /// Takes note of the crate in which a workload of type `F` is written.
    pub(super) fn note_workload<F>(&mut self) {
        // The name of a function or closure begins with its crate's. It is only used to choose what a
        // report asks for; `coverage` says so exactly.
        let name = std::any::type_name::<F>();
        let end = name.find("::").unwrap_or(name.len());
        self.crates.insert(name[..end].to_owned());
    }

    /// Tells `plan`. Of a part of a campaign, a replayed seed or a shard, nobody expects coverage.
    pub(super) fn apply(&self, plan: &mut Plan<'_>, is_part: bool) {
        let prefixes = match &self.coverage {
            Some(prefixes) => prefixes.clone(),
            None => self.crates.iter().cloned().collect(),
        };
        plan.coverage = Requirement::new(prefixes, self.is_coverage_required && !is_part);
        plan.invariants = Arc::from(self.invariants.as_slice());
        plan.buggify = self.buggify;
    }
}

impl SimulationBuilder {
    /// Requires the `sometimes_assert!` sites of these modules, and of those below them, to hold at
    /// least once in the campaign: `["my_service", "my_test::workloads"]`. A report of which one was
    /// missed does not [pass](crate::SimulationReport::assert_passed).
    ///
    /// If this is not called, the sites of the crates in which the workloads' functions are written
    /// count as required; tests in `tests/` are a crate of their own, so name the library's modules
    /// here. The report lists those that were missed, and
    /// [`coverage_complete`](crate::SimulationReport::coverage_complete) looks at them, but the report
    /// passes, since a test rarely exercises the whole crate that it is in:
    /// [`assert_passed`](crate::SimulationReport::assert_passed) writes them to standard error, and
    /// fails on them only if this or [`require_coverage`](Self::require_coverage) was called. The sites
    /// of all other modules are listed too.
    pub fn coverage<I>(mut self, modules: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.checks.coverage = Some(modules.into_iter().map(Into::into).collect());
        self.checks.is_coverage_required = true;
        self
    }

    /// Lets a report not [pass](crate::SimulationReport::assert_passed) of which a required site was
    /// missed, without saying which modules are required: see [`coverage`](Self::coverage). The seeds of
    /// `MOONPOOL_SEED`, and a shard, are a part of a campaign and pass without.
    pub fn require_coverage(mut self) -> Self {
        self.checks.is_coverage_required = true;
        self
    }

    /// Adds checks over the states that workloads publish: see [`InvariantCheck`].
    pub fn with_invariants(mut self, invariants: Vec<InvariantCheck>) -> Self {
        self.checks.invariants.extend(invariants);
        self
    }

    /// How often `buggify!` gives true. By default a site is active in a quarter of the seeds and
    /// then fires a quarter of the time, or with its own probability; in a network without any fault,
    /// as [`fast_local`](crate::NetworkConfiguration::fast_local) is, it never fires.
    pub fn with_buggify(mut self, probabilities: BuggifyProbabilities) -> Self {
        self.checks.buggify = Some(probabilities);
        self
    }
}
