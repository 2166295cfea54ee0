//! What waits to be written: accepted packets, the batch laid out for the next write, and what was
//! written and not acknowledged.
//!
//! A packet is encoded once, when it is accepted, behind room for its header. It stays a frame
//! apart until it is laid out; only then are its sequence number, acknowledgement, length and
//! checksum filled in. A frame with a sequence number is kept until the other end has it, or the
//! session ends: on each further connection it is laid out anew, with the same number.

mod answers;
mod between;

use std::collections::VecDeque;
use std::time::Duration;

use crate::messaging::WellKnownToken;
use crate::messaging::wire::HEADER_SIZE;

use super::config::PeerConfig;
use super::frame::{Batch, Frame, FrameKind, Prefix, SEQUENCED_HEAD, Withdrawn};
use super::packet::{PacketId, Withdrawal};
use super::terms::{Account, Answers, PacketTerms};

/// Bytes of memory that is kept for packets which are yet to come.
pub(super) const SPARE_BYTES: usize = 256 * 1024;
/// Frames that are kept for the next packets, by one peer.
const SPARES: usize = 1024;

/// What came of laying out the next packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LaidOut {
    Nothing,
    Reliable,
    Unreliable,
    /// It is larger than the other end takes, and was withdrawn.
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
    pub(super) packets_resent: u64,
    pub(super) bytes_sent: u64,
    pub(super) unreliable_dropped: u64,
    pub(super) not_delivered: u64,
    pub(super) maybe_delivered: u64,
}

/// Everything a peer has accepted and not finished with.
///
/// In the order of their ids: `retained`, the batch, `relay`, `queue`. The frames of the first three
/// have dense sequence numbers from `acknowledged` on, and those that are exposed come first.
#[derive(Debug)]
pub(super) struct Outbox {
    sequenced: bool,
    reliable_limits: Limits,
    unreliable_limits: Limits,
    /// Written on this connection and not acknowledged. Without a connection: all that have a
    /// sequence number.
    retained: VecDeque<Box<Frame>>,
    retained_bytes: usize,
    batch: Batch,
    /// Have a number from an earlier connection, and are to be laid out again.
    relay: VecDeque<Box<Frame>>,
    queue: VecDeque<Box<Frame>>,
    /// For the next ones: packets go from line to line without being moved.
    #[expect(
        clippy::vec_box,
        reason = "it is the boxes that are kept: a frame is moved by its pointer"
    )]
    spare: Vec<Box<Frame>>,
    /// Bytes that they have room for.
    spare_bytes: usize,
    /// Every sequence number below was acknowledged.
    acknowledged: u64,
    /// The sequence number that is given out next.
    next_sequence: u64,
    next_id: PacketId,
    /// Every id below was acknowledged or reported.
    settled: PacketId,
    /// Frames of reliable packets, Skips included, and their bytes. In plain mode they are let go
    /// when they are written, in a session when they are acknowledged.
    reliable_held: usize,
    reliable_bytes: usize,
    /// The part of the two that does not count against the own limits.
    answers: Answers,
    unreliable_queued: usize,
    unreliable_bytes: usize,
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
            retained: VecDeque::new(),
            retained_bytes: 0,
            batch: Batch::default(),
            relay: VecDeque::new(),
            queue: VecDeque::new(),
            spare: Vec::new(),
            spare_bytes: 0,
            acknowledged: 1,
            next_sequence: 1,
            next_id: PacketId::FIRST,
            settled: PacketId::FIRST,
            reliable_held: 0,
            reliable_bytes: 0,
            answers: Answers::new(config),
            unreliable_queued: 0,
            unreliable_bytes: 0,
            counters: OutboxCounters::default(),
        }
    }

    /// Whether one more reliable packet of any size is taken.
    pub(super) fn accepts_reliable(&self) -> bool {
        let (frames, bytes) = self.answers.held();
        self.reliable_held - frames < self.reliable_limits.packets
            && self.reliable_bytes - bytes < self.reliable_limits.bytes
    }

    pub(super) fn accepts_unreliable(&self) -> bool {
        self.unreliable_queued < self.unreliable_limits.packets
            && self.unreliable_bytes < self.unreliable_limits.bytes
    }

    /// Takes a reliable packet that was [begun](Self::begin) here.
    #[inline]
    pub(super) fn push_reliable(&mut self, mut frame: Box<Frame>) -> PacketId {
        let id = self.next_id;
        self.next_id = id.next();
        frame.commit(FrameKind::Reliable, id);
        self.answers.handle_pushed(&frame);
        self.reliable_held += 1;
        self.reliable_bytes += frame.size();
        self.queue.push_back(frame);
        id
    }

    /// Takes an unreliable one.
    pub(super) fn push_unreliable(&mut self, mut frame: Box<Frame>) {
        frame.commit(FrameKind::Unreliable, self.next_id);
        self.unreliable_queued += 1;
        self.unreliable_bytes += frame.size();
        self.queue.push_back(frame);
    }

    /// Takes a reliable packet back, as far as that can be done.
    pub(super) fn withdraw(&mut self, id: PacketId) -> Withdrawal {
        if let Some(at) = position(&self.queue, id) {
            if let Some(frame) = self.queue.remove(at) {
                self.release(&frame);
            }
            return Withdrawal::NotDelivered;
        }
        if !self.sequenced {
            return Withdrawal::Unknown;
        }
        let withdrawn = match self.batch.withdraw(id) {
            Some(withdrawn) => Some(withdrawn),
            None => match withdraw_numbered(&mut self.retained, id) {
                Some(withdrawn) => {
                    self.retained_bytes -= withdrawn.saved;
                    Some(withdrawn)
                }
                None => withdraw_numbered(&mut self.relay, id),
            },
        };
        match withdrawn {
            None => Withdrawal::Unknown,
            Some(withdrawn) => {
                self.count_saved(withdrawn.account, withdrawn.saved);
                if withdrawn.was_exposed {
                    Withdrawal::MaybeDelivered
                } else {
                    Withdrawal::NotDelivered
                }
            }
        }
    }

    /// A reliable frame got smaller.
    fn count_saved(&mut self, account: Account, bytes: usize) {
        self.reliable_bytes -= bytes;
        self.answers.handle_saved(account, bytes);
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

    fn control_frame(&mut self, token: WellKnownToken, payload: &[u8]) -> Box<Frame> {
        let mut frame = self.begin(Prefix::Plain(token.token()), payload.len());
        frame.head().extend_from_slice(payload);
        frame.terms = PacketTerms::default();
        frame.commit(FrameKind::Control, self.next_id);
        frame.lay_out(0);
        frame
    }

    /// A frame in memory of its own, which it leaves when it is [done](Self::reuse), with a packet's
    /// front in it and room for a payload of this size.
    #[inline]
    pub(super) fn begin(&mut self, prefix: Prefix, room: usize) -> Box<Frame> {
        let mut frame = match self.spare.pop() {
            Some(frame) => {
                self.spare_bytes -= frame.capacity();
                frame
            }
            None => Box::new(Frame::empty()),
        };
        frame.begin(prefix, room);
        frame
    }

    /// Drops what a frame holds, and keeps its memory for the next ones, within limits.
    #[inline]
    pub(super) fn reuse(&mut self, mut frame: Box<Frame>) {
        if self.spare.len() == SPARES {
            return self.shorten_lines();
        }
        self.spare_bytes += frame.clear(SPARE_BYTES.saturating_sub(self.spare_bytes));
        self.spare.push(frame);
    }

    /// Gives room back after a burst: what is kept goes by what there is, not by what there once was.
    #[cold]
    fn shorten_lines(&mut self) {
        for line in [&mut self.retained, &mut self.relay, &mut self.queue] {
            if line.capacity() > SPARES.max(4 * line.len()) {
                line.shrink_to(2 * line.len());
            }
        }
    }

    /// Lays reliable packets out that are queued, up to the first one about which there is anything to
    /// decide. Whether there were any. `ack` and `max_payload` as for [`lay_out_next`](Self::lay_out_next).
    pub(super) fn lay_out_plain(&mut self, now: Duration, ack: u64, max_payload: usize) -> bool {
        if !self.relay.is_empty() {
            return false;
        }
        let front = if self.sequenced {
            SEQUENCED_HEAD
        } else {
            HEADER_SIZE
        };
        let before = self.queue.len();
        while self.batch.has_room()
            && let Some(frame) = self.queue.front_mut()
        {
            let is_plain = frame.is_reliable()
                && frame.size() - front <= max_payload
                && !frame.is_expired(now);
            if !is_plain {
                break;
            }
            if self.sequenced {
                frame.sequence = self.next_sequence;
                self.next_sequence += 1;
            }
            frame.write_remaining(now, front);
            frame.lay_out(ack);
            if let Some(frame) = self.queue.pop_front() {
                self.batch.push(frame);
            }
        }
        self.queue.len() < before
    }

    /// Bytes that are kept for packets which are yet to come.
    #[cfg(test)]
    pub(super) fn kept_for_more(&self) -> usize {
        self.spare.iter().map(|frame| frame.capacity()).sum()
    }

    /// Lays the next packet out. `ack` is what a sequenced frame acknowledges, `max_payload` what
    /// the other end takes.
    pub(super) fn lay_out_next(&mut self, now: Duration, ack: u64, max_payload: usize) -> LaidOut {
        self.drop_expired_front(now);
        let is_relayed = !self.relay.is_empty();
        let line = if is_relayed {
            &mut self.relay
        } else {
            &mut self.queue
        };
        let Some(frame) = line.front_mut() else {
            return LaidOut::Nothing;
        };
        let is_sequenced = self.sequenced && frame.is_reliable();
        let front = if is_sequenced {
            SEQUENCED_HEAD
        } else {
            HEADER_SIZE
        };
        let is_too_large = frame.size() - front > max_payload;
        let kind = frame.kind();
        match kind {
            FrameKind::Reliable if is_too_large => return self.withdraw_front(is_relayed),
            FrameKind::Unreliable if is_too_large => {
                if let Some(frame) = line.pop_front() {
                    self.drop_unreliable(&frame);
                }
                return LaidOut::Unreliable;
            }
            FrameKind::Reliable | FrameKind::Skip => {
                if is_sequenced && !is_relayed {
                    frame.sequence = self.next_sequence;
                    self.next_sequence += 1;
                }
                if kind == FrameKind::Reliable {
                    frame.write_remaining(now, front);
                }
                frame.lay_out(ack);
                self.counters.packets_resent +=
                    u64::from(is_relayed && kind == FrameKind::Reliable);
            }
            FrameKind::Unreliable | FrameKind::Control => frame.lay_out(0),
        }
        if let Some(frame) = line.pop_front() {
            self.batch.push(frame);
        }
        match kind {
            FrameKind::Reliable | FrameKind::Skip => LaidOut::Reliable,
            FrameKind::Unreliable | FrameKind::Control => LaidOut::Unreliable,
        }
    }

    /// The packet that is next is larger than the other end takes: it vanishes, or becomes an empty
    /// frame if it has a number.
    fn withdraw_front(&mut self, is_relayed: bool) -> LaidOut {
        self.counters.not_delivered += 1;
        if is_relayed && let Some(frame) = self.relay.front_mut() {
            let (id, account) = (frame.id, frame.terms.account);
            let saved = frame.become_skip();
            self.count_saved(account, saved);
            return LaidOut::Withdrawn(id);
        }
        let Some(frame) = self.queue.pop_front() else {
            return LaidOut::Nothing;
        };
        self.release(&frame);
        LaidOut::Withdrawn(frame.id)
    }

    /// The batch, to write from it; [`put_back`](Self::put_back) has to follow before anything else.
    #[inline]
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
            self.finish_frame(frame);
        }
        self.batch.expose_begun();
    }

    fn finish_frame(&mut self, mut frame: Box<Frame>) {
        match frame.kind() {
            FrameKind::Reliable | FrameKind::Skip => {
                self.counters.packets_sent += u64::from(frame.is_reliable());
                if self.sequenced {
                    frame.is_exposed = true;
                    self.complete_withdrawal(&mut frame);
                    self.retained_bytes += frame.size();
                    self.retained.push_back(frame);
                    return;
                }
                self.release(&frame);
            }
            FrameKind::Unreliable => {
                self.unreliable_queued -= 1;
                self.unreliable_bytes -= frame.size();
                self.counters.packets_sent += 1;
            }
            FrameKind::Control => {}
        }
        self.reuse(frame);
    }

    fn complete_withdrawal(&mut self, frame: &mut Frame) {
        if frame.is_withdrawn {
            let saved = frame.become_skip();
            self.count_saved(frame.terms.account, saved);
        }
    }

    /// Lets go of a reliable packet's frame.
    fn release(&mut self, frame: &Frame) {
        self.answers.handle_released(frame);
        self.reliable_held -= 1;
        self.reliable_bytes -= frame.size();
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
        let written = self.acknowledged + count(self.retained.len());
        if ack > written {
            return Err(written - 1);
        }
        while self.acknowledged < ack {
            let Some(frame) = self.retained.pop_front() else {
                break;
            };
            self.retained_bytes -= frame.size();
            self.release(&frame);
            self.settled = frame.id.next();
            self.acknowledged += 1;
            self.reuse(frame);
        }
        debug_assert!(
            !self.retained.is_empty() || self.retained_bytes == 0,
            "what is retained is counted as it shrinks"
        );
        Ok(())
    }

    /// Whether this is what was acknowledged last.
    #[inline]
    pub(super) fn is_acknowledged(&self, ack: u64) -> bool {
        ack == self.acknowledged
    }

    /// Counts an unreliable packet that was dropped before it got here.
    pub(super) fn count_unreliable_dropped(&mut self) {
        self.counters.unreliable_dropped += 1;
    }

    #[inline]
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Whether packets wait that are not laid out.
    #[inline]
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty() || !self.relay.is_empty()
    }

    /// Whether reliable packets are held: queued, or written and not acknowledged.
    pub(super) fn owes(&self) -> bool {
        self.reliable_held > 0
    }

    /// Whether packets have a sequence number and are not acknowledged.
    pub(super) fn has_numbered(&self) -> bool {
        !self.retained.is_empty()
    }

    /// Packets that wait to be written, for the first time or again.
    pub(super) fn reliable_queued(&self) -> usize {
        self.reliable_held - self.retained.len()
    }

    pub(super) fn reliable_bytes(&self) -> usize {
        self.reliable_bytes
    }

    #[inline]
    pub(super) fn unacknowledged(&self) -> usize {
        self.retained.len()
    }

    /// Whether what was written and not acknowledged takes up half of what may be held, or refusals
    /// do.
    pub(super) fn is_half_unacknowledged(&self) -> bool {
        (self.is_half_refusals() && self.has_numbered())
            || self.retained.len() >= self.reliable_limits.packets.div_ceil(2)
            || self.retained_bytes >= self.reliable_limits.bytes.div_ceil(2)
    }

    pub(super) fn unreliable(&self) -> (usize, usize) {
        (self.unreliable_queued, self.unreliable_bytes)
    }
}

fn count(frames: usize) -> u64 {
    u64::try_from(frames).unwrap_or(u64::MAX)
}

/// Where the reliable packet's frame is. Ids ascend, also those noted for other packets.
fn position(frames: &VecDeque<Box<Frame>>, id: PacketId) -> Option<usize> {
    let first = frames.partition_point(|frame| frame.id < id);
    let same = frames.iter().skip(first).take_while(|frame| frame.id == id);
    let before = same.take_while(|frame| !frame.is_reliable()).count();
    let at = first + before;
    let frame = frames.get(at)?;
    (frame.is_reliable() && frame.id == id).then_some(at)
}

fn withdraw_numbered(frames: &mut VecDeque<Box<Frame>>, id: PacketId) -> Option<Withdrawn> {
    let at = position(frames, id)?;
    let frame = frames.get_mut(at)?;
    Some(Withdrawn {
        was_exposed: frame.is_exposed,
        account: frame.terms.account,
        saved: frame.become_skip(),
    })
}
