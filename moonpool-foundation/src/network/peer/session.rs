//! The frames of an acknowledged session, as bytes. Pure: nothing here knows of time or sockets.
//!
//! A session frame is an ordinary packet (see [`wire`](crate::messaging::wire)) to one of the
//! well-known tokens 3-10. `docs/wire-format.md` describes them byte by byte, and when they are sent.
//!
//! The session in a Hello is one that was told in an answer, or a name that the dialler draws and
//! repeats until it is answered. The acceptor draws the id in `Fresh` anew, and goes on only with
//! that: a Hello that comes late cannot bring a forgotten session back. To a proposed name that it
//! knows it says `Fresh` with the same id again.
//!
//! Both greetings may grow at the end in later versions: bytes beyond those known are not looked at,
//! and of one of another version only the front is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::messaging::wire::MIN_PAYLOAD_LIMIT;
use crate::messaging::{NetworkAddress, UID, WellKnownToken};

use super::error::ProtocolError;

/// The version spoken.
pub(super) const VERSION: u16 = 1;

pub(super) const HELLO_SIZE: usize = 112;
pub(super) const ANSWER_SIZE: usize = 80;
const MAGIC: [u8; 8] = *b"moonpool";

/// Who this end is, in acknowledged sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionIdentity {
    /// Random, drawn when the transport starts: tells a restarted process from its predecessor.
    pub incarnation: UID,
    /// The canonical address this end listens on, if it does.
    pub address: Option<NetworkAddress>,
}

/// What a peer speaks. Both ends have to speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// Packets only: at most once, in order, per connection.
    Plain,
    /// Hello, sequence numbers and acknowledgements.
    Acknowledged(SessionIdentity),
}

/// The dialler's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) version_min: u16,
    pub(super) version_max: u16,
    pub(super) max_payload: u32,
    pub(super) features: u64,
    pub(super) incarnation: UID,
    pub(super) session: UID,
    pub(super) next_expected: u64,
    pub(super) generation: u64,
    pub(super) expected_peer: Option<UID>,
    pub(super) address: Option<NetworkAddress>,
}

/// What a Hello turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloKind {
    Compatible(Hello),
    /// Another version: nothing else of it can be understood.
    Incompatible {
        version_min: u16,
        version_max: u16,
    },
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO_SIZE] {
        let mut bytes = [0; HELLO_SIZE];
        let mut writer = Writer::new(&mut bytes);
        writer.put(&MAGIC);
        writer.put(&self.version_min.to_le_bytes());
        writer.put(&self.version_max.to_le_bytes());
        writer.put(&self.max_payload.to_le_bytes());
        writer.put(&self.features.to_le_bytes());
        writer.put(&self.incarnation.to_le_bytes());
        writer.put(&self.session.to_le_bytes());
        writer.put(&self.next_expected.to_le_bytes());
        writer.put(&self.generation.to_le_bytes());
        writer.put(&self.expected_peer.unwrap_or(UID::NIL).to_le_bytes());
        writer.put(&encode_address(self.address));
        bytes
    }

    pub(super) fn decode(payload: &[u8]) -> Result<HelloKind, ProtocolError> {
        let frame = WellKnownToken::Hello;
        let mut reader = Reader {
            rest: payload,
            size: payload.len(),
            frame,
        };
        reader.magic()?;
        let (version_min, version_max) = (reader.u16()?, reader.u16()?);
        if version_min > VERSION || version_max < VERSION {
            return Ok(HelloKind::Incompatible {
                version_min,
                version_max,
            });
        }
        Ok(HelloKind::Compatible(Self {
            version_min,
            version_max,
            max_payload: reader.payload_limit()?,
            features: reader.u64()?,
            incarnation: reader.uid()?,
            session: reader.uid()?,
            next_expected: reader.u64()?,
            generation: reader.u64()?,
            expected_peer: Some(reader.uid()?).filter(UID::is_valid),
            address: reader.address()?,
        }))
    }
}

/// The acceptor's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HelloAnswer {
    pub(super) version: u16,
    pub(super) outcome: Outcome,
    pub(super) max_payload: u32,
    pub(super) features: u64,
    pub(super) incarnation: UID,
    pub(super) address: Option<NetworkAddress>,
}

/// What the acceptor makes of a Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Resumed { next_expected: u64 },
    Fresh { session: UID },
    Superseded { generation: u64 },
    Incompatible { version_min: u16 },
}

impl HelloAnswer {
    /// The answer of an end that speaks no version of the session protocol, or not this one.
    pub(super) fn incompatible(incarnation: UID, version_min: u16, version: u16) -> Self {
        Self {
            version,
            outcome: Outcome::Incompatible { version_min },
            max_payload: 0,
            features: 0,
            incarnation,
            address: None,
        }
    }

    /// The answer to a Hello whose generation is not above one that was accepted.
    pub(super) fn superseded(identity: SessionIdentity, max_payload: u32, generation: u64) -> Self {
        Self {
            version: VERSION,
            outcome: Outcome::Superseded { generation },
            max_payload,
            features: 0,
            incarnation: identity.incarnation,
            address: identity.address,
        }
    }

    pub(super) fn encode(&self) -> [u8; ANSWER_SIZE] {
        let mut argument = [0; 16];
        let mut writer = Writer::new(&mut argument);
        let code: u8 = match self.outcome {
            Outcome::Resumed { next_expected } => {
                writer.put(&next_expected.to_le_bytes());
                1
            }
            Outcome::Fresh { session } => {
                writer.put(&session.to_le_bytes());
                2
            }
            Outcome::Superseded { generation } => {
                writer.put(&generation.to_le_bytes());
                3
            }
            Outcome::Incompatible { version_min } => {
                writer.put(&version_min.to_le_bytes());
                4
            }
        };
        let mut bytes = [0; ANSWER_SIZE];
        let mut writer = Writer::new(&mut bytes);
        writer.put(&MAGIC);
        writer.put(&self.version.to_le_bytes());
        writer.put(&[code, 0]);
        writer.put(&self.max_payload.to_le_bytes());
        writer.put(&self.features.to_le_bytes());
        writer.put(&self.incarnation.to_le_bytes());
        writer.put(&argument);
        writer.put(&encode_address(self.address));
        bytes
    }

    pub(super) fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        const INCOMPATIBLE: u8 = 4;
        let frame = WellKnownToken::HelloAnswer;
        let mut reader = Reader {
            rest: payload,
            size: payload.len(),
            frame,
        };
        reader.magic()?;
        let version = reader.u16()?;
        let [code] = reader.take::<1>()?;
        if code == INCOMPATIBLE {
            let oldest = payload.get(40..).and_then(|rest| rest.first_chunk::<2>());
            let version_min = oldest.map_or(version, |bytes| u16::from_le_bytes(*bytes));
            return Ok(Self::incompatible(UID::NIL, version_min, version));
        }
        if version != VERSION {
            return Err(ProtocolError::UnknownVersion { version });
        }
        reader.take::<1>()?;
        let max_payload = reader.payload_limit()?;
        let features = reader.u64()?;
        let incarnation = reader.uid()?;
        let argument = reader.uid()?;
        let outcome = match code {
            1 => Outcome::Resumed {
                next_expected: argument.first,
            },
            2 => Outcome::Fresh { session: argument },
            3 => Outcome::Superseded {
                generation: argument.first,
            },
            _ => return Err(ProtocolError::UnknownOutcome { code }),
        };
        let address = reader.address()?;
        Ok(Self {
            version,
            outcome,
            max_payload,
            features,
            incarnation,
            address,
        })
    }
}

/// What a Sequenced frame carries: its sequence number, acknowledgement, token and payload. `None`: it
/// is too short.
#[inline]
pub(super) fn sequenced(frame: &[u8]) -> Option<(u64, u64, UID, &[u8])> {
    let (sequence, rest) = frame.split_first_chunk()?;
    let (ack, rest) = rest.split_first_chunk()?;
    let (token, payload) = rest.split_first_chunk()?;
    let (sequence, ack) = (u64::from_le_bytes(*sequence), u64::from_le_bytes(*ack));
    Some((sequence, ack, UID::from_le_bytes(*token), payload))
}

/// A session frame other than the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    Sequenced {
        sequence: u64,
        ack: u64,
        token: UID,
        payload: &'a [u8],
    },
    Ack {
        ack: u64,
    },
    Skip {
        sequence: u64,
        ack: u64,
    },
    Ping {
        ack: u64,
        nonce: u64,
    },
    Pong {
        ack: u64,
        nonce: u64,
    },
    Close {
        ack: u64,
    },
}

impl<'a> Frame<'a> {
    /// Reads the frame that a packet to `kind` carries. `None`: `kind` is part of the greeting or
    /// no session frame at all.
    pub(super) fn decode(
        kind: WellKnownToken,
        payload: &'a [u8],
    ) -> Result<Option<Self>, ProtocolError> {
        let mut reader = Reader {
            rest: payload,
            size: payload.len(),
            frame: kind,
        };
        let frame = match kind {
            WellKnownToken::Sequenced => {
                let (sequence, ack, token) = (reader.u64()?, reader.u64()?, reader.uid()?);
                let payload = std::mem::take(&mut reader.rest);
                Self::Sequenced {
                    sequence,
                    ack,
                    token,
                    payload,
                }
            }
            WellKnownToken::Ack => Self::Ack { ack: reader.u64()? },
            WellKnownToken::Skip => Self::Skip {
                sequence: reader.u64()?,
                ack: reader.u64()?,
            },
            WellKnownToken::SessionPing => Self::Ping {
                ack: reader.u64()?,
                nonce: reader.u64()?,
            },
            WellKnownToken::SessionPong => Self::Pong {
                ack: reader.u64()?,
                nonce: reader.u64()?,
            },
            WellKnownToken::Close => Self::Close { ack: reader.u64()? },
            WellKnownToken::EndpointNotFound
            | WellKnownToken::Overloaded
            | WellKnownToken::Ping
            | WellKnownToken::UnauthorizedEndpoint
            | WellKnownToken::Hello
            | WellKnownToken::HelloAnswer => return Ok(None),
        };
        if !reader.rest.is_empty() {
            return Err(ProtocolError::FrameSize {
                frame: kind,
                size: payload.len(),
            });
        }
        Ok(Some(frame))
    }
}

fn encode_address(address: Option<NetworkAddress>) -> [u8; 24] {
    let mut bytes = [0; 24];
    let Some(address) = address else {
        return bytes;
    };
    let mut writer = Writer::new(&mut bytes);
    writer.put(&[if address.ip.is_ipv4() { 4 } else { 6 }, 0]);
    writer.put(&address.port.to_le_bytes());
    writer.put(&address.flags.to_le_bytes());
    writer.put(&[0, 0]);
    match address.ip {
        IpAddr::V4(ip) => writer.put(&ip.octets()),
        IpAddr::V6(ip) => writer.put(&ip.octets()),
    }
    bytes
}

/// Fills a fixed array from the front.
struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    fn new(rest: &'a mut [u8]) -> Self {
        Self { rest }
    }

    fn put(&mut self, bytes: &[u8]) {
        let rest = std::mem::take(&mut self.rest);
        debug_assert!(
            rest.len() >= bytes.len(),
            "the layout is longer than its array"
        );
        if let Some((front, rest)) = rest.split_at_mut_checked(bytes.len()) {
            front.copy_from_slice(bytes);
            self.rest = rest;
        }
    }
}

/// Takes fields off a payload, from the front.
struct Reader<'a> {
    rest: &'a [u8],
    size: usize,
    frame: WellKnownToken,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let Some((front, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(ProtocolError::FrameSize {
                frame: self.frame,
                size: self.size,
            });
        };
        self.rest = rest;
        Ok(*front)
    }

    fn magic(&mut self) -> Result<(), ProtocolError> {
        if self.take::<8>()? == MAGIC {
            return Ok(());
        }
        Err(ProtocolError::Magic { frame: self.frame })
    }

    fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.take().map(u32::from_le_bytes)
    }

    /// What the other end takes.
    fn payload_limit(&mut self) -> Result<u32, ProtocolError> {
        let limit = self.u32()?;
        if (limit as usize) < MIN_PAYLOAD_LIMIT {
            return Err(ProtocolError::PayloadLimit { limit });
        }
        Ok(limit)
    }

    fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.take().map(u64::from_le_bytes)
    }

    fn uid(&mut self) -> Result<UID, ProtocolError> {
        self.take().map(UID::from_le_bytes)
    }

    fn address(&mut self) -> Result<Option<NetworkAddress>, ProtocolError> {
        let [family, _] = self.take::<2>()?;
        let (port, flags, _) = (self.u16()?, self.u16()?, self.u16()?);
        let octets = self.take::<16>()?;
        let ip = match family {
            0 => return Ok(None),
            4 => IpAddr::from(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3])),
            6 => IpAddr::from(Ipv6Addr::from(octets)),
            _ => return Err(ProtocolError::AddressFamily { family }),
        };
        Ok(Some(NetworkAddress { ip, port, flags }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ADDRESS: &str = "10.0.0.9:4500(tls)";

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 2,
            max_payload: 0x0010_0000,
            features: 0x0102_0304_0506_0708,
            incarnation: UID::new(0xA1, 0xA2),
            session: UID::new(0xB1, 0xB2),
            next_expected: 0xC1,
            generation: 0xC2,
            expected_peer: Some(UID::new(0xD1, 0xD2)),
            address: Some(ADDRESS.parse().unwrap()),
        }
    }

    fn answer(outcome: Outcome) -> HelloAnswer {
        HelloAnswer {
            version: 1,
            outcome,
            max_payload: 0x0010_0000,
            features: 0,
            incarnation: UID::new(0xA1, 0xA2),
            address: Some("[::1]:443".parse().unwrap()),
        }
    }

    #[test]
    fn a_greeting_whose_limit_leaves_no_room_for_an_error_is_refused() {
        for limit in [0, 1, 63] {
            let hello = Hello {
                max_payload: limit,
                ..hello()
            };
            let refused = ProtocolError::PayloadLimit { limit };
            assert_eq!(Hello::decode(&hello.encode()), Err(refused.clone()));
            let answer = HelloAnswer {
                max_payload: limit,
                ..answer(Outcome::Resumed { next_expected: 1 })
            };
            assert_eq!(HelloAnswer::decode(&answer.encode()), Err(refused));
        }
        let smallest = Hello {
            max_payload: 64,
            ..hello()
        };
        let accepted = HelloKind::Compatible(smallest);
        assert_eq!(Hello::decode(&smallest.encode()), Ok(accepted));
    }

    /// Compares bytes with a golden file: hexadecimal text, with comments behind `#`.
    fn assert_golden(bytes: &[u8], golden: &str) {
        let expected: Vec<u8> = golden
            .lines()
            .flat_map(|line| {
                line.split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_bytes_of_a_hello_are_fixed() {
        let golden = include_str!("../../../tests/golden/hello.hex");
        assert_golden(&hello().encode(), golden);
    }

    #[test]
    fn the_bytes_of_the_answers_are_fixed() {
        let fresh = answer(Outcome::Fresh {
            session: UID::new(0xB1, 0xB2),
        });
        assert_golden(
            &fresh.encode(),
            include_str!("../../../tests/golden/answer_fresh.hex"),
        );
        let resumed = answer(Outcome::Resumed {
            next_expected: 0x0102,
        });
        assert_eq!(resumed.encode()[10], 1);
        assert_eq!(
            resumed.encode()[40..56],
            [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let superseded = answer(Outcome::Superseded { generation: 0x0102 });
        assert_eq!(superseded.encode()[10], 3);
        assert_eq!(superseded.encode()[40..48], [2, 1, 0, 0, 0, 0, 0, 0]);
        let refusal = HelloAnswer::incompatible(UID::new(0xA1, 0xA2), 3, 5);
        assert_golden(
            &refusal.encode(),
            include_str!("../../../tests/golden/answer_incompatible.hex"),
        );
    }

    #[test]
    fn greetings_survive() {
        for address in [None, Some(ADDRESS), Some("[2001:db8::1]:1(public)")] {
            let address = address.map(|text| text.parse().unwrap());
            for expected_peer in [None, Some(UID::new(1, 2))] {
                let hello = Hello {
                    address,
                    expected_peer,
                    ..hello()
                };
                assert_eq!(
                    Hello::decode(&hello.encode()),
                    Ok(HelloKind::Compatible(hello))
                );
            }
            for outcome in [
                Outcome::Resumed {
                    next_expected: u64::MAX,
                },
                Outcome::Fresh {
                    session: UID::new(3, 4),
                },
                Outcome::Superseded { generation: 7 },
            ] {
                let answer = HelloAnswer {
                    address,
                    ..answer(outcome)
                };
                assert_eq!(HelloAnswer::decode(&answer.encode()), Ok(answer));
            }
        }
    }

    #[test]
    fn greetings_of_later_versions_may_be_longer() {
        let mut bytes = hello().encode().to_vec();
        bytes.extend_from_slice(b"something new");
        assert_eq!(Hello::decode(&bytes), Ok(HelloKind::Compatible(hello())));
        let mut bytes = answer(Outcome::Fresh {
            session: UID::new(3, 4),
        })
        .encode()
        .to_vec();
        bytes.extend_from_slice(b"something new");
        assert!(HelloAnswer::decode(&bytes).is_ok());
    }

    #[test]
    fn versions_that_do_not_meet_are_told_from_the_front_alone() {
        let other = Hello {
            version_min: 5,
            version_max: 9,
            ..hello()
        }
        .encode();
        let told = HelloKind::Incompatible {
            version_min: 5,
            version_max: 9,
        };
        assert_eq!(Hello::decode(&other[..12]), Ok(told));
        let refusal = HelloAnswer::incompatible(UID::NIL, 5, 9).encode();
        for length in [11, 41, 80] {
            let answer = HelloAnswer::decode(&refusal[..length]).unwrap();
            let version_min = if length < 42 { 9 } else { 5 };
            assert_eq!(answer.outcome, Outcome::Incompatible { version_min });
            assert_eq!(answer.version, 9);
        }
    }

    #[test]
    fn greetings_that_are_none_are_typed_errors() {
        let frame = WellKnownToken::Hello;
        let good = hello().encode();
        let short = Hello::decode(&good[..111]);
        assert_eq!(short, Err(ProtocolError::FrameSize { frame, size: 111 }));
        let mut magic = good;
        magic[0] = b'M';
        assert_eq!(Hello::decode(&magic), Err(ProtocolError::Magic { frame }));
        let mut family = good;
        family[88] = 5;
        assert_eq!(
            Hello::decode(&family),
            Err(ProtocolError::AddressFamily { family: 5 })
        );
        let mut outcome = answer(Outcome::Superseded { generation: 1 }).encode();
        outcome[10] = 9;
        let unknown = HelloAnswer::decode(&outcome);
        assert_eq!(unknown, Err(ProtocolError::UnknownOutcome { code: 9 }));
        outcome[8] = 2;
        let unknown = HelloAnswer::decode(&outcome);
        assert_eq!(unknown, Err(ProtocolError::UnknownVersion { version: 2 }));
    }

    proptest! {
        #[test]
        fn no_frame_panics(id in 0u32..16, payload: Vec<u8>, has_magic: bool) {
            let mut payload = payload;
            if has_magic && payload.len() >= 12 {
                payload[..8].copy_from_slice(&MAGIC);
                payload[8..12].copy_from_slice(&[1, 0, 1, 0]);
            }
            drop(Hello::decode(&payload));
            drop(HelloAnswer::decode(&payload));
            if let Some(kind) = WellKnownToken::session_frame(UID::well_known(id)) {
                let is_greeting = matches!(kind, WellKnownToken::Hello | WellKnownToken::HelloAnswer);
                if let Ok(frame) = Frame::decode(kind, &payload) {
                    prop_assert_eq!(frame.is_none(), is_greeting);
                }
            }
        }
    }
}
