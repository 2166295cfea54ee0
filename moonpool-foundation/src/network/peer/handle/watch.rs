//! [`PeerWatch`]: somebody wants to know whether the other end is there.

use std::fmt;

use super::PeerHandle;

/// Keeps a peer [looking](PeerHandle::watch) for its other end. Dropping it ends that.
#[must_use = "dropping it ends the watch"]
pub struct PeerWatch(pub(super) PeerHandle);

impl PeerWatch {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> &PeerHandle {
        &self.0
    }
}

impl Drop for PeerWatch {
    fn drop(&mut self) {
        let watches = &self.0.0.watches;
        watches.set(watches.get() - 1);
        self.0.signal();
    }
}

impl fmt::Debug for PeerWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerWatch").field(&self.0).finish()
    }
}
