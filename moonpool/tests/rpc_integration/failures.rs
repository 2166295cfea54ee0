//! What callers are told when connections, servers and transports end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    BuildError, Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, NetworkProvider,
    PeerConfig, Providers, ReplyError, ReplyFuture, TimeProvider, UID, send_request,
};

use crate::common::{Hosts, Transport, gauges, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_dead_server_ends_its_calls_when_patience_is_over: 50;
    a_new_incarnation_ends_the_calls_of_the_old_one_at_once: 50;
    an_address_where_nobody_listens_fails_the_call: 20;
    a_call_survives_until_the_server_is_there: 20;
    a_call_that_is_given_up_before_it_was_written_is_not_executed: 20;
    a_server_killed_and_restarted_under_a_client: 50;
    a_shut_down_server_ends_its_calls: 50;
    replies_leave_before_a_shutdown: 20;
    finished_connections_are_forgotten: 20;
    dropping_a_transport_leaves_nothing: 20;
    garbage_closes_its_own_connection_only: 20;
    a_second_shutdown_does_no_harm: 10;
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

async fn echo<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        reply.send(number);
    }
}

/// Listens again where somebody listened before. The operating system may take a moment to agree.
async fn listen_at<P: Providers>(providers: &P, address: NetworkAddress) -> Rc<Transport<P>> {
    loop {
        let builder = FlowTransportBuilder::from_providers(providers).local_address(address);
        match builder.build_listening().await {
            Ok(transport) => return transport,
            Err(BuildError::Bind { .. }) => {
                providers.time().sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// An address that was free a moment ago.
async fn unused_address<P: Providers>(hosts: &Hosts<P>) -> NetworkAddress {
    let transport = hosts.serve().await;
    let address = transport.local_address().unwrap();
    shut_down::<P>(&transport).await;
    address
}

/// Losing the connection ends no call: the server's host may be back before patience is over.
async fn a_dead_server_ends_its_calls_when_patience_is_over<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let taken = ask::<P>(&client, address, 1);
    let queued = ask::<P>(&client, address, 2);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u64>(&server)
        .await
        .unwrap();
    drop(server);
    assert_eq!(taken.await, Err(ReplyError::MaybeDelivered));
    assert_eq!(queued.await, Err(ReplyError::MaybeDelivered));
    promise.send(1);
    assert_eq!(client.stats().pending_calls, 0);
    shut_down::<P>(&client).await;
}

/// Without patience, only the new incarnation's answer can end the call.
async fn a_new_incarnation_ends_the_calls_of_the_old_one_at_once<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts
        .client_builder()
        .peer_config(PeerConfig::default())
        .build();
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let taken = ask::<P>(&client, address, 1);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u64>(&server)
        .await
        .unwrap();
    drop(server);
    let server = listen_at(&hosts.server, address).await;
    assert_eq!(taken.await, Err(ReplyError::MaybeDelivered));
    promise.send(1);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    assert_eq!(ask::<P>(&client, address, 2).await, Ok(2));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn an_address_where_nobody_listens_fails_the_call<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let calls = [1, 2, 3].map(|number| ask::<P>(&client, address, number));
    for call in calls {
        let error = call.await.unwrap_err();
        assert_eq!(error, ReplyError::ConnectionFailed);
        assert!(error.is_surely_not_executed());
    }
    shut_down::<P>(&client).await;
}

async fn a_call_survives_until_the_server_is_there<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let call = ask::<P>(&client, address, 5);
    hosts.client.time().sleep(Duration::from_millis(20)).await;
    let server = listen_at(&hosts.server, address).await;
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    assert_eq!(call.await, Ok(5));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_call_that_is_given_up_before_it_was_written_is_not_executed<P: Providers>(
    hosts: Hosts<P>,
) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let [first, second, third] = [1, 2, 3].map(|number| ask::<P>(&client, address, number));
    hosts.client.time().sleep(Duration::from_millis(20)).await;
    drop(second);
    let queued = client.stats().queued_packets;
    assert_eq!((queued, client.stats().pending_calls), (2, 2));
    let executed = Rc::new(Executed::default());
    let server = listen_at(&hosts.server, address).await;
    let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
    assert_eq!((first.await, third.await), (Ok(1), Ok(3)));
    assert_eq!(*executed.0.borrow(), [1, 3]);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// What the server executed, seen from outside: it outlives the server's lives.
#[derive(Default)]
struct Executed(RefCell<Vec<u64>>);

impl Executed {
    fn count(&self, number: u64) -> usize {
        let executed = self.0.borrow();
        executed.iter().filter(|other| **other == number).count()
    }
}

async fn recording_echo<P: Providers>(transport: Rc<Transport<P>>, executed: Rc<Executed>) {
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        executed.0.borrow_mut().push(number);
        reply.send(number);
    }
}

/// Calls go on while the server dies and comes back, again and again. Every call ends; nothing is
/// executed twice; what was answered was executed, and what surely was not, was not.
async fn a_server_killed_and_restarted_under_a_client<P: Providers>(hosts: Hosts<P>) {
    let executed = Rc::new(Executed::default());
    let mut server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.connect();
    let mut outcomes = Vec::new();
    let mut number = 0;
    for _life in 0..5 {
        let serving = hosts.spawn_server(recording_echo::<P>(server.clone(), executed.clone()));
        hosts.until(|| server.stats().endpoints == 1).await;
        let mut calls = Vec::new();
        for _ in 0..40 {
            calls.push((number, ask::<P>(&client, address, number)));
            number += 1;
            if number % 16 == 0 {
                hosts.client.time().sleep(Duration::from_millis(1)).await;
            }
        }
        // The first reply shows that this life is reached; then it ends amid the others.
        let (first, call) = calls.remove(0);
        outcomes.push((first, call.await));
        serving.abort();
        let _cancelled = serving.await;
        drop(server);
        // The next life's answer to the Hello is what ends the calls of this one.
        server = listen_at(&hosts.server, address).await;
        for (number, call) in calls {
            outcomes.push((number, call.await));
        }
    }
    for (number, outcome) in &outcomes {
        let count = executed.count(*number);
        match outcome {
            Ok(echoed) => assert_eq!((echoed, count), (number, 1)),
            Err(ReplyError::MaybeDelivered | ReplyError::BrokenPromise) => assert!(count <= 1),
            Err(error) => {
                assert!(error.is_surely_not_executed(), "{number}: {error}");
                assert_eq!(count, 0, "{number}: {error}");
            }
        }
    }
    assert_eq!(outcomes.len(), 200);
    let answered = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
    assert!(answered.count() >= 4, "no life after the first was reached");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_shut_down_server_ends_its_calls<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let held = ask::<P>(&client, address, 1);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u64>(&server)
        .await
        .unwrap();
    shut_down::<P>(&server).await;
    assert_eq!(held.await, Err(ReplyError::MaybeDelivered));
    promise.send(1);
    assert_eq!(server.stats().replies_dropped, 1);
    shut_down::<P>(&client).await;
}

async fn replies_leave_before_a_shutdown<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let calls: Vec<_> = (0..100).map(|n| ask::<P>(&client, address, n)).collect();
    for _ in 0..100 {
        let (number, reply) = stream.recv_with_transport(&server).await.unwrap();
        reply.send(number);
    }
    shut_down::<P>(&server).await;
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(number));
    }
    shut_down::<P>(&client).await;
}

async fn finished_connections_are_forgotten<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    for number in 0..10 {
        let client = hosts.connect();
        assert_eq!(ask::<P>(&client, address, number).await, Ok(number));
        if number % 2 == 0 {
            shut_down::<P>(&client).await;
        }
    }
    assert_eq!(server.stats().accepted, 10);
    hosts
        .until(|| server.stats().incoming_connections == 0)
        .await;
    // Those that were closed are forgotten at once. Of the others the session is kept, with the last
    // reply, which nobody has acknowledged: the client might come back for it.
    hosts.until(|| server.stats().incoming_sessions == 5).await;
    let expected = [
        ("endpoints", 1),
        ("tasks", 1 + 5),
        ("incoming_sessions", 5),
        ("queued_packets", 5),
    ];
    for (name, gauge) in gauges(&server.stats()) {
        let expected = expected.iter().find(|known| known.0 == name);
        if name != "queued_bytes" {
            assert_eq!(gauge, expected.map_or(0, |known| known.1), "{name}");
        }
    }
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// In the simulator, the world itself checks that no task, connection or listener is left.
async fn dropping_a_transport_leaves_nothing<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, address, 1);
    let local = ask::<P>(&server, address, 2);
    for _ in 0..2 {
        let received = stream.recv_with_transport::<_, _, _, u64>(&server).await;
        let (number, reply) = received.unwrap();
        if number == 2 {
            reply.send(2);
        }
    }
    assert_eq!(local.await, Ok(2));
    assert_eq!(call.await, Err(ReplyError::BrokenPromise));
    let pending = ask::<P>(&client, address, 3);
    drop(client);
    // No byte of it left: the peer's task had no turn since.
    assert_eq!(pending.await, Err(ReplyError::ConnectionFailed));
    drop(server);
    assert!(stream.is_closed());
}

async fn garbage_closes_its_own_connection_only<P: Providers>(hosts: Hosts<P>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    assert_eq!(ask::<P>(&client, address, 1).await, Ok(1));
    let target = address.socket_addr().to_string();
    let huge_length = [0xff; 64];
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n        "[..], &huge_length] {
        let mut raw = hosts.client.network().connect(&target).await.unwrap();
        raw.write_all(garbage).await.unwrap();
        // Closed by the server: end of stream or reset, as the bytes happen to be read.
        let mut rest = Vec::new();
        let _ended = raw.read_to_end(&mut rest).await;
    }
    assert_eq!(ask::<P>(&client, address, 2).await, Ok(2));
    hosts
        .until(|| server.stats().incoming_connections == 1)
        .await;
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_second_shutdown_does_no_harm<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let second = server.clone();
    let other = hosts.spawn_server(async move {
        shut_down::<P>(&second).await;
    });
    shut_down::<P>(&server).await;
    other.await.unwrap();
    shut_down::<P>(&server).await;
    assert!(server.is_closing());
}
