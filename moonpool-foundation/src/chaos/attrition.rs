//! [`Attrition`]: how often processes die or stand still, and how many at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::FaultKind;
use super::config::millis;

/// What can happen to a process that attrition picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum AttritionKind {
    /// It crashes, and is restarted after a [`downtime`](Attrition::downtime).
    Crash,
    /// Its host loses power, and is restarted after a [`downtime`](Attrition::downtime).
    PowerLoss,
    /// It is asked to end, killed after a [`grace`](Attrition::grace), and restarted after a
    /// [`downtime`](Attrition::downtime).
    Graceful,
    /// It crashes, and is restarted after a [`reboot`](Attrition::reboot).
    Reboot,
    /// It stands still for a [`pause`](Attrition::pause).
    Pause,
}

impl AttritionKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Crash,
        Self::PowerLoss,
        Self::Graceful,
        Self::Reboot,
        Self::Pause,
    ];

    /// What its firings are named.
    #[must_use]
    pub const fn fault(self) -> FaultKind {
        match self {
            Self::Crash | Self::PowerLoss => FaultKind::Kill,
            Self::Graceful => FaultKind::Graceful,
            Self::Reboot => FaultKind::Reboot,
            Self::Pause => FaultKind::Pause,
        }
    }
}

/// Kills, restarts and pauses processes at drawn times. After FoundationDB's `MachineAttrition`
/// (`workloads/MachineAttrition.actor.cpp`).
///
/// At each opportunity one process is drawn and, with [`probability`](Self::probability), something
/// drawn from [`kinds`](Self::kinds) happens to it: unless it is down already, or as many are down as
/// the system under test survives ([`max_dead`](Self::max_dead)). Attrition keeps no run alive: where
/// nothing else is left to happen, workloads that wait are a deadlock.
///
/// ```
/// use moonpool_foundation::{Attrition, AttritionKind};
///
/// let attrition = Attrition {
///     probability: 0.2,
///     max_dead: 2,
///     kinds: vec![AttritionKind::Crash, AttritionKind::Pause],
///     ..Attrition::default()
/// };
/// assert_eq!(attrition.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Attrition {
    /// Chance, 0.0-1.0, of each opportunity to be taken. 0.0 draws nothing.
    pub probability: f64,
    /// From one opportunity to the next: above zero.
    pub interval: RangeInclusive<Duration>,
    /// What may happen, each as likely as the others; one that stands there twice is twice as likely.
    pub kinds: Vec<AttritionKind>,
    /// How many processes may be dead, ending or paused at once, whoever killed or paused them: what
    /// the system under test has to survive.
    pub max_dead: usize,
    /// How long a process is dead.
    pub downtime: RangeInclusive<Duration>,
    /// How long a rebooting process is dead.
    pub reboot: RangeInclusive<Duration>,
    /// How long a process has between being asked to end and being killed.
    pub grace: RangeInclusive<Duration>,
    /// How long a process stands still.
    pub pause: RangeInclusive<Duration>,
}

impl Default for Attrition {
    /// About one strike in ten seconds, one process down at a time, for up to ten seconds.
    fn default() -> Self {
        Self {
            probability: 0.1,
            interval: millis(500, 1_500),
            kinds: AttritionKind::ALL.to_vec(),
            max_dead: 1,
            downtime: millis(1_000, 10_000),
            reboot: millis(10, 500),
            grace: millis(100, 2_000),
            pause: millis(100, 5_000),
        }
    }
}

/// An attrition that cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AttritionError {
    /// A probability below 0.0 or above 1.0, or none at all. Correct it.
    #[error("probability: {0} is not a probability: it takes 0.0 to 1.0")]
    Probability(f64),
    /// A range whose shortest is longer than its longest. Swap the two.
    #[error("{field}: the minimum {min:?} is above the maximum {max:?}")]
    InvertedRange {
        /// The field.
        field: &'static str,
        /// Its minimum.
        min: Duration,
        /// Its maximum.
        max: Duration,
    },
    /// Opportunities would follow each other without time passing.
    #[error("interval: there must be time from one opportunity to the next")]
    NoInterval,
    /// Nothing could happen. Name a kind, or leave attrition out.
    #[error("kinds: there is none")]
    NoKinds,
    /// A process that is no victim of a campaign's: the world's own.
    #[error("victims: the world's own process cannot be one")]
    WorldProcess,
}

impl Attrition {
    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot be simulated, with its value.
    pub fn validate(&self) -> Result<(), AttritionError> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(AttritionError::Probability(self.probability));
        }
        for (field, range) in [
            ("interval", &self.interval),
            ("downtime", &self.downtime),
            ("reboot", &self.reboot),
            ("grace", &self.grace),
            ("pause", &self.pause),
        ] {
            let (min, max) = (*range.start(), *range.end());
            if min > max {
                return Err(AttritionError::InvertedRange { field, min, max });
            }
        }
        if self.interval.start().is_zero() {
            return Err(AttritionError::NoInterval);
        }
        if self.kinds.is_empty() {
            return Err(AttritionError::NoKinds);
        }
        Ok(())
    }

    /// Whether faults of `kind` may happen by chance.
    #[must_use]
    pub fn may_fire(&self, kind: FaultKind) -> bool {
        let possible = self.probability > 0.0 && self.max_dead > 0;
        possible && self.kinds.iter().any(|own| own.fault() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_simulated_is_named() {
        let valid = Attrition::default();
        assert_eq!(valid.validate(), Ok(()));
        let error = |change: fn(&mut Attrition)| {
            let mut attrition = valid.clone();
            change(&mut attrition);
            attrition.validate().unwrap_err().to_string()
        };
        assert_eq!(
            error(|it| it.probability = 1.5),
            "probability: 1.5 is not a probability: it takes 0.0 to 1.0"
        );
        assert!(error(|it| it.probability = f64::NAN).starts_with("probability"));
        assert_eq!(
            error(|it| it.pause = millis(2, 1)),
            "pause: the minimum 2ms is above the maximum 1ms"
        );
        assert!(error(|it| it.interval = millis(0, 1)).starts_with("interval"));
        assert!(error(|it| it.kinds.clear()).starts_with("kinds"));
    }

    #[test]
    fn only_kinds_that_are_on_may_fire() {
        let attrition = Attrition {
            kinds: vec![AttritionKind::Pause],
            ..Attrition::default()
        };
        let may: Vec<_> = FaultKind::ALL
            .iter()
            .filter(|kind| attrition.may_fire(**kind))
            .collect();
        assert_eq!(may, [&FaultKind::Pause]);
    }
}
