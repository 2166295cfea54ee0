//! One direction of a connection: the bytes in it, the segments under way, and what it waits for.

use std::io::IoSlice;
use std::time::Duration;

use tokio::io::ReadBuf;

use super::byte_queue::ByteQueue;
use super::clock::SimInstant;
use super::digest::Digest;
use super::events::EventKey;
use super::faults::Way;
use super::segment_queue::SegmentQueue;

/// One direction of a connection.
///
/// `bytes` holds what was accepted and not read: the first `delivered` are with the reader, the
/// others are under way. So a byte is copied in once and out once.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) bytes: ByteQueue,
    pub(super) delivered: usize,
    pub(super) segments: SegmentQueue,
    /// The arrival of the first segment.
    pub(super) event: Option<EventKey>,
    pub(super) last_arrival: SimInstant,
    pub(super) sender: Sender,
    /// A FIN has arrived: after the delivered bytes comes the end.
    pub(super) ended: bool,
    /// Why the first segment has no event, if it has none.
    pub(super) waits_for: Waits,
    pub(super) way: Way,
    /// What may be accepted and not acknowledged.
    capacity: usize,
    /// Delivered bytes whose acknowledgement does not get through.
    pub(super) unacknowledged: usize,
    /// When the sender gives up.
    timeout: Option<EventKey>,
    /// The links have it on their list of what is held.
    pub(super) is_listed: bool,
}

/// Whether an end still sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sender {
    #[default]
    Open,
    /// It has sent FIN or RST: no more bytes are accepted.
    Shut,
}

/// What the first segment of a pipe waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    /// Its arrival.
    #[default]
    Arrival,
    /// Room with the reader.
    Room,
    /// An obstacle or a cut to end.
    Release,
    /// Nothing: it was lost too often, and its sender gives up soon.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// When it arrives; never, if it was lost too often.
    pub(super) at: SimInstant,
    pub(super) carries: Carries,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Bytes(usize),
    Fin,
    Reset,
}

/// What a write is given: some bytes, or several pieces of them.
pub(crate) trait Outgoing: Copy {
    /// How many bytes there are.
    fn count(self) -> usize;

    /// Copies the first `count` bytes.
    fn copy_to(self, bytes: &mut ByteQueue, count: usize);
}

impl Outgoing for &[u8] {
    #[inline]
    fn count(self) -> usize {
        self.len()
    }

    #[inline]
    fn copy_to(self, bytes: &mut ByteQueue, count: usize) {
        bytes.extend(&self[..count]);
    }
}

impl Outgoing for &[IoSlice<'_>] {
    fn count(self) -> usize {
        self.iter().map(|slice| slice.len()).sum()
    }

    fn copy_to(self, bytes: &mut ByteQueue, count: usize) {
        let mut left = count;
        for slice in self {
            let count = left.min(slice.len());
            bytes.extend(&slice[..count]);
            left -= count;
        }
    }
}

impl Pipe {
    /// What its connection's way and buffers are like.
    pub(super) fn lay(&mut self, capacity: usize, base: Duration, delay: Duration) {
        self.capacity = capacity;
        self.way.set_base(base);
        self.way.set_delay(delay);
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_stable(&self) -> bool {
        self.way.stable
    }

    pub(super) fn is_idle(&self) -> bool {
        self.segments.is_empty() && self.event.is_none()
    }

    /// Accepted bytes that the sender's buffer still holds.
    pub(super) fn in_send_buffer(&self) -> usize {
        self.bytes.len() - self.delivered + self.unacknowledged
    }

    /// How many more bytes are accepted.
    pub(super) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.in_send_buffer())
    }

    /// How many bytes of the first segment under way there are, if it carries any.
    pub(super) fn first_bytes(&self) -> usize {
        match self.segments.front().map(|segment| segment.carries) {
            Some(Carries::Bytes(count)) => count,
            Some(Carries::Fin | Carries::Reset) | None => 0,
        }
    }

    /// Takes the first `count` bytes into the send buffer.
    #[inline]
    pub(super) fn accept(&mut self, count: usize, bytes: impl Outgoing) {
        bytes.copy_to(&mut self.bytes, count);
    }

    /// The next `count` bytes under way reach the reader.
    #[inline]
    pub(super) fn deliver_bytes(&mut self, count: usize, digest: &mut Digest) {
        digest.fold_bytes(&self.bytes.as_slice()[self.delivered..self.delivered + count]);
        self.delivered += count;
    }

    /// Flips a bit of the bytes under way.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        let byte = usize::try_from(bit / 8).unwrap_or(0);
        if let Some(byte) = self.bytes.get_mut(self.delivered + byte) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Moves delivered bytes to a reader who has room for `count`.
    #[inline]
    pub(super) fn read(&mut self, count: usize, buffer: &mut ReadBuf<'_>) {
        buffer.put_slice(&self.bytes.as_slice()[..count]);
        self.bytes.take(count);
        self.delivered -= count;
    }

    /// Whether the first segment waits for room with the reader.
    pub(super) fn is_stalled(&self) -> bool {
        self.waits_for == Waits::Room && !self.segments.is_empty()
    }

    /// Whether bytes under way have no obstacle yet, so that more can join them.
    pub(super) fn can_be_joined(&self) -> bool {
        let last = self.segments.back().map(|segment| segment.carries);
        matches!(last, Some(Carries::Bytes(_))) && self.event.is_some() && !self.is_doomed()
    }

    /// Whether a segment was lost too often: nothing behind it arrives either.
    pub(super) fn is_doomed(&self) -> bool {
        self.last_arrival == SimInstant::NEVER
    }

    /// Whether its sender has said its last word.
    pub(super) fn has_ended(&self) -> bool {
        self.sender == Sender::Shut
    }

    /// Whether a RST is under way behind everything else.
    pub(super) fn ends_with_reset(&self) -> bool {
        let last = self.segments.back().map(|segment| segment.carries);
        last == Some(Carries::Reset)
    }

    /// Keeps the event at which the sender gives up. Returns the one before.
    pub(super) fn set_timeout(&mut self, event: EventKey) -> Option<EventKey> {
        self.timeout.replace(event)
    }

    pub(super) fn has_timeout(&self) -> bool {
        self.timeout.is_some()
    }

    pub(super) fn take_timeout(&mut self) -> Option<EventKey> {
        self.timeout.take()
    }

    /// Forgets what has not been delivered. Returns the event to remove.
    pub(super) fn discard_under_way(&mut self) -> Option<EventKey> {
        self.bytes.truncate(self.delivered);
        self.segments.clear();
        self.waits_for = Waits::Arrival;
        if self.is_doomed() {
            self.last_arrival = SimInstant::ZERO;
        }
        self.event.take()
    }
}
