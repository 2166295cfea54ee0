//! When the state can be left alone although packets came and went.

use super::*;
use crate::network::peer::state::Alarms;
use crate::network::peer::terms::{Account, Expiry, PacketTerms};

const UNSET: Duration = Duration::MAX;

fn alarms(ordinary: Duration, background: Duration) -> Alarms {
    Alarms {
        ordinary,
        background,
    }
}

/// An open connection whose deadlines were told.
fn timed() -> Kit {
    let kit = Kit::open();
    kit.timeout(ZERO);
    kit
}

fn can_rest(kit: &Kit, now: Duration, alarms: Alarms) -> bool {
    let mut state = kit.handle.state();
    let is_owed = state.unacknowledged() > 0;
    state.can_rest(now, is_owed, alarms)
}

#[test]
fn what_was_written_needs_an_alarm_for_its_keepalive() {
    let kit = timed();
    assert!(can_rest(&kit, ms(10), alarms(UNSET, UNSET)));
    kit.send("a");
    kit.write_all();
    assert!(
        !can_rest(&kit, ms(20), alarms(UNSET, ms(500))),
        "another class"
    );
    assert!(!can_rest(&kit, ms(20), alarms(ms(1_021), UNSET)));
    assert!(can_rest(&kit, ms(20), alarms(ms(1_020), UNSET)));
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
    assert!(can_rest(&kit, ms(30), alarms(UNSET, UNSET)));
    let awaits = |alarms| kit.handle.state().can_rest(ms(30), true, alarms);
    assert!(!awaits(alarms(ms(500), UNSET)) && awaits(alarms(UNSET, ms(1_030))));
}

#[test]
fn an_answer_needs_an_alarm_for_its_expiry() {
    let kit = timed();
    let terms = PacketTerms {
        account: Account::Answer(kit.handle.reserve_answer().unwrap()),
        expiry: Some(Expiry {
            at: ms(100),
            remaining_offset: None,
        }),
    };
    let encode = |_: &mut bytes::BytesMut| Ok::<_, ()>(());
    kit.handle
        .send_reliable_under(TOKEN, terms, encode)
        .unwrap();
    kit.write_all();
    assert!(!can_rest(&kit, ms(10), alarms(ms(101), UNSET)));
    assert!(can_rest(&kit, ms(10), alarms(ms(100), UNSET)));
}

#[test]
fn a_connection_has_to_tell_its_deadlines_before_it_is_left_alone() {
    let kit = timed();
    assert!(can_rest(&kit, ms(10), alarms(UNSET, UNSET)));
    kit.closed(ms(10), lost());
    assert!(!can_rest(&kit, ms(10), alarms(UNSET, UNSET)));
    kit.handle.reconnect();
    kit.greet(ms(1_000));
    kit.changes();
    assert!(!can_rest(&kit, ms(1_000), alarms(UNSET, UNSET)));
    kit.timeout(ms(1_000));
    assert!(can_rest(&kit, ms(1_000), alarms(UNSET, UNSET)));
}

#[test]
fn packets_that_are_queued_need_no_decision_unless_there_is_more() {
    let kit = timed();
    kit.send("a");
    assert!(
        !can_rest(&kit, ms(10), alarms(ms(500), UNSET)),
        "not laid out"
    );
    assert!(kit.handle.state().handle_queued(ms(10)));
    assert_eq!(kit.payloads(), ["a"]);
    kit.handle.reconnect();
    assert!(!kit.handle.state().handle_queued(ms(20)), "to be closed");
    let kit = timed();
    kit.handle.start_close(ms(1_000));
    assert!(!kit.handle.state().handle_queued(ms(20)));
    assert!(!can_rest(&kit, ms(20), alarms(ms(500), UNSET)));
}

#[test]
fn a_peer_counts_as_used_from_its_last_packet_on() {
    let kit = timed();
    kit.send("a");
    assert!(kit.handle.state().handle_queued(ms(100_000)));
    kit.write_all();
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
    let idle = kit.handle.state().poll_timeout(ms(100_000)).background;
    assert_eq!(idle, Some(ms(280_000)));
}
