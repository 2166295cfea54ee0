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

const FRESH: Decision = Decision::Fresh { evicted: None };

fn begun() -> SessionTable {
    let mut table = SessionTable::new(SELF, 2);
    let decision = table.decide(&hello(3), PeerId(1), DRAWN);
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
        assert_eq!(table.decide(&met, PeerId(2), DRAWN), decision);
    }
    assert_eq!(table.len(), 1);
}

#[test]
fn a_first_hello_that_is_repeated_finds_its_session() {
    let mut table = begun();
    let decision = table.decide(&hello(4), PeerId(2), DRAWN);
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
        assert_eq!(table.decide(&stranger, PeerId(2), OTHER), FRESH);
        assert_eq!(table.len(), 2);
    }
}

#[test]
fn a_forgotten_session_does_not_come_back_with_a_late_hello() {
    let mut table = begun();
    table.remove(PeerId(1));
    assert_eq!(table.len(), 0);
    // The first Hello arrives again, and begins a session that nobody knows of.
    assert_eq!(table.decide(&hello(1), PeerId(2), OTHER), FRESH);
    // The dialler resumes what it was told: that is not here any more.
    let met = Hello {
        expected_peer: Some(SELF),
        session: DRAWN,
        next_expected: 4,
        ..hello(9)
    };
    assert_eq!(table.decide(&met, PeerId(3), UID::new(8, 8)), FRESH);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_full_table_evicts_what_is_longest_without_a_connection() {
    let mut table = begun();
    let other = |id| Hello {
        session: UID::new(5, id),
        ..hello(1)
    };
    assert_eq!(table.decide(&other(6), PeerId(2), UID::new(6, 6)), FRESH);
    assert_eq!(
        table.decide(&other(7), PeerId(3), UID::new(6, 7)),
        Decision::Full
    );
    table.handle_detached(PeerId(2));
    table.handle_detached(PeerId(1));
    table.handle_detached(PeerId(2));
    let evicted = Some(PeerId(2));
    assert_eq!(
        table.decide(&other(7), PeerId(3), UID::new(6, 7)),
        Decision::Fresh { evicted }
    );
    // The other one is resumed in the meantime.
    assert_eq!(
        table.decide(&hello(4), PeerId(4), UID::new(6, 8)),
        Decision::Resume(PeerId(1))
    );
    assert_eq!(
        table.decide(&other(8), PeerId(4), UID::new(6, 8)),
        Decision::Full
    );
    assert_eq!(table.len(), 2);
    table.remove(PeerId(2));
    table.remove(PeerId(3));
    assert_eq!(table.len(), 1);
    assert_eq!(table.decide(&other(8), PeerId(4), UID::new(6, 8)), FRESH);
}
