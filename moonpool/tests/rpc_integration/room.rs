//! Waiting for room instead of being refused.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, PeerConfig, Providers, ReplyFuture, TransportError, UID,
    send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    callers_that_wait_for_others_calls_have_their_turns_in_order: 20;
    callers_that_wait_for_a_peers_queue_have_their_turns_in_order: 20;
    callers_that_wait_for_the_own_queue_have_their_turns_in_order: 20;
    whoever_stops_waiting_gives_the_turn_on: 20;
    an_answer_makes_room_before_its_future_is_polled: 20;
    waiting_for_room_ends_with_the_transport: 20;
    there_is_no_room_where_nothing_can_be_sent: 5;
    a_transport_that_closes_has_no_room_for_itself: 20;
}

const TOKEN: UID = UID::new(0xEC40, 7);
/// More than 30, so that `join_all` polls those only that were woken.
const CALLERS: u32 = 40;

async fn echo<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        reply.send(number);
    }
}

fn ask<P: Providers>(
    transport: &Transport<P>,
    endpoint: &Endpoint,
    number: u32,
) -> Result<ReplyFuture<u32, JsonCodec>, TransportError> {
    Ok(send_request(transport, endpoint, number, JsonCodec)?)
}

/// Many callers wait at one time. Gives the order in which they called.
async fn call_in_turn<P: Providers>(transport: &Transport<P>, endpoint: &Endpoint) -> Vec<u32> {
    let order = RefCell::new(Vec::new());
    let callers = (0..CALLERS).map(|number| {
        let order = &order;
        async move {
            transport.ready(endpoint).await.unwrap();
            order.borrow_mut().push(number);
            let call = ask::<P>(transport, endpoint, number).unwrap();
            assert_eq!(call.await, Ok(number));
        }
    });
    join_all(callers).await;
    order.into_inner()
}

fn in_order() -> Vec<u32> {
    (0..CALLERS).collect()
}

fn narrow() -> PeerConfig {
    PeerConfig {
        reliable_packets: 2,
        ..PeerConfig::default()
    }
}

async fn callers_that_wait_for_others_calls_have_their_turns_in_order<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().max_pending_calls(2).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    assert_eq!(call_in_turn::<P>(&client, &endpoint).await, in_order());
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn callers_that_wait_for_a_peers_queue_have_their_turns_in_order<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().peer_config(narrow()).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    assert_eq!(call_in_turn::<P>(&client, &endpoint).await, in_order());
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn callers_that_wait_for_the_own_queue_have_their_turns_in_order<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.server_builder().peer_config(narrow());
    let server = server.build_listening().await.unwrap();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    assert_eq!(call_in_turn::<P>(&server, &endpoint).await, in_order());
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn whoever_stops_waiting_gives_the_turn_on<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().max_pending_calls(1).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let call = ask::<P>(&client, &endpoint, 1).unwrap();
    let mut impatient = Box::pin(client.ready(&endpoint));
    let mut patient = Box::pin(client.ready(&endpoint));
    assert!(futures_util::poll!(&mut impatient).is_pending());
    assert!(futures_util::poll!(&mut patient).is_pending());
    drop(call);
    assert!(
        futures_util::poll!(&mut patient).is_pending(),
        "it is the other one's turn"
    );
    drop(impatient);
    patient.await.unwrap();
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_answer_makes_room_before_its_future_is_polled<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().max_pending_calls(1).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let call = ask::<P>(&client, &endpoint, 1).unwrap();
    client.ready(&endpoint).await.unwrap();
    let second = ask::<P>(&client, &endpoint, 2).unwrap();
    assert_eq!((call.await, second.await), (Ok(1), Ok(2)));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn waiting_for_room_ends_with_the_transport<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().max_pending_calls(1).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let _unanswered = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = ask::<P>(&client, &endpoint, 1).unwrap();
    let waits = (0..CALLERS).map(|_| async {
        let error = client.ready(&endpoint).await.unwrap_err();
        assert!(matches!(error, TransportError::Closed), "{error}");
    });
    let shutting_down = client.shutdown(Duration::from_millis(50));
    futures_util::join!(join_all(waits), shutting_down);
    assert!(call.await.is_err());
    shut_down::<P>(&server).await;
}

async fn there_is_no_room_where_nothing_can_be_sent<P: Providers>(hosts: Hosts<P>) {
    let client = hosts.connect();
    let nowhere: NetworkAddress = "0.0.0.0:0".parse().unwrap();
    let error = client.ready(&Endpoint::new(nowhere, TOKEN)).await;
    assert!(matches!(error, Err(TransportError::NoDestination { .. })));
    shut_down::<P>(&client).await;
}

async fn a_transport_that_closes_has_no_room_for_itself<P: Providers>(hosts: Hosts<P>) {
    let other = hosts.serve().await;
    let client = hosts.server_builder().peer_config(narrow());
    let client = client.build_listening().await.unwrap();
    let there = Endpoint::new(other.local_address().unwrap(), TOKEN);
    let here = Endpoint::new(client.local_address().unwrap(), TOKEN);
    while client.send_reliable(&there, b"1").is_ok() {}
    // It is the first to be told of the end, and does not look.
    let mut first = Box::pin(client.ready(&there));
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut shutting_down = Box::pin(client.shutdown(Duration::from_millis(50)));
    assert!(futures_util::poll!(&mut shutting_down).is_pending());
    let error = client.ready(&here).await.unwrap_err();
    assert!(matches!(error, TransportError::Closed), "{error}");
    drop(first);
    shutting_down.await;
    shut_down::<P>(&other).await;
}
