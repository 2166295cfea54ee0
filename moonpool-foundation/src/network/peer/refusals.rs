//! Refusals that share packets.

use crate::messaging::UID;

use super::handle::PeerHandle;

impl PeerHandle {
    /// Adds to the payload of the refusal that was sent last, if that went to the same token, is not
    /// on its way yet, and stays within 16 KiB: so that a burst of refusals takes few packets, of
    /// which [`PeerConfig::refusals`](super::PeerConfig::refusals) may be held. False: nothing was
    /// added, and another one has to be sent.
    pub fn extend_refusal(&self, token: UID, bytes: &[u8]) -> bool {
        self.state().extend_refusal(token, bytes)
    }
}
