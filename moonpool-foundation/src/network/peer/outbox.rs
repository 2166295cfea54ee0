//! What waits to be written: accepted packets, the batch laid out for the next write, and what was
//! written and not acknowledged.
//!
//! A packet is encoded once, when it is accepted, behind room for its header. It stays a frame
//! apart until it is laid out; only then are its sequence number, acknowledgement, length and
//! checksum filled in. So a frame that was not laid out, or of which no byte was written, can be
//! taken back and laid out anew on another connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::wire::{HEADER_SIZE, SEQUENCED_PREFIX_SIZE};
use crate::messaging::{UID, WellKnownToken};

use super::config::PeerConfig;
use super::packet::PacketId;

/// Bytes that are laid out for one write. A single packet may be larger.
const BATCH_BYTES: usize = 128 * 1024;

/// Pieces of memory that one write takes at most.
pub(super) const BATCH_SLICES: usize = 256;

/// Bytes in front of the payload of a sequenced frame.
const SEQUENCED_HEAD: usize = HEADER_SIZE + SEQUENCED_PREFIX_SIZE;

/// How a frame's packet is to travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// In a Sequenced frame, or as it is in plain mode.
    Reliable(PacketId),
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
    pub(super) fn write(self, head: &mut BytesMut) {
        head.extend_from_slice(&[0; 8]);
        match self {
            Self::Plain(token) => head.extend_from_slice(&token.to_le_bytes()),
            Self::Sequenced(token) => {
                head.extend_from_slice(&WellKnownToken::Sequenced.token().to_le_bytes());
                head.extend_from_slice(&[0; 16]);
                head.extend_from_slice(&token.to_le_bytes());
            }
        }
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
    /// When it was accepted, or when the last connection was lost if that was later. Unknown until
    /// the driver runs, since handles have no clock.
    waits_since: Option<Duration>,
    kind: FrameKind,
}

impl Frame {
    pub(super) fn new(head: BytesMut, body: Bytes, kind: FrameKind) -> Self {
        Self {
            head,
            body,
            waits_since: None,
            kind,
        }
    }

    fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    fn slice_count(&self) -> usize {
        1 + usize::from(!self.body.is_empty())
    }

    /// Fills in what depends on the connection it is written to.
    fn lay_out(&mut self, sequence: Option<(u64, u64)>) {
        let size = self.size();
        debug_assert!(
            u32::try_from(size).is_ok(),
            "payloads are limited to 64 MiB"
        );
        if let Some((sequence, ack)) = sequence {
            put(&mut self.head, HEADER_SIZE, &sequence.to_le_bytes());
            put(&mut self.head, HEADER_SIZE + 8, &ack.to_le_bytes());
        }
        let checked = self.head.get(8..).unwrap_or_default();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(checked), &self.body);
        let length = u32::try_from(size).unwrap_or(u32::MAX);
        put(&mut self.head, 0, &length.to_le_bytes());
        put(&mut self.head, 4, &checksum.to_le_bytes());
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
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Bytes of all frames, those included.
    bytes: usize,
    slices: usize,
    sequenced: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.bytes < BATCH_BYTES && self.slices < BATCH_SLICES
    }

    /// The unwritten bytes, as many pieces of them as `out` takes. Gives how many there are.
    pub(super) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
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

    fn push(&mut self, frame: Frame) {
        self.count_in(&frame);
        self.frames.push_back(frame);
    }

    /// Puts `frame` in front of everything of which no byte was written yet.
    fn push_urgent(&mut self, frame: Frame) {
        self.count_in(&frame);
        let at = usize::from(self.written > 0);
        self.frames.insert(at, frame);
    }

    fn count_in(&mut self, frame: &Frame) {
        self.bytes += frame.size();
        self.slices += frame.slice_count();
        self.sequenced += u64::from(matches!(frame.kind, FrameKind::Reliable(_)));
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.size();
        self.slices -= frame.slice_count();
        self.sequenced -= u64::from(matches!(frame.kind, FrameKind::Reliable(_)));
        Some(frame)
    }

    /// The first frame if `bytes` more bytes, and what was written before, complete it.
    fn complete(&mut self, bytes: &mut usize) -> Option<Frame> {
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

/// What came of laying out the next packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LaidOut {
    Nothing,
    Reliable,
    Unreliable,
    /// It is larger than the other end takes, and was dropped.
    Withdrawn(PacketId),
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    packets: usize,
    bytes: usize,
}

/// Counts the outbox keeps for the metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OutboxCounters {
    pub(super) packets_sent: u64,
    pub(super) bytes_sent: u64,
    pub(super) unreliable_dropped: u64,
    pub(super) not_delivered: u64,
    pub(super) maybe_delivered: u64,
}

/// Everything a peer has accepted and not finished with.
#[derive(Debug)]
pub(super) struct Outbox {
    sequenced: bool,
    reliable_limits: Limits,
    unreliable_limits: Limits,
    queue: VecDeque<Frame>,
    batch: Batch,
    /// Id and size of what was written and not acknowledged; their sequence numbers are dense and
    /// end below the batch's.
    unacked: VecDeque<(PacketId, usize)>,
    /// The sequence number that is given out next.
    next_sequence: u64,
    next_id: PacketId,
    /// Every id below was acknowledged or reported.
    settled: PacketId,
    /// Accepted and not written completely.
    reliable_queued: usize,
    /// Bytes of those and of the unacknowledged ones.
    reliable_bytes: usize,
    unreliable_queued: usize,
    unreliable_bytes: usize,
    /// Where control frames are encoded.
    scratch: BytesMut,
    pub(super) counters: OutboxCounters,
}

impl Outbox {
    pub(super) fn new(config: &PeerConfig, sequenced: bool) -> Self {
        Self {
            sequenced,
            reliable_limits: Limits {
                packets: config.reliable_packets,
                bytes: config.reliable_bytes,
            },
            unreliable_limits: Limits {
                packets: config.unreliable_packets,
                bytes: config.unreliable_bytes,
            },
            queue: VecDeque::new(),
            batch: Batch::default(),
            unacked: VecDeque::new(),
            next_sequence: 1,
            next_id: PacketId::FIRST,
            settled: PacketId::FIRST,
            reliable_queued: 0,
            reliable_bytes: 0,
            unreliable_queued: 0,
            unreliable_bytes: 0,
            scratch: BytesMut::new(),
            counters: OutboxCounters::default(),
        }
    }

    /// Whether one more reliable packet of any size is taken.
    pub(super) fn accepts_reliable(&self) -> bool {
        self.reliable_queued + self.unacked.len() < self.reliable_limits.packets
            && self.reliable_bytes < self.reliable_limits.bytes
    }

    pub(super) fn accepts_unreliable(&self) -> bool {
        self.unreliable_queued < self.unreliable_limits.packets
            && self.unreliable_bytes < self.unreliable_limits.bytes
    }

    pub(super) fn push_reliable(&mut self, head: BytesMut, body: Bytes) -> PacketId {
        let id = self.next_id;
        self.next_id = id.next();
        let frame = Frame::new(head, body, FrameKind::Reliable(id));
        self.reliable_queued += 1;
        self.reliable_bytes += frame.size();
        self.queue.push_back(frame);
        id
    }

    pub(super) fn push_unreliable(&mut self, head: BytesMut, body: Bytes) {
        let frame = Frame::new(head, body, FrameKind::Unreliable);
        self.unreliable_queued += 1;
        self.unreliable_bytes += frame.size();
        self.queue.push_back(frame);
    }

    /// Lays a session frame out, in front of every packet.
    pub(super) fn push_control(&mut self, token: WellKnownToken, payload: &[u8]) {
        let frame = self.control_frame(token, payload);
        self.batch.push_urgent(frame);
    }

    /// Lays a session frame out, behind everything that is laid out.
    pub(super) fn push_last_control(&mut self, token: WellKnownToken, payload: &[u8]) {
        let frame = self.control_frame(token, payload);
        self.batch.push(frame);
    }

    fn control_frame(&mut self, token: WellKnownToken, payload: &[u8]) -> Frame {
        let prefix = Prefix::Plain(token.token());
        self.scratch.reserve(prefix.size() + payload.len());
        prefix.write(&mut self.scratch);
        self.scratch.extend_from_slice(payload);
        let mut frame = Frame::new(self.scratch.split(), Bytes::new(), FrameKind::Control);
        frame.lay_out(None);
        frame
    }

    /// Lays the next packet out. `ack` is what a sequenced frame acknowledges, `max_payload` what
    /// the other end takes.
    pub(super) fn lay_out_next(&mut self, ack: u64, max_payload: usize) -> LaidOut {
        let Some(mut frame) = self.queue.pop_front() else {
            return LaidOut::Nothing;
        };
        let front = match frame.kind {
            FrameKind::Reliable(_) if self.sequenced => SEQUENCED_HEAD,
            _ => HEADER_SIZE,
        };
        let is_too_large = frame.size() - front > max_payload;
        match frame.kind {
            FrameKind::Reliable(id) if is_too_large => {
                self.release_reliable(frame.size());
                self.reliable_queued -= 1;
                self.counters.not_delivered += 1;
                LaidOut::Withdrawn(id)
            }
            FrameKind::Reliable(_) => {
                let sequence = self.sequenced.then_some((self.next_sequence, ack));
                frame.lay_out(sequence);
                self.next_sequence += 1;
                self.batch.push(frame);
                LaidOut::Reliable
            }
            FrameKind::Unreliable if is_too_large => {
                self.drop_unreliable(&frame);
                LaidOut::Unreliable
            }
            FrameKind::Unreliable | FrameKind::Control => {
                frame.lay_out(None);
                self.batch.push(frame);
                LaidOut::Unreliable
            }
        }
    }

    /// The batch, to write from it; [`put_back`](Self::put_back) has to follow before anything else.
    pub(super) fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Takes the batch back, of which `bytes` more bytes are written.
    pub(super) fn put_back(&mut self, batch: Batch, bytes: usize) {
        assert!(
            self.batch.is_empty(),
            "nothing is laid out while a batch is being written"
        );
        self.batch = batch;
        self.counters.bytes_sent += u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut rest = bytes;
        while let Some(frame) = self.batch.complete(&mut rest) {
            self.finish_frame(&frame);
        }
    }

    fn finish_frame(&mut self, frame: &Frame) {
        match frame.kind {
            FrameKind::Reliable(id) => {
                self.reliable_queued -= 1;
                self.counters.packets_sent += 1;
                if self.sequenced {
                    self.unacked.push_back((id, frame.size()));
                } else {
                    self.release_reliable(frame.size());
                }
            }
            FrameKind::Unreliable => {
                self.unreliable_queued -= 1;
                self.unreliable_bytes -= frame.size();
                self.counters.packets_sent += 1;
            }
            FrameKind::Control => {}
        }
    }

    fn release_reliable(&mut self, bytes: usize) {
        self.reliable_bytes -= bytes;
    }

    fn drop_unreliable(&mut self, frame: &Frame) {
        self.unreliable_queued -= 1;
        self.unreliable_bytes -= frame.size();
        self.counters.unreliable_dropped += 1;
    }

    /// Everything below `ack` arrived. An older acknowledgement than the last one says nothing.
    ///
    /// # Errors
    /// The last sequence number that was written, if `ack` acknowledges more.
    pub(super) fn acknowledge(&mut self, ack: u64) -> Result<(), u64> {
        let written = self.next_sequence - self.batch.sequenced;
        if ack > written {
            return Err(written - 1);
        }
        let unacked = u64::try_from(self.unacked.len()).unwrap_or(u64::MAX);
        let oldest = written - unacked;
        for _ in oldest..ack {
            if let Some((id, bytes)) = self.unacked.pop_front() {
                self.release_reliable(bytes);
                self.settled = id.next();
            }
        }
        Ok(())
    }

    /// The connection is gone. Drops what cannot move to another one, keeps what can, and gives
    /// the ids of which bytes were written and not acknowledged. What is kept waits since
    /// `lost_at`, if it was a working connection that was lost.
    pub(super) fn end_connection(&mut self, lost_at: Option<Duration>) -> Range<PacketId> {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.written > 0
            && let Some(frame) = batch.pop()
        {
            self.abandon_written(&frame);
        }
        while let Some((_, bytes)) = self.unacked.pop_front() {
            self.release_reliable(bytes);
        }
        while let Some(frame) = batch.frames.pop_back() {
            self.queue.push_front(frame);
        }
        self.drop_unreliable_frames();
        if lost_at.is_some() {
            self.queue
                .iter_mut()
                .for_each(|frame| frame.waits_since = lost_at);
        }
        self.next_sequence = 1;
        let maybe_delivered = self.settled..self.first_unwritten();
        self.settled = maybe_delivered.end;
        self.counters.maybe_delivered += maybe_delivered.end.get() - maybe_delivered.start.get();
        maybe_delivered
    }

    /// Of `frame` some bytes were written, and the rest never will be.
    fn abandon_written(&mut self, frame: &Frame) {
        match frame.kind {
            FrameKind::Reliable(_) => {
                self.reliable_queued -= 1;
                self.release_reliable(frame.size());
            }
            FrameKind::Unreliable => self.drop_unreliable(frame),
            FrameKind::Control => {}
        }
    }

    fn drop_unreliable_frames(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|frame| match frame.kind {
            FrameKind::Reliable(_) => true,
            FrameKind::Unreliable => {
                self.drop_unreliable(frame);
                false
            }
            FrameKind::Control => false,
        });
        self.queue = queue;
    }

    fn first_unwritten(&self) -> PacketId {
        let mut ids = self.queue.iter().filter_map(|frame| match frame.kind {
            FrameKind::Reliable(id) => Some(id),
            FrameKind::Unreliable | FrameKind::Control => None,
        });
        ids.next().unwrap_or(self.next_id)
    }

    /// Everything that was written arrived, as far as this end can know.
    pub(super) fn settle_written(&mut self) {
        if self.unacked.is_empty() && self.batch.is_empty() {
            self.settled = self.first_unwritten();
        }
    }

    /// Drops everything that was not written. There must be no connection.
    pub(super) fn drop_all(&mut self) -> Range<PacketId> {
        let dropped = std::mem::take(&mut self.queue);
        for frame in &dropped {
            match frame.kind {
                FrameKind::Reliable(_) => self.drop_reliable(frame.size()),
                FrameKind::Unreliable => self.drop_unreliable(frame),
                FrameKind::Control => {}
            }
        }
        let range = self.settled..self.next_id;
        self.settled = self.next_id;
        range
    }

    fn drop_reliable(&mut self, bytes: usize) {
        self.reliable_queued -= 1;
        self.release_reliable(bytes);
        self.counters.not_delivered += 1;
    }

    /// Notes that frames that were accepted since the last call wait since `now`.
    pub(super) fn stamp(&mut self, now: Duration) {
        for frame in self.queue.iter_mut().rev() {
            if frame.waits_since.is_some() {
                return;
            }
            frame.waits_since = Some(now);
        }
    }

    /// Since when the oldest packet waits.
    pub(super) fn oldest_wait(&self) -> Option<Duration> {
        self.queue.front()?.waits_since
    }

    /// Drops the packets that wait since `limit` or earlier. There must be no connection.
    pub(super) fn drop_overdue(&mut self, limit: Duration) -> Option<Range<PacketId>> {
        let mut end = None;
        while self.oldest_wait().is_some_and(|since| since <= limit) {
            let Some(frame) = self.queue.pop_front() else {
                break;
            };
            match frame.kind {
                FrameKind::Reliable(id) => {
                    self.drop_reliable(frame.size());
                    end = Some(id.next());
                }
                FrameKind::Unreliable => self.drop_unreliable(&frame),
                FrameKind::Control => {}
            }
        }
        let range = self.settled..end?;
        self.settled = range.end;
        Some(range)
    }

    /// Counts an unreliable packet that was dropped before it got here.
    pub(super) fn count_unreliable_dropped(&mut self) {
        self.counters.unreliable_dropped += 1;
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether packets wait that are not laid out.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn reliable_queued(&self) -> usize {
        self.reliable_queued
    }

    pub(super) fn reliable_bytes(&self) -> usize {
        self.reliable_bytes
    }

    pub(super) fn unacknowledged(&self) -> usize {
        self.unacked.len()
    }

    pub(super) fn unreliable(&self) -> (usize, usize) {
        (self.unreliable_queued, self.unreliable_bytes)
    }
}
