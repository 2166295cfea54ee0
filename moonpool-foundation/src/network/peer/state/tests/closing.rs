//! How a peer ends: at once where nothing is owed, in order where there is, late at most.

use super::*;
use crate::network::peer::{Account, PacketTerms};

fn close(kit: &Kit, grace: Duration) {
    kit.handle.start_close(grace);
}

#[test]
fn an_idle_peer_closes_at_once() {
    let kit = Kit::dialler(PeerConfig::default());
    close(&kit, ms(1_000));
    assert_eq!(kit.decide(ZERO), Action::Finish);
    assert_eq!(kit.events(), []);
}

#[test]
fn a_close_in_the_middle_of_connecting_ends_it_if_nothing_is_queued() {
    let kit = Kit::plain();
    assert_eq!(kit.decide(ZERO), Action::Connect);
    close(&kit, ms(1_000));
    assert_eq!(
        kit.decide(ms(1)),
        Action::Disconnect(ConnectionError::Closed)
    );
    kit.closed(ms(1), ConnectionError::Closed);
    assert_eq!(kit.decide(ms(1)), Action::Finish);
}

#[test]
fn a_close_while_backing_off_ends_it_if_nothing_is_queued() {
    let kit = Kit::plain();
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.closed(ZERO, refused());
    assert_eq!(kit.decide(ms(1)), Action::Wait);
    close(&kit, ms(1_000));
    assert_eq!(kit.decide(ms(2)), Action::Finish);
}

#[test]
fn a_close_keeps_dialling_for_what_is_queued_until_the_grace_is_over() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send_all(&["a", "b"]);
    close(&kit, ms(300));
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.closed(ms(10), refused());
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    assert_eq!(kit.decide(ms(299)), Action::Wait);
    assert_eq!(kit.timeout(ms(299)), Some(ms(300)));
    assert_eq!(
        kit.decide(ms(300)),
        Action::Disconnect(ConnectionError::Closed)
    );
    kit.closed(ms(300), ConnectionError::Closed);
    assert_eq!(kit.decide(ms(300)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..1, 1..3)]);
    let undelivered = kit.handle.state().undelivered().unwrap();
    assert_eq!(undelivered.not_delivered, ids(1..3));
}

#[test]
fn a_grace_that_ends_while_backing_off_ends_the_peer() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.closed(ZERO, refused());
    close(&kit, ms(20));
    kit.decide(ms(1));
    assert_eq!(kit.timeout(ms(1)), Some(ms(21)));
    assert_eq!(kit.decide(ms(21)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..1, 1..2)]);
}

#[test]
fn an_orderly_close_writes_asks_says_goodbye_and_waits_for_the_other_end() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    close(&kit, ms(1_000));
    assert_eq!(kit.decide(ms(1)), Action::Wait);
    assert_eq!(kit.payloads(), ["a", "b"]);
    assert!(
        kit.handle.state().has_more_to_do(),
        "the acknowledgements are to be asked for"
    );
    assert_eq!(kit.decide(ms(2)), Action::Wait);
    let nonce = u64::try_from(ms(2).as_nanos()).unwrap();
    let ping = (WellKnownToken::SessionPing.token(), numbers(&[1, nonce]));
    assert_eq!(kit.packets(), [ping]);
    assert_eq!(kit.decide(ms(3)), Action::Wait);
    assert_eq!(kit.packets(), [], "it is asked once");
    assert!(!kit.handle.state().has_more_to_do());
    kit.frame(WellKnownToken::SessionPong, &[3, nonce]).unwrap();
    assert!(kit.handle.state().has_more_to_do());
    assert_eq!(kit.decide(ms(4)), Action::Wait);
    assert_eq!(
        kit.packets(),
        [(WellKnownToken::Close.token(), numbers(&[1]))]
    );
    assert_eq!(kit.decide(ms(4)), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    assert_eq!(kit.decide(ms(4)), Action::Wait);
    assert_eq!(kit.timeout(ms(4)), Some(ms(1_001)));
    kit.closed(ms(5), ConnectionError::Ended);
    assert_eq!(kit.decide(ms(5)), Action::Finish);
    assert_eq!(kit.events(), [ended(3..3, 3..3)]);
    assert_eq!(kit.handle.state().undelivered(), None);
}

#[test]
fn a_plain_close_writes_and_ends_its_half() {
    let kit = Kit::plain_open();
    kit.send_all(&["a", "b"]);
    close(&kit, ms(1_000));
    assert_eq!(kit.decide(ms(1)), Action::Wait);
    assert_eq!(kit.payloads(), ["a", "b"]);
    assert_eq!(kit.decide(ms(2)), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    kit.closed(ms(3), ConnectionError::Ended);
    assert_eq!(kit.decide(ms(3)), Action::Finish);
    assert_eq!(kit.handle.state().undelivered(), None);
}

#[test]
fn a_plain_close_that_is_reset_may_have_lost_everything() {
    let kit = Kit::plain_open();
    kit.send_all(&["a", "b"]);
    close(&kit, ms(1_000));
    kit.decide(ms(1));
    kit.write_all();
    assert_eq!(kit.decide(ms(2)), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    kit.closed(ms(3), lost());
    assert_eq!(kit.decide(ms(3)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..3, 3..3)]);
    assert!(kit.handle.state().undelivered().is_some());
}

#[test]
fn an_expired_grace_reports_what_was_written_and_what_was_not() {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c"]);
    close(&kit, ms(100));
    kit.decide(ZERO);
    kit.write(57);
    assert_eq!(
        kit.decide(ms(100)),
        Action::Disconnect(ConnectionError::Closed)
    );
    kit.closed(ms(100), ConnectionError::Closed);
    assert_eq!(kit.decide(ms(100)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..2, 2..4)]);
}

#[test]
fn a_loss_during_a_close_is_followed_by_another_attempt_for_what_is_queued() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    close(&kit, ms(5_000));
    kit.decide(ZERO);
    kit.write(57);
    kit.closed(ms(1), lost());
    assert_eq!(kit.events(), []);
    kit.greet(ms(200));
    assert_eq!(kit.events(), [ended(1..2, 2..2)]);
    assert_eq!(kit.payloads(), ["b"]);
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
    kit.decide(ms(201));
    kit.packets();
    assert_eq!(kit.decide(ms(201)), Action::Shutdown);
    kit.closed(ms(202), ConnectionError::Ended);
    let undelivered = kit.handle.state().undelivered().unwrap();
    assert_eq!(undelivered.maybe_delivered, ids(1..2));
    assert_eq!(undelivered.not_delivered, ids(2..2));
}

#[test]
fn nothing_is_accepted_after_a_close() {
    let kit = Kit::open();
    close(&kit, ms(1_000));
    let closed = Err(PeerError::Closed {
        payload: Some("a".into()),
    });
    assert_eq!(kit.handle.send_reliable(TOKEN, "a".into()), closed);
    let closed = Err(PeerError::Closed {
        payload: Some("a".into()),
    });
    assert_eq!(kit.handle.send_unreliable(TOKEN, "a".into()), closed);
}

#[test]
fn what_is_owed_is_taken_until_the_goodbye_and_counts_as_the_own() {
    let kit = Kit::open_with(PeerConfig {
        reliable_packets: 2,
        ..PeerConfig::default()
    });
    let owed = PacketTerms {
        account: Account::Owed,
        ..PacketTerms::default()
    };
    kit.send("a");
    close(&kit, ms(1_000));
    kit.send_under(owed, "b").unwrap();
    let full = kit.send_under(owed, "c");
    assert!(matches!(full, Err(PeerError::QueueFull { .. })), "{full:?}");
    assert_eq!(kit.payloads(), ["a", "b"]);
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    kit.decide(ms(1));
    let late = kit.send_under(owed, "d");
    assert!(matches!(late, Err(PeerError::Closed { .. })), "{late:?}");
}

#[test]
fn of_several_closes_the_earliest_deadline_counts() {
    let kit = Kit::open();
    kit.send("a");
    close(&kit, ms(1_000));
    close(&kit, ms(5_000));
    kit.decide(ms(100));
    assert_eq!(kit.timeout(ms(100)), Some(ms(1_100)));
    close(&kit, ms(300));
    kit.decide(ms(200));
    assert_eq!(kit.timeout(ms(200)), Some(ms(500)));
    close(&kit, ms(9_000));
    kit.decide(ms(300));
    assert_eq!(kit.timeout(ms(300)), Some(ms(500)));
}

#[test]
fn a_close_from_the_other_end_ends_the_session_and_its_acknowledgement_counts() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    kit.decide(ZERO);
    kit.write_all();
    kit.send("c");
    let cause = kit.frame(WellKnownToken::Close, &[2]).unwrap_err();
    assert_eq!(cause, ConnectionError::RemoteClosed);
    kit.closed(ms(1), cause);
    assert_eq!(kit.events(), [ended(2..3, 3..3)]);
    assert_eq!(kit.handle.metrics().protocol_errors, 0);
    kit.greet(ms(100));
    assert_eq!(
        kit.payloads(),
        ["c"],
        "what was not written moves to the next session"
    );
}

#[test]
fn an_accepted_peer_whose_other_end_closes_is_finished() {
    let kit = Kit::acceptor(ZERO);
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        max_payload: 1000,
        features: 0,
        incarnation: DIALLER,
        session: SESSION,
        next_expected: 1,
        generation: 1,
        expected_peer: None,
        address: None,
    };
    kit.packet(ZERO, WellKnownToken::Hello.token(), &hello.encode())
        .unwrap();
    kit.send("a");
    let cause = kit.frame(WellKnownToken::Close, &[1]).unwrap_err();
    kit.closed(ms(1), cause);
    assert_eq!(kit.decide(ms(1)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..1, 1..2)]);
}

#[test]
fn a_dropped_peer_refuses_everything() {
    let kit = Kit::open();
    kit.send("a");
    kit.handle.handle_dropped();
    assert!(kit.handle.is_finished());
    assert!(matches!(
        kit.handle.send_reliable(TOKEN, "b".into()),
        Err(PeerError::Closed { .. })
    ));
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
    assert_eq!(kit.sequenced(1, 1, "late"), Ok(None));
}
