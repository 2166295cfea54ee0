//! Every fault is entered, counted, and can be skipped.

use std::io::ErrorKind;
use std::time::Duration;

use moonpool_foundation::{
    CloseDirection, ConnectFailureMode, ConnectionSide, FaultId, FaultKind, LatencyModel,
    NetworkConfiguration, SimTcpStream, SimTimeProvider, SimWorld, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet, read_all};

const PINGS: usize = 3_000;

/// A network on which `kind` happens by chance, often, and nothing else.
fn often(kind: FaultKind) -> NetworkConfiguration {
    with(quiet(), kind)
}

/// The same network, on which `kind` happens too.
fn with(mut config: NetworkConfiguration, kind: FaultKind) -> NetworkConfiguration {
    match kind {
        FaultKind::LongTail => {
            config.write_latency = LatencyModel::LongTail {
                min: MILLISECOND,
                max: 2 * MILLISECOND,
                tail: 50 * MILLISECOND,
            };
        }
        FaultKind::AsymmetricDelay => config.asymmetric_delay_probability = 1.0,
        FaultKind::Segmentation => config.segmentation_probability = 0.5,
        FaultKind::PartialWrite => config.partial_write_probability = 0.5,
        FaultKind::PartialRead => config.partial_read_probability = 0.5,
        FaultKind::PacketLoss => config.packet_loss_probability = 0.2,
        FaultKind::RandomClose => config.random_close_probability = 0.05,
        FaultKind::WriteClog => config.chaos.write_clog_probability = 0.2,
        FaultKind::ReadClog => config.chaos.read_clog_probability = 0.2,
        FaultKind::Cut => config.chaos.cut_probability = 0.2,
        FaultKind::Partition => config.chaos.partition_probability = 1.0,
        FaultKind::BitFlip => config.chaos.bit_flip_probability = 0.5,
        FaultKind::Reset => config.chaos.reset_probability = 1.0,
        other => panic!("{other} does not happen by chance on a connection"),
    }
    config
}

/// What a workload sees of its network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Wrote(usize),
    Read(Vec<u8>),
    Failed(ErrorKind),
    GaveUp,
}

/// Pings for a while and drops the connection. Gives the world at its end, and what the workload saw
/// and when: faults that are only entered in the ledger are not seen there.
fn pings(config: NetworkConfiguration, skipped: &[FaultId]) -> (SimWorld, Vec<(Duration, Seen)>) {
    let mut pair = skipping(config, skipped);
    let (mut dialled, mut accepted, time) = (pair.dialled(), pair.accepted(), pair.time());
    let pinging = async move {
        let mut seen = Vec::new();
        for _ in 0..PINGS {
            let ping = ping(&mut dialled, &mut accepted, &time, &mut seen);
            match time.timeout(10 * SECOND, ping).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    seen.push((time.now(), Seen::Failed(error.kind())));
                    break;
                }
                Err(_) => {
                    seen.push((time.now(), Seen::GaveUp));
                    break;
                }
            }
        }
        time.sleep(SECOND).await;
        drop(dialled);
        time.sleep(SECOND).await;
        let last = match time.timeout(100 * SECOND, read_all(&mut accepted)).await {
            Ok((rest, Ok(()))) => Seen::Read(rest),
            Ok((_, Err(kind))) => Seen::Failed(kind),
            Err(_) => Seen::GaveUp,
        };
        seen.push((time.now(), last));
        seen
    };
    let seen = pair.world.block_on(pinging).unwrap();
    pair.world.run_until_empty().unwrap();
    (pair.world, seen)
}

/// Writes and reads 200 bytes, and notes what each call gives.
async fn ping(
    dialled: &mut SimTcpStream,
    accepted: &mut SimTcpStream,
    time: &SimTimeProvider,
    seen: &mut Vec<(Duration, Seen)>,
) -> std::io::Result<()> {
    let (bytes, mut read) = (pattern(200), vec![0; 200]);
    let mut written = 0;
    while written < bytes.len() {
        let count = dialled.write(&bytes[written..]).await?;
        seen.push((time.now(), Seen::Wrote(count)));
        written += count;
    }
    let mut left = bytes.len();
    while left > 0 {
        let count = accepted.read(&mut read[..left]).await?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        seen.push((time.now(), Seen::Read(read[..count].to_vec())));
        left -= count;
    }
    Ok(())
}

/// As [`Pair::new`], with faults skipped from the beginning.
fn skipping(config: NetworkConfiguration, skipped: &[FaultId]) -> Pair {
    Pair::new_with(config, 1, |world| {
        world.set_skipped_faults(skipped.iter().copied());
        world.record_faults();
    })
}

const BY_CHANCE: [FaultKind; 13] = [
    FaultKind::LongTail,
    FaultKind::AsymmetricDelay,
    FaultKind::Segmentation,
    FaultKind::PartialWrite,
    FaultKind::PartialRead,
    FaultKind::PacketLoss,
    FaultKind::RandomClose,
    FaultKind::WriteClog,
    FaultKind::ReadClog,
    FaultKind::Cut,
    FaultKind::Partition,
    FaultKind::BitFlip,
    FaultKind::Reset,
];

#[test]
fn a_skipped_fault_keeps_its_ordinal_does_not_count_and_does_not_happen() {
    let mut unfelt = Vec::new();
    for kind in BY_CHANCE {
        let (world, seen) = pings(often(kind), &[]);
        let records = world.fault_records();
        assert!(!records.is_empty(), "{kind} did not fire");
        assert!(
            records.iter().all(|record| record.id.kind == kind),
            "not only {kind} fired"
        );
        assert_eq!(world.fault_counts().of(kind), records.len() as u64);
        let first = records[0];
        assert_eq!((first.id.kind, first.id.ordinal), (kind, 1));
        let (again, seen_again) = pings(often(kind), &[]);
        assert_eq!(again.digest(), world.digest(), "{kind} does not repeat");
        assert!(seen_again == seen, "{kind} does not repeat");

        let (without, seen_without) = pings(often(kind), &[first.id]);
        if seen_without == seen {
            unfelt.push(kind);
        }
        let again = without.fault_records()[0];
        assert_eq!(
            (again.id, again.at, again.skipped),
            (first.id, first.at, true)
        );
    }
    assert_eq!(unfelt, [], "the workload sees no difference");
}

#[test]
fn a_fault_that_is_off_draws_nothing() {
    let (calm, _) = pings(quiet(), &[]);
    assert_eq!(calm.fault_counts().total(), 0);
    // What the other fields say makes no difference then: the digest holds every draw.
    let mut config = quiet();
    config.chaos.clog_duration = MILLISECOND..=SECOND;
    config.chaos.cut_duration = MILLISECOND..=SECOND;
    config.chaos.partition_long_probability = 0.5;
    config.chaos.connect_failure_mode = ConnectFailureMode::Disabled;
    config.chaos.connect_failure_activation = 1.0;
    config.partial_write_max_bytes = 1;
    config.random_close_explicit_ratio = 0.9;
    assert_eq!(pings(config, &[]).0.digest(), calm.digest());
}

#[test]
fn faults_of_one_kind_do_not_reshuffle_those_of_another() {
    // Those that leave the connection alive, and do not hide the others by ending everything.
    let lasting = BY_CHANCE.into_iter().filter(|kind| {
        let ends = [
            FaultKind::RandomClose,
            FaultKind::PacketLoss,
            FaultKind::Partition,
        ];
        *kind != FaultKind::LongTail && !ends.contains(kind)
    });
    let lasting: Vec<FaultKind> = lasting.collect();
    let mut reshuffling = Vec::new();
    for kind in BY_CHANCE {
        // The latencies that a long tail is drawn beside.
        let mut config = quiet();
        config.write_latency = LatencyModel::uniform(MILLISECOND, 2 * MILLISECOND);
        let others = lasting.iter().filter(|other| **other != kind);
        let config = others.fold(config, |config, other| with(config, *other));
        let (world, seen) = pings(config.clone(), &[]);
        assert_eq!(world.fault_counts().of(kind), 0);
        assert!(seen.len() > PINGS, "{kind}: the others end it early");

        // It is drawn, and all its faults are skipped: what is seen is the others'.
        let all: Vec<FaultId> = (1..=20_000)
            .map(|ordinal| FaultId { kind, ordinal })
            .collect();
        let (world, seen_beside) = pings(with(config, kind), &all);
        let drawn = world.fault_records();
        assert!(drawn.iter().any(|record| record.id.kind == kind), "{kind}");
        if seen_beside != seen {
            reshuffling.push(kind);
        }
    }
    assert_eq!(reshuffling, [], "other faults change when they are drawn");
}

/// A fault that a test asks for.
type ByCall = fn(&Pair);

fn by_call() -> Vec<(FaultKind, ByCall)> {
    const LONG: Duration = Duration::from_secs(3);
    vec![
        (FaultKind::Partition, |pair| {
            pair.world.partition_pair(&pair.server, &pair.client, LONG);
        }),
        (FaultKind::Partition, |pair| {
            pair.world
                .partition_one_way(&pair.client, &pair.server, LONG);
        }),
        (FaultKind::Partition, |pair| {
            pair.world.partition_send_from(&pair.client, LONG);
        }),
        (FaultKind::Partition, |pair| {
            pair.world.partition_recv_to(&pair.server, LONG);
        }),
        (FaultKind::PairClog, |pair| {
            pair.world.clog_pair(&pair.server, &pair.client, LONG);
        }),
        (FaultKind::PairClog, |pair| {
            pair.world.clog_process(&pair.server, LONG);
        }),
        (FaultKind::Disconnect, |pair| {
            pair.world.disconnect_pair(&pair.server, &pair.client);
        }),
        (FaultKind::Cut, |pair| {
            pair.world.cut_connection(pair.connection, LONG);
        }),
        (FaultKind::ReadClog, |pair| {
            let side = ConnectionSide::Acceptor;
            pair.world.clog_read(pair.connection, side, LONG);
        }),
        (FaultKind::WriteClog, |pair| {
            let side = ConnectionSide::Dialer;
            pair.world.clog_write(pair.connection, side, LONG);
        }),
        (FaultKind::RandomClose, |pair| {
            let side = ConnectionSide::Dialer;
            pair.world.close_connection_graceful(pair.connection, side);
        }),
        (FaultKind::RandomClose, |pair| {
            let side = ConnectionSide::Acceptor;
            pair.world
                .close_connection_asymmetric(pair.connection, side, CloseDirection::Both);
        }),
        (FaultKind::Reset, |pair| {
            pair.world.close_connection_abort(pair.connection);
        }),
        (FaultKind::HalfOpen, |pair| {
            let side = ConnectionSide::Acceptor;
            pair.world.simulate_peer_crash(pair.connection, side, LONG);
        }),
        (FaultKind::AsymmetricDelay, |pair| {
            pair.world
                .set_asymmetric_delays(pair.connection, LONG, LONG);
        }),
    ]
}

#[test]
fn a_fault_by_call_is_entered_and_skipped_as_those_by_chance() {
    for (number, (kind, cause)) in by_call().into_iter().enumerate() {
        let id = FaultId { kind, ordinal: 1 };
        for skips in [false, true] {
            let skipped = if skips { vec![id] } else { vec![] };
            let mut pair = skipping(quiet(), &skipped);
            cause(&pair);
            let record = pair.world.fault_records()[0];
            assert_eq!((record.id, record.skipped), (id, skips), "{number}");
            assert_eq!(pair.world.fault_counts().of(kind), u64::from(!skips));
            // It is felt unless it is skipped: a write that cannot go on, or a byte that comes late.
            let mut dialled = pair.dialled();
            let time = pair.time();
            let (dialled, written) = pair
                .world
                .block_on(async move {
                    let write = time.timeout(SECOND, dialled.write_all(b"x")).await;
                    (dialled, matches!(write, Ok(Ok(()))))
                })
                .unwrap();
            pair.dialled = Some(dialled);
            let undisturbed = written && pair.server_hears_within(10 * MILLISECOND);
            assert_eq!(undisturbed, skips, "{number}: {kind}");
        }
    }
}
