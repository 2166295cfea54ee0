//! What must hold for any bytes at all, one function per decoder. Not part of the API.
//!
//! Each body takes arbitrary bytes, and panics if a property is broken. The targets of `fuzz/` call
//! them with what libFuzzer finds; ordinary tests call them with a fixed number of seeded inputs
//! and with the corpus that is kept in `fuzz/corpus`. So a property stands in one place, and is tried
//! whether or not anyone runs a fuzzer. Compiled for tests and with the feature `fuzzing` only.

mod generator;
mod input;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use bytes::{Bytes, BytesMut};

use crate::messaging::wire::{
    MAX_PAYLOAD_LIMIT, MAX_PAYLOAD_SIZE, SEQUENCED_PREFIX_SIZE, max_packet_size, packet_length,
};
use crate::messaging::{
    Endpoint, HEADER_SIZE, NetworkAddress, PacketHeader, UID, WellKnownToken, WireError,
    deserialize_packet, serialize_packet, try_deserialize_packet,
};

use super::frame::{Frame as Outgoing, FrameKind, Prefix};
use super::reader::PacketReader;
use super::session::{
    ANSWER_SIZE, Frame, HELLO_SIZE, Hello, HelloAnswer, HelloKind, Outcome, VERSION,
};
use super::terms::PacketTerms;

pub use super::state::fuzzing::peer_state;
pub use generator::{Generator, corpus};
pub use input::Input;

/// Limits of payloads with which packets are tried.
const PAYLOAD_LIMITS: [usize; 4] = [1, 100, MAX_PAYLOAD_SIZE, MAX_PAYLOAD_LIMIT];

/// The limit of payloads of a stream.
const STREAM_PAYLOAD: usize = 2_000;

/// The largest buffer of a stream's reader: a packet, the largest read, and as much again, since
/// growing doubles.
pub(super) const fn reader_limit(max_payload: usize) -> usize {
    2 * (max_packet_size(max_payload) + 128 * 1024)
}

/// The packet decoder: the bytes as a packet, and as a packet's payload.
///
/// # Panics
/// If a property is broken.
pub fn packet(bytes: &[u8]) {
    for max_payload in PAYLOAD_LIMITS {
        let length = packet_length(bytes, max_payload);
        if let Ok(Some(length)) = length {
            assert!((HEADER_SIZE..=max_packet_size(max_payload)).contains(&length));
        }
        match try_deserialize_packet(bytes, max_payload) {
            Ok(Some(packet)) => {
                assert_eq!(length, Ok(Some(packet.size)));
                assert!(packet.payload.len() <= max_payload + SEQUENCED_PREFIX_SIZE);
                let again = serialize_packet(packet.token, packet.payload);
                assert_eq!(bytes.get(..packet.size), Some(&again[..]));
            }
            Ok(None) => match length {
                Ok(Some(length)) => assert!(bytes.len() < length),
                other => assert!(other == Ok(None) && bytes.len() < 4),
            },
            Err(error @ WireError::ChecksumMismatch { .. }) => {
                assert!(
                    matches!(length, Ok(Some(length)) if length <= bytes.len()),
                    "{error}"
                );
            }
            Err(error) => assert_eq!(length, Err(error)),
        }
    }
    if let Ok(header) = PacketHeader::deserialize(bytes) {
        let mut again = [0; HEADER_SIZE];
        assert_eq!(header.serialize(&mut again), Ok(()));
        assert_eq!(bytes.get(..HEADER_SIZE), Some(&again[..]));
    }
    if let Ok((token, payload)) = deserialize_packet(bytes) {
        assert_eq!(serialize_packet(token, payload), bytes);
    }
    payload_survives(bytes);
}

/// Any payload comes back, and a changed bit behind the length is noticed.
fn payload_survives(payload: &[u8]) {
    let mut input = Input::new(payload);
    let token = input.uid();
    let mut bytes = serialize_packet(token, payload);
    assert_eq!(deserialize_packet(&bytes), Ok((token, payload)));
    let at = 4 + input.below(bytes.len() - 4);
    let flip = 1 << input.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= flip;
    }
    let changed = deserialize_packet(&bytes);
    assert!(
        matches!(changed, Err(WireError::ChecksumMismatch { .. })),
        "{changed:?}"
    );
}

/// The reader of a stream's packets: the first two bytes say how the rest is cut into chunks. It
/// has to give the packets that the whole stream has, however it is cut, and to reserve no more than
/// one packet and one read need.
///
/// # Panics
/// If a property is broken.
pub fn packet_stream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (first, second) = (input.below(64), input.below(512));
    let stream = input.rest();
    let (expected, error) = whole_stream(stream);
    let mut reader = PacketReader::new(STREAM_PAYLOAD);
    let mut packets = Vec::new();
    let mut failed = None;
    let mut rest = stream;
    let mut step = 0;
    while !rest.is_empty() && failed.is_none() {
        // Short and long chunks take turns.
        step += 1;
        let size = if step % 3 == 0 { second } else { first };
        let (chunk, behind) = rest.split_at(rest.len().min(1 + size));
        rest = behind;
        reader.buffer().extend_from_slice(chunk);
        reader.handle_read(chunk.len());
        failed = drain(&mut reader, &mut packets).err();
        let capacity = reader.buffer().capacity();
        assert!(
            capacity <= reader_limit(STREAM_PAYLOAD),
            "{capacity} bytes reserved"
        );
    }
    assert_eq!(packets, expected);
    assert_eq!(failed, error);
}

/// The packets of a stream, and what is wrong behind them.
fn whole_stream(stream: &[u8]) -> (Vec<(UID, Bytes)>, Option<WireError>) {
    let mut packets = Vec::new();
    let mut rest = stream;
    loop {
        match try_deserialize_packet(rest, STREAM_PAYLOAD) {
            Ok(Some(packet)) => {
                packets.push((packet.token, Bytes::copy_from_slice(packet.payload)));
                rest = rest.get(packet.size..).unwrap_or_default();
            }
            Ok(None) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

fn drain(reader: &mut PacketReader, packets: &mut Vec<(UID, Bytes)>) -> Result<(), WireError> {
    while let Some(mut block) = reader.next_block()? {
        while let Some((token, payload, whole)) = block.next_packet()? {
            let payload = if payload.is_empty() {
                Bytes::new()
            } else {
                whole.slice_ref(payload)
            };
            packets.push((token, payload));
        }
    }
    Ok(())
}

/// A Hello: the bytes as its payload, and as the values of its fields.
///
/// # Panics
/// If a property is broken.
pub fn hello(bytes: &[u8]) {
    match Hello::decode(bytes) {
        Ok(HelloKind::Compatible(hello)) => {
            assert!(bytes.len() >= HELLO_SIZE);
            assert!((hello.version_min..=hello.version_max).contains(&VERSION));
            let again = hello.encode();
            // Only an address has bytes that mean nothing.
            assert_eq!(bytes.get(..88), again.get(..88));
            assert_eq!(Hello::decode(&again), Ok(HelloKind::Compatible(hello)));
        }
        Ok(HelloKind::Incompatible {
            version_min,
            version_max,
        }) => {
            assert!(bytes.len() >= 12);
            assert!(!(version_min..=version_max).contains(&VERSION));
        }
        Err(_) => {}
    }
    let made = made_hello(&mut Input::new(bytes));
    let kind = HelloKind::Compatible(made);
    assert_eq!(Hello::decode(&made.encode()), Ok(kind));
}

/// A Hello of this version, with fields from the input.
pub(super) fn made_hello(input: &mut Input<'_>) -> Hello {
    Hello {
        version_min: input.u16() % (VERSION + 1),
        version_max: input.u16().max(VERSION),
        max_payload: input.u32().max(64),
        features: input.u64(),
        incarnation: input.uid(),
        session: input.uid(),
        next_expected: input.u64(),
        generation: input.u64(),
        expected_peer: Some(input.uid()).filter(UID::is_valid),
        address: made_address(input),
    }
}

/// A HelloAnswer likewise.
///
/// # Panics
/// If a property is broken.
pub fn hello_answer(bytes: &[u8]) {
    if let Ok(answer) = HelloAnswer::decode(bytes) {
        let again = answer.encode();
        if let Outcome::Incompatible { .. } = answer.outcome {
            assert!(bytes.len() >= 11);
            assert_eq!(bytes.get(..11), again.get(..11));
        } else {
            assert!(bytes.len() >= ANSWER_SIZE);
            assert_eq!(answer.version, VERSION);
            assert_eq!(bytes.get(..11), again.get(..11));
            assert_eq!(bytes.get(12..48), again.get(12..48));
        }
        assert_eq!(HelloAnswer::decode(&again), Ok(answer));
    }
    let made = made_answer(&mut Input::new(bytes));
    assert_eq!(HelloAnswer::decode(&made.encode()), Ok(made));
}

/// An answer of any kind, with fields from the input.
pub(super) fn made_answer(input: &mut Input<'_>) -> HelloAnswer {
    let outcome = match input.below(4) {
        0 => Outcome::Resumed {
            next_expected: input.u64(),
        },
        1 => Outcome::Fresh {
            session: input.uid(),
        },
        2 => Outcome::Superseded {
            generation: input.u64(),
        },
        _ => return HelloAnswer::incompatible(UID::NIL, input.u16(), input.u16()),
    };
    HelloAnswer {
        version: VERSION,
        outcome,
        max_payload: input.u32().max(64),
        features: input.u64(),
        incarnation: input.uid(),
        address: made_address(input),
    }
}

fn made_address(input: &mut Input<'_>) -> Option<NetworkAddress> {
    let port = input.u16();
    let flags = input.u16();
    let ip = match input.below(3) {
        0 => return None,
        1 => std::net::IpAddr::from(input.u32().to_le_bytes()),
        _ => std::net::IpAddr::from(input.uid().to_le_bytes()),
    };
    Some(NetworkAddress { ip, port, flags })
}

/// The other session frames: the first byte is the token's number, the rest the payload.
///
/// # Panics
/// If a property is broken.
pub fn frame(bytes: &[u8]) {
    let Some((number, payload)) = bytes.split_first() else {
        return;
    };
    let token = UID::well_known(u32::from(*number) % 16);
    let Some(kind) = WellKnownToken::session_frame(token) else {
        return;
    };
    let is_greeting = matches!(kind, WellKnownToken::Hello | WellKnownToken::HelloAnswer);
    match Frame::decode(kind, payload) {
        Ok(None) => assert!(is_greeting),
        Ok(Some(frame)) => {
            assert!(!is_greeting);
            assert_eq!(encode_frame(frame), (token, payload.to_vec()));
            sequenced_is_laid_out_alike(frame, payload);
        }
        Err(_) => assert!(!is_greeting),
    }
}

/// The token and the payload of a frame, written down a second time.
pub(super) fn encode_frame(frame: Frame<'_>) -> (UID, Vec<u8>) {
    let numbers = |first: u64, second: u64| [first.to_le_bytes(), second.to_le_bytes()].concat();
    let (kind, payload) = match frame {
        Frame::Sequenced {
            sequence,
            ack,
            token,
            payload,
        } => {
            let front = numbers(sequence, ack);
            let payload = [&front[..], &token.to_le_bytes(), payload].concat();
            (WellKnownToken::Sequenced, payload)
        }
        Frame::Ack { ack } => (WellKnownToken::Ack, ack.to_le_bytes().to_vec()),
        Frame::Skip { sequence, ack } => (WellKnownToken::Skip, numbers(sequence, ack)),
        Frame::Ping { ack, nonce } => (WellKnownToken::SessionPing, numbers(ack, nonce)),
        Frame::Pong { ack, nonce } => (WellKnownToken::SessionPong, numbers(ack, nonce)),
        Frame::Close { ack } => (WellKnownToken::Close, ack.to_le_bytes().to_vec()),
    };
    (kind.token(), payload)
}

/// What the sending side lays out for the same packet is the same bytes.
fn sequenced_is_laid_out_alike(frame: Frame<'_>, payload: &[u8]) {
    let Frame::Sequenced {
        sequence,
        ack,
        token,
        payload: inner,
    } = frame
    else {
        return;
    };
    if sequence == 0 {
        // Stands for "none yet" on the sending side.
        return;
    }
    let mut head = BytesMut::new();
    Prefix::Sequenced(token).write(&mut head);
    head.extend_from_slice(inner);
    let mut outgoing = Outgoing::new(head, FrameKind::Reliable, PacketTerms::default());
    outgoing.sequence = sequence;
    outgoing.lay_out(ack);
    let expected = serialize_packet(WellKnownToken::Sequenced.token(), payload);
    assert_eq!(outgoing.laid_out(), expected);
}

/// The texts of addresses, tokens and endpoints.
///
/// # Panics
/// If a property is broken.
pub fn address(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        text_survives::<NetworkAddress>(text);
        text_survives::<UID>(text);
        text_survives::<Endpoint>(text);
        if let Ok(token) = text.parse::<UID>() {
            assert_eq!(token.to_string(), text.to_ascii_lowercase());
        }
    }
    let mut input = Input::new(bytes);
    if let Some(made) = made_address(&mut input) {
        // Only two flags have a name.
        let made = made.with_flags(made.flags % 4);
        let endpoint = Endpoint::new(made, input.uid());
        assert_eq!(made.to_string().parse(), Ok(made));
        assert_eq!(endpoint.token.to_string().parse(), Ok(endpoint.token));
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
    }
}

/// What a text was read as is written as a text that reads the same.
fn text_survives<T>(text: &str)
where
    T: FromStr<Err: std::fmt::Debug + PartialEq> + ToString + std::fmt::Debug + PartialEq,
{
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string();
        assert_eq!(again.parse(), Ok(value));
    }
}
