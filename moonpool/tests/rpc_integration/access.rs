//! Private endpoints, and the receivers that every transport has.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, Providers, ReplyError, ReplyFuture, RequestStream, UID,
    WellKnownToken, send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_private_endpoint_is_for_this_process_alone_by_default: 20;
    a_private_endpoint_is_for_those_that_the_predicate_accepts: 20;
    a_one_way_message_to_a_private_endpoint_is_dropped: 20;
    a_ping_is_answered_with_its_payload_and_the_incarnation: 20;
    a_ping_to_nobody_fails: 10;
    a_notice_about_a_call_that_nobody_made_is_dropped: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);

fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    request: u32,
) -> ReplyFuture<u32, JsonCodec> {
    send_request(
        transport,
        &Endpoint::new(address, TOKEN),
        request,
        JsonCodec,
    )
    .unwrap()
}

async fn answer<P: Providers>(server: &Transport<P>, stream: &RequestStream<u32, JsonCodec>) {
    let (request, promise) = stream.recv_with_transport(server).await.unwrap();
    promise.send(request + 1);
}

async fn a_private_endpoint_is_for_this_process_alone_by_default<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_private_handler::<u32, _>(TOKEN, JsonCodec);
    let error = ask::<P>(&client, address, 1).await.unwrap_err();
    assert_eq!(error, ReplyError::Unauthorized);
    assert!(error.is_surely_not_executed());
    assert_eq!((stream.len(), stream.stats().received), (0, 0));
    assert_eq!(server.stats().unauthorized, 1);
    let local = ask::<P>(&server, address, 1);
    answer::<P>(&server, &stream).await;
    assert_eq!(local.await, Ok(2));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// The predicate is told the address that the caller listens on, and its incarnation.
async fn a_private_endpoint_is_for_those_that_the_predicate_accepts<P: Providers>(hosts: Hosts<P>) {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let noted = asked.clone();
    let server = hosts.server_builder().verify(move |peer| {
        noted
            .borrow_mut()
            .push((peer.canonical_address, peer.incarnation));
        assert!(
            peer.address.parse::<NetworkAddress>().is_ok(),
            "{}",
            peer.address
        );
        peer.canonical_address.is_some()
    });
    let server = server.build_listening().await.unwrap();
    let address = server.local_address().unwrap();
    let (stranger, friend) = (hosts.connect(), hosts.serve().await);
    let mut stream = RequestStream::<u32, _>::new(JsonCodec).private();
    let dynamic = stream.make_dynamic_endpoint(&server).unwrap();
    let endpoint = Endpoint::new(address, dynamic.token);
    let call = |transport: &Transport<P>| -> ReplyFuture<u32, JsonCodec> {
        send_request(transport, &endpoint, 1, JsonCodec).unwrap()
    };
    assert_eq!(call(&stranger).await, Err(ReplyError::Unauthorized));
    let friendly = call(&friend);
    answer::<P>(&server, &stream).await;
    assert_eq!(friendly.await, Ok(2));
    let expected = [
        (None, Some(stranger.incarnation())),
        (friend.local_address(), Some(friend.incarnation())),
    ];
    assert_eq!(*asked.borrow(), expected);
    shut_down::<P>(&stranger).await;
    shut_down::<P>(&friend).await;
    shut_down::<P>(&server).await;
}

async fn a_one_way_message_to_a_private_endpoint_is_dropped<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_private_handler::<u32, _>(TOKEN, JsonCodec);
    client.send_reliable(&endpoint, b"1").unwrap();
    hosts.until(|| server.stats().unauthorized == 1).await;
    assert_eq!(stream.stats().received, 0);
    assert_eq!(server.stats().replies_sent, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_ping_is_answered_with_its_payload_and_the_incarnation<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    for caller in [&client, &server] {
        let reply = caller.ping(address).await.unwrap();
        assert_eq!(reply.incarnation, server.incarnation());
        assert!(reply.payload.is_empty());
        let reply = caller.ping_with(address, b"payload").await.unwrap();
        assert_eq!(reply.payload, "payload");
        assert!(reply.round_trip < Duration::from_secs(10));
    }
    assert_eq!(server.stats().endpoints, 0);
    let huge = vec![0; 1 << 20];
    let refused = client.ping_with(address, &huge).await;
    assert_eq!(refused, Err(ReplyError::PayloadTooLarge));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_ping_to_nobody_fails<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    shut_down::<P>(&server).await;
    let client = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    assert_eq!(
        client.ping(address).await,
        Err(ReplyError::ConnectionFailed)
    );
    shut_down::<P>(&client).await;
}

/// Whoever can send a packet can claim anything about any token: it only counts for calls that were
/// made to its sender.
async fn a_notice_about_a_call_that_nobody_made_is_dropped<P: Providers>(hosts: Hosts<P>) {
    let (server, liar) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    for (token, late) in [
        (WellKnownToken::EndpointNotFound, 1),
        (WellKnownToken::UnauthorizedEndpoint, 2),
    ] {
        let endpoint = Endpoint::new(address, token.token());
        liar.send_reliable(&endpoint, &[7; 32]).unwrap();
        hosts.until(|| server.stats().replies_late == late).await;
        liar.send_reliable(&endpoint, &[7; 31]).unwrap();
        hosts.until(|| server.stats().undecodable == late).await;
    }
    shut_down::<P>(&liar).await;
    shut_down::<P>(&server).await;
}
