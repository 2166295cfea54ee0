//! Random numbers: [`RandomProvider`] and the implementation on the system's entropy.

#[cfg(feature = "sim")]
mod sim;
mod system;

use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};

use crate::messaging::UID;

#[cfg(feature = "sim")]
pub use sim::SimRandomProvider;
pub use system::SystemRandomProvider;

/// Draws random numbers: from the seed inside the simulator, from the system outside.
pub trait RandomProvider: Clone + 'static {
    /// A value of the standard distribution: all integers, `0.0..1.0`, a fair bool.
    fn random<T>(&self) -> T
    where
        StandardUniform: Distribution<T>;

    /// A value of `range`, uniformly.
    ///
    /// # Panics
    /// If `range` is empty.
    fn random_range<T, R>(&self, range: R) -> T
    where
        T: SampleUniform,
        R: SampleRange<T>;

    /// True with the chance `numerator / denominator`.
    ///
    /// # Panics
    /// If `denominator` is 0 or smaller than `numerator`.
    fn random_ratio(&self, numerator: u32, denominator: u32) -> bool;

    /// True with the chance `probability`, 0.0-1.0.
    ///
    /// # Panics
    /// If `probability` is outside 0.0-1.0.
    fn random_bool(&self, probability: f64) -> bool;
}

impl UID {
    /// A random token from the stream of `random`.
    ///
    /// ```
    /// use moonpool_foundation::{SimWorld, UID};
    ///
    /// let token = |seed| UID::random_from(&SimWorld::new_with_seed(seed).random_provider());
    /// assert_eq!(token(7), token(7));
    /// assert_ne!(token(7), token(8));
    /// ```
    #[must_use]
    pub fn random_from(random: &impl RandomProvider) -> Self {
        Self::new(random.random(), random.random())
    }
}
