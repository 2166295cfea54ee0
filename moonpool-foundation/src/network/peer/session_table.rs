//! Which accepted session a Hello is for. Pure: a Hello in, a verdict out.
//!
//! The table knows ids and generations; what was received and what is owed is known by the peer
//! that each session has. It does not know the time either: a peer ends by itself when its session
//! was without a connection for too long, and is then to be removed.

use std::collections::BTreeMap;

use crate::collections::HashMap;
use crate::messaging::UID;

use super::packet::PeerId;
use super::session::Hello;

/// What is to be done with a connection that said Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It carries the session of this peer on. The peer's older connection is fenced.
    Resume(PeerId),
    /// It begins a session, for the new peer. The evicted one, if any, is to end.
    Fresh { evicted: Option<PeerId> },
    /// A Hello of this generation was accepted before: this one was late.
    Superseded { generation: u64 },
    /// Every session that may be kept has a connection.
    Full,
}

#[derive(Debug)]
struct Entry {
    peer: PeerId,
    /// What the dialler called it in the Hello that began it.
    proposed: UID,
    /// Of the dialler. A restarted one cannot carry on what its predecessor began.
    incarnation: UID,
    /// The highest that was accepted.
    generation: u64,
    /// Its place among those without a connection.
    detached: Option<u64>,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct SessionTable {
    incarnation: UID,
    limit: usize,
    sessions: HashMap<UID, Entry>,
    /// By the name that the dialler proposed, which it repeats until it is answered.
    /// Ordered, because these keys are chosen by the other end.
    by_proposal: BTreeMap<UID, UID>,
    by_peer: HashMap<PeerId, UID>,
    /// Sessions without a connection, the one that lost its first in front.
    detached: BTreeMap<u64, UID>,
    next_place: u64,
}

impl SessionTable {
    /// `incarnation` is this end's own.
    pub(super) fn new(incarnation: UID, limit: usize) -> Self {
        Self {
            incarnation,
            limit,
            sessions: HashMap::default(),
            by_proposal: BTreeMap::new(),
            by_peer: HashMap::default(),
            detached: BTreeMap::new(),
            next_place: 0,
        }
    }

    /// Decides about a Hello. `new_peer` and `new_session`, a random id, are for a session that
    /// begins with it.
    ///
    /// A session is never known by the name that was proposed for it: a Hello that comes late, after
    /// the session was forgotten, would bring an empty one back under that name, and the dialler
    /// would resume it and have everything executed again.
    pub(super) fn decide(&mut self, hello: &Hello, new_peer: PeerId, new_session: UID) -> Decision {
        let named = self.by_proposal.get(&hello.session);
        let session = named.copied().unwrap_or(hello.session);
        let expects_us = hello
            .expected_peer
            .is_none_or(|expected| expected == self.incarnation);
        if expects_us
            && let Some(entry) = self.sessions.get_mut(&session)
            && entry.incarnation == hello.incarnation
        {
            if hello.generation <= entry.generation {
                let generation = entry.generation;
                return Decision::Superseded { generation };
            }
            entry.generation = hello.generation;
            if let Some(place) = entry.detached.take() {
                self.detached.remove(&place);
            }
            return Decision::Resume(entry.peer);
        }
        let mut evicted = None;
        if self.sessions.len() >= self.limit {
            let Some((_, oldest)) = self.detached.pop_first() else {
                return Decision::Full;
            };
            evicted = self.sessions.get(&oldest).map(|entry| entry.peer);
            evicted.inspect(|peer| self.remove(*peer));
        }
        let entry = Entry {
            peer: new_peer,
            proposed: hello.session,
            incarnation: hello.incarnation,
            generation: hello.generation,
            detached: None,
        };
        self.sessions.insert(new_session, entry);
        self.by_proposal.insert(hello.session, new_session);
        self.by_peer.insert(new_peer, new_session);
        Decision::Fresh { evicted }
    }

    /// The peer's session lost its connection.
    pub(super) fn handle_detached(&mut self, peer: PeerId) {
        let Some(session) = self.by_peer.get(&peer) else {
            return;
        };
        let Some(entry) = self.sessions.get_mut(session) else {
            return;
        };
        if entry.detached.is_none() {
            entry.detached = Some(self.next_place);
            self.detached.insert(self.next_place, *session);
            self.next_place += 1;
        }
    }

    /// The peer's session is over.
    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(session) = self.by_peer.remove(&peer) else {
            return;
        };
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(place) = entry.detached {
            self.detached.remove(&place);
        }
        if self.by_proposal.get(&entry.proposed) == Some(&session) {
            self.by_proposal.remove(&entry.proposed);
        }
    }

    /// Number of sessions.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests;
