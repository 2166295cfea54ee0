//! What code under test asserts, and what it buggifies, in the world that is driven.

use super::process::ProcessRef;
use super::world::World;
use super::{SimWorld, context};
use crate::chaos::assertions::{self, AssertionCount, FailedAssertion, Tally};
use crate::chaos::buggify::{BuggifyCount, BuggifyHook, BuggifySite};
use crate::chaos::invariants::{BrokenInvariant, Invariants};
use crate::chaos::{BuggifyProbabilities, FaultCounts, FaultKind, FaultSet, FaultTarget};
use crate::error::{SimulationError, SimulationResult};

/// How often the sites of macros were reached in one run, by their numbers. Sites that were not may
/// be missing at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SiteCounts {
    /// The faults that its network may have had.
    pub(crate) enabled_faults: FaultSet,
    /// How often each kind was drawn, skipped firings included.
    pub(crate) drawn_faults: FaultCounts,
    /// How often each kind was to be expected, in units of 2^-32.
    pub(crate) expected_faults: FaultCounts,
    pub(crate) assertions: Vec<AssertionCount>,
    pub(crate) buggify: Vec<BuggifyCount>,
}

impl SiteCounts {
    /// Counts nothing from here on, in the memory that there is.
    pub(crate) fn clear(&mut self) {
        self.assertions.clear();
        self.buggify.clear();
        *self = Self {
            assertions: std::mem::take(&mut self.assertions),
            buggify: std::mem::take(&mut self.buggify),
            ..Self::default()
        };
    }
}

/// How `buggify!` reaches a world; not at all if it never fires there.
pub(super) fn hook(probabilities: BuggifyProbabilities) -> Option<BuggifyHook> {
    (probabilities.activation() > 0.0).then_some(buggify as BuggifyHook)
}

/// What `buggify!` gives to the code that runs right now.
fn buggify(site: &'static BuggifySite, probability: Option<f64>) -> bool {
    let Some(current) = context::current() else {
        return false;
    };
    let world = context::world().and_then(|world| world.upgrade());
    world.is_some_and(|world| world.with(|world| world.buggify(current.process, site, probability)))
}

impl World {
    fn buggify(
        &mut self,
        process: ProcessRef,
        site: &'static BuggifySite,
        probability: Option<f64>,
    ) -> bool {
        // What destructors of the dead ask must not change what the living get.
        if !self.processes.is_live(process) || !self.buggify.wants(site, probability) {
            return false;
        }
        let target = FaultTarget::Site {
            file: site.place.file,
            line: site.place.line,
            column: site.place.column,
        };
        let fires = self.fault_fires(FaultKind::Buggify, target);
        if fires {
            self.buggify.handle_fired(site);
            if self.trace.is_on() {
                self.record(Some(process.id), format!("buggify! at {target}"));
            }
        }
        fires
    }
}

impl SimWorld {
    /// How often `buggify!` gives true in this world, from now on.
    pub fn set_buggify(&self, probabilities: BuggifyProbabilities) {
        self.shared.with(|world| world.buggify.set(probabilities));
        if context::current().is_some() {
            // Asked for from inside: the thread knows already how this world began.
            assertions::set_buggify(hook(probabilities));
        }
    }

    /// As [`set_buggify`](Self::set_buggify), with the default probabilities, unless the network is
    /// one without any fault: whoever chose that wants none.
    pub(crate) fn set_default_buggify(&self) {
        self.shared.with(|world| {
            world.buggify.set(match world.faults.enabled().is_empty() {
                true => BuggifyProbabilities::OFF,
                false => BuggifyProbabilities::default(),
            });
        });
    }

    /// Lets `invariants` be checked after every event that changed a state. The first ones stay.
    pub(crate) fn set_invariants(&self, invariants: Invariants) {
        self.shared.invariants.get_or_init(|| invariants);
    }

    /// Whether a state changed since this was asked last.
    #[inline]
    pub(super) fn are_invariants_due(&self) -> bool {
        let invariants = self.shared.invariants.get();
        invariants.is_some_and(Invariants::are_due)
    }

    /// Runs the invariants that are for every change.
    #[cold]
    pub(super) fn check_invariants(&self) -> SimulationResult<()> {
        let Some(invariants) = self.shared.invariants.get() else {
            return Ok(());
        };
        let _running = self.run_as_world();
        let checked = invariants.check(self.current_time());
        checked.map_err(|broken| self.broken(broken))
    }

    /// Runs all invariants, those for the end included.
    ///
    /// # Errors
    /// [`SimulationError::Invariant`], with the first one that is broken.
    pub(crate) fn check_invariants_at_end(&self) -> SimulationResult<()> {
        let Some(invariants) = self.shared.invariants.get() else {
            return Ok(());
        };
        let _driving = self.enter()?;
        let _running = self.run_as_world();
        let checked = invariants.check_at_end(self.current_time());
        checked.map_err(|broken| self.broken(broken))
    }

    fn run_as_world(&self) -> context::Running {
        let process = self
            .shared
            .with(|world| world.processes.life(super::ProcessId::WORLD));
        context::run_as(context::Current { process })
    }

    fn broken(&self, broken: BrokenInvariant) -> SimulationError {
        SimulationError::Invariant {
            at: self.current_time(),
            name: broken.name,
            message: broken.message,
        }
    }

    /// Fails if an `always_assert!` did not hold and nobody was told: its panic was caught on the way.
    ///
    /// # Errors
    /// [`SimulationError::AlwaysAssert`].
    pub(crate) fn check_assertions(&self) -> SimulationResult<()> {
        let failed = self.shared.with(|world| world.tally.take_failure());
        match failed {
            Some(failed) => Err(self
                .shared
                .with(|world| world.assertion_error(failed, None))),
            None => Ok(()),
        }
    }

    /// Takes the counts of assertions and `buggify!` sites.
    pub(crate) fn take_site_counts(&self) -> SiteCounts {
        self.shared.with(|world| SiteCounts {
            enabled_faults: world.enabled_faults(),
            expected_faults: world.faults.expected(),
            drawn_faults: world.faults.log.drawn(),
            assertions: std::mem::take(&mut world.tally.counts),
            buggify: world.buggify.take_counts(),
        })
    }
}

impl World {
    /// The kinds that may have fired: `buggify!` only if some site was asked, drift only if some clock
    /// was read.
    fn enabled_faults(&self) -> FaultSet {
        let configured = self.faults.enabled();
        let is_read = self.clocks.was_read();
        let mut enabled = FaultSet::of(|kind| {
            configured.contains(kind) && (is_read || kind != FaultKind::ClockDrift)
        });
        enabled.add(self.lifecycle.enabled);
        if self.buggify.was_asked() {
            enabled.add(FaultSet::of(|kind| kind == FaultKind::Buggify));
        }
        enabled
    }

    /// `who`: the task and its process, if it was seen to fail.
    pub(super) fn assertion_error(
        &self,
        failed: FailedAssertion,
        who: Option<(String, String)>,
    ) -> SimulationError {
        SimulationError::AlwaysAssert {
            at: self.clock.since_start(),
            who,
            name: failed.name.to_owned(),
            location: failed.place.to_string(),
            message: failed.message,
        }
    }

    /// What the thread needs at hand while this world is driven.
    pub(super) fn enter(&mut self) -> (Option<BuggifyHook>, Tally) {
        let tally = std::mem::take(&mut self.tally);
        (hook(self.buggify.probabilities()), tally)
    }
}
