//! Room for what the other end is owed.

use super::PeerHandle;

impl PeerHandle {
    /// Whether the session may hold the bytes of one more answer: false while its own limit, or its
    /// share of what the transport's sessions may hold together, is used up. An answer that is
    /// promised already is taken all the same; this is for who has not begun to make one.
    #[must_use]
    pub fn has_answer_room(&self) -> bool {
        self.state().has_answer_room()
    }
}
