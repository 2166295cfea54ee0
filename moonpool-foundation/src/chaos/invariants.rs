//! [`InvariantCheck`]: what must hold over all processes at once.

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::assertions;
use super::state_registry::{StateRegistry, States};
use crate::task::panic_message;

/// What a check came to: `()` if it panics on what it finds, or a `Result` whose error says it.
pub trait InvariantOutcome {
    /// What the check found.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn into_result(self) -> Result<(), String>;
}

impl InvariantOutcome for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: fmt::Display> InvariantOutcome for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

/// When a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// After each event in which some state changed.
    StateChanged,
    /// When all workloads have returned `Ok`.
    AtEnd,
}

/// A check over the states that processes published in the [`StateRegistry`]. The first one that
/// fails ends its seed at that instant, with the verdict
/// [`Invariant`](crate::Verdict::Invariant).
///
/// A check gets all states and the virtual time in milliseconds. It returns an error, or panics,
/// `always_assert!` included. It sees the states between events: what one poll of a task changes, it
/// sees together. Checks are shared by all seeds and threads, so they keep nothing of their own.
#[derive(Clone)]
pub struct InvariantCheck {
    name: Cow<'static, str>,
    when: When,
    check: Arc<CheckFn>,
}

type CheckFn = dyn Fn(&States, u64) -> Result<(), String> + Send + Sync;

impl InvariantCheck {
    /// A check that runs after every event in which some state changed, and once more at the end.
    pub fn new<F, R>(name: impl Into<Cow<'static, str>>, check: F) -> Self
    where
        F: Fn(&States, u64) -> R + Send + Sync + 'static,
        R: InvariantOutcome,
    {
        Self::checked(name.into(), When::StateChanged, check)
    }

    /// A check that runs once, when all workloads have returned `Ok`: for what holds at quiescence
    /// alone.
    pub fn at_end<F, R>(name: impl Into<Cow<'static, str>>, check: F) -> Self
    where
        F: Fn(&States, u64) -> R + Send + Sync + 'static,
        R: InvariantOutcome,
    {
        Self::checked(name.into(), When::AtEnd, check)
    }

    fn checked<F, R>(name: Cow<'static, str>, when: When, check: F) -> Self
    where
        F: Fn(&States, u64) -> R + Send + Sync + 'static,
        R: InvariantOutcome,
    {
        Self {
            name,
            when,
            check: Arc::new(move |states, time_ms| check(states, time_ms).into_result()),
        }
    }

    /// Its name, as the verdict gives it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the check holds for these states.
    ///
    /// # Errors
    /// What is wrong, in words: what the check returned, or its panic.
    pub fn check(&self, states: &States, time: Duration) -> Result<(), String> {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.check)(states, time_ms)));
        match outcome {
            Ok(outcome) => outcome,
            Err(payload) => match assertions::take_failure() {
                Some(failed) => Err(format!("`{}`: {}", failed.name, failed.message)),
                None => Err(panic_message(&*payload)),
            },
        }
    }
}

impl fmt::Debug for InvariantCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvariantCheck")
            .field("name", &self.name)
            .field("when", &self.when)
            .finish_non_exhaustive()
    }
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokenInvariant {
    pub(crate) name: String,
    pub(crate) message: String,
}

/// The invariants of one run, and what they look at.
#[derive(Clone, Debug)]
pub(crate) struct Invariants {
    registry: StateRegistry,
    checks: Arc<[InvariantCheck]>,
}

impl Invariants {
    pub(crate) fn new(registry: StateRegistry, checks: Arc<[InvariantCheck]>) -> Self {
        Self { registry, checks }
    }

    /// Whether some state changed since the last call.
    #[inline]
    pub(crate) fn are_due(&self) -> bool {
        self.registry.take_changed()
    }

    /// Runs the checks that are for every change.
    pub(crate) fn check(&self, now: Duration) -> Result<(), BrokenInvariant> {
        self.run(now, |when| when == When::StateChanged)
    }

    /// Runs all checks.
    pub(crate) fn check_at_end(&self, now: Duration) -> Result<(), BrokenInvariant> {
        self.run(now, |_| true)
    }

    fn run(&self, now: Duration, is_due: impl Fn(When) -> bool) -> Result<(), BrokenInvariant> {
        self.registry.with_states(|states| {
            for check in self.checks.iter().filter(|check| is_due(check.when)) {
                check
                    .check(states, now)
                    .map_err(|message| BrokenInvariant {
                        name: check.name().to_owned(),
                        message,
                    })?;
            }
            Ok(())
        })
    }
}
