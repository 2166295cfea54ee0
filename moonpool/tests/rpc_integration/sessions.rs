//! Connections that end under calls in flight: the session goes on, and nothing is executed twice.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::{deserialize_packet, serialize_packet};
use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, NetworkProvider, PeerConfig, Providers, RandomProvider,
    ReplyFuture, TcpListenerTrait, UID, send_request,
};
#[cfg(feature = "sim")]
use moonpool::{ReplyError, TimeProvider};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    reconnects_under_calls_lose_nothing_and_execute_nothing_twice: 50;
    connections_cut_at_any_byte_lose_nothing_and_execute_nothing_twice: 100;
    an_idle_call_gets_its_reply_on_the_next_connection: 20;
    a_newer_connection_fences_the_older_one: 20;
    a_connection_that_says_nothing_is_no_session: 10;
    an_address_that_leads_back_is_served_locally_in_order: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);

fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    request: u64,
) -> ReplyFuture<u64, JsonCodec> {
    let endpoint = Endpoint::new(address, TOKEN);
    send_request(transport, &endpoint, request, JsonCodec).unwrap()
}

/// What the server executed, seen from outside.
type Executed = Rc<RefCell<Vec<u64>>>;

async fn recording_echo<P: Providers>(transport: Rc<Transport<P>>, executed: Executed) {
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        executed.borrow_mut().push(number);
        reply.send(number);
    }
}

/// Without patience: only the end of the session could end a call without its reply.
fn patient<P: Providers>(hosts: &Hosts<P>) -> Rc<Transport<P>> {
    let builder = hosts.client_builder();
    builder.peer_config(PeerConfig::default()).build()
}

async fn reconnects_under_calls_lose_nothing_and_execute_nothing_twice<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, patient(&hosts));
    let address = server.local_address().unwrap();
    let executed = Executed::default();
    let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let peer = client.get_or_open_peer(&address).unwrap();
    let mut calls = Vec::new();
    for number in 0..300 {
        calls.push(ask::<P>(&client, address, number));
        if number % 10 == 0 {
            hosts.until(|| peer.is_connected()).await;
            peer.reconnect();
        }
    }
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(number));
    }
    assert!(peer.metrics().reconnects > 0, "{:?}", peer.metrics());
    let expected: Vec<u64> = (0..300).collect();
    assert_eq!(*executed.borrow(), expected, "once, and in order");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Passes bytes on until the two directions together have passed as many as there are left.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    left: &Cell<usize>,
) {
    let mut buffer = [0; 512];
    while left.get() > 0 {
        let room = left.get().min(buffer.len());
        let bytes = match from.read(&mut buffer[..room]).await {
            Ok(0) | Err(_) => return,
            Ok(bytes) => bytes.min(left.get()),
        };
        left.set(left.get() - bytes);
        if to.write_all(&buffer[..bytes]).await.is_err() {
            return;
        }
    }
}

/// Stands between both ends, and cuts each connection after a random number of bytes, until there
/// were enough of that.
async fn cutting_proxy<P: Providers>(
    providers: P,
    listener: <P::Network as NetworkProvider>::TcpListener,
    target: String,
    cuts: Rc<Cell<u32>>,
) {
    while let Ok((down, _)) = listener.accept().await {
        let Ok(up) = providers.network().connect(&target).await else {
            continue;
        };
        let bytes = match cuts.get() {
            0 => usize::MAX,
            _ => providers.random().random_range(1..3_000),
        };
        let left = Cell::new(bytes);
        let (from_client, to_client) = tokio::io::split(down);
        let (from_server, to_server) = tokio::io::split(up);
        let up = pin!(pump(from_client, to_server, &left));
        let down = pin!(pump(from_server, to_client, &left));
        futures_util::future::select(up, down).await;
        cuts.set(cuts.get().saturating_sub(1));
    }
}

async fn connections_cut_at_any_byte_lose_nothing_and_execute_nothing_twice<P: Providers>(
    hosts: Hosts<P>,
) {
    const CALLS: u64 = 400;
    let (server, client) = (hosts.serve().await, patient(&hosts));
    let executed = Executed::default();
    let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let listening = NetworkAddress::new(hosts.server_ip, 0).socket_addr();
    let network = hosts.server.network();
    let listener = network.bind(&listening.to_string()).await.unwrap();
    let address: NetworkAddress = listener.local_addr().unwrap().parse().unwrap();
    let target = server.local_address().unwrap().socket_addr().to_string();
    let cuts = Rc::new(Cell::new(12));
    let proxy = cutting_proxy::<P>(hosts.server.clone(), listener, target, cuts.clone());
    let proxy = hosts.spawn_server(proxy);
    let (mut calls, mut outcomes) = (Vec::new(), Vec::new());
    for number in 0..CALLS {
        calls.push(ask::<P>(&client, address, number));
        if calls.len() == 64 {
            for call in calls.drain(..) {
                outcomes.push(call.await);
            }
        }
    }
    for call in calls {
        outcomes.push(call.await);
    }
    let expected: Vec<u64> = (0..CALLS).collect();
    assert_eq!(
        outcomes,
        expected.iter().copied().map(Ok).collect::<Vec<_>>()
    );
    assert_eq!(*executed.borrow(), expected, "once, and in order");
    let metrics = client.get_or_open_peer(&address).unwrap().metrics();
    assert!(metrics.reconnects > 0, "{metrics:?}");
    assert_eq!((metrics.maybe_delivered, metrics.protocol_errors), (0, 0));
    shut_down::<P>(&client).await;
    proxy.abort();
    let _cancelled = proxy.await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Everything is acknowledged and nothing queued when the connection ends: only the reply is owed.
async fn an_idle_call_gets_its_reply_on_the_next_connection<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, patient(&hosts));
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, address, 7);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u64>(&server)
        .await
        .unwrap();
    let peer = client.get_or_open_peer(&address).unwrap();
    peer.reconnect();
    hosts.until(|| peer.metrics().reconnects == 1).await;
    assert_eq!(
        peer.metrics().unacknowledged,
        0,
        "the answer said that it arrived"
    );
    peer.reconnect();
    promise.send(49);
    assert_eq!(call.await, Ok(49));
    assert_eq!(server.stats().incoming_sessions, 1);
    assert_eq!(server.stats().accepted, 3);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// A Hello of another implementation, byte by byte as the format has it.
fn hello(session: UID, next_expected: u64, generation: u64) -> Vec<u8> {
    let mut bytes = b"moonpool".to_vec();
    bytes.extend([1, 0, 1, 0]);
    bytes.extend(1_000_000_u32.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(UID::new(0xD1, 0xD2).to_le_bytes());
    bytes.extend(session.to_le_bytes());
    bytes.extend(next_expected.to_le_bytes());
    bytes.extend(generation.to_le_bytes());
    bytes.extend([0; 16 + 24]);
    serialize_packet(UID::well_known(3), &bytes)
}

/// The outcome of a greeting, and its argument.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, hello: &[u8]) -> (u8, UID) {
    stream.write_all(hello).await.unwrap();
    let mut answer = [0; 24 + 80];
    stream.read_exact(&mut answer).await.unwrap();
    let (token, payload) = deserialize_packet(&answer).unwrap();
    assert_eq!(token, UID::well_known(4));
    let argument = payload[40..].first_chunk().unwrap();
    (payload[10], UID::from_le_bytes(*argument))
}

/// A sequenced one-way message to the server's queue.
fn message(token: UID, sequence: u64, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(1_u64.to_le_bytes());
    bytes.extend(token.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(number.to_string().as_bytes());
    serialize_packet(UID::well_known(5), &bytes)
}

async fn a_newer_connection_fences_the_older_one<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let target = server.local_address().unwrap().socket_addr().to_string();
    let queue = moonpool::SharedNetNotifiedQueue::<u64, _>::new(JsonCodec);
    let token = server.add_endpoint(queue.receiver()).unwrap().token;
    let network = hosts.client.network();
    let mut first = network.connect(&target).await.unwrap();
    let proposed = UID::new(0x5E, 0x55);
    let (outcome, session) = greet(&mut first, &hello(proposed, 1, 1)).await;
    assert_eq!(outcome, 2, "Fresh");
    assert_ne!(
        session, proposed,
        "a session has a name that no late Hello knows"
    );
    first.write_all(&message(token, 1, 10)).await.unwrap();
    assert_eq!(queue.recv().await, Some(10));

    let mut late = network.connect(&target).await.unwrap();
    let told = greet(&mut late, &hello(session, 1, 1)).await;
    assert_eq!(told, (3, UID::new(1, 0)), "Superseded by generation 1");

    let mut second = network.connect(&target).await.unwrap();
    let told = greet(&mut second, &hello(session, 1, 2)).await;
    assert_eq!(told, (1, UID::new(2, 0)), "Resumed, 2 is expected next");
    // The older connection is not read any more.
    let _lost = first.write_all(&message(token, 2, 20)).await;
    let mut rest = Vec::new();
    let _reset = first.read_to_end(&mut rest).await;
    assert_eq!(rest, [] as [u8; 0]);
    second.write_all(&message(token, 1, 10)).await.unwrap();
    second.write_all(&message(token, 2, 30)).await.unwrap();
    assert_eq!(
        queue.recv().await,
        Some(30),
        "one twice, or one of the older connection"
    );
    assert_eq!(server.stats().incoming_sessions, 1);
    drop((first, late, second));
    hosts
        .until(|| server.stats().incoming_connections == 0)
        .await;
    shut_down::<P>(&server).await;
}

async fn a_connection_that_says_nothing_is_no_session<P: Providers>(hosts: Hosts<P>) {
    let config = PeerConfig {
        connect_timeout: Duration::from_millis(100),
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(config);
    let server = server.build_listening().await.unwrap();
    let target = server.local_address().unwrap().socket_addr().to_string();
    let mut silent = hosts.client.network().connect(&target).await.unwrap();
    silent.write_all(&hello(TOKEN, 1, 1)[..100]).await.unwrap();
    let mut rest = Vec::new();
    let _ended = silent.read_to_end(&mut rest).await;
    assert_eq!(rest, [] as [u8; 0]);
    assert_eq!(server.stats().accepted, 1);
    assert_eq!(server.stats().incoming_sessions, 0);
    shut_down::<P>(&server).await;
}

#[cfg(feature = "sim")]
#[test]
fn a_session_without_a_connection_is_kept_for_a_minute() {
    crate::common::in_simulation(10, async |hosts| forgets(hosts).await);
}

#[cfg(feature = "sim")]
async fn forgets<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, address, 7);
    let (number, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send(number);
    assert_eq!(call.await, Ok(7));
    drop(client);
    let time = hosts.server.time();
    hosts
        .until(|| server.stats().incoming_connections == 0)
        .await;
    time.sleep(Duration::from_secs(59)).await;
    assert_eq!(server.stats().incoming_sessions, 1);
    assert_eq!(
        server.stats().queued_packets,
        1,
        "the reply, which was not acknowledged"
    );
    time.sleep(Duration::from_secs(2)).await;
    assert_eq!(server.stats().incoming_sessions, 0);
    assert_eq!(server.stats().queued_packets, 0);
    shut_down::<P>(&server).await;
}

#[cfg(feature = "sim")]
#[test]
fn a_call_ends_when_the_session_was_lost_for_too_long() {
    crate::common::in_simulation(20, async |hosts| gives_up(hosts).await);
}

/// With the default patience: 3 s after the connection was lost, not earlier.
#[cfg(feature = "sim")]
async fn gives_up<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let taken = ask::<P>(&client, address, 1);
    let received = stream.recv_with_transport::<_, _, _, u64>(&server).await;
    drop(server);
    let peer = client.get_or_open_peer(&address).unwrap();
    hosts.until(|| !peer.is_connected()).await;
    let lost_at = hosts.client.time().now();
    let late = ask::<P>(&client, address, 2);
    assert_eq!(taken.await, Err(ReplyError::MaybeDelivered));
    assert_eq!(late.await, Err(ReplyError::ConnectionFailed));
    let waited = hosts.client.time().now() - lost_at;
    let patience = Duration::from_secs(3);
    let expected = patience - Duration::from_millis(5)..patience + Duration::from_millis(5);
    assert!(expected.contains(&waited), "{waited:?}");
    drop(received);
    shut_down::<P>(&client).await;
}

#[cfg(feature = "sim")]
#[test]
fn a_connection_that_swallows_everything_is_replaced() {
    crate::common::in_simulation(20, async |hosts| black_hole(hosts).await);
}

/// The first connection passes the greeting and nothing else, and never ends by itself.
#[cfg(feature = "sim")]
async fn black_hole<P: Providers>(hosts: Hosts<P>) {
    const GREETING: usize = (24 + 112) + (24 + 80);
    let (server, client) = (hosts.serve().await, patient(&hosts));
    let executed = Executed::default();
    let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
    let network = hosts.server.network().clone();
    let listening = NetworkAddress::new(hosts.server_ip, 0).socket_addr();
    let listener = network.bind(&listening.to_string()).await.unwrap();
    let address: NetworkAddress = listener.local_addr().unwrap().parse().unwrap();
    let target = server.local_address().unwrap().socket_addr().to_string();
    let proxy = hosts.spawn_server(async move {
        let mut swallowed = Vec::new();
        let mut bytes = GREETING;
        while let Ok((down, _)) = listener.accept().await {
            let up = network.connect(&target).await.unwrap();
            let left = Cell::new(std::mem::replace(&mut bytes, usize::MAX));
            let (mut from_client, mut to_client) = tokio::io::split(down);
            let (mut from_server, mut to_server) = tokio::io::split(up);
            {
                let up = pin!(pump(&mut from_client, &mut to_server, &left));
                let down = pin!(pump(&mut from_server, &mut to_client, &left));
                futures_util::future::select(up, down).await;
            }
            if left.get() == 0 {
                swallowed.push((from_client, to_client, from_server, to_server));
            }
        }
    });
    hosts.until(|| server.stats().endpoints == 1).await;
    let asked_at = hosts.client.time().now();
    let calls = [1, 2, 3].map(|number| ask::<P>(&client, address, number));
    for (number, call) in (1..).zip(calls) {
        assert_eq!(call.await, Ok(number));
    }
    let waited = hosts.client.time().now() - asked_at;
    assert!(
        waited >= Duration::from_secs(3),
        "{waited:?}: nothing was swallowed"
    );
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(*executed.borrow(), [1, 2, 3]);
    shut_down::<P>(&client).await;
    proxy.abort();
    let _cancelled = proxy.await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Another of our own addresses: a port that leads to the transport that dials it.
async fn an_address_that_leads_back_is_served_locally_in_order<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let target = server.local_address().unwrap();
    let any_port = NetworkAddress::new(hosts.server_ip, 0).socket_addr();
    let listener = hosts.server.network().bind(&any_port.to_string()).await;
    let listener = listener.unwrap();
    let other: NetworkAddress = listener.local_addr().unwrap().parse().unwrap();
    let accepted = Rc::new(Cell::new(0));
    let forwarding = {
        let (providers, accepted) = (hosts.server.clone(), Rc::clone(&accepted));
        hosts.spawn_server(async move {
            while accepted.get() < 1 {
                let (mut down, _) = listener.accept().await.unwrap();
                accepted.set(accepted.get() + 1);
                let target = target.socket_addr().to_string();
                let mut up = providers.network().connect(&target).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut down, &mut up).await);
            }
        })
    };
    let executed = Executed::default();
    let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let calls: Vec<_> = (0..20)
        .map(|number| ask::<P>(&server, other, number))
        .collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(number));
    }
    assert_eq!(*executed.borrow(), (0..20).collect::<Vec<u64>>());
    // From now on it is known: no further connection is made.
    assert_eq!(ask::<P>(&server, other, 20).await, Ok(20));
    forwarding.await.unwrap();
    assert_eq!((accepted.get(), server.stats().peers), (1, 0));
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}
