//! The requests that were admitted and are not answered: whether their callers still wait. Pure;
//! wakers are handed out for the caller to use once no borrow is held.

use std::task::{Poll, Waker};

use moonpool_foundation::UID;
use moonpool_foundation::collections::{SeededHashMap, seeded_hash_map};
use moonpool_foundation::network::peer::{AnswerSlot, PeerId};

use super::per_peer::PerPeer;
use super::slot_table::SlotKey;

/// Rows that a session's table begins with.
const FIRST_ROWS: usize = 16;

/// Rows that a table may have whatever it holds: 10 KiB.
const SMALL_TABLE: usize = 256;

/// Rows that a larger one may have for each request in it.
const ROWS_EACH: usize = 4;

#[derive(Debug)]
struct Open {
    reply_token: UID,
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
    /// A session's table stays until the session ends, so that requests that come one by one do not
    /// make it anew each time.
    sessions: PerPeer<Session>,
    len: usize,
    hash_seed: u64,
}

/// The requests of one session, by their reply tokens. The other end chooses these.
#[derive(Debug)]
struct Session {
    /// One of its slots, by which it can be told whether the session is over; none if they are this
    /// process's own requests.
    slot: Option<AnswerSlot>,
    /// By the last bits of the index that a reply token of another
    /// [`CallTable`](super::call_table::CallTable) has in its lower half: such indices are small, and each
    /// is used by one call at a time. A power of two, or none.
    rows: Vec<Option<Open>>,
    in_rows: usize,
    /// Those whose row is taken: with a hasher that the other end knew it could choose such as collide.
    others: SeededHashMap<UID, Open>,
}

impl Session {
    fn new(hash_seed: u64) -> Self {
        Self {
            slot: None,
            rows: Vec::new(),
            in_rows: 0,
            others: seeded_hash_map(hash_seed),
        }
    }

    /// False: there is one with this token.
    #[inline]
    fn insert(&mut self, reply_token: UID) -> bool {
        let open = Open {
            reply_token,
            is_cancelled: false,
            waker: None,
        };
        if !self.others.is_empty() && self.others.contains_key(&reply_token) {
            return false;
        }
        loop {
            let index = self.row_of(reply_token);
            match self.rows.get_mut(index) {
                Some(row @ None) => {
                    *row = Some(open);
                    self.in_rows += 1;
                    return true;
                }
                Some(Some(found)) if found.reply_token == reply_token => return false,
                Some(Some(_)) | None => {}
            }
            if !self.may_grow() {
                self.others.insert(reply_token, open);
                return true;
            }
            self.grow();
        }
    }

    fn may_grow(&self) -> bool {
        self.rows.len() < SMALL_TABLE.max(ROWS_EACH * self.len())
    }

    /// Whatever has a row has one again: rows that differ in their last bits do so in one bit more.
    #[cold]
    fn grow(&mut self) {
        let count = (2 * self.rows.len()).max(FIRST_ROWS);
        let rows = std::mem::take(&mut self.rows);
        self.rows.resize_with(count, || None);
        for open in rows.into_iter().flatten() {
            let index = self.row_of(open.reply_token);
            self.rows[index] = Some(open);
        }
    }

    /// The row that the request has, if it has one.
    #[inline]
    fn row_of(&self, reply_token: UID) -> usize {
        let index = SlotKey::from_bits(reply_token.second).index as usize;
        index & self.rows.len().wrapping_sub(1)
    }

    #[inline]
    fn get(&self, reply_token: UID) -> Option<&Open> {
        match self.rows.get(self.row_of(reply_token)) {
            Some(Some(open)) if open.reply_token == reply_token => Some(open),
            _ => self.others.get(&reply_token),
        }
    }

    #[inline]
    fn get_mut(&mut self, reply_token: UID) -> Option<&mut Open> {
        let index = self.row_of(reply_token);
        match self.rows.get_mut(index) {
            Some(Some(open)) if open.reply_token == reply_token => Some(open),
            _ => self.others.get_mut(&reply_token),
        }
    }

    #[inline]
    fn remove(&mut self, reply_token: UID) -> Option<Open> {
        let index = self.row_of(reply_token);
        if let Some(row) = self.rows.get_mut(index)
            && row
                .as_ref()
                .is_some_and(|open| open.reply_token == reply_token)
        {
            self.in_rows -= 1;
            return row.take();
        }
        self.others.remove(&reply_token)
    }

    fn len(&self) -> usize {
        self.in_rows + self.others.len()
    }

    /// Those who wait for a cancellation, in the order of the tokens.
    fn into_wakers(self) -> impl Iterator<Item = Waker> {
        let mut requests: Vec<Open> = self.rows.into_iter().flatten().collect();
        requests.extend(self.others.into_values());
        requests.sort_unstable_by_key(|open| open.reply_token);
        requests.into_iter().filter_map(|open| open.waker)
    }
}

impl OpenRequests {
    /// No request, in tables whose hashes start from `hash_seed`.
    pub(crate) fn new(hash_seed: u64) -> Self {
        Self {
            sessions: PerPeer::default(),
            len: 0,
            hash_seed,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes a request in. False: the caller uses the reply token for another one, and the new one
    /// cannot be told from it.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        peer: PeerId,
        reply_token: UID,
        slot: Option<AnswerSlot>,
    ) -> bool {
        let seed = self.hash_seed;
        let place = self.sessions.open(peer, || Session::new(seed));
        let Some(session) = self.sessions.at_mut(place) else {
            return false;
        };
        if !session.insert(reply_token) {
            return false;
        }
        session.slot = slot;
        self.len += 1;
        true
    }

    /// The request is answered. Gives a waker to be dropped where no borrow is held.
    #[inline]
    pub(crate) fn end(&mut self, peer: PeerId, reply_token: UID) -> Option<Waker> {
        let open = self.sessions.get_mut(peer)?.remove(reply_token)?;
        self.len -= 1;
        open.waker
    }

    /// The caller waits no more. Gives whom to wake. `None`: there is no such request.
    pub(crate) fn cancel(&mut self, peer: PeerId, reply_token: UID) -> Option<Option<Waker>> {
        let open = self.sessions.get_mut(peer)?.get_mut(reply_token)?;
        open.is_cancelled = true;
        Some(open.waker.take())
    }

    /// One of the slots of the requests that came from this peer.
    pub(crate) fn slot_of(&self, peer: PeerId) -> Option<AnswerSlot> {
        self.sessions.get(peer)?.slot
    }

    /// Nobody waits for answers to this session any more. Gives whom to wake.
    pub(crate) fn end_session(&mut self, peer: PeerId) -> Vec<Waker> {
        let Some(session) = self.sessions.remove(peer) else {
            return Vec::new();
        };
        self.len -= session.len();
        session.into_wakers().collect()
    }

    /// Nobody waits for any answer any more. Gives whom to wake.
    pub(crate) fn end_all(&mut self) -> Vec<Waker> {
        self.len = 0;
        let sessions = self.sessions.drain();
        sessions
            .into_iter()
            .flat_map(|(_, session)| session.into_wakers())
            .collect()
    }

    pub(crate) fn is_cancelled(&self, peer: PeerId, reply_token: UID) -> bool {
        let session = self.sessions.get(peer);
        let open = session.and_then(|session| session.get(reply_token));
        open.is_none_or(|open| open.is_cancelled)
    }

    /// Waits for the cancellation. An old waker is handed out to be dropped.
    pub(crate) fn poll_cancelled(
        &mut self,
        peer: PeerId,
        reply_token: UID,
        waker: &Waker,
    ) -> (Poll<()>, Option<Waker>) {
        let session = self.sessions.get_mut(peer);
        let open = session.and_then(|session| session.get_mut(reply_token));
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

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

    /// Tokens that another end may choose: as a table of calls does, far apart, and colliding.
    fn token() -> impl Strategy<Value = UID> {
        let index = prop_oneof![0_u64..8, Just(u64::from(u32::MAX)), 250..300_u64];
        (index, 0_u64..3).prop_map(|(index, generation)| UID::new(9, (generation << 32) | index))
    }

    proptest! {
        /// Against a model: a set of peers and tokens.
        #[test]
        fn open_requests_agree_with_their_model(
            ops in vec((0_u8..4, 0_u64..2, token()), 1..300),
        ) {
            let mut requests = OpenRequests::new(7);
            let mut model = BTreeMap::new();
            for (op, peer, token) in ops {
                let peer = PeerId(peer);
                match op {
                    0 | 1 => {
                        let is_new = requests.begin(peer, token, None);
                        prop_assert_eq!(is_new, !model.contains_key(&(peer, token)));
                        model.entry((peer, token)).or_insert(false);
                    }
                    2 => {
                        drop(requests.end(peer, token));
                        model.remove(&(peer, token));
                    }
                    _ => {
                        let known = requests.cancel(peer, token).is_some();
                        let cancelled = model.get_mut(&(peer, token));
                        prop_assert_eq!(known, cancelled.is_some());
                        cancelled.into_iter().for_each(|cancelled| *cancelled = true);
                    }
                }
                let expected = model.get(&(peer, token)).copied().unwrap_or(true);
                prop_assert_eq!(requests.is_cancelled(peer, token), expected);
                prop_assert_eq!(requests.len(), model.len());
            }
        }
    }

    #[test]
    fn tokens_that_collide_make_no_large_table() {
        let mut requests = OpenRequests::new(7);
        for number in 0..100_u64 {
            assert!(requests.begin(A, UID::new(9, number << 32), None));
        }
        let session = requests.sessions.get(A).unwrap();
        assert_eq!((session.in_rows, session.len()), (1, 100));
        assert!(session.rows.len() <= 2 * ROWS_EACH * 100);
    }

    #[test]
    fn tokens_of_a_table_of_calls_need_no_hash() {
        let mut requests = OpenRequests::new(7);
        for number in 0..10_000_u64 {
            let index = |number: u64| UID::new(9, (number << 32) | (number % 200));
            assert!(requests.begin(A, index(number), None));
            if let Some(before) = number.checked_sub(150) {
                drop(requests.end(A, index(before)));
            }
        }
        let session = requests.sessions.get(A).unwrap();
        assert_eq!((session.in_rows, session.others.capacity()), (150, 0));
    }
}
