//! Greetings, sequence numbers, acknowledgements: what arrives, and what is owed for it.

use super::*;

fn hello() -> Hello {
    Hello {
        version_min: VERSION,
        version_max: VERSION,
        max_payload: 1000,
        features: 0,
        incarnation: DIALLER,
        session: SESSION,
        next_expected: 1,
        generation: 1,
        expected_peer: None,
        address: Some(NetworkAddress::new([10, 0, 0, 9].into(), 4500)),
    }
}

fn accepted() -> Kit {
    let kit = Kit::acceptor(ZERO);
    let delivered = kit.packet(ZERO, WellKnownToken::Hello.token(), &hello().encode());
    assert_eq!(delivered, Ok(None));
    kit
}

pub(super) fn protocol_error<T: std::fmt::Debug>(
    result: Result<T, ConnectionError>,
) -> ProtocolError {
    match result {
        Err(ConnectionError::Protocol(error)) => error,
        other => panic!("no protocol error: {other:?}"),
    }
}

#[test]
fn a_hello_is_answered_fresh_before_anything_else() {
    let kit = Kit::acceptor(ZERO);
    kit.send("waits for the Hello");
    kit.decide(ZERO);
    assert_eq!(kit.packets(), []);
    assert!(!kit.handle.is_connected());
    kit.packet(ZERO, WellKnownToken::Hello.token(), &hello().encode())
        .unwrap();
    assert!(kit.handle.is_connected());
    let written = kit.packets();
    assert_eq!(written[0].0, WellKnownToken::HelloAnswer.token());
    let answer = HelloAnswer::decode(&written[0].1).unwrap();
    assert_eq!(answer.outcome, Outcome::Fresh { session: SESSION });
    assert_eq!(answer.incarnation, ACCEPTOR);
    assert_eq!(answer.max_payload, 1 << 20);
    assert_eq!(sequenced(written[1].0, &written[1].1).unwrap().0, 1);
    assert_eq!(kit.handle.remote_incarnation(), Some(DIALLER));
    assert_eq!(kit.handle.remote_address(), hello().address);
    assert_eq!(kit.handle.peer_max_payload(), 1000);
}

#[test]
fn nothing_leaves_between_a_hello_and_its_answer() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    kit.hello();
    kit.send("b");
    kit.handle.send_unreliable(TOKEN, "u".into()).unwrap();
    assert_eq!(kit.packets(), []);
    assert_eq!(kit.handle.metrics().unreliable_dropped, 1);
    kit.answer(ZERO, fresh()).unwrap();
    assert_eq!(kit.payloads(), ["a", "b"]);
}

#[test]
fn a_first_packet_that_is_no_greeting_costs_the_connection() {
    let kit = Kit::acceptor(ZERO);
    let error = protocol_error(kit.packet(ZERO, TOKEN, b"hi"));
    assert_eq!(error, ProtocolError::NoHello { token: TOKEN });
    let error = protocol_error(Kit::acceptor(ZERO).sequenced(1, 1, "hi"));
    assert!(matches!(error, ProtocolError::NoHello { .. }));
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    let token = WellKnownToken::Hello.token();
    let error = protocol_error(kit.packet(ZERO, token, &hello().encode()));
    assert_eq!(error, ProtocolError::NoHello { token });
}

#[test]
fn an_answer_that_was_not_asked_for_costs_the_connection() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    // The session is new: the other end cannot have anything of it.
    let resumed = answer(Outcome::Resumed { next_expected: 2 });
    assert_eq!(
        protocol_error(kit.answer(ZERO, resumed)),
        ProtocolError::AckOfUnsent { ack: 2, sent: 0 }
    );
}

#[test]
fn a_hello_of_another_version_is_told_so_and_then_the_connection_ends() {
    let kit = Kit::acceptor(ZERO);
    let newer = Hello {
        version_min: VERSION + 1,
        version_max: VERSION + 2,
        ..hello()
    };
    // Of another version nothing but the front can be relied on.
    let front = &newer.encode()[..12];
    kit.packet(ZERO, WellKnownToken::Hello.token(), front)
        .unwrap();
    assert_eq!(kit.decide(ZERO), Action::Wait);
    let written = kit.packets();
    let answer = HelloAnswer::decode(&written[0].1).unwrap();
    assert_eq!(
        answer.outcome,
        Outcome::Incompatible {
            version_min: VERSION
        }
    );
    assert_eq!(answer.version, VERSION);
    assert_eq!(kit.decide(ZERO), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    assert_eq!(kit.sequenced(1, 1, "ignored"), Ok(None));
    kit.closed(ms(1), ConnectionError::Ended);
    assert_eq!(kit.decide(ms(1)), Action::Finish);
    let error = kit.handle.metrics().last_error;
    assert_eq!(
        error,
        Some(ConnectionError::Incompatible {
            version_min: 2,
            version_max: 3
        })
    );
}

#[test]
fn a_bare_peer_tells_a_hello_that_it_is_incompatible() {
    let kit = Kit::new(PeerState::accepted(
        PeerConfig::default(),
        SessionMode::Plain,
        ZERO,
    ));
    kit.packet(ZERO, WellKnownToken::Hello.token(), &hello().encode())
        .unwrap();
    let written = kit.packets();
    let answer = HelloAnswer::decode(&written[0].1).unwrap();
    assert_eq!(answer.outcome, Outcome::Incompatible { version_min: 0 });
    assert_eq!(kit.decide(ZERO), Action::Shutdown);
    kit.handle.state().handle_shutdown();
    // The other end may never end its half: then ours does, after the time for a connection.
    assert_eq!(kit.timeout(ZERO), Some(ms(2_000)));
    assert!(matches!(kit.decide(ms(2_000)), Action::Disconnect(_)));
}

#[test]
fn a_bare_peer_takes_no_other_session_frame() {
    for id in 4..=10 {
        let kit = Kit::plain_open();
        let error = protocol_error(kit.packet(ZERO, UID::well_known(id), b""));
        assert!(
            matches!(error, ProtocolError::UnexpectedFrame { .. }),
            "{error:?}"
        );
    }
    let token = UID::well_known(1);
    let delivered = Kit::plain_open().packet(ZERO, token, b"ping").unwrap();
    assert_eq!(delivered, Some((token, b"ping".to_vec(), false)));
}

#[test]
fn only_the_expected_packet_is_delivered() {
    let kit = accepted();
    assert_eq!(kit.sequenced(1, 1, "a"), Ok(Some("a".into())));
    assert_eq!(kit.sequenced(1, 1, "a again"), Ok(None));
    assert_eq!(kit.sequenced(2, 1, "b"), Ok(Some("b".into())));
    kit.frame(WellKnownToken::Skip, &[3, 1]).unwrap();
    assert_eq!(kit.sequenced(4, 1, "d"), Ok(Some("d".into())));
    let gap = ProtocolError::SequenceGap {
        sequence: 6,
        expected: 5,
    };
    assert_eq!(protocol_error(kit.sequenced(6, 1, "f")), gap);
    assert_eq!(kit.handle.metrics().packets_received, 3);
}

#[test]
fn unreliable_packets_keep_their_token_and_have_no_number() {
    let kit = accepted();
    let delivered = kit.packet(ZERO, TOKEN, b"u").unwrap();
    assert_eq!(delivered, Some((TOKEN, b"u".to_vec(), false)));
    assert_eq!(kit.sequenced(1, 1, "a"), Ok(Some("a".into())));
}

#[test]
fn each_session_numbers_its_packets_from_one() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    kit.decide(ZERO);
    kit.write_all();
    assert_eq!(kit.sequenced(1, 3, "x"), Ok(Some("x".into())));
    kit.send("c");
    kit.closed(ms(1), lost());
    kit.greet(ms(100));
    let written = kit.packets();
    assert_eq!(
        sequenced(written[0].0, &written[0].1),
        Some((1, 1, b"c".to_vec()))
    );
    assert_eq!(kit.sequenced(1, 2, "y"), Ok(Some("y".into())));
}

#[test]
fn acknowledged_packets_are_not_reported() {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c", "d"]);
    kit.write(3 * 57);
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    assert_eq!(kit.handle.metrics().unacknowledged, 1);
    // One that is older than the last says nothing new.
    kit.frame(WellKnownToken::Ack, &[1]).unwrap();
    assert_eq!(kit.handle.metrics().unacknowledged, 1);
    kit.closed(ms(1), lost());
    assert_eq!(kit.events(), []);
    kit.greet(ms(100));
    assert_eq!(kit.events(), [ended(3..4, 4..4)]);
}

#[test]
fn everything_that_carries_an_acknowledgement_counts() {
    let acknowledge: [fn(&Kit); 5] = [
        |kit| drop(kit.sequenced(1, 2, "x").unwrap()),
        |kit| kit.frame(WellKnownToken::Ack, &[2]).unwrap(),
        |kit| kit.frame(WellKnownToken::Skip, &[1, 2]).unwrap(),
        |kit| kit.frame(WellKnownToken::SessionPing, &[2, 9]).unwrap(),
        |kit| kit.frame(WellKnownToken::SessionPong, &[2, 9]).unwrap(),
    ];
    for acknowledge in acknowledge {
        let kit = Kit::open();
        kit.send("a");
        kit.write_all();
        assert_eq!(kit.handle.metrics().unacknowledged, 1);
        acknowledge(&kit);
        assert_eq!(kit.handle.metrics().unacknowledged, 0);
    }
}

#[test]
fn an_acknowledgement_of_what_was_not_written_costs_the_connection() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    kit.write(57 + 1);
    let error = protocol_error(kit.frame(WellKnownToken::Ack, &[3]));
    assert_eq!(error, ProtocolError::AckOfUnsent { ack: 3, sent: 1 });
    let error = protocol_error(kit.frame(WellKnownToken::Ack, &[u64::MAX]));
    assert!(matches!(error, ProtocolError::AckOfUnsent { .. }));
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
}

#[test]
fn an_acknowledgement_goes_out_by_itself_after_64_packets() {
    let kit = accepted();
    kit.packets();
    for sequence in 1..=63 {
        kit.sequenced(sequence, 1, "x").unwrap();
    }
    assert_eq!(kit.packets(), []);
    kit.sequenced(64, 1, "x").unwrap();
    assert_eq!(
        kit.packets(),
        [(WellKnownToken::Ack.token(), numbers(&[65]))]
    );
    assert_eq!(kit.packets(), []);
}

#[test]
fn an_acknowledgement_waits_one_turn_for_the_answers_that_carry_it() {
    let kit = Kit::open();
    let receive_64 = |first: u64| {
        for sequence in first..first + 64 {
            kit.sequenced(sequence, 1, "request").unwrap();
        }
    };
    let begin_turn = || kit.handle.state().begin_turn();
    begin_turn();
    receive_64(1);
    assert!(kit.packets().is_empty() && kit.handle.state().awaits_turn());
    // Answered by then.
    kit.send("answer");
    begin_turn();
    let acks: Vec<_> = kit
        .packets()
        .iter()
        .map(|(token, payload)| sequenced(*token, payload).map(|(_, ack, ..)| ack))
        .collect();
    assert_eq!(acks, [Some(65)], "no acknowledgement by itself");
    assert!(!kit.handle.state().awaits_turn());
    // Not answered: it leaves in the next turn, and no later.
    begin_turn();
    receive_64(65);
    assert!(kit.packets().is_empty() && kit.handle.state().awaits_turn());
    begin_turn();
    assert_eq!(
        kit.packets(),
        [(WellKnownToken::Ack.token(), numbers(&[129]))]
    );
    assert!(!kit.handle.state().awaits_turn());
}

#[test]
fn an_acknowledgement_goes_out_by_itself_after_64_kib() {
    let kit = accepted();
    kit.packets();
    kit.sequenced(1, 1, &"x".repeat(64 * 1024 - 1)).unwrap();
    assert_eq!(kit.packets(), []);
    kit.sequenced(2, 1, "x").unwrap();
    assert_eq!(
        kit.packets(),
        [(WellKnownToken::Ack.token(), numbers(&[3]))]
    );
}

#[test]
fn a_packet_on_its_way_carries_the_acknowledgement_instead() {
    let kit = accepted();
    kit.packets();
    for sequence in 1..=64 {
        kit.sequenced(sequence, 1, "x").unwrap();
    }
    kit.send("reply");
    let written = kit.packets();
    assert_eq!(written.len(), 1);
    assert_eq!(sequenced(written[0].0, &written[0].1).unwrap().1, 65);
}

#[test]
fn frames_that_make_no_sense_are_typed_errors() {
    let kit = accepted();
    let hello_again = kit.packet(ZERO, WellKnownToken::Hello.token(), &hello().encode());
    let frame = WellKnownToken::Hello;
    assert_eq!(
        protocol_error(hello_again),
        ProtocolError::UnexpectedFrame { frame }
    );
    let frame = WellKnownToken::Ack;
    let short = kit.packet(ZERO, frame.token(), &[0; 7]);
    assert_eq!(
        protocol_error(short),
        ProtocolError::FrameSize { frame, size: 7 }
    );
    let mut nested = numbers(&[1, 1]);
    nested.extend_from_slice(&WellKnownToken::Close.token().to_le_bytes());
    let nested = kit.packet(ZERO, WellKnownToken::Sequenced.token(), &nested);
    assert!(matches!(
        protocol_error(nested),
        ProtocolError::ReservedToken { .. }
    ));
}

#[test]
fn a_sequenced_payload_above_the_limit_is_refused() {
    let limit = PeerConfig::default().max_payload_bytes as usize;
    let kit = accepted();
    let most = kit.sequenced(1, 1, &"x".repeat(limit)).unwrap();
    assert_eq!(most.map(|payload| payload.len()), Some(limit));
    let more = kit.sequenced(2, 1, &"x".repeat(limit + 1)).unwrap_err();
    assert!(matches!(
        more,
        ConnectionError::Wire(WireError::PacketTooLarge { .. })
    ));
}

#[test]
fn a_payload_that_only_the_sequenced_prefix_leaves_room_for_is_refused() {
    let limit = PeerConfig::default().max_payload_bytes as usize;
    let kit = accepted();
    assert!(kit.packet(ZERO, TOKEN, &vec![0; limit]).unwrap().is_some());
    let error = kit.packet(ZERO, TOKEN, &vec![0; limit + 1]).unwrap_err();
    assert!(matches!(
        error,
        ConnectionError::Wire(WireError::PacketTooLarge { .. })
    ));
}

/// The bytes of one packet of each kind, as another implementation has to write them.
#[test]
fn the_bytes_of_a_sequenced_packet_are_fixed() {
    let kit = Kit::open();
    kit.send("hi");
    let bytes = kit.write_all();
    let mut expected = vec![58, 0, 0, 0];
    let mut body = Vec::new();
    body.extend_from_slice(&[0xFF; 8]);
    body.extend_from_slice(&numbers(&[5, 1, 1, 7, 8]));
    body.extend_from_slice(b"hi");
    expected.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    expected.extend_from_slice(&body);
    assert_eq!(bytes, expected);
    assert_eq!(deserialize_packet(&bytes).unwrap().0, UID::well_known(5));
    let plain = Kit::plain_open();
    plain.send("hi");
    assert_eq!(plain.write_all(), serialize_packet(TOKEN, b"hi"));
}
