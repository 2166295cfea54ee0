//! The peers of one transport: by id, and by the address that they serve.

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
    /// What it serves: where it dials, or what the Hello said that it was accepted with.
    pub(crate) destination: Option<Destination>,
    _owner: Box<dyn Any>,
}

/// Who serves a destination.
struct Serving {
    handle: PeerHandle,
    /// Local code asked for the address.
    is_opened: bool,
}

/// See the [module's documentation](self).
pub(crate) struct PeerTable {
    /// Ordered, because the order in which peers close is visible.
    peers: BTreeMap<PeerId, PeerEntry>,
    by_destination: HashMap<Destination, Serving>,
    /// Who serves the destination that local code asked for last: most calls ask for the same one as
    /// the call before. Forgotten whenever somebody comes or goes.
    latest: Option<(Destination, PeerHandle)>,
    next_id: u64,
    /// A destination was asked for again.
    was_reused: bool,
}

impl PeerTable {
    pub(crate) fn new() -> Self {
        Self {
            peers: BTreeMap::new(),
            by_destination: HashMap::default(),
            latest: None,
            next_id: 1,
            was_reused: false,
        }
    }

    /// An id that no other peer of this transport has or had.
    pub(crate) fn next_id(&mut self) -> PeerId {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        id
    }

    /// The peer that serves the address, which local code asks for, and whether it does so for the
    /// first time.
    #[inline]
    pub(crate) fn open(&mut self, address: &NetworkAddress) -> Option<(PeerHandle, bool)> {
        let destination = (address.ip, address.port);
        if let Some((_, handle)) = self.latest.as_ref().filter(|known| known.0 == destination) {
            self.was_reused = true;
            return Some((handle.clone(), false));
        }
        self.look_up(destination)
    }

    fn look_up(&mut self, destination: Destination) -> Option<(PeerHandle, bool)> {
        let serving = self.by_destination.get_mut(&destination)?;
        let is_first = !std::mem::replace(&mut serving.is_opened, true);
        self.was_reused |= !is_first;
        self.latest = Some((destination, serving.handle.untracked()));
        Some((serving.handle.clone(), is_first))
    }

    /// Takes a peer in, with the address that it serves if it does.
    pub(crate) fn insert(
        &mut self,
        handle: &PeerHandle,
        serves: Option<&NetworkAddress>,
        is_opened: bool,
        owner: Box<dyn Any>,
    ) {
        self.latest = None;
        let destination = serves.map(|address| (address.ip, address.port));
        if let Some(destination) = destination {
            let handle = handle.untracked();
            let serving = Serving { handle, is_opened };
            self.by_destination.insert(destination, serving);
        }
        let entry = PeerEntry {
            handle: handle.untracked(),
            destination,
            _owner: owner,
        };
        let replaced = self.peers.insert(handle.id(), entry);
        debug_assert!(replaced.is_none(), "peer ids are never used twice");
    }

    /// What one peer served is served by another one. Gives the address if local code has asked for
    /// it, so that the new peer may dial it.
    pub(crate) fn pass_over(&mut self, from: PeerId, to: &PeerHandle) -> Option<NetworkAddress> {
        self.latest = None;
        let destination = self.peers.get_mut(&from)?.destination.take()?;
        let serving = self.by_destination.get_mut(&destination)?;
        if serving.handle.id() != from {
            return None;
        }
        serving.handle = to.untracked();
        let is_opened = serving.is_opened;
        self.peers.get_mut(&to.id())?.destination = Some(destination);
        is_opened.then(|| NetworkAddress::new(destination.0, destination.1))
    }

    /// Takes a peer out; dropping what is given ends it.
    pub(crate) fn remove(&mut self, id: PeerId) -> Option<PeerEntry> {
        self.latest = None;
        let entry = self.peers.remove(&id)?;
        if let Some(destination) = &entry.destination
            && self
                .by_destination
                .get(destination)
                .is_some_and(|serving| serving.handle.id() == id)
        {
            self.by_destination.remove(destination);
        }
        Some(entry)
    }

    /// Takes all peers out; dropping what is given ends them.
    pub(crate) fn drain(&mut self) -> BTreeMap<PeerId, PeerEntry> {
        self.latest = None;
        self.by_destination.clear();
        std::mem::take(&mut self.peers)
    }

    /// The peer with this id.
    pub(crate) fn handle(&self, id: PeerId) -> Option<&PeerHandle> {
        self.peers.get(&id).map(|entry| &entry.handle)
    }

    /// The peer that serves the address.
    pub(crate) fn serving(&self, address: &NetworkAddress) -> Option<&PeerHandle> {
        let serving = self.by_destination.get(&(address.ip, address.port))?;
        Some(&serving.handle)
    }

    /// Where the peer with this id dials.
    pub(crate) fn destination(&self, id: PeerId) -> Option<Destination> {
        self.peers.get(&id)?.destination
    }

    /// All peers, in order of their ids.
    pub(crate) fn handles(&self) -> impl Iterator<Item = &PeerHandle> {
        self.peers.values().map(|entry| &entry.handle)
    }

    /// Number of connections that were accepted and carry a session.
    pub(crate) fn accepted_connections(&self) -> usize {
        self.handles().filter(|handle| handle.is_accepted()).count()
    }

    /// Whether local code has asked for an address that a peer served already.
    pub(crate) fn was_reused(&self) -> bool {
        self.was_reused
    }

    /// Number of peers, accepted ones included.
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Number of peers that dial.
    pub(crate) fn dialling(&self) -> usize {
        self.handles().filter(|handle| handle.dials()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::r#static::FlowTransportBuilder;
    use crate::messaging::r#static::test_support::block_on;
    use moonpool_foundation::TokioProviders;

    #[test]
    fn who_served_an_address_last_is_forgotten_when_another_peer_does() {
        let address: NetworkAddress = "10.0.0.9:4500".parse().unwrap();
        block_on(async {
            let transport = FlowTransportBuilder::from_providers(&TokioProviders::new()).build();
            let peer = |port| {
                let elsewhere = NetworkAddress::new(address.ip, port);
                transport.get_or_open_peer(&elsewhere).unwrap()
            };
            let (first, second, third) = (peer(1), peer(2), peer(3));
            let mut table = PeerTable::new();
            let open = |table: &mut PeerTable| table.open(&address).map(|found| found.0.id());
            table.insert(&first, Some(&address), true, Box::new(()));
            table.insert(&second, None, true, Box::new(()));
            assert_eq!(open(&mut table), Some(first.id()));
            table.pass_over(first.id(), &second);
            assert_eq!(open(&mut table), Some(second.id()));
            table.insert(&third, Some(&address), true, Box::new(()));
            assert_eq!(open(&mut table), Some(third.id()));
            drop(table.remove(third.id()));
            assert_eq!(open(&mut table), None);
            drop(table.remove(second.id()));
            table.insert(&second, Some(&address), true, Box::new(()));
            assert_eq!(open(&mut table), Some(second.id()));
            drop(table.drain());
            assert_eq!(open(&mut table), None);
        });
    }
}
