//! Packets that expire, answers and refusals.

use super::*;
use crate::network::peer::budget::SharedBudget;
use crate::network::peer::{Account, Expiry, PacketTerms};
use std::rc::Rc;

fn until(at: Duration) -> PacketTerms {
    PacketTerms {
        expiry: Some(Expiry {
            at,
            remaining_offset: None,
        }),
        ..PacketTerms::default()
    }
}

fn answers(packets: usize) -> PeerConfig {
    PeerConfig {
        reliable_packets: 1,
        answer_packets: packets,
        refusals: 2,
        ..PeerConfig::default()
    }
}

impl Kit {
    pub(super) fn send_under(
        &self,
        terms: PacketTerms,
        payload: &str,
    ) -> Result<PacketId, PeerError> {
        let sent = self
            .handle
            .send_reliable_under(TOKEN, terms, |buffer| -> Result<(), ()> {
                buffer.extend_from_slice(payload.as_bytes());
                Ok(())
            });
        sent.map_err(|error| match error {
            SendError::Peer(error) => error,
            other => panic!("{other}"),
        })
    }

    /// Takes a slot. Gives what sends the answer.
    fn reserve(&self) -> Option<PacketTerms> {
        let slot = self.handle.reserve_answer()?;
        Some(PacketTerms {
            account: Account::Answer(slot),
            ..PacketTerms::default()
        })
    }

    fn refuse(&self) -> Result<PacketId, PeerError> {
        self.refuse_with("no")
    }

    fn refuse_with(&self, payload: &str) -> Result<PacketId, PeerError> {
        let terms = PacketTerms {
            account: Account::Refusal,
            ..PacketTerms::default()
        };
        self.send_under(terms, payload)
    }

    fn asks_for_an_acknowledgement(&self, now: Duration) -> bool {
        self.decide(now);
        let mut written = packets(&self.write_all());
        self.decide(now);
        written.extend(packets(&self.write_all()));
        let ping = WellKnownToken::SessionPing.token();
        written.iter().any(|(token, _)| *token == ping)
    }

    fn payloads_at(&self, now: Duration) -> Vec<String> {
        packets(&self.write_at(now, usize::MAX))
            .iter()
            .filter_map(|(token, payload)| sequenced(*token, payload))
            .map(|(.., payload)| String::from_utf8(payload).unwrap())
            .collect()
    }
}

#[test]
fn an_expired_packet_is_never_written() {
    let kit = Kit::open();
    kit.send_under(until(ms(10)), "a").unwrap();
    kit.send_under(until(ms(20)), "b").unwrap();
    kit.send("c");
    assert_eq!(kit.payloads_at(ms(10)), ["b", "c"]);
    assert_eq!(kit.events(), []);
    assert_eq!(kit.handle.metrics().unacknowledged, 2);
}

#[test]
fn a_packet_that_expires_before_it_is_written_again_becomes_a_skip() {
    let kit = Kit::open();
    kit.send_under(until(ms(50)), "a").unwrap();
    kit.send("b");
    assert_eq!(kit.payloads_at(ms(1)), ["a", "b"]);
    kit.closed(ms(5), lost());
    assert_eq!(kit.decide(ms(200)), Action::Connect);
    kit.connected(ms(200));
    kit.hello();
    let resumed = answer(Outcome::Resumed { next_expected: 1 });
    kit.answer(ms(200), resumed).unwrap();
    let written = packets(&kit.write_at(ms(200), usize::MAX));
    assert_eq!(written[0].0, WellKnownToken::Skip.token());
    assert_eq!(
        sequenced(written[1].0, &written[1].1),
        Some((2, 1, b"b".to_vec()))
    );
}

#[test]
fn what_remains_is_written_anew_for_each_transmission() {
    for size in [16, 100_000] {
        let kit = Kit::open();
        let terms = PacketTerms {
            expiry: Some(Expiry {
                at: ms(1000),
                remaining_offset: Some(4),
            }),
            ..PacketTerms::default()
        };
        kit.send_under(terms, &"x".repeat(size)).unwrap();
        let remaining = |now| {
            let written = packets(&kit.write_at(now, usize::MAX));
            let (.., payload) = sequenced(written[0].0, &written[0].1).unwrap();
            assert_eq!(payload.len(), size);
            assert!(payload[..4] == *b"xxxx" && payload[12..].iter().all(|byte| *byte == b'x'));
            Duration::from_nanos(u64::from_le_bytes(*payload[4..].first_chunk().unwrap()))
        };
        assert_eq!(remaining(ms(100)), ms(900));
        kit.closed(ms(150), lost());
        assert_eq!(kit.decide(ms(300)), Action::Connect);
        kit.connected(ms(300));
        kit.hello();
        let resumed = answer(Outcome::Resumed { next_expected: 1 });
        kit.answer(ms(300), resumed).unwrap();
        assert_eq!(remaining(ms(400)), ms(600));
    }
}

#[test]
fn answers_are_taken_when_nothing_else_is_and_no_more_than_were_reserved() {
    let kit = Kit::open_with(answers(2));
    kit.send("own");
    let payload = Bytes::from_static(b"own");
    assert_eq!(
        kit.handle.send_reliable(TOKEN, payload.clone()),
        Err(PeerError::QueueFull { payload })
    );
    let slots = [kit.reserve().unwrap(), kit.reserve().unwrap()];
    assert_eq!(kit.reserve(), None, "two are owed");
    for slot in slots {
        kit.send_under(slot, "answer").unwrap();
    }
    assert_eq!(kit.reserve(), None, "two are held");
    assert_eq!(kit.payloads_at(ms(1)), ["own", "answer", "answer"]);
    assert_eq!(kit.handle.metrics().answer_slots, 2);
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    assert_eq!(kit.handle.metrics().answer_slots, 1);
    // The answer that is held is none of what this end sends of its own.
    kit.send("own");
    assert!(kit.reserve().is_some());
}

#[test]
fn bytes_of_answers_that_are_held_admit_no_more_requests_but_take_their_answers() {
    let config = PeerConfig {
        answer_bytes: 100,
        ..PeerConfig::default()
    };
    let kit = Kit::open_with(config);
    let slots = [kit.reserve().unwrap(), kit.reserve().unwrap()];
    for slot in slots {
        kit.send_under(slot, &"x".repeat(200)).unwrap();
    }
    assert_eq!(kit.reserve(), None);
    kit.write_all();
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    assert!(kit.reserve().is_some());
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

#[test]
fn refusals_have_a_limit_of_their_own() {
    let kit = Kit::open_with(answers(2));
    kit.send("own");
    kit.refuse().unwrap();
    kit.refuse().unwrap();
    assert!(matches!(kit.refuse(), Err(PeerError::QueueFull { .. })));
    kit.write_all();
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    kit.refuse().unwrap();
}

/// The packet that passes the limit is still taken, and half of the limit asks for an acknowledgement.
#[test]
fn bytes_of_refusals_have_a_limit_of_their_own() {
    let kit = Kit::open_with(PeerConfig {
        refusal_bytes: 400,
        ..PeerConfig::default()
    });
    let asks = |now: Duration| kit.asks_for_an_acknowledgement(now);
    let refuse = || kit.refuse_with(&"x".repeat(100));
    refuse().unwrap();
    assert!(!asks(ms(1)));
    refuse().unwrap();
    assert!(asks(ms(2)));
    refuse().unwrap();
    assert!(matches!(refuse(), Err(PeerError::QueueFull { .. })));
    kit.frame(WellKnownToken::Ack, &[3]).unwrap();
    refuse().unwrap();
}

#[test]
fn refusals_of_one_burst_share_a_packet_that_has_its_limits() {
    let kit = Kit::open_with(answers(2));
    let token = TOKEN;
    assert!(!kit.handle.extend_refusal(token, b"first"), "there is none");
    kit.refuse().unwrap();
    assert!(!kit.handle.extend_refusal(UID::new(9, 9), b"elsewhere"));
    assert!(kit.handle.extend_refusal(token, b"+1"));
    let chunk = [b'x'; 1_000];
    let added = (0..20).take_while(|_| kit.handle.extend_refusal(token, &chunk));
    assert_eq!(added.count(), 16);
    let bytes = kit.handle.metrics().reliable_bytes;
    let payloads = kit.payloads_at(ms(1));
    assert_eq!(payloads.len(), 1);
    assert!(payloads[0].contains("+1xxx") && payloads[0].len() > 16_000);
    assert!(bytes > payloads[0].len());
    assert!(
        !kit.handle.extend_refusal(token, b"late"),
        "it is on its way"
    );
    kit.send("own");
    assert!(!kit.handle.extend_refusal(token, b"behind"));
    kit.refuse().unwrap();
    kit.write_all();
    kit.frame(WellKnownToken::Ack, &[4]).unwrap();
    assert_eq!(kit.handle.metrics().reliable_bytes, 0);
}

/// So that the other end, which has no reason of its own to, makes room for more.
#[test]
fn half_the_limit_of_refusals_asks_for_an_acknowledgement() {
    let kit = Kit::open_with(PeerConfig {
        refusals: 4,
        ..PeerConfig::default()
    });
    let asks = |now: Duration| kit.asks_for_an_acknowledgement(now);
    kit.refuse().unwrap();
    assert!(!asks(ms(1)));
    kit.refuse().unwrap();
    assert!(asks(ms(2)));
}

/// Others hold everything: what is left is little, and asked for soon.
#[test]
fn refusals_are_taken_up_to_a_floor_that_others_cannot_take_away() {
    let kit = Kit::open();
    let budget = Rc::new(SharedBudget::new(1_000));
    kit.handle.state().share_answers(Rc::clone(&budget));
    budget.add(1_000);
    let asks = |now: Duration| kit.asks_for_an_acknowledgement(now);
    let refuse = || kit.refuse_with(&"x".repeat(16_000));
    assert!(kit.handle.reserve_answer().is_none(), "nothing is free");
    refuse().unwrap();
    refuse().unwrap();
    assert!(!asks(ms(1)));
    refuse().unwrap();
    assert!(asks(ms(2)), "half of the floor");
    refuse().unwrap();
    refuse().unwrap();
    assert!(matches!(refuse(), Err(PeerError::QueueFull { .. })));
}

#[test]
fn answers_do_not_move_to_another_session() {
    let kit = Kit::open_with(answers(2));
    kit.send("own");
    let (sent, owed) = (kit.reserve().unwrap(), kit.reserve().unwrap());
    kit.send_under(sent, "answer").unwrap();
    kit.refuse().unwrap();
    kit.closed(ms(5), lost());
    kit.greet(ms(105));
    assert_eq!(kit.payloads_at(ms(105)), ["own"]);
    assert_eq!(kit.handle.metrics().answer_slots, 0);
    let late = kit.send_under(owed, "late");
    assert!(matches!(late, Err(PeerError::Closed { .. })), "{late:?}");
}

/// Written and never acknowledged: it is kept for a resume, until nobody waits for it any more.
#[test]
fn an_answer_is_kept_until_it_expires() {
    let kit = Kit::open();
    let slot = kit.reserve().unwrap();
    let expiring = PacketTerms {
        account: slot.account,
        ..until(ms(500))
    };
    kit.send_under(expiring, &"x".repeat(1000)).unwrap();
    let queued = kit.reserve().unwrap();
    assert_eq!(kit.payloads_at(ms(1)).len(), 1);
    kit.closed(ms(5), lost());
    let expiring = PacketTerms {
        account: queued.account,
        ..until(ms(400))
    };
    kit.send_under(expiring, "queued").unwrap();
    let held = |now| {
        kit.decide(now);
        let metrics = kit.handle.metrics();
        (metrics.answer_slots, metrics.reliable_bytes > 500)
    };
    assert_eq!(held(ms(399)), (2, true));
    assert_eq!(held(ms(400)), (1, true));
    assert!(kit.timeout(ms(400)).unwrap() <= ms(500));
    // The number of the one that was written stays taken.
    assert_eq!(held(ms(500)), (1, false));
}

#[test]
fn a_close_waits_for_the_answers_that_were_promised() {
    let kit = Kit::open_with(answers(3));
    let [first, second] = [(); 2].map(|()| kit.reserve().unwrap());
    let dropped = kit.handle.reserve_answer().unwrap();
    kit.handle.start_close(ms(1_000));
    assert!(kit.handle.send_reliable(TOKEN, "own".into()).is_err());
    assert_eq!(kit.decide(ms(1)), Action::Wait);
    assert!(!kit.handle.state().has_more_to_do(), "it waits");
    for (terms, payload, ack) in [(first, "a", 2), (second, "b", 3)] {
        kit.send_under(terms, payload).unwrap();
        assert_eq!(kit.payloads_at(ms(2)), [payload]);
        kit.decide(ms(2));
        let asked = kit.packets();
        assert_eq!(asked[0].0, WellKnownToken::SessionPing.token());
        kit.frame(WellKnownToken::SessionPong, &[ack, 0]).unwrap();
        assert_eq!(kit.decide(ms(3)), Action::Wait);
        assert!(!kit.handle.state().has_more_to_do(), "it waits");
    }
    kit.handle.release_answer(dropped);
    kit.decide(ms(4));
    kit.packets();
    assert_eq!(kit.decide(ms(4)), Action::Shutdown);
    assert!(kit.refuse().is_err(), "it said goodbye");
}

#[test]
fn a_close_waits_for_answers_no_longer_than_its_grace() {
    let kit = Kit::open_with(answers(1));
    let _promised = kit.reserve().unwrap();
    kit.handle.start_close(ms(1_000));
    assert_eq!(kit.decide(ZERO), Action::Wait);
    assert_eq!(kit.timeout(ms(1)), Some(ms(1_000)));
    let closed = ConnectionError::Closed;
    assert_eq!(kit.decide(ms(1_000)), Action::Disconnect(closed));
}

#[test]
fn room_that_is_given_back_is_there_for_the_next_answer() {
    let kit = Kit::open_with(answers(1));
    let slot = kit.handle.reserve_answer().unwrap();
    assert_eq!(kit.handle.reserve_answer(), None);
    kit.handle.release_answer(slot);
    assert!(kit.handle.reserve_answer().is_some());
}

#[test]
fn a_large_payload_with_a_part_to_rewrite_is_given_back_whole() {
    let kit = Kit::open();
    let limit = PeerConfig::default().max_payload_bytes as usize;
    let payload: Vec<u8> = (0..=250).cycle().take(limit + 1).collect();
    let terms = PacketTerms {
        expiry: Some(Expiry {
            at: ms(10),
            remaining_offset: Some(4),
        }),
        ..PacketTerms::default()
    };
    let sent = kit.handle.send_reliable_under(TOKEN, terms, |buffer| {
        buffer.extend_from_slice(&payload);
        Ok::<(), ()>(())
    });
    let Err(SendError::Peer(PeerError::PayloadTooLarge { payload: back, .. })) = sent else {
        panic!("it was not refused");
    };
    assert!(back == payload, "{} bytes came back", back.len());
}

#[test]
fn answers_that_expire_before_they_are_acknowledged_leave_no_pressure() {
    let kit = Kit::open_with(PeerConfig {
        reliable_bytes: 2_000,
        ..PeerConfig::default()
    });
    for n in 0..3_u64 {
        let at = |after: u64| ms(1_000 * n + after);
        let slot = kit.reserve().unwrap();
        let terms = PacketTerms {
            account: slot.account,
            ..until(at(100))
        };
        kit.send_under(terms, &"x".repeat(500)).unwrap();
        kit.write_at(at(1), usize::MAX);
        kit.decide(at(200));
        kit.frame(WellKnownToken::Ack, &[n + 2]).unwrap();
        kit.decide(at(300));
        assert!(
            !kit.handle.state().has_more_to_do(),
            "after {} answers",
            n + 1
        );
    }
    kit.decide(ms(3_000));
    assert!(!kit.handle.state().has_more_to_do());
    let written = packets(&kit.write_at(ms(3_000), usize::MAX));
    assert_eq!(written, [], "nothing is owed");
}
