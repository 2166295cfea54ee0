//! Time and order: which deadline is next, what is due, and how a close proceeds.

use std::time::Duration;

use crate::network::peer::error::ConnectionError;
use crate::network::peer::packet::SessionEnded;

use super::{
    Action, EndStep, Liveness, PING_AFTER, PeerState, Phase, RECENT_USE, Rest, Role, SESSION_KEPT,
    SIGN_OF_LIFE_BYTES, SILENT_AFTER,
};

impl Liveness {
    /// When the other end is to be asked.
    fn ping_at(&self) -> Option<Duration> {
        let silent_since = self.owed_since?.max(self.heard_at);
        Some(silent_since.saturating_add(PING_AFTER))
    }
}

impl PeerState {
    /// The driver runs: stamps what handles left, and acts on deadlines that passed.
    pub(in crate::network::peer) fn handle_timeout(&mut self, now: Duration) {
        if std::mem::take(&mut self.was_used) {
            self.used_until = now.saturating_add(RECENT_USE);
        }
        if let Some(closing) = &mut self.closing
            && let Some(grace) = closing.grace.take()
        {
            let deadline = now.saturating_add(grace);
            closing.deadline = Some(
                closing
                    .deadline
                    .map_or(deadline, |known| known.min(deadline)),
            );
        }
        if !self.is_open() {
            self.outbox.stamp(now);
            self.handle_expiry(now);
        } else {
            self.handle_silence(now);
            self.handle_contest(now);
        }
        self.handle_deadlines(now);
    }

    /// Asks for a sign of life while packets are unacknowledged, and gives the connection up if none
    /// comes.
    fn handle_silence(&mut self, now: Duration) {
        self.note_owed(now);
        let Liveness {
            fails_at,
            grown_bytes,
            ..
        } = self.liveness;
        match fails_at {
            None if self.liveness.ping_at().is_some_and(|at| at <= now) => {
                if let Some(exchange) = &mut self.exchange {
                    exchange.ask(now);
                }
                self.await_sign_of_life(now);
            }
            Some(at) if at <= now && grown_bytes >= SIGN_OF_LIFE_BYTES => {
                self.await_sign_of_life(now);
            }
            Some(at) if at <= now => {
                let after = SILENT_AFTER;
                self.disconnect
                    .get_or_insert(ConnectionError::Silent { after });
            }
            None | Some(_) => {}
        }
    }

    /// Notes since when packets are unacknowledged.
    fn note_owed(&mut self, now: Duration) {
        if self.outbox.unacknowledged() == 0 || !self.is_open() {
            self.liveness.owed_since = None;
            self.liveness.fails_at = None;
        } else {
            self.liveness.owed_since.get_or_insert(now);
        }
    }

    fn await_sign_of_life(&mut self, now: Duration) {
        self.liveness.fails_at = Some(now.saturating_add(SILENT_AFTER));
        self.liveness.grown_bytes = 0;
    }

    /// Ends a session that was without a connection for too long, and drops packets that were.
    fn handle_expiry(&mut self, now: Duration) {
        let is_over = self
            .session_deadline()
            .is_some_and(|deadline| deadline <= now);
        if is_over && matches!(self.phase, Phase::Greeting { .. }) {
            // It is offered on this connection: an answer would be about the session that ended.
            let after = self.config.connect_timeout;
            self.disconnect
                .get_or_insert(ConnectionError::TimedOut { after });
        }
        let limit = self
            .patience()
            .and_then(|patience| now.checked_sub(patience));
        if is_over && self.role == Role::KeepSession {
            self.finish(ConnectionError::TimedOut {
                after: SESSION_KEPT,
            });
        } else if is_over {
            self.end_session(true, limit.map_or(Rest::Moves, Rest::Overdue));
        } else if !self.outbox.has_numbered()
            && let Some(limit) = limit
        {
            self.drop_overdue(limit);
        }
    }

    /// Drops what ran out of patience, and leaves the session, if there is one, as it is.
    fn drop_overdue(&mut self, limit: Duration) {
        let not_delivered = self.outbox.drop_overdue(limit);
        if !not_delivered.is_empty() {
            self.report(SessionEnded {
                maybe_delivered: not_delivered.start..not_delivered.start,
                not_delivered,
            });
        }
    }

    /// When the session ends for want of a connection.
    fn session_deadline(&self) -> Option<Duration> {
        let last = self.last_connection.as_ref()?;
        let kept = match self.patience() {
            Some(patience) if last.is_missed => patience.min(SESSION_KEPT),
            _ => SESSION_KEPT,
        };
        Some(last.lost_at.saturating_add(kept))
    }

    fn handle_deadlines(&mut self, now: Duration) {
        let after = self.config.connect_timeout;
        match &self.phase {
            Phase::Connecting { deadline } | Phase::Greeting { deadline } if *deadline <= now => {
                self.disconnect
                    .get_or_insert(ConnectionError::TimedOut { after });
            }
            Phase::Ending {
                deadline, cause, ..
            } if *deadline <= now => {
                self.disconnect.get_or_insert(cause.clone());
            }
            _ => {}
        }
        if self
            .close_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            match self.phase {
                Phase::Idle { .. } => self.finish(ConnectionError::Closed),
                Phase::Finished => {}
                _ => self.disconnect = Some(ConnectionError::Closed),
            }
        }
    }

    /// When `handle_timeout` has to be called next.
    pub(in crate::network::peer) fn poll_timeout(&mut self, now: Duration) -> Option<Duration> {
        self.note_owed(now);
        let phase = match &self.phase {
            Phase::Idle { not_before }
                if *not_before > now && self.wants_connection(*not_before) =>
            {
                Some(*not_before)
            }
            Phase::Open { .. } => {
                let contest = self.contest.map(|contest| contest.fails_at);
                let silence = self.liveness.fails_at.or(self.liveness.ping_at());
                contest.into_iter().chain(silence).min()
            }
            Phase::Idle { .. } | Phase::Finished => None,
            Phase::Connecting { deadline }
            | Phase::Greeting { deadline }
            | Phase::Ending { deadline, .. } => Some(*deadline),
        };
        let patience = match self.patience() {
            Some(patience) if !self.is_open() => self
                .outbox
                .oldest_wait()
                .map(|since| since.saturating_add(patience)),
            _ => None,
        };
        // One that nobody misses ends when the driver runs for another reason.
        let is_missed = self.owes() || self.expects_replies || self.role == Role::KeepSession;
        let session = self.session_deadline().filter(|_| is_missed);
        [phase, patience, session, self.close_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What to do next.
    pub(in crate::network::peer) fn poll_action(&mut self, now: Duration) -> Action {
        if let Some(cause) = self.disconnect.take() {
            return Action::Disconnect(cause);
        }
        let is_done = self.closing.is_some() && !self.owes();
        // Nothing here can bring the other end back.
        let is_accepted = self.role == Role::KeepSession;
        match &mut self.phase {
            Phase::Finished => Action::Finish,
            Phase::Idle { .. } if is_done || (self.closing.is_some() && is_accepted) => {
                self.finish(ConnectionError::Closed);
                Action::Finish
            }
            Phase::Idle { not_before } => {
                let not_before = *not_before;
                if now < not_before || !self.wants_connection(now) {
                    return Action::Wait;
                }
                self.metrics.connection_attempts += 1;
                let deadline = now.saturating_add(self.config.connect_timeout);
                self.phase = Phase::Connecting { deadline };
                Action::Connect
            }
            Phase::Connecting { .. } | Phase::Greeting { .. } if is_done => {
                Action::Disconnect(ConnectionError::Closed)
            }
            Phase::Connecting { .. } | Phase::Greeting { .. } => Action::Wait,
            Phase::Open { .. } => {
                self.advance_close(now);
                self.poll_shutdown()
            }
            Phase::Ending { .. } => self.poll_shutdown(),
        }
    }

    /// While closing: once everything is written, asks for the acknowledgements that are missing,
    /// and once those are there, says goodbye.
    fn advance_close(&mut self, now: Duration) {
        let Some(closing) = &mut self.closing else {
            return;
        };
        if self.outbox.has_queued() || !self.outbox.batch().is_empty() {
            return;
        }
        if self.outbox.unacknowledged() > 0 {
            if !std::mem::replace(&mut closing.asked, true)
                && let Some(exchange) = &mut self.exchange
            {
                exchange.ask(now);
                exchange.lay_out_urgent(&mut self.outbox);
            }
            return;
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.lay_out_close(&mut self.outbox);
        }
        self.phase = Phase::Ending {
            step: EndStep::Flush,
            deadline: closing.deadline.unwrap_or(now),
            cause: ConnectionError::Closed,
        };
    }

    /// Whether `poll_action` or `poll_event` has something to say already, so that waiting would
    /// be wrong: reading and writing may have finished what they waited for.
    pub(in crate::network::peer) fn has_more_to_do(&self) -> bool {
        let is_written = self.outbox.batch().is_empty();
        let has_stopped_short = is_written && self.outbox.has_queued() && self.contest.is_none();
        let is_settled = is_written && self.outbox.unacknowledged() == 0;
        self.disconnect.is_some()
            || !self.events.is_empty()
            || match (&self.phase, &self.closing) {
                (Phase::Open { .. }, None) => has_stopped_short,
                (Phase::Open { .. }, Some(closing)) => {
                    has_stopped_short || is_settled || (is_written && !closing.asked)
                }
                (Phase::Ending { step, .. }, _) => *step == EndStep::Flush && is_written,
                _ => false,
            }
    }

    fn poll_shutdown(&mut self) -> Action {
        match &mut self.phase {
            Phase::Ending { step, .. }
                if *step == EndStep::Flush && self.outbox.batch().is_empty() =>
            {
                *step = EndStep::Shutdown;
                Action::Shutdown
            }
            _ => Action::Wait,
        }
    }

    /// This end's half of the stream is ended.
    pub(in crate::network::peer) fn handle_shutdown(&mut self) {
        if let Phase::Ending { step, .. } = &mut self.phase {
            *step = EndStep::Linger;
        }
    }
}
