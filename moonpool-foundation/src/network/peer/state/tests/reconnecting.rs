//! When a peer dials, backs off, gives up.

use super::*;

/// The delays after failures in a row, as the state's timer shows them.
fn delays(kit: &Kit, count: usize) -> Vec<u128> {
    let mut now = ZERO;
    let mut delays = Vec::new();
    for _ in 0..count {
        assert_eq!(kit.decide(now), Action::Connect);
        kit.closed(now, refused());
        let next = kit.timeout(now).unwrap();
        assert_eq!(kit.decide(next - Duration::from_nanos(1)), Action::Wait);
        delays.push((next - now).as_millis());
        now = next;
    }
    delays
}

#[test]
fn a_plain_peer_dials_at_once_and_always_again() {
    let kit = Kit::plain();
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    assert!(kit.handle.is_connected());
    kit.closed(ms(10), ConnectionError::Ended);
    let again = kit.timeout(ms(10)).unwrap();
    assert_eq!(kit.decide(again), Action::Connect);
}

#[test]
fn an_acknowledged_peer_dials_only_when_something_is_to_be_sent() {
    let kit = Kit::dialler(PeerConfig::default());
    assert_eq!(kit.decide(ZERO), Action::Wait);
    assert_eq!(kit.timeout(ZERO), None);
    kit.send("a");
    assert_eq!(kit.decide(ms(1)), Action::Connect);
}

#[test]
fn an_unreliable_packet_makes_it_dial_although_it_is_dropped_itself() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.handle.send_unreliable(TOKEN, "a".into()).unwrap();
    assert_eq!(kit.decide(ms(1)), Action::Connect);
    assert_eq!(kit.handle.metrics().unreliable_dropped, 1);
}

#[test]
fn an_unused_acknowledged_peer_does_not_come_back_after_a_loss() {
    let kit = Kit::open();
    kit.closed(ms(9_000), lost());
    assert_eq!(kit.decide(ms(60_000)), Action::Wait);
    assert_eq!(kit.timeout(ms(60_000)), None);
    let used = Kit::open();
    used.send("a");
    used.decide(ms(8_000));
    used.write_all();
    used.closed(ms(9_000), lost());
    let again = used.timeout(ms(9_000)).unwrap();
    assert_eq!(used.decide(again), Action::Connect);
}

#[test]
fn a_lazy_dialler_whose_last_use_has_passed_waits_without_a_timer() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.handle.send_unreliable(TOKEN, "a".into()).unwrap();
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.closed(ms(2_000), refused());
    assert!(kit.timeout(ms(2_000)).is_some());
    // The driver comes late: a deadline in the past would make it spin.
    assert_eq!(kit.decide(ms(3_500)), Action::Wait);
    assert_eq!(kit.timeout(ms(3_500)), None);
}

#[test]
fn delays_grow_to_half_a_second() {
    let delays = delays(&Kit::plain(), 20);
    assert_eq!(&delays[..4], [49, 59, 71, 86]);
    assert_eq!(delays[19], 499);
}

#[test]
fn five_seconds_of_health_reset_the_delay_and_less_do_not() {
    for (lasted, first) in [(ms(4_999), false), (ms(5_000), true)] {
        let kit = Kit::plain();
        let failed_until = ms(10_000);
        for _ in 0..20 {
            assert_eq!(kit.decide(failed_until), Action::Connect);
            kit.closed(ZERO, refused());
        }
        assert_eq!(kit.decide(failed_until), Action::Connect);
        kit.connected(failed_until);
        let end = failed_until + lasted;
        kit.closed(end, lost());
        let delay = kit.timeout(end).unwrap() - end;
        assert_eq!(delay < ms(51), first, "{delay:?} after {lasted:?}");
    }
}

#[test]
fn connecting_and_greeting_share_two_seconds() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    assert_eq!(kit.timeout(ZERO), Some(ms(2_000)));
    kit.connected(ms(1_500));
    kit.hello();
    assert_eq!(kit.timeout(ms(1_500)), Some(ms(2_000)));
    assert_eq!(kit.decide(ms(1_999)), Action::Wait);
    let timed_out = ConnectionError::TimedOut { after: ms(2_000) };
    assert_eq!(kit.decide(ms(2_000)), Action::Disconnect(timed_out.clone()));
    kit.closed(ms(2_000), timed_out.clone());
    assert_eq!(kit.handle.metrics().last_error, Some(timed_out));
    assert_eq!(kit.handle.metrics().connection_failures, 1);
}

#[test]
fn an_accepted_connection_has_two_seconds_to_say_hello() {
    let kit = Kit::acceptor(ms(100));
    assert_eq!(kit.timeout(ms(100)), Some(ms(2_100)));
    let timed_out = ConnectionError::TimedOut { after: ms(2_000) };
    assert_eq!(kit.decide(ms(2_100)), Action::Disconnect(timed_out.clone()));
    kit.closed(ms(2_100), timed_out);
    assert_eq!(kit.decide(ms(2_100)), Action::Finish);
}

#[test]
fn too_many_failures_in_a_row_end_the_peer_and_report_what_was_queued() {
    let config = PeerConfig {
        max_connection_failures: Some(3),
        ..PeerConfig::default()
    };
    let kit = Kit::dialler(config);
    kit.send_all(&["a", "b"]);
    delays(&kit, 2);
    assert_eq!(kit.decide(ms(5_000)), Action::Connect);
    kit.closed(ms(5_000), refused());
    assert_eq!(kit.decide(ms(5_000)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..1, 1..3)]);
    let gave_up = ConnectionError::GaveUp { failures: 3 };
    assert_eq!(kit.handle.metrics().last_error, Some(gave_up));
    let closed = kit.handle.send_reliable(TOKEN, "c".into());
    assert_eq!(
        closed,
        Err(PeerError::Closed {
            payload: Some("c".into())
        })
    );
}

#[test]
fn a_connection_in_between_makes_failures_count_anew() {
    let config = PeerConfig {
        max_connection_failures: Some(2),
        ..PeerConfig::default()
    };
    let kit = Kit::new(PeerState::dialling(config, SessionMode::Plain));
    for round in 0..3 {
        let now = ms(round * 10_000);
        delays_from(&kit, now);
        assert_eq!(kit.decide(now + ms(1_000)), Action::Connect);
        kit.connected(now + ms(1_000));
        kit.closed(now + ms(1_001), lost());
    }
    assert!(!kit.handle.is_finished());

    fn delays_from(kit: &Kit, now: Duration) {
        assert_eq!(kit.decide(now), Action::Connect);
        kit.closed(now, refused());
    }
}

#[test]
fn reconnect_drops_the_connection_and_dials_without_delay() {
    let kit = Kit::open();
    kit.handle.reconnect();
    assert_eq!(
        kit.decide(ms(1)),
        Action::Disconnect(ConnectionError::Reconnect)
    );
    kit.closed(ms(1), ConnectionError::Reconnect);
    assert_eq!(kit.events(), [], "the session goes on");
    assert_eq!(kit.decide(ms(1)), Action::Connect);
    assert_eq!(kit.handle.metrics().connection_failures, 0);
}

#[test]
fn reconnect_cuts_a_backoff_short() {
    let kit = Kit::plain();
    delays(&kit, 19);
    let now = ms(20_000);
    assert_eq!(kit.decide(now), Action::Connect);
    kit.closed(now, refused());
    assert_eq!(kit.decide(now), Action::Wait);
    kit.handle.reconnect();
    assert_eq!(kit.decide(now), Action::Connect);
}

#[test]
fn an_accepted_peer_ends_with_its_connection() {
    let state = PeerState::accepted(PeerConfig::default(), SessionMode::Plain, ZERO);
    let kit = Kit::new(state);
    kit.send_all(&["a", "b", "c"]);
    kit.write(30);
    kit.closed(ms(1), lost());
    assert_eq!(kit.decide(ms(1)), Action::Finish);
    assert_eq!(kit.events(), [ended(1..3, 3..4)]);
}

#[test]
fn an_incompatible_peer_is_asked_again_after_a_minute() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    kit.hello();
    let answer = HelloAnswer::incompatible(ACCEPTOR, 3, 4);
    let cause = kit.answer(ZERO, answer).unwrap_err();
    assert_eq!(
        cause,
        ConnectionError::Incompatible {
            version_min: 3,
            version_max: 4
        }
    );
    kit.closed(ZERO, cause);
    assert_eq!(kit.timeout(ZERO), Some(ms(60_000)));
    assert_eq!(kit.decide(ms(60_000)), Action::Connect);
}

#[test]
fn being_superseded_is_no_failure_and_raises_the_next_generation() {
    let config = PeerConfig {
        max_connection_failures: Some(1),
        ..PeerConfig::default()
    };
    let kit = Kit::dialler(config);
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    assert_eq!(kit.hello().generation, 1);
    let superseded = answer(Outcome::Superseded { generation: 8 });
    let cause = kit.answer(ZERO, superseded).unwrap_err();
    kit.closed(ZERO, cause);
    assert_eq!(kit.events(), []);
    assert_eq!(kit.decide(ms(1_000)), Action::Connect);
    kit.connected(ms(1_000));
    assert_eq!(kit.hello().generation, 9);
}

#[test]
fn an_unanswered_session_is_proposed_again_and_an_ended_one_is_not() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.handle.state().handle_connected(ZERO, UID::new(9, 1));
    let first = kit.hello();
    assert_eq!((first.session, first.generation), (UID::new(9, 1), 1));
    assert_eq!((first.next_expected, first.expected_peer), (1, None));
    kit.closed(ZERO, lost());
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    kit.handle.state().handle_connected(ms(100), UID::new(9, 2));
    let second = kit.hello();
    assert_eq!((second.session, second.generation), (UID::new(9, 1), 2));
    kit.answer(ms(140), fresh()).unwrap();
    assert_eq!(kit.handle.metrics().round_trip, Some(ms(40)));
    kit.closed(ms(200), lost());
    assert_eq!(kit.decide(ms(400)), Action::Connect);
    kit.handle.state().handle_connected(ms(400), UID::new(9, 3));
    let third = kit.hello();
    assert_eq!((third.session, third.generation), (SESSION, 3));
    assert_eq!(third.expected_peer, Some(ACCEPTOR));
    kit.answer(ms(440), answer(Outcome::Resumed { next_expected: 1 }))
        .unwrap();
    kit.closed(ms(500), ConnectionError::RemoteClosed);
    assert_eq!(kit.decide(ms(900)), Action::Connect);
    kit.handle.state().handle_connected(ms(900), UID::new(9, 4));
    let fourth = kit.hello();
    assert_eq!((fourth.session, fourth.generation), (UID::new(9, 4), 1));
    assert_eq!(fourth.expected_peer, Some(ACCEPTOR));
}

#[test]
fn a_bad_packet_costs_the_connection_and_unreliable_packets_but_not_the_peer() {
    let kit = Kit::open();
    kit.handle.send_unreliable(TOKEN, "u".into()).unwrap();
    kit.send("a");
    kit.decide(ZERO);
    kit.closed(
        ms(1),
        WireError::ChecksumMismatch {
            expected: 1,
            actual: 2,
        }
        .into(),
    );
    let metrics = kit.handle.metrics();
    assert_eq!(
        (metrics.protocol_errors, metrics.unreliable_dropped),
        (1, 1)
    );
    assert_eq!(metrics.reliable_queued, 1);
    kit.greet(kit.timeout(ms(1)).unwrap());
    assert_eq!(kit.payloads(), ["a"]);
    assert_eq!(kit.handle.metrics().reconnects, 1);
}

#[test]
fn a_configuration_that_cannot_work_ends_the_peer_at_once() {
    let config = PeerConfig {
        reliable_packets: 0,
        ..PeerConfig::default()
    };
    let kit = Kit::dialler(config);
    assert_eq!(kit.decide(ZERO), Action::Finish);
    let error = kit.handle.metrics().last_error;
    assert!(
        matches!(error, Some(ConnectionError::Config(_))),
        "{error:?}"
    );
}
