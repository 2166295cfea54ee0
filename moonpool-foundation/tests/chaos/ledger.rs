//! Every fault is entered, counted, and can be skipped.

use std::time::Duration;

use moonpool_foundation::{
    CloseDirection, ConnectFailureMode, ConnectionSide, FaultId, FaultKind, LatencyModel,
    NetworkConfiguration, SimWorld,
};

use crate::worlds::{MILLISECOND, Pair, SECOND, pattern, quiet};

/// A network on which `kind` happens by chance, often, and nothing else.
fn often(kind: FaultKind) -> NetworkConfiguration {
    let mut config = quiet();
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

/// Pings for a while and drops the connection. Gives the world at its end.
fn pings(config: NetworkConfiguration, skipped: &[FaultId]) -> SimWorld {
    let mut pair = skipping(config, skipped);
    let (mut dialled, mut accepted, time) = (pair.dialled(), pair.accepted(), pair.time());
    let pinging = async move {
        use moonpool_foundation::TimeProvider;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut bytes = vec![0; 200];
        for _ in 0..3_000 {
            let ping = async {
                dialled.write_all(&pattern(200)).await?;
                accepted.read_exact(&mut bytes).await
            };
            if !matches!(time.timeout(10 * SECOND, ping).await, Ok(Ok(_))) {
                break;
            }
        }
        time.sleep(SECOND).await;
        drop(dialled);
        time.sleep(SECOND).await;
        drop(accepted);
    };
    pair.world.block_on(pinging).unwrap();
    pair.world.run_until_empty().unwrap();
    pair.world
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
fn a_skipped_fault_keeps_its_ordinal_does_not_count_and_changes_the_digest() {
    for kind in BY_CHANCE {
        let world = pings(often(kind), &[]);
        let (digest, fired) = (world.digest(), world.fault_counts().of(kind));
        assert!(fired > 0, "{kind} did not fire");
        assert_eq!(world.fault_counts().total(), fired, "not only {kind} fired");
        let first = world.fault_records()[0];
        assert_eq!((first.id.kind, first.id.ordinal), (kind, 1));
        assert_eq!(
            pings(often(kind), &[]).digest(),
            digest,
            "{kind} does not repeat"
        );

        let without = pings(often(kind), &[first.id]);
        assert_ne!(
            without.digest(),
            digest,
            "{kind}: skipping it changes nothing"
        );
        let again = without.fault_records()[0];
        assert_eq!(
            (again.id, again.at, again.skipped),
            (first.id, first.at, true)
        );
    }
}

#[test]
fn a_fault_that_is_off_draws_nothing() {
    let calm = pings(quiet(), &[]);
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
    assert_eq!(pings(config, &[]).digest(), calm.digest());
}

#[test]
fn faults_of_one_kind_do_not_reshuffle_those_of_another() {
    let both = |probability| NetworkConfiguration {
        partial_write_probability: probability,
        ..often(FaultKind::LongTail)
    };
    let tails = |config| {
        let world = pings(config, &[]);
        let records = world.fault_records();
        let tails = records
            .iter()
            .filter(|record| record.id.kind == FaultKind::LongTail);
        tails.count()
    };
    assert!(tails(both(0.0)) > 0);
    let first_tail = |config| {
        let world = pings(config, &[]);
        world
            .fault_records()
            .into_iter()
            .find(|record| record.id.kind == FaultKind::LongTail)
            .map(|record| record.id)
    };
    assert_eq!(first_tail(both(0.0)), first_tail(both(1e-9)));
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
                    use moonpool_foundation::TimeProvider;
                    use tokio::io::AsyncWriteExt;
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
