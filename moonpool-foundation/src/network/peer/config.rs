//! How a peer connects, backs off and queues.

use std::time::Duration;

use crate::messaging::wire::{MAX_PAYLOAD_LIMIT, MAX_PAYLOAD_SIZE, MIN_PAYLOAD_LIMIT};

/// Limits and times of one peer. Start from a preset and change what differs.
///
/// ```
/// use moonpool_foundation::PeerConfig;
///
/// let config = PeerConfig { max_connection_failures: Some(10), ..PeerConfig::default() };
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Time for one attempt: to connect and, in acknowledged mode, to get the Hello's answer. Also
    /// how long an accepted connection may take to send its Hello. 2 s.
    pub connect_timeout: Duration,
    /// The delay after the first failure, before jitter. 50 ms.
    pub initial_backoff: Duration,
    /// What each further failure multiplies the delay by, in percent: 120 is x 1.2.
    pub backoff_percent: u32,
    /// The delay that is never passed. 500 ms.
    pub max_backoff: Duration,
    /// A connection that lasted this long resets the delay. 5 s.
    pub healthy_after: Duration,
    /// Give up after this many failed attempts in a row; `None` never gives up.
    pub max_connection_failures: Option<u32>,
    /// Bytes of the largest payload, 1 MiB; at least 64, at most 64 MiB. Applies to both directions; the other
    /// end's own limit, if it is smaller, applies to what is sent.
    pub max_payload_bytes: u32,
    /// Reliable packets accepted and neither written nor, in acknowledged mode, acknowledged.
    pub reliable_packets: usize,
    /// Bytes of the same. The packet that passes the limit is still accepted, so that what is
    /// refused never depends on its size: at most one packet more is held.
    pub reliable_bytes: usize,
    /// Answers owed and answers held, 65,536: received requests that are not answered yet, and
    /// answers that are not acknowledged. They do not count against `reliable_packets`.
    pub answer_packets: usize,
    /// Bytes of the latter, 64 MiB. While they are passed, no more requests are admitted; answers to
    /// those that were are always taken.
    pub answer_bytes: usize,
    /// Refusals held, 1,024: short answers to requests that were not admitted. One more ends the
    /// session.
    pub refusals: usize,
    /// Bytes of the same, 4 MiB: twice what all requests can be refused with that a dialler of default
    /// limits has on the way. The packet that passes the limit is still taken; one more ends the
    /// session.
    pub refusal_bytes: usize,
    /// Unreliable packets that wait to be written.
    pub unreliable_packets: usize,
    /// Bytes of the same, with the same allowance.
    pub unreliable_bytes: usize,
    /// Received packets that wait in a bare peer's inbox. When it is full, the peer stops reading.
    pub inbox_packets: usize,
    /// How long a reliable packet that was never written waits for a working connection, from the
    /// later of its acceptance and the loss of the last connection. Then it is dropped and reported
    /// `not_delivered`. A session that lost its connection while packets were unacknowledged or
    /// replies expected ends after the same time; others, and without patience all, after 60 s.
    /// `None` waits for ever. Only for peers that dial.
    pub patience: Option<Duration>,
    /// Close after this long without a packet sent or received, if no reply is expected, nobody
    /// watches and nobody holds a handle. The accepting end waits a fifth longer. `None` never does.
    /// Only for acknowledged sessions. 180 s, as FoundationDB's `CONNECTION_MONITOR_IDLE_TIMEOUT`.
    pub idle_close: Option<Duration>,
    /// How long there has to be no working connection, although one is wanted, for the other end to
    /// count as failed. Only for peers that dial. 3 s.
    pub failed_after: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            initial_backoff: Duration::from_millis(50),
            backoff_percent: 120,
            max_backoff: Duration::from_millis(500),
            healthy_after: Duration::from_secs(5),
            max_connection_failures: None,
            max_payload_bytes: DEFAULT_MAX_PAYLOAD,
            reliable_packets: 65_536,
            reliable_bytes: 64 * 1024 * 1024,
            answer_packets: 65_536,
            answer_bytes: 64 * 1024 * 1024,
            refusals: 1_024,
            refusal_bytes: 4 * 1024 * 1024,
            unreliable_packets: 8_192,
            unreliable_bytes: 8 * 1024 * 1024,
            inbox_packets: 4_096,
            patience: None,
            idle_close: Some(Duration::from_secs(180)),
            failed_after: Duration::from_secs(3),
        }
    }
}

const DEFAULT_MAX_PAYLOAD: u32 = 1024 * 1024;
const _: () = assert!(DEFAULT_MAX_PAYLOAD as usize == MAX_PAYLOAD_SIZE);

impl PeerConfig {
    /// For peers in one room: quick to retry, quick to notice.
    #[must_use]
    pub fn local_network() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            initial_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_millis(100),
            ..Self::default()
        }
    }

    /// For peers across the world: delays double up to 30 s.
    #[must_use]
    pub fn wan_network() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            initial_backoff: Duration::from_millis(500),
            backoff_percent: 200,
            max_backoff: Duration::from_secs(30),
            healthy_after: Duration::from_secs(30),
            ..Self::default()
        }
    }

    /// Checks that the values make sense together. A peer made of values that do not is finished
    /// from the start, with this error as its last one.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), PeerConfigError> {
        let payload = self.max_payload_bytes as usize;
        if !(MIN_PAYLOAD_LIMIT..=MAX_PAYLOAD_LIMIT).contains(&payload) {
            return Err(PeerConfigError::MaxPayload {
                bytes: payload,
                limit: MAX_PAYLOAD_LIMIT,
            });
        }
        if self.backoff_percent < 100 {
            return Err(PeerConfigError::ShrinkingBackoff {
                percent: self.backoff_percent,
            });
        }
        if self.max_backoff < self.initial_backoff {
            return Err(PeerConfigError::BackoffOrder {
                initial: self.initial_backoff,
                max: self.max_backoff,
            });
        }
        let nothing = [
            ("connect_timeout", self.connect_timeout.is_zero()),
            ("initial_backoff", self.initial_backoff.is_zero()),
            (
                "max_connection_failures",
                self.max_connection_failures == Some(0),
            ),
            ("reliable_packets", self.reliable_packets == 0),
            ("reliable_bytes", self.reliable_bytes == 0),
            ("answer_packets", self.answer_packets == 0),
            ("answer_bytes", self.answer_bytes == 0),
            ("refusals", self.refusals == 0),
            ("refusal_bytes", self.refusal_bytes == 0),
            ("unreliable_packets", self.unreliable_packets == 0),
            ("unreliable_bytes", self.unreliable_bytes == 0),
            ("inbox_packets", self.inbox_packets == 0),
            ("patience", self.patience == Some(Duration::ZERO)),
            ("idle_close", self.idle_close == Some(Duration::ZERO)),
            ("failed_after", self.failed_after.is_zero()),
        ];
        match nothing.iter().find(|(_, is_zero)| *is_zero) {
            Some((field, _)) => Err(PeerConfigError::Zero { field }),
            None => Ok(()),
        }
    }
}

/// Why a [`PeerConfig`] cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerConfigError {
    /// The payload limit is below the smallest or beyond the largest there may be.
    #[error(
        "max_payload_bytes is {bytes}, it must be {} to {limit}",
        MIN_PAYLOAD_LIMIT
    )]
    MaxPayload {
        /// The value.
        bytes: usize,
        /// The largest there may be.
        limit: usize,
    },
    /// The delay would shrink from failure to failure.
    #[error("backoff_percent is {percent}, it must be 100 or more")]
    ShrinkingBackoff {
        /// The value.
        percent: u32,
    },
    /// The first delay is beyond the largest.
    #[error("initial_backoff {initial:?} is beyond max_backoff {max:?}")]
    BackoffOrder {
        /// The first delay.
        initial: Duration,
        /// The largest.
        max: Duration,
    },
    /// A limit of nothing, with which the peer could do nothing.
    #[error("{field} is zero")]
    Zero {
        /// The field's name.
        field: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_valid() {
        for config in [
            PeerConfig::default(),
            PeerConfig::local_network(),
            PeerConfig::wan_network(),
        ] {
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        let check = |change: fn(&mut PeerConfig)| {
            let mut config = PeerConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(check(|c| c.max_payload_bytes = 0).contains("max_payload_bytes"));
        assert!(check(|c| c.max_payload_bytes = 63).contains("64 to"));
        assert!(check(|c| c.max_payload_bytes = u32::MAX).contains("max_payload_bytes"));
        assert!(check(|c| c.backoff_percent = 99).contains("backoff_percent"));
        assert!(check(|c| c.max_backoff = Duration::ZERO).contains("max_backoff"));
        assert!(check(|c| c.reliable_packets = 0).contains("reliable_packets"));
        assert!(check(|c| c.patience = Some(Duration::ZERO)).contains("patience"));
        assert!(check(|c| c.max_connection_failures = Some(0)).contains("max_connection"));
    }
}
