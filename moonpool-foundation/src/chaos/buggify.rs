//! What [`buggify!`](crate::buggify) gives. Pure: seed, site and ordinal go in, a decision comes out.

use std::cell::Cell;

use serde::Serialize;

use super::assertions::{self, Place};
use super::site_table::{Site, SiteNumber, Table};

/// How a site reaches the world that is driven.
pub(crate) type BuggifyHook = fn(&'static BuggifySite, Option<f64>) -> bool;

/// A `buggify!` in the source. The macros make it: it is no part of the API.
#[derive(Debug)]
pub struct BuggifySite {
    pub(crate) place: Place,
    /// Of module, line and column: the same on every machine.
    hash: u64,
    number: SiteNumber,
}

/// A site that a crate registered.
#[doc(hidden)]
#[derive(Debug)]
pub struct RegisteredBuggify(pub &'static BuggifySite);

inventory::collect!(RegisteredBuggify);

static TABLE: Table<BuggifySite> = Table::new();

impl Site for BuggifySite {
    fn key(&self) -> (&'static str, &'static str, u32, u32) {
        (self.place.module, "", self.place.line, self.place.column)
    }

    fn number(&self) -> &SiteNumber {
        &self.number
    }
}

/// Every site of every crate in this binary, sorted by module, line and column.
pub(crate) fn sites() -> &'static [&'static BuggifySite] {
    TABLE.sites(|| inventory::iter::<RegisteredBuggify>().map(|registered| registered.0))
}

impl BuggifySite {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(place: Place) -> Self {
        let mut hash = mix(place.line as u64, place.column as u64);
        let module = place.module.as_bytes();
        let mut index = 0;
        while index < module.len() {
            hash = mix(hash, module[index] as u64);
            index += 1;
        }
        Self {
            place,
            hash,
            number: SiteNumber::unknown(),
        }
    }

    /// Whether it fires this time, an active site with `probability` or the world's own.
    #[doc(hidden)]
    #[must_use]
    pub fn fires(&'static self, probability: Option<f64>) -> bool {
        assertions::buggify_hook().is_some_and(|hook| hook(self, probability))
    }

    fn number(&self) -> usize {
        self.number.get().unwrap_or_else(|| {
            let _ = sites();
            self.number.get().unwrap_or_default()
        })
    }
}

/// Folds `value` into `hash` and spreads the bits (the finaliser of splitmix64).
const fn mix(hash: u64, value: u64) -> u64 {
    let mut bits = (hash ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Whether 53 bits of `hash`, as a number in 0.0..1.0, are below `probability`.
fn is_below(hash: u64, probability: f64) -> bool {
    const TWO_TO_MINUS_53: f64 = 1.0 / 9_007_199_254_740_992.0;
    ((hash >> 11) as f64) * TWO_TO_MINUS_53 < probability
}

/// How often `buggify!` gives true.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BuggifyProbabilities {
    activation: f64,
    firing: f64,
}

/// A probability outside 0.0-1.0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what}: {value} is no probability, which is between 0 and 1")]
pub struct BuggifyProbabilityError {
    what: &'static str,
    value: f64,
}

impl Default for BuggifyProbabilities {
    /// A site is active in one seed out of four, an active one fires one time in four: as in
    /// FoundationDB (`flow/Buggify.h`).
    fn default() -> Self {
        Self {
            activation: 0.25,
            firing: 0.25,
        }
    }
}

impl BuggifyProbabilities {
    /// No site is ever active.
    pub const OFF: Self = Self {
        activation: 0.0,
        firing: 0.0,
    };

    /// A site is active in a seed with probability `activation`; an active `buggify!` fires with
    /// probability `firing`. Both 0.0-1.0.
    ///
    /// # Errors
    /// [`BuggifyProbabilityError`], which says which of them is none.
    pub fn new(activation: f64, firing: f64) -> Result<Self, BuggifyProbabilityError> {
        for (what, value) in [("activation", activation), ("firing", firing)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(BuggifyProbabilityError { what, value });
            }
        }
        Ok(Self { activation, firing })
    }

    /// The probability that a site is active in a seed.
    #[must_use]
    pub fn activation(self) -> f64 {
        self.activation
    }

    /// The probability that an active site fires when it is asked.
    #[must_use]
    pub fn firing(self) -> f64 {
        self.firing
    }
}

thread_local! {
    /// What worlds that are made on this thread begin with.
    static INITIAL: Cell<BuggifyProbabilities> = const { Cell::new(BuggifyProbabilities::OFF) };
}

/// Switches `buggify!` on for every [`SimWorld`](crate::SimWorld) that this thread makes from now on.
/// Without it sites never fire there: a world that a test drives by hand has no faults but those the
/// test asks for. Campaigns of a [`SimulationBuilder`](crate::SimulationBuilder) do not look at it:
/// theirs is on by default, and set by
/// [`with_buggify`](crate::SimulationBuilder::with_buggify).
///
/// # Errors
/// [`BuggifyProbabilityError`], if a probability is outside 0.0-1.0. Nothing is changed then.
pub fn buggify_init(activation: f64, firing: f64) -> Result<(), BuggifyProbabilityError> {
    INITIAL.set(BuggifyProbabilities::new(activation, firing)?);
    Ok(())
}

/// Takes [`buggify_init`] back.
pub fn buggify_reset() {
    INITIAL.set(BuggifyProbabilities::OFF);
}

/// How often a site was asked, and how often it fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BuggifyCount {
    pub(crate) calls: u64,
    pub(crate) fired: u64,
}

/// What the sites of one world give, and gave.
#[derive(Debug)]
pub(crate) struct Buggify {
    seed: u64,
    probabilities: BuggifyProbabilities,
    counts: Vec<BuggifyCount>,
}

impl Buggify {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            probabilities: INITIAL.get(),
            counts: Vec::new(),
        }
    }

    pub(crate) fn probabilities(&self) -> BuggifyProbabilities {
        self.probabilities
    }

    pub(crate) fn set(&mut self, probabilities: BuggifyProbabilities) {
        self.probabilities = probabilities;
    }

    /// Whether `site` wants to fire this time. Each call takes an ordinal of the site's.
    pub(crate) fn wants(&mut self, site: &BuggifySite, probability: Option<f64>) -> bool {
        let ordinal = {
            let count = self.count(site);
            count.calls += 1;
            count.calls
        };
        let of_site = mix(self.seed, site.hash);
        is_below(of_site, self.probabilities.activation)
            && is_below(
                mix(of_site, ordinal),
                probability.unwrap_or(self.probabilities.firing),
            )
    }

    /// Whether any site was asked.
    pub(crate) fn was_asked(&self) -> bool {
        self.counts.iter().any(|count| count.calls > 0)
    }

    /// It fired.
    pub(crate) fn handle_fired(&mut self, site: &BuggifySite) {
        self.count(site).fired += 1;
    }

    /// By the number of the site. Sites that were never asked may be missing at the end.
    pub(crate) fn take_counts(&mut self) -> Vec<BuggifyCount> {
        std::mem::take(&mut self.counts)
    }

    fn count(&mut self, site: &BuggifySite) -> &mut BuggifyCount {
        let number = site.number();
        if self.counts.len() <= number {
            let sites = sites().len().max(number + 1);
            self.counts.resize(sites, BuggifyCount::default());
        }
        &mut self.counts[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn site(line: u32) -> BuggifySite {
        BuggifySite::new(Place {
            module: "somewhere::in_a_service",
            file: "service.rs",
            line,
            column: 9,
        })
    }

    fn buggify(seed: u64) -> Buggify {
        Buggify {
            seed,
            probabilities: BuggifyProbabilities::default(),
            counts: Vec::new(),
        }
    }

    fn share(firings: impl Iterator<Item = bool>) -> f64 {
        let all: Vec<bool> = firings.collect();
        all.iter().filter(|fired| **fired).count() as f64 / all.len() as f64
    }

    #[test]
    fn a_site_is_active_in_a_quarter_of_the_seeds() {
        let site = site(3);
        let active = share((0..10_000).map(|seed| {
            let mut buggify = buggify(seed);
            (0..100).any(|_| buggify.wants(&site, None))
        }));
        assert!((0.23..0.27).contains(&active), "{active}");
    }

    #[test]
    fn an_active_site_fires_a_quarter_of_the_time_or_as_it_was_told() {
        for (probability, expected) in [(None, 0.25), (Some(0.02), 0.02), (Some(1.0), 1.0)] {
            let site = site(3);
            let mut buggify = (0..)
                .map(buggify)
                .find_map(|mut b| b.wants(&site, Some(1.0)).then_some(b))
                .unwrap();
            let fired = share((0..10_000).map(|_| buggify.wants(&site, probability)));
            assert!(
                (fired - expected).abs() < 0.02,
                "{fired} for {probability:?}"
            );
        }
    }

    #[test]
    fn sites_decide_by_themselves() {
        let (first, second) = (site(3), site(4));
        let alone: Vec<bool> = {
            let mut buggify = buggify(7);
            (0..100).map(|_| buggify.wants(&first, Some(0.5))).collect()
        };
        let mut together = buggify(7);
        let beside: Vec<bool> = (0..100)
            .map(|_| {
                together.wants(&second, Some(0.5));
                together.wants(&first, Some(0.5))
            })
            .collect();
        assert_eq!(alone, beside);
    }

    /// Golden: a seed means the same on every machine and in every release.
    #[test]
    fn the_hash_of_a_site_is_what_it_was() {
        assert_eq!(site(3).hash, GOLDEN);
    }

    const GOLDEN: u64 = 6_107_164_327_878_998_996;

    #[test]
    fn what_is_no_probability_is_refused() {
        let error = BuggifyProbabilities::new(0.5, 1.5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "firing: 1.5 is no probability, which is between 0 and 1"
        );
        assert!(BuggifyProbabilities::new(f64::NAN, 0.5).is_err());
        assert!(buggify_init(-0.1, 0.5).is_err());
    }
}
