//! What a server learns when nobody waits for its answer any more.

use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, NetworkProvider, Providers, ReplyError, ReplyFuture,
    ReplyPromise, RequestStream, TaskProvider, TcpListenerTrait, TimeProvider, UID, send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    dropping_a_future_tells_the_server: 50;
    dropping_a_future_of_a_local_call_tells_the_handler: 20;
    a_local_request_that_is_given_up_in_time_is_not_executed: 20;
    a_deadline_that_passes_tells_the_server: 20;
    a_callers_end_cancels_its_requests: 50;
    only_the_caller_cancels_its_request: 20;
    an_answer_to_a_cancelled_request_is_dropped: 20;
    a_call_that_loses_patience_tells_the_server: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);

type Promise = ReplyPromise<u32, JsonCodec>;

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

async fn take<P: Providers>(
    server: &Transport<P>,
    stream: &RequestStream<u32, JsonCodec>,
) -> (u32, Promise) {
    stream.recv_with_transport(server).await.unwrap()
}

async fn dropping_a_future_tells_the_server<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let [dropped, kept] = [1, 2].map(|request| ask::<P>(&client, address, request));
    let (_, promise) = take::<P>(&server, &stream).await;
    let (_, other) = take::<P>(&server, &stream).await;
    assert!(!promise.is_cancelled());
    drop(dropped);
    promise.cancelled().await;
    assert!(promise.is_cancelled() && !other.is_cancelled());
    promise.cancelled().await;
    assert_eq!(client.stats().cancellations_sent, 1);
    assert_eq!(server.stats().cancellations_received, 1);
    other.send(20);
    assert_eq!(kept.await, Ok(20));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    assert!(promise.is_cancelled());
}

async fn dropping_a_future_of_a_local_call_tells_the_handler<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&server, address, 1);
    let (_, promise) = take::<P>(&server, &stream).await;
    assert!(!promise.is_cancelled());
    drop(call);
    promise.cancelled().await;
    assert!(promise.is_cancelled());
    promise.send(1);
    assert_eq!(server.stats().open_requests, 0);
    shut_down::<P>(&server).await;
}

async fn a_local_request_that_is_given_up_in_time_is_not_executed<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let calls = [1, 2, 3].map(|request| ask::<P>(&server, address, request));
    let [first, second, third] = calls;
    drop(second);
    assert_eq!(server.stats().local_packets, 2);
    for expected in [1, 3] {
        let (request, promise) = take::<P>(&server, &stream).await;
        assert_eq!(request, expected);
        promise.send(request);
    }
    assert_eq!((first.await, third.await), (Ok(1), Ok(3)));
    shut_down::<P>(&server).await;
}

/// The server's own clock says it too, later by the time that the request was on its way.
async fn a_deadline_that_passes_tells_the_server<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let warm = ask::<P>(&client, address, 0);
    take::<P>(&server, &stream).await.1.send(0);
    assert_eq!(warm.await, Ok(0));
    let endpoint = Endpoint::new(address, TOKEN);
    let call = client.call(&endpoint, 1, JsonCodec);
    let call = call.timeout(Duration::from_millis(100));
    let call: ReplyFuture<u32, _> = call.send().unwrap();
    let (_, promise) = take::<P>(&server, &stream).await;
    assert_eq!(call.await, Err(ReplyError::Timeout));
    promise.cancelled().await;
    assert!(promise.is_cancelled());
    assert_eq!(server.stats().cancellations_received, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_callers_end_cancels_its_requests<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let (leaving, staying) = (hosts.connect(), hosts.connect());
    let left = ask::<P>(&leaving, address, 1);
    let (_, promise) = take::<P>(&server, &stream).await;
    let kept = ask::<P>(&staying, address, 2);
    let (_, other) = take::<P>(&server, &stream).await;
    shut_down::<P>(&leaving).await;
    assert_eq!(left.await, Err(ReplyError::MaybeDelivered));
    promise.cancelled().await;
    assert!(promise.is_cancelled() && !other.is_cancelled());
    promise.send(1);
    assert_eq!(server.stats().open_requests, 1);
    other.send(2);
    assert_eq!(kept.await, Ok(2));
    shut_down::<P>(&staying).await;
    shut_down::<P>(&server).await;
}

/// Another client that guesses the reply token gets nowhere.
async fn only_the_caller_cancels_its_request<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let reply_token = UID::new(5, 5);
    let mut request = vec![1, 0, 1, 0];
    request.extend_from_slice(&reply_token.to_le_bytes());
    let mut cancellation = vec![1, 8, 0, 0];
    cancellation.extend_from_slice(&reply_token.to_le_bytes());
    request.extend_from_slice(b"7");
    let peer = client.get_or_open_peer(&address).unwrap();
    peer.send_reliable(TOKEN, request.clone().into()).unwrap();
    let (number, promise) = take::<P>(&server, &stream).await;
    assert_eq!(number, 7);
    let other = hosts.connect();
    let stranger = other.get_or_open_peer(&address).unwrap();
    stranger
        .send_reliable(TOKEN, cancellation.clone().into())
        .unwrap();
    let pinged = other.ping(address).await;
    assert!(pinged.is_ok() && !promise.is_cancelled());
    // The same token twice: the second request stands for itself, and is not cancelled with the
    // first.
    peer.send_reliable(TOKEN, request.into()).unwrap();
    let (_, second) = take::<P>(&server, &stream).await;
    peer.send_reliable(TOKEN, cancellation.into()).unwrap();
    promise.cancelled().await;
    assert!(promise.is_cancelled() && !second.is_cancelled());
    drop(second);
    assert_eq!(server.stats().open_requests, 1);
    drop(promise);
    assert_eq!(server.stats().open_requests, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&other).await;
    shut_down::<P>(&server).await;
}

async fn an_answer_to_a_cancelled_request_is_dropped<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, address, 1);
    let (_, promise) = take::<P>(&server, &stream).await;
    drop(call);
    promise.cancelled().await;
    promise.send(1);
    hosts.until(|| client.stats().replies_late == 1).await;
    hosts.client.time().sleep(Duration::from_millis(1)).await;
    assert_eq!(client.stats().replies_received, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Passes connections on, one after the other, until it is aborted.
async fn forward<P: Providers>(
    providers: P,
    listener: <P::Network as NetworkProvider>::TcpListener,
    target: NetworkAddress,
) {
    let target = target.socket_addr().to_string();
    while let Ok((mut down, _)) = listener.accept().await {
        let mut up = providers.network().connect(&target).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut down, &mut up).await);
    }
}

/// The session goes on with the next connection; only this call has ended meanwhile.
async fn a_call_that_loses_patience_tells_the_server<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let target = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let any_port = NetworkAddress::new(hosts.server_ip, 0).socket_addr();
    let listener = hosts.server.network().bind(&any_port.to_string()).await;
    let listener = listener.unwrap();
    let between: NetworkAddress = listener.local_addr().unwrap().parse().unwrap();
    let forwarding = hosts.spawn_server(forward(hosts.server.clone(), listener, target));

    let call = client.call(&Endpoint::new(between, TOKEN), 1, JsonCodec);
    let call = call.unless_failed_for(Duration::from_millis(100));
    let impatient: ReplyFuture<u32, _> = call.send().unwrap();
    let patient = ask::<P>(&client, between, 2);
    let (_, given_up) = take::<P>(&server, &stream).await;
    let (number, waited_for) = take::<P>(&server, &stream).await;
    forwarding.abort();
    drop(forwarding.await);
    assert_eq!(impatient.await, Err(ReplyError::MaybeDelivered));
    assert!(!given_up.is_cancelled(), "nobody could tell");

    let forwarding = {
        let providers = hosts.server.clone();
        hosts.server.task().spawn_task("forward", async move {
            let at = between.socket_addr().to_string();
            loop {
                if let Ok(listener) = providers.network().bind(&at).await {
                    break forward(providers.clone(), listener, target).await;
                }
                providers.time().sleep(Duration::from_millis(5)).await;
            }
        })
    };
    given_up.cancelled().await;
    assert!(!waited_for.is_cancelled());
    waited_for.send(number);
    assert_eq!(patient.await, Ok(2));
    drop((given_up, stream));
    shut_down::<P>(&client).await;
    forwarding.abort();
    drop(forwarding.await);
    shut_down::<P>(&server).await;
}
