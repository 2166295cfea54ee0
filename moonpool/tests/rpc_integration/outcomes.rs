//! How calls end when both hosts are well: replies, refusals, broken promises.

use moonpool::{
    Endpoint, JsonCodec, NetNotifiedQueue, Providers, ReplyError, ReplyFuture, RequestStream,
    SharedNetNotifiedQueue, UID, WellKnownId, send_request,
};
use moonpool::{QueueLimits, Refusal, TaskProvider};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_dropped_promise_is_broken: 20;
    an_error_that_a_handler_passes_on_claims_nothing_of_its_own_request: 20;
    an_unknown_token_is_not_found: 20;
    a_deregistered_endpoint_is_not_found: 20;
    a_request_that_does_not_decode_is_answered_and_the_stream_lives_on: 20;
    a_reply_of_another_type_is_a_serialization_error: 20;
    a_full_stream_is_overloaded: 20;
    an_error_of_the_application_arrives: 20;
    one_way_messages_arrive_in_order: 20;
    a_server_calls_back_through_an_endpoint_it_was_sent: 20;
    a_promise_may_be_answered_later_and_in_another_order: 20;
    a_packet_that_is_no_envelope_is_dropped_and_counted: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);

fn ask<P: Providers>(
    transport: &Transport<P>,
    endpoint: Endpoint,
    request: u32,
) -> ReplyFuture<u32, JsonCodec> {
    send_request(transport, &endpoint, request, JsonCodec).unwrap()
}

async fn a_dropped_promise_is_broken<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let (first, second) = (
        ask::<P>(&client, endpoint, 1),
        ask::<P>(&client, endpoint, 2),
    );
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u32>(&server)
        .await
        .unwrap();
    drop(promise);
    assert_eq!(first.await, Err(ReplyError::BrokenPromise));
    drop(stream);
    assert_eq!(second.await, Err(ReplyError::BrokenPromise));
    assert_eq!(server.stats().broken_promises, 2);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_unknown_token_is_not_found<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let well_known = WellKnownId::user(40).unwrap().token();
    for token in [
        TOKEN,
        well_known,
        UID::well_known(12),
        UID::well_known(1000),
    ] {
        let reply = ask::<P>(&client, Endpoint::new(address, token), 1);
        assert_eq!(reply.await, Err(ReplyError::EndpointNotFound), "{token}");
    }
    assert_eq!(server.stats().endpoint_not_found, 4);
    assert_eq!(client.stats().replies_late, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_deregistered_endpoint_is_not_found<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let mut stream = RequestStream::<u32, _>::new(JsonCodec);
    let endpoint = stream.make_dynamic_endpoint(&server).unwrap();
    let reply = ask::<P>(&client, endpoint, 20);
    let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send(request + 1);
    assert_eq!(reply.await, Ok(21));
    drop(stream);
    let other = RequestStream::<u32, _>::new(JsonCodec).make_dynamic_endpoint(&server);
    assert_ne!(other.unwrap(), endpoint, "a token was used twice");
    let reply = ask::<P>(&client, endpoint, 20);
    assert_eq!(reply.await, Err(ReplyError::EndpointNotFound));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_request_that_does_not_decode_is_answered_and_the_stream_lives_on<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let wrong: ReplyFuture<u32, _> =
        send_request(&client, &endpoint, "no number", JsonCodec).unwrap();
    let Err(ReplyError::Serialization { message }) = wrong.await else {
        panic!("another outcome");
    };
    assert!(message.starts_with("request: "), "{message}");
    let right = ask::<P>(&client, endpoint, 1);
    let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send(request);
    assert_eq!(right.await, Ok(1));
    assert_eq!(stream.stats().malformed, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_reply_of_another_type_is_a_serialization_error<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let reply = ask::<P>(&client, endpoint, 1);
    let (_, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send("no number");
    let Err(ReplyError::Serialization { message }) = reply.await else {
        panic!("another outcome");
    };
    assert!(message.starts_with("reply: "), "{message}");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_full_stream_is_overloaded<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let limits = QueueLimits {
        messages: 2,
        ..QueueLimits::default()
    };
    let mut stream = RequestStream::<u32, _>::with_limits(JsonCodec, limits);
    let id = WellKnownId::user(30).unwrap();
    stream.make_well_known_endpoint(&server, id).unwrap();
    let endpoint = stream.endpoint().unwrap();
    let [first, second, third] = [1, 2, 3].map(|request| ask::<P>(&client, endpoint, request));
    assert_eq!(third.await, Err(ReplyError::Overloaded));
    for _ in 0..2 {
        let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
        promise.send(request * 10);
    }
    assert_eq!((first.await, second.await), (Ok(10), Ok(20)));
    assert_eq!(stream.stats().overloaded, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_error_of_the_application_arrives<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let reply = ask::<P>(&client, endpoint, 1);
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, u32>(&server)
        .await
        .unwrap();
    let error = ReplyError::application(7, "the answer is no");
    promise.send_error(error.clone());
    assert_eq!(reply.await, Err(error));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_error_that_a_handler_passes_on_claims_nothing_of_its_own_request<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let passed_on = [
        ReplyError::ConnectionFailed,
        ReplyError::EndpointNotFound,
        ReplyError::Unauthorized,
        ReplyError::Overloaded,
        ReplyError::PayloadTooLarge,
        ReplyError::Timeout,
        ReplyError::MaybeDelivered,
        ReplyError::Cancelled,
    ];
    for error in passed_on {
        let reply = ask::<P>(&client, endpoint, 1);
        let (_, promise) = stream
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        promise.send_error(error.clone());
        let outcome = reply.await.unwrap_err();
        assert!(
            !outcome.is_surely_not_executed(),
            "{error:?} as {outcome:?}"
        );
        assert_ne!(outcome, ReplyError::Cancelled, "it has not given up");
    }
    let refusals = [
        (Refusal::Overloaded, ReplyError::Overloaded),
        (Refusal::Unauthorized, ReplyError::Unauthorized),
    ];
    for (refusal, expected) in refusals {
        let reply = ask::<P>(&client, endpoint, 1);
        let (_, promise) = stream
            .recv_with_transport::<_, _, _, u32>(&server)
            .await
            .unwrap();
        promise.send_error(ReplyError::Refused(refusal));
        assert_eq!(reply.await, Err(expected));
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn one_way_messages_arrive_in_order<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let queue = SharedNetNotifiedQueue::<u32, _>::new(JsonCodec);
    let endpoint = server.add_endpoint(queue.receiver()).unwrap();
    assert_eq!(queue.endpoint(), Some(endpoint));
    for number in 0..100_u32 {
        let payload = number.to_string();
        client.send_reliable(&endpoint, payload.as_bytes()).unwrap();
    }
    for number in 0..100 {
        assert_eq!(queue.recv().await, Some(number));
    }
    // There is a connection now, so this one is written as well.
    client.send_unreliable(&endpoint, b"100").unwrap();
    assert_eq!(queue.recv().await, Some(100));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    assert_eq!(queue.recv().await, None);
}

/// An endpoint is a value like any other: it travels in a message, and whoever gets it can call it.
async fn a_server_calls_back_through_an_endpoint_it_was_sent<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let introductions = server.register_handler::<Endpoint, _>(TOKEN, JsonCodec);
    // In the real world both are on one host; in the simulator the client has its own.
    let client = hosts.serve().await;
    let numbers = std::rc::Rc::new(NetNotifiedQueue::<u32, _>::new(JsonCodec));
    let own = client.add_endpoint(numbers.clone()).unwrap();
    let endpoint = Endpoint::new(address, TOKEN);
    let reply: ReplyFuture<bool, _> = send_request(&client, &endpoint, own, JsonCodec).unwrap();
    let (met, promise) = introductions.recv_with_transport(&server).await.unwrap();
    assert_eq!(met, own);
    server.send_reliable(&met, b"17").unwrap();
    promise.send(true);
    assert_eq!(reply.await, Ok(true));
    assert_eq!(numbers.recv().await, Some(17));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_promise_may_be_answered_later_and_in_another_order<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let replies: Vec<_> = (0..10).map(|n| ask::<P>(&client, endpoint, n)).collect();
    let mut promises = Vec::new();
    for _ in 0..10 {
        promises.push(
            stream
                .recv_with_transport::<_, _, _, u32>(&server)
                .await
                .unwrap(),
        );
    }
    while let Some((request, promise)) = promises.pop() {
        promise.send(request + 100);
        hosts.server.task().yield_now().await;
    }
    for (number, reply) in (100..).zip(replies) {
        assert_eq!(reply.await, Ok(number));
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_packet_that_is_no_envelope_is_dropped_and_counted<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let peer = client.get_or_open_peer(&endpoint.address).unwrap();
    let packets: [&'static [u8]; 3] = [&[2, 0, 0, 0], &[1, 0], &[1, 9, 0, 0]];
    for packet in packets {
        peer.send_reliable(TOKEN, packet.into()).unwrap();
    }
    let reply = ask::<P>(&client, endpoint, 1);
    let (request, promise) = stream.recv_with_transport(&server).await.unwrap();
    promise.send(request);
    assert_eq!(reply.await, Ok(1));
    let stats = server.stats();
    assert_eq!((stats.unsupported_versions, stats.undecodable), (1, 2));
    assert_eq!(stats.messages_received, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
