//! The peers of one transport, and what a Hello does to them. Pure: the time and random ids are
//! arguments, and connections stay with the caller.

use std::rc::Rc;
use std::time::Duration;

use crate::collections::HashMap;
use crate::messaging::{NetworkAddress, UID};

use super::budget::SharedBudget;
use super::config::PeerConfig;
use super::error::ConnectionError;
use super::handle::PeerHandle;
use super::packet::{PacketId, PeerId};
use super::session::{Hello, HelloAnswer, SessionIdentity};
use super::session_table::{Decision, SessionTable};
use super::state::{Attachment, PeerState};

/// What a Hello led to.
#[derive(Debug)]
pub(super) enum Admitted {
    /// The connection carries this and nothing else.
    Refused(HelloAnswer),
    /// The connection is to be dropped without an answer.
    Dropped(ConnectionError),
    /// The connection is this peer's, whose older one is to be dropped unread.
    Attached {
        peer: PeerHandle,
        /// It is to end.
        evicted: Option<PeerId>,
    },
    /// The connection is this new peer's.
    Begun {
        peer: PeerHandle,
        /// What the peer serves.
        address: Option<NetworkAddress>,
        /// It is to end.
        evicted: Option<PeerId>,
        /// It was asked for a sign of life: its driver is to be woken.
        contested: Option<PeerHandle>,
    },
    /// The connection, and the older one of this peer, are to be dropped: the two ends contradict
    /// each other.
    Broken(PeerHandle, ConnectionError),
}

/// Packets that moved to another peer, by the ids that they had and have.
#[derive(Debug)]
pub(super) struct PassedOver {
    pub(super) to: PeerHandle,
    pub(super) packets: Vec<(PacketId, PacketId)>,
}

/// What a connection brings along when its Hello was read.
pub(super) struct Arrival<'a> {
    pub(super) now: Duration,
    pub(super) hello: &'a Hello,
    /// For a peer that begins with it: its id, its session's, and how its other end is called.
    pub(super) new_peer: PeerId,
    pub(super) new_session: UID,
    pub(super) name: String,
    /// Any random number.
    pub(super) jitter: u64,
}

/// See the [module's documentation](self).
pub(super) struct SessionHub {
    config: PeerConfig,
    identity: SessionIdentity,
    table: SessionTable,
    peers: HashMap<PeerId, PeerHandle>,
    /// Takes over from the peer that is being closed.
    heir: Option<PeerHandle>,
    budget: Rc<SharedBudget>,
}

impl SessionHub {
    pub(super) fn new(config: PeerConfig, identity: SessionIdentity, limit: usize) -> Self {
        Self {
            table: SessionTable::new(identity, limit),
            config,
            identity,
            peers: HashMap::default(),
            heir: None,
            budget: Rc::new(SharedBudget::new(usize::MAX)),
        }
    }

    /// What sessions hold for their other ends counts against a budget of so many bytes. To be
    /// called before there are any.
    pub(super) fn limit_answers(&mut self, bytes: usize) {
        self.budget = Rc::new(SharedBudget::new(bytes));
    }

    /// How many sessions there may be from now on.
    pub(super) fn set_limit(&mut self, sessions: usize) {
        self.table.set_limit(sessions);
    }

    pub(super) fn identity(&self) -> SessionIdentity {
        self.identity
    }

    /// Takes a peer in that dials this address.
    pub(super) fn open(&mut self, peer: PeerHandle, address: &NetworkAddress) {
        peer.state().share_answers(Rc::clone(&self.budget));
        self.table.open(peer.id(), address);
        self.peers.insert(peer.id(), peer);
    }

    /// Decides about a connection that said Hello, and attaches the state of the peer that it is for.
    pub(super) fn admit(&mut self, arrival: Arrival<'_>) -> Admitted {
        let hello = arrival.hello;
        let peers = &self.peers;
        let standing = |peer: PeerId| Some(peers.get(&peer)?.state().standing());
        let (new_peer, session) = (arrival.new_peer, arrival.new_session);
        match self.table.decide(hello, new_peer, session, &standing) {
            Decision::Superseded { generation } => Admitted::Refused(self.superseded(generation)),
            // The answer says who we are: that is what the dialler has to learn.
            Decision::Ourselves => Admitted::Refused(self.superseded(hello.generation)),
            Decision::Full => Admitted::Dropped(ConnectionError::Closed),
            Decision::Resume(peer) => self.attach(&arrival, peer, None),
            Decision::Adopt { peer, evicted } => {
                let begin = Some((session, evicted));
                self.attach(&arrival, peer, begin)
            }
            Decision::Fresh {
                evicted,
                address,
                contested,
            } => {
                let contested = contested.and_then(|peer| self.contest(arrival.now, peer));
                self.begin(arrival, address, evicted, contested)
            }
        }
    }

    fn superseded(&self, generation: u64) -> HelloAnswer {
        HelloAnswer::superseded(self.identity, self.config.max_payload_bytes, generation)
    }

    /// Resumes the peer's session, or begins one, in the place of the evicted one if there is one.
    fn attach(
        &self,
        arrival: &Arrival<'_>,
        peer: PeerId,
        begin: Option<(UID, Option<PeerId>)>,
    ) -> Admitted {
        let Some(peer) = self.peers.get(&peer).cloned() else {
            return Admitted::Dropped(ConnectionError::Closed);
        };
        let (attachment, evicted) = match begin {
            None => (Attachment::Resume, None),
            Some((session, evicted)) => (Attachment::Begin(session), evicted),
        };
        let now = arrival.now;
        let attached = peer.state().handle_attached(now, arrival.hello, attachment);
        match attached {
            Ok(()) => {
                let rivalled = self.table.claimed_from(peer.id());
                if let Some(holder) = rivalled.and_then(|holder| self.peers.get(&holder)) {
                    holder.state().add_rival(arrival.hello.incarnation);
                }
                Admitted::Attached { peer, evicted }
            }
            Err(cause) => {
                peer.state()
                    .handle_closed(now, cause.clone(), arrival.jitter);
                Admitted::Broken(peer, cause)
            }
        }
    }

    fn contest(&self, now: Duration, peer: PeerId) -> Option<PeerHandle> {
        let peer = self.peers.get(&peer)?;
        let mut state = peer.state();
        if state.is_contested() {
            // It was asked already. Asking anew with each claim would give it time without end.
            return None;
        }
        state.contest(now);
        drop(state);
        Some(peer.untracked())
    }

    fn begin(
        &mut self,
        arrival: Arrival<'_>,
        address: Option<NetworkAddress>,
        evicted: Option<PeerId>,
        contested: Option<PeerHandle>,
    ) -> Admitted {
        let mut state = PeerState::of_session(self.config.clone(), self.identity);
        state.share_answers(Rc::clone(&self.budget));
        let peer = PeerHandle::new(arrival.new_peer, arrival.name, state);
        let begin = Attachment::Begin(arrival.new_session);
        let attached = peer
            .state()
            .handle_attached(arrival.now, arrival.hello, begin);
        if let Err(cause) = attached {
            self.table.remove(peer.id());
            return Admitted::Dropped(cause);
        }
        self.peers.insert(peer.id(), peer.untracked());
        Admitted::Begun {
            peer,
            address,
            evicted,
            contested,
        }
    }

    /// The peer's own Hello was answered.
    pub(super) fn handle_answered(&mut self, peer: PeerId) {
        let Some(handle) = self.peers.get(&peer) else {
            return;
        };
        let standing = handle.state().standing();
        let remote = handle.state().remote();
        if let (Some(session), Some(incarnation)) = (standing.session, remote.incarnation) {
            let generation = standing.generation;
            self.table
                .handle_answered(peer, session, incarnation, generation);
        }
    }

    /// The peer's session lost its connection.
    pub(super) fn handle_detached(&mut self, peer: PeerId) {
        self.table.handle_detached(peer);
    }

    /// The peer's connection is about to be closed here: if its address is contested, the one that
    /// claimed it last takes over.
    pub(super) fn prepare_close(&mut self, peer: PeerId) {
        let Some(handle) = self.peers.get(&peer) else {
            return;
        };
        let is_contested = handle.state().is_contested();
        // A process that can be talked to goes before one that only was there later.
        let working = self.heir(peer, |heir| is_contested && heir.is_connected());
        // The process that the peer had its session with, and that said Hello once more, is not gone: a
        // session can be carried on, which its claim, without a connection, could not do better.
        let met = handle.state().remote().incarnation;
        let is_other = |heir: &PeerHandle| heir.remote_incarnation() != met;
        let heir = working.or_else(|| self.heir(peer, |heir| is_contested && is_other(heir)));
        handle.state().set_has_heir(heir.is_some());
        self.heir = heir;
    }

    /// The peer is about to dial. If the process at the other end has a working session with another
    /// peer, which claimed the address in vain while it had a connection elsewhere, that one takes
    /// over: a dial would lead to a second connection between the same two ends. True: close this
    /// one now. Should another process answer than the one that was met, the peer knows of which it
    /// wants no second session.
    pub(super) fn prepare_dial(&mut self, peer: PeerId) -> bool {
        let Some(handle) = self.peers.get(&peer) else {
            return false;
        };
        let met = handle.state().remote().incarnation;
        let heir = self.heir(peer, |heir| {
            heir.is_connected() && (met.is_none() || heir.remote_incarnation() == met)
        });
        let working = self.heirs(peer).filter(|heir| heir.is_connected());
        let rivals = working.filter_map(PeerHandle::remote_incarnation);
        handle.state().set_rivals(rivals);
        let takes_over = heir.is_some() && !handle.state().is_closed();
        handle.state().set_has_heir(takes_over);
        self.heir = heir;
        takes_over
    }

    fn heir(&self, peer: PeerId, takes_over: impl Fn(&PeerHandle) -> bool) -> Option<PeerHandle> {
        self.heirs(peer).find(|heir| takes_over(heir)).cloned()
    }

    fn heirs(&self, peer: PeerId) -> impl Iterator<Item = &PeerHandle> {
        let heirs = self.table.heirs(peer);
        heirs
            .filter_map(|heir| self.peers.get(&heir))
            .filter(move |heir| heir.id() != peer && !heir.state().is_closed())
    }

    /// If the peer ended for the sake of another one, its address and what it did not write are that
    /// one's now.
    pub(super) fn pass_over(&mut self, peer: PeerId) -> Option<PassedOver> {
        let heir = self.heir.take();
        let from = self.peers.get(&peer)?;
        let Some(to) = heir.filter(|heir| !heir.state().is_closed()) else {
            from.state().drop_ceded();
            return None;
        };
        let frames = from.state().cede()?;
        let packets = to.state().take_over(frames);
        self.table.pass_over(peer, to.id());
        Some(PassedOver { to, packets })
    }

    /// The peer is over.
    pub(super) fn forget(&mut self, peer: PeerId) -> Option<PeerHandle> {
        self.table.remove(peer);
        self.peers.remove(&peer)
    }

    /// Number of sessions.
    #[cfg(test)]
    pub(super) fn sessions(&self) -> usize {
        self.table.len()
    }
}
