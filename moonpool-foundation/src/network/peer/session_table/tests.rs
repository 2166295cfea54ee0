use super::*;
use crate::network::peer::session::VERSION;

const SELF: UID = UID::new(2, 2);
const SESSION: UID = UID::new(5, 5);
const DRAWN: UID = UID::new(6, 1);
const OTHER: UID = UID::new(7, 7);

fn hello(generation: u64) -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        max_payload: 1000,
        features: 0,
        incarnation: UID::new(1, 1),
        session: SESSION,
        next_expected: 1,
        generation,
        expected_peer: None,
        address: None,
    }
}

const FRESH: Decision = Decision::Fresh {
    evicted: None,
    address: None,
    contested: None,
};

fn address(host: u8) -> NetworkAddress {
    format!("10.0.0.{host}:4500").parse().unwrap()
}

/// This end's address is 10.0.0.5.
fn identity() -> SessionIdentity {
    SessionIdentity {
        incarnation: SELF,
        address: Some(address(5)),
    }
}

impl SessionTable {
    /// Decides while every peer has a connection that carries its session.
    fn decide_open(&mut self, hello: &Hello, peer: PeerId, drawn: UID) -> Decision {
        self.decide_at(hello, peer, drawn, Reach::Open, 0)
    }

    /// Decides while every peer has come this far.
    fn decide_at(
        &mut self,
        hello: &Hello,
        peer: PeerId,
        drawn: UID,
        reach: Reach,
        generation: u64,
    ) -> Decision {
        let known: BTreeMap<PeerId, Option<UID>> = self
            .by_peer
            .iter()
            .map(|(peer, record)| (*peer, record.session))
            .collect();
        let standing = |peer: PeerId| {
            Some(Standing {
                session: *known.get(&peer)?,
                generation,
                reach,
                dials: false,
            })
        };
        self.decide(hello, peer, drawn, &standing)
    }
}

fn begun() -> SessionTable {
    let mut table = SessionTable::new(identity(), 2);
    let decision = table.decide_open(&hello(3), PeerId(1), DRAWN);
    assert_eq!(decision, FRESH);
    table
}

#[test]
fn a_known_session_is_resumed_by_a_higher_generation_only() {
    let mut table = begun();
    for (generation, decision) in [
        (3, Decision::Superseded { generation: 3 }),
        (2, Decision::Superseded { generation: 3 }),
        (7, Decision::Resume(PeerId(1))),
        (4, Decision::Superseded { generation: 7 }),
        (8, Decision::Resume(PeerId(1))),
    ] {
        let met = Hello {
            expected_peer: Some(SELF),
            session: DRAWN,
            ..hello(generation)
        };
        assert_eq!(table.decide_open(&met, PeerId(2), DRAWN), decision);
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn a_first_hello_that_is_repeated_finds_its_session() {
    let mut table = begun();
    let decision = table.decide_open(&hello(4), PeerId(2), DRAWN);
    assert_eq!(decision, Decision::Resume(PeerId(1)));
}

#[test]
fn another_incarnation_of_either_end_gets_a_session_of_its_own() {
    let restarted = Hello {
        incarnation: UID::new(1, 9),
        ..hello(9)
    };
    let mistaken = Hello {
        expected_peer: Some(UID::new(2, 9)),
        ..hello(9)
    };
    for stranger in [restarted, mistaken] {
        let mut table = begun();
        assert_eq!(table.decide_open(&stranger, PeerId(2), OTHER), FRESH);
        assert_eq!(table.len(), 2);
    }
}

#[test]
fn a_forgotten_session_does_not_come_back_with_a_late_hello() {
    let mut table = begun();
    table.remove(PeerId(1));
    assert_eq!(table.len(), 0);
    // The first Hello arrives again, and begins a session that nobody knows of.
    assert_eq!(table.decide_open(&hello(1), PeerId(2), OTHER), FRESH);
    // The dialler resumes what it was told: that is not here any more.
    let met = Hello {
        expected_peer: Some(SELF),
        session: DRAWN,
        next_expected: 4,
        ..hello(9)
    };
    assert_eq!(table.decide_open(&met, PeerId(3), UID::new(8, 8)), FRESH);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_full_table_evicts_what_is_longest_without_a_connection() {
    let mut table = begun();
    let other = |id| Hello {
        session: UID::new(5, id),
        ..hello(1)
    };
    assert_eq!(
        table.decide_open(&other(6), PeerId(2), UID::new(6, 6)),
        FRESH
    );
    assert_eq!(
        table.decide_open(&other(7), PeerId(3), UID::new(6, 7)),
        Decision::Full
    );
    table.handle_detached(PeerId(2));
    table.handle_detached(PeerId(1));
    table.handle_detached(PeerId(2));
    let evicted = Some(PeerId(2));
    assert_eq!(
        table.decide_open(&other(7), PeerId(3), UID::new(6, 7)),
        Decision::Fresh {
            evicted,
            address: None,
            contested: None
        }
    );
    // The other one is resumed in the meantime.
    assert_eq!(
        table.decide_open(&hello(4), PeerId(4), UID::new(6, 8)),
        Decision::Resume(PeerId(1))
    );
    assert_eq!(
        table.decide_open(&other(8), PeerId(4), UID::new(6, 8)),
        Decision::Full
    );
    assert_eq!(table.len(), 2);
    table.remove(PeerId(2));
    table.remove(PeerId(3));
    assert_eq!(table.len(), 1);
    assert_eq!(
        table.decide_open(&other(8), PeerId(4), UID::new(6, 8)),
        FRESH
    );
}

fn hello_from(host: u8, session: u64, generation: u64) -> Hello {
    Hello {
        address: Some(address(host)),
        incarnation: UID::new(1, u64::from(host)),
        session: UID::new(5, session),
        ..hello(generation)
    }
}

/// Local code has opened both addresses around our own, as peers 1 and 2.
fn opened() -> SessionTable {
    let mut table = SessionTable::new(identity(), 9);
    table.open(PeerId(1), &address(1));
    table.open(PeerId(2), &address(9));
    table
}

#[test]
fn an_accepted_session_serves_the_address_of_its_hello() {
    let mut table = SessionTable::new(identity(), 9);
    let decision = table.decide_open(&hello_from(1, 1, 1), PeerId(7), DRAWN);
    let Decision::Fresh {
        address: serves, ..
    } = decision
    else {
        panic!("{decision:?}");
    };
    assert_eq!(serves, Some(address(1)));
    assert_eq!(table.holder(&address(1)), Some(PeerId(7)));
    table.remove(PeerId(7));
    assert_eq!(table.holder(&address(1)), None);
}

#[test]
fn an_address_that_nobody_can_dial_is_served_by_nobody() {
    let mut table = SessionTable::new(identity(), 9);
    let nowhere = Hello {
        address: Some("0.0.0.0:4500".parse().unwrap()),
        ..hello(1)
    };
    assert_eq!(table.decide_open(&nowhere, PeerId(7), DRAWN), FRESH);
}

#[test]
fn a_dial_whose_hello_is_not_sent_yields() {
    for (host, peer) in [(1, PeerId(1)), (9, PeerId(2))] {
        let hello = hello_from(host, 1, 1);
        let decision = opened().decide_at(&hello, PeerId(7), DRAWN, Reach::Unsent, 0);
        let evicted = None;
        assert_eq!(decision, Decision::Adopt { peer, evicted });
    }
}

#[test]
fn of_two_first_hellos_that_cross_the_one_from_the_larger_address_counts() {
    let from_smaller =
        opened().decide_at(&hello_from(1, 1, 1), PeerId(7), DRAWN, Reach::Greeting, 1);
    assert_eq!(from_smaller, Decision::Superseded { generation: 1 });
    let from_larger =
        opened().decide_at(&hello_from(9, 1, 1), PeerId(7), DRAWN, Reach::Greeting, 1);
    let adopted = Decision::Adopt {
        peer: PeerId(2),
        evicted: None,
    };
    assert_eq!(from_larger, adopted);
}

#[test]
fn of_two_resumes_that_cross_the_higher_generation_counts_and_then_the_larger_address() {
    for (host, generation, decision) in [
        (1, 7, Decision::Superseded { generation: 7 }),
        (1, 8, Decision::Resume(PeerId(1))),
        (9, 6, Decision::Superseded { generation: 7 }),
        (9, 7, Decision::Resume(PeerId(2))),
    ] {
        let mut table = opened();
        let peer = if host == 1 { PeerId(1) } else { PeerId(2) };
        let hello = hello_from(host, 1, generation);
        table.handle_answered(peer, hello.session, hello.incarnation, 4);
        // We sent 7, and no answer came.
        let decided = table.decide_at(&hello, PeerId(7), DRAWN, Reach::Greeting, 7);
        assert_eq!(decided, decision, "{host} {generation}");
    }
}

#[test]
fn an_address_with_a_living_connection_is_contested_not_taken() {
    let mut table = opened();
    let decision = table.decide_open(&hello_from(1, 1, 1), PeerId(7), DRAWN);
    let contested = Some(PeerId(1));
    let fresh = Decision::Fresh {
        evicted: None,
        address: None,
        contested,
    };
    assert_eq!(decision, fresh);
    assert_eq!(table.holder(&address(1)), Some(PeerId(1)));
    assert!(table.heirs(PeerId(1)).eq([PeerId(7)]));
    table.pass_over(PeerId(1), PeerId(7));
    assert_eq!(table.holder(&address(1)), Some(PeerId(7)));
    assert_eq!(table.heirs(PeerId(7)).count(), 0);
    table.remove(PeerId(1));
    assert_eq!(table.holder(&address(1)), Some(PeerId(7)));
}

#[test]
fn a_hello_of_our_own_comes_from_ourselves() {
    let ours = Hello {
        incarnation: SELF,
        ..hello(1)
    };
    let decision = opened().decide_open(&ours, PeerId(7), DRAWN);
    assert_eq!(decision, Decision::Ourselves);
}

#[test]
fn a_session_that_was_dialled_can_be_resumed_from_the_other_end() {
    let mut table = opened();
    let hello = hello_from(1, 1, 4);
    table.handle_answered(PeerId(1), hello.session, hello.incarnation, 3);
    let decision = table.decide_at(&hello, PeerId(7), DRAWN, Reach::Unsent, 3);
    assert_eq!(decision, Decision::Resume(PeerId(1)));
    let late = hello_from(1, 1, 4);
    let decision = table.decide_open(&late, PeerId(7), DRAWN);
    assert_eq!(decision, Decision::Superseded { generation: 4 });
}
