//! The seed's randomness behind the provider trait.

use rand::RngExt;
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};

use super::RandomProvider;
use crate::sim::{Draws, ProcessRef, SimProcess, SimWorld, WeakSimWorld, inert_draws};

/// One process's stream of the seed's random numbers. The stream of a killed process is a constant
/// one that nobody else draws from.
#[derive(Clone, Debug)]
pub struct SimRandomProvider {
    world: WeakSimWorld,
    owner: ProcessRef,
}

impl SimWorld {
    /// The random stream of the world's own process.
    #[must_use]
    pub fn random_provider(&self) -> SimRandomProvider {
        self.world_process().random_provider()
    }
}

impl SimProcess {
    /// This process's random stream, in its current life.
    #[must_use]
    pub fn random_provider(&self) -> SimRandomProvider {
        SimRandomProvider {
            world: self.world.clone(),
            owner: self.life(),
        }
    }
}

impl SimRandomProvider {
    fn draw<R>(&self, f: impl FnOnce(&mut Draws<'_>) -> R) -> R {
        match self.world.upgrade() {
            Some(world) => world.workload_draws(self.owner, f),
            None => inert_draws(f),
        }
    }
}

impl RandomProvider for SimRandomProvider {
    fn random<T>(&self) -> T
    where
        StandardUniform: Distribution<T>,
    {
        self.draw(|draws| draws.random())
    }

    #[track_caller]
    fn random_range<T, R>(&self, range: R) -> T
    where
        T: SampleUniform,
        R: SampleRange<T>,
    {
        // Here, so that the panic names the caller's line.
        assert!(!range.is_empty(), "cannot draw from an empty range");
        self.draw(|draws| draws.random_range(range))
    }

    fn random_ratio(&self, numerator: u32, denominator: u32) -> bool {
        self.draw(|draws| draws.random_ratio(numerator, denominator))
    }

    fn random_bool(&self, probability: f64) -> bool {
        self.draw(|draws| draws.random_bool(probability))
    }
}
