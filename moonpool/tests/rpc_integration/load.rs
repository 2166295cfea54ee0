//! Many requests in flight.

use std::rc::Rc;

use futures_util::future::join_all;
use moonpool::{Endpoint, JsonCodec, Providers, ReplyFuture, UID, send_request};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    ten_thousand_requests_are_in_flight_on_one_connection: 2;
    ten_thousand_local_requests: 2;
}

const TOKEN: UID = UID::new(0xEC40, 1);
const REQUESTS: u32 = 10_000;

async fn double<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        reply.send(number * 2);
    }
}

async fn ten_thousand_requests_are_in_flight_on_one_connection<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let calls: Vec<ReplyFuture<u32, _>> = (0..REQUESTS)
        .map(|number| send_request(&client, &endpoint, number, JsonCodec).unwrap())
        .collect();
    // All of them wait at the server at one time before the first is answered.
    hosts.until(|| stream.len() == REQUESTS as usize).await;
    assert_eq!(client.stats().pending_calls, REQUESTS as usize);
    while let Some((number, reply)) = stream.try_recv_with_transport(&server) {
        reply.send(number * 2);
    }
    for (number, reply) in (0..).zip(join_all(calls).await) {
        assert_eq!(reply, Ok(number * 2));
    }
    assert_eq!(server.stats().accepted, 1);
    assert_eq!(client.stats().peers, 1);
    drop(stream);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn ten_thousand_local_requests<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(double::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let calls: Vec<ReplyFuture<u32, _>> = (0..REQUESTS)
        .map(|number| send_request(&server, &endpoint, number, JsonCodec).unwrap())
        .collect();
    for (number, reply) in (0..).zip(join_all(calls).await) {
        assert_eq!(reply, Ok(number * 2));
    }
    assert_eq!((server.stats().peers, server.stats().accepted), (0, 0));
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}
