//! What is accepted, in which order it leaves, and what waits for how long.

use super::*;
use crate::network::peer::PacketTerms;
use crate::network::peer::outbox::SPARE_BYTES;

#[test]
fn queued_packets_survive_a_reset_in_order() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    kit.closed(ms(5), lost());
    kit.greet(ms(105));
    assert_eq!(kit.events(), [ended(1..1, 1..1)]);
    assert_eq!(kit.payloads(), ["a", "b"]);
}

#[test]
fn only_packets_of_which_bytes_were_written_may_have_been_delivered() {
    let kit = Kit::open();
    kit.send_all(&["a", "b", "c", "d"]);
    // A frame of one byte takes 24 + 32 + 1: this is one whole frame and a byte of the next, while
    // the others are laid out.
    kit.write(58);
    kit.closed(ms(5), lost());
    assert_eq!(kit.events(), []);
    kit.greet(ms(105));
    assert_eq!(kit.events(), [ended(1..3, 3..3)]);
    assert_eq!(kit.handle.metrics().maybe_delivered, 2);
    let rest: Vec<_> = kit
        .packets()
        .iter()
        .filter_map(|(t, p)| sequenced(*t, p))
        .collect();
    assert_eq!(rest, [(1, 1, b"c".to_vec()), (2, 1, b"d".to_vec())]);
}

#[test]
fn in_plain_mode_everything_written_on_the_lost_connection_is_reported() {
    let kit = Kit::plain_open();
    kit.send_all(&["a", "b", "c"]);
    kit.write(26);
    kit.send("d");
    kit.closed(ms(5), ConnectionError::Ended);
    assert_eq!(kit.events(), [ended(1..3, 3..3)]);
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    kit.connected(ms(100));
    assert_eq!(kit.payloads(), ["c", "d"]);
    kit.closed(ms(200), ConnectionError::Ended);
    assert_eq!(kit.events(), [ended(3..5, 5..5)]);
}

#[test]
fn a_full_queue_gives_the_payload_back() {
    let config = PeerConfig {
        reliable_packets: 2,
        unreliable_packets: 1,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send_all(&["a", "b"]);
    kit.handle.send_unreliable(TOKEN, "u".into()).unwrap();
    let full = Err(PeerError::QueueFull {
        payload: "c".into(),
    });
    assert_eq!(kit.handle.send_reliable(TOKEN, "c".into()), full);
    let full = Err(PeerError::QueueFull {
        payload: "v".into(),
    });
    assert_eq!(kit.handle.send_unreliable(TOKEN, "v".into()), full);
    kit.write_all();
    kit.handle.send_unreliable(TOKEN, "v".into()).unwrap();
    // Written is not enough for a reliable one: unacknowledged packets count too.
    assert!(kit.handle.send_reliable(TOKEN, "c".into()).is_err());
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
    assert_eq!(kit.send("c"), PacketId::new(3));
    assert!(kit.handle.send_reliable(TOKEN, "d".into()).is_err());
}

#[test]
fn a_limit_of_bytes_lets_one_packet_pass_it_and_counts_until_the_acknowledgement() {
    let config = PeerConfig {
        reliable_bytes: 150,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send(&"x".repeat(90));
    kit.send(&"y".repeat(500));
    assert_eq!(kit.handle.metrics().reliable_bytes, 90 + 56 + 500 + 56);
    assert!(kit.handle.send_reliable(TOKEN, "z".into()).is_err());
    kit.write_all();
    kit.frame(WellKnownToken::Ack, &[2]).unwrap();
    assert!(kit.handle.send_reliable(TOKEN, "z".into()).is_err());
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
    kit.send("z");
}

#[test]
fn a_payload_beyond_the_limit_is_refused_with_both_numbers() {
    let config = PeerConfig {
        max_payload_bytes: 64,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    let payload = Bytes::from(vec![1; 65]);
    let too_large = PeerError::PayloadTooLarge {
        size: 65,
        limit: 64,
        payload: payload.clone(),
    };
    assert_eq!(
        kit.handle.send_reliable(TOKEN, payload.clone()),
        Err(too_large.clone())
    );
    assert_eq!(
        kit.handle.send_unreliable(TOKEN, payload.clone()),
        Err(too_large.clone())
    );
    let encoded = kit.handle.send_reliable_with(TOKEN, |buffer| {
        buffer.extend_from_slice(&payload);
        Ok::<(), ()>(())
    });
    assert_eq!(encoded, Err(SendError::Peer(too_large)));
    assert_eq!(
        kit.handle.send_reliable(TOKEN, payload.slice(..64)),
        Ok(PacketId::FIRST)
    );
}

#[test]
fn the_other_ends_limit_counts_as_soon_as_it_is_known() {
    let kit = Kit::dialler(PeerConfig::default());
    let too_long = "x".repeat(65);
    kit.send_all(&["short", &too_long, "tiny"]);
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    kit.hello();
    kit.answer(
        ZERO,
        HelloAnswer {
            max_payload: 64,
            ..fresh()
        },
    )
    .unwrap();
    assert_eq!(kit.handle.peer_max_payload(), 64);
    assert_eq!(kit.payloads(), ["short", "tiny"]);
    assert_eq!(
        kit.events(),
        [Event::Withdrawn {
            id: PacketId::new(2),
            limit: 64
        }]
    );
    let refused = kit.handle.send_reliable(TOKEN, too_long.into());
    assert!(matches!(
        refused,
        Err(PeerError::PayloadTooLarge {
            size: 65,
            limit: 64,
            ..
        })
    ));
}

#[test]
fn the_sessions_own_tokens_are_not_for_users() {
    let kit = Kit::open();
    for id in 3..=10 {
        let token = UID::well_known(id);
        let reserved = PeerError::ReservedToken {
            token,
            payload: "a".into(),
        };
        assert_eq!(
            kit.handle.send_reliable(token, "a".into()),
            Err(reserved.clone())
        );
        assert_eq!(kit.handle.send_unreliable(token, "a".into()), Err(reserved));
        let encoded = kit.handle.send_unreliable_with(token, |_| Ok::<(), ()>(()));
        assert!(matches!(
            encoded,
            Err(SendError::Peer(PeerError::ReservedToken { .. }))
        ));
    }
    kit.handle
        .send_reliable(UID::well_known(2), "a".into())
        .unwrap();
}

#[test]
fn encoding_in_place_writes_the_same_bytes_as_sending() {
    let payloads = [
        "",
        "short",
        &"long ".repeat(500),
        &"longer than a chunk ".repeat(2_000),
    ];
    let (sent, encoded) = (Kit::open(), Kit::open());
    for payload in payloads {
        sent.send(payload);
        encoded
            .handle
            .send_reliable_with(TOKEN, |buffer| {
                payload.split_inclusive(' ').for_each(|part| {
                    buffer.extend_from_slice(part.as_bytes());
                });
                Ok::<(), ()>(())
            })
            .unwrap();
    }
    let bytes = sent.write_all();
    assert_eq!(bytes, encoded.write_all());
    assert_eq!(packets(&bytes).len(), payloads.len());
}

#[test]
fn memory_of_packets_that_are_done_serves_the_next_ones_within_a_limit() {
    let kit = Kit::open();
    let kept = || kit.handle.state().outbox.kept_for_more();
    for round in 0..3 {
        kit.send_all(&vec![&*"x".repeat(1_000); 1_000]);
        assert_eq!(kept(), 0, "it is used first");
        kit.write_all();
        let next = (round + 1) * 1_000 + 1;
        kit.frame(WellKnownToken::Ack, &[next]).unwrap();
        assert!(
            (SPARE_BYTES / 2..=SPARE_BYTES).contains(&kept()),
            "{}",
            kept()
        );
    }
}

#[test]
fn a_payload_in_two_parts_is_one_and_its_second_part_is_not_copied() {
    let second = Bytes::from(vec![7; 50_000]);
    for first in ["first", &"longer than a chunk ".repeat(2_000)] {
        let (sent, parts) = (Kit::open(), Kit::open());
        let whole = [first.as_bytes(), &second].concat();
        sent.handle.send_reliable(TOKEN, whole.into()).unwrap();
        let terms = PacketTerms::default();
        let handle = &parts.handle;
        handle
            .send_reliable_parts(TOKEN, terms, |buffer| {
                buffer.extend_from_slice(first.as_bytes());
                Ok::<_, ()>(second.clone())
            })
            .unwrap();
        assert!(!second.is_unique(), "it waits where it is");
        assert_eq!(sent.write_all(), parts.write_all());
    }
}

#[test]
fn an_encoder_that_replaces_its_buffer_sends_nothing() {
    let spoilers: [fn(&mut bytes::BytesMut); 4] = [
        |buffer| buffer.fill(0xFF),
        bytes::BytesMut::clear,
        |buffer| buffer.truncate(3),
        |buffer| drop(buffer.split()),
    ];
    for (spoil, payload) in spoilers
        .iter()
        .flat_map(|spoil| ["", "x", &"x".repeat(200)].map(|payload| (spoil, payload.to_owned())))
    {
        let kit = Kit::open();
        let spoilt = kit.handle.send_reliable_with(TOKEN, |buffer| {
            spoil(buffer);
            buffer.extend_from_slice(payload.as_bytes());
            Ok::<(), ()>(())
        });
        assert_eq!(spoilt, Err(SendError::BufferReplaced));
        kit.send("next");
        assert_eq!(kit.payloads(), ["next"]);
    }
}

#[test]
fn an_encoder_that_fails_or_sends_itself_leaves_the_queue_in_order() {
    let kit = Kit::open();
    let failed = kit.handle.send_reliable_with(TOKEN, |buffer| {
        buffer.extend_from_slice(b"half");
        Err("no")
    });
    assert_eq!(failed, Err(SendError::Encode("no")));
    let nested = kit.handle.send_reliable_with(TOKEN, |buffer| {
        kit.send("inner");
        buffer.extend_from_slice(b"outer");
        Ok::<(), ()>(())
    });
    assert_eq!(nested, Ok(PacketId::new(2)));
    assert_eq!(kit.payloads(), ["inner", "outer"]);
}

#[test]
fn unreliable_packets_are_dropped_without_a_connection_and_counted() {
    let kit = Kit::plain();
    kit.handle.send_unreliable(TOKEN, "early".into()).unwrap();
    assert_eq!(kit.handle.metrics().unreliable_dropped, 1);
    assert_eq!(kit.decide(ZERO), Action::Connect);
    kit.connected(ZERO);
    kit.handle.send_unreliable(TOKEN, "in time".into()).unwrap();
    kit.handle
        .send_unreliable(TOKEN, "half written".into())
        .unwrap();
    kit.handle
        .send_unreliable(TOKEN, "unwritten".into())
        .unwrap();
    kit.write(24 + 7 + 1);
    kit.closed(ms(1), lost());
    assert_eq!(kit.handle.metrics().unreliable_dropped, 3);
    assert_eq!(kit.handle.metrics().unreliable_queued, 0);
    assert_eq!(kit.handle.metrics().unreliable_bytes, 0);
    kit.decide(ms(100));
    kit.connected(ms(100));
    assert_eq!(kit.payloads(), Vec::<String>::new());
}

#[test]
fn one_write_takes_about_128_kib_and_256_pieces() {
    let kit = Kit::open();
    let large = Bytes::from(vec![1; 100 * 1024]);
    for _ in 0..3 {
        kit.handle.send_reliable(TOKEN, large.clone()).unwrap();
    }
    let laid_out = |kit: &Kit| {
        let mut state = kit.handle.state();
        let Some(batch) = state.lay_out(ZERO) else {
            return (0, 0);
        };
        let mut slices = [IoSlice::new(&[]); BATCH_SLICES];
        let count = batch.slices(&mut slices);
        let bytes: usize = slices[..count].iter().map(|slice| slice.len()).sum();
        state.put_back(batch, bytes);
        (count, bytes)
    };
    assert_eq!(laid_out(&kit), (4, 2 * (100 * 1024 + 56)));
    assert_eq!(laid_out(&kit), (2, 100 * 1024 + 56));
    for _ in 0..400 {
        kit.send("small");
    }
    assert_eq!(laid_out(&kit).0, BATCH_SLICES);
    assert_eq!(laid_out(&kit).0, 144);
    assert_eq!(laid_out(&kit).0, 0);
}

#[test]
fn pongs_overtake_queued_packets_and_only_the_last_ping_is_answered() {
    let kit = Kit::open();
    kit.send_all(&["a", "b"]);
    kit.write(1);
    kit.frame(WellKnownToken::SessionPing, &[1, 77]).unwrap();
    kit.frame(WellKnownToken::SessionPing, &[1, 78]).unwrap();
    let mut bytes = vec![57];
    bytes.extend(kit.write_all());
    let written = packets(&bytes);
    let tokens: Vec<u64> = written.iter().map(|(token, _)| token.second).collect();
    assert_eq!(
        tokens,
        [5, 9, 5],
        "a packet that has begun is not cut in two"
    );
    assert_eq!(written[1].1, numbers(&[1, 78]));
}

#[test]
fn packets_lose_patience_three_seconds_after_they_were_accepted() {
    let config = PeerConfig {
        patience: Some(ms(3_000)),
        ..PeerConfig::default()
    };
    let kit = Kit::dialler(config);
    kit.send_all(&["a", "b"]);
    assert_eq!(kit.decide(ms(100)), Action::Connect);
    kit.send("c");
    assert_eq!(kit.decide(ms(600)), Action::Wait);
    // An attempt that fails is no loss: there was nothing to lose.
    kit.closed(ms(700), refused());
    kit.decide(ms(3_099));
    assert_eq!(kit.events(), []);
    kit.decide(ms(3_100));
    assert_eq!(kit.events(), [ended(1..1, 1..3)]);
    kit.decide(ms(3_600));
    assert_eq!(kit.events(), [ended(3..3, 3..4)]);
    kit.closed(ms(3_601), refused());
    assert_eq!(kit.timeout(ms(10_000)), None);
}

#[test]
fn patience_counts_from_the_later_of_acceptance_and_loss() {
    let config = PeerConfig {
        patience: Some(ms(3_000)),
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    kit.send("early");
    kit.decide(ZERO);
    kit.closed(ms(10_000), lost());
    kit.events();
    kit.decide(ms(10_100));
    kit.send("late");
    kit.decide(ms(10_200));
    assert_eq!(
        kit.timeout(ms(10_200)),
        Some(ms(12_100)),
        "first the attempt's own timeout"
    );
    kit.decide(ms(12_999));
    assert_eq!(kit.events(), []);
    kit.decide(ms(13_000));
    assert_eq!(kit.events(), [ended(1..1, 1..2)]);
    kit.decide(ms(13_199));
    assert_eq!(kit.events(), []);
    kit.decide(ms(13_200));
    assert_eq!(kit.events(), [ended(2..2, 2..3)]);
    assert_eq!(kit.handle.metrics().reliable_queued, 0);
    assert_eq!(kit.handle.metrics().not_delivered, 2);
}

#[test]
fn a_working_connection_and_an_accepted_peer_have_all_patience() {
    let config = PeerConfig {
        patience: Some(ms(3_000)),
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config.clone());
    kit.send("a");
    assert_eq!(kit.timeout(ms(1)), None);
    kit.decide(ms(100_000));
    assert_eq!(kit.payloads(), ["a"]);
    let accepted = Kit::new(PeerState::accepted(config, mode(ACCEPTOR), ZERO));
    accepted.send("a");
    accepted.decide(ZERO);
    assert_eq!(accepted.timeout(ZERO), Some(ms(2_000)), "the greeting's");
}
