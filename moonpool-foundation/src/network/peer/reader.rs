//! Bytes in, packets out: one growing buffer, many packets per read, no copy of a payload.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::UID;
use crate::messaging::WireError;
use crate::messaging::wire::{HEADER_SIZE, PacketHeader, packet_length};
use crate::sometimes_assert;

use super::error::ConnectionError;
use super::read_memory::{LARGEST_SPARE, PIECE_OFFSET, ReadMemory};

/// Bytes of the buffer at first.
const FIRST_READ: usize = 4 * 1024;

/// Bytes that are read at once at most, unless one packet is larger.
const LARGEST_READ: usize = 128 * 1024;

/// A buffer that has room for this part of a read is read into once more. While a payload of the last
/// read is still with its receiver, more room means a new buffer.
const ENOUGH: usize = 4;

/// Room behind a large packet: what precedes it in the same read, or follows it, is mostly short, and
/// a read that fills its buffer is followed by one that finds nothing.
const SLACK: usize = 4 * 1024;

/// So many reads that bring no large packet, and none is expected any more.
const FORGOTTEN_AFTER: u32 = 8;

/// Collects a stream's bytes until packets are complete.
///
/// The buffer holds at most one incomplete packet and one read beyond it. It grows when reads fill
/// it, and to the size of a packet only once that packet's length was judged. Packets that are larger
/// than a read have pieces of memory that go round: after one of them, the next read is into a piece that
/// has room for another.
#[derive(Debug)]
pub(super) struct PacketReader {
    buffer: BytesMut,
    max_payload: usize,
    read_size: usize,
    /// What is read into, if it is one of a transport's: together with all its other connections.
    shared: Rc<ReadMemory>,
    /// What counts there: the most that the buffer was asked to hold.
    charged: usize,
    /// Bytes of the memory that the buffer is part of.
    memory: usize,
    /// Bytes of the last packet that was larger than a read. 0: none is expected.
    expected: usize,
    /// Reads since.
    reads_without: u32,
}

impl PacketReader {
    pub(super) fn new(max_payload: usize) -> Self {
        let shared = Rc::new(ReadMemory::new(usize::MAX));
        shared.handle_reader_added();
        Self {
            buffer: BytesMut::new(),
            max_payload,
            read_size: FIRST_READ,
            shared,
            charged: 0,
            memory: 0,
            expected: 0,
            reads_without: 0,
        }
    }

    /// What is read into counts against this, from the next read on.
    pub(super) fn share(&mut self, memory: Rc<ReadMemory>) {
        self.leave();
        memory.handle_reader_added();
        self.shared = memory;
    }

    fn leave(&mut self) {
        self.charge(0);
        self.shared.handle_reader_removed();
    }

    /// Counts so many bytes from now on.
    fn charge(&mut self, bytes: usize) {
        let budget = self.shared.budget();
        budget.remove(self.charged);
        budget.add(bytes);
        self.charged = bytes;
    }

    /// Counts the memory that the next read takes. While memory is short reads are small, and a
    /// packet that needs more than there is ends the connection.
    ///
    /// # Errors
    /// [`ConnectionError::NoMemory`].
    #[inline]
    pub(super) fn make_room(&mut self) -> Result<(), ConnectionError> {
        if self.is_idle() && self.read_size <= self.charged {
            return Ok(());
        }
        self.charge_wanted()
    }

    /// Whether nothing is held, and nothing but ordinary packets expected.
    #[inline]
    fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.expected == 0
    }

    fn charge_wanted(&mut self) -> Result<(), ConnectionError> {
        let cost_now = cost(self.wanted());
        if cost_now <= self.charged {
            return Ok(());
        }
        if self.shared.is_short() || !self.shared.fits(cost_now - self.charged) {
            self.read_size = FIRST_READ;
            self.expected = 0;
        }
        let wanted = cost(self.wanted());
        let more = wanted.saturating_sub(self.charged);
        // The first bytes of a packet are always read: only one that is larger is refused.
        if more > FIRST_READ && !self.shared.fits(more) {
            let limit = self.shared.budget().limit();
            return Err(ConnectionError::NoMemory { bytes: more, limit });
        }
        self.charge(self.charged.max(wanted));
        Ok(())
    }

    /// There is nothing to read. A piece of memory for large packets is left to others meanwhile, and
    /// what else a busy connection keeps for its next read is let go of while memory is short: it may
    /// be a long time until then.
    #[inline]
    pub(super) fn handle_blocked(&mut self, now: Duration) {
        if self.charged > FIRST_READ && self.buffer.is_empty() {
            if is_large(self.memory) {
                // First: one who keeps it is charged for it.
                self.charge(0);
                self.shared.note_use(now);
                self.leave_piece();
            } else if self.shared.is_short() {
                self.charge(0);
                self.read_size = FIRST_READ;
                self.buffer = BytesMut::new();
            }
        }
        self.shared.handle_blocked(now);
    }

    /// Bytes that the packet which has begun still lacks.
    #[inline]
    fn missing(&self) -> usize {
        match packet_length(&self.buffer, self.max_payload) {
            Ok(Some(length)) => length.saturating_sub(self.buffer.len()),
            Ok(None) | Err(_) => 0,
        }
    }

    /// Bytes that the buffer is to hold after the next read.
    fn wanted(&self) -> usize {
        let (held, missing) = (self.buffer.len(), self.missing());
        let wanted = held + missing.max(self.read_size);
        if is_large(held + missing) {
            held + missing + SLACK
        } else if held == 0 {
            wanted.max(self.expected)
        } else {
            wanted
        }
    }

    /// From now on packets may be this large.
    pub(super) fn allow(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }

    /// The buffer to append to, with room for the next read.
    #[inline]
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if !self.is_idle() || self.buffer.capacity() < self.read_size / ENOUGH {
            self.make_buffer();
        }
        &mut self.buffer
    }

    /// Gives the buffer the room that the next read wants, if it has not enough.
    fn make_buffer(&mut self) {
        let (held, missing) = (self.buffer.len(), self.missing());
        let room = self.buffer.capacity() - held;
        let wanted = self.wanted();
        // What a packet lacks is read into the room that was made for it: more would move all of it, to
        // read a little of what follows.
        let enough = match missing {
            0 if is_large(wanted) => wanted,
            0 => self.read_size / ENOUGH,
            _ if is_large(wanted) || held >= self.read_size => missing,
            _ => missing.max(self.read_size / ENOUGH),
        };
        if room < enough {
            if is_large(wanted) || is_large(self.memory) {
                self.begin_piece(wanted);
            } else {
                self.buffer.reserve(missing.max(self.read_size));
                self.memory = self.buffer.capacity();
            }
        }
    }

    /// Leaves a piece of memory to whoever needs some like it.
    fn leave_piece(&mut self) {
        let piece = std::mem::take(&mut self.buffer);
        let memory = std::mem::take(&mut self.memory);
        if is_large(memory) {
            self.shared.keep(piece, memory);
        }
    }

    /// Moves to memory for so many bytes, with what is held.
    fn begin_piece(&mut self, bytes: usize) {
        if self.buffer.is_empty() {
            // It may be free.
            self.leave_piece();
        }
        let (mut piece, memory) = if !is_large(bytes) {
            (BytesMut::with_capacity(bytes), bytes)
        } else {
            self.shared.take(bytes)
        };
        piece.extend_from_slice(&self.buffer);
        self.leave_piece();
        // One that goes round may be larger than what was asked for: that much is kept from others.
        let most = if memory > cost(bytes) {
            memory
        } else {
            self.charged.min(cost(bytes))
        };
        self.charge(most);
        (self.buffer, self.memory) = (piece, memory);
    }

    /// `bytes` were appended. Reads that fill the buffer make the next one larger.
    #[inline]
    pub(super) fn handle_read(&mut self, bytes: usize) {
        if bytes >= self.read_size {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        }
        if self.expected > 0 {
            self.reads_without += 1;
            if self.reads_without > FORGOTTEN_AFTER {
                self.expected = 0;
            }
        }
    }

    /// The complete packets that are there, cut off as one block; `None` if there is none.
    ///
    /// # Errors
    /// If the bytes behind the last complete packet cannot begin one, and nothing complete is left
    /// in front of them.
    pub(super) fn next_block(&mut self) -> Result<Option<Block>, WireError> {
        let (mut end, mut largest) = (0, 0);
        let judged = loop {
            let rest = self.buffer.get(end..).unwrap_or_default();
            match packet_length(rest, self.max_payload) {
                Ok(Some(length)) if length <= rest.len() => {
                    end += length;
                    largest = largest.max(length);
                }
                Ok(_) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if is_large(largest) && largest <= LARGEST_SPARE - SLACK - PIECE_OFFSET {
            self.expected = largest + SLACK;
            self.reads_without = 0;
        }
        if end == 0 {
            return judged.map(|()| None);
        }
        let bytes = self.buffer.split_to(end).freeze();
        Ok(Some(Block {
            bytes,
            at: 0,
            memory: self.memory.max(end),
        }))
    }

    /// Whether the last read could have taken more.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < self.buffer.capacity()
    }

    /// Whether everything that was read was given out.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Forgets everything that was read.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }
}

impl Drop for PacketReader {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Bytes of the memory that room for so many takes.
fn cost(bytes: usize) -> usize {
    if is_large(bytes) {
        bytes + PIECE_OFFSET
    } else {
        bytes
    }
}

/// Whether so many bytes are more than an ordinary read.
fn is_large(bytes: usize) -> bool {
    bytes > 2 * LARGEST_READ
}

/// A packet's token, its payload, and the block that holds it.
pub(super) type RawPacket<'a> = (UID, &'a [u8], &'a Bytes);

/// Complete packets, as they were read.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Bytes,
    at: usize,
    memory: usize,
}

impl Block {
    /// Bytes of the memory that it is part of, and that live as long as any part of it.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Whether every packet was given out.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.at >= self.bytes.len()
    }

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
        let Some((packet, payload)) = rest
            .get(..header.length as usize)
            .and_then(|packet| Some((packet, packet.get(HEADER_SIZE..)?)))
        else {
            return Err(WireError::InvalidLength {
                length: header.length as usize,
                expected: rest.len(),
            });
        };
        if let Err(error) = header.verify_packet(packet) {
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
    fn a_short_block_says_how_large_the_memory_is_that_it_keeps() {
        let mut reader = PacketReader::new(1_000_000);
        let packet = serialize_packet(UID::new(1, 1), &[7; 10]);
        append(&mut reader, &packet);
        let first = reader.next_block().unwrap().unwrap();
        assert!((FIRST_READ..2 * FIRST_READ).contains(&first.memory()));
        reader.read_size = LARGEST_READ;
        append(&mut reader, &packet);
        let second = reader.next_block().unwrap().unwrap();
        assert!((LARGEST_READ..2 * LARGEST_READ).contains(&second.memory()));
    }

    /// A reader of packets up to 1 MB, and the beginning of one that is so large.
    fn half_packet(budget: &Rc<ReadMemory>) -> Result<PacketReader, ConnectionError> {
        let mut reader = PacketReader::new(1_000_000);
        reader.share(Rc::clone(budget));
        reader.make_room()?;
        append(&mut reader, &1_000_000_u32.to_le_bytes());
        assert_eq!(reader.next_block().unwrap().map(|_| ()), None);
        reader.make_room()?;
        reader.buffer();
        Ok(reader)
    }

    #[test]
    fn half_packets_take_no_more_than_the_budget_and_give_it_back() {
        let budget = Rc::new(ReadMemory::new(4_500_000));
        for _round in 0..3 {
            let readers: Vec<_> = (0..10).map(|_| half_packet(&budget)).collect();
            let taken = readers.iter().filter(|reader| reader.is_ok()).count();
            assert_eq!(taken, 4);
            let refused = readers.into_iter().find_map(Result::err);
            assert!(
                matches!(refused, Some(ConnectionError::NoMemory { .. })),
                "{refused:?}"
            );
        }
        assert!(budget.budget().fits(4_500_000));
    }

    /// Pieces that go round may be larger than what they are taken for.
    #[test]
    fn half_packets_in_larger_pieces_take_no_more_than_the_budget() {
        const LIMIT: usize = 6_000_000;
        let memory = Rc::new(ReadMemory::new(LIMIT));
        let begin = |length: usize, part: usize| {
            let mut reader = PacketReader::new(1 << 20);
            reader.share(Rc::clone(&memory));
            let packet = serialize_packet(UID::new(1, 1), &vec![7; length]);
            reader.make_room()?;
            append(&mut reader, &packet[..4]);
            assert_eq!(reader.next_block().unwrap().map(|_| ()), None);
            reader.make_room()?;
            append(&mut reader, &packet[4..part.min(packet.len())]);
            Ok::<_, ConnectionError>(reader)
        };
        let mut half = Vec::new();
        for _round in 0..20 {
            if let Ok(mut whole) = begin(1_000_000, usize::MAX) {
                assert_eq!(read_all(&mut whole).unwrap().len(), 1);
                whole.handle_blocked(Duration::ZERO);
                half.extend(begin(300_000, 280_000));
            }
        }
        let held: usize = half.iter().map(|reader| reader.memory).sum();
        assert!(half.len() > 3 && held <= LIMIT, "{held} in {}", half.len());
        drop(half);
        assert!(memory.budget().fits(LIMIT));
    }

    #[test]
    fn small_packets_are_read_although_the_budget_is_used_up() {
        let budget = Rc::new(ReadMemory::new(1_100_000));
        let _half = half_packet(&budget).unwrap();
        let mut reader = PacketReader::new(1_000_000);
        reader.share(Rc::clone(&budget));
        for _ in 0..1_000 {
            reader.make_room().unwrap();
            append(&mut reader, &serialize_packet(UID::new(1, 1), &[7; 2_000]));
            assert_eq!(read_all(&mut reader).unwrap().len(), 1);
            reader.handle_blocked(Duration::ZERO);
        }
        assert!(reader.buffer().capacity() <= 2 * FIRST_READ);
    }

    #[test]
    fn an_idle_reader_keeps_its_buffer_until_memory_is_short() {
        let busy = |budget: &Rc<ReadMemory>| {
            let mut reader = PacketReader::new(1_000_000);
            reader.share(Rc::clone(budget));
            for _ in 0..20 {
                reader.make_room().unwrap();
                let room = reader.read_size;
                append(
                    &mut reader,
                    &serialize_packet(UID::new(1, 1), &vec![7; room]),
                );
                read_all(&mut reader).unwrap();
            }
            reader
        };
        let budget = Rc::new(ReadMemory::new(1_000_000));
        let mut reader = busy(&budget);
        reader.handle_blocked(Duration::ZERO);
        assert!(reader.charged >= LARGEST_READ);
        budget.budget().add(600_000);
        reader.handle_blocked(Duration::ZERO);
        assert_eq!((reader.charged, reader.buffer.capacity()), (0, 0));
        assert!(busy(&budget).charged <= 2 * FIRST_READ, "reads are small");
    }

    const LARGE: usize = 1_000_000;

    /// Reads a large packet as a stream that has it whole gives it: gives it, and where it was.
    fn read_large(reader: &mut PacketReader) -> (Block, *const u8) {
        let packet = serialize_packet(UID::new(1, 1), &vec![7; LARGE]);
        let mut rest = &packet[..];
        loop {
            reader.make_room().unwrap();
            let buffer = reader.buffer();
            let room = (buffer.capacity() - buffer.len()).min(rest.len());
            buffer.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
            reader.handle_read(room);
            if let Some(mut block) = reader.next_block().unwrap() {
                assert!(rest.is_empty());
                let place = block.next_packet().unwrap().unwrap().1.as_ptr();
                return (block, place);
            }
        }
    }

    #[test]
    fn behind_a_large_packet_the_next_one_is_read_in_one_piece() {
        let mut reader = PacketReader::new(LARGE);
        drop(read_large(&mut reader));
        for _ in 0..3 {
            reader.make_room().unwrap();
            let buffer = reader.buffer();
            assert!(buffer.capacity() >= LARGE);
            let begin = buffer.as_ptr();
            let (_, place) = read_large(&mut reader);
            assert_eq!(place, begin.wrapping_add(HEADER_SIZE), "it was not moved");
        }
    }

    #[test]
    fn large_packets_that_are_handed_on_need_two_pieces() {
        let mut reader = PacketReader::new(LARGE);
        let mut kept = read_large(&mut reader).0;
        let mut places = Vec::new();
        for _ in 0..20 {
            reader.handle_blocked(Duration::ZERO);
            let (block, place) = read_large(&mut reader);
            kept = block;
            if !places.contains(&place) {
                places.push(place);
            }
        }
        drop(kept);
        assert_eq!(places.len(), 2);
    }

    #[test]
    fn an_idle_reader_leaves_its_large_memory_to_the_others() {
        let memory = Rc::new(ReadMemory::new(usize::MAX));
        let reader = || {
            let mut reader = PacketReader::new(LARGE);
            reader.share(Rc::clone(&memory));
            reader
        };
        let (mut first, mut second) = (reader(), reader());
        drop(read_large(&mut first));
        let (_, place) = read_large(&mut first);
        // The first large packet for long: what it was read into is in use.
        first.handle_blocked(Duration::from_secs(10));
        assert_eq!((first.charged, first.buffer.capacity()), (0, 0));
        assert!(!memory.budget().fits(usize::MAX), "it is kept");
        assert_eq!(read_large(&mut second).1, place);
    }

    #[test]
    fn large_packets_that_do_not_come_any_more_are_not_expected() {
        let mut reader = PacketReader::new(LARGE);
        drop(read_large(&mut reader));
        for _ in 0..=FORGOTTEN_AFTER {
            reader.make_room().unwrap();
            append(&mut reader, &serialize_packet(UID::new(1, 1), &[7; 10]));
            read_all(&mut reader).unwrap();
            reader.handle_blocked(Duration::ZERO);
        }
        reader.make_room().unwrap();
        assert!(reader.buffer().capacity() < LARGE);
        assert!(reader.charged <= LARGEST_READ);
    }

    #[test]
    fn packets_that_are_too_large_to_keep_memory_for_are_not_expected() {
        let mut reader = PacketReader::new(LARGEST_SPARE);
        for (length, is_expected) in [(LARGEST_SPARE / 2, true), (LARGEST_SPARE - SLACK, false)] {
            reader.expected = 0;
            let packet = serialize_packet(UID::new(1, 1), &vec![7; length]);
            append(&mut reader, &packet);
            assert_eq!(read_all(&mut reader).unwrap().len(), 1);
            assert_eq!(reader.expected > 0, is_expected);
        }
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
