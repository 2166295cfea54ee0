//! A peer's state under arbitrary packets. Not part of the API.
//!
//! The input is a script: what arrives, whole or broken, and what users and the clock do meanwhile.
//! The state is driven as the driver drives it. Whatever happens, it does not panic, does not loop,
//! holds no more than its limits allow, delivers in order, and what it writes is well-formed.

use std::io::IoSlice;
use std::time::Duration;

use bytes::Bytes;

use crate::messaging::{UID, WellKnownToken, WireError, serialize_packet};
use crate::network::peer::config::PeerConfig;
use crate::network::peer::error::ConnectionError;
use crate::network::peer::exchange::{Exchange, Inbound};
use crate::network::peer::frame::{BATCH_SLICES, SEQUENCED_HEAD};
use crate::network::peer::fuzzing::{Input, encode_frame, made_answer, made_hello, reader_limit};
use crate::network::peer::packet::PacketId;
use crate::network::peer::reader::PacketReader;
use crate::network::peer::session::{
    Frame, Hello, HelloAnswer, HelloKind, Outcome, SessionIdentity, SessionMode, VERSION,
};
use crate::network::peer::terms::{Account, Expiry, PacketTerms};

use super::{Action, Alarms, Attachment, Demand, Event, MAX_EVENTS, PeerState, Phase, Timeouts};

const OURS: UID = UID::new(1, 1);
const THEIRS: UID = UID::new(2, 2);
const SESSION: UID = UID::new(3, 3);
const TOKEN: UID = UID::new(7, 8);

/// Bytes of the largest payload.
const MAX_PAYLOAD: u32 = 1_000;

/// Packets of each kind that may be held.
const MAX_PACKETS: usize = 6;

/// Bytes of them.
const MAX_BYTES: usize = 2_000;

/// Frames that may be laid out beyond those of a full batch: greetings, pings, a Close.
const CONTROL_FRAMES: usize = 4;

/// Steps of one script.
const MAX_STEPS: usize = 300;

/// Runs the script against a peer that dials, accepts, or keeps a session: the first byte says
/// which.
///
/// # Panics
/// If a property is broken.
pub fn peer_state(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut script = Script::new(&mut input);
    script.drive();
    let mut steps = 0;
    while !input.is_empty() && steps < MAX_STEPS {
        steps += 1;
        let is_quiet = script.step(&mut input);
        if is_quiet {
            script.rest();
        }
        script.drive();
        script.check();
    }
    // Whatever happened, it can be ended, and owes nothing then.
    script.state.handle_dropped();
    script.drive();
    script.check();
    assert!(script.state.is_finished());
}

struct Script {
    state: PeerState,
    reader: PacketReader,
    now: Duration,
    /// How the driver sees it.
    connected: bool,
    /// What was written on this connection, and the sequence number that has to come next.
    written: PacketReader,
    next_written: Option<u64>,
    accepted: u64,
    /// Floods take long, so there is one in a script.
    has_flooded: bool,
    /// Every id below was reported.
    reported: PacketId,
    /// What the driver's timers are set for.
    alarms: Alarms,
}

impl Script {
    fn new(input: &mut Input<'_>) -> Self {
        let config = PeerConfig {
            max_payload_bytes: MAX_PAYLOAD,
            reliable_packets: MAX_PACKETS,
            reliable_bytes: MAX_BYTES,
            answer_packets: MAX_PACKETS,
            answer_bytes: MAX_BYTES,
            refusals: MAX_PACKETS,
            refusal_bytes: MAX_BYTES,
            unreliable_packets: MAX_PACKETS,
            unreliable_bytes: MAX_BYTES,
            patience: Some(Duration::from_secs(3)),
            ..PeerConfig::default()
        };
        let identity = SessionIdentity {
            incarnation: OURS,
            address: None,
        };
        let mode = SessionMode::Acknowledged(identity);
        let role = input.below(3);
        let state = match role {
            0 => PeerState::dialling(config, mode),
            1 => PeerState::accepted(config, mode, Duration::ZERO),
            _ => PeerState::of_session(config, identity),
        };
        Self {
            state,
            reader: PacketReader::new(MAX_PAYLOAD as usize),
            now: Duration::ZERO,
            connected: role == 1,
            written: PacketReader::new(MAX_PAYLOAD as usize),
            next_written: None,
            accepted: 0,
            has_flooded: false,
            reported: PacketId::FIRST,
            alarms: Alarms {
                ordinary: Duration::MAX,
                background: Duration::MAX,
            },
        }
    }

    /// Whether no more happened than that packets came and went, or time passed.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        let kind = input.below(16);
        match kind {
            0 => {
                let count = input.below(256);
                self.read(input.bytes(count));
            }
            1 => self.read_any_packet(input),
            2 => self.read_greeting(input),
            3..=6 => self.read_frame(input),
            7 => self.flood(input),
            8 => self.send(input),
            9 => self.take_back(input),
            10 | 11 => {
                let count = input.below(4_000);
                self.write(count);
            }
            12 => self.now += Duration::from_millis(u64::from(input.u16())),
            13 => self.lose(ConnectionError::Ended),
            14 => self.attach(input),
            _ => self.use_handle(input),
        }
        kind <= 12 && kind != 9
    }

    /// If the state says that it can be left alone until the alarms, a look at everything finds
    /// nothing to do, and no deadline before them.
    fn rest(&mut self) {
        let now = self.now;
        let demand = self.state.demand;
        let awaits = demand.replies || demand.watches;
        let is_owed = awaits || self.state.unacknowledged() > 0;
        let is_calm = self.state.handle_queued(now);
        if now >= self.alarms.first() || !self.state.can_rest(now, is_owed, self.alarms) {
            return;
        }
        assert!(is_calm);
        assert!(!self.state.has_more_to_do() && !self.state.was_used);
        for _ in 0..2 {
            let told = self.state.poll_timeout(now);
            assert!(told.ordinary.is_none_or(|at| at >= self.alarms.ordinary));
            assert!(
                told.background
                    .is_none_or(|at| at >= self.alarms.background)
            );
            self.state.handle_timeout(now);
            assert_eq!(self.state.poll_action(now), Action::Wait);
            assert!(self.state.events.is_empty() && !self.state.has_more_to_do());
        }
    }

    /// As the driver's timers do it.
    fn set_alarms(&mut self, told: Timeouts) {
        for (alarm, at) in [
            (&mut self.alarms.ordinary, told.ordinary),
            (&mut self.alarms.background, told.background),
        ] {
            let set = Some(*alarm).filter(|set| *set > self.now);
            *alarm = set.into_iter().chain(at).min().unwrap_or(Duration::MAX);
        }
    }

    /// A packet with a right checksum, to anywhere, with anything in it.
    fn read_any_packet(&mut self, input: &mut Input<'_>) {
        let token = match input.below(17) {
            16 => input.uid(),
            number => UID::well_known(u32::try_from(number).unwrap_or_default()),
        };
        let payload = some_payload(input);
        self.read(&serialize_packet(token, &payload));
    }

    /// A Hello or an answer of which most is as it should be.
    fn read_greeting(&mut self, input: &mut Input<'_>) {
        if input.below(2) == 0 {
            let hello = plausible_hello(input);
            let token = WellKnownToken::Hello.token();
            self.read(&serialize_packet(token, &hello.encode()));
            return;
        }
        let answer = plausible_answer(input);
        let is_awaited = matches!(self.state.phase, Phase::Greeting { .. });
        let token = WellKnownToken::HelloAnswer.token();
        self.read(&serialize_packet(token, &answer.encode()));
        if is_awaited && self.state.is_open() {
            self.next_written = Some(match answer.outcome {
                Outcome::Resumed { next_expected } => next_expected,
                _ => 1,
            });
        }
    }

    fn read_frame(&mut self, input: &mut Input<'_>) {
        let bytes = self.plausible_frame(input);
        self.read(&bytes);
    }

    /// A frame whose numbers are close to what is expected.
    fn plausible_frame(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let expected = self.state.exchange.as_ref().map_or(0, Exchange::ack);
        let sequence = match input.below(8) {
            6 => expected.saturating_sub(1),
            7 => input.u64(),
            _ => expected,
        };
        let ack = match input.below(8) {
            7 => input.u64(),
            small => u64::try_from(small).unwrap_or_default(),
        };
        let nonce = u64::from(input.u32());
        let kind = input.below(6);
        let payload = some_payload(input);
        let frame = match kind {
            1 => Frame::Ack { ack },
            2 => Frame::Skip { sequence, ack },
            3 => Frame::Ping { ack, nonce },
            4 => Frame::Pong { ack, nonce },
            5 => Frame::Close { ack },
            _ => Frame::Sequenced {
                sequence,
                ack,
                token: match input.below(8) {
                    7 => UID::well_known(u32::from(input.u8() % 16)),
                    _ => TOKEN,
                },
                payload: &payload,
            },
        };
        let (token, payload) = encode_frame(frame);
        serialize_packet(token, &payload)
    }

    /// The same frame many times, to an end whose writes all block.
    fn flood(&mut self, input: &mut Input<'_>) {
        let bytes = self.plausible_frame(input);
        for _ in 0..BATCH_SLICES + 2 * CONTROL_FRAMES {
            if !self.connected || self.has_flooded {
                return;
            }
            self.read(&bytes);
            if let Some(batch) = self.state.lay_out(self.now) {
                self.state.put_back(batch, 0);
            }
        }
        self.has_flooded = true;
        self.write(0);
    }

    fn read(&mut self, bytes: &[u8]) {
        if !self.connected {
            return;
        }
        self.reader.buffer().extend_from_slice(bytes);
        self.reader.handle_read(bytes.len());
        self.state.handle_read(bytes.len());
        if let Err(cause) = self.hand_out() {
            let is_from_there = matches!(
                cause,
                ConnectionError::Wire(_)
                    | ConnectionError::Protocol(_)
                    | ConnectionError::RemoteClosed
                    | ConnectionError::Superseded { .. }
                    | ConnectionError::Incompatible { .. }
            );
            assert!(is_from_there, "{cause}");
            self.lose(cause);
        }
    }

    fn hand_out(&mut self) -> Result<(), ConnectionError> {
        while let Some(mut block) = self.reader.next_block()? {
            while let Some((token, payload, _)) = block.next_packet()? {
                let before = self.state.exchange.as_ref().map_or(0, Exchange::ack);
                let is_open = self.state.is_open();
                let inbound = self.state.handle_packet(self.now, token, payload)?;
                let after = self.state.exchange.as_ref().map_or(0, Exchange::ack);
                if let Inbound::Deliver {
                    token,
                    payload,
                    reliable,
                } = inbound
                {
                    assert!(is_open, "nothing is delivered before the greeting");
                    assert!(payload.len() <= MAX_PAYLOAD as usize);
                    assert_eq!(WellKnownToken::session_frame(token), None);
                    assert_eq!(after, before + u64::from(reliable));
                } else if is_open {
                    assert!((before..=before + 1).contains(&after));
                }
                if self.state.is_ending() {
                    self.reader.clear();
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, input: &mut Input<'_>) {
        let reliable = input.below(3) > 0;
        let size = input.below(1_100);
        let body = Bytes::from(vec![0x5A; size]);
        if reliable {
            let terms = self.terms(input);
            let begun = self.state.begin_reliable(TOKEN, &terms, 0, 0);
            let sent = begun.is_ok_and(|mut frame| {
                frame.set_body(body);
                self.state.send_reliable(frame).is_ok()
            });
            self.accepted += u64::from(sent);
        } else if let Ok(mut frame) = self.state.begin_unreliable(TOKEN, 0, 0) {
            frame.set_body(body);
            let sent = self.state.send_unreliable(frame);
            drop(sent);
        }
    }

    /// Its own packets, answers and refusals; some expire.
    fn terms(&mut self, input: &mut Input<'_>) -> PacketTerms {
        let account = match input.below(8) {
            6 => Account::Refusal,
            7 => match self.state.reserve_answer() {
                Some(slot) => Account::Answer(slot),
                None => Account::Own,
            },
            _ => Account::Own,
        };
        let expiry = (input.below(4) == 3).then(|| Expiry {
            at: self.now + Duration::from_millis(u64::from(input.u8()) * 8),
            remaining_offset: None,
        });
        PacketTerms { expiry, account }
    }

    fn take_back(&mut self, input: &mut Input<'_>) {
        let behind = u64::from(input.u8() % 8);
        let id = PacketId::new((self.accepted + 1).saturating_sub(behind));
        let withdrawn = self.state.withdraw(id);
        assert!(behind > 0 || withdrawn == crate::network::peer::Withdrawal::Unknown);
    }

    /// Writes as the driver does, to a socket that takes `count` bytes.
    fn write(&mut self, count: usize) {
        if !self.connected {
            return;
        }
        let Some(batch) = self.state.lay_out(self.now) else {
            return;
        };
        let mut slices = [IoSlice::new(&[]); 2 * BATCH_SLICES];
        let pieces = batch.slices(&mut slices);
        assert!(
            pieces <= BATCH_SLICES + CONTROL_FRAMES,
            "{pieces} pieces are laid out"
        );
        let mut rest = count;
        for slice in slices.iter().take(pieces) {
            let taken = slice.get(..rest.min(slice.len())).unwrap_or_default();
            self.written.buffer().extend_from_slice(taken);
            rest -= taken.len();
        }
        self.state.put_back(batch, count - rest);
        let read = self.check_written();
        assert_eq!(read, Ok(()), "what is written is well-formed");
    }

    /// What was written are packets; those that count do so without a gap.
    fn check_written(&mut self) -> Result<(), WireError> {
        while let Some(mut block) = self.written.next_block()? {
            while let Some((token, payload, _)) = block.next_packet()? {
                let Some(kind) = WellKnownToken::session_frame(token) else {
                    continue;
                };
                let frame = Frame::decode(kind, payload);
                assert!(frame.is_ok(), "{frame:?}");
                match frame {
                    Ok(Some(Frame::Sequenced { sequence, .. } | Frame::Skip { sequence, .. })) => {
                        assert!(self.next_written.is_none_or(|next| next == sequence));
                        self.next_written = Some(sequence + 1);
                    }
                    Ok(Some(_)) | Err(_) => {}
                    Ok(None) => {
                        let hello = Hello::decode(payload);
                        let answer = HelloAnswer::decode(payload);
                        assert!(matches!(hello, Ok(HelloKind::Compatible(_))) || answer.is_ok());
                    }
                }
            }
        }
        Ok(())
    }

    /// A connection whose Hello the table has decided about.
    fn attach(&mut self, input: &mut Input<'_>) {
        let hello = plausible_hello(input);
        if !matches!(self.state.phase, Phase::Idle { .. } | Phase::Open { .. })
            || self.state.role != super::Role::KeepSession
        {
            return;
        }
        // An end that does not know the session's name has nothing of it.
        let (told, attachment) = match &self.state.exchange {
            Some(exchange) if exchange.has_session() => {
                (exchange.expected_by(&hello), Attachment::Resume)
            }
            _ => (1, Attachment::Begin(SESSION)),
        };
        self.begin_connection();
        match self.state.handle_attached(self.now, &hello, attachment) {
            Ok(()) => self.next_written = Some(told),
            Err(cause) => self.lose(cause),
        }
    }

    fn begin_connection(&mut self) {
        self.connected = true;
        self.reader = PacketReader::new(MAX_PAYLOAD as usize);
        self.written = PacketReader::new(MAX_PAYLOAD as usize);
        self.next_written = None;
    }

    fn lose(&mut self, cause: ConnectionError) {
        if self.connected {
            self.connected = false;
            self.state.handle_closed(self.now, cause, 512);
        }
    }

    fn use_handle(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => self
                .state
                .request_close(Duration::from_millis(u64::from(input.u16()))),
            1..=3 => self.state.request_reconnect(),
            number => self.state.set_demand(Demand {
                replies: number % 2 == 0,
                watches: number > 5,
                references: number == 4,
            }),
        }
    }

    /// What the driver does until there is nothing to do but wait.
    fn drive(&mut self) {
        for _ in 0..32 {
            self.state.handle_timeout(self.now);
            let action = self.state.poll_action(self.now);
            self.take_events();
            match action {
                Action::Wait => {
                    let next = self.state.poll_timeout(self.now);
                    self.set_alarms(next);
                    let next = next.ordinary.into_iter().chain(next.background).min();
                    if next.is_none_or(|next| next > self.now) {
                        return;
                    }
                }
                Action::Connect => {
                    assert!(!self.connected);
                    self.begin_connection();
                    self.state.handle_connected(self.now, SESSION);
                }
                Action::Disconnect(cause) => {
                    self.connected = false;
                    self.state.handle_closed(self.now, cause, 512);
                }
                Action::Shutdown => self.state.handle_shutdown(),
                Action::Finish => {
                    self.connected = false;
                    return;
                }
            }
        }
        assert!(self.state.is_finished(), "the state never waits");
    }

    fn take_events(&mut self) {
        assert!(self.state.events.len() <= MAX_EVENTS + 2);
        while let Some(event) = self.state.poll_event() {
            let Event::SessionEnded(ended) = event else {
                continue;
            };
            let (maybe, not) = (ended.maybe_delivered, ended.not_delivered);
            assert!(self.reported <= maybe.start && maybe.start <= maybe.end);
            assert!(maybe.end == not.start && not.start <= not.end);
            assert!(not.end <= PacketId::new(self.accepted + 1));
            self.reported = not.end;
        }
    }

    fn check(&mut self) {
        let metrics = self.state.metrics();
        let largest = MAX_PAYLOAD as usize + SEQUENCED_HEAD;
        // Its own packets, answers and refusals have a limit each.
        assert!(metrics.reliable_queued + metrics.unacknowledged <= 3 * MAX_PACKETS);
        assert!(metrics.reliable_bytes < MAX_BYTES + largest + 2 * MAX_PACKETS * largest);
        assert!(metrics.answer_slots <= MAX_PACKETS);
        assert!(metrics.unreliable_queued <= MAX_PACKETS);
        assert!(metrics.unreliable_bytes < MAX_BYTES + largest);
        let capacity = self.reader.buffer().capacity();
        assert!(
            capacity <= reader_limit(MAX_PAYLOAD as usize),
            "{capacity} bytes reserved"
        );
        if self.state.is_finished() {
            assert_eq!((metrics.reliable_queued, metrics.unacknowledged), (0, 0));
            assert_eq!((metrics.reliable_bytes, metrics.unreliable_bytes), (0, 0));
        }
    }
}

/// A Hello of which most is as it should be.
fn plausible_hello(input: &mut Input<'_>) -> Hello {
    if input.below(4) == 0 {
        return made_hello(input);
    }
    Hello {
        version_min: 1,
        version_max: 1,
        max_payload: u32::from(input.u16()).max(64),
        features: 0,
        incarnation: THEIRS,
        session: SESSION,
        next_expected: u64::from(input.u8() % 8),
        generation: u64::from(input.u8()),
        expected_peer: None,
        address: None,
    }
}

/// An answer likewise.
fn plausible_answer(input: &mut Input<'_>) -> HelloAnswer {
    let outcome = match input.below(4) {
        0 => return made_answer(input),
        1 => Outcome::Fresh {
            session: UID::new(50, u64::from(input.u8())),
        },
        2 => Outcome::Resumed {
            next_expected: u64::from(input.u8() % 8),
        },
        _ => Outcome::Superseded {
            generation: u64::from(input.u8()),
        },
    };
    HelloAnswer {
        version: VERSION,
        outcome,
        max_payload: u32::from(input.u16()).max(64),
        features: 0,
        incarnation: THEIRS,
        address: None,
    }
}

/// Begins with what the input has, and goes on with zeroes: large ones need no large inputs.
fn some_payload(input: &mut Input<'_>) -> Vec<u8> {
    let size = match input.below(4) {
        // On both sides of what a packet may carry, and of what may be delivered.
        3 => MAX_PAYLOAD as usize - 4 + input.below(48),
        _ => input.below(256),
    };
    let front = size.min(64);
    let mut payload = input.bytes(front).to_vec();
    payload.resize(size, 0);
    payload
}
