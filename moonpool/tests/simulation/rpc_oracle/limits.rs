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

type Row = (&'static str, Reached);

const fn here(limit: &'static str, names: &'static [&'static str]) -> Row {
    (limit, Reached::Here(names))
}

const fn by(limit: &'static str, test: &'static str) -> Row {
    (limit, Reached::By(test))
}

/// The rows of `docs/limits.md`, in its order.
const ROWS: &[Row] = &[
    here(
        "packets to one peer, not acknowledged",
        &["reliable_packets"],
    ),
    here("bytes of the same", &["reliable_bytes"]),
    here("unreliable packets to one peer", &["unreliable_packets"]),
    here("bytes of the same", &["unreliable_bytes"]),
    here(
        "messages of a process to itself",
        &["local_packets", "local_bytes"],
    ),
    here(
        "calls and embedded promises that wait",
        &["pending_calls", "pending_promises"],
    ),
    here("bytes of a payload", &["payload_sent", "payload_taken"]),
    here("bytes of a reply", &["reply"]),
    here("metadata of a call", &["metadata"]),
    here("time of a call", &["time"]),
    here("attempts of a retried call", &["attempts"]),
    by(
        "endpoints remembered as not found",
        "nothing_grows_with_addresses_watches_or_missing_endpoints_that_come_and_go",
    ),
    here("messages in one stream", &["stream_messages"]),
    here("bytes of the same", &["stream_bytes"]),
    here("handlers of a `Serving` at one time", &["handlers"]),
    here(
        "requests of one session that are not answered, and answers not acknowledged",
        &["answer_packets"],
    ),
    here("bytes of those answers", &["answer_bytes"]),
    here(
        "bytes of the answers and refusals of all sessions",
        &["all_answer_bytes"],
    ),
    here(
        "requests of a process to itself that are not answered",
        &["own_requests"],
    ),
    here(
        "packets of refusals that are not acknowledged",
        &["refusals"],
    ),
    by(
        "bytes of the same",
        "a_session_that_never_acknowledges_its_refusals_ends_at_their_bytes",
    ),
    here("accepted connections", &["connections"]),
    here("connections without a complete greeting", &["handshakes"]),
    by(
        "time of a greeting",
        "a_connection_that_says_nothing_is_closed_after_its_time",
    ),
    by(
        "bytes of a greeting",
        "a_length_beyond_the_limit_reserves_nothing",
    ),
    here(
        "sessions, those without a connection included",
        &["sessions"],
    ),
    by(
        "bytes that all connections read into",
        "half_packets_take_no_more_than_the_transport_may_read_into",
    ),
    by(
        "received packets in a bare peer's inbox",
        "a_full_inbox_stops_the_sender_and_loses_nothing",
    ),
    by(
        "bytes read in one turn of a connection",
        "a_peer_that_never_stops_sending_does_not_keep_others_waiting",
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
