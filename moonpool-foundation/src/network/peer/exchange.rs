//! One connection's session as this end sees it: who the other end is, what was received, what is
//! owed. Pure: frames in, frames and verdicts out.

use std::time::Duration;

use crate::buggify;
use crate::messaging::{NetworkAddress, UID, WellKnownToken};

use super::error::{ConnectionError, ProtocolError};
use super::outbox::Outbox;
use super::session::{
    Frame, Hello, HelloAnswer, HelloKind, Outcome, SessionIdentity, VERSION, sequenced,
};

/// Received packets after which an acknowledgement goes out by itself.
pub(super) const ACK_PACKETS: u32 = 64;

/// Received bytes after which an acknowledgement goes out by itself.
pub(super) const ACK_BYTES: usize = 64 * 1024;

/// What a packet turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inbound<'a> {
    /// It is for the user.
    Deliver {
        token: UID,
        payload: &'a [u8],
        reliable: bool,
    },
    /// It was the session's own, or is not wanted.
    Consumed,
}

/// What a Hello leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    Fresh,
    /// The versions do not meet: the answer has to leave, then the connection ends.
    Refused {
        version_min: u16,
        version_max: u16,
    },
}

/// What is known of the other end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) incarnation: Option<UID>,
    pub(super) address: Option<NetworkAddress>,
    pub(super) max_payload: Option<u32>,
}

/// What an answer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The session goes on, or begins as it was proposed.
    Resumed { next_expected: u64 },
    /// Another session begins; the one that was to go on is over.
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    None,
    /// Offered in a Hello, and offered again until that is answered.
    Proposed(UID),
    Established(UID),
}

/// When an acknowledgement that is due leaves by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AckTurn {
    #[default]
    AtOnce,
    /// In the driver's next turn: what was received may be answered until then, and the answers
    /// carry it.
    Next,
    /// One that is due waits for the next turn.
    Waits,
}

/// The session's state on the current connection, and what outlives it.
#[derive(Debug)]
pub(super) struct Exchange {
    identity: SessionIdentity,
    max_payload: u32,
    session: Session,
    /// The highest that was sent, or told to us, for this session.
    generation: u64,
    hello_sent_at: Option<Duration>,
    /// Who answered last. Survives connections: it is the next Hello's expected peer.
    remote: Remote,
    next_expected: u64,
    unacked_packets: u32,
    unacked_bytes: usize,
    ack_turn: AckTurn,
    pong: Option<u64>,
    ping: Option<u64>,
    /// A ping was laid out on this connection, and nothing answered it yet.
    awaits_pong: bool,
    pub(super) round_trip: Option<Duration>,
    /// How many were measured.
    pub(super) round_trips: u64,
    /// When the last ping that was answered had left.
    echoed: Option<Duration>,
}

impl Exchange {
    pub(super) fn new(identity: SessionIdentity, max_payload: u32) -> Self {
        Self {
            identity,
            max_payload,
            session: Session::None,
            generation: 0,
            hello_sent_at: None,
            remote: Remote::default(),
            next_expected: 1,
            unacked_packets: 0,
            unacked_bytes: 0,
            ack_turn: AckTurn::default(),
            pong: None,
            ping: None,
            awaits_pong: false,
            round_trip: None,
            round_trips: 0,
            echoed: None,
        }
    }

    pub(super) fn remote(&self) -> Remote {
        self.remote
    }

    /// The largest payload that the other end takes, if it said so.
    pub(super) fn remote_limit(&self) -> Option<u32> {
        self.remote.max_payload
    }

    /// Whether a ping or a pong is to be laid out.
    #[inline]
    pub(super) fn is_urgent(&self) -> bool {
        self.pong.is_some() || self.ping.is_some()
    }

    /// Whether packets arrived that no frame which was laid out acknowledges.
    #[inline]
    pub(super) fn owes_ack(&self) -> bool {
        self.unacked_packets > 0
    }

    /// Whether an acknowledgement is to leave by itself: for what arrived, or because a simulation
    /// wants one. To be asked once, when everything that could carry one is laid out.
    #[inline]
    pub(super) fn wants_ack(&self) -> bool {
        self.is_ack_due() || (self.owes_ack() && buggify!())
    }

    #[inline]
    fn is_ack_due(&self) -> bool {
        self.unacked_packets >= ACK_PACKETS || self.unacked_bytes >= ACK_BYTES
    }

    /// The sequence number expected next: what outgoing frames acknowledge.
    pub(super) fn ack(&self) -> u64 {
        self.next_expected
    }

    /// Whether there is a session that a Hello was answered for.
    pub(super) fn has_session(&self) -> bool {
        self.session().is_some()
    }

    /// Its name.
    pub(super) fn session(&self) -> Option<UID> {
        match self.session {
            Session::Established(session) => Some(session),
            Session::None | Session::Proposed(_) => None,
        }
    }

    /// The highest generation that was sent, accepted or told for this session.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether a ping was answered that left at this time or later.
    pub(super) fn has_echoed_since(&self, asked_at: Duration) -> bool {
        self.echoed.is_some_and(|echoed| echoed >= asked_at)
    }

    /// Forgets the connection, not the session.
    pub(super) fn handle_closed(&mut self) {
        self.unacked_packets = 0;
        self.unacked_bytes = 0;
        self.ack_turn = AckTurn::AtOnce;
        self.pong = None;
        self.ping = None;
        self.awaits_pong = false;
        self.echoed = None;
    }

    /// Forgets the session. One that is only proposed stays so.
    pub(super) fn end_session(&mut self) {
        if self.has_session() {
            self.session = Session::None;
        }
        self.next_expected = 1;
    }

    /// Lays the dialler's Hello out. `new_session` is a random id, for a session that begins with it.
    pub(super) fn greet(&mut self, now: Duration, new_session: UID, outbox: &mut Outbox) {
        let session = match self.session {
            Session::Proposed(session) | Session::Established(session) => session,
            Session::None => {
                self.session = Session::Proposed(new_session);
                self.generation = 0;
                new_session
            }
        };
        self.generation = self.generation.saturating_add(1);
        self.hello_sent_at = Some(now);
        let hello = Hello {
            version_min: VERSION,
            version_max: VERSION,
            max_payload: self.max_payload,
            features: 0,
            incarnation: self.identity.incarnation,
            session,
            next_expected: self.next_expected,
            generation: self.generation,
            expected_peer: self.remote.incarnation,
            address: self.identity.address,
        };
        outbox.push_control(WellKnownToken::Hello, &hello.encode());
    }

    /// The acceptor's first packet arrived. After `Fresh` the old session is for the caller to end,
    /// before anything else, with [`begin`](Self::begin).
    pub(super) fn handle_answer(
        &mut self,
        now: Duration,
        token: UID,
        payload: &[u8],
    ) -> Result<(Answered, UID), ConnectionError> {
        if token != WellKnownToken::HelloAnswer.token() {
            return Err(ProtocolError::NoHello { token }.into());
        }
        let answer = HelloAnswer::decode(payload)?;
        if answer.incarnation == self.identity.incarnation {
            return Err(ConnectionError::Ourselves);
        }
        let (Session::Proposed(offered) | Session::Established(offered)) = self.session else {
            return Err(ProtocolError::UnexpectedOutcome.into());
        };
        let answered = match answer.outcome {
            Outcome::Fresh { session } => (Answered::Fresh, session),
            Outcome::Resumed { next_expected } => {
                // What another incarnation has seen is not this session.
                let is_known = self.remote.incarnation == Some(answer.incarnation);
                if self.has_session() && !is_known {
                    return Err(ProtocolError::UnexpectedOutcome.into());
                }
                (Answered::Resumed { next_expected }, offered)
            }
            Outcome::Superseded { generation } => {
                self.generation = self.generation.max(generation);
                return Err(ConnectionError::Superseded { generation });
            }
            Outcome::Incompatible { version_min } => {
                let version_max = answer.version;
                return Err(ConnectionError::Incompatible {
                    version_min,
                    version_max,
                });
            }
        };
        self.remote = Remote {
            incarnation: Some(answer.incarnation),
            address: answer.address,
            max_payload: Some(answer.max_payload),
        };
        self.round_trip = self.hello_sent_at.map(|sent| now.saturating_sub(sent));
        self.round_trips += u64::from(self.round_trip.is_some());
        Ok(answered)
    }

    /// The session that the greeting was about is there.
    pub(super) fn begin(&mut self, session: UID) {
        self.session = Session::Established(session);
    }

    /// The dialler's first packet arrived, at an end that keeps no sessions: lays the answer out.
    pub(super) fn handle_hello(
        &mut self,
        token: UID,
        payload: &[u8],
        outbox: &mut Outbox,
    ) -> Result<Greeted, ConnectionError> {
        if token != WellKnownToken::Hello.token() {
            return Err(ProtocolError::NoHello { token }.into());
        }
        match Hello::decode(payload)? {
            HelloKind::Compatible(hello) => {
                let session = hello.session;
                self.answer(&hello, Outcome::Fresh { session }, outbox);
                self.begin(session);
                Ok(Greeted::Fresh)
            }
            HelloKind::Incompatible {
                version_min,
                version_max,
            } => {
                let incarnation = self.identity.incarnation;
                let answer = HelloAnswer::incompatible(incarnation, VERSION, VERSION);
                outbox.push_control(WellKnownToken::HelloAnswer, &answer.encode());
                Ok(Greeted::Refused {
                    version_min,
                    version_max,
                })
            }
        }
    }

    /// The sequence number that the dialler expects next. One that does not know the session's name
    /// has seen nothing of it, whatever it says of the session that it offers.
    pub(super) fn expected_by(&self, hello: &Hello) -> u64 {
        if self.session == Session::Established(hello.session) {
            hello.next_expected
        } else {
            1
        }
    }

    /// A session begins with a dialler's Hello, under a name that was drawn here.
    pub(super) fn begin_accepted(&mut self, session: UID) {
        self.session = Session::Established(session);
        self.generation = 0;
        self.next_expected = 1;
    }

    /// A dialler's Hello was accepted for this session: lays the answer out. It is `Fresh` to a
    /// dialler that does not know the session's name, so that it learns it: it sees nothing of the
    /// session without the answer, so it has nothing of it. To others it is `Resumed`.
    pub(super) fn accept(&mut self, hello: &Hello, outbox: &mut Outbox) {
        let outcome = match self.session {
            Session::Established(session) if session != hello.session => Outcome::Fresh { session },
            _ => Outcome::Resumed {
                next_expected: self.next_expected,
            },
        };
        self.generation = self.generation.max(hello.generation);
        self.answer(hello, outcome, outbox);
    }

    /// Lays the answer to a Hello out.
    fn answer(&mut self, hello: &Hello, outcome: Outcome, outbox: &mut Outbox) {
        self.remote = Remote {
            incarnation: Some(hello.incarnation),
            address: hello.address,
            max_payload: Some(hello.max_payload),
        };
        let answer = HelloAnswer {
            version: VERSION,
            outcome,
            max_payload: self.max_payload,
            features: 0,
            incarnation: self.identity.incarnation,
            address: self.identity.address,
        };
        outbox.push_control(WellKnownToken::HelloAnswer, &answer.encode());
    }

    /// Token and payload of the packet that is expected next, if that is what arrived and its
    /// acknowledgement is in order. `None`: nothing was done about it, and it is for
    /// [`handle_packet`](Self::handle_packet).
    #[inline]
    pub(super) fn take_expected<'a>(
        &mut self,
        token: UID,
        payload: &'a [u8],
        outbox: &mut Outbox,
    ) -> Option<(UID, &'a [u8])> {
        if token != WellKnownToken::Sequenced.token() {
            return None;
        }
        let (sequence, ack, token, payload) = sequenced(payload)?;
        if sequence != self.next_expected || WellKnownToken::session_frame(token).is_some() {
            return None;
        }
        // Packets that were written together acknowledge the same.
        if !outbox.is_acknowledged(ack) && outbox.acknowledge(ack).is_err() {
            return None;
        }
        self.count_unacked(payload.len());
        self.next_expected += 1;
        Some((token, payload))
    }

    #[inline]
    fn count_unacked(&mut self, bytes: usize) {
        self.unacked_packets = self.unacked_packets.saturating_add(1);
        self.unacked_bytes = self.unacked_bytes.saturating_add(bytes);
    }

    /// A packet arrived after the greeting.
    pub(super) fn handle_packet<'a>(
        &mut self,
        now: Duration,
        token: UID,
        payload: &'a [u8],
        outbox: &mut Outbox,
    ) -> Result<Inbound<'a>, ConnectionError> {
        let Some(kind) = WellKnownToken::session_frame(token) else {
            return Ok(Inbound::Deliver {
                token,
                payload,
                reliable: false,
            });
        };
        let Some(frame) = Frame::decode(kind, payload)? else {
            return Err(ProtocolError::UnexpectedFrame { frame: kind }.into());
        };
        match frame {
            Frame::Sequenced {
                sequence,
                ack,
                token,
                payload,
            } => {
                acknowledge(outbox, ack)?;
                self.handle_sequenced(sequence, token, payload)
            }
            Frame::Skip { sequence, ack } => {
                acknowledge(outbox, ack)?;
                self.advance(sequence, 0)?;
                Ok(Inbound::Consumed)
            }
            Frame::Ack { ack } => consumed(acknowledge(outbox, ack)),
            Frame::Ping { ack, nonce } => {
                acknowledge(outbox, ack)?;
                self.pong = Some(nonce);
                Ok(Inbound::Consumed)
            }
            Frame::Pong { ack, nonce } => {
                self.handle_pong(now, nonce);
                consumed(acknowledge(outbox, ack))
            }
            Frame::Close { ack } => {
                acknowledge(outbox, ack)?;
                Err(ConnectionError::RemoteClosed)
            }
        }
    }

    fn handle_sequenced<'a>(
        &mut self,
        sequence: u64,
        token: UID,
        payload: &'a [u8],
    ) -> Result<Inbound<'a>, ConnectionError> {
        if WellKnownToken::session_frame(token).is_some() {
            return Err(ProtocolError::ReservedToken { token }.into());
        }
        if self.advance(sequence, payload.len())? {
            return Ok(Inbound::Deliver {
                token,
                payload,
                reliable: true,
            });
        }
        Ok(Inbound::Consumed)
    }

    /// Whether `sequence` is the one expected next. A lower one is a repetition.
    fn advance(&mut self, sequence: u64, bytes: usize) -> Result<bool, ConnectionError> {
        let expected = self.next_expected;
        if sequence > expected {
            return Err(ProtocolError::SequenceGap { sequence, expected }.into());
        }
        self.count_unacked(bytes);
        if sequence < expected {
            return Ok(false);
        }
        self.next_expected += 1;
        Ok(true)
    }

    fn handle_pong(&mut self, now: Duration, nonce: u64) {
        self.awaits_pong = false;
        // The nonce of a ping is the time it was laid out.
        let sent = Duration::from_nanos(nonce);
        if sent <= now {
            self.round_trip = Some(now - sent);
            self.round_trips += 1;
            self.echoed = self.echoed.max(Some(sent));
        }
    }

    /// Asks the other end to say what it has received.
    pub(super) fn ask(&mut self, now: Duration) {
        self.ping = Some(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Whether the other end was asked, or is about to be, and has not answered.
    pub(super) fn is_asking(&self) -> bool {
        self.ping.is_some() || self.awaits_pong
    }

    /// Lays out what is owed at once.
    pub(super) fn lay_out_urgent(&mut self, outbox: &mut Outbox) {
        self.awaits_pong |= self.ping.is_some();
        let pings = [
            (WellKnownToken::SessionPong, self.pong.take()),
            (WellKnownToken::SessionPing, self.ping.take()),
        ];
        for (token, nonce) in pings {
            if let Some(nonce) = nonce {
                let mut payload = [0; 16];
                payload[..8].copy_from_slice(&self.next_expected.to_le_bytes());
                payload[8..].copy_from_slice(&nonce.to_le_bytes());
                outbox.push_control(token, &payload);
                self.handle_ack_laid_out();
            }
        }
    }

    /// A frame that carries the acknowledgement was laid out.
    pub(super) fn handle_ack_laid_out(&mut self) {
        self.unacked_packets = 0;
        self.unacked_bytes = 0;
        if self.ack_turn == AckTurn::Waits {
            self.ack_turn = AckTurn::Next;
        }
    }

    /// The driver has its turn, and will have another one soon if
    /// [`awaits_turn`](Self::awaits_turn) says so.
    #[inline]
    pub(super) fn begin_turn(&mut self) {
        self.ack_turn = match self.ack_turn {
            AckTurn::Waits => AckTurn::AtOnce,
            AckTurn::AtOnce | AckTurn::Next => AckTurn::Next,
        };
    }

    /// Whether an acknowledgement leaves by itself in the driver's next turn, if no packet carries
    /// it until then.
    #[inline]
    pub(super) fn awaits_turn(&self) -> bool {
        self.ack_turn == AckTurn::Waits
    }

    /// Whether it waits with few and large packets: it is worth waiting for everybody.
    pub(super) fn awaits_large_answers(&self) -> bool {
        self.awaits_turn() && self.unacked_packets < ACK_PACKETS
    }

    /// Lays out an acknowledgement by itself, which is [wanted](Self::wants_ack), or leaves it to the
    /// next turn.
    pub(super) fn lay_out_ack(&mut self, outbox: &mut Outbox) {
        if self.is_ack_due() && self.ack_turn != AckTurn::AtOnce {
            self.ack_turn = AckTurn::Waits;
        } else {
            outbox.push_control(WellKnownToken::Ack, &self.next_expected.to_le_bytes());
            self.handle_ack_laid_out();
        }
    }

    /// Lays out the last frame.
    pub(super) fn lay_out_close(&mut self, outbox: &mut Outbox) {
        outbox.push_last_control(WellKnownToken::Close, &self.next_expected.to_le_bytes());
    }
}

fn acknowledge(outbox: &mut Outbox, ack: u64) -> Result<(), ConnectionError> {
    outbox
        .acknowledge(ack)
        .map_err(|sent| ProtocolError::AckOfUnsent { ack, sent }.into())
}

fn consumed<'a>(done: Result<(), ConnectionError>) -> Result<Inbound<'a>, ConnectionError> {
    done.map(|()| Inbound::Consumed)
}
