//! What peers say of their connections.

use std::time::Duration;

use moonpool::{
    ConnectionError, Endpoint, JsonCodec, NetworkProvider, PeerConfig, Providers, ReplyError,
    ReplyFuture, TimeProvider, UID, observability, send_request,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::Level;

use crate::capture::events;
use crate::captured_in_both_worlds;
use crate::common::{Hosts, shut_down};

captured_in_both_worlds! {
    connects_and_their_ends_are_said_with_their_cause: 5;
    a_call_that_was_never_sent_is_explained: 5;
    an_address_that_is_never_reachable_is_said_ever_more_rarely: 5;
    a_stranger_who_speaks_no_moonpool_is_warned_of_within_limits: 3;
    connections_beyond_the_limit_are_warned_of_ever_more_rarely: 3;
}

const TOKEN: UID = UID::new(0x0B5F, 1);

async fn connects_and_their_ends_are_said_with_their_cause<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let answer: Result<u32, _> =
        send_request(&client, &Endpoint::new(address, TOKEN), 1, JsonCodec)
            .unwrap()
            .await;
    assert_eq!(answer, Err(ReplyError::EndpointNotFound));
    let connected = events("connected");
    assert_eq!(connected.len(), 2, "both ends say it: {connected:?}");
    assert!(connected.iter().all(|said| said.level == Level::INFO));
    assert!(
        connected
            .iter()
            .all(|said| said.target == observability::PEER_TARGET)
    );
    let dialled = &connected[0]
        .field(observability::peer_fields::PEER)
        .to_owned();
    assert!(
        connected
            .iter()
            .any(|said| { said.field(observability::peer_fields::PEER) == address.to_string() }),
        "{dialled}"
    );
    let metrics = client.peer_metrics(&address).unwrap();
    assert_eq!((metrics.connections, metrics.packets_received), (1, 1));
    assert!(metrics.round_trip.is_some());
    assert_eq!(client.all_peer_metrics().len(), 1);
    assert_eq!(server.all_peer_metrics()[0].1.packets_received, 1);
    shut_down::<P>(&client).await;
    hosts.until(|| events("disconnected").len() == 2).await;
    let ended = events("disconnected");
    assert!(
        ended
            .iter()
            .all(|said| !said.field(observability::peer_fields::CAUSE).is_empty())
    );
    assert!(!events("session ended").is_empty());
    assert!(events("no connection").is_empty());
    shut_down::<P>(&server).await;
}

async fn a_call_that_was_never_sent_is_explained<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    shut_down::<P>(&server).await;
    drop(server);
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    assert_eq!(client.peer_metrics(&address), None);
    let answer: Result<u32, _> =
        send_request(&client, &Endpoint::new(address, TOKEN), 1, JsonCodec)
            .unwrap()
            .await;
    assert_eq!(answer, Err(ReplyError::ConnectionFailed));
    let metrics = client.peer_metrics(&address).unwrap();
    assert!(
        matches!(metrics.last_error, Some(ConnectionError::Connect { .. })),
        "{metrics:?}"
    );
    let failed = events("no connection");
    assert_eq!(failed[0].level, Level::INFO);
    assert_eq!(
        failed[0].field(observability::peer_fields::PEER),
        address.to_string()
    );
    assert!(
        failed[0]
            .field(observability::peer_fields::CAUSE)
            .starts_with("cannot connect: ")
    );
    shut_down::<P>(&client).await;
}

async fn an_address_that_is_never_reachable_is_said_ever_more_rarely<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    shut_down::<P>(&server).await;
    drop(server);
    let config = PeerConfig {
        initial_backoff: Duration::from_millis(1),
        max_backoff: Duration::from_millis(1),
        patience: None,
        ..PeerConfig::default()
    };
    let client = hosts.client_builder().peer_config(config).build();
    let waiting: ReplyFuture<u32, _> =
        send_request(&client, &Endpoint::new(address, TOKEN), 1, JsonCodec).unwrap();
    hosts.until(|| events("no connection").len() >= 9).await;
    drop(waiting);
    for (said, number) in events("no connection").iter().zip(1_u32..) {
        assert_eq!(
            said.field(observability::peer_fields::FAILURES),
            number.to_string()
        );
        let expected = if number.is_power_of_two() {
            Level::INFO
        } else {
            Level::DEBUG
        };
        assert_eq!(said.level, expected, "failure {number}");
    }
    shut_down::<P>(&client).await;
}

async fn a_stranger_who_speaks_no_moonpool_is_warned_of_within_limits<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap().socket_addr().to_string();
    let attempts = 40;
    for _ in 0..attempts {
        let mut stream = hosts.client.network().connect(&address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n0123456789012345678901234567";
        let written = stream.write_all(request).await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{written:?} {read:?}");
    }
    hosts
        .until(|| events("handshake refused").len() == attempts)
        .await;
    let refused = events("handshake refused");
    let warnings: Vec<_> = refused
        .iter()
        .filter(|said| said.level == Level::WARN)
        .collect();
    assert!(
        warnings.len() >= 10 && warnings.len() < attempts,
        "{}",
        warnings.len()
    );
    assert!(warnings[0].field(observability::peer_fields::CAUSE).len() > 5);
    assert!(
        warnings[0]
            .field(observability::peer_fields::PEER)
            .contains(':')
    );
    hosts.client.time().sleep(Duration::from_millis(1)).await;
    shut_down::<P>(&server).await;
}

async fn connections_beyond_the_limit_are_warned_of_ever_more_rarely<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.server_builder().max_incoming_connections(0);
    let server = server.build_listening().await.unwrap();
    let address = server.local_address().unwrap().socket_addr().to_string();
    while server.stats().accept_refused < 9 {
        let mut stream = hosts.client.network().connect(&address).await.unwrap();
        let mut answer = Vec::new();
        // Closed at once, or reset.
        let read = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{read:?}");
    }
    let said = events("too many connections");
    let refused: Vec<_> = said
        .iter()
        .map(|said| said.field(observability::peer_fields::REFUSED))
        .collect();
    assert_eq!(refused, ["1", "2", "4", "8"]);
    assert!(said.iter().all(|said| said.level == Level::WARN));
    shut_down::<P>(&server).await;
}
