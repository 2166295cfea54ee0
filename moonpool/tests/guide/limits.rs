//! The guide's table of limits says what the code has.

use std::time::Duration;

use moonpool::foundation::network::peer::PeerConfig;
use moonpool::{QueueLimits, Serving, TokioTaskProvider, TokioTimeProvider};

use super::GUIDE;

/// The default that the guide's table gives for a name.
fn told(name: &str) -> &'static str {
    let row = GUIDE
        .lines()
        .find(|line| line.starts_with(&format!("| `{name}` |")));
    let row = row.unwrap_or_else(|| panic!("the guide has no row for `{name}`"));
    row.split('|').nth(2).unwrap_or_default().trim()
}

fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn mebibytes(bytes: usize) -> String {
    format!("{} MiB", bytes / 1024 / 1024)
}

fn time(duration: Duration) -> String {
    let text = format!("{duration:?}");
    match text.strip_suffix("ms") {
        Some(millis) => format!("{millis} ms"),
        None => text.replace('s', " s"),
    }
}

#[test]
fn the_guide_names_the_limits_that_the_code_has() {
    let peer = PeerConfig::default();
    let queue = QueueLimits::default();
    let concurrency = Serving::<TokioTimeProvider, TokioTaskProvider>::DEFAULT_MAX_CONCURRENCY;
    for (name, value) in [
        ("Serving::max_concurrency", count(concurrency)),
        ("QueueLimits::messages", count(queue.messages)),
        ("QueueLimits::bytes", mebibytes(queue.bytes)),
        (
            "PeerConfig::max_payload_bytes",
            mebibytes(peer.max_payload_bytes as usize),
        ),
        ("PeerConfig::reliable_packets", count(peer.reliable_packets)),
        ("PeerConfig::reliable_bytes", mebibytes(peer.reliable_bytes)),
        ("PeerConfig::answer_packets", count(peer.answer_packets)),
        ("PeerConfig::answer_bytes", mebibytes(peer.answer_bytes)),
        ("PeerConfig::refusals", count(peer.refusals)),
        (
            "PeerConfig::unreliable_packets",
            count(peer.unreliable_packets),
        ),
        (
            "PeerConfig::unreliable_bytes",
            mebibytes(peer.unreliable_bytes),
        ),
        ("PeerConfig::connect_timeout", time(peer.connect_timeout)),
        ("PeerConfig::initial_backoff", time(peer.initial_backoff)),
        ("PeerConfig::max_backoff", time(peer.max_backoff)),
        ("PeerConfig::idle_close", time(peer.idle_close.unwrap())),
        ("PeerConfig::failed_after", time(peer.failed_after)),
    ] {
        assert_eq!(told(name), value, "{name}");
    }
}
