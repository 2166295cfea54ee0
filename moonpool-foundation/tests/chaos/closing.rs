//! Connections that a test closes: by FIN, by RST, in one direction; and pairs that are disconnected.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use moonpool_foundation::{
    CloseDirection, ConnectionSide, FaultKind, NetworkConfiguration, NetworkProvider,
    disconnect_pair_for,
};

use crate::worlds::{Pair, SECOND, pattern, quiet, read_all};

#[test]
fn a_graceful_close_delivers_everything_and_then_the_end() {
    let mut pair = Pair::new(quiet(), 1);
    let sent = pattern(20_000);
    pair.client_writes(&sent).unwrap();
    pair.world
        .close_connection_graceful(pair.connection, ConnectionSide::Dialer);
    assert_eq!(pair.client_writes(b"late"), Err(ErrorKind::BrokenPipe));
    let mut accepted = pair.accepted();
    let heard = pair.world.block_on(async move {
        let heard = read_all(&mut accepted).await;
        (heard, accepted)
    });
    let (heard, accepted) = heard.unwrap();
    assert_eq!(heard, (sent, Ok(())));
    // The other direction is open still.
    pair.accepted = Some(accepted);
    pair.server_writes(b"back").unwrap();
    assert_eq!(pair.client_reads().0.unwrap(), b"back");
}

#[test]
fn an_abort_is_a_reset_for_both_ends() {
    let mut pair = Pair::new(quiet(), 1);
    pair.world.close_connection_abort(pair.connection);
    assert_eq!(pair.server_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.client_reads().0, Err(ErrorKind::ConnectionReset));
}

#[test]
fn an_asymmetric_close_ends_one_direction_by_fin_when_nothing_is_pending() {
    for (direction, client, server) in [
        (CloseDirection::Send, Err(ErrorKind::BrokenPipe), Ok(())),
        (CloseDirection::Receive, Ok(()), Err(ErrorKind::BrokenPipe)),
        (
            CloseDirection::Both,
            Err(ErrorKind::BrokenPipe),
            Err(ErrorKind::BrokenPipe),
        ),
    ] {
        let mut pair = Pair::new(quiet(), 1);
        let side = ConnectionSide::Dialer;
        pair.world
            .close_connection_asymmetric(pair.connection, side, direction);
        assert_eq!(pair.client_writes(b"there"), client, "{direction:?}");
        assert_eq!(pair.server_writes(b"back"), server, "{direction:?}");
        let there = if client.is_ok() { &b"there"[..] } else { b"" };
        let back = if server.is_ok() { &b"back"[..] } else { b"" };
        assert_eq!(pair.server_reads().0.unwrap(), there, "{direction:?}");
        assert_eq!(pair.client_reads().0.unwrap(), back, "{direction:?}");
    }
}

#[test]
fn with_bytes_pending_an_asymmetric_close_is_a_reset() {
    let mut pair = Pair::new(quiet(), 1);
    pair.client_writes(b"pending").unwrap();
    let side = ConnectionSide::Dialer;
    pair.world
        .close_connection_asymmetric(pair.connection, side, CloseDirection::Send);
    let mut accepted = pair.accepted();
    let end = pair
        .world
        .block_on(async move { read_all(&mut accepted).await.1 });
    assert_eq!(end.unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_dropped_stream_sends_fin_or_by_chance_a_reset() {
    let mut config = quiet();
    config.chaos.reset_probability = 0.5;
    let mut ends = BTreeSet::new();
    for seed in 0..30 {
        let mut pair = Pair::new(config.clone(), seed);
        pair.client_writes(b"last words").unwrap();
        drop(pair.dialled());
        let fired = pair.world.fault_counts().of(FaultKind::Reset);
        let mut accepted = pair.accepted();
        let (heard, end) = pair
            .world
            .block_on(async move { read_all(&mut accepted).await })
            .unwrap();
        assert_eq!(heard, b"last words", "seed {seed}");
        assert_eq!(fired == 0, end.is_ok(), "seed {seed}: {end:?}");
        ends.insert(format!("{end:?}"));
    }
    assert_eq!(ends.len(), 2, "{ends:?}");
}

fn connect(pair: &Pair) -> Result<(), ErrorKind> {
    let network = pair.client.network_provider();
    let connect = async move { network.connect("server:81").await.map(drop) };
    let result = pair.world.block_on(connect).unwrap();
    result.map_err(|error| error.kind())
}

#[test]
fn a_disconnected_pair_is_reset_and_refused_until_it_is_reconnected() {
    let mut pair = Pair::new(quiet(), 1);
    let network = pair.server.network_provider();
    let listener = pair
        .world
        .block_on(async move { network.bind("server:81").await.unwrap() });
    assert_eq!(connect(&pair), Ok(()));
    let (server, client) = (pair.server.clone(), pair.client.clone());
    let began = pair.world.now();
    disconnect_pair_for(&pair.world, &client, &server, 10 * SECOND);
    assert_eq!(pair.server_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(pair.client_reads().0, Err(ErrorKind::ConnectionReset));
    assert_eq!(connect(&pair), Err(ErrorKind::ConnectionRefused));
    pair.world.run_until(began + 11 * SECOND).unwrap();
    assert_eq!(connect(&pair), Ok(()));
    drop(listener);
}

#[test]
fn a_connection_between_others_is_not_disconnected() {
    let mut pair = Pair::new(NetworkConfiguration::fast_local(), 1);
    let third = pair.world.add_process("third");
    let server = pair.server.clone();
    pair.world.disconnect_pair(&server, &third);
    pair.client_writes(b"fine").unwrap();
    assert_eq!(pair.server_reads().0.unwrap(), b"fine");
}

/// Two hosts of which one can connect to the other as long as the listener is there.
fn listening() -> (Pair, impl Sized) {
    let pair = Pair::new(quiet(), 1);
    let network = pair.server.network_provider();
    let bind = async move { network.bind("server:81").await.unwrap() };
    let listener = pair.world.block_on(bind).unwrap();
    (pair, listener)
}

#[test]
fn the_end_of_a_disconnection_leaves_a_later_one_alone() {
    let refused = Err(ErrorKind::ConnectionRefused);
    let (pair, _listener) = listening();
    let (server, client) = (&pair.server, &pair.client);
    let began = pair.world.now();
    disconnect_pair_for(&pair.world, client, server, 10 * SECOND);
    pair.world.disconnect_pair(server, client);
    pair.world.run_until(began + 60 * SECOND).unwrap();
    assert_eq!(connect(&pair), refused, "nobody has reconnected them");
    pair.world.reconnect_pair(client, server);
    assert_eq!(connect(&pair), Ok(()));

    let began = pair.world.now();
    disconnect_pair_for(&pair.world, client, server, 10 * SECOND);
    disconnect_pair_for(&pair.world, server, client, 50 * SECOND);
    disconnect_pair_for(&pair.world, server, client, 20 * SECOND);
    pair.world.run_until(began + 49 * SECOND).unwrap();
    assert_eq!(connect(&pair), refused, "the longest counts");
    pair.world.run_until(began + 51 * SECOND).unwrap();
    assert_eq!(connect(&pair), Ok(()));

    let began = pair.world.now();
    disconnect_pair_for(&pair.world, client, server, 10 * SECOND);
    pair.world.reconnect_pair(client, server);
    pair.world.run_until(began + 5 * SECOND).unwrap();
    disconnect_pair_for(&pair.world, client, server, 10 * SECOND);
    pair.world.run_until(began + 14 * SECOND).unwrap();
    assert_eq!(connect(&pair), refused, "the first was over before");
    pair.world.run_until(began + 16 * SECOND).unwrap();
    assert_eq!(connect(&pair), Ok(()));
}
