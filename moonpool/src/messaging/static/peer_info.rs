//! [`PeerInfo`]: what a transport knows of a caller.

use std::fmt;
use std::rc::Rc;

use moonpool_foundation::network::peer::PeerHandle;
use moonpool_foundation::{NetworkAddress, UID};

/// Who calls a private endpoint, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo<'a> {
    /// The other end of the connection that the session began with, as the operating system names
    /// it: `ip:port`. Of a caller behind NAT it is that of the NAT.
    pub address: &'a str,
    /// Where the caller says that it listens, if it does. A claim, which is not checked.
    pub canonical_address: Option<NetworkAddress>,
    /// Which start of the caller's process it is. A claim too.
    pub incarnation: Option<UID>,
}

impl<'a> PeerInfo<'a> {
    pub(crate) fn of(peer: &'a PeerHandle) -> Self {
        Self {
            address: peer.peer_name(),
            canonical_address: peer.remote_address(),
            incarnation: peer.remote_incarnation(),
        }
    }
}

/// Decides who may call private endpoints.
#[derive(Clone, Default)]
pub(crate) struct Verify(Option<Rc<Predicate>>);

type Predicate = dyn Fn(&PeerInfo<'_>) -> bool;

impl Verify {
    pub(crate) fn by(accepts: impl Fn(&PeerInfo<'_>) -> bool + 'static) -> Self {
        Self(Some(Rc::new(accepts)))
    }

    /// Without a predicate nobody is accepted.
    pub(crate) fn accepts(&self, peer: &PeerInfo<'_>) -> bool {
        self.0.as_ref().is_some_and(|verify| verify(peer))
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some(..)" } else { "None" })
    }
}
