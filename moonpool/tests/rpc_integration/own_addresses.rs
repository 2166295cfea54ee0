//! Calls to an address that turns out to lead back here, made before that is known.

use std::net::Ipv4Addr;
use std::rc::Rc;
#[cfg(feature = "sim")]
use std::time::Duration;

#[cfg(feature = "sim")]
use moonpool::TimeProvider;
use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, Providers, ReplyError, ReplyFuture, RequestStream, UID,
    send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_large_request_to_another_own_address_arrives_whole: 20;
    dropping_a_call_to_another_own_address_tells_the_handler: 20;
    shutdown_does_not_take_an_executed_call_to_another_own_address_for_unsent: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);

type Stream = RequestStream<String, JsonCodec>;

/// A transport that listens everywhere and does not know by which addresses it is reached, its
/// stream, and one of these addresses.
async fn listen_everywhere<P: Providers>(
    hosts: &Hosts<P>,
) -> (Rc<Transport<P>>, Stream, NetworkAddress) {
    let everywhere = NetworkAddress::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let builder = hosts.server_builder().local_address(everywhere);
    let server = builder.build_listening().await.unwrap();
    assert_eq!(server.local_address(), None, "it knows its address");
    let port = server.listening_address().unwrap().port;
    let stream = server.register_handler::<String, _>(TOKEN, JsonCodec);
    (server, stream, NetworkAddress::new(hosts.server_ip, port))
}

fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    request: &str,
) -> ReplyFuture<String, JsonCodec> {
    let endpoint = Endpoint::new(address, TOKEN);
    send_request(transport, &endpoint, request, JsonCodec).unwrap()
}

async fn a_large_request_to_another_own_address_arrives_whole<P: Providers>(hosts: Hosts<P>) {
    let (server, stream, address) = listen_everywhere(&hosts).await;
    let large: String = ('a'..='z').cycle().take(20_000).collect();
    for request in [&large, "after", &large] {
        let reply = ask::<P>(&server, address, request);
        let (received, promise) = stream
            .recv_with_transport::<_, _, _, String>(&server)
            .await
            .unwrap();
        assert!(received == request, "{} bytes arrived", received.len());
        promise.send(received);
        assert!(reply.await.as_deref() == Ok(request));
    }
    drop(stream);
    shut_down::<P>(&server).await;
}

async fn dropping_a_call_to_another_own_address_tells_the_handler<P: Providers>(hosts: Hosts<P>) {
    let (server, stream, address) = listen_everywhere(&hosts).await;
    let call = ask::<P>(&server, address, "in vain");
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, String>(&server)
        .await
        .unwrap();
    assert!(!promise.is_cancelled());
    drop(call);
    promise.cancelled().await;
    promise.send("late".to_owned());
    drop(stream);
    shut_down::<P>(&server).await;
}

async fn shutdown_does_not_take_an_executed_call_to_another_own_address_for_unsent<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, stream, address) = listen_everywhere(&hosts).await;
    let call = ask::<P>(&server, address, "executed");
    let (_, promise) = stream
        .recv_with_transport::<_, _, _, String>(&server)
        .await
        .unwrap();
    shut_down::<P>(&server).await;
    assert_eq!(call.await, Err(ReplyError::MaybeDelivered));
    drop(promise);
}

/// The handler takes longer than a caller puts up with there being no connection.
#[cfg(feature = "sim")]
#[test]
fn a_call_to_another_own_address_waits_for_its_reply_until_its_deadline() {
    crate::common::in_simulation(20, |hosts| async move {
        let (server, stream, address) = listen_everywhere(&hosts).await;
        let call = ask::<moonpool::foundation::SimProviders>(&server, address, "slow");
        let (request, promise) = stream
            .recv_with_transport::<_, _, _, String>(&server)
            .await
            .unwrap();
        hosts.server.time().sleep(Duration::from_secs(6)).await;
        promise.send(request);
        assert_eq!(call.await.as_deref(), Ok("slow"));
        drop(stream);
        shut_down::<moonpool::foundation::SimProviders>(&server).await;
    });
}
