//! How sessions and the peer itself end, and what is reported then.

use std::time::Duration;

use crate::always_assert;
use crate::network::peer::error::ConnectionError;
use crate::network::peer::exchange::Exchange;
use crate::network::peer::packet::SessionEnded;

use super::{Event, PeerState, Phase};

/// What becomes of the packets that were never written, when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// They wait for the next session.
    Moves,
    /// Those that wait since this time, or longer, are dropped.
    Overdue(Duration),
    /// They are dropped.
    Dropped,
}

impl PeerState {
    /// The peer was dropped.
    pub(in crate::network::peer) fn handle_dropped(&mut self) {
        self.is_ceding = false;
        if self.phase != Phase::Finished {
            self.metrics.last_error = Some(ConnectionError::Closed);
            self.phase = Phase::Finished;
            self.outbox.end_connection(None);
            let ended = self.end_packets(Rest::Dropped);
            self.note_undelivered(&ended);
        }
    }

    /// Ends for good, without a connection.
    pub(super) fn finish(&mut self, cause: ConnectionError) {
        self.phase = Phase::Finished;
        self.metrics.last_error = Some(cause);
        let had_session = self.has_session();
        self.end_session(had_session, Rest::Dropped);
    }

    /// Ends the session, if there is one, and gives up what cannot move to the next. There must be
    /// no connection. Reported if there was a session, or a packet is affected.
    pub(super) fn end_session(&mut self, had_session: bool, rest: Rest) {
        self.last_connection = None;
        if let Some(exchange) = &mut self.exchange {
            exchange.end_session();
        }
        let ended = self.end_packets(rest);
        if had_session || !ended.maybe_delivered.is_empty() || !ended.not_delivered.is_empty() {
            self.report(ended);
        }
    }

    pub(super) fn end_packets(&mut self, rest: Rest) -> SessionEnded {
        let maybe_delivered = self.outbox.end_session();
        let not_delivered = match rest {
            Rest::Moves => maybe_delivered.end..maybe_delivered.end,
            Rest::Overdue(limit) => self.outbox.drop_overdue(limit),
            Rest::Dropped => self.outbox.drop_all(),
        };
        SessionEnded {
            not_delivered,
            maybe_delivered,
        }
    }

    /// Whether a session was agreed on with the other end, and has not ended.
    pub(super) fn has_session(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::has_session)
    }

    pub(super) fn report(&mut self, ended: SessionEnded) {
        always_assert!(
            reported_ranges_adjoin,
            ended.maybe_delivered.end == ended.not_delivered.start,
            "{ended:?} leaves packets out"
        );
        if self.closing.is_some() {
            self.note_undelivered(&ended);
        }
        self.push_event(Event::SessionEnded(ended));
    }

    /// Remembers what a `close()` is to answer: one report that covers this one and earlier ones.
    pub(super) fn note_undelivered(&mut self, ended: &SessionEnded) {
        if ended.maybe_delivered.is_empty() && ended.not_delivered.is_empty() {
            return;
        }
        let start = match &self.undelivered {
            Some(earlier) => earlier.maybe_delivered.start,
            None => ended.maybe_delivered.start,
        };
        self.undelivered = Some(SessionEnded {
            not_delivered: ended.not_delivered.clone(),
            maybe_delivered: start..ended.maybe_delivered.end,
        });
    }

    pub(in crate::network::peer) fn undelivered(&self) -> Option<SessionEnded> {
        self.undelivered.clone()
    }
}
