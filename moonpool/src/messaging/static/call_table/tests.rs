use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use proptest::collection::vec;
use proptest::prelude::*;

use moonpool_foundation::network::peer::SessionEnded;
use moonpool_traits::Blob;

use super::*;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const TERMS: CallTerms = CallTerms {
    token: UID::new(3, 4),
    started: Duration::ZERO,
    deadline: None,
    patience: None,
};

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn body(bytes: &'static [u8]) -> KeptBody {
    KeptBody::Shared(Blob::from(bytes.to_vec()))
}

fn packet(number: u64) -> PacketId {
    PacketId::new(number)
}

fn packets(range: Range<u64>) -> Range<PacketId> {
    packet(range.start)..packet(range.end)
}

fn ended(maybe: Range<u64>, not: Range<u64>) -> SessionEnded {
    SessionEnded {
        maybe_delivered: packets(maybe),
        not_delivered: packets(not),
    }
}

fn call(table: &mut CallTable, peer: PeerId, number: u64) -> UID {
    let token = table.start(TERMS).unwrap();
    table.written(token, peer, packet(number));
    token
}

fn poll(table: &mut CallTable, token: UID) -> Option<Outcome> {
    match table.poll(token, Waker::noop()) {
        Polled::Ready(outcome) => Some(outcome),
        Polled::Waiting { .. } | Polled::Unknown => None,
    }
}

fn end_session(table: &mut CallTable, peer: PeerId, ended: &SessionEnded) -> usize {
    std::iter::from_fn(|| table.end_next_of_session(peer, ended)).count()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn timed(table: &mut CallTable, deadline: u64, patience: u64) -> UID {
    let terms = CallTerms {
        deadline: Some(secs(deadline)),
        patience: Some(secs(patience)),
        ..TERMS
    };
    let token = table.start(terms).unwrap();
    table.written(token, A, packet(token.second));
    token
}

#[test]
fn a_call_expires_at_its_deadline_and_not_before() {
    let mut table = CallTable::new(7, 100);
    let token = timed(&mut table, 10, 100);
    assert_eq!(table.next_look().map(|look| look.at), Some(secs(10)));
    assert!(table.next_due(secs(10) - Duration::from_nanos(1)).is_none());
    let Some(Due::Expired {
        token: expired,
        sent,
        ..
    }) = table.next_due(secs(10))
    else {
        panic!("it is due");
    };
    assert_eq!(expired, token);
    assert!(matches!(sent, Some(Sent::To { peer: A, .. })));
    // What its outcome is, whoever takes its request back knows.
    drop(table.fail(token, ReplyError::Timeout));
    assert_eq!((table.waiting(), table.next_look()), (0, None));
    assert!(!table.has_calls_of(A));
    assert_eq!(poll(&mut table, token), Some(Err(ReplyError::Timeout)));
}

#[test]
fn patience_is_counted_from_the_call_and_the_last_failure() {
    let mut table = CallTable::new(7, 100);
    let token = timed(&mut table, 10, 3);
    assert_eq!(table.next_look().map(|look| look.at), Some(secs(3)));
    let unsure = table.next_due(secs(3));
    assert!(
        matches!(unsure, Some(Due::Unsure { peer: A, .. })),
        "{unsure:?}"
    );
    // There was a connection until a second ago.
    assert!(table.look_again(secs(3), token, lost_at(secs(2))));
    assert_eq!(table.next_look().map(|look| look.at), Some(secs(5)));
    assert!(table.next_due(secs(5)).is_some());
    assert!(!table.look_again(secs(5), token, lost_at(secs(2))));
    // A loss before the call counts from the call.
    let terms = CallTerms {
        started: secs(4),
        patience: Some(secs(3)),
        ..TERMS
    };
    let late = table.start(terms).unwrap();
    table.written(late, A, packet(100));
    assert!(table.look_again(secs(6), late, lost_at(secs(1))));
    assert!(!table.look_again(secs(7), late, lost_at(secs(1))));
}

/// However short its patience is; and it is not looked at all the time.
#[test]
fn patience_does_not_run_out_while_there_is_a_connection() {
    let mut table = CallTable::new(7, 100);
    let token = timed(&mut table, 10, 0);
    assert_eq!(table.next_look().map(|look| look.at), Some(Duration::ZERO));
    assert!(table.next_due(Duration::ZERO).is_some());
    assert!(table.look_again(Duration::ZERO, token, Connectivity::Connected));
    let next = table.next_look().unwrap().at;
    assert!(next > Duration::ZERO && next <= Duration::from_millis(50));
    assert!(table.next_due(next).is_some());
    assert!(!table.look_again(next, token, lost_at(next)));
}

fn lost_at(at: Duration) -> Connectivity {
    Connectivity::LostAt(at)
}

#[test]
fn a_call_that_ends_takes_its_deadline_along() {
    let mut table = CallTable::new(7, 100);
    let [replied, forgotten, failed, local] = [4, 5, 6, 7].map(|at| timed(&mut table, at, 100));
    assert!(matches!(
        table.reply(replied, Some(A), Ok(body(b""))),
        Arrival::Ended { .. }
    ));
    drop(table.forget(forgotten));
    drop(table.fail(failed, ReplyError::MaybeDelivered));
    // Their times may still be looked at, and then there is nothing to do.
    assert!(table.next_look().is_some_and(|look| look.at <= secs(7)));
    assert!(table.next_due(secs(6)).is_none());
    assert_eq!(table.next_look().map(|look| look.at), Some(secs(7)));
    drop(table.forget(local));
    assert_eq!(table.next_look().map(|look| look.at), None);
    // Its slot's next call is not confused with it.
    let next = timed(&mut table, 9, 100);
    drop(table.forget(local));
    assert_eq!(table.next_look().map(|look| look.at), Some(secs(9)));
    drop(table.forget(next));
}

#[test]
fn the_longest_patience_of_a_peers_calls_is_known() {
    let mut table = CallTable::new(7, 100);
    let calls = [3, 30, 5].map(|patience| timed(&mut table, 100, patience));
    assert_eq!(table.patience_with(A), Some(secs(30)));
    for call in calls {
        drop(table.forget(call));
    }
    assert_eq!(table.patience_with(A), None);
}

#[test]
fn a_call_follows_those_that_are_left_when_the_last_one_ended() {
    let mut table = CallTable::new(7, 100);
    call(&mut table, A, 1);
    let last = call(&mut table, A, 2);
    table.forget(last);
    call(&mut table, A, 3);
    assert_eq!(std::iter::from_fn(|| table.end_next_of_peer(A)).count(), 2);
}

#[test]
fn calls_beyond_the_limit_are_not_started() {
    let mut table = CallTable::new(7, 2);
    let [first, second] = [1, 2].map(|number| call(&mut table, A, number));
    assert_eq!(table.start(TERMS), None);
    drop(table.fail(first, ReplyError::Timeout));
    let third = table.start(TERMS).unwrap();
    assert_eq!(table.start(TERMS), None);
    drop((table.forget(second), table.forget(third)));
    assert_eq!(table.waiting(), 0);
}

#[test]
fn a_reply_ends_its_call_once() {
    let mut table = CallTable::new(7, 100);
    let token = call(&mut table, A, 1);
    let reply = || Ok(body(b"42"));
    assert!(matches!(
        table.reply(token, Some(A), reply()),
        Arrival::Ended { waker: None, .. }
    ));
    assert!(matches!(
        table.reply(token, Some(A), reply()),
        Arrival::Late
    ));
    assert_eq!(poll(&mut table, token), Some(reply()));
    assert!(matches!(
        table.reply(token, Some(A), reply()),
        Arrival::Late
    ));
    assert!(matches!(table.poll(token, Waker::noop()), Polled::Unknown));
    assert_eq!((table.waiting(), table.len()), (0, 0));
    assert!(!table.has_calls_of(A));
}

#[test]
fn a_reply_from_another_peer_is_late() {
    let mut table = CallTable::new(7, 100);
    let (remote, local) = (call(&mut table, A, 1), table.start(TERMS).unwrap());
    for (token, from) in [(remote, Some(B)), (remote, None), (local, Some(A))] {
        assert!(matches!(
            table.reply(token, from, Ok(body(b""))),
            Arrival::Late
        ));
    }
    assert!(matches!(
        table.reply(local, None, Ok(body(b""))),
        Arrival::Ended { .. }
    ));
}

#[test]
fn the_last_waker_is_woken_and_the_others_are_handed_out() {
    let mut table = CallTable::new(7, 100);
    let token = call(&mut table, A, 1);
    let (first, second) = (Arc::new(Counting::default()), Arc::new(Counting::default()));
    let waker = Waker::from(first.clone());
    assert!(matches!(
        table.poll(token, &waker),
        Polled::Waiting { replaced: None }
    ));
    assert!(matches!(
        table.poll(token, &waker),
        Polled::Waiting { replaced: None }
    ));
    let Polled::Waiting { replaced: Some(_) } = table.poll(token, &second.clone().into()) else {
        panic!("the first waker is not handed out");
    };
    let Arrival::Ended {
        waker: Some(waker), ..
    } = table.reply(token, Some(A), Ok(body(b"")))
    else {
        panic!("no waker");
    };
    waker.wake();
    assert_eq!(first.0.load(Ordering::Relaxed), 0);
    assert_eq!(second.0.load(Ordering::Relaxed), 1);
}

#[test]
fn a_dead_connection_ends_its_own_calls_by_what_happened_to_each() {
    let mut table = CallTable::new(7, 100);
    let acknowledged = call(&mut table, A, 1);
    let other = call(&mut table, B, 1);
    let written = call(&mut table, A, 2);
    let withdrawn = call(&mut table, A, 4);
    let queued = call(&mut table, A, 5);
    assert_eq!(end_session(&mut table, A, &ended(2..4, 4..5)), 3);
    assert_eq!(
        poll(&mut table, acknowledged),
        Some(Err(ReplyError::MaybeDelivered))
    );
    assert_eq!(
        poll(&mut table, written),
        Some(Err(ReplyError::MaybeDelivered))
    );
    assert_eq!(
        poll(&mut table, withdrawn),
        Some(Err(ReplyError::ConnectionFailed))
    );
    assert_eq!(poll(&mut table, queued), None);
    assert_eq!(poll(&mut table, other), None);
    assert_eq!(table.waiting(), 2);
}

#[test]
fn a_queued_call_survives_a_session_that_never_was() {
    let mut table = CallTable::new(7, 100);
    let token = call(&mut table, A, 1);
    assert_eq!(end_session(&mut table, A, &ended(1..1, 1..1)), 0);
    assert_eq!(end_session(&mut table, A, &ended(1..1, 1..2)), 1);
    assert_eq!(
        poll(&mut table, token),
        Some(Err(ReplyError::ConnectionFailed))
    );
}

#[test]
fn a_forgotten_call_leaves_nothing_behind() {
    let mut table = CallTable::new(7, 100);
    let tokens: Vec<UID> = (1..=3).map(|number| call(&mut table, A, number)).collect();
    for token in [tokens[1], tokens[0], tokens[2]] {
        table.forget(token);
    }
    assert_eq!((table.waiting(), table.len()), (0, 0));
    assert!(!table.has_calls_of(A));
    assert!(matches!(
        table.reply(tokens[0], Some(A), Ok(body(b""))),
        Arrival::Late
    ));
}

proptest! {
    /// Calls end in any order; then the peer goes. Each call ends exactly once.
    #[test]
    fn a_lost_peer_ends_what_is_left(
        peers in vec(any::<bool>(), 1..60),
        replies in vec(any::<prop::sample::Index>(), 0..60),
        forgotten in vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut table = CallTable::new(7, 100);
        let calls: Vec<(UID, PeerId)> = (1_u64..)
            .zip(&peers)
            .map(|(number, &first)| {
                let peer = if first { A } else { B };
                (call(&mut table, peer, number), peer)
            })
            .collect();
        let mut open: Vec<(UID, PeerId)> = calls.clone();
        for index in replies {
            let (token, peer) = *index.get(&calls);
            let expected = open.contains(&(token, peer));
            let arrival = table.reply(token, Some(peer), Ok(body(b"")));
            prop_assert_eq!(matches!(arrival, Arrival::Ended { .. }), expected);
            open.retain(|call| call.0 != token);
        }
        for index in forgotten {
            let (token, _) = *index.get(&calls);
            table.forget(token);
            open.retain(|call| call.0 != token);
        }
        prop_assert_eq!(table.waiting(), open.len());
        for peer in [A, B] {
            let left = open.iter().filter(|call| call.1 == peer).count();
            let count = std::iter::from_fn(|| table.end_next_of_peer(peer)).count();
            prop_assert_eq!(count, left);
        }
        prop_assert_eq!(table.waiting(), 0);
        prop_assert!(table.lists.is_empty());
    }
}

#[test]
fn a_withdrawn_packet_ends_its_own_call() {
    let mut table = CallTable::new(7, 100);
    let tokens: Vec<UID> = (1..=3).map(|number| call(&mut table, A, number)).collect();
    table.end_packet(A, packet(2), ReplyError::PayloadTooLarge);
    table.end_packet(A, packet(9), ReplyError::PayloadTooLarge);
    table.end_packet(B, packet(1), ReplyError::PayloadTooLarge);
    assert_eq!(
        poll(&mut table, tokens[1]),
        Some(Err(ReplyError::PayloadTooLarge))
    );
    assert_eq!(table.waiting(), 2);
}

#[test]
fn patience_alone_is_no_certain_look() {
    let mut table = CallTable::new(1, 10);
    let patient = CallTerms {
        patience: Some(secs(3)),
        ..TERMS
    };
    let first = table.start(patient).unwrap();
    assert!(!table.next_look().unwrap().is_certain);
    let second = timed(&mut table, 5, 3);
    assert!(table.next_look().unwrap().is_certain);
    drop(table.forget(second));
    assert!(!table.next_look().unwrap().is_certain);
    drop(table.forget(first));
    assert_eq!(table.next_look(), None);
}

#[test]
fn only_an_answer_to_a_promise_ends_it_and_it_ends_nothing_else() {
    let mut table = CallTable::new(7, 10);
    let asked = call(&mut table, A, 1);
    let promise = table.start_promise(TERMS, 77).unwrap();
    let other = table.start_promise(TERMS, 78).unwrap();
    assert_eq!((promise.first, other.first), (77, 78));
    for from in [None, Some(A), Some(B)] {
        let reply = table.reply(promise, from, Ok(body(b"")));
        assert!(matches!(reply, Arrival::Late));
    }
    for guess in [
        asked,
        UID::new(77, asked.second),
        UID::new(7, promise.second),
        UID::new(77, other.second),
    ] {
        assert!(table.end_promise(guess, Ok(body(b""))).is_none());
    }
    assert_eq!(table.waiting(), 3);
    assert!(table.end_promise(promise, Ok(body(b""))).is_some());
    assert!(table.end_promise(promise, Ok(body(b""))).is_none());
    assert_eq!(poll(&mut table, promise), Some(Ok(body(b""))));
    drop(table.forget(other));
    assert!(table.end_promise(other, Ok(body(b""))).is_none());
    assert_eq!(table.waiting(), 1);
}
