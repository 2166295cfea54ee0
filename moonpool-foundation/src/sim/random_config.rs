//! Configurations drawn from a seed: [`NetworkConfiguration::random_for_seed`] and
//! [`NetworkConfiguration::swarm_for_seed`].

use std::ops::RangeInclusive;
use std::time::Duration;

use super::clock::nanos;
use super::digest::Digest;
use super::rng::{Stream, StreamId};
use crate::chaos::{ChaosConfiguration, ConnectFailureMode, FaultKind};
use crate::network::{LatencyModel, NetworkConfiguration};

/// Draws in an order that is part of what a seed means: new fields are drawn last.
struct Drawing {
    stream: Stream,
    digest: Digest,
}

impl Drawing {
    fn new(seed: u64, id: StreamId) -> Self {
        Self {
            stream: Stream::new(seed, id),
            digest: Digest::new(seed),
        }
    }

    fn number(&mut self, min: u64, max: u64) -> u64 {
        self.stream.between(min, max, &mut self.digest)
    }

    /// Between the two, in steps of a millionth of their distance.
    fn fraction(&mut self, min: f64, max: f64) -> f64 {
        const STEPS: u32 = 1_000_000;
        let step = self.stream.below(STEPS + 1, &mut self.digest);
        min + (max - min) * f64::from(step) / f64::from(STEPS)
    }

    fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        Duration::from_nanos(self.number(nanos(min), nanos(max)))
    }

    /// A range within the given one: two draws, the lesser first.
    fn range(&mut self, within: RangeInclusive<Duration>) -> RangeInclusive<Duration> {
        let one = self.duration(*within.start(), *within.end());
        let other = self.duration(*within.start(), *within.end());
        one.min(other)..=one.max(other)
    }

    fn micros(&mut self, min: u64, max: u64) -> LatencyModel {
        let range = self.range(Duration::from_micros(min)..=Duration::from_micros(max));
        LatencyModel::uniform(*range.start(), *range.end())
    }

    /// A range within the given one, or the long tail.
    fn model(&mut self, min: u64, max: u64) -> LatencyModel {
        let uniform = self.micros(min, max);
        if self.number(0, 1) == 0 {
            uniform
        } else {
            LatencyModel::LONG_TAIL
        }
    }
}

const fn millis(min: u64, max: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(min)..=Duration::from_millis(max)
}

impl NetworkConfiguration {
    /// A network of its own for each seed: every value is drawn from the range that
    /// `docs/fault-injection.md` gives for it.
    ///
    /// ```
    /// use moonpool_foundation::NetworkConfiguration;
    ///
    /// let config = NetworkConfiguration::random_for_seed(42);
    /// assert_eq!(config, NetworkConfiguration::random_for_seed(42));
    /// assert_ne!(config, NetworkConfiguration::random_for_seed(43));
    /// ```
    #[must_use]
    pub fn random_for_seed(seed: u64) -> Self {
        let mut draw = Drawing::new(seed, StreamId::Configuration);
        Self {
            bind_latency: draw.micros(10, 300),
            accept_latency: draw.micros(1_000, 15_000),
            connect_latency: draw.micros(1_000, 100_000),
            read_latency: draw.model(5, 200),
            write_latency: draw.model(50, 2_000),
            pair_latency: draw.micros(0, 50_000),
            pair_latency_jitter: draw.duration(Duration::ZERO, Duration::from_millis(5)),
            asymmetric_delay_probability: 0.25,
            send_buffer_bytes: Some(
                usize::try_from(draw.number(4 << 10, 1 << 20)).unwrap_or(4 << 10),
            ),
            partial_write_max_bytes: usize::try_from(draw.number(100, 2_000)).unwrap_or(1_000),
            random_close_probability: draw.fraction(1e-6, 1e-4),
            random_close_cooldown: draw.duration(Duration::from_secs(1), Duration::from_secs(10)),
            random_close_explicit_ratio: draw.fraction(0.2, 0.4),
            packet_loss_probability: draw.fraction(0.0, 0.05),
            chaos: random_chaos(&mut draw),
            ..Self::default()
        }
    }

    /// Like [`random_for_seed`](Self::random_for_seed), with each kind of fault switched off in half
    /// of the seeds: faults that are always together hide what one of them does alone.
    #[must_use]
    pub fn swarm_for_seed(seed: u64) -> Self {
        let mut draw = Drawing::new(seed, StreamId::Swarm);
        let mut config = Self::random_for_seed(seed);
        for kind in FaultKind::ALL {
            if draw.number(0, 1) == 0 {
                config = config.without(*kind);
            }
        }
        config
    }
}

fn random_chaos(draw: &mut Drawing) -> ChaosConfiguration {
    let mode = match draw.number(0, 2) {
        0 => ConnectFailureMode::Disabled,
        1 => ConnectFailureMode::AlwaysFail,
        _ => ConnectFailureMode::Probabilistic,
    };
    ChaosConfiguration {
        write_clog_probability: draw.fraction(0.0, 0.2),
        read_clog_probability: draw.fraction(0.0, 0.2),
        clog_duration: draw.range(millis(50, 500)),
        cut_probability: draw.fraction(0.0, 0.05),
        cut_duration: draw.range(millis(50, 500)),
        partition_probability: draw.fraction(0.0, 0.15),
        partition_duration: draw.range(millis(100, 3_000)),
        partition_long_probability: 0.1,
        bit_flip_probability: draw.fraction(1e-5, 2e-4),
        bit_flip_cooldown: draw.duration(Duration::ZERO, Duration::from_millis(100)),
        connect_failure_mode: mode,
        connect_failure_probability: draw.fraction(0.4, 0.6),
        reset_probability: 0.5,
        clock_drift_max: draw.duration(Duration::from_millis(50), Duration::from_millis(150)),
        buggified_delay_max: draw.duration(Duration::from_millis(50), Duration::from_millis(150)),
        buggified_delay_probability: draw.fraction(0.2, 0.3),
        ..ChaosConfiguration::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_drawn_configuration_is_always_valid() {
        for seed in 0..2_000 {
            let config = NetworkConfiguration::random_for_seed(seed);
            assert_eq!(config.validate(), Ok(()), "seed {seed}");
            let swarm = NetworkConfiguration::swarm_for_seed(seed);
            assert_eq!(swarm.validate(), Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn seeds_draw_every_mode_and_model_and_many_subsets_of_faults() {
        let mut modes = BTreeSet::new();
        let mut tails = BTreeSet::new();
        let mut subsets = BTreeSet::new();
        for seed in 0..200 {
            let config = NetworkConfiguration::random_for_seed(seed);
            modes.insert(format!("{:?}", config.chaos.connect_failure_mode));
            tails.insert(config.may_fire(FaultKind::LongTail));
            let swarm = NetworkConfiguration::swarm_for_seed(seed);
            let subset = FaultKind::ALL.iter().filter(|kind| swarm.may_fire(**kind));
            subsets.insert(subset.collect::<Vec<_>>());
        }
        assert_eq!((modes.len(), tails.len()), (3, 2));
        assert!(subsets.len() > 190, "{}", subsets.len());
    }
}
