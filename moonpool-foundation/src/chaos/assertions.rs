//! What [`always_assert!`](crate::always_assert) and [`sometimes_assert!`](crate::sometimes_assert)
//! leave behind: their sites, and how often each was checked and held.
//!
//! Counts belong to the world that is driven. While it is, they lie at hand of the thread; nothing is
//! looked up, and outside of a simulation a check is one branch.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::thread;

use serde::Serialize;

use super::buggify::BuggifyHook;
use super::site_table::{Site, SiteNumber, Table};

/// What an assertion asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum AssertionKind {
    /// To hold whenever it is checked.
    Always,
    /// To hold at least once in a campaign.
    Sometimes,
}

impl fmt::Display for AssertionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Sometimes => "sometimes",
        })
    }
}

/// Where a macro stands in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The module: `crate::module`.
    pub module: &'static str,
    /// The file, as the compiler was given it.
    pub file: &'static str,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// An assertion in the source. The macros make it: it is no part of the API.
#[derive(Debug)]
pub struct AssertionSite {
    pub(crate) kind: AssertionKind,
    pub(crate) name: &'static str,
    pub(crate) message: &'static str,
    pub(crate) place: Place,
    number: SiteNumber,
}

/// An assertion that a crate registered.
#[doc(hidden)]
#[derive(Debug)]
pub struct RegisteredAssertion(pub &'static AssertionSite);

inventory::collect!(RegisteredAssertion);

static TABLE: Table<AssertionSite> = Table::new();

impl Site for AssertionSite {
    fn key(&self) -> (&'static str, &'static str, u32, u32) {
        (
            self.name,
            self.place.module,
            self.place.line,
            self.place.column,
        )
    }

    fn number(&self) -> &SiteNumber {
        &self.number
    }
}

/// Every assertion of every crate in this binary, sorted by name; the place is its number.
pub(crate) fn sites() -> &'static [&'static AssertionSite] {
    TABLE.sites(|| inventory::iter::<RegisteredAssertion>().map(|registered| registered.0))
}

impl AssertionSite {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        kind: AssertionKind,
        name: &'static str,
        message: &'static str,
        place: Place,
    ) -> Self {
        Self {
            kind,
            name,
            message,
            place,
            number: SiteNumber::unknown(),
        }
    }

    /// The assertion was checked in simulated code.
    #[doc(hidden)]
    pub fn record(&'static self, held: bool) {
        let number = match self.number.get() {
            Some(number) => number,
            None => self.numbered(),
        };
        TALLY.with_borrow_mut(|tally| tally.count(number, held));
    }

    #[cold]
    fn numbered(&self) -> usize {
        let _ = sites();
        self.number.get().unwrap_or_default()
    }

    /// An `always_assert!` did not hold: takes note of it, and ends whatever relied on it.
    #[doc(hidden)]
    #[cold]
    #[expect(
        clippy::panic,
        reason = "code that relied on the guarantee must not go on; the world makes it a verdict"
    )]
    pub fn fail(&'static self, message: fmt::Arguments<'_>) {
        let failure = FailedAssertion {
            name: self.name,
            message: message.to_string(),
            place: self.place,
        };
        TALLY.with_borrow_mut(|tally| {
            tally.failure.get_or_insert(failure);
        });
        // In a destructor that runs because of a panic a second one would end the process.
        if !thread::panicking() {
            panic!("always_assert `{}` does not hold: {message}", self.name);
        }
    }
}

/// How often an assertion was checked, and how often it held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AssertionCount {
    pub(crate) checks: u64,
    pub(crate) held: u64,
}

/// The `always_assert!` that failed first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedAssertion {
    pub(crate) name: &'static str,
    pub(crate) message: String,
    pub(crate) place: Place,
}

/// What the assertions of one world came to. Sites that none was checked of may be missing at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Vec<AssertionCount>,
    failure: Option<FailedAssertion>,
}

impl Tally {
    fn count(&mut self, number: usize, held: bool) {
        if self.counts.len() <= number {
            // All at once: a seed that checks one assertion checks many.
            let sites = sites().len().max(number + 1);
            self.counts.resize(sites, AssertionCount::default());
        }
        if let Some(count) = self.counts.get_mut(number) {
            count.checks += 1;
            count.held += u64::from(held);
        }
    }

    /// The first failure, if it was not taken before.
    pub(crate) fn take_failure(&mut self) -> Option<FailedAssertion> {
        self.failure.take()
    }
}

thread_local! {
    /// Set while a world is driven on this thread.
    static DRIVEN: Cell<bool> = const { Cell::new(false) };
    /// How `buggify!` reaches that world, if it has any.
    static BUGGIFY: Cell<Option<BuggifyHook>> = const { Cell::new(None) };
    /// The tally of the world that is driven.
    static TALLY: RefCell<Tally> = const { RefCell::new(Tally { counts: Vec::new(), failure: None }) };
}

/// Whether a world is driven on this thread.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn is_simulated() -> bool {
    DRIVEN.get()
}

/// Whether `buggify!` may give true to the code that runs.
#[doc(hidden)]
#[inline]
#[must_use]
pub fn is_buggified() -> bool {
    BUGGIFY.get().is_some()
}

/// From now on `buggify!` reaches the driven world like this.
pub(crate) fn set_buggify(hook: Option<BuggifyHook>) {
    BUGGIFY.set(hook);
}

pub(super) fn buggify_hook() -> Option<BuggifyHook> {
    BUGGIFY.get()
}

/// What was driven on this thread before.
#[derive(Debug)]
pub(crate) struct Before {
    was_driven: bool,
    hook: Option<BuggifyHook>,
    tally: Tally,
}

/// From now on simulated code runs on this thread, and `tally` counts what it asserts.
pub(crate) fn enter(hook: Option<BuggifyHook>, tally: Tally) -> Before {
    Before {
        was_driven: DRIVEN.replace(true),
        hook: BUGGIFY.replace(hook),
        tally: TALLY.replace(tally),
    }
}

/// Goes back to `before`, and gives the tally.
pub(crate) fn leave(before: Before) -> Tally {
    DRIVEN.set(before.was_driven);
    BUGGIFY.set(before.hook);
    TALLY.replace(before.tally)
}

/// The first `always_assert!` of the driven world that failed, if it was not taken before.
pub(crate) fn take_failure() -> Option<FailedAssertion> {
    TALLY.with_borrow_mut(Tally::take_failure)
}
