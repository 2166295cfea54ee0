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

    /// Whether the session may hold the bytes of one more answer: false while its own limit, or its
    /// share of what the transport's sessions may hold together, is used up. An answer that is
    /// promised already is taken all the same; this is for who has not begun to make one.
    #[must_use]
    pub fn has_answer_room(&self) -> bool {
        self.state().has_answer_room()
    }
}
