//! The names under which peers log.

/// The `tracing` target of what peers say of their connections and sessions.
pub const PEER_TARGET: &str = "moonpool::peer";

/// The fields of events.
pub mod fields {
    /// The other end: the address that is dialled, or that of the accepted connection, `ip:port`.
    pub const PEER: &str = "peer";
    /// Why a connection, or the attempt to get one, ended: a
    /// [`ConnectionError`](crate::network::peer::ConnectionError).
    pub const CAUSE: &str = "cause";
    /// What an attempt connects to, as it was given to the network provider.
    pub const TARGET: &str = "target";
    /// How many connections the peer has had; of `too many connections`: how many there are.
    pub const CONNECTIONS: &str = "connections";
    /// How many attempts in a row have failed.
    pub const FAILURES: &str = "failures";
    /// How many connections were closed at once, since the transport was made.
    pub const REFUSED: &str = "refused";
    /// How many warnings of the same kind were left out since the last one.
    pub const SUPPRESSED: &str = "suppressed";
    /// Packets of the ended session that surely did not arrive.
    pub const NOT_DELIVERED: &str = "not_delivered";
    /// Packets of the ended session that may have arrived.
    pub const MAYBE_DELIVERED: &str = "maybe_delivered";
}

/// The metrics of peers (feature `metrics`). They have no labels: addresses would make as many
/// series as there are clients. [`PeerMetrics`](super::PeerMetrics) tells peers apart.
#[cfg(feature = "metrics")]
pub mod metrics {
    /// Counter: user packets written.
    pub const PACKETS_SENT: &str = "moonpool_peer_packets_sent_total";
    /// Counter: of those, reliable ones that were written before, on an older connection.
    pub const PACKETS_RESENT: &str = "moonpool_peer_packets_resent_total";
    /// Counter: user packets received.
    pub const PACKETS_RECEIVED: &str = "moonpool_peer_packets_received_total";
    /// Counter: bytes written.
    pub const BYTES_SENT: &str = "moonpool_peer_bytes_sent_total";
    /// Counter: bytes read.
    pub const BYTES_RECEIVED: &str = "moonpool_peer_bytes_received_total";
    /// Counter: attempts to connect.
    pub const CONNECTION_ATTEMPTS: &str = "moonpool_peer_connection_attempts_total";
    /// Counter: connections that became usable.
    pub const CONNECTIONS: &str = "moonpool_peer_connections_total";
    /// Counter: of those, the ones after a peer's first.
    pub const RECONNECTS: &str = "moonpool_peer_reconnects_total";
    /// Counter: attempts that led to no usable connection.
    pub const CONNECTION_FAILURES: &str = "moonpool_peer_connection_failures_total";
    /// Counter: connections that ended because of what the other end sent.
    pub const PROTOCOL_ERRORS: &str = "moonpool_peer_protocol_errors_total";
    /// Counter: unreliable packets that were dropped.
    pub const UNRELIABLE_DROPPED: &str = "moonpool_peer_unreliable_dropped_total";
    /// Counter: reliable packets that surely did not arrive.
    pub const NOT_DELIVERED: &str = "moonpool_peer_packets_not_delivered_total";
    /// Counter: reliable packets that may have arrived.
    pub const MAYBE_DELIVERED: &str = "moonpool_peer_packets_maybe_delivered_total";
    /// Counter: sessions that ended.
    pub const SESSIONS_ENDED: &str = "moonpool_peer_sessions_ended_total";
    /// Counter: accepted connections that carry no session: refused, silent, or another protocol.
    pub const HANDSHAKES_REFUSED: &str = "moonpool_peer_handshakes_refused_total";
    /// Histogram, seconds: round trips, Hello to answer and ping to pong.
    pub const ROUND_TRIP: &str = "moonpool_peer_round_trip_seconds";
}
