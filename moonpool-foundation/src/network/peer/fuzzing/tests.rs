//! The bounded runs: what is kept, and a fixed number of seeded inputs, through every body.

use super::*;

/// Seeded inputs per body.
const INPUTS: usize = 10_000;

/// Scripts for the state: each has up to some hundred steps.
const SCRIPTS: usize = 3_000;

fn run(target: &str, inputs: usize, body: fn(&[u8])) {
    let kept = corpus(target);
    kept.iter().for_each(|input| body(input));
    let mut generator = Generator::new(0, kept);
    for _ in 0..inputs {
        body(&generator.next_input());
    }
}

#[test]
fn any_bytes_are_a_packet_or_a_typed_error() {
    run("packet", INPUTS, packet);
}

#[test]
fn any_stream_gives_its_packets_however_it_is_cut() {
    run("packet_stream", INPUTS, packet_stream);
}

#[test]
fn any_bytes_are_a_hello_or_a_typed_error() {
    run("hello", INPUTS, hello);
}

#[test]
fn any_bytes_are_an_answer_or_a_typed_error() {
    run("hello_answer", INPUTS, hello_answer);
}

#[test]
fn any_bytes_are_a_frame_or_a_typed_error() {
    run("frame", INPUTS, frame);
}

#[test]
fn any_text_is_an_address_or_a_typed_error() {
    run("address", INPUTS, address);
}

#[test]
fn any_packets_leave_a_peer_within_its_limits() {
    run("peer_state", SCRIPTS, peer_state);
}
