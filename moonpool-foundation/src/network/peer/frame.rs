//! Packets on their way out as bytes: frames, and the batch of them that the next write takes.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::wire::{HEADER_SIZE, SEQUENCED_PREFIX_SIZE, crc, crc_of_two};
use crate::messaging::{UID, WellKnownToken};

use super::packet::PacketId;
use super::terms::{Account, PacketTerms};

/// Bytes that are laid out for one write. A single packet may be larger.
const BATCH_BYTES: usize = 128 * 1024;

/// Pieces of memory that one write takes at most.
pub(super) const BATCH_SLICES: usize = 256;

/// Bytes in front of the payload of a sequenced frame.
pub(super) const SEQUENCED_HEAD: usize = HEADER_SIZE + SEQUENCED_PREFIX_SIZE;

/// How a frame's packet is to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// In a Sequenced frame, or as it is in plain mode.
    Reliable,
    /// In place of a reliable one that was withdrawn after it had its sequence number.
    Skip,
    Unreliable,
    /// A frame of the session itself.
    Control,
}

/// The front of a packet with everything filled in that is known when it is accepted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Prefix {
    Plain(UID),
    Sequenced(UID),
}

impl Prefix {
    /// Appends the front to `head`, with zeroes for what layout fills in.
    #[inline]
    pub(super) fn write(self, head: &mut BytesMut) {
        let bytes = self.bytes();
        match self {
            Self::Plain(_) => head.extend_from_slice(&bytes[..HEADER_SIZE]),
            Self::Sequenced(_) => head.extend_from_slice(&bytes),
        }
    }

    /// Whether `head` still begins with what was [written](Self::write).
    #[inline]
    pub(super) fn is_intact(self, head: &[u8]) -> bool {
        let (words, _) = head.as_chunks::<8>();
        let begins = |expected: &[u64]| {
            let found = words.iter().map(|word| u64::from_le_bytes(*word));
            words.len() >= expected.len() && expected.iter().zip(found).all(|(one, it)| *one == it)
        };
        match self {
            Self::Plain(token) => begins(&[0, token.first, token.second]),
            Self::Sequenced(inner) => {
                let outer = WellKnownToken::Sequenced.token();
                let (first, second) = (inner.first, inner.second);
                begins(&[0, outer.first, outer.second, 0, 0, first, second])
            }
        }
    }

    /// In one piece: a packet's front is written in one go.
    #[inline]
    fn bytes(self) -> [u8; SEQUENCED_HEAD] {
        let mut bytes = [0; SEQUENCED_HEAD];
        let (outer, inner) = match self {
            Self::Plain(token) => (token, UID::NIL),
            Self::Sequenced(token) => (WellKnownToken::Sequenced.token(), token),
        };
        bytes[HEADER_SIZE - 16..HEADER_SIZE].copy_from_slice(&outer.to_le_bytes());
        bytes[SEQUENCED_HEAD - 16..].copy_from_slice(&inner.to_le_bytes());
        bytes
    }

    pub(super) const fn size(self) -> usize {
        match self {
            Self::Plain(_) => HEADER_SIZE,
            Self::Sequenced(_) => SEQUENCED_HEAD,
        }
    }
}

/// One packet on its way out: in one piece, or with a payload of its own that was not copied.
#[derive(Debug)]
pub(super) struct Frame {
    head: BytesMut,
    body: Bytes,
    /// Bytes of the packet's front.
    front: usize,
    /// When it was accepted, or when the last connection was lost if that was later. Unknown until
    /// the driver runs, since handles have no clock.
    pub(super) waits_since: Option<Duration>,
    kind: FrameKind,
    /// Of a packet that is not reliable: the id that the next reliable one got.
    pub(super) id: PacketId,
    /// Given when it is laid out first, and kept until the session ends. 0: none yet.
    pub(super) sequence: u64,
    /// Bytes of it were handed to a socket since the other end last said that it did not have it.
    pub(super) is_exposed: bool,
    /// It is to become a Skip once the bytes that are on their way are written.
    pub(super) is_withdrawn: bool,
    /// Of a packet that is not reliable, and of a Skip, only the account counts.
    pub(super) terms: PacketTerms,
}

/// What came of withdrawing a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdrawn {
    /// Bytes that it is smaller now.
    pub(super) saved: usize,
    /// Bytes of it were written before.
    pub(super) was_exposed: bool,
    pub(super) account: Account,
}

impl Frame {
    /// A frame without anything in it.
    pub(super) fn empty() -> Self {
        Self {
            head: BytesMut::new(),
            body: Bytes::new(),
            front: 0,
            waits_since: None,
            kind: FrameKind::Control,
            id: PacketId::FIRST,
            sequence: 0,
            is_exposed: false,
            is_withdrawn: false,
            terms: PacketTerms::default(),
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn new(head: BytesMut, kind: FrameKind, terms: PacketTerms) -> Self {
        Self {
            head,
            kind,
            terms,
            ..Self::empty()
        }
    }

    /// Begins a packet in an empty frame, with room for a payload of this size.
    #[inline]
    pub(super) fn begin(&mut self, prefix: Prefix, room: usize) {
        self.front = prefix.size();
        let needed = self.front + room;
        if self.head.capacity() < needed {
            self.head.reserve(needed);
        }
        prefix.write(&mut self.head);
    }

    /// The packet's front, and behind it the payload, as far as it was written.
    #[inline]
    pub(super) fn head(&mut self) -> &mut BytesMut {
        &mut self.head
    }

    /// What follows behind that, and is not copied.
    #[inline]
    pub(super) fn set_body(&mut self, body: Bytes) {
        if !body.is_empty() {
            self.body = body;
        }
    }

    /// Makes a packet of what was [begun](Self::begin).
    #[inline]
    pub(super) fn commit(&mut self, kind: FrameKind, id: PacketId) {
        self.kind = kind;
        self.id = id;
    }

    /// Lets go of what is in it, but not of memory for up to `keep` bytes. Gives the bytes that it
    /// keeps.
    #[inline]
    pub(super) fn clear(&mut self, keep: usize) -> usize {
        if self.head.capacity() > keep {
            self.head = BytesMut::new();
        } else {
            self.head.clear();
        }
        if !self.body.is_empty() {
            self.body = Bytes::new();
        }
        self.waits_since = None;
        self.sequence = 0;
        self.is_exposed = false;
        self.is_withdrawn = false;
        self.head.capacity()
    }

    /// Bytes of the memory that it keeps for the next packet.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.head.capacity()
    }

    /// Bytes of the payload of a packet that was [begun](Self::begin).
    #[inline]
    pub(super) fn payload_size(&self) -> usize {
        self.size() - self.front
    }

    /// Whether it still begins with the front of a packet to `token`, as it was [begun](Self::begin).
    pub(super) fn is_intact(&self, token: UID) -> bool {
        let prefix = if self.front == SEQUENCED_HEAD {
            Prefix::Sequenced(token)
        } else {
            Prefix::Plain(token)
        };
        prefix.is_intact(&self.head)
    }

    /// The payload of a packet that was [begun](Self::begin).
    pub(super) fn into_payload(self) -> Bytes {
        let mut head = self.head.freeze();
        joined(head.split_off(self.front.min(head.len())), self.body)
    }

    /// Whether it is of no use any more.
    pub(super) fn is_expired(&self, now: Duration) -> bool {
        self.is_reliable() && self.terms.expiry.is_some_and(|expiry| expiry.at <= now)
    }

    /// Writes what remains of the packet's time, if it says so. `front` is where its payload begins.
    pub(super) fn write_remaining(&mut self, now: Duration, front: usize) {
        let Some(expiry) = self.terms.expiry else {
            return;
        };
        if let Some(offset) = expiry.remaining_offset {
            let remaining = expiry.at.saturating_sub(now).as_nanos();
            let remaining = u64::try_from(remaining).unwrap_or(u64::MAX);
            put(
                &mut self.head,
                front + usize::from(offset),
                &remaining.to_le_bytes(),
            );
        }
    }

    /// Id, token and payload of a reliable packet.
    pub(super) fn into_packet(self) -> Option<(PacketId, UID, Bytes)> {
        let at = SEQUENCED_HEAD - 16;
        let token: &[u8; 16] = self.head.get(at..)?.first_chunk()?;
        let token = UID::from_le_bytes(*token);
        Some((self.id, token, self.into_payload()))
    }

    /// Adds to the payload, if the packet is to this token, has no sequence number yet, and its
    /// payload is in one piece and stays within `limit`.
    pub(super) fn extend(&mut self, token: UID, bytes: &[u8], limit: usize) -> bool {
        let addressee = self.head.get(SEQUENCED_HEAD - 16..SEQUENCED_HEAD);
        let fits = self.size() - SEQUENCED_HEAD.min(self.size()) + bytes.len() <= limit;
        let is_open = self.is_reliable() && self.sequence == 0 && self.body.is_empty();
        if !is_open || !fits || addressee != Some(&token.to_le_bytes()[..]) {
            return false;
        }
        self.head.extend_from_slice(bytes);
        true
    }

    pub(super) fn kind(&self) -> FrameKind {
        self.kind
    }

    pub(super) fn is_reliable(&self) -> bool {
        self.kind == FrameKind::Reliable
    }

    /// Keeps the sequence number and nothing else. Gives the bytes that this saves.
    pub(super) fn become_skip(&mut self) -> usize {
        let before = self.size();
        let prefix = Prefix::Plain(WellKnownToken::Skip.token());
        let mut head = BytesMut::with_capacity(prefix.size() + 16);
        prefix.write(&mut head);
        head.extend_from_slice(&[0; 16]);
        self.head = head;
        self.body = Bytes::new();
        self.kind = FrameKind::Skip;
        self.is_withdrawn = false;
        self.terms.expiry = None;
        debug_assert!(before >= self.size(), "a sequenced frame is larger");
        before - self.size()
    }

    pub(super) fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    fn slice_count(&self) -> usize {
        1 + usize::from(!self.body.is_empty())
    }

    /// The packet as it would be written.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn laid_out(&self) -> Vec<u8> {
        [&self.head[..], &self.body[..]].concat()
    }

    /// The acknowledgement that was filled in.
    fn ack(&self) -> u64 {
        let filled = self.head.get(HEADER_SIZE + 8..);
        filled
            .and_then(|rest| rest.first_chunk::<8>())
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Fills in what depends on the connection it is written to: for a frame with a sequence number
    /// that and the acknowledgement, for all the length and the checksum.
    pub(super) fn lay_out(&mut self, ack: u64) {
        let size = self.size();
        debug_assert!(
            u32::try_from(size).is_ok(),
            "payloads are limited to 64 MiB"
        );
        if self.sequence > 0
            && let Some(front) = self.head.first_chunk_mut::<{ HEADER_SIZE + 16 }>()
        {
            front[HEADER_SIZE..HEADER_SIZE + 8].copy_from_slice(&self.sequence.to_le_bytes());
            front[HEADER_SIZE + 8..].copy_from_slice(&ack.to_le_bytes());
        }
        let checked = self.head.get(8..).unwrap_or_default();
        let checksum = if self.body.is_empty() {
            crc(checked)
        } else {
            crc_of_two(checked, &self.body)
        };
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        if let Some(front) = self.head.first_chunk_mut::<8>() {
            front[..4].copy_from_slice(&length.to_le_bytes());
            front[4..].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// A payload in one piece: `inline` are the bytes of it that stand behind the packet's front. Copies
/// if there is another piece, which is for rare events.
fn joined(inline: Bytes, body: Bytes) -> Bytes {
    if body.is_empty() {
        inline
    } else if inline.is_empty() {
        body
    } else {
        [inline, body].concat().into()
    }
}

fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Frames that are laid out, in the order they are written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    frames: VecDeque<Box<Frame>>,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Bytes of all frames, those included.
    bytes: usize,
    slices: usize,
}

impl Batch {
    /// Whether bytes of the first frame are written, but not all.
    pub(super) fn has_begun(&self) -> bool {
        self.written > 0
    }

    /// Notes that bytes of the first frame are written.
    pub(super) fn expose_begun(&mut self) {
        if self.has_begun()
            && let Some(frame) = self.frames.front_mut()
        {
            frame.is_exposed = true;
        }
    }

    /// Withdraws the packet, if it is here: it becomes a Skip, at once or when it is written.
    pub(super) fn withdraw(&mut self, id: PacketId) -> Option<Withdrawn> {
        let is_it = |frame: &Frame| frame.is_reliable() && frame.id == id && !frame.is_withdrawn;
        let at = self.frames.iter().position(|frame| is_it(frame))?;
        let has_begun = at == 0 && self.has_begun();
        let frame = self.frames.get_mut(at)?;
        let (was_exposed, account) = (frame.is_exposed, frame.terms.account);
        if has_begun {
            frame.is_withdrawn = true;
            return Some(Withdrawn {
                saved: 0,
                was_exposed,
                account,
            });
        }
        self.slices -= frame.slice_count();
        let ack = frame.ack();
        let saved = frame.become_skip();
        frame.lay_out(ack);
        self.slices += frame.slice_count();
        self.bytes -= saved;
        Some(Withdrawn {
            saved,
            was_exposed,
            account,
        })
    }

    /// The frames, in the order they would have been written.
    pub(super) fn into_frames(self) -> VecDeque<Box<Frame>> {
        self.frames
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Pieces of memory that its frames are in.
    pub(super) fn slice_count(&self) -> usize {
        self.slices
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.bytes < BATCH_BYTES && self.slices < BATCH_SLICES
    }

    /// The unwritten bytes, as many pieces of them as `out` takes. Gives how many there are.
    pub(super) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        if self.slices == self.frames.len() {
            return self.heads(out);
        }
        let mut skip = self.written;
        let mut places = out.iter_mut();
        let mut count = 0;
        for frame in &self.frames {
            for piece in [&frame.head[..], &frame.body[..]] {
                let rest = piece.get(skip..).unwrap_or_default();
                skip = skip.saturating_sub(piece.len());
                if rest.is_empty() {
                    continue;
                }
                let Some(place) = places.next() else {
                    return count;
                };
                *place = IoSlice::new(rest);
                count += 1;
            }
        }
        count
    }

    /// The unwritten bytes, if they are in one piece.
    #[inline]
    pub(super) fn only_slice(&self) -> Option<&[u8]> {
        let first = self.frames.front().filter(|_| self.slices == 1)?;
        first.head.get(self.written..)
    }

    /// [`slices`](Self::slices) of frames that are in one piece each.
    fn heads<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        for (place, frame) in out.iter_mut().zip(&self.frames) {
            *place = IoSlice::new(&frame.head);
        }
        if let (Some(place), Some(first)) = (out.first_mut(), self.frames.front()) {
            *place = IoSlice::new(first.head.get(self.written..).unwrap_or_default());
        }
        self.frames.len().min(out.len())
    }

    #[inline]
    pub(super) fn push(&mut self, frame: Box<Frame>) {
        self.count_in(&frame);
        self.frames.push_back(frame);
    }

    /// Puts `frame` in front of every packet of which no byte was written yet, but behind other
    /// frames of the session: nothing may overtake an answer to a Hello.
    pub(super) fn push_urgent(&mut self, frame: Box<Frame>) {
        self.count_in(&frame);
        let begun = usize::from(self.written > 0);
        let behind = self.frames.iter().skip(begun);
        let controls = behind.take_while(|frame| frame.kind() == FrameKind::Control);
        let at = begun + controls.count();
        self.frames.insert(at, frame);
    }

    fn count_in(&mut self, frame: &Frame) {
        self.bytes += frame.size();
        self.slices += frame.slice_count();
    }

    pub(super) fn pop(&mut self) -> Option<Box<Frame>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.size();
        self.slices -= frame.slice_count();
        Some(frame)
    }

    /// The first frame if `bytes` more bytes, and what was written before, complete it.
    pub(super) fn complete(&mut self, bytes: &mut usize) -> Option<Box<Frame>> {
        let size = self.frames.front()?.size();
        if self.written + *bytes < size {
            self.written += *bytes;
            *bytes = 0;
            return None;
        }
        *bytes -= size - self.written;
        self.written = 0;
        self.pop()
    }
}
