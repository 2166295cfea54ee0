//! Probabilities and ranges as the simulator uses them: whole numbers, made once from what the
//! configuration says. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::clock::nanos;
use super::digest::Digest;
use super::rng::Stream;

/// Bits of a draw that are compared.
const BITS: u32 = 32;

/// A probability as a threshold of 32-bit draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const NEVER: Self = Self(0);

    /// The nearest threshold below `probability`, which is within 0.0-1.0; of a probability above 0.0
    /// at least one draw in 2^32. Doubling and comparing is exact, and the same in every build.
    pub(super) fn of(probability: f64) -> Self {
        if probability >= 1.0 {
            return Self(1 << BITS);
        }
        if probability <= 0.0 {
            return Self::NEVER;
        }
        let mut rest = probability;
        let mut threshold = 0;
        for _ in 0..BITS {
            rest *= 2.0;
            threshold <<= 1;
            if rest >= 1.0 {
                rest -= 1.0;
                threshold |= 1;
            }
        }
        Self(threshold.max(1))
    }

    pub(super) fn is_off(self) -> bool {
        self == Self::NEVER
    }

    /// Whether it happens this time. What is off draws nothing.
    pub(super) fn happens(self, stream: &mut Stream, digest: &mut Digest) -> bool {
        if self.is_off() {
            return false;
        }
        stream.expect(self.0);
        u64::from(stream.draws(digest).next_u32()) < self.0
    }
}

/// A range of durations in whole nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    min: u64,
    max: u64,
}

impl Span {
    pub(super) fn of(range: &RangeInclusive<Duration>) -> Self {
        Self {
            min: nanos(*range.start()),
            max: nanos(*range.end()),
        }
    }

    pub(super) fn draw(self, stream: &mut Stream, digest: &mut Digest) -> Duration {
        Duration::from_nanos(stream.between(self.min, self.max, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::StreamId;
    use super::*;

    #[test]
    fn thresholds_are_exact() {
        for (probability, threshold) in [
            (0.0, 0),
            (1e-12, 1),
            (0.25, 1 << 30),
            (0.5, 1 << 31),
            (1e-5, 42_949),
            (1.0, 1 << 32),
        ] {
            assert_eq!(Chance::of(probability), Chance(threshold), "{probability}");
        }
    }

    #[test]
    fn what_is_off_draws_nothing_and_what_is_certain_happens() {
        let mut digest = Digest::new(0);
        let before = digest;
        let mut stream = Stream::new(1, StreamId::Latency);
        assert!(!Chance::of(0.0).happens(&mut stream, &mut digest));
        assert_eq!(digest, before);
        for _ in 0..1000 {
            assert!(Chance::of(1.0).happens(&mut stream, &mut digest));
        }
    }

    #[test]
    fn a_quarter_happens_a_quarter_of_the_time() {
        let mut digest = Digest::new(0);
        let mut stream = Stream::new(1, StreamId::Latency);
        let chance = Chance::of(0.25);
        let count = (0..10_000)
            .filter(|_| chance.happens(&mut stream, &mut digest))
            .count();
        assert!((2_300..2_700).contains(&count), "{count}");
    }
}
