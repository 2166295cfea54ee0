//! The calls of one transport that wait for their replies. Pure: nothing here wakes, sends or
//! awaits; wakers are handed out for the caller to use once no borrow is held.
//!
//! A call is a slot: its token is the slot's key, so starting and ending one allocates nothing in
//! steady state. The calls written to one peer form an intrusive list in order of their packets, so
//! that the end of a connection touches exactly its own calls. When each is to be looked at next
//! stands in one [`DeadlineQueue`].

mod promises;
mod sessions;

use std::task::Waker;
use std::time::Duration;

use moonpool_foundation::UID;
use moonpool_foundation::network::peer::{PacketId, PeerId};

pub(crate) use super::call_terms::{CallTerms, Connectivity, Look};
use super::deadline_queue::DeadlineQueue;
use super::endpoint_map::token_nonce;
use super::kept_bodies::KeptBody;
use super::per_peer::PerPeer;
use super::reply_error::ReplyError;
use super::slot_table::{SlotKey, SlotTable};

/// The codec's bytes of a reply, or why there is none.
pub(crate) type Outcome = Result<KeptBody, ReplyError>;

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
    /// In the list that a peer has at this place.
    Listed {
        list: usize,
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

/// A peer's list.
#[derive(Clone, Copy, Debug, Default)]
struct List {
    /// `None` while it is empty.
    ends: Option<Ends>,
    /// The longest of its calls since it was empty.
    patience: Option<Duration>,
}

/// Both ends of a list. Packets ascend from first to last.
#[derive(Clone, Copy, Debug)]
struct Ends {
    first: SlotKey,
    last: SlotKey,
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
    /// Its deadline has passed: it is to be ended by what is known of its request.
    Expired {
        token: UID,
        endpoint_token: UID,
        sent: Option<Sent>,
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
    /// Of the peers that calls went to. A list stays until its peer is gone, so that calls that come
    /// one by one do not make it anew each time.
    lists: PerPeer<List>,
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
            lists: PerPeer::default(),
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
        self.first_of(peer).is_some()
    }

    /// The longest patience of the calls that wait for replies from this peer.
    pub(crate) fn patience_with(&self, peer: PeerId) -> Option<Duration> {
        let list = self.lists.get(peer)?;
        list.ends.and(list.patience)
    }

    /// The first call in the peer's list.
    fn first_of(&self, peer: PeerId) -> Option<SlotKey> {
        Some(self.lists.get(peer)?.ends?.first)
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
        if self.waiting >= self.limit {
            return None;
        }
        let key = self.calls.insert_with(|| Call {
            state: State::Waiting(None),
            place,
            terms,
        })?;
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

    /// The call whose time to be looked at came first, if it came. It has to be ended with
    /// [`fail`](Self::fail), or to get its next look with [`look_again`](Self::look_again).
    pub(crate) fn next_due(&mut self, now: Duration) -> Option<Due> {
        let key = self.looks.take_due(now)?;
        let call = self.calls.get(key)?;
        let (terms, sent) = (call.terms, self.sent(call.place));
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
            }),
        }
    }

    /// Sets the call's next look. False: there is no connection, and the patience that the call has,
    /// from the loss of the last one or from its start, is over.
    pub(crate) fn look_again(
        &mut self,
        now: Duration,
        token: UID,
        connection: Connectivity,
    ) -> bool {
        let key = SlotKey::from_bits(token.second);
        let Some(call) = self.calls.get(key) else {
            return true;
        };
        let next = match connection {
            Connectivity::Connected => call.terms.next_look_while_connected(now),
            Connectivity::LostAt(lost) => {
                let unfailed = lost.max(call.terms.started);
                let end = call.terms.end_of_patience(unfailed);
                if end.is_some_and(|end| end <= now) {
                    return false;
                }
                call.terms.next_look(unfailed)
            }
        };
        if let Some(at) = next {
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
        let place = self.lists.open(peer, List::default);
        let Some(list) = self.lists.at_mut(place) else {
            return;
        };
        let previous = match &mut list.ends {
            Some(ends) => {
                list.patience = list.patience.max(patience);
                Some(std::mem::replace(&mut ends.last, key))
            }
            empty => {
                *empty = Some(Ends {
                    first: key,
                    last: key,
                });
                list.patience = patience;
                None
            }
        };
        call.place = Place::Listed {
            list: place,
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
    #[inline]
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
            Place::Listed { list, .. } => self.lists.at(list).map(|(peer, _)| peer),
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
        let sent = call.and_then(|call| self.sent(call.place));
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

    fn end(&mut self, key: SlotKey, outcome: Outcome) -> Option<Waker> {
        let call = self.calls.get_mut(key)?;
        let State::Waiting(waker) = &mut call.state else {
            return None;
        };
        let waker = waker.take();
        let place = std::mem::replace(&mut call.place, Place::Unlisted);
        call.state = State::Ended(outcome);
        self.waiting -= 1;
        self.bounded -= usize::from(call.terms.deadline.is_some());
        self.leave_list(place);
        self.looks.remove(key);
        waker
    }

    fn unlink(&mut self, key: SlotKey) {
        if let Some(call) = self.calls.get_mut(key) {
            let place = std::mem::replace(&mut call.place, Place::Unlisted);
            self.leave_list(place);
        }
    }

    /// Takes a call out of the list that this was its place in.
    #[inline(always)]
    fn leave_list(&mut self, place: Place) {
        let Place::Listed {
            list,
            previous,
            next,
            ..
        } = place
        else {
            return;
        };
        if let Some(next) = next {
            self.set_previous(next, previous);
        }
        if let Some(previous) = previous {
            self.set_next(previous, next);
        }
        if next.is_some() && previous.is_some() {
            return;
        }
        let Some(list) = self.lists.at_mut(list) else {
            return;
        };
        list.ends = list.ends.and_then(|ends| {
            // Of an only call both are `None`, and the list is empty.
            Some(match (previous, next) {
                (None, first) => Ends {
                    first: first?,
                    ..ends
                },
                (Some(last), _) => Ends { last, ..ends },
            })
        });
    }

    fn sent(&self, place: Place) -> Option<Sent> {
        match place {
            Place::Unlisted => None,
            Place::Local { packet } => Some(Sent::Local { packet }),
            Place::Promised { .. } => Some(Sent::Elsewhere),
            Place::Listed { list, packet, .. } => {
                let (peer, _) = self.lists.at(list)?;
                Some(Sent::To { peer, packet })
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

fn call_waits(calls: &SlotTable<Call>, key: SlotKey) -> bool {
    let call = calls.get(key);
    call.is_some_and(|call| matches!(call.state, State::Waiting(_)))
}

#[cfg(test)]
mod tests;
