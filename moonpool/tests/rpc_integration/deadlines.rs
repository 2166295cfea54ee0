//! Deadlines, patience, and what else a call can be given.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    BuildError, Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, PeerConfig, Providers,
    ReplyError, ReplyFuture, ReplyPromise, TimeProvider, TraceContext, TransportError, UID,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_call_ends_with_its_deadline: 50;
    the_builder_says_how_long_calls_take: 20;
    the_earliest_deadline_ends_its_call_first: 20;
    a_thousand_calls_share_one_timer: 5;
    an_expired_request_is_never_sent: 20;
    a_call_that_has_no_time_left_is_not_sent: 20;
    a_call_may_have_no_deadline: 20;
    the_server_sees_what_remains_when_the_request_leaves: 20;
    a_nested_call_inherits_what_remains: 20;
    an_impatient_call_fails_before_the_others: 20;
    a_patient_call_outlasts_the_others: 20;
    a_written_call_that_loses_patience_may_have_been_delivered: 20;
    metadata_and_trace_context_reach_the_handler: 20;
    metadata_beyond_the_limit_is_refused: 10;
    a_transport_with_an_invalid_configuration_says_so: 10;
}

const TOKEN: UID = UID::new(0xEC40, 1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn endpoint(address: NetworkAddress) -> Endpoint {
    Endpoint::new(address, TOKEN)
}

/// A call with this timeout.
fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    request: u32,
    timeout: Duration,
) -> ReplyFuture<u32, JsonCodec> {
    let call = transport.call(&endpoint(address), request, JsonCodec);
    call.timeout(timeout).send().unwrap()
}

/// An address that was free a moment ago.
async fn unused_address<P: Providers>(hosts: &Hosts<P>) -> NetworkAddress {
    let transport = hosts.serve().await;
    let address = transport.local_address().unwrap();
    shut_down::<P>(&transport).await;
    address
}

async fn listen_at<P: Providers>(hosts: &Hosts<P>, address: NetworkAddress) -> Rc<Transport<P>> {
    loop {
        let builder = FlowTransportBuilder::from_providers(&hosts.server).local_address(address);
        match builder.build_listening().await {
            Ok(transport) => return transport,
            Err(BuildError::Bind { .. }) => hosts.server.time().sleep(ms(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A server that answers what it is asked, and notes it.
async fn echo<P: Providers>(transport: Rc<Transport<P>>, executed: Rc<RefCell<Vec<u32>>>) {
    let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        executed.borrow_mut().push(number);
        reply.send(number);
    }
}

/// A deadline that passes before there is a connection tells more than one that passes after.
async fn connected<P: Providers>(hosts: &Hosts<P>, client: &Transport<P>, address: NetworkAddress) {
    let peer = client.get_or_open_peer(&address).unwrap();
    hosts.until(|| peer.is_connected()).await;
}

async fn a_call_ends_with_its_deadline<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let time = hosts.client.time();
    let before = time.now();
    let call = ask::<P>(&client, address, 1, ms(100));
    let (_, promise) = stream.recv_with_transport(&server).await.unwrap();
    assert_eq!(call.await, Err(ReplyError::Timeout));
    assert!(time.now() - before >= ms(100));
    let stats = client.stats();
    assert_eq!((stats.pending_calls, stats.calls_timed_out), (0, 1));
    // An answer that comes too late is not even written.
    time.sleep(ms(10)).await;
    promise.send(1);
    let call = ask::<P>(&client, address, 2, Duration::from_secs(10));
    let (number, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send(number);
    assert_eq!(call.await, Ok(2));
    assert_eq!(client.stats().replies_late, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn the_builder_says_how_long_calls_take<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().default_timeout(ms(50)).build();
    let endpoint = endpoint(server.local_address().unwrap());
    connected(&hosts, &client, endpoint.address).await;
    let _stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call: ReplyFuture<u32, _> =
        moonpool::send_request(&client, &endpoint, 1, JsonCodec).unwrap();
    assert_eq!(call.await, Err(ReplyError::Timeout));
    // A call to this process itself ends likewise.
    let local = hosts.server_builder().default_timeout(ms(50));
    let local = local.build_listening().await.unwrap();
    let _stream = local.register_handler::<u32, _>(TOKEN, JsonCodec);
    let own = Endpoint::new(local.local_address().unwrap(), TOKEN);
    let call: ReplyFuture<u32, _> = moonpool::send_request(&local, &own, 1, JsonCodec).unwrap();
    assert_eq!(call.await, Err(ReplyError::Timeout));
    shut_down::<P>(&local).await;
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// In the simulator ten seconds cost nothing.
#[cfg(feature = "sim")]
#[test]
fn a_call_takes_ten_seconds_by_default() {
    crate::common::in_simulation(5, |hosts| async move {
        let (server, client) = (hosts.serve().await, hosts.connect());
        let endpoint = endpoint(server.local_address().unwrap());
        let _stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
        let before = hosts.client.time().now();
        let call: ReplyFuture<u32, _> =
            moonpool::send_request(&client, &endpoint, 1, JsonCodec).unwrap();
        assert_eq!(call.await, Err(ReplyError::Timeout));
        let taken = hosts.client.time().now() - before;
        assert_eq!(taken, Duration::from_secs(10));
        shut_down::<moonpool::foundation::SimProviders>(&client).await;
        shut_down::<moonpool::foundation::SimProviders>(&server).await;
    });
}

/// The timer that is armed for a later deadline is armed anew for an earlier one.
async fn the_earliest_deadline_ends_its_call_first<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let _stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    connected(&hosts, &client, address).await;
    let hour = Duration::from_secs(3600);
    let late = ask::<P>(&client, address, 1, hour);
    hosts.client.time().sleep(ms(1)).await;
    let [second, first] = [900, 30].map(|timeout| ask::<P>(&client, address, 2, ms(timeout)));
    assert_eq!(first.await, Err(ReplyError::Timeout));
    assert_eq!(client.stats().pending_calls, 2);
    assert_eq!(second.await, Err(ReplyError::Timeout));
    assert_eq!(client.stats().pending_calls, 1);
    drop(late);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_thousand_calls_share_one_timer<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let _stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    connected(&hosts, &client, address).await;
    let calls: Vec<_> = (0..1000)
        .map(|number| ask::<P>(&client, address, number, ms(50 + u64::from(number % 7))))
        .collect();
    // One for the peer, one for all deadlines.
    assert_eq!(client.stats().tasks, 2);
    for call in calls {
        assert_eq!(call.await, Err(ReplyError::Timeout));
    }
    let stats = client.stats();
    assert_eq!((stats.tasks, stats.calls_timed_out), (2, 1000));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_expired_request_is_never_sent<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let expired = ask::<P>(&client, address, 1, ms(50));
    let patient = ask::<P>(&client, address, 2, Duration::from_secs(10));
    assert_eq!(expired.await, Err(ReplyError::ConnectionFailed));
    assert_eq!(client.stats().queued_packets, 1);
    let executed = Rc::new(RefCell::default());
    let server = listen_at(&hosts, address).await;
    let serving = hosts.spawn_server(echo::<P>(server.clone(), executed.clone()));
    assert_eq!(patient.await, Ok(2));
    assert_eq!(*executed.borrow(), [2]);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_call_that_has_no_time_left_is_not_sent<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let call = ask::<P>(&client, address, 1, Duration::ZERO);
    assert_eq!(call.await, Err(ReplyError::ConnectionFailed));
    let stats = client.stats();
    assert_eq!((stats.requests_sent, stats.queued_packets), (0, 0));
    assert_eq!(stats.peers, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_call_may_have_no_deadline<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().default_timeout(None).build();
    let endpoint = endpoint(server.local_address().unwrap());
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let calls: [ReplyFuture<u32, _>; 3] = [
        client.call(&endpoint, 0, JsonCodec).send().unwrap(),
        client
            .call(&endpoint, 1, JsonCodec)
            .timeout(Duration::MAX)
            .send()
            .unwrap(),
        client
            .call(&endpoint, 2, JsonCodec)
            .timeout(ms(1000))
            .timeout(None)
            .send()
            .unwrap(),
    ];
    for (number, call) in (0..).zip(calls) {
        let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
        assert_eq!((promise.deadline(), promise.remaining()), (None, None));
        assert!(!promise.is_cancelled());
        promise.send(request);
        assert_eq!(call.await, Ok(number));
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// What travels is what remains when the request is written, not when it was handed over.
async fn the_server_sees_what_remains_when_the_request_leaves<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let before = hosts.client.time().now();
    let timeout = Duration::from_secs(30);
    let call = ask::<P>(&client, address, 1, timeout);
    hosts.client.time().sleep(ms(40)).await;
    let server = listen_at(&hosts, address).await;
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u32>(&server)
        .await
        .unwrap();
    let remaining = promise.remaining().unwrap();
    let passed = hosts.client.time().now() - before;
    assert!(remaining <= timeout - ms(40), "{remaining:?}");
    assert!(
        remaining + passed >= timeout,
        "the server's deadline is no earlier"
    );
    let deadline = promise.deadline().unwrap();
    assert!(deadline > hosts.server.time().now());
    promise.send(1);
    assert_eq!(call.await, Ok(1));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_nested_call_inherits_what_remains<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let outer = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let inner_token = UID::new(0xEC40, 2);
    let inner = server.register_handler::<u32, _>(inner_token, JsonCodec);
    let nested = |promise: &ReplyPromise<u32, JsonCodec>, timeout| -> ReplyFuture<u32, _> {
        let endpoint = Endpoint::new(address, inner_token);
        let call = server.call(&endpoint, 1, JsonCodec).timeout(timeout);
        call.within(promise).send().unwrap()
    };
    let call = ask::<P>(&client, address, 1, ms(200));
    let (_, promise) = outer.recv_with_transport(&server).await.unwrap();
    let long = nested(&promise, Duration::from_secs(60));
    let short = nested(&promise, ms(20));
    let mut held = Vec::new();
    for _ in 0..2 {
        let (_, asked) = inner
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        // Later than the outer one by the time that it was on its way, not by its own timeout.
        let slack = Duration::from_secs(30);
        assert!(asked.deadline().unwrap() <= promise.deadline().unwrap() + slack);
        held.push(asked);
    }
    assert_eq!(short.await, Err(ReplyError::Timeout));
    assert!(!promise.is_cancelled());
    assert_eq!(long.await, Err(ReplyError::Timeout));
    assert_eq!(promise.remaining(), Some(Duration::ZERO));
    assert!(promise.is_cancelled());
    // There is nothing left to inherit.
    let sent = server.stats().requests_sent;
    let unsent = nested(&promise, ms(1000)).await;
    assert_eq!(unsent, Err(ReplyError::ConnectionFailed));
    assert_eq!(server.stats().requests_sent, sent);
    assert_eq!(call.await, Err(ReplyError::Timeout));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_impatient_call_fails_before_the_others<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let patient = ask::<P>(&client, address, 1, Duration::from_secs(10));
    let call = client.call(&endpoint(address), 2, JsonCodec);
    let impatient: ReplyFuture<u32, _> = call.unless_failed_for(ms(100)).send().unwrap();
    let error = impatient.await.unwrap_err();
    assert_eq!(error, ReplyError::ConnectionFailed);
    assert_eq!(client.stats().pending_calls, 1);
    let executed = Rc::new(RefCell::default());
    let server = listen_at(&hosts, address).await;
    let serving = hosts.spawn_server(echo::<P>(server.clone(), executed.clone()));
    assert_eq!(patient.await, Ok(1));
    assert_eq!(*executed.borrow(), [1]);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// The transport's patience is 250 ms: one call ends by it, the other does not.
async fn a_patient_call_outlasts_the_others<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let others = ask::<P>(&client, address, 1, Duration::from_secs(10));
    let call = client.call(&endpoint(address), 2, JsonCodec);
    let patient: ReplyFuture<u32, _> = call
        .unless_failed_for(Duration::from_secs(30))
        .send()
        .unwrap();
    assert_eq!(others.await, Err(ReplyError::ConnectionFailed));
    hosts.client.time().sleep(ms(100)).await;
    let executed = Rc::new(RefCell::default());
    let server = listen_at(&hosts, address).await;
    let serving = hosts.spawn_server(echo::<P>(server.clone(), executed.clone()));
    assert_eq!(patient.await, Ok(2));
    assert_eq!(*executed.borrow(), [2]);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// The session goes on: only the call's own patience is over.
async fn a_written_call_that_loses_patience_may_have_been_delivered<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = client.call(&endpoint(address), 1, JsonCodec);
    let impatient: ReplyFuture<u32, _> = call.unless_failed_for(ms(100)).send().unwrap();
    let patient = ask::<P>(&client, address, 2, Duration::from_secs(10));
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u32>(&server)
        .await
        .unwrap();
    // Longer than its patience, with a connection: that is no failure.
    hosts.client.time().sleep(ms(250)).await;
    assert_eq!(client.stats().pending_calls, 2);
    drop(server);
    assert_eq!(impatient.await, Err(ReplyError::MaybeDelivered));
    assert_eq!(client.stats().pending_calls, 1);
    drop((patient, promise));
    shut_down::<P>(&client).await;
}

async fn metadata_and_trace_context_reach_the_handler<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = endpoint(server.local_address().unwrap());
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let trace = TraceContext {
        trace_id: [7; 16],
        parent_id: [8; 8],
        flags: 1,
        state: b"vendor=1",
    };
    for caller in [&client, &server] {
        let call = caller
            .call(&endpoint, 1, JsonCodec)
            .metadata("tenant", "blue")
            .metadata("raw", [0, 255])
            .trace_context(&trace);
        let call: ReplyFuture<u32, _> = call.send().unwrap();
        let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
        let pairs: Vec<_> = promise.metadata().iter().collect();
        assert_eq!(pairs, [("tenant", &b"blue"[..]), ("raw", &[0, 255][..])]);
        assert_eq!(promise.trace_context(), Some(trace));
        promise.send(request);
        assert_eq!(call.await, Ok(1));
    }
    let plain = ask::<P>(&client, endpoint.address, 2, Duration::from_secs(10));
    let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
    assert!(promise.metadata().is_empty() && promise.trace_context().is_none());
    promise.send(request);
    assert_eq!(plain.await, Ok(2));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn metadata_beyond_the_limit_is_refused<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = endpoint(server.local_address().unwrap());
    let mut many = client.call(&endpoint, 1, JsonCodec);
    for _ in 0..65 {
        many = many.metadata("key", "value");
    }
    let large = client.call(&endpoint, 1, JsonCodec);
    let large = large.metadata("key", vec![0; 8192]);
    for call in [many, large] {
        let not_sent = call.send::<u32>().unwrap_err();
        assert_eq!(not_sent.request, 1);
        assert!(matches!(not_sent.error, TransportError::MetadataTooLarge));
        assert!(ReplyError::from(not_sent).is_surely_not_executed());
    }
    assert_eq!(client.stats().pending_calls, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_transport_with_an_invalid_configuration_says_so<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let config = PeerConfig {
        reliable_packets: 0,
        ..PeerConfig::default()
    };
    let client = hosts.client_builder().peer_config(config).build();
    let endpoint = endpoint(server.local_address().unwrap());
    let not_sent = client.call(&endpoint, 1, JsonCodec).send::<u32>();
    let error = not_sent.unwrap_err().error;
    assert!(matches!(error, TransportError::PeerConfig(_)), "{error}");
    assert!(error.to_string().contains("reliable_packets"), "{error}");
    let error = client.send_reliable(&endpoint, b"1").unwrap_err();
    assert!(matches!(error, TransportError::PeerConfig(_)), "{error}");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
