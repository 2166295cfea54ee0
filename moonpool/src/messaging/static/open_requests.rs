//! The requests that were admitted and are not answered: whether their callers still wait. Pure;
//! wakers are handed out for the caller to use once no borrow is held.

use std::collections::hash_map::Entry;
use std::task::{Poll, Waker};

use moonpool_foundation::UID;
use moonpool_foundation::collections::{HashMap, SeededHashMap, seeded_hash_map};
use moonpool_foundation::network::peer::{AnswerSlot, PeerId};

#[derive(Debug, Default)]
struct Open {
    is_cancelled: bool,
    /// Of the handler that waits for the cancellation.
    waker: Option<Waker>,
}

/// See the [module's documentation](self). What is not in it any more is of no interest to anybody:
/// it was answered, or its session ended.
///
/// Bounded by the slots for answers: each entry has one.
#[derive(Debug)]
pub(crate) struct OpenRequests {
    /// By peer and reply token. A session's table stays until the session ends, so that requests
    /// that come one by one do not make it anew each time.
    sessions: HashMap<PeerId, Session>,
    len: usize,
    hash_seed: u64,
}

#[derive(Debug)]
struct Session {
    /// One of its slots, by which it can be told whether the session is over; none if they are this
    /// process's own requests.
    slot: Option<AnswerSlot>,
    /// The other end chooses the tokens: with a hasher that it knew it could choose such as collide.
    requests: SeededHashMap<UID, Open>,
}

impl OpenRequests {
    /// No request, in tables whose hashes start from `hash_seed`.
    pub(crate) fn new(hash_seed: u64) -> Self {
        Self {
            sessions: HashMap::default(),
            len: 0,
            hash_seed,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes a request in. False: the caller uses the reply token for another one, and the new one
    /// cannot be told from it.
    pub(crate) fn begin(
        &mut self,
        peer: PeerId,
        reply_token: UID,
        slot: Option<AnswerSlot>,
    ) -> bool {
        let seed = self.hash_seed;
        let session = self.sessions.entry(peer).or_insert_with(|| Session {
            slot: None,
            requests: seeded_hash_map(seed),
        });
        let Entry::Vacant(place) = session.requests.entry(reply_token) else {
            return false;
        };
        place.insert(Open::default());
        session.slot = slot;
        self.len += 1;
        true
    }

    /// The request is answered. Gives a waker to be dropped where no borrow is held.
    pub(crate) fn end(&mut self, peer: PeerId, reply_token: UID) -> Option<Waker> {
        let open = self
            .sessions
            .get_mut(&peer)?
            .requests
            .remove(&reply_token)?;
        self.len -= 1;
        open.waker
    }

    /// The caller waits no more. Gives whom to wake. `None`: there is no such request.
    pub(crate) fn cancel(&mut self, peer: PeerId, reply_token: UID) -> Option<Option<Waker>> {
        let session = self.sessions.get_mut(&peer)?;
        let open = session.requests.get_mut(&reply_token)?;
        open.is_cancelled = true;
        Some(open.waker.take())
    }

    /// One of the slots of the requests that came from this peer.
    pub(crate) fn slot_of(&self, peer: PeerId) -> Option<AnswerSlot> {
        self.sessions.get(&peer)?.slot
    }

    /// Nobody waits for answers to this session any more. Gives whom to wake.
    pub(crate) fn end_session(&mut self, peer: PeerId) -> Vec<Waker> {
        let Some(session) = self.sessions.remove(&peer) else {
            return Vec::new();
        };
        self.len -= session.requests.len();
        wakers(session).collect()
    }

    /// Nobody waits for any answer any more. Gives whom to wake.
    pub(crate) fn end_all(&mut self) -> Vec<Waker> {
        let mut sessions: Vec<_> = std::mem::take(&mut self.sessions).into_iter().collect();
        sessions.sort_unstable_by_key(|(peer, _)| *peer);
        self.len = 0;
        sessions
            .into_iter()
            .flat_map(|(_, session)| wakers(session))
            .collect()
    }

    pub(crate) fn is_cancelled(&self, peer: PeerId, reply_token: UID) -> bool {
        let session = self.sessions.get(&peer);
        let open = session.and_then(|session| session.requests.get(&reply_token));
        open.is_none_or(|open| open.is_cancelled)
    }

    /// Waits for the cancellation. An old waker is handed out to be dropped.
    pub(crate) fn poll_cancelled(
        &mut self,
        peer: PeerId,
        reply_token: UID,
        waker: &Waker,
    ) -> (Poll<()>, Option<Waker>) {
        let session = self.sessions.get_mut(&peer);
        let open = session.and_then(|session| session.requests.get_mut(&reply_token));
        match open {
            Some(open) if !open.is_cancelled => {
                let is_noted = open
                    .waker
                    .as_ref()
                    .is_some_and(|noted| noted.will_wake(waker));
                let replaced = if is_noted {
                    None
                } else {
                    open.waker.replace(waker.clone())
                };
                (Poll::Pending, replaced)
            }
            _ => (Poll::Ready(()), None),
        }
    }
}

/// In the order of the tokens.
fn wakers(session: Session) -> impl Iterator<Item = Waker> {
    let mut requests: Vec<_> = session.requests.into_iter().collect();
    requests.sort_unstable_by_key(|(token, _)| *token);
    requests.into_iter().filter_map(|(_, open)| open.waker)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PeerId = PeerId(1);
    const TOKEN: UID = UID::new(1, 1);

    fn waits(requests: &mut OpenRequests, peer: PeerId, token: UID) -> bool {
        let (poll, _) = requests.poll_cancelled(peer, token, Waker::noop());
        poll.is_pending()
    }

    #[test]
    fn only_its_own_session_cancels_a_request() {
        let mut requests = OpenRequests::new(7);
        assert!(requests.begin(A, TOKEN, None));
        assert!(waits(&mut requests, A, TOKEN));
        assert!(requests.cancel(PeerId(2), TOKEN).is_none());
        assert!(requests.cancel(A, UID::new(1, 2)).is_none());
        assert!(!requests.is_cancelled(A, TOKEN));
        assert!(requests.cancel(A, TOKEN).unwrap().is_some());
        assert!(requests.is_cancelled(A, TOKEN) && !waits(&mut requests, A, TOKEN));
    }

    #[test]
    fn the_end_of_a_session_cancels_its_requests_and_no_others() {
        let mut requests = OpenRequests::new(7);
        let other = PeerId(2);
        for peer in [A, other] {
            for number in 0..3 {
                assert!(requests.begin(peer, UID::new(9, number), None));
                assert!(waits(&mut requests, peer, UID::new(9, number)));
            }
        }
        drop(requests.end(A, UID::new(9, 0)));
        assert_eq!(requests.end_session(A).len(), 2);
        assert!(requests.is_cancelled(A, UID::new(9, 1)));
        assert!(!requests.is_cancelled(other, UID::new(9, 1)));
        assert_eq!(requests.len(), 3);
        assert_eq!(requests.end_all().len(), 3);
        assert_eq!(requests.len(), 0);
    }

    #[test]
    fn a_reply_token_that_is_used_twice_is_noticed() {
        let mut requests = OpenRequests::new(7);
        assert!(requests.begin(A, TOKEN, None));
        assert!(!requests.begin(A, TOKEN, None));
        assert_eq!(requests.len(), 1);
        drop(requests.end(A, TOKEN));
        assert!(requests.begin(A, TOKEN, None));
    }
}
