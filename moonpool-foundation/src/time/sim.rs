//! Virtual time behind the provider trait.

use std::time::Duration;

use super::TimeProvider;
use crate::sim::{EventClass, ProcessRef, SimProcess, SimWorld, SleepFuture, WeakSimWorld};

/// Seconds from the Unix epoch to the start of every simulation: 2020-01-01 00:00 UTC.
const RUN_BEGINS: Duration = Duration::from_secs(1_577_836_800);

/// Virtual time, as one process sees it. In a killed process sleeps never end.
///
/// [`now`](TimeProvider::now) is exact. [`timer`](TimeProvider::timer) drifts ahead, and sleeps (so
/// time-outs too) may take longer than asked for, as
/// [`ChaosConfiguration`](crate::ChaosConfiguration) says. Each process's clock drifts by itself;
/// `unix_time` is that clock too.
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
        SleepFuture::of_process(self.world.clone(), self.owner, duration, class)
    }

    fn background_sleep(&self, duration: Duration) -> SleepFuture {
        let class = EventClass::Background;
        SleepFuture::of_process(self.world.clone(), self.owner, duration, class)
    }

    fn now(&self) -> Duration {
        match self.world.upgrade() {
            Some(world) => world.instant().since_start(),
            None => Duration::ZERO,
        }
    }

    fn timer(&self) -> Duration {
        match self.world.upgrade() {
            Some(world) => world.timer(self.owner).since_start(),
            None => Duration::ZERO,
        }
    }

    fn unix_time(&self) -> Duration {
        RUN_BEGINS + self.timer()
    }
}
