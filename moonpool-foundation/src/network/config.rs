//! How the simulated network behaves.

use std::time::Duration;

/// How long one operation takes, drawn from the seed each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LatencyModel {
    /// Uniform between the two, both included.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
}

impl LatencyModel {
    /// Uniform between `min` and `max`, both included.
    #[must_use]
    pub const fn uniform(min: Duration, max: Duration) -> Self {
        Self::Uniform { min, max }
    }

    /// Always `latency`. Nothing is drawn for it.
    #[must_use]
    pub const fn fixed(latency: Duration) -> Self {
        Self::Uniform {
            min: latency,
            max: latency,
        }
    }

    const fn micros(min: u64, max: u64) -> Self {
        Self::uniform(Duration::from_micros(min), Duration::from_micros(max))
    }

    fn validate(self, field: &'static str) -> Result<(), NetworkConfigError> {
        let Self::Uniform { min, max } = self;
        if min > max {
            return Err(NetworkConfigError::InvertedRange { field, min, max });
        }
        Ok(())
    }
}

/// A network configuration that cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// A buffer that could hold nothing: no byte would ever move.
    #[error("{field}: a buffer needs room for at least one byte")]
    EmptyBuffer {
        /// The field.
        field: &'static str,
    },
}

/// Latencies and buffers of the simulated network. Latencies are waited by the caller, in virtual
/// time.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Bytes a sender may have accepted and not yet delivered; at least 1. A writer waits beyond.
    pub send_buffer_bytes: usize,
    /// Bytes a receiver holds unread; at least 1. Beyond it, delivery waits for the reader.
    pub receive_buffer_bytes: usize,
}

impl Default for NetworkConfiguration {
    /// A local network: connects of 1-11 ms, segments of 110-660 us, buffers of 64 KiB.
    fn default() -> Self {
        Self {
            bind_latency: LatencyModel::micros(50, 150),
            accept_latency: LatencyModel::micros(1_000, 6_000),
            connect_latency: LatencyModel::micros(1_000, 11_000),
            read_latency: LatencyModel::micros(10, 60),
            write_latency: LatencyModel::micros(100, 600),
            send_buffer_bytes: 64 << 10,
            receive_buffer_bytes: 64 << 10,
        }
    }
}

impl NetworkConfiguration {
    /// Latencies of 1-10 us.
    #[must_use]
    pub fn fast_local() -> Self {
        let latency = LatencyModel::micros(1, 10);
        Self {
            bind_latency: latency,
            accept_latency: latency,
            connect_latency: latency,
            read_latency: latency,
            write_latency: latency,
            ..Self::default()
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that cannot be simulated, with its value.
    pub fn validate(&self) -> Result<(), NetworkConfigError> {
        self.bind_latency.validate("bind_latency")?;
        self.accept_latency.validate("accept_latency")?;
        self.connect_latency.validate("connect_latency")?;
        self.read_latency.validate("read_latency")?;
        self.write_latency.validate("write_latency")?;
        for (field, bytes) in [
            ("send_buffer_bytes", self.send_buffer_bytes),
            ("receive_buffer_bytes", self.receive_buffer_bytes),
        ] {
            if bytes == 0 {
                return Err(NetworkConfigError::EmptyBuffer { field });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverted_range_and_an_empty_buffer_are_named() {
        let mut config = NetworkConfiguration::default();
        assert_eq!(config.validate(), Ok(()));
        config.send_buffer_bytes = 0;
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
    }
}
