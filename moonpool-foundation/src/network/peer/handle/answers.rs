//! Room for what the other end is owed.

use super::PeerHandle;
use crate::network::peer::terms::AnswerSlot;

impl PeerHandle {
    /// Reserves room for one answer in the current session; sending it, or the session's end, gives
    /// the room back. `None` while as many answers are owed, or as many of them or of their bytes
    /// held, as the configuration allows.
    #[must_use]
    pub fn reserve_answer(&self) -> Option<AnswerSlot> {
        self.state().reserve_answer()
    }

    /// Gives reserved room back, for an answer that will not come. Sending the answer does that by
    /// itself.
    pub fn release_answer(&self, slot: AnswerSlot) {
        self.state().release_answer(slot);
        self.signal();
    }

    /// Asks whether the answer that a slot was reserved for is to be made now, which may take
    /// `expected` bytes. `None` while the session's own limit, or its share of what the transport's
    /// sessions may hold together, is used up by what is held and what else is expected: the slot
    /// stays reserved, for an answer that says so. The slot that is given has to be used instead, and
    /// counts for those bytes until it is used or released, or the session ends.
    ///
    /// An answer is taken whatever was expected of it.
    #[must_use]
    pub fn begin_answer(&self, slot: AnswerSlot, expected: usize) -> Option<AnswerSlot> {
        self.state().begin_answer(slot, expected)
    }
}
