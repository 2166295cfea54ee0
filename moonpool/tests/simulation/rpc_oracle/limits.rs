//! The limits of `docs/limits.md`: each is reached in a campaign, or by the directed test that is named
//! here.

use moonpool::PeerConfig;

use super::coverage::Tally;

/// Which limits of a narrow process are low: with all of them, one would hide another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Narrowness {
    /// Counts of packets, and of connections.
    Packets,
    /// Bytes of one peer, and handshakes.
    Bytes,
    /// What all sessions share, and their number.
    Whole,
}

impl Narrowness {
    pub(crate) fn draw(random: u64) -> Self {
        match random % 3 {
            0 => Self::Packets,
            1 => Self::Bytes,
            _ => Self::Whole,
        }
    }

    pub(crate) fn narrow(self, wide: PeerConfig) -> PeerConfig {
        match self {
            Self::Packets => PeerConfig {
                reliable_packets: 4,
                unreliable_packets: 2,
                answer_packets: 4,
                refusals: 3,
                ..wide
            },
            Self::Bytes => PeerConfig {
                reliable_bytes: 1_500,
                unreliable_bytes: 1_000,
                answer_bytes: 800,
                refusals: 3,
                ..wide
            },
            Self::Whole => wide,
        }
    }
}

/// How a limit is known to be reached.
enum Reached {
    /// In a campaign, under these names.
    Here(&'static [&'static str]),
    /// By this test, which stands beside the limit.
    By(&'static str),
}

/// The rows of `docs/limits.md`, in its order.
const ROWS: &[(&str, Reached)] = &[
    (
        "packets to one peer, not acknowledged",
        Reached::Here(&["reliable_packets"]),
    ),
    ("bytes of the same", Reached::Here(&["reliable_bytes"])),
    (
        "unreliable packets to one peer",
        Reached::Here(&["unreliable_packets"]),
    ),
    ("bytes of the same", Reached::Here(&["unreliable_bytes"])),
    (
        "messages of a process to itself",
        Reached::Here(&["local_packets", "local_bytes"]),
    ),
    (
        "calls and embedded promises that wait",
        Reached::Here(&["pending_calls", "pending_promises"]),
    ),
    (
        "bytes of a payload",
        Reached::Here(&["payload_sent", "payload_taken"]),
    ),
    ("bytes of a reply", Reached::Here(&["reply"])),
    ("metadata of a call", Reached::Here(&["metadata"])),
    ("time of a call", Reached::Here(&["time"])),
    ("attempts of a retried call", Reached::Here(&["attempts"])),
    (
        "endpoints remembered as not found",
        Reached::By("nothing_grows_with_addresses_watches_or_missing_endpoints_that_come_and_go"),
    ),
    (
        "messages in one stream",
        Reached::Here(&["stream_messages"]),
    ),
    ("bytes of the same", Reached::Here(&["stream_bytes"])),
    (
        "handlers of a `Serving` at one time",
        Reached::Here(&["handlers"]),
    ),
    (
        "requests of one session that are not answered, and answers not acknowledged",
        Reached::Here(&["answer_packets"]),
    ),
    ("bytes of those answers", Reached::Here(&["answer_bytes"])),
    (
        "bytes of the answers and refusals of all sessions",
        Reached::Here(&["all_answer_bytes"]),
    ),
    (
        "requests of a process to itself that are not answered",
        Reached::Here(&["own_requests"]),
    ),
    (
        "packets of refusals that are not acknowledged",
        Reached::Here(&["refusals"]),
    ),
    (
        "bytes of the same",
        Reached::By("a_session_that_never_acknowledges_its_refusals_ends_at_their_bytes"),
    ),
    ("accepted connections", Reached::Here(&["connections"])),
    (
        "connections without a complete greeting",
        Reached::Here(&["handshakes"]),
    ),
    (
        "time of a greeting",
        Reached::By("a_connection_that_says_nothing_is_closed_after_its_time"),
    ),
    (
        "bytes of a greeting",
        Reached::By("a_length_beyond_the_limit_reserves_nothing"),
    ),
    (
        "sessions, those without a connection included",
        Reached::Here(&["sessions"]),
    ),
    (
        "bytes that all connections read into",
        Reached::By("half_packets_take_no_more_than_the_transport_may_read_into"),
    ),
    (
        "received packets in a bare peer's inbox",
        Reached::By("a_full_inbox_stops_the_sender_and_loses_nothing"),
    ),
    (
        "bytes read in one turn of a connection",
        Reached::By("a_peer_that_never_stops_sending_does_not_keep_others_waiting"),
    ),
];

/// Seeds after which a limit that nothing reached is one that nothing can reach.
const ENOUGH: u64 = 1_000;

/// Limits that fewer seeds may miss.
const RARE: usize = 2;

/// Every limit that can be reached in a campaign has been, in those that `tally` is of. The rarest are
/// reached in one seed of fifty: a few seeds may miss them.
pub(crate) fn assert_all_reached(tally: &Tally, seeds: u64) {
    let mut missed = Vec::new();
    for (row, reached) in ROWS {
        if let Reached::Here(names) = reached {
            let names = names.iter().filter(|name| !tally.has_limit(name));
            missed.extend(names.map(|name| format!("{row}: {name}")));
        }
    }
    let allowed = if seeds < ENOUGH { RARE } else { 0 };
    assert!(
        missed.len() <= allowed,
        "limits that nothing reached: {missed:#?}"
    );
}

#[test]
fn each_row_of_the_limits_is_reached_here_or_by_the_test_it_names() {
    let text = include_str!("../../../../docs/limits.md");
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim));
    let rows = cells.map(|cells| cells.collect::<Vec<_>>());
    let rows =
        rows.filter(|cells| !matches!(cells[0], "limit" | "---") && !cells[0].starts_with("---"));
    let rows: Vec<_> = rows.collect();
    let names: Vec<_> = rows.iter().map(|cells| cells[0]).collect();
    let expected: Vec<_> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected);
    for (cells, (name, reached)) in rows.iter().zip(ROWS) {
        if let Reached::By(test) = reached {
            assert!(cells.last().unwrap().contains(test), "{name}: {test}");
        }
    }
}
