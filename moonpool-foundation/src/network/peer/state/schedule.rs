//! Time and order: which deadline is next, what is due, and how a close proceeds.

use std::time::Duration;

use crate::network::peer::error::ConnectionError;
use crate::network::peer::packet::SessionEnded;

use super::{
    Action, Alarms, EndStep, PeerState, Phase, RECENT_USE, Rest, Role, SESSION_KEPT, Timeouts,
    liveness::Class,
};

impl PeerState {
    /// The driver runs: stamps what handles left, and acts on deadlines that passed.
    pub(in crate::network::peer) fn handle_timeout(&mut self, now: Duration) {
        if std::mem::take(&mut self.was_used) {
            self.used_until = now.saturating_add(RECENT_USE);
            self.used_at = Some(now);
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
        self.outbox.drop_expired(now);
        self.handle_idleness(now);
        self.handle_outage(now);
        if !self.is_open() {
            self.outbox.stamp(now);
            self.handle_expiry(now);
        } else {
            self.handle_silence(now);
            self.handle_contest(now);
        }
        self.handle_deadlines(now);
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
    pub(in crate::network::peer) fn poll_timeout(&mut self, now: Duration) -> Timeouts {
        let mut timeouts = Timeouts::default();
        match &self.phase {
            Phase::Idle { not_before } => {
                let not_before = *not_before;
                if not_before > now && self.wants_connection(not_before) {
                    let class = Class::ordinary_if(self.is_in_use(not_before));
                    timeouts.add(class, Some(not_before));
                }
            }
            Phase::Open { .. } => {
                self.is_timed = true;
                let contest = self.contest.map(|contest| contest.fails_at);
                timeouts.add(Class::Ordinary, contest);
                self.add_keepalive(now, &mut timeouts);
            }
            Phase::Connecting { deadline } | Phase::Greeting { deadline } => {
                let is_in_use = self.is_in_use(now) || self.closing.is_some() || !self.dials();
                timeouts.add(Class::ordinary_if(is_in_use), Some(*deadline));
            }
            Phase::Ending {
                deadline, cause, ..
            } => {
                let is_ordinary = *cause != ConnectionError::Idle;
                timeouts.add(Class::ordinary_if(is_ordinary), Some(*deadline));
            }
            Phase::Finished => {}
        }
        let patience = match self.patience() {
            Some(patience) if !self.is_open() => self
                .outbox
                .oldest_wait()
                .map(|since| since.saturating_add(patience)),
            _ => None,
        };
        timeouts.add(Class::Ordinary, patience);
        // One that nobody misses ends when the driver runs for another reason. That of a session that
        // waits for its next connection is nobody's hope.
        let is_kept = self.role == Role::KeepSession;
        let is_missed = self.owes() || self.demand.replies || is_kept;
        let session = self.session_deadline().filter(|_| is_missed);
        timeouts.add(Class::ordinary_if(!is_kept), session);
        let close_class = Class::ordinary_if(!self.is_detached());
        timeouts.add(close_class, self.close_deadline());
        timeouts.add(Class::Ordinary, self.outbox.next_expiry());
        timeouts.add(Class::Background, self.failure_deadline());
        timeouts.add(Class::Background, self.idle_deadline());
        timeouts
    }

    /// Whether packets that come and go are all that happens to an open connection, so that nothing is
    /// decided but which of them are laid out.
    #[inline]
    fn is_plain_sailing(&self) -> bool {
        self.is_timed
            && self.is_open()
            && self.closing.is_none()
            && self.disconnect.is_none()
            && self.events.is_empty()
    }

    /// Handles have queued packets, and changed nothing else. Whether that leaves nothing to decide:
    /// then neither `handle_timeout` nor `poll_action` need be asked.
    #[inline]
    pub(in crate::network::peer) fn handle_queued(&mut self, now: Duration) -> bool {
        let is_all = self.is_plain_sailing();
        if is_all && std::mem::take(&mut self.was_used) {
            self.used_until = now.saturating_add(RECENT_USE);
            self.used_at = Some(now);
        }
        is_all
    }

    /// Whether the state can be left alone until the alarms that are set, both after `now`, and for
    /// what `poll_timeout` said since the connection opened: nothing is to be done, and no deadline has
    /// come that is earlier than they are. `is_owed`: something depends on the other end's being there.
    ///
    /// It asks for what packets change and nothing else: the others of the deadlines, once told, only
    /// move away.
    pub(in crate::network::peer) fn can_rest(
        &mut self,
        now: Duration,
        is_owed: bool,
        alarms: Alarms,
    ) -> bool {
        if !self.is_plain_sailing() || self.is_half_done() {
            return false;
        }
        let is_late = |alarm: Duration, deadline: Option<Duration>| {
            deadline.is_some_and(|deadline| deadline < alarm)
        };
        let is_owed = is_owed && (self.exchange.is_some() || self.outbox.unacknowledged() > 0);
        self.note_whether_owed(now, is_owed);
        if is_owed {
            let (class, keepalive) = self.keepalive();
            if is_late(alarms.of(class), keepalive) {
                return false;
            }
        }
        !is_late(alarms.ordinary, self.outbox.next_expiry())
    }

    /// Whether an open connection has packets that were not laid out although they could be, or has
    /// to ask for an acknowledgement.
    #[inline]
    fn is_half_done(&self) -> bool {
        let is_written = self.outbox.batch().is_empty();
        let has_stopped_short = is_written && self.outbox.has_queued() && self.contest.is_none();
        has_stopped_short || self.is_pressed()
    }

    /// What to do next.
    pub(in crate::network::peer) fn poll_action(&mut self, now: Duration) -> Action {
        if let Some(cause) = self.disconnect.take() {
            return Action::Disconnect(cause);
        }
        let is_done = self.closing.is_some() && !self.owes() && !self.outbox.awaits_answers();
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
                self.unconnected_since.get_or_insert(now);
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
        if self.outbox.awaits_answers() {
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
        let has_all = self.outbox.unacknowledged() == 0;
        let is_settled = is_written && has_all && !self.outbox.awaits_answers();
        self.disconnect.is_some()
            || !self.events.is_empty()
            || match (&self.phase, &self.closing) {
                (Phase::Open { .. }, None) => self.is_half_done(),
                (Phase::Open { .. }, Some(closing)) => {
                    has_stopped_short || is_settled || (is_written && !has_all && !closing.asked)
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
