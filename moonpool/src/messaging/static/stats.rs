//! What a transport counts.

use std::cell::Cell;

use moonpool_foundation::sometimes_assert;

/// A transport's gauges and counters at one moment. After
/// [`shutdown`](super::FlowTransport::shutdown) every gauge is 0. Counters start at 0 with the
/// transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportStats {
    /// Gauge: peers that dial.
    pub peers: usize,
    /// Gauge: accepted connections that carry a session.
    pub incoming_connections: usize,
    /// Gauge: accepted sessions, those included that are kept for 60 s without a connection.
    pub incoming_sessions: usize,
    /// Gauge: registered endpoints, the built-in ones not counted.
    pub endpoints: usize,
    /// Gauge: calls that wait for their reply.
    pub pending_calls: usize,
    /// Gauge: requests that were admitted and not answered.
    pub open_requests: usize,
    /// Gauge: watches of the failure monitor that are pending.
    pub watches: usize,
    /// Gauge: endpoints that the failure monitor remembers as not found.
    pub missing_endpoints: usize,
    /// Gauge: packets to peers, not written or not acknowledged.
    pub queued_packets: usize,
    /// Gauge: bytes of the same.
    pub queued_bytes: usize,
    /// Gauge: packets to this process itself.
    pub local_packets: usize,
    /// Gauge: bytes of the same.
    pub local_bytes: usize,
    /// Gauge: tasks of the transport: one per peer, the accepting one, the local one, the one that
    /// keeps the deadlines of its calls, and one per request that a [`Serving`](super::Serving)
    /// handles. Those that greet a connection live 2 s at most and are not counted.
    pub tasks: usize,

    /// Requests sent, to this process too.
    pub requests_sent: u64,
    /// Messages handed to a receiver.
    pub messages_received: u64,
    /// Messages and requests to tokens that have no receiver.
    pub endpoint_not_found: u64,
    /// Replies that ended a call.
    pub replies_received: u64,
    /// Replies for which nobody waited, or that came from elsewhere than the request went.
    pub replies_late: u64,
    /// Calls that ended with their deadline.
    pub calls_timed_out: u64,
    /// Cancellations sent: calls that were given up after their requests were written.
    pub cancellations_sent: u64,
    /// Requests that were cancelled before they were answered.
    pub cancellations_received: u64,
    /// Messages and requests to private endpoints from peers that may not send them.
    pub unauthorized: u64,
    /// Requests that were refused because there was no room for their answers.
    pub requests_refused: u64,
    /// Answers sent, errors included.
    pub replies_sent: u64,
    /// Answers that could not be sent.
    pub replies_dropped: u64,
    /// Promises that were dropped unanswered.
    pub broken_promises: u64,
    /// Packets of an envelope version that is not spoken here.
    pub unsupported_versions: u64,
    /// Other packets that are no envelope.
    pub undecodable: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once because there were as many as the limit allows.
    pub accept_refused: u64,
    /// Connections closed before their greeting was complete, because there were as many as the limit
    /// allows and a newer one came.
    pub handshakes_evicted: u64,
    /// Times that accepting failed.
    pub accept_errors: u64,
}

/// A count that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    #[inline]
    pub(crate) fn add(&self) {
        self.0.set(self.0.get() + 1);
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.get()
    }
}

/// The counters of [`TransportStats`], as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests_sent: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) endpoint_not_found: Counter,
    pub(crate) replies_received: Counter,
    pub(crate) replies_late: Counter,
    pub(crate) calls_timed_out: Counter,
    pub(crate) cancellations_sent: Counter,
    pub(crate) cancellations_received: Counter,
    pub(crate) unauthorized: Counter,
    pub(crate) requests_refused: Counter,
    pub(crate) replies_sent: Counter,
    pub(crate) replies_dropped: Counter,
    pub(crate) broken_promises: Counter,
    pub(crate) unsupported_versions: Counter,
    pub(crate) undecodable: Counter,
    pub(crate) accepted: Counter,
    pub(crate) accept_refused: Counter,
    pub(crate) handshakes_evicted: Counter,
    pub(crate) accept_errors: Counter,
}

impl Counters {
    /// Messages that found a receiver, and those that found none.
    pub(crate) fn found(&self) -> (u64, u64) {
        let delivered = self.messages_received.count();
        (delivered, self.endpoint_not_found.count())
    }

    /// Says what a transport that ends has done. Asked once, at its end: nothing of it costs the path
    /// of a message anything.
    pub(crate) fn note_coverage(&self) {
        let (delivered, undelivered) = self.found();
        sometimes_assert!(dispatch_success, delivered > 0, "a receiver got a message");
        sometimes_assert!(
            dispatch_undelivered,
            undelivered > 0,
            "nobody had the token"
        );
        let (sent, received) = (self.replies_sent.count(), self.replies_received.count());
        sometimes_assert!(reply_sent, sent > 0, "a promise was kept, or broken");
        sometimes_assert!(reply_received, received > 0, "a call ended with an answer");
    }

    /// The counters, with gauges of 0.
    pub(crate) fn snapshot(&self) -> TransportStats {
        TransportStats {
            requests_sent: self.requests_sent.count(),
            messages_received: self.messages_received.count(),
            endpoint_not_found: self.endpoint_not_found.count(),
            replies_received: self.replies_received.count(),
            replies_late: self.replies_late.count(),
            calls_timed_out: self.calls_timed_out.count(),
            cancellations_sent: self.cancellations_sent.count(),
            cancellations_received: self.cancellations_received.count(),
            unauthorized: self.unauthorized.count(),
            requests_refused: self.requests_refused.count(),
            replies_sent: self.replies_sent.count(),
            replies_dropped: self.replies_dropped.count(),
            broken_promises: self.broken_promises.count(),
            unsupported_versions: self.unsupported_versions.count(),
            undecodable: self.undecodable.count(),
            accepted: self.accepted.count(),
            accept_refused: self.accept_refused.count(),
            handshakes_evicted: self.handshakes_evicted.count(),
            accept_errors: self.accept_errors.count(),
            ..TransportStats::default()
        }
    }
}
