//! Sessions that outlive their connections: what is laid out again, what is given up, and when.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::delivery::protocol_error;
use super::*;
use crate::messaging::checksum::crc;
use crate::messaging::{WireError, deserialize_packet};
use crate::network::peer::{NOTED_BYTES, PacketTerms, Tail, Withdrawal};

fn resumed(next_expected: u64) -> HelloAnswer {
    answer(Outcome::Resumed { next_expected })
}

/// Dials and gets `answer`. Gives the Hello.
fn redial(kit: &Kit, now: Duration, answer: HelloAnswer) -> Result<Hello, ConnectionError> {
    assert_eq!(kit.decide(now), Action::Connect);
    kit.connected(now);
    let hello = kit.hello();
    kit.answer(now, answer)?;
    Ok(hello)
}

/// Four packets, of which three are written.
fn three_of_four_written() -> Kit {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c"]);
    kit.decide(ZERO);
    kit.write_all();
    kit.send("d");
    kit
}

/// Sequence number, acknowledgement and payload of what is written next; `None` stands for a Skip.
fn numbered(kit: &Kit) -> Vec<(u64, u64, Option<String>)> {
    let one = |(token, payload): (UID, Vec<u8>)| match sequenced(token, &payload) {
        Some((sequence, ack, inner)) => (sequence, ack, Some(String::from_utf8(inner).unwrap())),
        None => {
            let kind = WellKnownToken::session_frame(token).unwrap();
            match Frame::decode(kind, &payload).unwrap() {
                Some(Frame::Skip { sequence, ack }) => (sequence, ack, None),
                other => panic!("{other:?}"),
            }
        }
    };
    kit.packets().into_iter().map(one).collect()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_resumed_session_writes_the_rest_again_with_the_same_numbers() {
    let kit = three_of_four_written();
    assert_eq!(kit.sequenced(1, 1, "x"), Ok(text("x")));
    kit.closed(ms(10), lost());
    let metrics = kit.handle.metrics();
    assert_eq!((metrics.unacknowledged, metrics.reliable_queued), (3, 1));
    let hello = redial(&kit, ms(100), resumed(2)).unwrap();
    assert_eq!((hello.session, hello.next_expected), (SESSION, 2));
    assert_eq!((hello.generation, hello.expected_peer), (2, Some(ACCEPTOR)));
    let expected = [(2, 2, text("b")), (3, 2, text("c")), (4, 2, text("d"))];
    assert_eq!(numbered(&kit), expected);
    assert_eq!(kit.sequenced(1, 2, "x again"), Ok(None));
    assert_eq!(kit.sequenced(2, 5, "y"), Ok(text("y")));
    assert_eq!(kit.events(), []);
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

#[test]
fn a_session_resumes_as_often_as_it_must() {
    let kit = three_of_four_written();
    for (round, next) in [(1, 1), (2, 2), (3, 2), (4, 4)] {
        kit.closed(ms(1_000 * round), lost());
        redial(&kit, ms(1_000 * round + 600), resumed(next)).unwrap();
        kit.write(57 + 20);
    }
    let whole = [(4, 1, text("d"))];
    kit.closed(ms(9_000), lost());
    redial(&kit, ms(9_600), resumed(4)).unwrap();
    assert_eq!(numbered(&kit), whole);
    assert_eq!(kit.events(), []);
}

#[test]
fn a_first_hello_whose_answer_was_lost_may_be_answered_resumed() {
    let kit = Kit::dialler(PeerConfig::default());
    kit.send("a");
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    kit.hello();
    kit.closed(ms(1), lost());
    redial(&kit, ms(100), resumed(1)).unwrap();
    assert_eq!(kit.payloads(), ["a"]);
    assert_eq!(kit.events(), []);
}

#[test]
fn a_fresh_answer_to_a_resume_ends_the_old_session() {
    let kit = three_of_four_written();
    assert_eq!(kit.sequenced(1, 2, "x"), Ok(text("x")));
    kit.closed(ms(10), lost());
    redial(
        &kit,
        ms(100),
        answer(Outcome::Fresh {
            session: UID::new(8, 8),
        }),
    )
    .unwrap();
    assert_eq!(kit.events(), [ended(2..4, 4..4)]);
    assert_eq!(numbered(&kit), [(1, 1, text("d"))]);
    assert_eq!(kit.sequenced(1, 1, "y"), Ok(text("y")));
    kit.closed(ms(200), lost());
    let hello = redial(&kit, ms(400), resumed(2)).unwrap();
    assert_eq!((hello.session, hello.generation), (UID::new(8, 8), 3));
}

#[test]
fn what_the_other_end_said_it_has_not_got_is_surely_not_delivered() {
    let kit = three_of_four_written();
    kit.closed(ms(10), lost());
    redial(&kit, ms(100), resumed(2)).unwrap();
    // One byte of "b" is written again, and nothing of "c", which was written before.
    kit.write(1);
    kit.closed(ms(200), lost());
    redial(&kit, ms(300), fresh()).unwrap();
    assert_eq!(kit.events(), [ended(2..3, 3..3)]);
    assert_eq!(kit.payloads(), ["c", "d"]);
}

/// Two packets, written; the bytes of the second one are not what its checksum was made from.
fn damaged_and_written() -> Kit {
    let kit = Kit::open();
    kit.send("a");
    let bytes = Bytes::from(vec![7; NOTED_BYTES]);
    let before = (bytes.clone(), crc(&bytes) ^ 1);
    let tail = Tail::with_noted(bytes, Arc::new(OnceLock::from(before)));
    let terms = PacketTerms::default();
    let sent = kit
        .handle
        .send_reliable_parts(TOKEN, terms, |_| Ok::<_, ()>(tail));
    sent.unwrap();
    kit.decide(ZERO);
    let written = kit.write_all();
    let (first, second) = written.split_at(57);
    assert!(deserialize_packet(first).is_ok());
    let refused = deserialize_packet(second);
    assert!(matches!(refused, Err(WireError::ChecksumMismatch { .. })));
    kit
}

#[test]
fn bytes_that_changed_after_they_were_written_are_refused_once_and_reported() {
    let kit = damaged_and_written();
    kit.closed(ms(10), lost());
    let cause = redial(&kit, ms(100), resumed(2)).unwrap_err();
    let packet = PacketId::new(2);
    assert_eq!(cause, ConnectionError::Damaged { packet });
    kit.closed(ms(100), cause);
    assert_eq!(kit.events(), [ended(2..3, 3..3)]);
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
    kit.send("b");
    redial(&kit, ms(1000), fresh()).unwrap();
    assert_eq!(kit.payloads(), ["b"]);
}

#[test]
fn bytes_that_changed_after_they_arrived_harm_nobody() {
    let kit = damaged_and_written();
    kit.closed(ms(10), lost());
    redial(&kit, ms(100), resumed(3)).unwrap();
    assert_eq!(kit.events(), []);
}

#[test]
fn another_incarnation_cannot_resume() {
    let kit = three_of_four_written();
    kit.closed(ms(10), lost());
    let stranger = HelloAnswer {
        incarnation: UID::new(3, 3),
        ..resumed(2)
    };
    let cause = redial(&kit, ms(100), stranger).unwrap_err();
    kit.closed(ms(100), cause);
    assert_eq!(kit.events(), [ended(1..4, 4..4)]);
    assert_eq!(kit.handle.metrics().protocol_errors, 1);
}

#[test]
fn a_resume_at_what_cannot_be_ends_the_session() {
    for (next, error) in [
        (5, ProtocolError::AckOfUnsent { ack: 5, sent: 3 }),
        (
            u64::MAX,
            ProtocolError::AckOfUnsent {
                ack: u64::MAX,
                sent: 3,
            },
        ),
        (
            1,
            ProtocolError::AckTakenBack {
                ack: 1,
                acknowledged: 2,
            },
        ),
        (
            0,
            ProtocolError::AckTakenBack {
                ack: 0,
                acknowledged: 2,
            },
        ),
    ] {
        let kit = three_of_four_written();
        kit.frame(WellKnownToken::Ack, &[2]).unwrap();
        kit.closed(ms(10), lost());
        let refused = redial(&kit, ms(100), resumed(next)).map(|_| ());
        let cause = ConnectionError::Protocol(error.clone());
        assert_eq!(protocol_error(refused), error);
        kit.closed(ms(100), cause);
        assert_eq!(kit.events(), [ended(2..4, 4..4)]);
        redial(&kit, ms(700), fresh()).unwrap();
        assert_eq!(kit.payloads(), ["d"]);
    }
}

#[test]
fn a_protocol_violation_ends_the_session_and_a_bad_packet_does_not() {
    let kit = three_of_four_written();
    let gap = kit.sequenced(9, 1, "gap").unwrap_err();
    kit.closed(ms(10), gap);
    assert_eq!(kit.events(), [ended(1..4, 4..4)]);
    let kit = three_of_four_written();
    let flipped = WireError::ChecksumMismatch {
        expected: 1,
        actual: 2,
    };
    kit.closed(ms(10), flipped.into());
    assert_eq!(kit.events(), []);
    redial(&kit, ms(100), resumed(4)).unwrap();
    assert_eq!(kit.payloads(), ["d"]);
}

#[test]
fn what_is_retained_counts_against_the_limits_across_connections() {
    let config = PeerConfig {
        reliable_packets: 2,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send_all(&["a", "b"]);
    kit.write_all();
    kit.closed(ms(10), lost());
    assert!(kit.handle.send_reliable(TOKEN, "c".into()).is_err());
    redial(&kit, ms(100), resumed(2)).unwrap();
    kit.send("c");
    assert!(kit.handle.send_reliable(TOKEN, "d".into()).is_err());
}

#[test]
fn a_dialler_redials_for_what_was_not_acknowledged_and_for_replies() {
    let kit = three_of_four_written();
    kit.decide(ms(1));
    kit.write_all();
    kit.closed(ms(9_000), lost());
    assert_eq!(kit.decide(ms(10_000)), Action::Connect);
    let waits = Kit::open();
    waits.expect_replies(true);
    waits.closed(ms(9_000), lost());
    assert_eq!(waits.decide(ms(10_000)), Action::Connect);
    let idle = Kit::open();
    idle.expect_replies(true);
    idle.expect_replies(false);
    idle.closed(ms(9_000), lost());
    assert_eq!(idle.decide(ms(10_000)), Action::Wait);
    assert_eq!(idle.timeout(ms(10_000)), None);
}

#[test]
fn a_session_ends_a_minute_after_its_last_connection() {
    let kit = three_of_four_written();
    kit.closed(ms(1_000), lost());
    assert_eq!(kit.decide(ms(2_000)), Action::Connect);
    kit.closed(ms(60_990), refused());
    kit.decide(ms(60_999));
    assert_eq!(kit.events(), []);
    assert_eq!(kit.timeout(ms(60_999)), Some(ms(61_000)));
    kit.decide(ms(61_000));
    assert_eq!(kit.events(), [ended(1..4, 4..4)]);
    let hello = {
        assert_eq!(kit.decide(ms(62_000)), Action::Connect);
        kit.handle
            .state()
            .handle_connected(ms(62_000), UID::new(9, 9));
        kit.hello()
    };
    assert_eq!((hello.session, hello.generation), (UID::new(9, 9), 1));
    assert_eq!(hello.next_expected, 1);
}

#[test]
fn a_session_that_somebody_misses_ends_when_patience_does() {
    let config = PeerConfig {
        patience: Some(ms(3_000)),
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config.clone());
    kit.send("written");
    kit.decide(ZERO);
    kit.write_all();
    kit.send("queued");
    kit.closed(ms(1_000), lost());
    assert_eq!(kit.decide(ms(1_500)), Action::Connect);
    kit.send("late");
    kit.decide(ms(1_600));
    kit.closed(ms(3_500), refused());
    kit.decide(ms(3_999));
    assert_eq!(kit.events(), []);
    kit.decide(ms(4_000));
    assert_eq!(kit.events(), [ended(1..2, 2..3)]);
    kit.decide(ms(4_600));
    assert_eq!(kit.events(), [ended(3..3, 3..4)]);

    let asked = Kit::open_with(config.clone());
    asked.expect_replies(true);
    asked.closed(ms(1_000), lost());
    asked.decide(ms(4_000));
    assert_eq!(asked.events(), [ended(1..1, 1..1)]);

    // Nobody waits for anything: it can still be resumed after that.
    let idle = Kit::open_with(config);
    idle.closed(ms(1_000), lost());
    idle.decide(ms(10_000));
    assert_eq!(idle.events(), []);
    idle.send("new");
    assert_eq!(redial(&idle, ms(10_000), resumed(1)).unwrap().generation, 2);
}

#[test]
fn a_session_that_ends_while_it_is_offered_takes_the_attempt_with_it() {
    let config = PeerConfig {
        patience: Some(ms(3_000)),
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send("a");
    kit.decide(ZERO);
    kit.write_all();
    kit.closed(ms(1_000), lost());
    assert_eq!(kit.decide(ms(3_500)), Action::Connect);
    kit.connected(ms(3_500));
    kit.hello();
    assert!(matches!(kit.decide(ms(4_000)), Action::Disconnect(_)));
    assert_eq!(kit.events(), [ended(1..2, 2..2)]);
}

#[test]
fn giving_up_and_an_expired_grace_end_the_session_with_everything() {
    let config = PeerConfig {
        max_connection_failures: Some(1),
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send("a");
    kit.decide(ZERO);
    kit.write_all();
    kit.send("b");
    kit.closed(ms(10), lost());
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    kit.closed(ms(100), refused());
    assert_eq!(kit.events(), [ended(1..2, 2..3)]);
    assert_eq!(kit.decide(ms(100)), Action::Finish);

    let kit = three_of_four_written();
    kit.closed(ms(10), lost());
    kit.handle.start_close(ms(1_000));
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    assert_eq!(
        kit.decide(ms(1_100)),
        Action::Disconnect(ConnectionError::Closed)
    );
    kit.closed(ms(1_100), ConnectionError::Closed);
    assert_eq!(kit.events(), [ended(1..4, 4..5)]);
    assert_eq!(kit.decide(ms(1_100)), Action::Finish);
}

#[test]
fn a_close_that_lost_its_connection_resumes_and_asks_again() {
    let kit = three_of_four_written();
    kit.handle.start_close(ms(5_000));
    kit.decide(ms(1));
    kit.write_all();
    kit.decide(ms(2));
    assert_eq!(kit.packets().len(), 1, "it asks");
    kit.closed(ms(10), lost());
    redial(&kit, ms(500), resumed(4)).unwrap();
    kit.decide(ms(500));
    assert_eq!(kit.payloads(), ["d"]);
    kit.decide(ms(501));
    let asked = kit.packets();
    assert_eq!(asked[0].0, WellKnownToken::SessionPing.token());
    kit.frame(WellKnownToken::SessionPong, &[5, 0]).unwrap();
    kit.decide(ms(502));
    kit.packets();
    assert_eq!(kit.decide(ms(502)), Action::Shutdown);
    kit.closed(ms(503), ConnectionError::Ended);
    assert_eq!(kit.events(), [ended(5..5, 5..5)]);
    assert_eq!(kit.handle.state().undelivered(), None);
}

#[test]
fn a_queued_packet_is_withdrawn_without_a_trace() {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c"]);
    kit.handle.send_unreliable(TOKEN, "u".into()).unwrap();
    let last = kit.send("d");
    assert_eq!(
        kit.handle.withdraw(PacketId::new(2)),
        Withdrawal::NotDelivered
    );
    assert_eq!(kit.handle.withdraw(PacketId::new(2)), Withdrawal::Unknown);
    assert_eq!(kit.handle.withdraw(last), Withdrawal::NotDelivered);
    assert_eq!(kit.handle.withdraw(last.next()), Withdrawal::Unknown);
    assert_eq!(kit.payloads(), ["a", "c", "u"]);
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    assert_eq!(kit.handle.withdraw(PacketId::FIRST), Withdrawal::Unknown);
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

#[test]
fn a_packet_that_was_laid_out_becomes_a_skip() {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c", &"d".repeat(5_000)]);
    // "a" is written, "b" has begun, "c" and "d" are laid out.
    kit.write(58);
    let withdrawn: Vec<_> = (1..=4)
        .map(|id| kit.handle.withdraw(PacketId::new(id)))
        .collect();
    let (maybe, not) = (Withdrawal::MaybeDelivered, Withdrawal::NotDelivered);
    assert_eq!(withdrawn, [maybe, maybe, not, not]);
    assert_eq!(kit.handle.withdraw(PacketId::new(2)), Withdrawal::Unknown);
    let mut rest = vec![57];
    rest.extend(kit.write_all());
    let tokens: Vec<u64> = packets(&rest)
        .iter()
        .map(|(token, _)| token.second)
        .collect();
    assert_eq!(tokens, [5, 7, 7], "what has begun is finished");
    kit.closed(ms(10), lost());
    redial(&kit, ms(100), resumed(1)).unwrap();
    let skips = [1, 2, 3, 4].map(|sequence| (sequence, 1, None));
    assert_eq!(numbered(&kit), skips);
    kit.frame(WellKnownToken::Ack, &[5]).unwrap();
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

#[test]
fn a_retained_packet_that_is_withdrawn_is_not_written_again() {
    let kit = three_of_four_written();
    assert_eq!(
        kit.handle.withdraw(PacketId::new(2)),
        Withdrawal::MaybeDelivered
    );
    kit.closed(ms(10), lost());
    redial(&kit, ms(100), resumed(1)).unwrap();
    // The other end just said that it has none of them.
    assert_eq!(
        kit.handle.withdraw(PacketId::new(3)),
        Withdrawal::NotDelivered
    );
    let expected = [
        (1, 1, text("a")),
        (2, 1, None),
        (3, 1, None),
        (4, 1, text("d")),
    ];
    assert_eq!(numbered(&kit), expected);
    kit.closed(ms(200), lost());
    redial(&kit, ms(800), fresh()).unwrap();
    assert_eq!(kit.events(), [ended(1..5, 5..5)]);
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

#[test]
fn a_plain_packet_is_withdrawn_until_it_is_laid_out() {
    let kit = Kit::plain_open();
    kit.send("a");
    kit.write(1);
    kit.send("b");
    assert_eq!(kit.handle.withdraw(PacketId::FIRST), Withdrawal::Unknown);
    assert_eq!(
        kit.handle.withdraw(PacketId::new(2)),
        Withdrawal::NotDelivered
    );
    assert_eq!(kit.handle.metrics().reliable_queued, 1);
}

#[test]
fn a_retained_packet_beyond_a_new_limit_becomes_a_skip_and_is_reported() {
    let kit = Kit::open();
    kit.send_all(&["short", &"x".repeat(65)]);
    kit.write_all();
    kit.closed(ms(10), lost());
    let smaller = HelloAnswer {
        max_payload: 64,
        ..resumed(1)
    };
    redial(&kit, ms(100), smaller).unwrap();
    assert_eq!(numbered(&kit), [(1, 1, text("short")), (2, 1, None)]);
    let id = PacketId::new(2);
    assert_eq!(kit.events(), [Event::Withdrawn { id, limit: 64 }]);
}
