//! One connection's life: made, greeted, packets in and out, over.

use std::time::Duration;

use crate::messaging::wire::SEQUENCED_PREFIX_SIZE;
use crate::messaging::{UID, WellKnownToken, WireError};
use crate::network::peer::error::{ConnectionError, ProtocolError};
use crate::network::peer::exchange::{Answered, Exchange, Greeted, Inbound};
use crate::network::peer::frame::Batch;
use crate::network::peer::outbox::LaidOut;
use crate::network::peer::packet::ConnectionChange;
use crate::network::peer::session::{Hello, HelloAnswer};
use crate::sometimes_assert;

use super::{
    Attachment, EndStep, Event, INCOMPATIBLE_PROBE, LastConnection, Liveness, MAX_EVENTS, Outage,
    PeerState, Phase, Rest, Role,
};

impl PeerState {
    /// A connection was made. `session` is a random id for a session that may begin on it.
    pub(in crate::network::peer) fn handle_connected(&mut self, now: Duration, session: UID) {
        let Phase::Connecting { deadline } = self.phase else {
            return;
        };
        match &mut self.exchange {
            Some(exchange) => {
                exchange.greet(now, session, &mut self.outbox);
                self.phase = Phase::Greeting { deadline };
            }
            None => self.open(now),
        }
    }

    /// A connection was accepted whose Hello is for this peer. What an older connection, or an
    /// attempt to get one, still brings must not be handled any more.
    ///
    /// # Errors
    /// Why the connection has to end, and the session with it: call `handle_closed` with it.
    pub(in crate::network::peer) fn handle_attached(
        &mut self,
        now: Duration,
        hello: &Hello,
        attachment: Attachment,
    ) -> Result<(), ConnectionError> {
        let was_open = self.is_open();
        if matches!(self.phase, Phase::Ending { .. } | Phase::Finished) {
            return Err(ConnectionError::Closed);
        }
        let Some(exchange) = &mut self.exchange else {
            return Err(ConnectionError::Closed);
        };
        sometimes_assert!(
            connection_fenced,
            was_open,
            "a newer connection came before the old one ended"
        );
        exchange.handle_closed();
        self.outbox.end_connection(was_open.then_some(now));
        if let Attachment::Begin(_) = attachment
            && self.has_session()
        {
            self.end_session(true, Rest::Moves);
        }
        let Some(exchange) = &mut self.exchange else {
            return Err(ConnectionError::Closed);
        };
        match attachment {
            Attachment::Resume => self.outbox.resume(exchange.expected_by(hello))?,
            Attachment::Begin(session) => exchange.begin_accepted(session),
        }
        exchange.accept(hello, &mut self.outbox);
        self.disconnect = None;
        if let Some(closing) = &mut self.closing {
            closing.asked = false;
        }
        self.open(now);
        self.is_accepted = true;
        if self.contest.is_some() {
            // Who resumes the session may still be a Hello that was long on its way.
            self.contest(now);
        }
        Ok(())
    }

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { since: now };
        self.last_connection = None;
        self.unconnected_since = None;
        self.liveness = Liveness::opened(now);
        self.is_timed = false;
        self.outage = Outage::None;
        if self.dials() {
            self.push_event(Event::Connection(ConnectionChange::Opened));
        }
        self.failures = 0;
        self.is_accepted = false;
        self.metrics.reconnects += u64::from(self.metrics.connections > 0);
        self.metrics.connections += 1;
    }

    /// Bytes were read.
    #[inline]
    pub(in crate::network::peer) fn handle_read(&mut self, bytes: usize) {
        self.metrics.bytes_received += u64::try_from(bytes).unwrap_or(u64::MAX);
        self.liveness.handle_read(bytes);
    }

    /// A packet arrived.
    ///
    /// # Errors
    /// Why the connection has to end: call `handle_closed` with it.
    #[inline]
    pub(in crate::network::peer) fn handle_packet<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        match self.take_expected(now, token, payload) {
            Some((token, payload)) => Ok(Inbound::Deliver {
                token,
                payload,
                reliable: true,
            }),
            None => self.judge_packet(now, token, payload),
        }
    }

    /// The token and payload of the reliable packet that is next, about which there is nothing else
    /// to decide. `None`: nothing was done about it.
    fn take_expected<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
    ) -> Option<(UID, &'a [u8])> {
        let limit = self.config.max_payload_bytes as usize;
        let is_too_large = payload.len() > limit + SEQUENCED_PREFIX_SIZE;
        if is_too_large || self.contest.is_some() || !self.is_open() {
            return None;
        }
        let exchange = self.exchange.as_mut()?;
        let expected = exchange.take_expected(token, payload, &mut self.outbox)?;
        self.liveness.handle_packet(now);
        self.metrics.packets_received += 1;
        Some(expected)
    }

    fn judge_packet<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        self.liveness.handle_packet(now);
        let inbound = match (&self.phase, &mut self.exchange) {
            (Phase::Open { .. }, None) => self.handle_plain(now, token, payload)?,
            (Phase::Open { .. }, Some(exchange)) => {
                exchange.handle_packet(now, token, payload, &mut self.outbox)?
            }
            (Phase::Greeting { .. }, Some(_)) => self.handle_greeting(now, token, payload)?,
            _ => Inbound::Consumed,
        };
        self.settle_contest();
        if let Inbound::Deliver { payload, .. } = inbound {
            let limit = self.config.max_payload_bytes as usize;
            if payload.len() > limit {
                let size = payload.len();
                return Err(WireError::PacketTooLarge { size, limit }.into());
            }
            self.metrics.packets_received += 1;
        }
        Ok(inbound)
    }

    /// In plain mode a Hello is told that it came to the wrong place.
    fn handle_plain<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        match WellKnownToken::session_frame(token) {
            None => Ok(Inbound::Deliver {
                token,
                payload,
                reliable: false,
            }),
            Some(WellKnownToken::Hello) => {
                let answer = HelloAnswer::incompatible(UID::NIL, 0, 0);
                self.outbox
                    .push_last_control(WellKnownToken::HelloAnswer, &answer.encode());
                self.refuse(now, 0, 0);
                Ok(Inbound::Consumed)
            }
            Some(frame) => Err(ProtocolError::UnexpectedFrame { frame }.into()),
        }
    }

    fn handle_greeting<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &[u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        let Some(exchange) = &mut self.exchange else {
            return Ok(Inbound::Consumed);
        };
        if self.role == Role::Accept {
            match exchange.handle_hello(token, payload, &mut self.outbox)? {
                Greeted::Fresh => self.open(now),
                Greeted::Refused {
                    version_min,
                    version_max,
                } => self.refuse(now, version_min, version_max),
            }
            return Ok(Inbound::Consumed);
        }
        let (answered, session) = exchange.handle_answer(now, token, payload)?;
        if answered == Answered::Fresh {
            self.check_rivals()?;
        }
        match answered {
            Answered::Resumed { next_expected } => {
                sometimes_assert!(
                    session_resumed,
                    true,
                    "a session went on with a new connection"
                );
                self.outbox.resume(next_expected)?;
            }
            Answered::Fresh if self.has_session() => {
                sometimes_assert!(
                    session_lost,
                    true,
                    "the other end did not know a session any more"
                );
                self.end_session(true, Rest::Moves);
            }
            Answered::Fresh => {}
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.begin(session);
        }
        self.open(now);
        Ok(Inbound::Consumed)
    }

    /// The answer that is laid out is the last thing this connection carries.
    fn refuse(&mut self, now: Duration, version_min: u16, version_max: u16) {
        self.phase = Phase::Ending {
            step: EndStep::Flush,
            deadline: now.saturating_add(self.config.connect_timeout),
            cause: ConnectionError::Incompatible {
                version_min,
                version_max,
            },
        };
    }

    /// The driver has its turn.
    #[inline]
    pub(in crate::network::peer) fn begin_turn(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            exchange.begin_turn();
        }
    }

    /// Whether the driver has to have another turn, after everybody who can go on now: what they
    /// send may carry an acknowledgement that is due.
    #[inline]
    pub(in crate::network::peer) fn awaits_turn(&self) -> bool {
        self.exchange.as_ref().is_some_and(Exchange::awaits_turn)
    }

    /// Whether [`lay_out`](Self::lay_out) may give something.
    #[inline]
    pub(in crate::network::peer) fn has_output(&self) -> bool {
        let owes = |exchange: &Exchange| exchange.is_urgent() || exchange.owes_ack();
        !self.outbox.batch().is_empty()
            || self.outbox.has_queued()
            || self.exchange.as_ref().is_some_and(owes)
    }

    /// Whether that turn may come later than with the next round of the scheduler.
    pub(in crate::network::peer) fn awaits_large_answers(&self) -> bool {
        self.exchange
            .as_ref()
            .is_some_and(Exchange::awaits_large_answers)
    }

    /// Lays out what can be written now. The batch is to be written from;
    /// [`put_back`](Self::put_back) has to follow at once. `None`: there is nothing to write.
    #[inline]
    pub(in crate::network::peer) fn lay_out(&mut self, now: Duration) -> Option<Batch> {
        if self.is_open() {
            // A full batch has no place for pongs either, or an end that asks and never reads would
            // make it grow without limit. Nothing is lost: until a frame has left, none of them could.
            if let Some(exchange) = &mut self.exchange
                && exchange.is_urgent()
                && self.outbox.batch().has_room()
            {
                exchange.lay_out_urgent(&mut self.outbox);
            }
            if self.outbox.has_queued() && self.contest.is_none() {
                self.lay_out_queued(now);
            }
            if let Some(exchange) = &mut self.exchange
                && exchange.owes_ack()
                && self.outbox.batch().has_room()
                && exchange.wants_ack()
            {
                exchange.lay_out_ack(&mut self.outbox);
            }
        }
        (!self.outbox.batch().is_empty()).then(|| self.outbox.take_batch())
    }

    fn lay_out_queued(&mut self, now: Duration) {
        let limit = self.max_payload();
        // What arrives moves it, and nothing does while this goes on.
        let ack = self.exchange.as_ref().map_or(0, Exchange::ack);
        if self.outbox.lay_out_plain(now, ack, limit as usize)
            && let Some(exchange) = &mut self.exchange
        {
            exchange.handle_ack_laid_out();
        }
        while self.outbox.has_queued()
            && self.outbox.batch().has_room()
            && self.events.len() < MAX_EVENTS
        {
            match self.outbox.lay_out_next(now, ack, limit as usize) {
                LaidOut::Nothing => break,
                LaidOut::Unreliable => {}
                LaidOut::Withdrawn(id) => self.push_event(Event::Withdrawn { id, limit }),
                LaidOut::Reliable => {
                    if let Some(exchange) = &mut self.exchange {
                        exchange.handle_ack_laid_out();
                    }
                }
            }
        }
    }

    /// `bytes` more bytes of the batch are written.
    pub(in crate::network::peer) fn put_back(&mut self, batch: Batch, bytes: usize) {
        self.outbox.put_back(batch, bytes);
    }

    /// The connection, or the attempt to get one, is over. `jitter` is any random number.
    pub(in crate::network::peer) fn handle_closed(
        &mut self,
        now: Duration,
        cause: ConnectionError,
        jitter: u64,
    ) {
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        if phase == Phase::Finished {
            return;
        }
        let was_open = matches!(phase, Phase::Open { .. });
        let was_closing =
            matches!(&phase, Phase::Ending { cause, .. } if *cause == ConnectionError::Closed);
        let cause = self.settle_phase(now, phase, cause);
        self.disconnect = None;
        if let Some(exchange) = &mut self.exchange {
            exchange.handle_closed();
        }
        if let Some(closing) = &mut self.closing {
            closing.asked = false;
        }
        if was_open {
            self.unconnected_since = Some(now);
        }
        self.count_violation(&cause);
        if was_open && self.dials() {
            self.push_event(Event::Connection(ConnectionChange::Lost));
        }
        self.outbox.end_connection(was_open.then_some(now));
        let failures = self.failures;
        self.contest = None;
        let cedes = std::mem::take(&mut self.has_heir) || cause == ConnectionError::Ourselves;
        let gives_up = self
            .config
            .max_connection_failures
            .is_some_and(|max| failures >= max);
        if gives_up {
            self.fail();
        }
        let survives = self.survives(&cause);
        let finishes = gives_up || cedes || self.ends_with(&cause, survives);
        if finishes || !survives {
            let had_session = match self.exchange {
                Some(_) => self.has_session(),
                None => was_open || was_closing,
            };
            let rest = match finishes && !cedes {
                true => Rest::Dropped,
                false => Rest::Moves,
            };
            self.end_session(had_session, rest);
        } else if was_open {
            self.last_connection = Some(LastConnection {
                lost_at: now,
                is_missed: self.outbox.has_numbered() || self.demand.replies,
            });
        }
        self.is_ceding = cedes;
        if !finishes {
            self.phase = match self.role {
                Role::Accept | Role::KeepSession => Phase::DETACHED,
                Role::DialEagerly | Role::DialLazily => Phase::Idle {
                    not_before: self.next_attempt(now, &cause, jitter),
                },
            };
        }
        self.metrics.last_error = Some(if gives_up {
            ConnectionError::GaveUp { failures }
        } else {
            cause
        });
    }

    /// Draws the conclusions from how far the connection had come, and gives the cause of its end.
    fn settle_phase(
        &mut self,
        now: Duration,
        phase: Phase,
        cause: ConnectionError,
    ) -> ConnectionError {
        match phase {
            Phase::Open { since } => {
                if now.saturating_sub(since) >= self.config.healthy_after {
                    self.backoff.reset();
                }
                cause
            }
            Phase::Ending {
                step, cause: known, ..
            } => {
                let is_orderly = cause == ConnectionError::Ended && step == EndStep::Linger;
                if is_orderly || self.exchange.is_some() {
                    self.outbox.settle_written();
                }
                known
            }
            Phase::Idle { .. } | Phase::Connecting { .. } | Phase::Greeting { .. } => {
                self.count_failure(&cause);
                cause
            }
            Phase::Finished => cause,
        }
    }

    /// Whether the session outlives a connection that ended for this.
    fn survives(&self, cause: &ConnectionError) -> bool {
        let is_over = matches!(
            cause,
            ConnectionError::RemoteClosed
                | ConnectionError::Closed
                | ConnectionError::Idle
                | ConnectionError::Protocol(_)
        );
        self.exchange.is_some() && !is_over
    }

    /// Whether nothing comes after a connection that ended for this.
    fn ends_with(&self, cause: &ConnectionError, survives: bool) -> bool {
        let is_done = self.closing.is_some() && !self.owes();
        *cause == ConnectionError::Closed
            || is_done
            || match self.role {
                Role::Accept => true,
                Role::KeepSession => !survives || self.closing.is_some(),
                Role::DialEagerly | Role::DialLazily => false,
            }
    }

    fn count_failure(&mut self, cause: &ConnectionError) {
        match cause {
            // A newer connection of ours is there, or the user wanted it so.
            ConnectionError::Superseded { .. }
            | ConnectionError::Ourselves
            | ConnectionError::Reconnect
            | ConnectionError::Closed => {}
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.metrics.connection_failures += 1;
            }
        }
    }

    fn count_violation(&mut self, cause: &ConnectionError) {
        sometimes_assert!(
            connection_teardown_on_wire_error,
            matches!(cause, ConnectionError::Wire(_)),
            "a connection ended because of what arrived on it"
        );
        if matches!(
            cause,
            ConnectionError::Wire(_) | ConnectionError::Protocol(_)
        ) {
            self.metrics.protocol_errors += 1;
        }
    }

    fn next_attempt(&mut self, now: Duration, cause: &ConnectionError, jitter: u64) -> Duration {
        let delay = match cause {
            ConnectionError::Reconnect => {
                self.was_used = true;
                Duration::ZERO
            }
            // It was not the other end's fault.
            ConnectionError::Idle => Duration::ZERO,
            ConnectionError::Incompatible { .. } => INCOMPATIBLE_PROBE,
            _ => self.backoff.next_delay(jitter),
        };
        now.saturating_add(delay)
    }
}
