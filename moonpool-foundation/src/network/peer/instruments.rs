//! What peers tell the `metrics` facade (feature `metrics`).
//!
//! Handles are asked of the recorder once per peer. Counters are not touched per packet: what was
//! counted since the last time is added when the peer's task goes to sleep.

use std::cell::Cell;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::observability::metrics as names;

/// What a peer has counted, of which differences are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) packets_sent: u64,
    pub(super) packets_resent: u64,
    pub(super) packets_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    pub(super) connection_attempts: u64,
    pub(super) connections: u64,
    pub(super) reconnects: u64,
    pub(super) connection_failures: u64,
    pub(super) protocol_errors: u64,
    pub(super) unreliable_dropped: u64,
    pub(super) not_delivered: u64,
    pub(super) maybe_delivered: u64,
    /// How many round trips were measured, and the last of them.
    pub(super) round_trips: u64,
    pub(super) round_trip: Option<Duration>,
}

/// A peer's handles.
pub(super) struct Instruments {
    published: Cell<Counted>,
    packets_sent: Counter,
    packets_resent: Counter,
    packets_received: Counter,
    bytes_sent: Counter,
    bytes_received: Counter,
    connection_attempts: Counter,
    connections: Counter,
    reconnects: Counter,
    connection_failures: Counter,
    protocol_errors: Counter,
    unreliable_dropped: Counter,
    not_delivered: Counter,
    maybe_delivered: Counter,
    sessions_ended: Counter,
    round_trip: Histogram,
}

impl Instruments {
    pub(super) fn new() -> Self {
        Self {
            published: Cell::default(),
            packets_sent: counter!(names::PACKETS_SENT),
            packets_resent: counter!(names::PACKETS_RESENT),
            packets_received: counter!(names::PACKETS_RECEIVED),
            bytes_sent: counter!(names::BYTES_SENT),
            bytes_received: counter!(names::BYTES_RECEIVED),
            connection_attempts: counter!(names::CONNECTION_ATTEMPTS),
            connections: counter!(names::CONNECTIONS),
            reconnects: counter!(names::RECONNECTS),
            connection_failures: counter!(names::CONNECTION_FAILURES),
            protocol_errors: counter!(names::PROTOCOL_ERRORS),
            unreliable_dropped: counter!(names::UNRELIABLE_DROPPED),
            not_delivered: counter!(names::NOT_DELIVERED),
            maybe_delivered: counter!(names::MAYBE_DELIVERED),
            sessions_ended: counter!(names::SESSIONS_ENDED),
            round_trip: histogram!(names::ROUND_TRIP),
        }
    }

    /// Adds what was counted since the last time. Of round trips that were measured in between only
    /// the last is known; they are a second apart.
    pub(super) fn publish(&self, now: Counted) {
        let last = self.published.replace(now);
        if last == now {
            return;
        }
        let counters = [
            (&self.packets_sent, last.packets_sent, now.packets_sent),
            (
                &self.packets_resent,
                last.packets_resent,
                now.packets_resent,
            ),
            (
                &self.packets_received,
                last.packets_received,
                now.packets_received,
            ),
            (&self.bytes_sent, last.bytes_sent, now.bytes_sent),
            (
                &self.bytes_received,
                last.bytes_received,
                now.bytes_received,
            ),
            (
                &self.connection_attempts,
                last.connection_attempts,
                now.connection_attempts,
            ),
            (&self.connections, last.connections, now.connections),
            (&self.reconnects, last.reconnects, now.reconnects),
            (
                &self.connection_failures,
                last.connection_failures,
                now.connection_failures,
            ),
            (
                &self.protocol_errors,
                last.protocol_errors,
                now.protocol_errors,
            ),
            (
                &self.unreliable_dropped,
                last.unreliable_dropped,
                now.unreliable_dropped,
            ),
            (&self.not_delivered, last.not_delivered, now.not_delivered),
            (
                &self.maybe_delivered,
                last.maybe_delivered,
                now.maybe_delivered,
            ),
        ];
        for (counter, last, now) in counters {
            if now > last {
                counter.increment(now - last);
            }
        }
        if last.round_trips != now.round_trips
            && let Some(round_trip) = now.round_trip
        {
            self.round_trip.record(round_trip.as_secs_f64());
        }
    }

    /// A session ended.
    pub(super) fn note_session_end(&self) {
        self.sessions_ended.increment(1);
    }
}

/// An accepted connection gets no session.
pub(super) fn note_refused() {
    counter!(names::HANDSHAKES_REFUSED).increment(1);
}
