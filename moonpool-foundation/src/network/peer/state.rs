//! A peer's decisions, without I/O: when to dial, greet, write, back off, give up, close.
//!
//! The driver tells what happened (`handle_*`), asks what to do (`poll_*`) and does it. Nothing
//! here has a clock, a socket or a source of randomness: `now` and random draws are arguments.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::{UID, WellKnownToken};

use super::backoff::Backoff;
use super::config::PeerConfig;
use super::error::{ConnectionError, PeerError};
use super::exchange::{Exchange, Greeted, Inbound, Remote};
use super::metrics::PeerMetrics;
use super::outbox::{Batch, LaidOut, Outbox, Prefix};
use super::packet::{PacketId, SessionEnded};
use super::session::{HelloAnswer, ProtocolError, SessionMode};

/// How long an incompatible peer is left alone.
const INCOMPATIBLE_PROBE: Duration = Duration::from_secs(60);

/// How long a lazy dialler that lost its connection still counts as used, if nothing is queued.
const RECENT_USE: Duration = Duration::from_secs(3);

/// Reports that wait for the driver before no more packets are withdrawn.
const MAX_EVENTS: usize = 1024;

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Wait for bytes, for room to write, for a handle, or for `poll_timeout`.
    Wait,
    /// Make a connection, then call `handle_connected` or `handle_closed`.
    Connect,
    /// Drop the connection or the attempt and call `handle_closed` with this.
    Disconnect(ConnectionError),
    /// End this end's half of the stream, then call `handle_shutdown`.
    Shutdown,
    /// Drop everything and end.
    Finish,
}

/// What users are to be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    SessionEnded(SessionEnded),
    Withdrawn { id: PacketId, limit: u32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Dials at once and always again.
    DialEagerly,
    /// Dials when something is to be sent, and while that is recent.
    DialLazily,
    Accept,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// No connection. None is made before this time.
    Idle {
        not_before: Duration,
    },
    /// A connection is being made.
    Connecting {
        deadline: Duration,
    },
    /// There is a connection, and the first packet is awaited.
    Greeting {
        deadline: Duration,
    },
    /// Packets flow.
    Open {
        since: Duration,
    },
    /// Last frames leave, then the stream ends.
    Ending {
        step: EndStep,
        deadline: Duration,
        cause: ConnectionError,
    },
    Finished,
}

/// How far the end of a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndStep {
    /// What is laid out is being written.
    Flush,
    /// This end's half of the stream is being ended.
    Shutdown,
    /// The other end's half is awaited: dropping the stream earlier could reset it, and lose
    /// what is on its way.
    Linger,
}

/// A `close()` that was asked for.
#[derive(Debug)]
struct Closing {
    /// Given since the driver ran last.
    grace: Option<Duration>,
    deadline: Option<Duration>,
    /// Whether the other end was asked what it has received.
    asked: bool,
}

/// The whole state of one peer.
#[derive(Debug)]
pub(super) struct PeerState {
    config: PeerConfig,
    role: Role,
    phase: Phase,
    outbox: Outbox,
    /// In acknowledged mode.
    exchange: Option<Exchange>,
    backoff: Backoff,
    failures: u32,
    closing: Option<Closing>,
    disconnect: Option<ConnectionError>,
    /// A handle sent something since the driver ran last.
    was_used: bool,
    used_until: Duration,
    events: VecDeque<Event>,
    /// What `close()` could not deliver.
    undelivered: Option<SessionEnded>,
    metrics: PeerMetrics,
}

impl PeerState {
    /// A peer that dials.
    pub(super) fn dialling(config: PeerConfig, mode: SessionMode) -> Self {
        let role = match mode {
            SessionMode::Plain => Role::DialEagerly,
            SessionMode::Acknowledged(_) => Role::DialLazily,
        };
        Self::new(
            config,
            mode,
            role,
            Phase::Idle {
                not_before: Duration::ZERO,
            },
        )
    }

    /// A peer on a connection that was accepted.
    pub(super) fn accepted(config: PeerConfig, mode: SessionMode, now: Duration) -> Self {
        let phase = match mode {
            SessionMode::Plain => Phase::Open { since: now },
            SessionMode::Acknowledged(_) => Phase::Greeting {
                deadline: now.saturating_add(config.connect_timeout),
            },
        };
        let mut state = Self::new(config, mode, Role::Accept, phase);
        state.metrics.connections = u64::from(mode == SessionMode::Plain);
        state
    }

    fn new(config: PeerConfig, mode: SessionMode, role: Role, phase: Phase) -> Self {
        let exchange = match mode {
            SessionMode::Plain => None,
            SessionMode::Acknowledged(identity) => {
                Some(Exchange::new(identity, config.max_payload_bytes))
            }
        };
        let mut state = Self {
            role,
            phase,
            outbox: Outbox::new(&config, exchange.is_some()),
            exchange,
            backoff: Backoff::new(&config),
            failures: 0,
            closing: None,
            disconnect: None,
            was_used: false,
            used_until: Duration::ZERO,
            events: VecDeque::new(),
            undelivered: None,
            metrics: PeerMetrics::default(),
            config,
        };
        if let Err(error) = state.config.validate() {
            state.metrics.last_error = Some(error.into());
            state.phase = Phase::Finished;
        }
        state
    }

    /// Takes a reliable packet whose front is in `head`, its payload behind that or in `body`.
    pub(super) fn send_reliable(
        &mut self,
        head: BytesMut,
        body: Bytes,
    ) -> Result<PacketId, (Refusal, BytesMut, Bytes)> {
        let size = head.len() + body.len() - self.prefix(true, UID::NIL).size();
        match self.admit(size, self.outbox.accepts_reliable()) {
            Ok(()) => {
                self.was_used = true;
                Ok(self.outbox.push_reliable(head, body))
            }
            Err(refusal) => Err((refusal, head, body)),
        }
    }

    /// Takes an unreliable packet likewise. Without a connection it is dropped and counted.
    pub(super) fn send_unreliable(
        &mut self,
        head: BytesMut,
        body: Bytes,
    ) -> Result<(), (Refusal, BytesMut, Bytes)> {
        let size = head.len() + body.len() - self.prefix(false, UID::NIL).size();
        if let Err(refusal) = self.admit(size, self.outbox.accepts_unreliable()) {
            return Err((refusal, head, body));
        }
        self.was_used = true;
        if self.is_open() {
            self.outbox.push_unreliable(head, body);
        } else {
            self.outbox.count_unreliable_dropped();
        }
        Ok(())
    }

    /// Whether a payload of `size` bytes is taken, as far as that can be said before it is encoded.
    pub(super) fn admit(&self, size: usize, has_room: bool) -> Result<(), Refusal> {
        let limit = self.max_payload() as usize;
        if self.is_closed() {
            Err(Refusal::Closed)
        } else if size > limit {
            Err(Refusal::TooLarge { size, limit })
        } else if has_room {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    pub(super) fn accepts_reliable(&self) -> bool {
        self.outbox.accepts_reliable()
    }

    pub(super) fn accepts_unreliable(&self) -> bool {
        self.outbox.accepts_unreliable()
    }

    /// The front that a packet to `token` needs.
    pub(super) fn prefix(&self, reliable: bool, token: UID) -> Prefix {
        if reliable && self.exchange.is_some() {
            Prefix::Sequenced(token)
        } else {
            Prefix::Plain(token)
        }
    }

    /// `reconnect()` was called.
    pub(super) fn request_reconnect(&mut self) {
        match &mut self.phase {
            Phase::Idle { not_before } => {
                *not_before = Duration::ZERO;
                self.was_used = true;
            }
            Phase::Connecting { .. } | Phase::Greeting { .. } | Phase::Open { .. } => {
                self.disconnect.get_or_insert(ConnectionError::Reconnect);
            }
            Phase::Ending { .. } | Phase::Finished => {}
        }
    }

    /// `close()` was called. Of several graces the one that ends first counts.
    pub(super) fn request_close(&mut self, grace: Duration) {
        let closing = self.closing.get_or_insert(Closing {
            grace: None,
            deadline: None,
            asked: false,
        });
        closing.grace = Some(closing.grace.map_or(grace, |known| known.min(grace)));
    }

    /// The peer was dropped.
    pub(super) fn handle_dropped(&mut self) {
        if self.phase != Phase::Finished {
            self.metrics.last_error = Some(ConnectionError::Closed);
            self.outbox.end_connection(Duration::ZERO);
            self.outbox.drop_all();
            self.phase = Phase::Finished;
        }
    }

    /// The driver runs: stamps what handles left, and acts on deadlines that passed.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
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
            self.handle_patience(now);
        }
        self.handle_deadlines(now);
    }

    fn handle_patience(&mut self, now: Duration) {
        let Some(limit) = self
            .patience()
            .and_then(|patience| now.checked_sub(patience))
        else {
            return;
        };
        if let Some(not_delivered) = self.outbox.drop_overdue(limit) {
            let maybe_delivered = not_delivered.start..not_delivered.start;
            self.report(SessionEnded {
                not_delivered,
                maybe_delivered,
            });
        }
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
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let phase = match &self.phase {
            Phase::Idle { not_before }
                if *not_before > now && self.wants_connection(*not_before) =>
            {
                Some(*not_before)
            }
            Phase::Idle { .. } | Phase::Open { .. } | Phase::Finished => None,
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
        [phase, patience, self.close_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What to do next.
    pub(super) fn poll_action(&mut self, now: Duration) -> Action {
        if let Some(cause) = self.disconnect.take() {
            return Action::Disconnect(cause);
        }
        let is_done = self.closing.is_some() && !self.has_unwritten();
        match &mut self.phase {
            Phase::Finished => Action::Finish,
            Phase::Idle { .. } if is_done => {
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
    pub(super) fn has_more_to_do(&self) -> bool {
        let is_written = self.outbox.batch().is_empty();
        let has_stopped_short = is_written && self.outbox.has_queued();
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
    pub(super) fn handle_shutdown(&mut self) {
        if let Phase::Ending { step, .. } = &mut self.phase {
            *step = EndStep::Linger;
        }
    }

    /// A connection was made. `session` is a random id for a session that may begin on it.
    pub(super) fn handle_connected(&mut self, now: Duration, session: UID) {
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

    fn open(&mut self, now: Duration) {
        self.phase = Phase::Open { since: now };
        self.failures = 0;
        self.metrics.reconnects += u64::from(self.metrics.connections > 0);
        self.metrics.connections += 1;
    }

    /// Bytes were read.
    pub(super) fn handle_read(&mut self, bytes: usize) {
        self.metrics.bytes_received += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// A packet arrived.
    ///
    /// # Errors
    /// Why the connection has to end: call `handle_closed` with it.
    pub(super) fn handle_packet<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        let inbound = match (&self.phase, &mut self.exchange) {
            (Phase::Open { .. }, None) => self.handle_plain(now, token, payload)?,
            (Phase::Open { .. }, Some(exchange)) => {
                exchange.handle_packet(now, token, payload, &mut self.outbox)?
            }
            (Phase::Greeting { .. }, Some(_)) => self.handle_greeting(now, token, payload)?,
            _ => Inbound::Consumed,
        };
        if let Inbound::Deliver { payload, .. } = inbound {
            let limit = self.config.max_payload_bytes as usize;
            if payload.len() > limit {
                let size = payload.len();
                return Err(crate::messaging::WireError::PacketTooLarge { size, limit }.into());
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
        if self.role != Role::Accept {
            exchange.handle_answer(now, token, payload)?;
            self.open(now);
            return Ok(Inbound::Consumed);
        }
        match exchange.handle_hello(token, payload, &mut self.outbox)? {
            Greeted::Open => self.open(now),
            Greeted::Refused {
                version_min,
                version_max,
            } => {
                self.refuse(now, version_min, version_max);
            }
        }
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

    /// Lays out what can be written now.
    pub(super) fn lay_out(&mut self) {
        let is_open = self.is_open();
        if is_open && let Some(exchange) = &mut self.exchange {
            exchange.lay_out_urgent(&mut self.outbox);
        }
        let limit = self.max_payload();
        while is_open && self.outbox.batch().has_room() && self.events.len() < MAX_EVENTS {
            let ack = self.exchange.as_ref().map_or(0, Exchange::ack);
            match self.outbox.lay_out_next(ack, limit as usize) {
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
        if is_open
            && self.outbox.batch().has_room()
            && let Some(exchange) = &mut self.exchange
        {
            exchange.lay_out_ack(&mut self.outbox);
        }
    }

    /// What is laid out, to write from it; [`put_back`](Self::put_back) has to follow at once.
    pub(super) fn take_batch(&mut self) -> Batch {
        self.outbox.take_batch()
    }

    /// `bytes` more bytes of the batch are written.
    pub(super) fn put_back(&mut self, batch: Batch, bytes: usize) {
        self.outbox.put_back(batch, bytes);
    }

    /// The connection, or the attempt to get one, is over. `jitter` is any random number.
    pub(super) fn handle_closed(&mut self, now: Duration, cause: ConnectionError, jitter: u64) {
        let phase = std::mem::replace(&mut self.phase, Phase::Finished);
        self.disconnect = None;
        if let Some(exchange) = &mut self.exchange {
            exchange.handle_closed();
        }
        let (had_session, cause) = match phase {
            Phase::Finished => return,
            Phase::Open { since } => {
                if now.saturating_sub(since) >= self.config.healthy_after {
                    self.backoff.reset();
                }
                (true, cause)
            }
            Phase::Ending {
                step, cause: known, ..
            } => {
                let is_orderly = cause == ConnectionError::Ended && step == EndStep::Linger;
                if is_orderly || self.exchange.is_some() {
                    self.outbox.settle_written();
                }
                (known == ConnectionError::Closed, known)
            }
            Phase::Idle { .. } | Phase::Connecting { .. } | Phase::Greeting { .. } => {
                self.count_failure(&cause);
                (false, cause)
            }
        };
        self.count_violation(&cause);
        let maybe_delivered = self.outbox.end_connection(now);
        let failures = self.failures;
        let gives_up = self
            .config
            .max_connection_failures
            .is_some_and(|max| failures >= max);
        let finishes = self.role == Role::Accept
            || gives_up
            || cause == ConnectionError::Closed
            || (self.closing.is_some() && !self.has_unwritten());
        let not_delivered = if finishes {
            self.outbox.drop_all()
        } else {
            maybe_delivered.end..maybe_delivered.end
        };
        if had_session || !maybe_delivered.is_empty() || !not_delivered.is_empty() {
            self.report(SessionEnded {
                not_delivered,
                maybe_delivered,
            });
        }
        if !finishes {
            self.phase = Phase::Idle {
                not_before: self.next_attempt(now, &cause, jitter),
            };
        }
        self.metrics.last_error = Some(if gives_up {
            ConnectionError::GaveUp { failures }
        } else {
            cause
        });
    }

    fn count_failure(&mut self, cause: &ConnectionError) {
        match cause {
            // A newer connection of ours is there, or the user wanted it so.
            ConnectionError::Superseded { .. }
            | ConnectionError::Reconnect
            | ConnectionError::Closed => {}
            _ => {
                self.failures = self.failures.saturating_add(1);
                self.metrics.connection_failures += 1;
            }
        }
    }

    fn count_violation(&mut self, cause: &ConnectionError) {
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
            ConnectionError::Incompatible { .. } => INCOMPATIBLE_PROBE,
            _ => self.backoff.next_delay(jitter),
        };
        now.saturating_add(delay)
    }

    /// Ends for good, without a connection.
    fn finish(&mut self, cause: ConnectionError) {
        self.phase = Phase::Finished;
        self.metrics.last_error = Some(cause);
        let not_delivered = self.outbox.drop_all();
        if !not_delivered.is_empty() {
            let maybe_delivered = not_delivered.start..not_delivered.start;
            self.report(SessionEnded {
                not_delivered,
                maybe_delivered,
            });
        }
    }

    fn report(&mut self, ended: SessionEnded) {
        let is_loss = !ended.maybe_delivered.is_empty() || !ended.not_delivered.is_empty();
        if self.closing.is_some() && is_loss {
            let start = match &self.undelivered {
                Some(earlier) => earlier.maybe_delivered.start,
                None => ended.maybe_delivered.start,
            };
            self.undelivered = Some(SessionEnded {
                not_delivered: ended.not_delivered.clone(),
                maybe_delivered: start..ended.maybe_delivered.end,
            });
        }
        self.push_event(Event::SessionEnded(ended));
    }

    fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// What users are to be told next.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn wants_connection(&self, now: Duration) -> bool {
        match self.role {
            Role::Accept => false,
            _ if self.has_unwritten() => true,
            _ if self.closing.is_some() => false,
            Role::DialEagerly => true,
            Role::DialLazily => now < self.used_until,
        }
    }

    fn has_unwritten(&self) -> bool {
        self.outbox.has_queued() || self.outbox.reliable_queued() > 0
    }

    fn patience(&self) -> Option<Duration> {
        match self.role {
            Role::Accept => None,
            Role::DialEagerly | Role::DialLazily => self.config.patience,
        }
    }

    fn close_deadline(&self) -> Option<Duration> {
        self.closing.as_ref()?.deadline
    }

    /// Whether packets can flow.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Whether nothing more is accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.closing.is_some() || self.is_finished()
    }

    /// Whether the driver has nothing more to do.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whether what arrives is of no interest any more.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    pub(super) fn remote(&self) -> Remote {
        self.exchange
            .as_ref()
            .map(Exchange::remote)
            .unwrap_or_default()
    }

    /// The largest payload that both ends take, as far as is known.
    pub(super) fn max_payload(&self) -> u32 {
        let own = self.config.max_payload_bytes;
        self.remote()
            .max_payload
            .map_or(own, |remote| own.min(remote))
    }

    pub(super) fn undelivered(&self) -> Option<SessionEnded> {
        self.undelivered.clone()
    }

    pub(super) fn metrics(&self) -> PeerMetrics {
        let counters = self.outbox.counters;
        let (unreliable_queued, unreliable_bytes) = self.outbox.unreliable();
        PeerMetrics {
            reliable_queued: self.outbox.reliable_queued(),
            reliable_bytes: self.outbox.reliable_bytes(),
            unacknowledged: self.outbox.unacknowledged(),
            unreliable_queued,
            unreliable_bytes,
            packets_sent: counters.packets_sent,
            bytes_sent: counters.bytes_sent,
            unreliable_dropped: counters.unreliable_dropped,
            not_delivered: counters.not_delivered,
            maybe_delivered: counters.maybe_delivered,
            round_trip: self
                .exchange
                .as_ref()
                .and_then(|exchange| exchange.round_trip),
            ..self.metrics.clone()
        }
    }
}

/// Why a packet is not taken; the payload's owner makes a [`PeerError`] of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    TooLarge { size: usize, limit: usize },
    Closed,
}

impl Refusal {
    pub(super) fn into_error(self, payload: Bytes) -> PeerError {
        match self {
            Self::Full => PeerError::QueueFull { payload },
            Self::TooLarge { size, limit } => PeerError::PayloadTooLarge {
                size,
                limit,
                payload,
            },
            Self::Closed => PeerError::Closed {
                payload: Some(payload),
            },
        }
    }
}
