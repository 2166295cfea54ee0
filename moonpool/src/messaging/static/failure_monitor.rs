//! What a transport knows of the addresses it talks to: which are failed, which endpoints are not
//! there, and who waits to be told. Pure: nothing here wakes, dials or awaits; wakers are handed out
//! for the caller to use once no borrow is held.
//!
//! The times are the peers': a peer tells when its connection works, is lost, or has been missing
//! for so long that the address counts as failed. So a state changes exactly when its event arrives,
//! and asking for it needs no clock.
//!
//! The design descends from FoundationDB's `fdbrpc/FailureMonitor.actor.cpp` and
//! `fdbrpc/FailureMonitor.h` (`IFailureMonitor`, `SimpleFailureMonitor`: `setStatus`,
//! `endpointNotFound`, `notifyDisconnect`, `onDisconnectOrFailure`). Other than there, an address
//! that nobody has tried is available, not failed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::task::Waker;

use moonpool_foundation::collections::HashMap;
use moonpool_foundation::network::peer::{ConnectionChange, PeerId};
use moonpool_foundation::{UID, WellKnownId};

use super::peer_table::Destination;
use super::slot_table::{SlotKey, SlotTable};

/// Endpoints that are remembered as missing. When there are more, the oldest is forgotten.
const MAX_MISSING: usize = 4_096;

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// Not known to have failed: there is a working connection, or nobody has missed one for long.
    Available,
    /// A connection was wanted for 3 s, and there was none that worked; or the peer gave up. Until
    /// one works, or the peer is forgotten because nobody needs it.
    Failed,
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Not known to have failed.
    Available,
    /// Its address has failed.
    AddressFailed,
    /// The process at its address said that it has no receiver for the token, and has neither been
    /// restarted nor answered a request to the token since, as far as is known. Never said of well-known tokens, whose receivers may be
    /// registered at any time.
    NotFound,
}

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// The address fails.
    Failed,
    /// A connection works.
    Working,
    /// The connection that works is lost, or the address fails.
    Disconnect,
}

/// The connection to an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Link {
    /// There is none, for whatever reason, and not for too long.
    #[default]
    None,
    Working,
    Failed,
}

#[derive(Debug, Default)]
struct Record {
    /// Whose news count.
    peer: Option<PeerId>,
    link: Link,
    watches: Vec<SlotKey>,
}

#[derive(Debug)]
enum Progress {
    /// The waker is the one of the last poll.
    Waiting(Option<Waker>),
    Resolved,
    /// Nobody will tell any more: the peer has finished, or the transport is shut down.
    Ended,
}

#[derive(Debug)]
struct Watch {
    destination: Destination,
    awaited: Awaited,
    progress: Progress,
}

/// What a poll of a watch gives. An old waker is handed out to be dropped where no borrow is held.
#[derive(Debug)]
pub(crate) enum Polled {
    Resolved,
    /// Waiting, with the poller's waker noted.
    Waiting {
        replaced: Option<Waker>,
    },
    /// Nobody will tell any more.
    Ended,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct FailureTable {
    /// Only of addresses with a peer or a watch.
    records: HashMap<Destination, Record>,
    watches: SlotTable<Watch>,
    waiting: usize,
    /// Endpoints that are not there, and the incarnation that said so.
    missing: BTreeMap<(Destination, UID), UID>,
    /// In which order they were said to be; may name some that are not missing any more.
    missing_order: VecDeque<(Destination, UID)>,
    is_closed: bool,
}

impl FailureTable {
    pub(crate) fn new() -> Self {
        Self {
            records: HashMap::default(),
            watches: SlotTable::new(),
            waiting: 0,
            missing: BTreeMap::new(),
            missing_order: VecDeque::new(),
            is_closed: false,
        }
    }

    /// What is known of an address.
    pub(crate) fn state(&self, destination: Destination) -> AddressState {
        match self.link(destination) {
            Link::Failed => AddressState::Failed,
            Link::None | Link::Working => AddressState::Available,
        }
    }

    /// What is known of an endpoint.
    pub(crate) fn endpoint_state(&self, destination: Destination, token: UID) -> EndpointState {
        if self.missing.contains_key(&(destination, token)) {
            return EndpointState::NotFound;
        }
        match self.state(destination) {
            AddressState::Available => EndpointState::Available,
            AddressState::Failed => EndpointState::AddressFailed,
        }
    }

    fn link(&self, destination: Destination) -> Link {
        let record = self.records.get(&destination);
        record.map_or(Link::None, |record| record.link)
    }

    /// Number of watches that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Number of endpoints that are remembered as missing.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Number of addresses of which something is remembered.
    #[cfg(test)]
    fn addresses(&self) -> usize {
        self.records.len()
    }

    /// Begins a watch: there has to be a peer that finds out, or it waits in vain. `None` when 2^32 of
    /// them wait already.
    pub(crate) fn watch(&mut self, destination: Destination, awaited: Awaited) -> Option<SlotKey> {
        let is_resolved = match (awaited, self.link(destination)) {
            (Awaited::Failed | Awaited::Disconnect, Link::Failed)
            | (Awaited::Working, Link::Working) => true,
            (_, Link::None | Link::Working | Link::Failed) => false,
        };
        let progress = if is_resolved {
            Progress::Resolved
        } else {
            Progress::Waiting(None)
        };
        let watch = Watch {
            destination,
            awaited,
            progress,
        };
        let key = self.watches.insert(watch).ok()?;
        if !is_resolved {
            self.waiting += 1;
            let record = self.records.entry(destination).or_default();
            record.watches.push(key);
        }
        Some(key)
    }

    /// Asks what a watch came to.
    pub(crate) fn poll(&mut self, key: SlotKey, waker: &Waker) -> Polled {
        let Some(watch) = self.watches.get_mut(key) else {
            return Polled::Ended;
        };
        match &mut watch.progress {
            Progress::Resolved => Polled::Resolved,
            Progress::Ended => Polled::Ended,
            Progress::Waiting(Some(noted)) if noted.will_wake(waker) => {
                Polled::Waiting { replaced: None }
            }
            Progress::Waiting(noted) => Polled::Waiting {
                replaced: noted.replace(waker.clone()),
            },
        }
    }

    /// Ends a watch. What it gives is to be dropped where no borrow is held.
    pub(crate) fn forget(&mut self, key: SlotKey) -> Option<Waker> {
        let watch = self.watches.remove(key)?;
        if let Some(record) = self.records.get_mut(&watch.destination) {
            record.watches.retain(|known| *known != key);
            self.tidy(watch.destination);
        }
        match watch.progress {
            Progress::Waiting(waker) => {
                self.waiting -= 1;
                waker
            }
            Progress::Ended | Progress::Resolved => None,
        }
    }

    /// A peer for the address was made: from now on its news count.
    pub(crate) fn handle_peer(&mut self, destination: Destination, peer: PeerId) {
        if self.is_closed {
            return;
        }
        let record = self.records.entry(destination).or_default();
        record.peer = Some(peer);
        record.link = Link::None;
    }

    /// A peer's connection changed. `incarnation` is the process at the other end. Wake what this
    /// gives.
    pub(crate) fn handle_change(
        &mut self,
        destination: Destination,
        peer: PeerId,
        change: ConnectionChange,
        incarnation: Option<UID>,
    ) -> Vec<Waker> {
        let is_news = |record: &&mut Record| record.peer == Some(peer);
        let Some(record) = self.records.get_mut(&destination).filter(is_news) else {
            return Vec::new();
        };
        let (link, resolved): (_, &[Awaited]) = match change {
            ConnectionChange::Opened => (Link::Working, &[Awaited::Working]),
            ConnectionChange::Lost => (Link::None, &[Awaited::Disconnect]),
            ConnectionChange::Failed => (Link::Failed, &[Awaited::Failed, Awaited::Disconnect]),
        };
        record.link = link;
        if change == ConnectionChange::Opened {
            self.forget_missing(destination, incarnation);
        }
        self.resolve(destination, resolved)
    }

    /// A peer is gone for good. Wake what this gives.
    pub(crate) fn handle_finished(&mut self, destination: Destination, peer: PeerId) -> Vec<Waker> {
        let Some(record) = self.records.get_mut(&destination) else {
            return Vec::new();
        };
        if record.peer != Some(peer) {
            return Vec::new();
        }
        let was_working = mem::take(&mut record.link) == Link::Working;
        record.peer = None;
        let mut woken = if was_working {
            self.resolve(destination, &[Awaited::Disconnect])
        } else {
            Vec::new()
        };
        let left = self.records.get_mut(&destination);
        for key in left
            .map(|record| mem::take(&mut record.watches))
            .into_iter()
            .flatten()
        {
            woken.extend(self.end(key));
        }
        self.tidy(destination);
        woken
    }

    /// The process at the address said that it has no receiver for the token.
    pub(crate) fn handle_not_found(
        &mut self,
        destination: Destination,
        token: UID,
        incarnation: UID,
    ) {
        if WellKnownId::of(token).is_some() || self.is_closed {
            return;
        }
        let endpoint = (destination, token);
        if self.missing.insert(endpoint, incarnation).is_none() {
            self.missing_order.push_back(endpoint);
        }
        if self.missing_order.len() > MAX_MISSING
            && let Some(oldest) = self.missing_order.pop_front()
        {
            self.missing.remove(&oldest);
        }
    }

    /// The process at the address has a receiver for the token after all: it was registered later.
    pub(crate) fn handle_found(&mut self, destination: Destination, token: UID) {
        let endpoint = (destination, token);
        if self.missing.remove(&endpoint).is_some() {
            self.missing_order.retain(|missing| *missing != endpoint);
        }
    }

    /// Forgets everything, and ends all watches. Wake what this gives.
    pub(crate) fn close(&mut self) -> Vec<Waker> {
        self.is_closed = true;
        self.missing.clear();
        self.missing_order.clear();
        self.records.clear();
        let keys: Vec<SlotKey> = self.watches.keys().collect();
        keys.into_iter().filter_map(|key| self.end(key)).collect()
    }

    /// Ends a watch that waits.
    fn end(&mut self, key: SlotKey) -> Option<Waker> {
        let watch = self.watches.get_mut(key)?;
        let Progress::Waiting(waker) = &mut watch.progress else {
            return None;
        };
        let waker = waker.take();
        watch.progress = Progress::Ended;
        self.waiting -= 1;
        waker
    }

    /// Ends the watches of an address that wait for one of these.
    fn resolve(&mut self, destination: Destination, resolved: &[Awaited]) -> Vec<Waker> {
        let mut woken = Vec::new();
        let Some(record) = self.records.get_mut(&destination) else {
            return woken;
        };
        let (watches, waiting) = (&mut self.watches, &mut self.waiting);
        record.watches.retain(|key| {
            let Some(watch) = watches.get_mut(*key) else {
                return false;
            };
            if !resolved.contains(&watch.awaited) {
                return true;
            }
            if let Progress::Waiting(waker) = mem::replace(&mut watch.progress, Progress::Resolved)
            {
                *waiting -= 1;
                woken.extend(waker);
            }
            false
        });
        woken
    }

    /// Another process may have what its predecessor had not.
    fn forget_missing(&mut self, destination: Destination, incarnation: Option<UID>) {
        let all = (destination, UID::NIL)..=(destination, UID::new(u64::MAX, u64::MAX));
        let stale: BTreeSet<(Destination, UID)> = self
            .missing
            .range(all)
            .filter(|(_, said_by)| Some(**said_by) != incarnation)
            .map(|(endpoint, _)| *endpoint)
            .collect();
        if stale.is_empty() {
            return;
        }
        for endpoint in &stale {
            self.missing.remove(endpoint);
        }
        self.missing_order
            .retain(|endpoint| !stale.contains(endpoint));
    }

    /// Forgets an address that has neither a peer nor a watch.
    fn tidy(&mut self, destination: Destination) {
        let is_empty = |record: &Record| record.peer.is_none() && record.watches.is_empty();
        if self.records.get(&destination).is_some_and(is_empty) {
            self.records.remove(&destination);
        }
    }
}

#[cfg(test)]
mod tests;
