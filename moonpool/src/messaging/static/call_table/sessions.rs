//! What becomes of calls when the sessions, peers and packets that carry them do not last. Rare.

use std::task::Waker;

use moonpool_foundation::UID;
use moonpool_foundation::network::peer::{PacketId, PeerId, SessionEnded};

use super::{CallTable, Place, Sent, call_waits};
use crate::messaging::r#static::reply_error::ReplyError;

impl CallTable {
    /// Ends one call of a session that ended, and gives its waker. Call it again until it gives
    /// `None`: then the peer's remaining calls are those whose packets are still queued.
    pub(crate) fn end_next_of_session(
        &mut self,
        peer: PeerId,
        ended: &SessionEnded,
    ) -> Option<Option<Waker>> {
        let key = self.first_of(peer)?;
        let Place::Listed { packet, .. } = self.calls.get(key)?.place else {
            return None;
        };
        let error = if ended.not_delivered.contains(&packet) {
            ReplyError::ConnectionFailed
        } else if packet < ended.maybe_delivered.end {
            ReplyError::MaybeDelivered
        } else {
            return None;
        };
        Some(self.end(key, Err(error)))
    }

    /// Ends one call of a peer that is gone for good. Call it again until it gives `None`: then
    /// nothing is left of the peer.
    pub(crate) fn end_next_of_peer(&mut self, peer: PeerId) -> Option<Option<Waker>> {
        match self.first_of(peer) {
            Some(key) => Some(self.end(key, Err(ReplyError::MaybeDelivered))),
            None => {
                self.lists.remove(peer);
                None
            }
        }
    }

    /// The packets of a peer went to another one, as if they were sent there now: the calls that they
    /// carry wait for replies from there. `packets` are the ids that they had and have, in order.
    pub(crate) fn move_calls(
        &mut self,
        from: PeerId,
        to: PeerId,
        packets: &[(PacketId, PacketId)],
    ) {
        let mut moved = packets.iter().peekable();
        let mut at = self.first_of(from);
        while let Some(key) = at {
            let Some(Place::Listed { packet, next, .. }) = self.calls.get(key).map(|c| c.place)
            else {
                return;
            };
            at = next;
            while moved.next_if(|(before, _)| *before < packet).is_some() {}
            if let Some((_, now)) = moved.next_if(|(before, _)| *before == packet) {
                self.unlink(key);
                self.written(UID::new(self.nonce, key.to_bits()), to, *now);
            }
        }
    }

    /// The peer's address is our own: its packets were queued here, and its calls wait for replies
    /// from here. `packets` are the ids that they had and the numbers that they have, in order.
    pub(crate) fn keep_calls_of(&mut self, peer: PeerId, packets: &[(PacketId, u64)]) {
        let mut kept = packets.iter().peekable();
        while let Some(first) = self.first_of(peer) {
            let Some(Place::Listed { packet, .. }) = self.calls.get(first).map(|call| call.place)
            else {
                return;
            };
            self.unlink(first);
            while kept.next_if(|(before, _)| *before < packet).is_some() {}
            if let Some((_, number)) = kept.next_if(|(before, _)| *before == packet) {
                self.queued_locally(UID::new(self.nonce, first.to_bits()), *number);
            }
        }
    }

    /// Ends the call that one packet carries. Searches the peer's list, which is for rare events.
    pub(crate) fn end_packet(
        &mut self,
        peer: PeerId,
        packet: PacketId,
        error: ReplyError,
    ) -> Option<Waker> {
        let mut at = self.first_of(peer);
        while let Some(key) = at {
            let Place::Listed {
                packet: found,
                next,
                ..
            } = self.calls.get(key)?.place
            else {
                return None;
            };
            if found == packet {
                return self.end(key, Err(error));
            }
            at = next;
        }
        None
    }

    /// The calls that still wait, and where their requests went.
    pub(crate) fn all_waiting(&self) -> Vec<(UID, Option<Sent>)> {
        let waiting = self
            .calls
            .keys()
            .filter(|key| call_waits(&self.calls, *key));
        waiting
            .filter_map(|key| {
                let call = self.calls.get(key)?;
                Some((UID::new(self.nonce, key.to_bits()), self.sent(call.place)))
            })
            .collect()
    }
}
