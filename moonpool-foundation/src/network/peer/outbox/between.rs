//! What is held between two connections: what the next one carries on, what is given up for want of
//! one, and what moves to another peer.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::sometimes_assert;

use super::{Outbox, count};
use crate::network::peer::error::{ConnectionError, ProtocolError};
use crate::network::peer::frame::{Frame, FrameKind};
use crate::network::peer::packet::PacketId;
use crate::network::peer::terms::Account;

impl Outbox {
    /// The connection is gone. Drops what cannot move to another one, and keeps what can. What was
    /// not written waits since `lost_at`, if it was a working connection that was lost.
    pub(in crate::network::peer) fn end_connection(&mut self, lost_at: Option<Duration>) {
        let dropped_before = self.counters.unreliable_dropped;
        let batch = std::mem::take(&mut self.batch);
        for mut frame in batch.into_frames().into_iter().rev() {
            match frame.kind() {
                FrameKind::Reliable | FrameKind::Skip if self.sequenced => {
                    self.complete_withdrawal(&mut frame);
                    self.relay.push_front(frame);
                }
                FrameKind::Reliable | FrameKind::Skip if frame.is_exposed => self.release(&frame),
                FrameKind::Reliable | FrameKind::Skip => self.queue.push_front(frame),
                FrameKind::Unreliable => self.drop_unreliable(&frame),
                FrameKind::Control => {}
            }
        }
        self.retained.append(&mut self.relay);
        self.retained_bytes = self.retained.iter().map(|frame| frame.size()).sum();
        self.drop_unreliable_frames();
        sometimes_assert!(
            unreliable_discarded_on_error,
            self.counters.unreliable_dropped > dropped_before,
            "unreliable packets went down with their connection"
        );
        if lost_at.is_some() {
            let waiting = self.retained.iter_mut().chain(&mut self.queue);
            waiting.for_each(|frame| frame.waits_since = lost_at);
        }
    }

    fn drop_unreliable_frames(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|frame| {
            let is_unreliable = frame.kind() == FrameKind::Unreliable;
            if is_unreliable {
                self.drop_unreliable(frame);
            }
            !is_unreliable
        });
        self.queue = queue;
    }

    /// A new connection carries the session on: the other end has everything below `next_expected`
    /// and nothing else, so the rest is laid out again. There must be no connection before it.
    ///
    /// # Errors
    /// If the other end claims what was never written, or lacks what it acknowledged; or if bytes that
    /// were written changed since: it would refuse them for ever.
    pub(in crate::network::peer) fn resume(
        &mut self,
        next_expected: u64,
    ) -> Result<(), ConnectionError> {
        let acknowledged = self.acknowledged;
        if next_expected < acknowledged {
            return Err(ProtocolError::AckTakenBack {
                ack: next_expected,
                acknowledged,
            }
            .into());
        }
        let exposed = self.retained.partition_point(|frame| frame.is_exposed);
        let sent = acknowledged + count(exposed) - 1;
        if next_expected > sent + 1 {
            let ack = next_expected;
            return Err(ProtocolError::AckOfUnsent { ack, sent }.into());
        }
        self.acknowledge(next_expected)
            .map_err(|sent| ProtocolError::AckOfUnsent {
                ack: next_expected,
                sent,
            })?;
        let mut written = self.retained.iter().take(exposed);
        if let Some(frame) = written.find(|frame| !frame.has_intact_body()) {
            return Err(ConnectionError::Damaged { packet: frame.id });
        }
        self.relay = std::mem::take(&mut self.retained);
        self.retained_bytes = 0;
        for frame in &mut self.relay {
            frame.is_exposed = false;
        }
        Ok(())
    }

    /// The session is over, or in plain mode the connection. Gives up what was written, and gives
    /// the ids of it; what was not is left for the next session, save answers. There must be no
    /// connection.
    pub(in crate::network::peer) fn end_session(&mut self) -> Range<PacketId> {
        self.retained_bytes = 0;
        for mut frame in std::mem::take(&mut self.retained).into_iter().rev() {
            if frame.is_reliable() && !frame.is_exposed && frame.terms.account == Account::Own {
                frame.sequence = 0;
                self.queue.push_front(frame);
            } else {
                self.release(&frame);
            }
        }
        self.drop_answers();
        self.next_sequence = 1;
        self.acknowledged = 1;
        let maybe_delivered = self.settled..self.first_unwritten();
        self.settled = maybe_delivered.end;
        self.counters.maybe_delivered += maybe_delivered.end.get() - maybe_delivered.start.get();
        maybe_delivered
    }

    fn first_unwritten(&self) -> PacketId {
        let first = self.queue.iter().find(|frame| frame.is_reliable());
        first.map_or(self.next_id, |frame| frame.id)
    }

    /// Everything that was written arrived, as far as this end can know.
    pub(in crate::network::peer) fn settle_written(&mut self) {
        if self.retained.is_empty() && self.batch.is_empty() {
            self.settled = self.first_unwritten();
        }
    }

    /// Drops everything that was not written. There must be neither a connection nor a session.
    pub(in crate::network::peer) fn drop_all(&mut self) -> Range<PacketId> {
        while let Some(frame) = self.queue.pop_front() {
            self.drop_queued(&frame);
        }
        let range = self.settled..self.next_id;
        self.settled = self.next_id;
        range
    }

    /// Gives away everything that was not written. There must be neither a connection nor a session.
    pub(in crate::network::peer) fn cede(&mut self) -> VecDeque<Box<Frame>> {
        let mut frames = std::mem::take(&mut self.queue);
        frames.retain(|frame| {
            if frame.is_reliable() {
                self.release(frame);
            } else {
                self.drop_unreliable(frame);
            }
            frame.is_reliable()
        });
        self.settled = self.next_id;
        frames
    }

    /// Takes in what another outbox gave away, behind everything else, and gives the ids that the
    /// packets had and have. Limits do not apply: they were accepted.
    pub(in crate::network::peer) fn take_over(
        &mut self,
        frames: VecDeque<Box<Frame>>,
    ) -> Vec<(PacketId, PacketId)> {
        let moved = frames.into_iter().map(|mut frame| {
            let id = self.next_id;
            self.next_id = id.next();
            let before = std::mem::replace(&mut frame.id, id);
            self.answers.handle_pushed(&frame);
            self.reliable_held += 1;
            self.reliable_bytes += frame.size();
            self.queue.push_back(frame);
            (before, id)
        });
        moved.collect()
    }

    fn drop_queued(&mut self, frame: &Frame) {
        match frame.kind() {
            FrameKind::Reliable | FrameKind::Skip => {
                self.release(frame);
                self.counters.not_delivered += 1;
            }
            FrameKind::Unreliable => self.drop_unreliable(frame),
            FrameKind::Control => {}
        }
    }

    /// Notes that frames that were accepted since the last call wait since `now`.
    pub(in crate::network::peer) fn stamp(&mut self, now: Duration) {
        for frame in self.queue.iter_mut().rev() {
            if frame.waits_since.is_some() {
                return;
            }
            frame.waits_since = Some(now);
        }
    }

    /// Since when the oldest packet waits that has no sequence number.
    pub(in crate::network::peer) fn oldest_wait(&self) -> Option<Duration> {
        self.queue.front()?.waits_since
    }

    /// Drops the packets that wait since `limit` or earlier, and gives their ids. There must be
    /// neither a connection nor anything written that is not settled.
    pub(in crate::network::peer) fn drop_overdue(&mut self, limit: Duration) -> Range<PacketId> {
        let mut end = self.settled;
        while self.oldest_wait().is_some_and(|since| since <= limit) {
            let Some(frame) = self.queue.pop_front() else {
                break;
            };
            if frame.is_reliable() {
                end = frame.id.next();
            }
            self.drop_queued(&frame);
        }
        let range = self.settled..end;
        self.settled = range.end;
        range
    }
}
