//! What is known of peers that fail, come back, or are not needed for long.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    AddressState, Endpoint, EndpointState, FlowTransportBuilder, JsonCodec, NetworkAddress,
    PeerConfig, Providers, ReplyError, TaskProvider, TimeProvider, TransportError, UID,
    send_request,
};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_watch_sees_a_server_fail_and_come_back: 30;
    a_watch_ends_when_its_transport_does: 20;
    a_watch_of_what_is_no_address_says_so: 1;
    a_connection_that_is_lost_is_told_before_the_address_fails: 30;
    an_endpoint_that_is_not_there_is_known_until_the_next_incarnation: 30;
    an_endpoint_that_is_registered_later_is_missing_no_more: 20;
    idle_peers_are_forgotten_at_both_ends_and_made_anew: 30;
    peers_that_somebody_needs_are_not_idle: 10;
    peers_that_come_and_go_leave_nothing: 5;
    the_own_address_is_always_available: 5;
}

const TOKEN: UID = UID::new(0x11FE, 1);

fn brisk() -> PeerConfig {
    PeerConfig {
        patience: Some(Duration::from_millis(300)),
        failed_after: Duration::from_millis(300),
        ..PeerConfig::default()
    }
}

fn fleeting() -> PeerConfig {
    PeerConfig {
        idle_close: Some(Duration::from_millis(100)),
        ..PeerConfig::default()
    }
}

async fn echo<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<u64, _>(TOKEN, JsonCodec);
    while let Some((number, reply)) = stream.recv_with_transport(&transport).await {
        reply.send(number);
    }
}

async fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
) -> Result<u64, ReplyError> {
    send_request(transport, &Endpoint::new(address, TOKEN), 7_u64, JsonCodec)
        .unwrap()
        .await
}

/// Listens again where somebody listened before. The operating system may take a moment to agree.
async fn listen_at<P: Providers>(providers: &P, address: NetworkAddress) -> Rc<Transport<P>> {
    loop {
        let builder = FlowTransportBuilder::from_providers(providers).local_address(address);
        if let Ok(transport) = builder.build_listening().await {
            return transport;
        }
        providers.time().sleep(Duration::from_millis(5)).await;
    }
}

async fn a_watch_sees_a_server_fail_and_come_back<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.client_builder().peer_config(brisk()).build();
    let monitor = client.failure_monitor();
    assert_eq!(monitor.state(address), AddressState::Available);
    // Nothing else is sent: the watch makes the connection.
    monitor.on_available(address).await.unwrap();
    let failed = monitor.on_failed(address);
    assert_eq!(client.stats().watches, 1);
    drop(server);
    failed.await.unwrap();
    assert_eq!(monitor.state(address), AddressState::Failed);
    monitor.on_failed(address).await.unwrap();
    monitor.on_disconnect(address).await.unwrap();
    let back = monitor.on_available(address);
    let server = listen_at(&hosts.server, address).await;
    back.await.unwrap();
    assert_eq!(monitor.state(address), AddressState::Available);
    assert_eq!(client.stats().watches, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_watch_ends_when_its_transport_does<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.connect();
    let monitor = client.failure_monitor();
    monitor.on_available(address).await.unwrap();
    let (failed, unpolled) = (monitor.on_failed(address), monitor.on_failed(address));
    let waiting = hosts.client.task().spawn_task("waiting", failed);
    hosts.client.time().sleep(Duration::from_millis(5)).await;
    shut_down::<P>(&client).await;
    let closed = |outcome| matches!(outcome, Err(TransportError::Closed));
    assert!(closed(waiting.await.unwrap()));
    assert!(closed(unpolled.await));
    assert!(closed(monitor.on_available(address).await));
    assert_eq!(monitor.state(address), AddressState::Available);
    shut_down::<P>(&server).await;
}

async fn a_watch_of_what_is_no_address_says_so<P: Providers>(hosts: Hosts<P>) {
    let client = hosts.connect();
    let nowhere = NetworkAddress::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 80);
    let outcome = client.failure_monitor().on_failed(nowhere).await;
    assert!(
        matches!(outcome, Err(TransportError::NoDestination { .. })),
        "{outcome:?}"
    );
    shut_down::<P>(&client).await;
}

async fn a_connection_that_is_lost_is_told_before_the_address_fails<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.connect();
    let monitor = client.failure_monitor();
    let lost = monitor.on_disconnect(address);
    monitor.on_available(address).await.unwrap();
    client.get_or_open_peer(&address).unwrap().reconnect();
    lost.await.unwrap();
    assert_eq!(monitor.state(address), AddressState::Available);
    monitor.on_available(address).await.unwrap();
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_endpoint_that_is_not_there_is_known_until_the_next_incarnation<P: Providers>(
    hosts: Hosts<P>,
) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let client = hosts.client_builder().peer_config(brisk()).build();
    let monitor = client.failure_monitor();
    let endpoint = Endpoint::new(address, TOKEN);
    assert_eq!(monitor.endpoint_state(&endpoint), EndpointState::Available);
    let outcome = ask::<P>(&client, address).await;
    assert_eq!(outcome, Err(ReplyError::EndpointNotFound));
    assert_eq!(monitor.endpoint_state(&endpoint), EndpointState::NotFound);
    assert_eq!(monitor.state(address), AddressState::Available);
    let lost = monitor.on_disconnect(address);
    drop(server);
    lost.await.unwrap();
    let server = listen_at(&hosts.server, address).await;
    monitor.on_available(address).await.unwrap();
    assert_eq!(monitor.endpoint_state(&endpoint), EndpointState::Available);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_endpoint_that_is_registered_later_is_missing_no_more<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let monitor = client.failure_monitor();
    let endpoint = Endpoint::new(address, TOKEN);
    let outcome = ask::<P>(&client, address).await;
    assert_eq!(outcome, Err(ReplyError::EndpointNotFound));
    assert_eq!(monitor.endpoint_state(&endpoint), EndpointState::NotFound);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    assert_eq!(ask::<P>(&client, address).await, Ok(7));
    assert_eq!(monitor.endpoint_state(&endpoint), EndpointState::Available);
    assert_eq!(client.stats().missing_endpoints, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Its caller has given up while the notice was on its way.
#[cfg(feature = "sim")]
#[test]
fn a_notice_that_answers_no_waiting_call_is_not_believed() {
    let late = std::cell::Cell::new(0);
    crate::common::in_simulation(30, |hosts| {
        let late = &late;
        async move {
            let (server, client) = (hosts.serve().await, hosts.connect());
            let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
            let call: moonpool::ReplyFuture<u64, _> =
                send_request(&client, &endpoint, 7_u64, JsonCodec).unwrap();
            hosts.until(|| server.stats().endpoint_not_found == 1).await;
            let is_waiting = client.stats().pending_calls == 1;
            drop(call);
            hosts.client.time().sleep(Duration::from_secs(1)).await;
            if is_waiting && client.stats().replies_received == 0 {
                late.set(late.get() + 1);
                assert_eq!(client.stats().missing_endpoints, 0);
            }
            shut_down::<moonpool::foundation::SimProviders>(&client).await;
            shut_down::<moonpool::foundation::SimProviders>(&server).await;
        }
    });
    assert!(late.get() > 0, "no notice came late");
}

async fn idle_peers_are_forgotten_at_both_ends_and_made_anew<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(fleeting());
    let server = server.build_listening().await.unwrap();
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    let address = server.local_address().unwrap();
    let client = hosts.client_builder().peer_config(fleeting()).build();
    for _ in 0..3 {
        assert_eq!(ask::<P>(&client, address).await, Ok(7));
        let stats = (client.stats(), server.stats());
        assert_eq!((stats.0.peers, stats.1.incoming_sessions), (1, 1));
        hosts
            .until(|| client.stats().peers == 0 && server.stats().incoming_sessions == 0)
            .await;
        let stats = (client.stats(), server.stats());
        assert_eq!((stats.0.peers, stats.1.incoming_connections), (0, 0));
        assert_eq!(stats.0.tasks, 1, "the one that keeps deadlines");
        assert_eq!(stats.1.tasks, 1, "the accepting one");
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn peers_that_somebody_needs_are_not_idle<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u64, _>(TOKEN, JsonCodec);
    let client = hosts.client_builder().peer_config(fleeting()).build();
    let sleep = || hosts.client.time().sleep(Duration::from_millis(500));
    let handle = client.get_or_open_peer(&address).unwrap();
    sleep().await;
    assert_eq!(client.stats().peers, 1, "a handle is held");
    let watch = client.failure_monitor().on_failed(address);
    drop(handle);
    sleep().await;
    assert_eq!(client.stats().peers, 1, "it is watched");
    let asking = {
        let client = client.clone();
        let asking = async move { ask::<P>(&client, address).await };
        hosts.client.task().spawn_task("asking", asking)
    };
    let (number, reply) = stream
        .recv_with_transport::<_, _, _, u64>(&server)
        .await
        .unwrap();
    drop(watch);
    sleep().await;
    assert_eq!(client.stats().peers, 1, "a reply is expected");
    reply.send(number);
    assert_eq!(asking.await.unwrap(), Ok(7));
    hosts.until(|| client.stats().peers == 0).await;
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Clients without number, and a server that has seen them all.
async fn peers_that_come_and_go_leave_nothing<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(fleeting());
    let server = server.build_listening().await.unwrap();
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    let address = server.local_address().unwrap();
    let client = hosts.client_builder().peer_config(fleeting()).build();
    for number in 0..200 {
        let short = hosts.connect();
        assert_eq!(ask::<P>(&short, address).await, Ok(7));
        if number % 2 == 0 {
            shut_down::<P>(&short).await;
        }
        // Nobody is there: this one never has a connection.
        let nowhere = NetworkAddress::new(hosts.server_ip, 1);
        let call = send_request::<_, u64, _, _, _, _>(
            &client,
            &Endpoint::new(nowhere, TOKEN),
            number,
            JsonCodec,
        );
        drop(call);
    }
    // What was dropped in the middle is kept until its minute is over, which only a simulation
    // has time for.
    hosts
        .until(|| client.stats().peers == 0 && server.stats().incoming_connections == 0)
        .await;
    assert_eq!(client.stats().tasks, 1, "the one that keeps deadlines");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn the_own_address_is_always_available<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let monitor = server.failure_monitor();
    monitor.on_available(address).await.unwrap();
    let never = monitor.on_failed(address);
    assert_eq!(server.stats().peers, 0);
    shut_down::<P>(&server).await;
    assert!(matches!(never.await, Err(TransportError::Closed)));
}
