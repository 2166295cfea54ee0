//! How the simulated network behaves.

use std::ops::RangeInclusive;
use std::time::Duration;

pub use super::latency::LatencyModel;
use crate::chaos::{ChaosConfiguration, FaultKind};

/// A network configuration that cannot be simulated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkConfigError {
    /// A range whose shortest is longer than its longest. Swap the two.
    #[error("{field}: the minimum {min:?} is above the maximum {max:?}")]
    InvertedRange {
        /// The field.
        field: &'static str,
        /// Its minimum.
        min: Duration,
        /// Its maximum.
        max: Duration,
    },
    /// A buffer, or a limit of bytes, of zero: no byte would ever move.
    #[error("{field}: a buffer needs room for at least one byte")]
    EmptyBuffer {
        /// The field.
        field: &'static str,
    },
    /// A probability below 0.0 or above 1.0, or none at all. Correct it.
    #[error("{field}: {value} is not a probability: it takes 0.0 to 1.0")]
    Probability {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
}

/// Latencies, buffers and faults of the simulated network. Latencies are waited by the caller, in
/// virtual time.
///
/// What happens to single operations and segments stands here, the rest in
/// [`chaos`](Self::chaos). Probabilities are within 0.0-1.0; 0.0 switches a fault off, draws nothing
/// and costs nothing.
///
/// ```
/// use moonpool_foundation::{NetworkConfiguration, SimWorld};
///
/// let lossy = NetworkConfiguration {
///     packet_loss_probability: 0.01,
///     ..NetworkConfiguration::default()
/// };
/// let world = SimWorld::new_with_network_config_and_seed(lossy, 7)?;
/// # Ok::<(), moonpool_foundation::NetworkConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfiguration {
    /// How long `bind` takes.
    pub bind_latency: LatencyModel,
    /// How long `accept` takes once a connection is there.
    pub accept_latency: LatencyModel,
    /// How long `connect` takes: there and back.
    pub connect_latency: LatencyModel,
    /// How long a segment takes from the receiving host to its reader.
    pub read_latency: LatencyModel,
    /// How long a segment takes from its writer to the receiving host.
    pub write_latency: LatencyModel,
    /// The base latency from one address to another: drawn once for each ordered pair, kept for the
    /// run, and added to every segment. Addresses of one process have none.
    pub pair_latency: LatencyModel,
    /// The most that is drawn on top of a base latency, for each segment.
    pub pair_latency_jitter: Duration,
    /// Chance of a connection to have delays of its own in each direction.
    pub asymmetric_delay_probability: f64,
    /// Where each of the two delays is drawn from.
    pub asymmetric_delay: RangeInclusive<Duration>,
    /// How fast bytes leave a host, in bits a second. With the base latency it gives the size of send
    /// buffers.
    pub bandwidth_bits_per_second: u64,
    /// Bytes a sender may have accepted and not yet delivered; at least 1. A writer waits beyond.
    /// `None` is bandwidth times base latency, within 64 KiB-4 MiB.
    pub send_buffer_bytes: Option<usize>,
    /// Bytes a receiver holds unread; at least 1. Beyond it, delivery waits for the reader.
    pub receive_buffer_bytes: usize,
    /// Chance of each write to arrive in two pieces, and the same chance to arrive together with
    /// what is under way before it.
    pub segmentation_probability: f64,
    /// Chance of each write to accept less than it could.
    pub partial_write_probability: f64,
    /// The most that such a write accepts; at least 1.
    pub partial_write_max_bytes: usize,
    /// Chance of each read to return less than is there.
    pub partial_read_probability: f64,
    /// Chance of each read and each write to close its connection.
    pub random_close_probability: f64,
    /// How long after such a close, anywhere in the world, there is no other.
    pub random_close_cooldown: Duration,
    /// Chance that the read or write itself fails with `ConnectionReset` then. Else it succeeds, and
    /// what comes after it tells.
    pub random_close_explicit_ratio: f64,
    /// Chance of each segment to be lost once, and as often as it is sent again. Each loss delays it
    /// and everything behind it: by 200 ms, and twice as much each time. Five losses in a row end the
    /// connection with `TimedOut`.
    pub packet_loss_probability: f64,
    /// Whether an accepted connection shows a peer address made up by a network address translator:
    /// one of 100.64.0.0/10 (or 2001:db8::/32), which nobody can connect to. It is no fault, and
    /// hides nothing from faults: they act on processes. Off by default; after FoundationDB's
    /// `Sim2Listener` (`sim2.actor.cpp`).
    pub nat_addresses: bool,
    /// What else goes wrong.
    pub chaos: ChaosConfiguration,
}

impl Default for NetworkConfiguration {
    /// A local network that cuts writes and reads short and now and then closes a connection:
    /// connects of 1-11 ms, segments of 110-660 us, send buffers of 64 KiB.
    fn default() -> Self {
        Self {
            segmentation_probability: 0.25,
            partial_write_probability: 0.25,
            partial_read_probability: 0.25,
            random_close_probability: 1e-5,
            chaos: ChaosConfiguration::default(),
            ..Self::disabled()
        }
    }
}

impl NetworkConfiguration {
    /// The latencies and buffers of the default, and no fault at all.
    #[must_use]
    pub const fn disabled() -> Self {
        const NONE: Duration = Duration::ZERO;
        Self {
            bind_latency: LatencyModel::micros(50, 150),
            accept_latency: LatencyModel::micros(1_000, 6_000),
            connect_latency: LatencyModel::micros(1_000, 11_000),
            read_latency: LatencyModel::micros(10, 60),
            write_latency: LatencyModel::micros(100, 600),
            pair_latency: LatencyModel::fixed(NONE),
            pair_latency_jitter: NONE,
            asymmetric_delay_probability: 0.0,
            asymmetric_delay: NONE..=Duration::from_millis(20),
            bandwidth_bits_per_second: 1_000_000_000,
            send_buffer_bytes: None,
            receive_buffer_bytes: 64 << 10,
            segmentation_probability: 0.0,
            partial_write_probability: 0.0,
            partial_write_max_bytes: 1000,
            partial_read_probability: 0.0,
            random_close_probability: 0.0,
            random_close_cooldown: Duration::from_secs(5),
            random_close_explicit_ratio: 0.3,
            packet_loss_probability: 0.0,
            nat_addresses: false,
            chaos: ChaosConfiguration::disabled(),
        }
    }

    /// Latencies of 1-10 us, and no fault at all.
    #[must_use]
    pub const fn fast_local() -> Self {
        let latency = LatencyModel::micros(1, 10);
        let mut config = Self::disabled();
        config.bind_latency = latency;
        config.accept_latency = latency;
        config.connect_latency = latency;
        config.read_latency = latency;
        config.write_latency = latency;
        config
    }

    /// Every fault, often: what a protocol should survive.
    #[must_use]
    pub fn chaos() -> Self {
        let base_latency = LatencyModel::uniform(Duration::ZERO, Duration::from_millis(20));
        Self {
            read_latency: LatencyModel::LONG_TAIL,
            write_latency: LatencyModel::LONG_TAIL,
            pair_latency: base_latency,
            pair_latency_jitter: Duration::from_millis(2),
            asymmetric_delay_probability: 0.25,
            random_close_probability: 1e-4,
            packet_loss_probability: 0.01,
            chaos: ChaosConfiguration::chaos(),
            ..Self::default()
        }
    }

    /// The same without faults of `kind` by chance. What a test asks for by a call still happens.
    #[must_use]
    pub fn without(mut self, kind: FaultKind) -> Self {
        match kind {
            FaultKind::LongTail => {
                for latency in self.latencies_mut() {
                    *latency = latency.without_tail();
                }
            }
            FaultKind::AsymmetricDelay => self.asymmetric_delay_probability = 0.0,
            FaultKind::Segmentation => self.segmentation_probability = 0.0,
            FaultKind::PartialWrite => self.partial_write_probability = 0.0,
            FaultKind::PartialRead => self.partial_read_probability = 0.0,
            FaultKind::PacketLoss => self.packet_loss_probability = 0.0,
            FaultKind::RandomClose => self.random_close_probability = 0.0,
            other => self.chaos.disable(other),
        }
        self
    }

    /// Whether faults of `kind` may happen by chance.
    #[must_use]
    pub fn may_fire(&self, kind: FaultKind) -> bool {
        match kind {
            FaultKind::LongTail => {
                let mut latencies = self.latencies().into_iter();
                latencies.any(|(_, latency)| latency != latency.without_tail())
            }
            FaultKind::AsymmetricDelay => self.asymmetric_delay_probability > 0.0,
            FaultKind::Segmentation => self.segmentation_probability > 0.0,
            FaultKind::PartialWrite => self.partial_write_probability > 0.0,
            FaultKind::PartialRead => self.partial_read_probability > 0.0,
            FaultKind::PacketLoss => self.packet_loss_probability > 0.0,
            FaultKind::RandomClose => self.random_close_probability > 0.0,
            other => self.chaos.may(other),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot be simulated, with its value.
    pub fn validate(&self) -> Result<(), NetworkConfigError> {
        for (field, latency) in self.latencies() {
            latency.validate(field)?;
        }
        let own = ("asymmetric_delay", &self.asymmetric_delay);
        for (field, range) in self.chaos.ranges().into_iter().chain([own]) {
            let (min, max) = (*range.start(), *range.end());
            if min > max {
                return Err(NetworkConfigError::InvertedRange { field, min, max });
            }
        }
        for (field, bytes) in [
            ("send_buffer_bytes", self.send_buffer_bytes.unwrap_or(1)),
            ("receive_buffer_bytes", self.receive_buffer_bytes),
            ("partial_write_max_bytes", self.partial_write_max_bytes),
        ] {
            if bytes == 0 {
                return Err(NetworkConfigError::EmptyBuffer { field });
            }
        }
        for (field, value) in self
            .probabilities()
            .into_iter()
            .chain(self.chaos.probabilities())
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(NetworkConfigError::Probability { field, value });
            }
        }
        Ok(())
    }

    fn latencies(&self) -> [(&'static str, LatencyModel); 6] {
        [
            ("bind_latency", self.bind_latency),
            ("accept_latency", self.accept_latency),
            ("connect_latency", self.connect_latency),
            ("read_latency", self.read_latency),
            ("write_latency", self.write_latency),
            ("pair_latency", self.pair_latency),
        ]
    }

    fn latencies_mut(&mut self) -> [&mut LatencyModel; 6] {
        [
            &mut self.bind_latency,
            &mut self.accept_latency,
            &mut self.connect_latency,
            &mut self.read_latency,
            &mut self.write_latency,
            &mut self.pair_latency,
        ]
    }

    fn probabilities(&self) -> [(&'static str, f64); 7] {
        [
            (
                "asymmetric_delay_probability",
                self.asymmetric_delay_probability,
            ),
            ("segmentation_probability", self.segmentation_probability),
            ("partial_write_probability", self.partial_write_probability),
            ("partial_read_probability", self.partial_read_probability),
            ("random_close_probability", self.random_close_probability),
            (
                "random_close_explicit_ratio",
                self.random_close_explicit_ratio,
            ),
            ("packet_loss_probability", self.packet_loss_probability),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::ConnectFailureMode;

    #[test]
    fn an_inverted_range_and_an_empty_buffer_are_named() {
        let mut config = NetworkConfiguration::default();
        assert_eq!(config.validate(), Ok(()));
        config.send_buffer_bytes = Some(0);
        assert_eq!(
            config.validate(),
            Err(NetworkConfigError::EmptyBuffer {
                field: "send_buffer_bytes"
            })
        );
        config.read_latency = LatencyModel::micros(2, 1);
        assert!(matches!(
            config.validate(),
            Err(NetworkConfigError::InvertedRange {
                field: "read_latency",
                ..
            })
        ));
        let mut config = NetworkConfiguration::default();
        config.chaos.clog_duration = Duration::from_millis(2)..=Duration::from_millis(1);
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(
            error,
            "clog_duration: the minimum 2ms is above the maximum 1ms"
        );
    }

    #[test]
    fn what_is_no_probability_is_named_with_its_value() {
        for value in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let mut config = NetworkConfiguration::default();
            config.chaos.bit_flip_probability = value;
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("bit_flip_probability: "), "{error}");
            let config = NetworkConfiguration {
                packet_loss_probability: value,
                ..NetworkConfiguration::default()
            };
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("packet_loss_probability: "), "{error}");
        }
    }

    #[test]
    fn the_presets_are_valid_and_the_quiet_ones_fire_nothing() {
        for config in [
            NetworkConfiguration::disabled(),
            NetworkConfiguration::fast_local(),
        ] {
            assert_eq!(config.validate(), Ok(()));
            assert!(FaultKind::ALL.iter().all(|kind| !config.may_fire(*kind)));
        }
        assert_eq!(NetworkConfiguration::default().validate(), Ok(()));
        assert_eq!(NetworkConfiguration::chaos().validate(), Ok(()));
    }

    #[test]
    fn each_kind_is_switched_off_by_itself() {
        let mut full = NetworkConfiguration::chaos();
        full.chaos.connect_failure_mode = ConnectFailureMode::Probabilistic;
        for kind in FaultKind::ALL.iter().filter(|kind| full.may_fire(**kind)) {
            let without = full.clone().without(*kind);
            for other in FaultKind::ALL {
                let expected = full.may_fire(*other) && other != kind;
                assert_eq!(without.may_fire(*other), expected, "{kind} off: {other}");
            }
        }
        let none = FaultKind::ALL
            .iter()
            .fold(full, |config, kind| config.without(*kind));
        assert!(FaultKind::ALL.iter().all(|kind| !none.may_fire(*kind)));
    }

    #[test]
    fn the_default_is_the_table_of_the_documentation() {
        let config = NetworkConfiguration::default();
        let firing: Vec<&str> = FaultKind::ALL
            .iter()
            .filter(|kind| config.may_fire(**kind))
            .map(|kind| kind.name())
            .collect();
        assert_eq!(
            firing,
            [
                "partial-write",
                "partial-read",
                "random-close",
                "connect-refused",
                "connect-hang",
                "clock-drift",
                "buggified-delay",
                "segmentation",
            ]
        );
        assert_eq!(config.random_close_probability, 1e-5);
        assert_eq!(config.random_close_cooldown, Duration::from_secs(5));
        assert_eq!(config.random_close_explicit_ratio, 0.3);
        assert_eq!(config.partial_write_max_bytes, 1000);
        assert_eq!(config.chaos.connect_failure_probability, 0.5);
    }
}
