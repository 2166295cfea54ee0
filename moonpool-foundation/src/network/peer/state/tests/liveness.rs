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
