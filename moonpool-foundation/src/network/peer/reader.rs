//! Bytes in, packets out: one growing buffer, many packets per read, no copy of a payload.

use bytes::{Bytes, BytesMut};

use crate::messaging::UID;
use crate::messaging::WireError;
use crate::messaging::wire::{HEADER_SIZE, PacketHeader, packet_length};
use crate::sometimes_assert;

/// Bytes of the buffer at first.
const FIRST_READ: usize = 4 * 1024;

/// Bytes that are read at once at most, unless one packet is larger.
const LARGEST_READ: usize = 128 * 1024;

/// A buffer that has room for this part of a read is read into once more. While a payload of the last
/// read is still with its receiver, more room means a new buffer.
const ENOUGH: usize = 4;

/// Collects a stream's bytes until packets are complete.
///
/// The buffer holds at most one incomplete packet and one read beyond it. It grows when reads fill
/// it, and to the size of a packet only once that packet's length was judged.
#[derive(Debug)]
pub(super) struct PacketReader {
    buffer: BytesMut,
    max_payload: usize,
    read_size: usize,
}

impl PacketReader {
    pub(super) fn new(max_payload: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            max_payload,
            read_size: FIRST_READ,
        }
    }

    /// From now on packets may be this large.
    pub(super) fn allow(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }

    /// The buffer to append to, with room for the next read.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        let missing = match packet_length(&self.buffer, self.max_payload) {
            Ok(Some(length)) => length.saturating_sub(self.buffer.len()),
            Ok(None) | Err(_) => 0,
        };
        let room = self.buffer.capacity() - self.buffer.len();
        if room < missing.max(self.read_size / ENOUGH) {
            self.buffer.reserve(missing.max(self.read_size));
        }
        &mut self.buffer
    }

    /// `bytes` were appended. Reads that fill the buffer make the next one larger.
    pub(super) fn handle_read(&mut self, bytes: usize) {
        if bytes >= self.read_size {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        }
    }

    /// The complete packets that are there, cut off as one block; `None` if there is none.
    ///
    /// # Errors
    /// If the bytes behind the last complete packet cannot begin one, and nothing complete is left
    /// in front of them.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, WireError> {
        let mut end = 0;
        let judged = loop {
            let rest = self.buffer.get(end..).unwrap_or_default();
            match packet_length(rest, self.max_payload) {
                Ok(Some(length)) if length <= rest.len() => end += length,
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if end == 0 {
            return judged.map(|()| None);
        }
        let bytes = self.buffer.split_to(end).freeze();
        Ok(Some(Block { bytes, at: 0 }))
    }

    /// Forgets everything that was read.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }
}

/// A packet's token, its payload, and the block that holds it.
pub(super) type RawPacket<'a> = (UID, &'a [u8], &'a Bytes);

/// Complete packets, as they were read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Bytes,
    at: usize,
}

impl Block {
    /// The next packet: its token and payload.
    ///
    /// # Errors
    /// If its checksum is wrong.
    pub(super) fn next_packet(&mut self) -> Result<Option<RawPacket<'_>>, WireError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let header = PacketHeader::deserialize(rest)?;
        let Some(payload) = rest.get(HEADER_SIZE..header.length as usize) else {
            return Err(WireError::InvalidLength {
                length: header.length as usize,
                expected: rest.len(),
            });
        };
        if let Err(error) = header.verify(payload) {
            sometimes_assert!(
                checksum_caught_corruption,
                true,
                "a packet that was changed on its way was noticed"
            );
            return Err(error);
        }
        self.at += header.length as usize;
        Ok(Some((header.token, payload, &self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::serialize_packet;
    use proptest::prelude::*;

    fn read_all(reader: &mut PacketReader) -> Result<Vec<(UID, Vec<u8>)>, WireError> {
        let mut packets = Vec::new();
        while let Some(mut block) = reader.next_block()? {
            while let Some((token, payload, whole)) = block.next_packet()? {
                assert_eq!(whole.slice_ref(payload), payload);
                packets.push((token, payload.to_vec()));
            }
        }
        Ok(packets)
    }

    fn append(reader: &mut PacketReader, bytes: &[u8]) {
        reader.buffer().extend_from_slice(bytes);
        reader.handle_read(bytes.len());
    }

    #[test]
    fn packets_in_front_of_a_bad_length_are_still_given() {
        let mut reader = PacketReader::new(100);
        let mut bytes = serialize_packet(UID::new(1, 1), b"good");
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        append(&mut reader, &bytes);
        let mut block = reader.next_block().unwrap().unwrap();
        assert_eq!(block.next_packet().unwrap().unwrap().1, b"good");
        assert_eq!(block.next_packet().unwrap(), None);
        assert!(matches!(
            reader.next_block(),
            Err(WireError::PacketTooLarge { .. })
        ));
    }

    #[test]
    fn packets_in_front_of_a_bad_checksum_are_still_given() {
        let mut reader = PacketReader::new(100);
        let mut bytes = serialize_packet(UID::new(1, 1), b"good");
        let mut bad = serialize_packet(UID::new(2, 2), b"bad");
        *bad.last_mut().unwrap() ^= 1;
        bytes.extend_from_slice(&bad);
        append(&mut reader, &bytes);
        let mut block = reader.next_block().unwrap().unwrap();
        assert_eq!(block.next_packet().unwrap().unwrap().1, b"good");
        assert!(matches!(
            block.next_packet(),
            Err(WireError::ChecksumMismatch { .. })
        ));
    }

    #[test]
    fn a_length_beyond_the_limit_reserves_nothing() {
        let mut reader = PacketReader::new(1000);
        append(&mut reader, &(64u32 * 1024 * 1024).to_le_bytes());
        assert!(reader.next_block().is_err());
        assert!(reader.buffer().capacity() < 64 * 1024);
    }

    #[test]
    fn a_length_within_the_limit_reserves_the_packet_once() {
        let mut reader = PacketReader::new(1_000_000);
        append(&mut reader, &1_000_000u32.to_le_bytes());
        assert_eq!(reader.next_block().unwrap().map(|_| ()), None);
        let capacity = reader.buffer().capacity();
        assert!((1_000_000..1_200_000).contains(&capacity), "{capacity}");
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_packets(
            packets in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            cuts in proptest::collection::vec(1usize..400, 1..40),
        ) {
            let expected: Vec<_> = packets.iter()
                .map(|(token, payload)| (UID::new(*token, 9), payload.clone()))
                .collect();
            let stream: Vec<u8> = expected.iter()
                .flat_map(|(token, payload)| serialize_packet(*token, payload))
                .collect();
            let mut reader = PacketReader::new(300);
            let mut got = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = behind;
                append(&mut reader, chunk);
                got.extend(read_all(&mut reader).unwrap());
            }
            prop_assert_eq!(got, expected);
            prop_assert!(reader.buffer.is_empty());
        }

        #[test]
        fn random_bytes_neither_panic_nor_reserve_beyond_the_limit(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
            plausible in any::<bool>(),
        ) {
            let mut reader = PacketReader::new(5_000);
            for mut chunk in chunks {
                if plausible && chunk.len() > 4 {
                    // A length that passes, so that more than the first check is reached.
                    chunk[1..4].copy_from_slice(&[0, 0, 0]);
                }
                append(&mut reader, &chunk);
                if read_all(&mut reader).is_err() {
                    break;
                }
                prop_assert!(reader.buffer().capacity() <= 64 * 1024);
            }
        }
    }
}
