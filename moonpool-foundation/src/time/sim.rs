//! Virtual time behind the provider trait.

use std::time::Duration;

use super::TimeProvider;
use crate::sim::{EventClass, ProcessRef, SimProcess, SimWorld, SleepFuture, WeakSimWorld};

/// Seconds from the Unix epoch to the start of every simulation: 2020-01-01 00:00 UTC.
const RUN_BEGINS: Duration = Duration::from_secs(1_577_836_800);

/// Virtual time, as one process sees it. In a killed process it stands still and sleeps never end.
#[derive(Clone, Debug)]
pub struct SimTimeProvider {
    world: WeakSimWorld,
    owner: ProcessRef,
}

impl SimWorld {
    /// The clock of the world's own process.
    #[must_use]
    pub fn time_provider(&self) -> SimTimeProvider {
        self.world_process().time_provider()
    }
}

impl SimProcess {
    /// This process's clock, in its current life.
    #[must_use]
    pub fn time_provider(&self) -> SimTimeProvider {
        SimTimeProvider {
            world: self.world.clone(),
            owner: self.life(),
        }
    }
}

impl TimeProvider for SimTimeProvider {
    type Sleep = SleepFuture;

    fn sleep(&self, duration: Duration) -> SleepFuture {
        let class = EventClass::Foreground;
        SleepFuture::starting_now(self.world.clone(), self.owner, duration, class)
    }

    fn background_sleep(&self, duration: Duration) -> SleepFuture {
        let class = EventClass::Background;
        SleepFuture::starting_now(self.world.clone(), self.owner, duration, class)
    }

    fn now(&self) -> Duration {
        match self.world.upgrade() {
            Some(world) => world.instant().since_start(),
            None => Duration::ZERO,
        }
    }

    fn timer(&self) -> Duration {
        match self.world.upgrade() {
            Some(world) => world.timer().since_start(),
            None => Duration::ZERO,
        }
    }

    fn unix_time(&self) -> Duration {
        RUN_BEGINS + self.timer()
    }
}
