//! Who is asked for a sign of life, when, and what becomes of those who give none.

use super::*;

/// A packet was written at one second, and nothing came since.
fn waiting() -> Kit {
    let kit = Kit::open();
    kit.send("a");
    kit.decide(ms(1_000));
    kit.write_all();
    assert_eq!(kit.timeout(ms(1_000)), Some(ms(2_000)));
    kit
}

fn ping(kit: &Kit, now: Duration) {
    kit.decide(now);
    let nonce = u64::try_from(now.as_nanos()).unwrap();
    let ping = (WellKnownToken::SessionPing.token(), numbers(&[1, nonce]));
    assert_eq!(kit.packets(), [ping]);
}

fn silent() -> Action {
    Action::Disconnect(ConnectionError::Silent { after: ms(2_000) })
}

#[test]
fn silence_is_broken_by_a_ping_and_ends_the_connection_but_not_the_session() {
    let kit = waiting();
    kit.decide(ms(1_999));
    assert_eq!(kit.packets(), []);
    ping(&kit, ms(2_000));
    assert_eq!(kit.timeout(ms(2_000)), Some(ms(4_000)));
    assert_eq!(kit.decide(ms(3_999)), Action::Wait);
    assert_eq!(kit.packets(), [], "it is asked once");
    assert_eq!(kit.decide(ms(4_000)), silent());
    kit.closed(ms(4_000), ConnectionError::Silent { after: ms(2_000) });
    assert_eq!(kit.events(), []);
    assert_eq!(kit.decide(ms(5_000)), Action::Connect);
}

#[test]
fn any_packet_is_a_sign_of_life() {
    let kit = waiting();
    ping(&kit, ms(2_000));
    kit.packet(ms(3_900), TOKEN, b"u").unwrap();
    assert_eq!(kit.decide(ms(4_000)), Action::Wait);
    assert_eq!(kit.timeout(ms(4_000)), Some(ms(4_900)));
    ping(&kit, ms(4_900));
    kit.frame(WellKnownToken::SessionPong, &[2, 0]).unwrap();
    kit.decide(ms(5_000));
    assert_eq!(kit.timeout(ms(5_000)), None, "nothing is owed any more");
}

#[test]
fn a_packet_that_grows_is_waited_for() {
    let kit = waiting();
    ping(&kit, ms(2_000));
    kit.handle.state().handle_read(64 * 1024);
    assert_eq!(kit.decide(ms(4_000)), Action::Wait);
    kit.handle.state().handle_read(64 * 1024 - 1);
    assert_eq!(kit.decide(ms(5_999)), Action::Wait);
    assert_eq!(kit.decide(ms(6_000)), silent());
}

#[test]
fn nobody_is_asked_while_nothing_is_owed() {
    let kit = Kit::open();
    kit.decide(ms(100_000));
    assert_eq!(kit.timeout(ms(100_000)), None);
    // The second counts from when something is owed, not from the last packet.
    kit.send("a");
    kit.decide(ms(100_000));
    kit.write_all();
    assert_eq!(kit.timeout(ms(100_000)), Some(ms(101_000)));
    let plain = Kit::plain_open();
    plain.send("a");
    plain.decide(ms(1_000));
    plain.write_all();
    assert_eq!(plain.timeout(ms(1_000)), None);
}

/// A dialler with an acknowledged request whose reply is expected.
fn awaiting() -> Kit {
    let kit = Kit::open();
    kit.expect_replies(true);
    kit.decide(ms(1_000));
    assert_eq!(kit.timeout(ms(1_000)), None, "no run waits for it");
    assert_eq!(kit.background_timeout(ms(1_000)), Some(ms(2_000)));
    kit
}

#[test]
fn while_a_reply_is_owed_the_other_end_is_asked_and_may_take_its_time() {
    let kit = awaiting();
    for second in 2..400 {
        ping(&kit, ms(second * 1_000));
        kit.packet(
            ms(second * 1_000),
            WellKnownToken::SessionPong.token(),
            &numbers(&[1, 0]),
        )
        .unwrap();
        assert_eq!(kit.timeout(ms(second * 1_000)), None);
    }
    kit.expect_replies(false);
    kit.decide(ms(401_000));
    assert_eq!(kit.packets(), [], "nothing is owed any more");
    assert_eq!(kit.background_timeout(ms(401_000)), Some(ms(579_000)));
}

#[test]
fn a_silent_end_that_owes_a_reply_loses_its_connection_and_is_dialled_again() {
    let kit = awaiting();
    ping(&kit, ms(2_000));
    assert_eq!(kit.background_timeout(ms(2_000)), Some(ms(4_000)));
    assert_eq!(kit.decide(ms(4_000)), silent());
    kit.closed(ms(4_000), ConnectionError::Silent { after: ms(2_000) });
    assert_eq!(kit.changes(), [ConnectionChange::Lost]);
    assert_eq!(kit.decide(ms(5_000)), Action::Connect);
}

fn watch(kit: &Kit, watches: bool) {
    let demand = Demand {
        watches,
        ..Demand::default()
    };
    kit.handle.state().set_demand(demand);
}

#[test]
fn a_watch_dials_and_asks_and_keeps_no_run_alive() {
    let kit = Kit::dialler(PeerConfig::default());
    assert_eq!(kit.decide(ZERO), Action::Wait);
    watch(&kit, true);
    assert_eq!(kit.decide(ms(10)), Action::Connect);
    assert_eq!(kit.timeout(ms(10)), None);
    assert_eq!(kit.background_timeout(ms(10)), Some(ms(2_010)));
    kit.closed(ms(10), refused());
    kit.decide(ms(10));
    assert_eq!(kit.timeout(ms(10)), None);
    let again = kit.background_timeout(ms(10)).unwrap();
    assert!((ms(50)..=ms(60)).contains(&again), "{again:?}");
    kit.greet(ms(60));
    kit.decide(ms(60));
    assert_eq!(kit.background_timeout(ms(60)), Some(ms(1_060)));
    ping(&kit, ms(1_060));
    watch(&kit, false);
    kit.decide(ms(1_060));
    assert_eq!(kit.background_timeout(ms(1_060)), Some(ms(181_060)));
}

#[test]
fn an_address_has_failed_after_three_seconds_without_a_wanted_connection() {
    let kit = Kit::open();
    kit.closed(ms(1_000), lost());
    kit.decide(ms(60_000));
    assert_eq!(kit.changes(), [ConnectionChange::Lost], "nobody wants it");
    watch(&kit, true);
    assert_eq!(kit.decide(ms(60_000)), Action::Connect);
    kit.closed(ms(62_000), refused());
    kit.decide(ms(62_999));
    assert_eq!(kit.changes(), []);
    assert_eq!(kit.background_timeout(ms(62_999)), Some(ms(63_000)));
    kit.decide(ms(63_000));
    assert_eq!(kit.changes(), [ConnectionChange::Failed]);
    kit.closed(ms(63_500), refused());
    kit.decide(ms(69_000));
    assert_eq!(kit.changes(), [], "it is told once");
    kit.closed(ms(69_100), refused());
    kit.greet(ms(70_000));
    assert_eq!(kit.changes(), [ConnectionChange::Opened]);
}

#[test]
fn a_peer_that_gives_up_has_failed() {
    let config = PeerConfig {
        max_connection_failures: Some(1),
        ..PeerConfig::default()
    };
    let kit = Kit::dialler(config);
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.closed(ms(1), refused());
    assert_eq!(kit.changes(), [ConnectionChange::Failed]);
}

fn close_frame() -> (UID, Vec<u8>) {
    (WellKnownToken::Close.token(), numbers(&[1]))
}

#[test]
fn an_idle_peer_says_goodbye_and_is_finished() {
    let kit = Kit::open();
    kit.packet(ms(20_000), TOKEN, b"u").unwrap();
    assert_eq!(kit.decide(ms(199_999)), Action::Wait);
    assert_eq!(kit.background_timeout(ms(199_999)), Some(ms(200_000)));
    assert_eq!(kit.decide(ms(200_000)), Action::Wait);
    assert_eq!(kit.packets(), [close_frame()]);
    assert_eq!(kit.decide(ms(200_000)), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    assert_eq!(kit.timeout(ms(200_000)), None);
    assert_eq!(kit.background_timeout(ms(200_000)), Some(ms(202_000)));
    kit.closed(ms(200_001), ConnectionError::Ended);
    assert_eq!(kit.decide(ms(200_001)), Action::Finish);
    assert!(!kit.changes().contains(&ConnectionChange::Lost));
}

#[test]
fn a_peer_without_a_connection_is_finished_when_it_is_idle() {
    let kit = Kit::dialler(PeerConfig::default());
    assert_eq!(kit.decide(ms(1_000)), Action::Wait);
    assert_eq!(kit.background_timeout(ms(1_000)), Some(ms(181_000)));
    assert_eq!(kit.decide(ms(181_000)), Action::Finish);
}

#[test]
fn the_accepting_end_leaves_the_goodbye_to_the_dialling_one() {
    let kit = Kit::acceptor(ZERO);
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        max_payload: 1 << 20,
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
    kit.decide(ZERO);
    kit.write_all();
    kit.decide(ms(215_999));
    assert_eq!(kit.packets(), []);
    kit.decide(ms(216_000));
    assert_eq!(kit.packets(), [close_frame()]);
}

#[test]
fn what_is_sent_while_an_idle_peer_says_goodbye_leaves_on_the_next_connection() {
    let kit = Kit::open();
    kit.decide(ms(180_000));
    assert_eq!(kit.packets(), [close_frame()]);
    assert_eq!(kit.decide(ms(180_000)), Action::Shutdown);
    kit.send("late");
    assert_eq!(kit.decide(ms(180_001)), Action::Wait, "the FIN comes first");
    kit.handle.state().handle_shutdown();
    let idle = ConnectionError::Idle;
    assert_eq!(kit.decide(ms(180_001)), Action::Disconnect(idle.clone()));
    kit.closed(ms(180_001), idle);
    assert_eq!(kit.events(), [ended(1..1, 1..1)]);
    kit.greet(ms(180_001));
    assert_eq!(kit.payloads(), ["late"]);
}

#[test]
fn a_peer_that_is_needed_does_not_close_for_being_idle() {
    let demands = [
        Demand {
            replies: true,
            ..Demand::default()
        },
        Demand {
            watches: true,
            ..Demand::default()
        },
        Demand {
            references: true,
            ..Demand::default()
        },
    ];
    for demand in demands {
        let kit = Kit::open();
        kit.handle.state().set_demand(demand);
        kit.decide(ms(180_000));
        kit.handle.state().set_demand(Demand::default());
        assert_eq!(kit.decide(ms(359_999)), Action::Wait);
        assert!(!kit.packets().contains(&close_frame()), "{demand:?}");
        kit.decide(ms(360_000));
        assert_eq!(kit.packets(), [close_frame()], "{demand:?}");
    }
}

#[test]
fn half_a_queue_of_unacknowledged_packets_is_asked_for_at_once() {
    let config = PeerConfig {
        reliable_packets: 4,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    let ping_of = |now: Duration| {
        let nonce = u64::try_from(now.as_nanos()).unwrap();
        (WellKnownToken::SessionPing.token(), numbers(&[1, nonce]))
    };
    kit.send("a");
    kit.decide(ms(10));
    kit.write_all();
    assert!(!kit.handle.state().has_more_to_do());
    kit.send("b");
    kit.decide(ms(20));
    kit.write_all();
    assert!(kit.handle.state().has_more_to_do(), "half of it is taken");
    kit.decide(ms(20));
    assert_eq!(kit.packets(), [ping_of(ms(20))]);
    kit.send("c");
    kit.decide(ms(30));
    assert_eq!(kit.payloads(), ["c"], "one question at a time");
    assert!(!kit.handle.state().has_more_to_do());
    kit.frame(WellKnownToken::SessionPong, &[2, 0]).unwrap();
    kit.decide(ms(40));
    assert_eq!(kit.packets(), [ping_of(ms(40))], "two are left");
    kit.frame(WellKnownToken::SessionPong, &[3, 0]).unwrap();
    kit.decide(ms(50));
    assert_eq!(kit.packets(), []);
}

#[test]
fn half_the_bytes_of_a_queue_are_asked_for_too() {
    let config = PeerConfig {
        reliable_bytes: 1_000,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    let large = "x".repeat(250);
    kit.send(&large);
    kit.decide(ms(10));
    kit.write_all();
    assert!(!kit.handle.state().has_more_to_do());
    kit.send(&large);
    kit.decide(ms(20));
    kit.write_all();
    kit.decide(ms(20));
    assert_eq!(kit.packets().len(), 1);
    // What is acknowledged counts no more.
    kit.frame(WellKnownToken::SessionPong, &[3, 0]).unwrap();
    kit.send(&large);
    kit.decide(ms(30));
    assert_eq!(kit.payloads(), [large]);
    assert!(!kit.handle.state().has_more_to_do());
}

#[test]
fn pings_of_an_end_that_never_reads_fill_no_more_than_a_batch() {
    let kit = Kit::open();
    for nonce in 0..10_000 {
        kit.frame(WellKnownToken::SessionPing, &[1, nonce]).unwrap();
        let mut state = kit.handle.state();
        if let Some(batch) = state.lay_out(ZERO) {
            state.put_back(batch, 0);
        }
    }
    let pongs = kit.packets();
    assert_eq!(
        pongs.len(),
        BATCH_SLICES + 1,
        "the last one waited for room"
    );
    let last = (WellKnownToken::SessionPong.token(), numbers(&[1, 9_999]));
    assert_eq!(pongs.last(), Some(&last));
}
