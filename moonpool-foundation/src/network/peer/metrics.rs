//! What a peer counts.

use std::time::Duration;

use super::error::ConnectionError;

/// A peer's gauges and counters at one moment. Counters start at 0 with the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerMetrics {
    /// Gauge: reliable packets that wait to be written: for the first time, or again on a new
    /// connection.
    pub reliable_queued: usize,
    /// Gauge: bytes of all reliable packets that are held or unacknowledged, headers included.
    pub reliable_bytes: usize,
    /// Gauge: reliable packets written and not acknowledged, withdrawn ones included; always 0 in
    /// plain mode.
    pub unacknowledged: usize,
    /// Gauge: answers that are held or unacknowledged, and slots reserved for such.
    pub answer_slots: usize,
    /// Gauge: unreliable packets that wait to be written.
    pub unreliable_queued: usize,
    /// Gauge: bytes of the same, headers included.
    pub unreliable_bytes: usize,
    /// Gauge: packets in a bare peer's inbox.
    pub inbox_packets: usize,
    /// User packets written completely. One that is written again on a new connection counts again.
    pub packets_sent: u64,
    /// Reliable packets that were laid out for a write again, on a new connection of their session:
    /// the older one was lost before they were acknowledged.
    pub packets_resent: u64,
    /// User packets received.
    pub packets_received: u64,
    /// Bytes written, session frames and headers included.
    pub bytes_sent: u64,
    /// Bytes read.
    pub bytes_received: u64,
    /// Attempts to connect; 0 for an accepted connection.
    pub connection_attempts: u64,
    /// Connections that became usable: made, and in acknowledged mode greeted.
    pub connections: u64,
    /// Connections that became usable after the first one.
    pub reconnects: u64,
    /// Attempts that did not lead to a usable connection.
    pub connection_failures: u64,
    /// Connections that ended because of what the other end sent.
    pub protocol_errors: u64,
    /// Unreliable packets dropped: there was no connection, or it ended first.
    pub unreliable_dropped: u64,
    /// Reliable packets reported `not_delivered`, or withdrawn.
    pub not_delivered: u64,
    /// Reliable packets reported `maybe_delivered`.
    pub maybe_delivered: u64,
    /// Reports that a bare peer forgot because nobody took them.
    pub reports_forgotten: u64,
    /// Why the last connection, or the last attempt, ended.
    pub last_error: Option<ConnectionError>,
    /// The last round trip that was measured: Hello to answer, or ping to pong.
    pub round_trip: Option<Duration>,
}
