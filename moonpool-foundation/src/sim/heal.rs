//! The end of all faults: [`SimWorld::heal`].

use std::ops::Range;
use std::time::Duration;

use super::SimWorld;
use super::rng::{Stream, StreamId};
use crate::chaos::BuggifyProbabilities;

impl SimWorld {
    /// Ends all faults: none is drawn from now on, partitions, cuts and clogs are lifted, processes
    /// that are dead start again, and those that were paused go on. What was lost stays lost, and
    /// connections that broke stay broken.
    pub fn heal(&self) {
        self.heal_network();
        self.heal_processes();
        self.set_buggify(BuggifyProbabilities::OFF);
    }

    /// A duration of `range`, drawn from the stream of phases; its start if it is empty.
    pub(crate) fn draw_phase(&self, range: &Range<Duration>) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (low, high) = (nanos(range.start), nanos(range.end).saturating_sub(1));
        let mut stream = Stream::new(self.seed(), StreamId::Phases);
        let drawn = self
            .shared
            .with(|world| stream.between(low, high, &mut world.digest));
        Duration::from_nanos(drawn)
    }
}
