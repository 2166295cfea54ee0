//! What a client goes by that has somebody else to turn to: how soon a call ends when nobody is there,
//! what it then knows, and where a retry goes when a server ends in order.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    BuildError, Endpoint, FlowTransportBuilder, JsonCodec, NetworkAddress, Providers, ReplyError,
    ReplyFuture, RequestStream, RetryPolicy, Serving, TimeProvider, UID, WellKnownId,
    define_interface,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_call_without_patience_goes_through_while_there_is_a_connection: 30;
    a_call_without_patience_outlasts_its_own_looks_while_connected: 20;
    a_call_without_patience_ends_with_its_connection: 30;
    a_call_without_patience_ends_at_once_where_nobody_listens: 20;
    a_call_without_patience_opens_the_connection_for_the_next_one: 20;
    a_deadline_that_passes_before_anything_is_sent_tells_so: 20;
    a_deadline_that_passes_after_the_request_was_sent_tells_nothing: 20;
    retries_that_were_never_sent_end_as_surely_not_executed: 20;
    a_deadline_after_an_attempt_that_was_sent_tells_nothing: 20;
    a_retry_goes_on_past_a_server_that_drains: 30;
    a_retry_goes_on_past_a_server_that_drains_at_a_well_known_token: 30;
    a_retry_of_a_method_that_is_not_there_ends_at_once: 20;
    a_dynamic_endpoint_of_a_server_that_drains_is_not_found: 20;
    a_handler_that_outlasts_the_grace_breaks_its_promise_at_once: 30;
    what_is_queued_at_the_end_of_the_grace_breaks_its_promise_at_once: 30;
}

const TOKEN: UID = UID::new(0xFA11, 1);

define_interface! {
    Echo, id 0xFA12, { echo: u32 => u32 }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

type Reply = ReplyFuture<u32, JsonCodec>;

fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    timeout: Duration,
) -> Reply {
    let call = transport.call(&Endpoint::new(address, TOKEN), 7, JsonCodec);
    call.timeout(timeout).send().unwrap()
}

/// Ends unless there is a connection.
fn ask_if_connected<P: Providers>(transport: &Transport<P>, address: NetworkAddress) -> Reply {
    let call = transport.call(&Endpoint::new(address, TOKEN), 7, JsonCodec);
    let call = call.timeout(ms(60_000)).unless_failed_for(Duration::ZERO);
    call.send().unwrap()
}

async fn listen_at<P: Providers>(providers: &P, address: NetworkAddress) -> Rc<Transport<P>> {
    loop {
        let builder = FlowTransportBuilder::from_providers(providers).local_address(address);
        match builder.build_listening().await {
            Ok(transport) => return transport,
            Err(BuildError::Bind { .. }) => providers.time().sleep(ms(5)).await,
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

async fn answer_one<P: Providers>(server: &Transport<P>, stream: &RequestStream<u32, JsonCodec>) {
    let (number, reply) = stream.recv_with_transport(server).await.unwrap();
    reply.send(number);
}

/// A call and its answer, after which there is a connection.
async fn connect<P: Providers>(
    client: &Transport<P>,
    server: &Transport<P>,
    stream: &RequestStream<u32, JsonCodec>,
) {
    let call = ask::<P>(client, server.local_address().unwrap(), ms(60_000));
    answer_one::<P>(server, stream).await;
    assert_eq!(call.await, Ok(7));
}

async fn a_call_without_patience_goes_through_while_there_is_a_connection<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    connect::<P>(&client, &server, &stream).await;
    for _ in 0..3 {
        let call = ask_if_connected::<P>(&client, address);
        answer_one::<P>(&server, &stream).await;
        assert_eq!(call.await, Ok(7));
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_call_without_patience_outlasts_its_own_looks_while_connected<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    connect::<P>(&client, &server, &stream).await;
    let call = ask_if_connected::<P>(&client, address);
    let (number, reply) = stream.recv_with_transport(&server).await.unwrap();
    hosts.server.time().sleep(ms(200)).await;
    assert_eq!(client.stats().pending_calls, 1);
    reply.send(number);
    assert_eq!(call.await, Ok(7));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_call_without_patience_ends_with_its_connection<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    connect::<P>(&client, &server, &stream).await;
    let call = ask_if_connected::<P>(&client, address);
    let patient = ask::<P>(&client, address, ms(60_000));
    let taken = stream.recv_with_transport::<_, _, _, u32>(&server).await;
    drop(server);
    assert_eq!(call.await, Err(ReplyError::MaybeDelivered));
    // Those that have patience still have it.
    assert_eq!(client.stats().pending_calls, 1);
    drop((patient, taken));
    shut_down::<P>(&client).await;
}

async fn a_call_without_patience_ends_at_once_where_nobody_listens<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let patient = ask::<P>(&client, address, ms(60_000));
    let error = ask_if_connected::<P>(&client, address).await.unwrap_err();
    assert_eq!(error, ReplyError::ConnectionFailed);
    assert!(error.is_surely_not_executed());
    assert_eq!(client.stats().pending_calls, 1);
    drop(patient);
    shut_down::<P>(&client).await;
}

async fn a_call_without_patience_opens_the_connection_for_the_next_one<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let first = ask_if_connected::<P>(&client, address).await;
    assert_eq!(first, Err(ReplyError::ConnectionFailed));
    let is_connected = || {
        let peers = client.all_peer_metrics();
        peers.iter().any(|(_, metrics)| metrics.connections > 0)
    };
    hosts.until(is_connected).await;
    let second = ask_if_connected::<P>(&client, address);
    answer_one::<P>(&server, &stream).await;
    assert_eq!(second.await, Ok(7));
    assert_eq!(stream.stats().received, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_deadline_that_passes_before_anything_is_sent_tells_so<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    for timeout in [ms(150), ms(1), Duration::ZERO] {
        let error = ask::<P>(&client, address, timeout).await.unwrap_err();
        assert_eq!(error, ReplyError::ConnectionFailed, "{timeout:?}");
        assert!(error.is_surely_not_executed());
    }
    assert_eq!(client.stats().calls_timed_out, 3);
    assert_eq!(client.stats().queued_packets, 0);
    shut_down::<P>(&client).await;
}

async fn a_deadline_that_passes_after_the_request_was_sent_tells_nothing<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, address, ms(400));
    let taken = stream.recv_with_transport::<_, _, _, u32>(&server).await;
    assert_eq!(call.await, Err(ReplyError::Timeout));
    drop(taken);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn retries_that_were_never_sent_end_as_surely_not_executed<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let call = client.call(&Endpoint::new(address, TOKEN), 7, JsonCodec);
    let call = call.timeout(ms(300)).unless_failed_for(ms(50));
    let call: Reply = call.retry(RetryPolicy::new()).send().unwrap();
    assert_eq!(call.await, Err(ReplyError::ConnectionFailed));
    assert!(client.stats().requests_sent > 1);
    let call = client.call(&Endpoint::new(address, TOKEN), 7, JsonCodec);
    let call: Reply = call
        .timeout(ms(100))
        .retry(RetryPolicy::new())
        .send()
        .unwrap();
    assert_eq!(call.await, Err(ReplyError::ConnectionFailed));
    shut_down::<P>(&client).await;
}

/// The first attempt is broken by its handler, the second is never written.
async fn a_deadline_after_an_attempt_that_was_sent_tells_nothing<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = client.call(&Endpoint::new(address, TOKEN), 7, JsonCodec);
    let policy = RetryPolicy::new().backoff(ms(100), ms(100));
    let call: Reply = call.timeout(ms(600)).retry(policy).send().unwrap();
    let serve = async {
        let taken = stream.recv_with_transport::<_, _, _, u32>(&server).await;
        drop(taken);
        shut_down::<P>(&server).await;
    };
    let (outcome, ()) = futures_util::future::join(call, serve).await;
    let error = outcome.unwrap_err();
    assert!(!error.is_surely_not_executed(), "{error}");
    shut_down::<P>(&client).await;
}

fn quick() -> RetryPolicy {
    RetryPolicy::new().backoff(ms(1), ms(5))
}

/// The server drains for as long as it takes the call to be refused; the next life answers.
async fn a_retry_goes_on_past_a_server_that_drains<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let echo = Echo::serve(&server, JsonCodec).unwrap();
    let remote = Echo::remote(&client, address, JsonCodec);
    let held = remote.echo(1).send().unwrap();
    let (_, busy) = echo.echo.recv().await.unwrap();
    let ending = begin_shutdown(&hosts, &server).await;
    let call = remote.echo(7).timeout(ms(300_000)).retry(quick());
    let call = call.send().unwrap();
    let serve = async {
        hosts.until(|| server.stats().endpoint_not_found >= 2).await;
        busy.send(1);
        ending.await.unwrap();
        drop((echo, server));
        let server = listen_at(&hosts.server, address).await;
        let echo = Echo::serve(&server, JsonCodec).unwrap();
        let (number, reply) = echo.echo.recv().await.unwrap();
        reply.send(number);
        server
    };
    let (outcome, server) = futures_util::future::join(call, serve).await;
    assert_eq!((held.await, outcome), (Ok(1), Ok(7)));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_retry_goes_on_past_a_server_that_drains_at_a_well_known_token<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let id = WellKnownId::user(20).unwrap();
    let mut stream = RequestStream::<u32, _>::new(JsonCodec);
    stream.make_well_known_endpoint(&server, id).unwrap();
    let endpoint = Endpoint::new(address, UID::well_known(20));
    let held: Reply = client.call(&endpoint, 1, JsonCodec).send().unwrap();
    let (_, busy) = stream.recv_with_transport(&server).await.unwrap();
    let ending = begin_shutdown(&hosts, &server).await;
    let call = client.call(&endpoint, 7, JsonCodec).timeout(ms(300_000));
    let call: Reply = call.retry(quick()).send().unwrap();
    let serve = async {
        hosts.until(|| server.stats().endpoint_not_found >= 2).await;
        busy.send(1_u32);
        ending.await.unwrap();
        drop((stream, server));
        let server = listen_at(&hosts.server, address).await;
        let mut stream = RequestStream::<u32, _>::new(JsonCodec);
        stream.make_well_known_endpoint(&server, id).unwrap();
        answer_one::<P>(&server, &stream).await;
        server
    };
    let (outcome, server) = futures_util::future::join(call, serve).await;
    assert_eq!((held.await, outcome), (Ok(1), Ok(7)));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Returns once the server drains.
async fn begin_shutdown<P: Providers>(
    hosts: &Hosts<P>,
    server: &Rc<Transport<P>>,
) -> moonpool::JoinHandle<()> {
    let own = server.clone();
    let ending = hosts.spawn_server(async move { own.shutdown(ms(60_000)).await });
    hosts.until(|| server.is_closing()).await;
    ending
}

async fn a_retry_of_a_method_that_is_not_there_ends_at_once<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let remote = Echo::remote(&client, address, JsonCodec);
    let call = remote.echo(7).timeout(ms(300_000)).retry(quick());
    assert_eq!(call.await, Err(ReplyError::EndpointNotFound));
    assert_eq!(client.stats().requests_sent, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// It is nowhere else either.
async fn a_dynamic_endpoint_of_a_server_that_drains_is_not_found<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let mut dynamic = RequestStream::<u32, _>::new(JsonCodec);
    let endpoint = dynamic.make_dynamic_endpoint(&server).unwrap();
    let held = ask::<P>(&client, server.local_address().unwrap(), ms(60_000));
    let (number, busy) = stream.recv_with_transport(&server).await.unwrap();
    let ending = begin_shutdown(&hosts, &server).await;
    let call = client.call(&endpoint, 7, JsonCodec).timeout(ms(300_000));
    let call: Reply = call.retry(quick()).send().unwrap();
    assert_eq!(call.await, Err(ReplyError::EndpointNotFound));
    busy.send(number);
    ending.await.unwrap();
    assert_eq!(held.await, Ok(7));
    shut_down::<P>(&client).await;
}

async fn serve_for_ever<P: Providers>(
    transport: Rc<Transport<P>>,
    stream: RequestStream<u32, JsonCodec>,
) {
    let serving = Serving::new(&transport).max_concurrency(1);
    drop(transport);
    let handler = async |_: u32, _: &_| std::future::pending().await;
    serving.serve::<_, u32, _, _>(stream, handler).await;
}

/// Shuts a server down whose only handler never ends, and gives what its callers, `calls` of them,
/// are told, and how long after the grace.
async fn outlast<P: Providers>(hosts: &Hosts<P>, calls: usize) -> Duration {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = hosts.spawn_server(serve_for_ever::<P>(server.clone(), stream));
    let pending: Vec<_> = (0..calls)
        .map(|_| ask::<P>(&client, address, ms(60_000)))
        .collect();
    hosts.until(|| server.stats().open_requests == calls).await;
    let time = hosts.client.time();
    let grace = ms(300);
    let began = time.now();
    let ended = async {
        for call in pending {
            assert_eq!(call.await, Err(ReplyError::BrokenPromise));
        }
        time.now() - began
    };
    let ((), took) = futures_util::future::join(server.shutdown(grace), ended).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
    shut_down::<P>(&client).await;
    took.saturating_sub(grace)
}

async fn a_handler_that_outlasts_the_grace_breaks_its_promise_at_once<P: Providers>(
    hosts: Hosts<P>,
) {
    outlast(&hosts, 1).await;
}

async fn what_is_queued_at_the_end_of_the_grace_breaks_its_promise_at_once<P: Providers>(
    hosts: Hosts<P>,
) {
    outlast(&hosts, 3).await;
}

#[cfg(feature = "sim")]
#[test]
fn callers_of_a_dropped_handler_are_told_soon_after_the_grace() {
    crate::common::in_simulation(20, |hosts| async move {
        let late = outlast(&hosts, 2).await;
        assert!(late < ms(1_000), "{late:?}");
    });
}
