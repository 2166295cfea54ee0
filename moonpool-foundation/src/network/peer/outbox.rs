//! What waits to be written: accepted packets, the batch laid out for the next write, and what was
//! written and not acknowledged.
//!
//! A packet is encoded once, when it is accepted, behind room for its header. It stays a frame
//! apart until it is laid out; only then are its sequence number, acknowledgement, length and
//! checksum filled in. So a frame that was not laid out, or of which no byte was written, can be
//! taken back and laid out anew on another connection.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::messaging::WellKnownToken;
use crate::messaging::wire::HEADER_SIZE;

use super::config::PeerConfig;
use super::frame::{Batch, Frame, FrameKind, Prefix, SEQUENCED_HEAD};
use super::packet::PacketId;

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
        let front = match frame.kind() {
            FrameKind::Reliable(_) if self.sequenced => SEQUENCED_HEAD,
            _ => HEADER_SIZE,
        };
        let is_too_large = frame.size() - front > max_payload;
        match frame.kind() {
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
        match frame.kind() {
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
        let written = self.next_sequence - self.batch.sequenced();
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
        if batch.has_begun()
            && let Some(frame) = batch.pop()
        {
            self.abandon_written(&frame);
        }
        while let Some((_, bytes)) = self.unacked.pop_front() {
            self.release_reliable(bytes);
        }
        for frame in batch.into_frames().into_iter().rev() {
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
        match frame.kind() {
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
        queue.retain(|frame| match frame.kind() {
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
        let mut ids = self.queue.iter().filter_map(|frame| match frame.kind() {
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
            match frame.kind() {
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
            match frame.kind() {
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
