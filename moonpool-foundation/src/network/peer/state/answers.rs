//! Room for what the other end is owed.

use std::rc::Rc;

use crate::messaging::UID;

use super::PeerState;
use crate::network::peer::budget::SharedBudget;
use crate::network::peer::terms::AnswerSlot;

/// Bytes of a refusal's payload at most: refusals of one burst share packets up to this size.
const MAX_REFUSAL_BYTES: usize = 16 * 1024;

impl PeerState {
    /// Whether the slot is of the current session.
    pub(in crate::network::peer) fn is_current(&self, slot: AnswerSlot) -> bool {
        self.outbox.is_current(slot)
    }

    /// Adds to the payload of the refusal that was taken last, if that is to the same token, is not laid
    /// out yet, and does not become too large.
    pub(in crate::network::peer) fn extend_refusal(&mut self, token: UID, bytes: &[u8]) -> bool {
        if self.has_said_goodbye() {
            return false;
        }
        let limit = MAX_REFUSAL_BYTES.min(self.max_payload() as usize);
        let is_extended = self.outbox.extend_refusal(token, bytes, limit);
        if let (true, Some(closing)) = (is_extended, &mut self.closing) {
            // What the other end says now does not cover this one.
            closing.asked = false;
        }
        is_extended
    }

    /// Gives a promised answer's room back: it will not come.
    pub(in crate::network::peer) fn release_answer(&mut self, slot: AnswerSlot) {
        self.outbox.release_answer(slot);
    }

    /// What is held for the other end counts against this, too.
    pub(in crate::network::peer) fn share_answers(&mut self, budget: Rc<SharedBudget>) {
        self.outbox.share_answers(budget);
    }

    /// A promised answer is to be made, and is expected to be so large. `None`: there is no room.
    pub(in crate::network::peer) fn begin_answer(
        &mut self,
        slot: AnswerSlot,
        expected: usize,
    ) -> Option<AnswerSlot> {
        self.outbox.begin_answer(slot, expected)
    }

    /// Promises to take one answer.
    pub(in crate::network::peer) fn reserve_answer(&mut self) -> Option<AnswerSlot> {
        self.outbox.reserve_answer()
    }
}
