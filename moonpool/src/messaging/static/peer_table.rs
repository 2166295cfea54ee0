//! The peers of one transport: by id, and the dialled ones by address.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::IpAddr;

use moonpool_foundation::NetworkAddress;
use moonpool_foundation::collections::HashMap;
use moonpool_foundation::network::peer::{PeerHandle, PeerId};

/// What makes two addresses the same destination. Flags say how to talk to it, not where it is.
pub(crate) type Destination = (IpAddr, u16);

/// A peer, owned: dropping the entry ends the peer's driver. The owner is not named because its
/// type carries the providers.
pub(crate) struct PeerEntry {
    pub(crate) handle: PeerHandle,
    /// Where it dials; `None` for an accepted connection.
    pub(crate) destination: Option<Destination>,
    _owner: Box<dyn Any>,
}

/// See the [module's documentation](self).
pub(crate) struct PeerTable {
    /// Ordered, because the order in which peers close is visible.
    peers: BTreeMap<PeerId, PeerEntry>,
    dialled: HashMap<Destination, PeerHandle>,
    next_id: u64,
}

impl PeerTable {
    pub(crate) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            dialled: HashMap::default(),
            next_id: 1,
        }
    }

    /// An id that no other peer of this transport has or had.
    pub(crate) fn next_id(&mut self) -> PeerId {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        id
    }

    /// The peer that dials the address.
    #[inline]
    pub(crate) fn dialled(&self, address: &NetworkAddress) -> Option<&PeerHandle> {
        self.dialled.get(&(address.ip, address.port))
    }

    /// Takes a peer in, with the address it dials if it does.
    pub(crate) fn insert(
        &mut self,
        handle: &PeerHandle,
        dials: Option<&NetworkAddress>,
        owner: Box<dyn Any>,
    ) {
        let destination = dials.map(|address| (address.ip, address.port));
        if let Some(destination) = destination {
            self.dialled.insert(destination, handle.untracked());
        }
        let entry = PeerEntry {
            handle: handle.untracked(),
            destination,
            _owner: owner,
        };
        let replaced = self.peers.insert(handle.id(), entry);
        debug_assert!(replaced.is_none(), "peer ids are never used twice");
    }

    /// Takes a peer out; dropping what is given ends it.
    pub(crate) fn remove(&mut self, id: PeerId) -> Option<PeerEntry> {
        let entry = self.peers.remove(&id)?;
        if let Some(destination) = &entry.destination
            && self
                .dialled
                .get(destination)
                .is_some_and(|handle| handle.id() == id)
        {
            self.dialled.remove(destination);
        }
        Some(entry)
    }

    /// Takes all peers out; dropping what is given ends them.
    pub(crate) fn drain(&mut self) -> BTreeMap<PeerId, PeerEntry> {
        self.dialled.clear();
        std::mem::take(&mut self.peers)
    }

    /// The peer with this id.
    pub(crate) fn handle(&self, id: PeerId) -> Option<&PeerHandle> {
        self.peers.get(&id).map(|entry| &entry.handle)
    }

    /// Where the peer with this id dials.
    pub(crate) fn destination(&self, id: PeerId) -> Option<Destination> {
        self.peers.get(&id)?.destination
    }

    /// All peers, in order of their ids.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &PeerHandle> {
        self.peers.values().map(|entry| &entry.handle)
    }

    /// Number of accepted peers that have a connection.
    pub(crate) fn accepted_connections(&self) -> usize {
        let is_connected =
            |entry: &&PeerEntry| entry.destination.is_none() && entry.handle.is_connected();
        self.peers.values().filter(is_connected).count()
    }

    /// Number of peers, accepted ones included.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Number of peers that dial.
    pub(crate) fn dialled_len(&self) -> usize {
        self.dialled.len()
    }
}
