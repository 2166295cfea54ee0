//! What goes wrong with time in a process: its clock runs ahead, and its sleeps take longer.

use std::time::Duration;

use super::clock::{SimInstant, nanos};
use super::digest::Digest;
use super::process::ProcessRef;
use super::rng::{Stream, StreamId};
use super::world::World;
use crate::chaos::{ChaosConfiguration, FaultKind, FaultTarget};

/// The power of the uniform number that an addition to a sleep is: most are tiny, a few are long.
/// FoundationDB's, in `Sim2::delay` (`sim2.actor.cpp`).
const DELAY_EXPONENT: u32 = 1000;

/// How clocks and sleeps go wrong. Pure: it draws and answers.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// How far a clock may be ahead; `None` if clocks do not drift.
    drift_max: Option<Duration>,
    drift: Stream,
    read: bool,
    /// Chance of a sleep to be lengthened, and by how much at most.
    delays: Option<(f64, Duration)>,
    delay: Stream,
}

impl Clocks {
    pub(crate) fn new(seed: u64, config: &ChaosConfiguration) -> Self {
        let drifts = config.clock_drift_enabled && !config.clock_drift_max.is_zero();
        let may_lengthen = config.buggified_delay_enabled
            && config.buggified_delay_probability > 0.0
            && !config.buggified_delay_max.is_zero();
        Self {
            drift_max: drifts.then_some(config.clock_drift_max),
            drift: Stream::new(seed, StreamId::Fault(FaultKind::ClockDrift)),
            read: false,
            delays: may_lengthen.then_some((
                config.buggified_delay_probability,
                config.buggified_delay_max,
            )),
            delay: Stream::new(seed, StreamId::Fault(FaultKind::BuggifiedDelay)),
        }
    }

    /// Whether a clock that could drift was read.
    pub(super) fn was_read(&self) -> bool {
        self.read
    }

    /// From now on clocks are caught up with and sleeps are exact.
    pub(super) fn heal(&mut self) {
        self.drift_max = None;
        self.delays = None;
    }

    /// What is added to a sleep.
    fn addition(&mut self, digest: &mut Digest) -> Duration {
        let Some((probability, max)) = self.delays else {
            return Duration::ZERO;
        };
        let drawn = self.delay.draws(digest).next_u32();
        if f64::from(drawn) >= probability * TWO_TO_32 {
            return Duration::ZERO;
        }
        let fraction = power(self.delay.draws(digest).next_u64(), DELAY_EXPONENT);
        Duration::from_nanos(scaled(nanos(max), fraction))
    }
}

const TWO_TO_32: f64 = 4_294_967_296.0;

/// Where a clock at `timer` stands when it is read at `now`: `timer + random * (now + max - timer) / 2`,
/// and never behind `now`. `random` counts in units of `2^-64`. FoundationDB's `Sim2::timer`
/// (`sim2.actor.cpp`).
fn drifted(timer: SimInstant, now: SimInstant, max: Duration, random: u64) -> SimInstant {
    let latest = now.after(max).as_nanos();
    let room = latest.saturating_sub(timer.as_nanos()) / 2;
    let ahead = timer.after(Duration::from_nanos(scaled(room, random)));
    ahead.max(now)
}

/// `value` times a fraction that counts in units of `2^-64`, rounded down.
fn scaled(value: u64, fraction: u64) -> u64 {
    let product = u128::from(value) * u128::from(fraction);
    u64::try_from(product >> 64).unwrap_or(value)
}

/// A fraction's power, by squaring in fixed point: a library's `powf` differs between builds.
fn power(fraction: u64, exponent: u32) -> u64 {
    let (mut square, mut left, mut result) = (fraction, exponent, u64::MAX);
    while left > 0 {
        if left % 2 == 1 {
            result = scaled(result, square);
        }
        square = scaled(square, square);
        left /= 2;
    }
    result
}

/// A process's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessClock {
    timer: SimInstant,
    drift: Drift,
}

/// Whether a clock drifts. It is one fault per process, from its first reading on: so it can be
/// skipped as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Drift {
    #[default]
    Unread,
    Drifts,
    Skipped,
}

impl World {
    /// Reads the clock of `owner`'s process.
    pub(super) fn timer(&mut self, owner: ProcessRef) -> SimInstant {
        let now = self.clock;
        let mut clock = self.processes.get(owner.id).clock;
        let (Some(max), true) = (self.clocks.drift_max, self.processes.is_live(owner)) else {
            return clock.timer.max(now);
        };
        self.clocks.read = true;
        let random = self.clocks.drift.draws(&mut self.digest).next_u64();
        if clock.drift == Drift::Unread {
            let target = FaultTarget::Process(owner.id.number());
            clock.drift = if self.fault_fires(FaultKind::ClockDrift, target) {
                Drift::Drifts
            } else {
                Drift::Skipped
            };
        }
        clock.timer = match clock.drift {
            Drift::Drifts => drifted(clock.timer, now, max, random),
            Drift::Unread | Drift::Skipped => now,
        };
        self.processes.get_mut(owner.id).clock = clock;
        clock.timer
    }

    /// How long a sleep of `duration` takes in `owner`'s process.
    #[inline]
    pub(super) fn slept(&mut self, owner: ProcessRef, duration: Duration) -> Duration {
        if self.clocks.delays.is_none() {
            return duration;
        }
        self.maybe_lengthened(owner, duration)
    }

    fn maybe_lengthened(&mut self, owner: ProcessRef, duration: Duration) -> Duration {
        if !self.processes.is_live(owner) {
            return duration;
        }
        let addition = self.clocks.addition(&mut self.digest);
        let target = FaultTarget::Process(owner.id.number());
        if addition.is_zero() || !self.fault_fires(FaultKind::BuggifiedDelay, target) {
            return duration;
        }
        duration.saturating_add(addition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SimInstant {
        SimInstant::ZERO.after(Duration::from_millis(millis))
    }

    #[test]
    fn a_clock_gains_half_the_room_at_most_and_is_never_behind() {
        let max = Duration::from_millis(100);
        assert_eq!(drifted(at(0), at(0), max, 0), at(0));
        assert_eq!(drifted(at(0), at(0), max, 1 << 63), at(25));
        assert_eq!(drifted(at(50), at(0), max, 1 << 63), at(50).after(max / 8));
        assert_eq!(drifted(at(90), at(1_000), max, 0), at(1_000));
        let latest = drifted(at(100), at(0), max, u64::MAX);
        assert_eq!(latest, at(100));
    }

    #[test]
    fn powers_by_squaring_are_those_of_arithmetic() {
        assert_eq!(power(1 << 63, 2), (1 << 62) - 1);
        assert!(power(u64::MAX, 1000) > u64::MAX - 4_000);
        assert_eq!(power(1 << 63, 1000), 0);
        // 0.999^1000 = 0.36770
        let fraction = u64::MAX / 1000 * 999;
        let tenths_of_per_mille = scaled(10_000, power(fraction, 1000));
        assert_eq!(tenths_of_per_mille, 3_676);
    }
}
