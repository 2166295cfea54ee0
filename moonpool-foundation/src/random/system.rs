//! Random numbers from the operating system's entropy.

use rand::RngExt;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};

use super::RandomProvider;

/// The thread's generator, seeded by the operating system: different in every run.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomProvider;

impl SystemRandomProvider {
    /// The system's randomness.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this adapter is where real randomness comes from"
)]
fn generator() -> rand::rngs::ThreadRng {
    rand::rng()
}

impl RandomProvider for SystemRandomProvider {
    fn random<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        generator().random()
    }

    fn random_range<T, R>(&self, range: R) -> T
    where
        T: SampleUniform,
        R: SampleRange<T>,
    {
        generator().random_range(range)
    }

    fn random_ratio(&self, numerator: u32, denominator: u32) -> bool {
        generator().random_ratio(numerator, denominator)
    }

    fn random_bool(&self, probability: f64) -> bool {
        generator().random_bool(probability)
    }
}
