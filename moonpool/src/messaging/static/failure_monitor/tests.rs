use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use ConnectionChange::{Failed, Lost, Opened};

use super::*;

const HERE: Destination = (IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const THERE: Destination = (IpAddr::V4(Ipv4Addr::LOCALHOST), 2);
const PEER: PeerId = PeerId(1);
const FIRST_LIFE: UID = UID::new(7, 7);
const SECOND_LIFE: UID = UID::new(8, 8);
const TOKEN: UID = UID::new(5, 5);

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A table with a peer for `HERE`.
fn table() -> FailureTable {
    let mut table = FailureTable::new();
    table.handle_peer(HERE, PEER);
    table
}

/// Gives how many were woken.
fn change(table: &mut FailureTable, change: ConnectionChange) -> usize {
    let woken = table.handle_change(HERE, PEER, change, Some(FIRST_LIFE));
    woken.into_iter().map(Waker::wake).count()
}

fn is_waiting(table: &mut FailureTable, key: SlotKey) -> bool {
    matches!(table.poll(key, Waker::noop()), Polled::Waiting { .. })
}

fn is_resolved(table: &mut FailureTable, key: SlotKey) -> bool {
    matches!(table.poll(key, Waker::noop()), Polled::Resolved)
}

#[test]
fn an_address_is_failed_from_the_failure_to_the_next_working_connection() {
    let mut table = table();
    assert_eq!(table.state(HERE), AddressState::Available);
    for (event, state) in [
        (Opened, AddressState::Available),
        (Lost, AddressState::Available),
        (Failed, AddressState::Failed),
        (Opened, AddressState::Available),
        (Lost, AddressState::Available),
    ] {
        change(&mut table, event);
        assert_eq!(table.state(HERE), state, "after {event:?}");
        assert_eq!(table.state(THERE), AddressState::Available);
    }
}

#[test]
fn each_watch_is_resolved_by_its_own_events() {
    use Awaited::{Disconnect, Failed as Fails, Working};
    let rows: [(&[ConnectionChange], [bool; 3]); 6] = [
        (&[], [false, false, false]),
        (&[Opened], [false, true, false]),
        (&[Opened, Lost], [false, true, true]),
        (&[Failed], [true, false, true]),
        (&[Opened, Lost, Failed], [true, true, true]),
        (&[Failed, Opened], [true, true, true]),
    ];
    for (events, expected) in rows {
        let mut table = table();
        let keys = [Fails, Working, Disconnect].map(|awaited| table.watch(HERE, awaited).unwrap());
        for event in events {
            change(&mut table, *event);
        }
        let resolved = keys.map(|key| is_resolved(&mut table, key));
        assert_eq!(resolved, expected, "after {events:?}");
        let waiting = expected.iter().filter(|resolved| !**resolved).count();
        assert_eq!(table.waiting(), waiting);
    }
}

#[test]
fn a_watch_that_begins_late_is_resolved_at_once_by_a_state_but_not_by_an_event() {
    let mut table = table();
    change(&mut table, Opened);
    let working = table.watch(HERE, Awaited::Working).unwrap();
    assert!(is_resolved(&mut table, working));
    change(&mut table, Lost);
    let (lost, working) = (
        table.watch(HERE, Awaited::Disconnect).unwrap(),
        table.watch(HERE, Awaited::Working).unwrap(),
    );
    assert!(is_waiting(&mut table, lost) && is_waiting(&mut table, working));
    change(&mut table, Failed);
    let (failed, lost) = (
        table.watch(HERE, Awaited::Failed).unwrap(),
        table.watch(HERE, Awaited::Disconnect).unwrap(),
    );
    assert!(is_resolved(&mut table, failed) && is_resolved(&mut table, lost));
}

#[test]
fn the_last_poller_is_woken_once_and_no_other_address() {
    let mut table = table();
    let here = table.watch(HERE, Awaited::Failed).unwrap();
    let there = table.watch(THERE, Awaited::Failed).unwrap();
    let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
    for count in [&first, &last] {
        let waker = Waker::from(Arc::clone(count));
        assert!(matches!(table.poll(here, &waker), Polled::Waiting { .. }));
    }
    assert!(is_waiting(&mut table, there));
    assert_eq!(change(&mut table, Failed), 1);
    assert_eq!(change(&mut table, Failed), 0);
    let woken = [first, last].map(|count| count.0.load(Ordering::Relaxed));
    assert_eq!(woken, [0, 1]);
    assert!(is_waiting(&mut table, there));
}

#[test]
fn watches_end_with_their_peer_and_a_lost_connection_is_told_before() {
    let mut table = table();
    change(&mut table, Opened);
    let lost = table.watch(HERE, Awaited::Disconnect).unwrap();
    let failed = table.watch(HERE, Awaited::Failed).unwrap();
    assert!(is_waiting(&mut table, failed));
    table.handle_finished(HERE, PeerId(99));
    assert!(is_waiting(&mut table, failed), "another's end");
    assert_eq!(table.handle_finished(HERE, PEER).len(), 1);
    assert!(is_resolved(&mut table, lost));
    assert!(matches!(table.poll(failed, Waker::noop()), Polled::Ended));
    assert_eq!((table.addresses(), table.waiting()), (0, 0));
}

#[test]
fn news_of_a_former_peer_count_no_more() {
    let mut table = table();
    change(&mut table, Failed);
    table.handle_peer(HERE, PeerId(2));
    assert_eq!(table.state(HERE), AddressState::Available);
    change(&mut table, Failed);
    assert_eq!(table.state(HERE), AddressState::Available);
}

#[test]
fn closing_ends_every_watch_and_forgets_everything() {
    let mut table = table();
    change(&mut table, Failed);
    table.handle_not_found(HERE, TOKEN, FIRST_LIFE);
    let waits = table.watch(HERE, Awaited::Working).unwrap();
    assert!(is_waiting(&mut table, waits));
    assert_eq!(table.close().len(), 1);
    assert!(matches!(table.poll(waits, Waker::noop()), Polled::Ended));
    assert_eq!(
        (table.addresses(), table.waiting(), table.missing()),
        (0, 0, 0)
    );
    assert_eq!(table.state(HERE), AddressState::Available);
}

#[test]
fn a_missing_endpoint_is_failed_until_another_incarnation_is_there() {
    let mut table = table();
    table.handle_not_found(HERE, TOKEN, FIRST_LIFE);
    assert_eq!(table.endpoint_state(HERE, TOKEN), EndpointState::NotFound);
    assert_eq!(table.endpoint_state(THERE, TOKEN), EndpointState::Available);
    change(&mut table, Failed);
    let (missing, other) = (TOKEN, UID::new(6, 6));
    assert_eq!(table.endpoint_state(HERE, missing), EndpointState::NotFound);
    assert_eq!(
        table.endpoint_state(HERE, other),
        EndpointState::AddressFailed
    );
    change(&mut table, Opened);
    assert_eq!(table.endpoint_state(HERE, missing), EndpointState::NotFound);
    table.handle_change(HERE, PEER, Opened, Some(SECOND_LIFE));
    assert_eq!(
        table.endpoint_state(HERE, missing),
        EndpointState::Available
    );
    assert_eq!(table.missing(), 0);
}

#[test]
fn a_well_known_endpoint_is_never_missing() {
    let mut table = table();
    let ping = moonpool_foundation::WellKnownToken::Ping.token();
    table.handle_not_found(HERE, ping, FIRST_LIFE);
    assert_eq!(table.endpoint_state(HERE, ping), EndpointState::Available);
}

#[test]
fn nothing_grows_with_addresses_watches_or_missing_endpoints_that_come_and_go() {
    let mut table = FailureTable::new();
    for number in 0..6_000_u16 {
        let (destination, peer) = ((HERE.0, number), PeerId(number.into()));
        table.handle_peer(destination, peer);
        let resolved = table.watch(destination, Awaited::Failed).unwrap();
        let dropped = table.watch(destination, Awaited::Working).unwrap();
        table.handle_change(destination, peer, Failed, None);
        table.handle_not_found(destination, TOKEN, FIRST_LIFE);
        table.forget(resolved);
        table.forget(dropped);
        table.handle_finished(destination, peer);
        // Another incarnation each time: what is forgotten must not pile up in the order.
        table.handle_not_found(HERE, UID::new(9, number.into()), FIRST_LIFE);
        table.handle_peer(HERE, peer);
        table.handle_change(HERE, peer, Opened, Some(SECOND_LIFE));
    }
    assert_eq!((table.addresses(), table.watches.len()), (1, 0));
    assert_eq!(table.missing(), table.missing_order.len());
    assert!((MAX_MISSING - 1..=MAX_MISSING).contains(&table.missing()));
    let last = (HERE.0, 5_999);
    assert_eq!(table.endpoint_state(last, TOKEN), EndpointState::NotFound);
    assert_eq!(
        table.endpoint_state((HERE.0, 1_000), TOKEN),
        EndpointState::Available
    );
}
