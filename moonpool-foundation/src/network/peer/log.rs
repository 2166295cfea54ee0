//! What peers log of connections and sessions, and how often.
//!
//! What a stranger can cause as often as it likes is said at its full level only while the
//! [`LogLimit`] of the transport allows it, and at `DEBUG` otherwise; the next one that is allowed
//! says how many were left out.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tracing::Level;

use super::error::ConnectionError;
use super::packet::SessionEnded;

/// Messages that may come at once.
const BURST: u32 = 10;

/// After which one more may.
const REFILL: Duration = Duration::from_secs(1);

/// A token bucket: [`BURST`] messages at once, one per [`REFILL`] in the long run.
#[derive(Debug, Default)]
pub(super) struct LogLimit {
    used: Cell<u32>,
    /// What was used is given back from here on.
    since: Cell<Duration>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    /// Whether a message may be said now; then the number of those that might not since the last.
    pub(super) fn admit(&self, now: Duration) -> Option<u64> {
        let refilled = now.saturating_sub(self.since.get()).as_secs() / REFILL.as_secs();
        if refilled > 0 {
            let given_back = u32::try_from(refilled).unwrap_or(u32::MAX);
            self.used.set(self.used.get().saturating_sub(given_back));
            self.since.set(now);
        }
        if self.used.get() >= BURST {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.used.set(self.used.get() + 1);
        Some(self.suppressed.take())
    }
}

/// How much attention the end of a working connection deserves.
fn level_of(cause: &ConnectionError) -> Level {
    match cause {
        ConnectionError::Wire(_)
        | ConnectionError::Protocol(_)
        | ConnectionError::Damaged { .. }
        | ConnectionError::Incompatible { .. }
        | ConnectionError::NoMemory { .. }
        | ConnectionError::Config(_) => Level::WARN,
        ConnectionError::Connect { .. }
        | ConnectionError::TimedOut { .. }
        | ConnectionError::Lost { .. }
        | ConnectionError::Silent { .. }
        | ConnectionError::Ended
        | ConnectionError::RemoteClosed
        | ConnectionError::Reconnect
        | ConnectionError::Closed
        | ConnectionError::GaveUp { .. } => Level::INFO,
        ConnectionError::Superseded { .. } | ConnectionError::Ourselves | ConnectionError::Idle => {
            Level::DEBUG
        }
    }
}

/// `tracing` wants levels that are known where it is called.
macro_rules! say {
    ($level:expr, $($message:tt)*) => {
        match $level {
            Level::WARN => tracing::warn!(target: "moonpool::peer", $($message)*),
            Level::INFO => tracing::info!(target: "moonpool::peer", $($message)*),
            _ => tracing::debug!(target: "moonpool::peer", $($message)*),
        }
    };
}

/// What one peer says.
pub(super) struct PeerLog {
    limit: Rc<LogLimit>,
    /// Of its connections, how many were told of.
    connections: Cell<u64>,
    /// Attempts that failed since the last connection.
    failures: Cell<u32>,
}

impl PeerLog {
    /// `limit` is shared by all whom the same stranger may annoy.
    pub(super) fn new(limit: Rc<LogLimit>) -> Self {
        Self {
            limit,
            connections: Cell::new(0),
            failures: Cell::new(0),
        }
    }

    /// Has one more connection become usable? `connections` counts them.
    #[inline]
    pub(super) fn note_connections(&self, now: Duration, peer: &str, connections: u64) {
        if connections != self.connections.replace(connections) {
            self.failures.set(0);
            let (level, suppressed) = self.limited(now, Level::INFO);
            say!(level, peer, connections, suppressed, "connected");
        }
    }

    /// A connection, or the attempt to get one, ended. `was_open`: packets could flow on it.
    pub(super) fn note_end(
        &self,
        now: Duration,
        peer: &str,
        was_open: bool,
        cause: &ConnectionError,
    ) {
        let level = level_of(cause);
        if was_open {
            let (level, suppressed) = self.limited(now, level);
            say!(level, peer, cause = %Chain(cause), suppressed, "disconnected");
            return;
        }
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        // The first, the second, the fourth ..: an address that is never reachable fills no log.
        let level = if failures.is_power_of_two() {
            level
        } else {
            Level::DEBUG
        };
        let (level, suppressed) = self.limited(now, level);
        say!(level, peer, cause = %Chain(cause), failures, suppressed, "no connection");
    }

    fn limited(&self, now: Duration, level: Level) -> (Level, u64) {
        if level == Level::DEBUG {
            return (level, 0);
        }
        match self.limit.admit(now) {
            Some(suppressed) => (level, suppressed),
            None => (Level::DEBUG, 0),
        }
    }
}

/// A session ended.
pub(super) fn note_session_end(peer: &str, ended: &SessionEnded) {
    let count = |range: &std::ops::Range<super::PacketId>| range.end.get() - range.start.get();
    let not_delivered = count(&ended.not_delivered);
    let maybe_delivered = count(&ended.maybe_delivered);
    tracing::debug!(
        target: "moonpool::peer",
        peer, not_delivered, maybe_delivered, "session ended"
    );
}

/// An accepted connection gets no session.
pub(super) fn note_refused(limit: &LogLimit, now: Duration, peer: &str, cause: &ConnectionError) {
    let level = match cause {
        // Whoever only looks whether the port is open.
        ConnectionError::Ended
        | ConnectionError::TimedOut { .. }
        | ConnectionError::Lost { .. } => Level::DEBUG,
        cause => level_of(cause),
    };
    let admitted = if level == Level::DEBUG {
        None
    } else {
        limit.admit(now)
    };
    let level = admitted.map_or(Level::DEBUG, |_| level);
    let suppressed = admitted.unwrap_or_default();
    say!(level, peer, cause = %Chain(cause), suppressed, "handshake refused");
}

/// An error with what is behind it: `bad packet: checksum mismatch`.
struct Chain<'a>(&'a ConnectionError);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_is_cut_off_and_counted() {
        let limit = LogLimit::default();
        let second = Duration::from_secs(1);
        let admitted = (0..100).filter(|_| limit.admit(second).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(second * 2), Some(90));
        assert_eq!(limit.admit(second * 2), None);
        assert_eq!(limit.admit(second * 60), Some(1));
    }

    #[test]
    fn a_message_says_what_is_behind_an_error() {
        let cause =
            ConnectionError::from(crate::WireError::InsufficientData { needed: 8, have: 3 });
        let text = Chain(&cause).to_string();
        assert!(text.starts_with("bad packet: "), "{text}");
    }
}
