//! The state's behaviour, without runtime, sockets or clocks: times and bytes are written down.

mod closing;
mod delivery;
mod liveness;
mod model;
mod queueing;
mod reconnecting;
mod resting;
mod resuming;
mod sessions;
mod terms;

use std::io::IoSlice;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::messaging::{
    NetworkAddress, UID, WellKnownToken, WireError, deserialize_packet, serialize_packet,
    try_deserialize_packet,
};
use crate::network::peer::error::ProtocolError;
use crate::network::peer::frame::BATCH_SLICES;
use crate::network::peer::handle::PeerHandle;
use crate::network::peer::session::{
    Frame, Hello, HelloAnswer, HelloKind, Outcome, SessionIdentity, VERSION,
};
use crate::network::peer::{
    ConnectionChange, ConnectionError, PacketId, PeerConfig, PeerError, PeerId, SendError,
    SessionEnded, SessionMode,
};

use super::{Action, Demand, Event, PeerState};

const ZERO: Duration = Duration::ZERO;
const TOKEN: UID = UID::new(7, 8);
const SESSION: UID = UID::new(50, 51);
const DIALLER: UID = UID::new(1, 1);
const ACCEPTOR: UID = UID::new(2, 2);
/// Gives the longest delay there is, but for a thousandth.
const MOST_JITTER: u64 = 1023;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lost() -> ConnectionError {
    ConnectionError::lost(&std::io::ErrorKind::ConnectionReset.into())
}

fn refused() -> ConnectionError {
    ConnectionError::connect(&std::io::ErrorKind::ConnectionRefused.into())
}

fn mode(incarnation: UID) -> SessionMode {
    SessionMode::Acknowledged(SessionIdentity {
        incarnation,
        address: None,
    })
}

fn ids(range: Range<u64>) -> Range<PacketId> {
    PacketId::new(range.start)..PacketId::new(range.end)
}

fn ended(maybe_delivered: Range<u64>, not_delivered: Range<u64>) -> Event {
    Event::SessionEnded(SessionEnded {
        not_delivered: ids(not_delivered),
        maybe_delivered: ids(maybe_delivered),
    })
}

/// A state and the handle that sends to it, driven by hand.
struct Kit {
    handle: PeerHandle,
}

impl Kit {
    fn new(state: PeerState) -> Self {
        Self {
            handle: PeerHandle::new(PeerId(0), "elsewhere".into(), state),
        }
    }

    fn plain() -> Self {
        Self::new(PeerState::dialling(
            PeerConfig::default(),
            SessionMode::Plain,
        ))
    }

    fn dialler(config: PeerConfig) -> Self {
        Self::new(PeerState::dialling(config, mode(DIALLER)))
    }

    fn acceptor(now: Duration) -> Self {
        Self::new(PeerState::accepted(
            PeerConfig::default(),
            mode(ACCEPTOR),
            now,
        ))
    }

    /// A plain dialler with a connection.
    fn plain_open() -> Self {
        let kit = Self::plain();
        assert_eq!(kit.decide(ZERO), Action::Connect);
        kit.connected(ZERO);
        kit
    }

    /// A dialler whose Hello was answered at `ZERO`, with nothing queued.
    fn open() -> Self {
        Self::open_with(PeerConfig::default())
    }

    fn open_with(config: PeerConfig) -> Self {
        let kit = Self::dialler(config);
        kit.handle.reconnect();
        kit.greet(ZERO);
        assert_eq!(kit.changes(), [ConnectionChange::Opened]);
        kit
    }

    /// Dials and gets its Hello answered.
    fn greet(&self, now: Duration) {
        assert_eq!(self.decide(now), Action::Connect);
        self.connected(now);
        self.hello();
        self.answer(now, fresh()).unwrap();
    }

    fn connected(&self, now: Duration) {
        self.handle.state().handle_connected(now, SESSION);
    }

    fn decide(&self, now: Duration) -> Action {
        self.handle.take_changed();
        let mut state = self.handle.state();
        state.handle_timeout(now);
        state.poll_action(now)
    }

    fn send(&self, payload: &str) -> PacketId {
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.handle.send_reliable(TOKEN, payload).unwrap()
    }

    fn send_all(&self, payloads: &[&str]) {
        for payload in payloads {
            self.send(payload);
        }
    }

    /// Lays out and writes up to `limit` bytes, as a socket with that much room would take them.
    fn write(&self, limit: usize) -> Vec<u8> {
        self.write_at(ZERO, limit)
    }

    fn write_at(&self, now: Duration, limit: usize) -> Vec<u8> {
        let mut written = Vec::new();
        while written.len() < limit {
            let mut state = self.handle.state();
            let Some(batch) = state.lay_out(now) else {
                break;
            };
            let mut slices = [IoSlice::new(&[]); BATCH_SLICES];
            let count = batch.slices(&mut slices);
            let bytes: Vec<u8> = slices[..count]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .collect();
            let taken = bytes.len().min(limit - written.len());
            written.extend_from_slice(&bytes[..taken]);
            state.put_back(batch, taken);
            if taken == 0 {
                break;
            }
        }
        written
    }

    fn write_all(&self) -> Vec<u8> {
        self.write(usize::MAX)
    }

    /// Everything that is written next, as packets.
    fn packets(&self) -> Vec<(UID, Vec<u8>)> {
        packets(&self.write_all())
    }

    /// The payloads of the sequenced packets that are written next.
    fn payloads(&self) -> Vec<String> {
        let payload = |(token, payload): &(UID, Vec<u8>)| match sequenced(*token, payload) {
            Some((.., inner)) => String::from_utf8(inner).unwrap(),
            None => String::from_utf8(payload.clone()).unwrap(),
        };
        self.packets().iter().map(payload).collect()
    }

    /// The Hello that was laid out.
    fn hello(&self) -> Hello {
        let packets = self.packets();
        assert_eq!(packets.len(), 1, "the Hello is alone: {packets:?}");
        assert_eq!(packets[0].0, WellKnownToken::Hello.token());
        match Hello::decode(&packets[0].1).unwrap() {
            HelloKind::Compatible(hello) => hello,
            HelloKind::Incompatible { .. } => panic!("our own version is compatible"),
        }
    }

    fn answer(&self, now: Duration, answer: HelloAnswer) -> Result<(), ConnectionError> {
        let inbound = self.packet(now, WellKnownToken::HelloAnswer.token(), &answer.encode())?;
        assert_eq!(inbound, None);
        Ok(())
    }

    /// A packet arrives. What is for the user: its token, its payload, whether it was reliable.
    fn packet(
        &self,
        now: Duration,
        token: UID,
        payload: &[u8],
    ) -> Result<Option<(UID, Vec<u8>, bool)>, ConnectionError> {
        use crate::network::peer::exchange::Inbound;
        let mut state = self.handle.state();
        Ok(match state.handle_packet(now, token, payload)? {
            Inbound::Consumed => None,
            Inbound::Deliver {
                token,
                payload,
                reliable,
            } => Some((token, payload.to_vec(), reliable)),
        })
    }

    /// A sequenced packet arrives.
    fn sequenced(
        &self,
        sequence: u64,
        ack: u64,
        payload: &str,
    ) -> Result<Option<String>, ConnectionError> {
        let mut frame = numbers(&[sequence, ack]);
        frame.extend_from_slice(&TOKEN.to_le_bytes());
        frame.extend_from_slice(payload.as_bytes());
        let delivered = self.packet(ZERO, WellKnownToken::Sequenced.token(), &frame)?;
        Ok(delivered.map(|(token, payload, reliable)| {
            assert!(reliable && token == TOKEN);
            String::from_utf8(payload).unwrap()
        }))
    }

    fn frame(&self, kind: WellKnownToken, fields: &[u64]) -> Result<(), ConnectionError> {
        let delivered = self.packet(ZERO, kind.token(), &numbers(fields))?;
        assert_eq!(delivered, None);
        Ok(())
    }

    fn closed(&self, now: Duration, cause: ConnectionError) {
        self.handle.state().handle_closed(now, cause, MOST_JITTER);
    }

    fn timeout(&self, now: Duration) -> Option<Duration> {
        self.handle.state().poll_timeout(now).ordinary
    }

    fn background_timeout(&self, now: Duration) -> Option<Duration> {
        self.handle.state().poll_timeout(now).background
    }

    fn expect_replies(&self, replies: bool) {
        let demand = Demand {
            replies,
            ..Demand::default()
        };
        self.handle.state().set_demand(demand);
    }

    /// What is reported of packets and sessions.
    fn events(&self) -> Vec<Event> {
        let mut events = self.all_events();
        events.retain(|event| !matches!(event, Event::Connection(_)));
        events
    }

    /// What is reported of connections.
    fn changes(&self) -> Vec<ConnectionChange> {
        let change = |event| match event {
            Event::Connection(change) => Some(change),
            _ => None,
        };
        self.all_events().into_iter().filter_map(change).collect()
    }

    fn all_events(&self) -> Vec<Event> {
        std::iter::from_fn(|| self.handle.state().poll_event()).collect()
    }
}

fn numbers(fields: &[u64]) -> Vec<u8> {
    fields
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect()
}

fn packets(mut bytes: &[u8]) -> Vec<(UID, Vec<u8>)> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        let packet = try_deserialize_packet(bytes, 1 << 26)
            .unwrap()
            .expect("whole packets");
        packets.push((packet.token, packet.payload.to_vec()));
        bytes = &bytes[packet.size..];
    }
    packets
}

/// Sequence number, acknowledgement and payload, if the packet is a sequenced one.
fn sequenced(token: UID, payload: &[u8]) -> Option<(u64, u64, Vec<u8>)> {
    let kind = WellKnownToken::session_frame(token)?;
    match Frame::decode(kind, payload).unwrap()? {
        Frame::Sequenced {
            sequence,
            ack,
            token,
            payload,
        } => {
            assert_eq!(token, TOKEN);
            Some((sequence, ack, payload.to_vec()))
        }
        _ => None,
    }
}

fn answer(outcome: Outcome) -> HelloAnswer {
    HelloAnswer {
        version: VERSION,
        outcome,
        max_payload: 1 << 20,
        features: 0,
        incarnation: ACCEPTOR,
        address: None,
    }
}

fn fresh() -> HelloAnswer {
    answer(Outcome::Fresh { session: SESSION })
}
