//! Which session a Hello is for, and who serves an address. Pure: a Hello in, a verdict out.
//!
//! The table knows ids, generations and addresses; what was received and what is owed is known by
//! the peer that each session has, which also says how far its own dial has come. It does not know
//! the time either: a peer ends by itself when its session was without a connection for too long,
//! and is then to be removed.
//!
//! Each address has one peer at most, be it that local code opened it or that a Hello named it. A
//! Hello that begins a session, from an address that has a peer already:
//!
//! | the peer | the Hello |
//! | --- | --- |
//! | has no connection, or a dial whose Hello is not sent | is taken by it; an older session of it ends |
//! | waits for the answer to its own Hello | is taken by it if the other end is [senior](Seniority), else refused |
//! | has a connection | begins a session without the address, and the peer has to show that its own is alive |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::collections::HashMap;
use crate::messaging::{NetworkAddress, UID};

use super::packet::PeerId;
use super::session::{Hello, SessionIdentity};

/// How many of those that claim an address are looked at: anybody may claim one.
pub(super) const MAX_HEIRS: usize = 8;

/// What is to be done with a connection that said Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It carries the session of this peer on. The peer's older connection is fenced.
    Resume(PeerId),
    /// It begins a session, for the peer that serves the dialler's address. What that had ends.
    Adopt {
        peer: PeerId,
        /// It is to end.
        evicted: Option<PeerId>,
    },
    /// It begins a session, for the new peer.
    Fresh {
        /// It is to end.
        evicted: Option<PeerId>,
        /// What the new peer serves.
        address: Option<NetworkAddress>,
        /// Serves the dialler's address on a connection of its own, and has to show that it lives.
        contested: Option<PeerId>,
    },
    /// A Hello of this generation was accepted before, or is on its way from here and goes first.
    Superseded { generation: u64 },
    /// It comes from this process itself.
    Ourselves,
    /// Every session that may be kept has a connection.
    Full,
}

/// How far a peer has come, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The session that was agreed on.
    pub(super) session: Option<UID>,
    /// The highest generation that it sent, accepted or was told.
    pub(super) generation: u64,
    pub(super) reach: Reach,
    /// Local code uses it: it is not evicted.
    pub(super) dials: bool,
}

/// Which connection a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// None, or one that is being made and has carried nothing yet.
    Unsent,
    /// One on which its Hello waits for an answer.
    Greeting,
    /// One that carries its session.
    Open,
    /// It ends, and begins nothing any more.
    Closing,
}

/// Whose dial goes first when both are unanswered. Both ends compare the same two values: the
/// canonical addresses and, where those do not decide, the incarnations.
type Seniority = (Option<NetworkAddress>, UID);

/// What makes two addresses the same destination. Flags say how to talk to it, not where it is.
type Destination = (IpAddr, u16);

fn destination(address: &NetworkAddress) -> Destination {
    (address.ip, address.port)
}

#[derive(Debug)]
struct Entry {
    peer: PeerId,
    /// What the dialler called it in the Hello that began it here.
    proposed: Option<UID>,
    /// Of the other end. A restarted one cannot carry on what its predecessor began.
    incarnation: UID,
    /// The highest that was accepted here, or answered there.
    generation: u64,
    /// Its place among those without a connection.
    detached: Option<u64>,
}

/// What a peer has in the table.
#[derive(Debug, Default)]
struct Record {
    session: Option<UID>,
    address: Option<Destination>,
    /// What it claims, while another peer serves it.
    claims: Option<Destination>,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(super) struct SessionTable {
    identity: SessionIdentity,
    limit: usize,
    sessions: HashMap<UID, Entry>,
    /// By the name that the dialler proposed, which it repeats until it is answered.
    /// Ordered, because these keys are chosen by the other end.
    by_proposal: BTreeMap<UID, UID>,
    by_peer: HashMap<PeerId, Record>,
    /// Who serves an address. Ordered for the same reason.
    by_address: BTreeMap<Destination, PeerId>,
    /// Who claims an address that another peer serves, and may get it if that one is gone.
    claims: BTreeSet<(Destination, PeerId)>,
    /// Sessions without a connection, the one that lost its first in front.
    detached: BTreeMap<u64, UID>,
    next_place: u64,
}

impl SessionTable {
    /// `identity` is this end's own.
    /// How many accepted sessions there may be from now on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn new(identity: SessionIdentity, limit: usize) -> Self {
        Self {
            identity,
            limit,
            sessions: HashMap::default(),
            by_proposal: BTreeMap::new(),
            by_peer: HashMap::default(),
            by_address: BTreeMap::new(),
            claims: BTreeSet::new(),
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
    pub(super) fn decide(
        &mut self,
        hello: &Hello,
        new_peer: PeerId,
        new_session: UID,
        standing: &dyn Fn(PeerId) -> Option<Standing>,
    ) -> Decision {
        if hello.incarnation == self.identity.incarnation {
            return Decision::Ourselves;
        }
        let named = self.by_proposal.get(&hello.session);
        let session = named.copied().unwrap_or(hello.session);
        let expects_us = hello
            .expected_peer
            .is_none_or(|expected| expected == self.identity.incarnation);
        let is_senior = self.is_senior(hello);
        if expects_us
            && let Some(entry) = self.sessions.get_mut(&session)
            && entry.incarnation == hello.incarnation
            && let Some(standing) = standing(entry.peer)
            && standing.session == Some(session)
        {
            if let Some(generation) = overtaken(entry, &standing, hello, is_senior) {
                return Decision::Superseded { generation };
            }
            entry.generation = hello.generation;
            if let Some(place) = entry.detached.take() {
                self.detached.remove(&place);
            }
            return Decision::Resume(entry.peer);
        }
        self.begin(hello, new_peer, new_session, standing)
    }

    /// Whether this end's dial goes before the one that the Hello came on.
    fn is_senior(&self, hello: &Hello) -> bool {
        let own: Seniority = (self.identity.address, self.identity.incarnation);
        own > (hello.address, hello.incarnation)
    }

    /// The Hello is for no session that is known here.
    fn begin(
        &mut self,
        hello: &Hello,
        new_peer: PeerId,
        new_session: UID,
        standing: &dyn Fn(PeerId) -> Option<Standing>,
    ) -> Decision {
        let address = hello.address.filter(NetworkAddress::is_canonical);
        let holder = address.and_then(|address| self.holder(&address));
        let reach = holder.and_then(|holder| Some(standing(holder)?.reach));
        let contested = match (holder, reach) {
            (Some(_), Some(Reach::Greeting)) if self.is_senior(hello) => {
                let generation = hello.generation;
                return Decision::Superseded { generation };
            }
            (Some(peer), Some(Reach::Unsent | Reach::Greeting)) => {
                self.forget_session(peer);
                let evicted = match self.make_room(standing) {
                    Ok(evicted) => evicted,
                    Err(decision) => return decision,
                };
                self.insert(hello, peer, new_session);
                return Decision::Adopt { peer, evicted };
            }
            (Some(peer), Some(Reach::Open)) => Some(peer),
            (_, Some(Reach::Closing) | None) | (None, _) => None,
        };
        let evicted = match self.make_room(standing) {
            Ok(evicted) => evicted,
            Err(decision) => return decision,
        };
        self.insert(hello, new_peer, new_session);
        let address = address.filter(|_| contested.is_none());
        if let Some(address) = &address {
            self.open(new_peer, address);
        }
        if let (Some(claimed), Some(_)) = (hello.address, contested) {
            let claimed = destination(&claimed);
            self.claims.insert((claimed, new_peer));
            self.by_peer.entry(new_peer).or_default().claims = Some(claimed);
        }
        Decision::Fresh {
            evicted,
            address,
            contested,
        }
    }

    /// Makes room for one more session, at the cost of the one that is without a connection for
    /// longest.
    fn make_room(
        &mut self,
        standing: &dyn Fn(PeerId) -> Option<Standing>,
    ) -> Result<Option<PeerId>, Decision> {
        if self.sessions.len() < self.limit {
            return Ok(None);
        }
        loop {
            let (_, oldest) = self.detached.pop_first().ok_or(Decision::Full)?;
            let Some(entry) = self.sessions.get_mut(&oldest) else {
                continue;
            };
            entry.detached = None;
            let peer = entry.peer;
            if !standing(peer).is_some_and(|standing| standing.dials) {
                self.remove(peer);
                return Ok(Some(peer));
            }
        }
    }

    fn insert(&mut self, hello: &Hello, peer: PeerId, session: UID) {
        let entry = Entry {
            peer,
            proposed: Some(hello.session),
            incarnation: hello.incarnation,
            generation: hello.generation,
            detached: None,
        };
        self.sessions.insert(session, entry);
        self.by_proposal.insert(hello.session, session);
        self.by_peer.entry(peer).or_default().session = Some(session);
    }

    /// The peer's own Hello was answered: the other end may resume this session from now on. Such
    /// sessions are not limited here: there are as many as addresses that local code uses.
    pub(super) fn handle_answered(
        &mut self,
        peer: PeerId,
        session: UID,
        incarnation: UID,
        generation: u64,
    ) {
        if let Some(entry) = self.sessions.get_mut(&session)
            && entry.peer == peer
        {
            entry.generation = entry.generation.max(generation);
            if let Some(place) = entry.detached.take() {
                self.detached.remove(&place);
            }
            return;
        }
        self.forget_session(peer);
        let entry = Entry {
            peer,
            proposed: None,
            incarnation,
            generation,
            detached: None,
        };
        self.sessions.insert(session, entry);
        self.by_peer.entry(peer).or_default().session = Some(session);
    }

    /// The peer serves the address from now on. One that served it before does not any more.
    pub(super) fn open(&mut self, peer: PeerId, address: &NetworkAddress) {
        let destination = destination(address);
        if let Some(before) = self.by_address.insert(destination, peer)
            && before != peer
            && let Some(record) = self.by_peer.get_mut(&before)
        {
            record.address = None;
        }
        self.by_peer.entry(peer).or_default().address = Some(destination);
    }

    /// Who serves the address.
    pub(super) fn holder(&self, address: &NetworkAddress) -> Option<PeerId> {
        self.by_address.get(&destination(address)).copied()
    }

    /// Who may serve the address of this peer next, the one that claimed it last in front.
    pub(super) fn heirs(&self, peer: PeerId) -> impl Iterator<Item = PeerId> {
        let record = self.by_peer.get(&peer);
        let address = record.and_then(|record| record.address);
        let claims = address.map(|address| {
            let all = (address, PeerId(0))..=(address, PeerId(u64::MAX));
            self.claims.range(all).rev().take(MAX_HEIRS)
        });
        claims.into_iter().flatten().map(|(_, peer)| *peer)
    }

    /// Who serves the address that this peer claims.
    pub(super) fn claimed_from(&self, peer: PeerId) -> Option<PeerId> {
        let claimed = self.by_peer.get(&peer)?.claims?;
        self.by_address.get(&claimed).copied()
    }

    /// The peer turned out to be dead: its address passes over.
    pub(super) fn pass_over(&mut self, from: PeerId, to: PeerId) {
        let record = self.by_peer.get_mut(&from);
        let Some(address) = record.and_then(|record| record.address.take()) else {
            return;
        };
        self.claims.remove(&(address, to));
        self.by_address.insert(address, to);
        let heir = self.by_peer.entry(to).or_default();
        heir.address = Some(address);
        heir.claims = None;
    }

    /// The peer's session lost its connection.
    pub(super) fn handle_detached(&mut self, peer: PeerId) {
        let record = self.by_peer.get(&peer);
        let Some(session) = record.and_then(|record| record.session) else {
            return;
        };
        let Some(entry) = self.sessions.get_mut(&session) else {
            return;
        };
        if entry.detached.is_none() {
            entry.detached = Some(self.next_place);
            self.detached.insert(self.next_place, session);
            self.next_place += 1;
        }
    }

    /// The peer is over, with its session.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.forget_session(peer);
        let Some(record) = self.by_peer.remove(&peer) else {
            return;
        };
        if let Some(address) = record.address
            && self.by_address.get(&address) == Some(&peer)
        {
            self.by_address.remove(&address);
        }
        if let Some(claimed) = record.claims {
            self.claims.remove(&(claimed, peer));
        }
    }

    fn forget_session(&mut self, peer: PeerId) {
        let record = self.by_peer.get_mut(&peer);
        let Some(session) = record.and_then(|record| record.session.take()) else {
            return;
        };
        let Some(entry) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(place) = entry.detached {
            self.detached.remove(&place);
        }
        if let Some(proposed) = entry.proposed
            && self.by_proposal.get(&proposed) == Some(&session)
        {
            self.by_proposal.remove(&proposed);
        }
    }

    /// Number of sessions.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

/// The generation that goes before that of the Hello, if there is one.
///
/// One that was accepted or answered does: the Hello is late. So does one that was sent from here:
/// should that Hello still arrive, it must find a generation that is not below its own, or it would
/// take over from a newer connection. Of two equal ones that both wait for an answer, the senior
/// end's goes first.
fn overtaken(entry: &Entry, standing: &Standing, hello: &Hello, is_senior: bool) -> Option<u64> {
    let sent = standing.generation;
    let is_late = hello.generation <= entry.generation || hello.generation < sent;
    let crosses = standing.reach == Reach::Greeting && hello.generation == sent;
    (is_late || (crosses && is_senior)).then(|| sent.max(entry.generation))
}

#[cfg(test)]
mod tests;
