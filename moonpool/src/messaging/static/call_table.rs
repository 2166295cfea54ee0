//! The calls of one transport that wait for their replies. Pure: nothing here wakes, sends or
//! awaits; wakers are handed out for the caller to use once no borrow is held.
//!
//! A call is a slot: its token is the slot's key, so starting and ending one allocates nothing in
//! steady state. The calls written to one peer form an intrusive list in order of their packets, so
//! that the end of a connection touches exactly its own calls. When each is to be looked at next
//! stands in one [`DeadlineQueue`].

mod promises;

use std::collections::hash_map::Entry;
use std::task::Waker;
use std::time::Duration;

use moonpool_foundation::UID;
use moonpool_foundation::collections::HashMap;
use moonpool_foundation::network::peer::{PacketId, PeerId, SessionEnded};
use moonpool_traits::Blob;

pub(crate) use super::call_terms::{CallTerms, Look};
use super::deadline_queue::DeadlineQueue;
use super::endpoint_map::token_nonce;
use super::reply_error::ReplyError;
use super::slot_table::{SlotKey, SlotTable};

/// The codec's bytes of a reply, or why there is none.
pub(crate) type Outcome = Result<Blob, ReplyError>;

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
    /// Nowhere yet, or it has ended: in no list.
    Unlisted,
    /// To this process, as the packet with this number.
    Local { packet: u64 },
    /// It is a promise that travels inside messages: no request was sent, and whoever knows its token
    /// may answer. The secret is the token's upper half.
    Promised { secret: u64 },
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
    terms: CallTerms,
}

/// Both ends of a peer's list. Packets ascend from first to last.
#[derive(Clone, Copy, Debug)]
struct List {
    first: SlotKey,
    last: SlotKey,
    /// The longest of its calls since it was empty.
    patience: Option<Duration>,
}

/// Where a call's request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Local {
        packet: u64,
    },
    /// A promise, in whoever's hands.
    Elsewhere,
    To {
        peer: PeerId,
        packet: PacketId,
    },
}

/// A call whose time to be looked at has come.
#[derive(Debug)]
pub(crate) enum Due {
    /// Its deadline has passed, and it ended. Wake this, if there is one.
    Expired {
        token: UID,
        endpoint_token: UID,
        sent: Option<Sent>,
        waker: Option<Waker>,
    },
    /// There might be no working connection to this peer for too long.
    Unsure {
        token: UID,
        endpoint_token: UID,
        peer: PeerId,
        packet: PacketId,
    },
}

/// What became of an arriving reply.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// It ended its call. Wake the waker, if there is one.
    Ended {
        waker: Option<Waker>,
        /// The token that the request went to.
        endpoint_token: UID,
    },
    /// Nobody waits for it, or not from this peer.
    Late,
}

/// What is left of a call that nobody waits for any more.
#[derive(Debug)]
pub(crate) struct Forgotten {
    /// To be dropped where no borrow is held.
    pub(crate) waker: Option<Waker>,
    /// The request's packet, if the call had not ended: it is to be withdrawn.
    pub(crate) sent: Option<Sent>,
    /// The token that it went to.
    pub(crate) endpoint_token: Option<UID>,
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
    looks: DeadlineQueue,
    /// Calls that may wait at one time.
    limit: usize,
    nonce: u64,
    waiting: usize,
    /// Of those, how many have a deadline.
    bounded: usize,
}

impl CallTable {
    /// `nonce` becomes the upper half of every reply token.
    pub(crate) fn new(nonce: u64, limit: usize) -> Self {
        Self {
            calls: SlotTable::new(),
            lists: HashMap::default(),
            looks: DeadlineQueue::default(),
            limit,
            nonce: token_nonce(nonce),
            waiting: 0,
            bounded: 0,
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

    /// The longest patience of the calls that wait for replies from this peer.
    pub(crate) fn patience_with(&self, peer: PeerId) -> Option<Duration> {
        self.lists.get(&peer)?.patience
    }

    /// When [`next_due`](Self::next_due) is to be asked; it may have nothing to say then.
    pub(crate) fn next_look(&self) -> Option<Look> {
        let at = self.looks.next_at()?;
        let is_certain = self.bounded > 0;
        Some(Look { at, is_certain })
    }

    /// Number of calls that are not forgotten, ended ones included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Starts a call. `None` when as many of them wait as may.
    pub(crate) fn start(&mut self, terms: CallTerms) -> Option<UID> {
        let key = self.insert(terms, Place::Unlisted)?;
        Some(UID::new(self.nonce, key.to_bits()))
    }

    fn insert(&mut self, terms: CallTerms, place: Place) -> Option<SlotKey> {
        let call = Call {
            state: State::Waiting(None),
            place,
            terms,
        };
        if self.waiting >= self.limit {
            return None;
        }
        let key = self.calls.insert(call).ok()?;
        self.waiting += 1;
        self.bounded += usize::from(terms.deadline.is_some());
        if let Some(at) = terms.next_look(terms.started) {
            self.looks.set(key, at);
        }
        Some(key)
    }

    /// Notes that the call's request went to this process itself, as the packet with this number.
    pub(crate) fn queued_locally(&mut self, token: UID, packet: u64) {
        let key = SlotKey::from_bits(token.second);
        if let Some(call) = self.calls.get_mut(key) {
            call.place = Place::Local { packet };
            // Nothing lies between.
            call.terms.patience = None;
            match call.terms.deadline {
                Some(deadline) => self.looks.set(key, deadline),
                None => self.looks.remove(key),
            }
        }
    }

    /// The call whose time to be looked at came first, if it came. One that is not ended by it has
    /// to get its next look with [`look_again`](Self::look_again).
    pub(crate) fn next_due(&mut self, now: Duration) -> Option<Due> {
        let key = self.looks.take_due(now)?;
        let call = self.calls.get(key)?;
        let (terms, sent) = (call.terms, sent(call.place));
        let token = UID::new(self.nonce, key.to_bits());
        match sent {
            Some(Sent::To { peer, packet })
                if terms.deadline.is_none_or(|deadline| deadline > now) =>
            {
                Some(Due::Unsure {
                    token,
                    endpoint_token: terms.token,
                    peer,
                    packet,
                })
            }
            _ => Some(Due::Expired {
                token,
                endpoint_token: terms.token,
                sent,
                waker: self.end(key, Err(ReplyError::Timeout)),
            }),
        }
    }

    /// There was a working connection until `unfailed_until`, or the call was not there before.
    /// False: the patience that the call has from then on is over.
    pub(crate) fn look_again(&mut self, now: Duration, token: UID, unfailed: Duration) -> bool {
        let key = SlotKey::from_bits(token.second);
        let Some(call) = self.calls.get(key) else {
            return true;
        };
        let unfailed = unfailed.max(call.terms.started);
        let patience = call.terms.patience;
        if patience.is_some_and(|patience| unfailed.saturating_add(patience) <= now) {
            return false;
        }
        if let Some(at) = call.terms.next_look(unfailed) {
            self.looks.set(key, at);
        }
        true
    }

    /// Ends a call for a reason of this end's.
    pub(crate) fn fail(&mut self, token: UID, error: ReplyError) -> Option<Waker> {
        self.end(SlotKey::from_bits(token.second), Err(error))
    }

    /// Notes the packet that carries the call's request. Packets of one peer have to come in
    /// ascending order, which they do when this directly follows the send.
    pub(crate) fn written(&mut self, token: UID, peer: PeerId, packet: PacketId) {
        let key = SlotKey::from_bits(token.second);
        let Some(call) = self.calls.get_mut(key) else {
            return;
        };
        debug_assert_eq!(call.place, Place::Unlisted, "a call is sent once");
        let patience = call.terms.patience;
        let previous = match self.lists.entry(peer) {
            Entry::Occupied(mut list) => {
                let list = list.get_mut();
                list.patience = list.patience.max(patience);
                Some(std::mem::replace(&mut list.last, key))
            }
            Entry::Vacant(place) => {
                place.insert(List {
                    first: key,
                    last: key,
                    patience,
                });
                None
            }
        };
        call.place = Place::Listed {
            peer,
            packet,
            previous,
            next: None,
        };
        if let Some(previous) = previous {
            self.set_next(previous, Some(key));
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
            Place::Unlisted | Place::Local { .. } => None,
            Place::Listed { peer, .. } => Some(peer),
            Place::Promised { .. } => return Arrival::Late,
        };
        if sent_to != from || !matches!(call.state, State::Waiting(_)) {
            return Arrival::Late;
        }
        let endpoint_token = call.terms.token;
        let waker = self.end(key, outcome);
        Arrival::Ended {
            waker,
            endpoint_token,
        }
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
        match std::mem::replace(&mut call.state, State::Waiting(None)) {
            State::Ended(outcome) => {
                self.calls.discard(key);
                Polled::Ready(outcome)
            }
            State::Waiting(_) => Polled::Unknown,
        }
    }

    /// Forgets a call whose future is gone.
    pub(crate) fn forget(&mut self, token: UID) -> Forgotten {
        let key = SlotKey::from_bits(token.second);
        let call = self.calls.get(key);
        let endpoint_token = call.map(|call| call.terms.token);
        let sent = call.and_then(|call| sent(call.place));
        self.unlink(key);
        if call_waits(&self.calls, key) {
            self.looks.remove(key);
        }
        let waker = match self.calls.remove(key).map(|call| (call.state, call.terms)) {
            Some((State::Waiting(waker), terms)) => {
                self.waiting -= 1;
                self.bounded -= usize::from(terms.deadline.is_some());
                waker
            }
            Some((State::Ended(_), _)) | None => None,
        };
        Forgotten {
            waker,
            sent,
            endpoint_token,
        }
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

    /// The peer's address is our own: its packets were queued here, and its calls wait for replies
    /// from here. `packets` are the ids that they had and the numbers that they have, in order.
    pub(crate) fn keep_calls_of(&mut self, peer: PeerId, packets: &[(PacketId, u64)]) {
        let mut kept = packets.iter().peekable();
        while let Some(first) = self.lists.get(&peer).map(|list| list.first) {
            let Some(Place::Listed { packet, .. }) = self.calls.get(first).map(|call| call.place)
            else {
                return;
            };
            self.unlink(first);
            while kept.next_if(|(before, _)| *before < packet).is_some() {}
            if let Some((_, number)) = kept.next_if(|(before, _)| *before == packet) {
                self.queued_locally(UID::new(self.nonce, first.to_bits()), *number);
            }
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

    /// The calls that still wait, and where their requests went.
    pub(crate) fn all_waiting(&self) -> Vec<(UID, Option<Sent>)> {
        let waiting = self
            .calls
            .keys()
            .filter(|key| call_waits(&self.calls, *key));
        waiting
            .filter_map(|key| {
                let call = self.calls.get(key)?;
                Some((UID::new(self.nonce, key.to_bits()), sent(call.place)))
            })
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
        self.bounded -= usize::from(call.terms.deadline.is_some());
        self.looks.remove(key);
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

fn sent(place: Place) -> Option<Sent> {
    match place {
        Place::Unlisted => None,
        Place::Local { packet } => Some(Sent::Local { packet }),
        Place::Promised { .. } => Some(Sent::Elsewhere),
        Place::Listed { peer, packet, .. } => Some(Sent::To { peer, packet }),
    }
}

fn call_waits(calls: &SlotTable<Call>, key: SlotKey) -> bool {
    let call = calls.get(key);
    call.is_some_and(|call| matches!(call.state, State::Waiting(_)))
}

#[cfg(test)]
mod tests;
