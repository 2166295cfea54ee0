//! The packet: what every message is framed in.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the whole packet, header included, u32 little-endian |
//! | 4 | 4 | CRC-32C (Castagnoli) of everything that follows, u32 little-endian |
//! | 8 | 16 | token: `first` u64, then `second` u64, both little-endian |
//! | 24 | n | payload |
//!
//! The length is outside the checksum. So it is judged by itself, before a byte is buffered or
//! allocated for it. Everything here is total: no input panics, and none makes it allocate.
//! `docs/wire-format.md` goes on where this ends: with sessions and envelopes.

use super::checksum::{crc, crc_behind};
use super::types::UID;

/// Bytes in front of a packet's payload.
pub const HEADER_SIZE: usize = 4 + 4 + 16;

/// Where in a packet begins what its checksum covers.
pub(crate) const CHECKSUM_END: usize = 4 + 4;

/// Bytes that a sequenced packet puts in front of its inner payload: sequence number,
/// acknowledgement, inner token.
pub const SEQUENCED_PREFIX_SIZE: usize = 8 + 8 + 16;

/// The largest payload unless configured otherwise: 1 MiB.
pub const MAX_PAYLOAD_SIZE: usize = 1024 * 1024;

/// The largest payload that can be configured: 64 MiB.
pub const MAX_PAYLOAD_LIMIT: usize = 64 * 1024 * 1024;

/// The smallest limit on payloads that can be configured, and that another end may have: what is
/// wrong with a request can always be said.
pub const MIN_PAYLOAD_LIMIT: usize = 64;

/// The largest value of the length field where payloads are limited to `max_payload` bytes.
#[must_use]
pub const fn max_packet_size(max_payload: usize) -> usize {
    max_payload.saturating_add(HEADER_SIZE + SEQUENCED_PREFIX_SIZE)
}

/// The fixed front of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Bytes of the whole packet, header included.
    pub length: u32,
    /// CRC-32C of token and payload.
    pub checksum: u32,
    /// Where the payload goes.
    pub token: UID,
}

impl PacketHeader {
    /// The header of the packet that carries `payload` to `token`.
    ///
    /// # Errors
    /// [`WireError::PacketTooLarge`] if the packet passes [`MAX_PAYLOAD_LIMIT`].
    pub fn new(token: UID, payload: &[u8]) -> Result<Self, WireError> {
        let size = HEADER_SIZE.saturating_add(payload.len());
        Ok(Self {
            length: checked_length(size, MAX_PAYLOAD_LIMIT)?,
            checksum: checksum(token, payload),
            token,
        })
    }

    /// Writes the header over the first [`HEADER_SIZE`] bytes of `buf`.
    ///
    /// # Errors
    /// [`WireError::InsufficientData`] if `buf` is shorter; nothing is written then.
    pub fn serialize(&self, buf: &mut [u8]) -> Result<(), WireError> {
        let have = buf.len();
        let Some(front) = buf.first_chunk_mut::<HEADER_SIZE>() else {
            return Err(WireError::InsufficientData {
                needed: HEADER_SIZE,
                have,
            });
        };
        front[..4].copy_from_slice(&self.length.to_le_bytes());
        front[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        front[8..].copy_from_slice(&self.token.to_le_bytes());
        Ok(())
    }

    /// Reads a header. Only the length's lower bound is judged: see
    /// [`packet_length`] for the upper one, [`verify`](Self::verify) for the checksum.
    ///
    /// # Errors
    /// [`WireError::InsufficientData`] if `buf` is shorter than a header,
    /// [`WireError::InvalidLength`] if the packet would be.
    pub fn deserialize(buf: &[u8]) -> Result<Self, WireError> {
        let Some(front) = buf.first_chunk::<HEADER_SIZE>() else {
            return Err(WireError::InsufficientData {
                needed: HEADER_SIZE,
                have: buf.len(),
            });
        };
        let (length, rest) = split::<4>(front);
        let (checksum, rest) = split::<4>(rest);
        let (token, _) = split::<16>(rest);
        let length = u32::from_le_bytes(length);
        if (length as usize) < HEADER_SIZE {
            return Err(WireError::InvalidLength {
                length: length as usize,
                expected: HEADER_SIZE,
            });
        }
        Ok(Self {
            length,
            checksum: u32::from_le_bytes(checksum),
            token: UID::from_le_bytes(token),
        })
    }

    /// Checks the payload against the checksum.
    ///
    /// # Errors
    /// [`WireError::ChecksumMismatch`].
    pub fn verify(&self, payload: &[u8]) -> Result<(), WireError> {
        self.compare(checksum(self.token, payload))
    }

    /// [`verify`](Self::verify) for a packet that is there in one piece, header included: token and
    /// payload are summed up at once.
    pub(crate) fn verify_packet(&self, packet: &[u8]) -> Result<(), WireError> {
        let summed = packet.get(CHECKSUM_END..).unwrap_or_default();
        self.compare(crc(summed))
    }

    fn compare(&self, actual: u32) -> Result<(), WireError> {
        if actual == self.checksum {
            return Ok(());
        }
        Err(WireError::ChecksumMismatch {
            expected: self.checksum,
            actual,
        })
    }
}

/// The first `N` bytes, zero-padded, and the rest. Callers have checked the length.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    match bytes.split_first_chunk::<N>() {
        Some((front, rest)) => (*front, rest),
        None => ([0; N], &[]),
    }
}

/// CRC-32C of token and payload.
fn checksum(token: UID, payload: &[u8]) -> u32 {
    crc_behind(crc(&token.to_le_bytes()), payload)
}

fn checked_length(size: usize, max_payload: usize) -> Result<u32, WireError> {
    let limit = max_packet_size(max_payload);
    match u32::try_from(size) {
        Ok(length) if size <= limit => Ok(length),
        _ => Err(WireError::PacketTooLarge { size, limit }),
    }
}

/// The length of the packet that begins at `data`, judged before it is waited for: `None` while
/// not even the length field is there.
///
/// # Errors
/// [`WireError::InvalidLength`] if it is shorter than a header, [`WireError::PacketTooLarge`] if it
/// is longer than `max_payload` and a sequenced packet's prefix allow.
pub fn packet_length(data: &[u8], max_payload: usize) -> Result<Option<usize>, WireError> {
    let Some(length) = data.first_chunk::<4>() else {
        return Ok(None);
    };
    let size = u32::from_le_bytes(*length) as usize;
    if size < HEADER_SIZE {
        return Err(WireError::InvalidLength {
            length: size,
            expected: HEADER_SIZE,
        });
    }
    checked_length(size, max_payload)?;
    Ok(Some(size))
}

/// The packet that carries `payload` to `token`.
///
/// A payload beyond [`MAX_PAYLOAD_LIMIT`] gives a packet that every decoder refuses; use
/// [`try_serialize_packet`] where that can happen.
///
/// ```
/// use moonpool_foundation::{UID, deserialize_packet, serialize_packet};
///
/// let packet = serialize_packet(UID::new(1, 2), b"hello");
/// assert_eq!(deserialize_packet(&packet), Ok((UID::new(1, 2), &b"hello"[..])));
/// ```
#[must_use]
pub fn serialize_packet(token: UID, payload: &[u8]) -> Vec<u8> {
    let size = HEADER_SIZE.saturating_add(payload.len());
    let header = PacketHeader {
        length: u32::try_from(size).unwrap_or(u32::MAX),
        checksum: checksum(token, payload),
        token,
    };
    assemble(&header, payload)
}

/// The packet that carries `payload` to `token`, with the limit checked first.
///
/// # Errors
/// [`WireError::PacketTooLarge`] if the payload passes [`MAX_PAYLOAD_LIMIT`].
pub fn try_serialize_packet(token: UID, payload: &[u8]) -> Result<Vec<u8>, WireError> {
    let header = PacketHeader::new(token, payload)?;
    Ok(assemble(&header, payload))
}

fn assemble(header: &PacketHeader, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER_SIZE + payload.len());
    packet.extend_from_slice(&header.length.to_le_bytes());
    packet.extend_from_slice(&header.checksum.to_le_bytes());
    packet.extend_from_slice(&header.token.to_le_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// Takes a packet apart that fills `data` exactly. The payload borrows from `data`.
///
/// # Errors
/// [`WireError::InsufficientData`] if bytes are missing, [`WireError::InvalidLength`] if there are
/// more than the packet's or its length is impossible, [`WireError::PacketTooLarge`] beyond
/// [`MAX_PAYLOAD_LIMIT`], [`WireError::ChecksumMismatch`] if bytes were changed on the way.
pub fn deserialize_packet(data: &[u8]) -> Result<(UID, &[u8]), WireError> {
    match try_deserialize_packet(data, MAX_PAYLOAD_LIMIT)? {
        Some(packet) if packet.size == data.len() => Ok((packet.token, packet.payload)),
        Some(packet) => Err(WireError::InvalidLength {
            length: packet.size,
            expected: data.len(),
        }),
        None => {
            let needed = packet_length(data, MAX_PAYLOAD_LIMIT)?.unwrap_or(HEADER_SIZE);
            Err(WireError::InsufficientData {
                needed,
                have: data.len(),
            })
        }
    }
}

/// A packet inside a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Where the payload goes.
    pub token: UID,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes of the buffer it takes up, header included.
    pub size: usize,
}

/// Takes the first packet off a stream's bytes: `None` while it is not complete. `max_payload`
/// bounds the payload, in bytes; a sequenced packet's prefix may come on top.
///
/// # Errors
/// [`WireError::InvalidLength`] and [`WireError::PacketTooLarge`] as soon as the length field is
/// there, [`WireError::ChecksumMismatch`] once the packet is complete. The stream is beyond repair
/// after any of them.
pub fn try_deserialize_packet(
    data: &[u8],
    max_payload: usize,
) -> Result<Option<Packet<'_>>, WireError> {
    let Some(size) = packet_length(data, max_payload)? else {
        return Ok(None);
    };
    let Some(whole) = data.get(..size) else {
        return Ok(None);
    };
    let header = PacketHeader::deserialize(whole)?;
    let payload = whole.get(HEADER_SIZE..).unwrap_or_default();
    header.verify(payload)?;
    Ok(Some(Packet {
        token: header.token,
        payload,
        size,
    }))
}

/// Why bytes are not a packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Bytes are missing. Get more of them, if there can be any.
    #[error("insufficient data: need {needed} bytes, have {have}")]
    InsufficientData {
        /// Bytes that are needed at least.
        needed: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// Bytes were changed on the way, or the stream lost its framing. Drop the connection.
    #[error("checksum mismatch: the header says {expected:#010x}, the bytes give {actual:#010x}")]
    ChecksumMismatch {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        actual: u32,
    },
    /// The packet is larger than the limit. A receiver drops the connection; a sender has to split
    /// its message or raise the limit at both ends.
    #[error("packet too large: {size} bytes, the limit is {limit}")]
    PacketTooLarge {
        /// Bytes of the packet.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The length field cannot be right. Drop the connection.
    #[error("invalid packet length {length}, expected {expected}")]
    InvalidLength {
        /// What the header says.
        length: usize,
        /// The bytes there are, or the least there must be.
        expected: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn test_serialize_deserialize_packet() {
        let token = UID::random();
        let payload = b"hello world";
        let packet = serialize_packet(token, payload);
        let (recv_token, recv_payload) = deserialize_packet(&packet).unwrap();
        assert_eq!(token, recv_token);
        assert_eq!(payload, recv_payload);
    }

    #[test]
    fn test_checksum_validation() {
        let packet = serialize_packet(UID::random(), b"test");
        let mut corrupted = packet.clone();
        corrupted[HEADER_SIZE] ^= 0xFF;
        assert!(matches!(
            deserialize_packet(&corrupted),
            Err(WireError::ChecksumMismatch { .. })
        ));
    }

    #[test]
    fn the_bytes_of_a_packet_are_fixed() {
        let golden: Vec<u8> = include_str!("../../tests/golden/packet.hex")
            .lines()
            .flat_map(|line| {
                line.split('#')
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
            })
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let token = UID::new(0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
        assert_eq!(serialize_packet(token, b"hello"), golden);
        assert_eq!(deserialize_packet(&golden), Ok((token, &b"hello"[..])));
    }

    #[test]
    fn a_length_is_judged_before_the_packet_is_there() {
        let limit = max_packet_size(100);
        let at = |length: u32| packet_length(&length.to_le_bytes(), 100);
        assert_eq!(packet_length(&[1, 0, 0], 100), Ok(None));
        assert_eq!(
            at(23),
            Err(WireError::InvalidLength {
                length: 23,
                expected: 24
            })
        );
        assert_eq!(at(24), Ok(Some(24)));
        assert_eq!(at(156), Ok(Some(156)));
        assert_eq!(at(157), Err(WireError::PacketTooLarge { size: 157, limit }));
        assert!(matches!(
            at(u32::MAX),
            Err(WireError::PacketTooLarge { .. })
        ));
    }

    #[test]
    fn an_incomplete_packet_is_waited_for() {
        let packet = serialize_packet(UID::new(1, 2), b"payload");
        for have in 0..packet.len() {
            assert_eq!(try_deserialize_packet(&packet[..have], 100), Ok(None));
            assert!(matches!(
                deserialize_packet(&packet[..have]),
                Err(WireError::InsufficientData { .. })
            ));
        }
    }

    #[test]
    fn bytes_behind_a_packet_belong_to_the_next_one() {
        let mut data = serialize_packet(UID::new(1, 2), b"one");
        data.extend(serialize_packet(UID::new(3, 4), b"two"));
        let first = try_deserialize_packet(&data, 100).unwrap().unwrap();
        assert_eq!((first.payload, first.size), (&b"one"[..], 27));
        let second = try_deserialize_packet(&data[first.size..], 100)
            .unwrap()
            .unwrap();
        assert_eq!(second.payload, b"two");
        assert_eq!(
            deserialize_packet(&data),
            Err(WireError::InvalidLength {
                length: 27,
                expected: 54
            })
        );
    }

    proptest! {
        #[test]
        fn every_packet_survives(first: u64, second: u64, payload: Vec<u8>) {
            let token = UID::new(first, second);
            let packet = serialize_packet(token, &payload);
            prop_assert_eq!(&try_serialize_packet(token, &payload).unwrap(), &packet);
            prop_assert_eq!(deserialize_packet(&packet), Ok((token, &payload[..])));
            let header = PacketHeader::deserialize(&packet).unwrap();
            let mut again = [0; HEADER_SIZE];
            header.serialize(&mut again).unwrap();
            prop_assert_eq!(&again[..], &packet[..HEADER_SIZE]);
        }

        #[test]
        fn a_changed_bit_outside_the_length_is_always_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let mut packet = serialize_packet(UID::new(5, 6), &payload);
            let at = 4 + at.index(packet.len() - 4);
            packet[at] ^= 1 << bit;
            let mismatch = matches!(
                deserialize_packet(&packet),
                Err(WireError::ChecksumMismatch { .. })
            );
            prop_assert!(mismatch);
        }

        #[test]
        fn no_input_panics(data: Vec<u8>, max_payload in 0usize..1000) {
            drop(deserialize_packet(&data));
            drop(PacketHeader::deserialize(&data));
            if let Ok(Some(packet)) = try_deserialize_packet(&data, max_payload) {
                prop_assert!(packet.size <= data.len());
                prop_assert!(packet.size <= max_packet_size(max_payload));
            }
        }
    }
}
