//! Who waits until there is room for another call.

use moonpool_foundation::turns::Turns;

use super::Core;

/// Those who wait, by what they wait for. What a peer has room for is waited for at the peer.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Fewer calls that wait for their replies.
    pub(crate) calls: Turns,
    /// Fewer messages of this process to itself.
    pub(crate) local: Turns,
    /// The end of it all, which ends the other waits.
    pub(crate) closing: Turns,
}

impl Core {
    /// Whether one more call may be made.
    pub(crate) fn has_call_room(&self) -> bool {
        self.calls.borrow().waiting() < self.limits.calls
    }

    /// Whether one more message to this process itself is taken.
    pub(crate) fn has_local_room(&self) -> bool {
        let local = self.local.borrow();
        local.len() < self.limits.local_packets && local.bytes() < self.limits.local_bytes
    }

    /// A call ended.
    pub(crate) fn note_call_room(&self) {
        self.room.calls.wake_first();
    }

    /// A message to this process itself was taken out.
    pub(crate) fn note_local_room(&self) {
        if !self.room.local.is_empty() && self.has_local_room() {
            self.room.local.wake_first();
        }
    }
}
