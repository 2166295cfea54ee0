//! The calls of one transport that wait for their replies. Pure: nothing here wakes, sends or
//! awaits; wakers are handed out for the caller to use once no borrow is held.
//!
//! A call is a slot: its token is the slot's key, so starting and ending one allocates nothing in
//! steady state. The calls written to one peer form an intrusive list in order of their packets, so
//! that the end of a connection touches exactly its own calls.

use std::task::Waker;

use bytes::Bytes;
use moonpool_foundation::UID;
use moonpool_foundation::collections::HashMap;
use moonpool_foundation::network::peer::{PacketId, PeerId, SessionEnded};

use super::endpoint_map::token_nonce;
use super::reply_error::ReplyError;
use super::slot_table::{SlotKey, SlotTable};

/// The codec's bytes of a reply, or why there is none.
pub(crate) type Outcome = Result<Bytes, ReplyError>;

#[derive(Debug)]
enum State {
    /// The request is written or queued; the waker is the one of the last poll.
    Waiting(Option<Waker>),
    /// Ended, and not yet taken by its future.
    Ended(Outcome),
}

/// Where a call's request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// To this process, or nowhere yet: in no list.
    Unlisted,
    /// In the list of this peer.
    Listed {
        peer: PeerId,
        packet: PacketId,
        previous: Option<SlotKey>,
        next: Option<SlotKey>,
    },
}

#[derive(Debug)]
struct Call {
    state: State,
    place: Place,
}

/// Both ends of a peer's list. Packets ascend from first to last.
#[derive(Clone, Copy, Debug)]
struct List {
    first: SlotKey,
    last: SlotKey,
}

/// What became of an arriving reply.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// It ended its call. Wake this, if there is one.
    Ended(Option<Waker>),
    /// Nobody waits for it, or not from this peer.
    Late,
}

/// What is left of a call that nobody waits for any more.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// To be dropped where no borrow is held.
    pub(crate) waker: Option<Waker>,
    /// The request's packet, if the call had not ended: it is to be withdrawn.
    pub(crate) sent: Option<(PeerId, PacketId)>,
}

/// What a poll of a call gives. An old waker is handed out to be dropped where no borrow is held.
#[derive(Debug)]
pub(crate) enum Polled {
    /// Ended, and the call is forgotten.
    Ready(Outcome),
    /// Waiting, with the poller's waker noted.
    Waiting { replaced: Option<Waker> },
    /// There is no such call.
    Unknown,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct CallTable {
    calls: SlotTable<Call>,
    /// Only peers with calls in their list have an entry.
    lists: HashMap<PeerId, List>,
    nonce: u64,
    waiting: usize,
}

impl CallTable {
    /// `nonce` becomes the upper half of every reply token.
    pub(crate) fn new(nonce: u64) -> Self {
        Self {
            calls: SlotTable::new(),
            lists: HashMap::default(),
            nonce: token_nonce(nonce),
            waiting: 0,
        }
    }

    /// Whether the token may be one of a call.
    #[inline]
    pub(crate) fn owns(&self, token: UID) -> bool {
        token.first == self.nonce
    }

    /// Number of calls that wait for their reply.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether calls wait for replies from this peer.
    pub(crate) fn has_calls_of(&self, peer: PeerId) -> bool {
        self.lists.contains_key(&peer)
    }

    /// Number of calls that are not forgotten, ended ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Starts a call. `None` when 2^32 of them wait already.
    pub(crate) fn start(&mut self) -> Option<UID> {
        let call = Call {
            state: State::Waiting(None),
            place: Place::Unlisted,
        };
        let key = self.calls.insert(call).ok()?;
        self.waiting += 1;
        Some(UID::new(self.nonce, key.to_bits()))
    }

    /// Notes the packet that carries the call's request. Packets of one peer have to come in
    /// ascending order, which they do when this directly follows the send.
    pub(crate) fn written(&mut self, token: UID, peer: PeerId, packet: PacketId) {
        let key = SlotKey::from_bits(token.second);
        let previous = self.lists.get(&peer).map(|list| list.last);
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        debug_assert_eq!(call.place, Place::Unlisted, "a call is sent once");
        call.place = Place::Listed {
            peer,
            packet,
            previous,
            next: None,
        };
        match previous {
            Some(previous) => self.set_next(previous, Some(key)),
            None => {
                self.lists.insert(
                    peer,
                    List {
                        first: key,
                        last: key,
                    },
                );
            }
        }
        if let Some(list) = self.lists.get_mut(&peer) {
            list.last = key;
        }
    }

    /// A reply arrived. It only counts if it comes from where the request went: a token is no
    /// secret to the peers of the same transport.
    pub(crate) fn reply(&mut self, token: UID, from: Option<PeerId>, outcome: Outcome) -> Arrival {
        let key = SlotKey::from_bits(token.second);
        let Some(call) = self
            .calls
            .get_mut(key)
            .filter(|_| token.first == self.nonce)
        else {
            return Arrival::Late;
        };
        let sent_to = match call.place {
            Place::Unlisted => None,
            Place::Listed { peer, .. } => Some(peer),
        };
        if sent_to != from || !matches!(call.state, State::Waiting(_)) {
            return Arrival::Late;
        }
        Arrival::Ended(self.end(key, outcome))
    }

    /// Asks for the call's outcome; a call that has one is forgotten.
    pub(crate) fn poll(&mut self, token: UID, waker: &Waker) -> Polled {
        let key = SlotKey::from_bits(token.second);
        let Some(call) = self.calls.get_mut(key) else {
            return Polled::Unknown;
        };
        if let State::Waiting(noted) = &mut call.state {
            if noted.as_ref().is_some_and(|noted| noted.will_wake(waker)) {
                return Polled::Waiting { replaced: None };
            }
            let replaced = noted.replace(waker.clone());
            return Polled::Waiting { replaced };
        }
        match self.calls.remove(key).map(|call| call.state) {
            Some(State::Ended(outcome)) => Polled::Ready(outcome),
            Some(State::Waiting(_)) | None => Polled::Unknown,
        }
    }

    /// Forgets a call whose future is gone.
    pub(crate) fn forget(&mut self, token: UID) -> Forgotten {
        let key = SlotKey::from_bits(token.second);
        let sent = match self.calls.get(key).map(|call| call.place) {
            Some(Place::Listed { peer, packet, .. }) => Some((peer, packet)),
            Some(Place::Unlisted) | None => None,
        };
        self.unlink(key);
        let waker = match self.calls.remove(key).map(|call| call.state) {
            Some(State::Waiting(waker)) => {
                self.waiting -= 1;
                waker
            }
            Some(State::Ended(_)) | None => None,
        };
        Forgotten { waker, sent }
    }

    /// Ends one call of a session that ended, and gives its waker. Call it again until it gives
    /// `None`: then the peer's remaining calls are those whose packets are still queued.
    pub(crate) fn end_next_of_session(
        &mut self,
        peer: PeerId,
        ended: &SessionEnded,
    ) -> Option<Option<Waker>> {
        let key = self.lists.get(&peer)?.first;
        let Place::Listed { packet, .. } = self.calls.get(key)?.place else {
            return None;
        };
        let error = if ended.not_delivered.contains(&packet) {
            ReplyError::ConnectionFailed
        } else if packet < ended.maybe_delivered.end {
            ReplyError::MaybeDelivered
        } else {
            return None;
        };
        Some(self.end(key, Err(error)))
    }

    /// Ends one call of a peer that is gone for good. Call it again until it gives `None`.
    pub(crate) fn end_next_of_peer(&mut self, peer: PeerId) -> Option<Option<Waker>> {
        let key = self.lists.get(&peer)?.first;
        Some(self.end(key, Err(ReplyError::MaybeDelivered)))
    }

    /// The packets of a peer went to another one, as if they were sent there now: the calls that they
    /// carry wait for replies from there. `packets` are the ids that they had and have, in order.
    pub(crate) fn move_calls(
        &mut self,
        from: PeerId,
        to: PeerId,
        packets: &[(PacketId, PacketId)],
    ) {
        let mut moved = packets.iter().peekable();
        let mut at = self.lists.get(&from).map(|list| list.first);
        while let Some(key) = at {
            let Some(Place::Listed { packet, next, .. }) = self.calls.get(key).map(|c| c.place)
            else {
                return;
            };
            at = next;
            while moved.next_if(|(before, _)| *before < packet).is_some() {}
            if let Some((_, now)) = moved.next_if(|(before, _)| *before == packet) {
                self.unlink(key);
                self.written(UID::new(self.nonce, key.to_bits()), to, *now);
            }
        }
    }

    /// The peer's address is our own: its calls wait for replies from here.
    pub(crate) fn keep_calls_of(&mut self, peer: PeerId) {
        while let Some(list) = self.lists.get(&peer) {
            let first = list.first;
            self.unlink(first);
        }
    }

    /// Ends the call that one packet carries. Searches the peer's list, which is for rare events.
    pub(crate) fn end_packet(
        &mut self,
        peer: PeerId,
        packet: PacketId,
        error: ReplyError,
    ) -> Option<Waker> {
        let mut at = Some(self.lists.get(&peer)?.first);
        while let Some(key) = at {
            let Place::Listed {
                packet: found,
                next,
                ..
            } = self.calls.get(key)?.place
            else {
                return None;
            };
            if found == packet {
                return self.end(key, Err(error));
            }
            at = next;
        }
        None
    }

    /// Ends all calls that still wait, and gives their wakers.
    pub(crate) fn end_all(&mut self) -> Vec<Waker> {
        let keys: Vec<SlotKey> = self.calls.keys().collect();
        keys.into_iter()
            .filter_map(|key| self.end(key, Err(ReplyError::MaybeDelivered)))
            .collect()
    }

    fn end(&mut self, key: SlotKey, outcome: Outcome) -> Option<Waker> {
        self.unlink(key);
        let call = self.calls.get_mut(key)?;
        let State::Waiting(waker) = &mut call.state else {
            return None;
        };
        let waker = waker.take();
        call.state = State::Ended(outcome);
        self.waiting -= 1;
        waker
    }

    fn unlink(&mut self, key: SlotKey) {
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        let Place::Listed {
            peer,
            previous,
            next,
            ..
        } = std::mem::replace(&mut call.place, Place::Unlisted)
        else {
            return;
        };
        match (previous, next) {
            (None, None) => {
                self.lists.remove(&peer);
            }
            (None, Some(next)) => {
                self.set_previous(next, None);
                if let Some(list) = self.lists.get_mut(&peer) {
                    list.first = next;
                }
            }
            (Some(previous), None) => {
                self.set_next(previous, None);
                if let Some(list) = self.lists.get_mut(&peer) {
                    list.last = previous;
                }
            }
            (Some(previous), Some(next)) => {
                self.set_next(previous, Some(next));
                self.set_previous(next, Some(previous));
            }
        }
    }

    fn set_next(&mut self, key: SlotKey, to: Option<SlotKey>) {
        if let Some(Place::Listed { next, .. }) = self.place_mut(key) {
            *next = to;
        }
    }

    fn set_previous(&mut self, key: SlotKey, to: Option<SlotKey>) {
        if let Some(Place::Listed { previous, .. }) = self.place_mut(key) {
            *previous = to;
        }
    }

    fn place_mut(&mut self, key: SlotKey) -> Option<&mut Place> {
        self.calls.get_mut(key).map(|call| &mut call.place)
    }
}

#[cfg(test)]
mod tests;
