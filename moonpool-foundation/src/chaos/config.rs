//! [`ChaosConfiguration`]: how often what goes wrong.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::FaultKind;

/// How a connect fails that chaos has picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFailureMode {
    /// None is picked.
    Disabled,
    /// It is refused. That is so for connects that are picked, not for every connect: for that, raise
    /// [`connect_failure_activation`](ChaosConfiguration::connect_failure_activation) and
    /// [`connect_failure_firing`](ChaosConfiguration::connect_failure_firing) to 1.0.
    AlwaysFail,
    /// It is refused with [`connect_failure_probability`](ChaosConfiguration::connect_failure_probability),
    /// and else never answered: only a time limit of the caller's ends it.
    #[default]
    Probabilistic,
}

/// How often connections, clocks and sleeps go wrong, and for how long.
///
/// Probabilities are within 0.0-1.0; 0.0 switches a fault off, draws nothing and costs nothing.
/// `docs/fault-injection.md` (also the module `fault_injection`) tells of each what it tests.
#[derive(Clone, Debug, PartialEq)]
pub struct ChaosConfiguration {
    /// Chance of each write that its direction takes no bytes for a [`clog_duration`](Self::clog_duration).
    pub write_clog_probability: f64,
    /// Chance of each read that its direction gives no bytes for a [`clog_duration`](Self::clog_duration).
    pub read_clog_probability: f64,
    /// How long a direction stays clogged.
    pub clog_duration: RangeInclusive<Duration>,
    /// Chance of each write that its connection is cut: both directions stall and keep their data.
    pub cut_probability: f64,
    /// How long a connection stays cut.
    pub cut_duration: RangeInclusive<Duration>,
    /// Chance, drawn at each connect and at most once a second of each connection that writes, that
    /// its two processes cannot reach each other for a [`partition_duration`](Self::partition_duration):
    /// both ways in half of the cases, one way in the other half.
    pub partition_probability: f64,
    /// How long a partition lasts.
    pub partition_duration: RangeInclusive<Duration>,
    /// Chance that a partition lasts a [`partition_long_duration`](Self::partition_long_duration) instead.
    pub partition_long_probability: f64,
    /// How long a long partition lasts.
    pub partition_long_duration: RangeInclusive<Duration>,
    /// Chance of each delivery that 1 to 32 of its bits are flipped.
    pub bit_flip_probability: f64,
    /// How long after a flip, anywhere in the world, there is no other.
    pub bit_flip_cooldown: Duration,
    /// How a connect fails that was picked.
    pub connect_failure_mode: ConnectFailureMode,
    /// Chance that a connect that was picked is refused, in
    /// [`ConnectFailureMode::Probabilistic`]; else it is never answered.
    pub connect_failure_probability: f64,
    /// Chance of a seed that connects are picked in it at all.
    pub connect_failure_activation: f64,
    /// Chance of each connect to be picked, in a seed that has it.
    pub connect_failure_firing: f64,
    /// Chance that a stream that is dropped sends RST where it would have sent FIN.
    pub reset_probability: f64,
    /// Whether the clocks of processes drift ahead.
    pub clock_drift_enabled: bool,
    /// How far a clock may be ahead.
    pub clock_drift_max: Duration,
    /// Whether sleeps are lengthened.
    pub buggified_delay_enabled: bool,
    /// The longest addition to a sleep.
    pub buggified_delay_max: Duration,
    /// Chance of each sleep to be lengthened.
    pub buggified_delay_probability: f64,
}

pub(crate) const fn millis(min: u64, max: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(min)..=Duration::from_millis(max)
}

impl Default for ChaosConfiguration {
    /// Connect failures in a quarter of the seeds, drifting clocks, lengthened sleeps; nothing else.
    fn default() -> Self {
        Self {
            connect_failure_mode: ConnectFailureMode::Probabilistic,
            clock_drift_enabled: true,
            buggified_delay_enabled: true,
            ..Self::disabled()
        }
    }
}

impl ChaosConfiguration {
    /// Nothing goes wrong. What a fault would be like once it is switched on is that of the default.
    #[must_use]
    pub const fn disabled() -> Self {
        Self {
            write_clog_probability: 0.0,
            read_clog_probability: 0.0,
            clog_duration: millis(100, 300),
            cut_probability: 0.0,
            cut_duration: millis(100, 300),
            partition_probability: 0.0,
            partition_duration: millis(200, 2_000),
            partition_long_probability: 0.0,
            partition_long_duration: millis(5_000, 30_000),
            bit_flip_probability: 0.0,
            bit_flip_cooldown: Duration::ZERO,
            connect_failure_mode: ConnectFailureMode::Disabled,
            connect_failure_probability: 0.5,
            connect_failure_activation: 0.25,
            connect_failure_firing: 0.25,
            reset_probability: 0.0,
            clock_drift_enabled: false,
            clock_drift_max: Duration::from_millis(100),
            buggified_delay_enabled: false,
            buggified_delay_max: Duration::from_millis(100),
            buggified_delay_probability: 0.25,
        }
    }

    /// Everything goes wrong, often.
    #[must_use]
    pub fn chaos() -> Self {
        Self {
            write_clog_probability: 0.02,
            read_clog_probability: 0.02,
            cut_probability: 0.005,
            partition_probability: 0.02,
            partition_long_probability: 0.1,
            bit_flip_probability: 1e-4,
            reset_probability: 0.5,
            ..Self::default()
        }
    }

    /// Switches one kind of fault off, and leaves the others as they are.
    pub(crate) fn disable(&mut self, kind: FaultKind) {
        match kind {
            FaultKind::WriteClog => self.write_clog_probability = 0.0,
            FaultKind::ReadClog => self.read_clog_probability = 0.0,
            FaultKind::Cut => self.cut_probability = 0.0,
            FaultKind::Partition => self.partition_probability = 0.0,
            FaultKind::BitFlip => self.bit_flip_probability = 0.0,
            FaultKind::Reset => self.reset_probability = 0.0,
            FaultKind::ConnectHang => match self.connect_failure_mode {
                ConnectFailureMode::Probabilistic if self.may(FaultKind::ConnectRefused) => {
                    self.connect_failure_probability = 1.0;
                }
                ConnectFailureMode::Probabilistic => {
                    self.connect_failure_mode = ConnectFailureMode::Disabled;
                }
                ConnectFailureMode::AlwaysFail | ConnectFailureMode::Disabled => {}
            },
            FaultKind::ConnectRefused => match self.connect_failure_mode {
                ConnectFailureMode::Probabilistic if self.may(FaultKind::ConnectHang) => {
                    self.connect_failure_probability = 0.0;
                }
                _ => self.connect_failure_mode = ConnectFailureMode::Disabled,
            },
            FaultKind::ClockDrift => self.clock_drift_enabled = false,
            FaultKind::BuggifiedDelay => self.buggified_delay_enabled = false,
            _ => {}
        }
    }

    /// Whether a kind of fault may fire by chance.
    pub(crate) fn may(&self, kind: FaultKind) -> bool {
        let picked = self.connect_failure_activation > 0.0 && self.connect_failure_firing > 0.0;
        let refused = self.connect_failure_probability;
        match kind {
            FaultKind::WriteClog => self.write_clog_probability > 0.0,
            FaultKind::ReadClog => self.read_clog_probability > 0.0,
            FaultKind::Cut => self.cut_probability > 0.0,
            FaultKind::Partition => self.partition_probability > 0.0,
            FaultKind::BitFlip => self.bit_flip_probability > 0.0,
            FaultKind::Reset => self.reset_probability > 0.0,
            FaultKind::ConnectRefused => match self.connect_failure_mode {
                ConnectFailureMode::Disabled => false,
                ConnectFailureMode::AlwaysFail => picked,
                ConnectFailureMode::Probabilistic => picked && refused > 0.0,
            },
            FaultKind::ConnectHang => match self.connect_failure_mode {
                ConnectFailureMode::Disabled | ConnectFailureMode::AlwaysFail => false,
                ConnectFailureMode::Probabilistic => picked && refused < 1.0,
            },
            FaultKind::ClockDrift => self.clock_drift_enabled,
            FaultKind::BuggifiedDelay => {
                self.buggified_delay_enabled && self.buggified_delay_probability > 0.0
            }
            _ => false,
        }
    }

    /// Every probability, by its field's name.
    pub(crate) fn probabilities(&self) -> [(&'static str, f64); 11] {
        [
            ("write_clog_probability", self.write_clog_probability),
            ("read_clog_probability", self.read_clog_probability),
            ("cut_probability", self.cut_probability),
            ("partition_probability", self.partition_probability),
            (
                "partition_long_probability",
                self.partition_long_probability,
            ),
            ("bit_flip_probability", self.bit_flip_probability),
            (
                "connect_failure_probability",
                self.connect_failure_probability,
            ),
            (
                "connect_failure_activation",
                self.connect_failure_activation,
            ),
            ("connect_failure_firing", self.connect_failure_firing),
            ("reset_probability", self.reset_probability),
            (
                "buggified_delay_probability",
                self.buggified_delay_probability,
            ),
        ]
    }

    /// Every range of durations, by its field's name.
    pub(crate) fn ranges(&self) -> [(&'static str, &RangeInclusive<Duration>); 4] {
        [
            ("clog_duration", &self.clog_duration),
            ("cut_duration", &self.cut_duration),
            ("partition_duration", &self.partition_duration),
            ("partition_long_duration", &self.partition_long_duration),
        ]
    }
}
