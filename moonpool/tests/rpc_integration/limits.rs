//! Sizes: large payloads, and ones that are too large for either end.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, NetworkProvider, PeerConfig, Providers, ReplyError, ReplyFuture,
    TransportError, UID, send_request,
};

use tokio::io::AsyncReadExt;

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    payloads_of_a_mebibyte_go_both_ways: 1;
    a_request_beyond_the_own_limit_is_given_back: 5;
    a_request_beyond_the_servers_limit_is_surely_not_executed: 20;
    a_reply_beyond_the_limit_is_reported: 20;
    connections_beyond_the_limit_are_closed: 20;
    silent_connections_keep_nobody_out: 20;
    a_connection_that_says_nothing_is_closed_after_its_time: 20;
    sessions_beyond_the_limit_are_closed: 20;
    answers_need_no_room_in_the_queue: 20;
    requests_without_room_for_their_answers_are_overloaded: 20;
    refusals_beyond_the_limit_end_the_session: 50;
    a_burst_to_a_token_that_nobody_has_is_refused_one_by_one: 5;
    a_burst_without_room_for_its_answers_is_refused_one_by_one: 5;
    calls_beyond_the_limit_are_given_back: 10;
    requests_that_cannot_be_queued_are_given_back: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);
const MIB: usize = 1024 * 1024;

fn limited(bytes: usize) -> PeerConfig {
    PeerConfig {
        max_payload_bytes: u32::try_from(bytes).unwrap(),
        ..PeerConfig::default()
    }
}

async fn echo<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<String, _>(TOKEN, JsonCodec);
    while let Some((text, reply)) = stream.recv_with_transport(&transport).await {
        reply.send(text);
    }
}

/// Answers a number with a text of that length.
async fn repeat<P: Providers>(transport: Rc<Transport<P>>) {
    let stream = transport.register_handler::<usize, _>(TOKEN, JsonCodec);
    while let Some((length, reply)) = stream.recv_with_transport(&transport).await {
        reply.send("x".repeat(length));
    }
}

async fn payloads_of_a_mebibyte_go_both_ways<P: Providers>(hosts: Hosts<P>) {
    let config = limited(2 * MIB);
    let server = hosts.server_builder().peer_config(config.clone());
    let server = server.build_listening().await.unwrap();
    let client = hosts.client_builder().peer_config(config).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let texts: Vec<String> = (0..8)
        .map(|number| char::from(b'a' + number).to_string().repeat(MIB))
        .collect();
    let replies: Vec<ReplyFuture<String, _>> = texts
        .iter()
        .map(|text| send_request(&client, &endpoint, text.clone(), JsonCodec).unwrap())
        .collect();
    for (text, reply) in texts.iter().zip(replies) {
        assert!(reply.await.as_ref() == Ok(text), "a text was changed");
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_request_beyond_the_own_limit_is_given_back<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let text = "x".repeat(MIB);
    let not_sent = send_request::<_, String, _, _, _, _>(&client, &endpoint, text, JsonCodec);
    let not_sent = not_sent.unwrap_err();
    assert_eq!(not_sent.request.len(), MIB);
    let TransportError::PayloadTooLarge { size, limit } = not_sent.error else {
        panic!("{}", not_sent.error);
    };
    // Two quotes and the envelope.
    assert_eq!((size, limit), (MIB + 30, MIB));
    assert_eq!(client.stats().pending_calls, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// The server says its limit in its greeting. The first request is queued before that and withdrawn,
/// the second is refused when it is sent.
async fn a_request_beyond_the_servers_limit_is_surely_not_executed<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(limited(1000));
    let server = server.build_listening().await.unwrap();
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let small: ReplyFuture<String, _> =
        send_request(&client, &endpoint, "x".repeat(500), JsonCodec).unwrap();
    let large: ReplyFuture<String, _> =
        send_request(&client, &endpoint, "x".repeat(1000), JsonCodec).unwrap();
    assert_eq!(large.await, Err(ReplyError::PayloadTooLarge));
    assert_eq!(small.await.unwrap().len(), 500);
    let refused =
        send_request::<_, String, _, _, _, _>(&client, &endpoint, "x".repeat(1000), JsonCodec);
    let error = refused.unwrap_err().error;
    assert!(
        matches!(error, TransportError::PayloadTooLarge { limit: 1000, .. }),
        "{error}"
    );
    assert_eq!(server.stats().messages_received, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_reply_beyond_the_limit_is_reported<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().peer_config(limited(1000)).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(repeat::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    for (length, fits) in [(2000, false), (500, true), (998, false)] {
        let reply: ReplyFuture<String, _> =
            send_request(&client, &endpoint, length, JsonCodec).unwrap();
        match reply.await {
            Ok(text) => assert!(fits && text.len() == length),
            Err(error) => assert_eq!((fits, error), (false, ReplyError::ReplyTooLarge)),
        }
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn connections_beyond_the_limit_are_closed<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().max_incoming_connections(1);
    let server = server.build_listening().await.unwrap();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let first = hosts.connect();
    let second = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let ask = |transport: &Transport<P>| -> ReplyFuture<String, _> {
        send_request(transport, &endpoint, "text".to_owned(), JsonCodec).unwrap()
    };
    assert!(ask(&first).await.is_ok());
    assert_eq!(ask(&second).await, Err(ReplyError::ConnectionFailed));
    assert!(server.stats().accept_refused > 0);
    assert_eq!(server.stats().incoming_connections, 1);
    shut_down::<P>(&first).await;
    hosts
        .until(|| server.stats().incoming_connections == 0)
        .await;
    assert!(ask(&second).await.is_ok());
    shut_down::<P>(&second).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Whoever connects and says nothing is closed for the next one, oldest first.
async fn silent_connections_keep_nobody_out<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().max_handshakes(4);
    let server = server.build_listening().await.unwrap();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    let target = endpoint.address.socket_addr().to_string();
    let mut silent = Vec::new();
    for number in 1..=4 {
        silent.push(hosts.client.network().connect(&target).await.unwrap());
        hosts.until(|| server.stats().accepted == number).await;
    }
    assert_eq!(server.stats().handshakes_evicted, 0);
    let client = hosts.connect();
    let call: ReplyFuture<String, _> =
        send_request(&client, &endpoint, "text".to_owned(), JsonCodec).unwrap();
    assert_eq!(call.await.as_deref(), Ok("text"));
    let stats = server.stats();
    assert_eq!((stats.handshakes_evicted, stats.accept_refused), (1, 0));
    drop(silent);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

async fn a_connection_that_says_nothing_is_closed_after_its_time<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(PeerConfig {
        connect_timeout: Duration::from_millis(100),
        ..PeerConfig::default()
    });
    let server = server.build_listening().await.unwrap();
    let target = server.local_address().unwrap().socket_addr().to_string();
    let mut silent = hosts.client.network().connect(&target).await.unwrap();
    // Reset or ended: either way it is over.
    let read = silent.read(&mut [0; 16]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(silent);
    shut_down::<P>(&server).await;
}

async fn sessions_beyond_the_limit_are_closed<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().max_sessions(1);
    let server = server.build_listening().await.unwrap();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let first = hosts.connect();
    let second = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let ask = |transport: &Transport<P>| -> ReplyFuture<String, _> {
        send_request(transport, &endpoint, "text".to_owned(), JsonCodec).unwrap()
    };
    assert!(ask(&first).await.is_ok());
    let refused = ask(&second).await;
    assert_eq!(refused, Err(ReplyError::ConnectionFailed));
    assert_eq!(server.stats().incoming_sessions, 1);
    shut_down::<P>(&first).await;
    hosts.until(|| server.stats().incoming_sessions == 0).await;
    assert!(ask(&second).await.is_ok());
    shut_down::<P>(&second).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// The limits of what this end sends of its own are not those of the answers that it owes.
async fn answers_need_no_room_in_the_queue<P: Providers>(hosts: Hosts<P>) {
    let narrow = PeerConfig {
        reliable_packets: 4,
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(narrow);
    let server = server.build_listening().await.unwrap();
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let calls: Vec<ReplyFuture<u32, _>> = (0..20)
        .map(|number| send_request(&client, &endpoint, number, JsonCodec).unwrap())
        .collect();
    hosts.until(|| stream.len() == 20).await;
    while let Some((number, reply)) = stream.try_recv_with_transport(&server) {
        reply.send(number);
    }
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await, Ok(number));
    }
    assert_eq!(server.stats().replies_dropped, 0);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Of requests that are not answered, and of bytes of answers that are not acknowledged.
async fn requests_without_room_for_their_answers_are_overloaded<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(PeerConfig {
        answer_packets: 4,
        answer_bytes: 4_000,
        ..PeerConfig::default()
    });
    let server = server.build_listening().await.unwrap();
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<usize, _>(TOKEN, JsonCodec);
    let ask = |caller: &Transport<P>, length: usize| -> ReplyFuture<String, _> {
        send_request(caller, &endpoint, length, JsonCodec).unwrap()
    };
    for caller in [&client, &server] {
        let calls: Vec<_> = (0..10).map(|_| ask(caller, 1)).collect();
        let mut admitted = Vec::new();
        for (number, call) in (0..).zip(calls) {
            if number < 4 {
                admitted.push(call);
            } else {
                assert_eq!(call.await, Err(ReplyError::Overloaded));
            }
        }
        assert_eq!(stream.len(), 4);
        assert_eq!(server.stats().open_requests, 4);
        while let Some((length, reply)) = stream.try_recv_with_transport(&server) {
            reply.send("x".repeat(length));
        }
        for call in admitted {
            assert_eq!(call.await.unwrap(), "x");
        }
    }
    assert_eq!(server.stats().requests_refused, 12);
    // Two large answers pass the limit of bytes, and are taken all the same.
    let [first, second] = [ask(&client, 3_000), ask(&client, 3_000)];
    hosts.until(|| stream.len() == 2).await;
    for _ in 0..2 {
        let (length, reply) = stream.try_recv_with_transport(&server).unwrap();
        reply.send("x".repeat(length));
    }
    assert_eq!(first.await.unwrap().len(), 3_000);
    assert_eq!(second.await.unwrap().len(), 3_000);
    // The next request acknowledges them.
    let third = ask(&client, 1);
    let (_, reply) = stream.recv_with_transport(&server).await.unwrap();
    reply.send(String::new());
    assert_eq!(third.await.unwrap(), "");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// Refusals need no slot, so reading never stops for one; their number is what is bounded.
async fn refusals_beyond_the_limit_end_the_session<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(PeerConfig {
        refusals: 4,
        ..PeerConfig::default()
    });
    let server = server.build_listening().await.unwrap();
    let client = hosts.connect();
    let address = server.local_address().unwrap();
    let private = UID::new(0xEC40, 2);
    let _nobody_may = server.register_private_handler::<String, _>(private, JsonCodec);
    let ask = |token: UID| -> ReplyFuture<String, _> {
        let endpoint = Endpoint::new(address, token);
        send_request(&client, &endpoint, "text", JsonCodec).unwrap()
    };
    // Refusals of the same kind that follow each other would share a packet.
    let tokens = (0..20).map(|number| {
        if number % 2 == 0 {
            private
        } else {
            UID::new(1, 1)
        }
    });
    let calls: Vec<_> = tokens.map(ask).collect();
    let mut lost = 0;
    for call in calls {
        match call.await {
            Err(ReplyError::EndpointNotFound | ReplyError::Unauthorized) => {}
            Err(ReplyError::MaybeDelivered) => lost += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0);
    assert!(server.stats().replies_dropped > 0);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 2).await;
    assert_eq!(ask(TOKEN).await.unwrap(), "text");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}

/// Far more than `refusals` of the configuration: a session ends for them only if the other end does
/// not take them.
async fn a_burst_to_a_token_that_nobody_has_is_refused_one_by_one<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let absent = Endpoint::new(server.local_address().unwrap(), UID::new(1, 1));
    let calls: Vec<ReplyFuture<u32, _>> = (0..10_000)
        .map(|number: u32| send_request(&client, &absent, number, JsonCodec).unwrap())
        .collect();
    for call in calls {
        assert_eq!(call.await, Err(ReplyError::EndpointNotFound));
    }
    let stats = server.stats();
    assert_eq!((stats.replies_dropped, stats.accepted), (0, 1));
    assert_eq!(stats.endpoint_not_found, 10_000);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_burst_without_room_for_its_answers_is_refused_one_by_one<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.server_builder().peer_config(PeerConfig {
        answer_packets: 1,
        ..PeerConfig::default()
    });
    let server = server.build_listening().await.unwrap();
    let client = hosts.connect();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let mut calls = (0..10_000)
        .map(|number: u32| send_request(&client, &endpoint, number, JsonCodec).unwrap())
        .collect::<Vec<ReplyFuture<u32, _>>>()
        .into_iter();
    let admitted = calls.next().unwrap();
    for call in calls {
        assert_eq!(call.await, Err(ReplyError::Overloaded));
    }
    let (number, reply) = stream.recv_with_transport(&server).await.unwrap();
    reply.send(number);
    assert_eq!(admitted.await, Ok(0));
    let stats = server.stats();
    assert_eq!((stats.requests_refused, stats.accepted), (9_999, 1));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn calls_beyond_the_limit_are_given_back<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let client = hosts.client_builder().max_pending_calls(2).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let ask =
        |number: u32| send_request::<_, u32, _, _, _, _>(&client, &endpoint, number, JsonCodec);
    let (first, second) = (ask(1).unwrap(), ask(2).unwrap());
    let not_sent = ask(3).unwrap_err();
    assert_eq!(not_sent.request, 3);
    assert!(matches!(not_sent.error, TransportError::TooManyCalls));
    let (number, reply) = stream.recv_with_transport(&server).await.unwrap();
    reply.send(number);
    assert_eq!(first.await, Ok(1));
    let third = ask(3).unwrap();
    drop((second, third));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn requests_that_cannot_be_queued_are_given_back<P: Providers>(hosts: Hosts<P>) {
    let narrow = PeerConfig {
        reliable_packets: 4,
        ..PeerConfig::default()
    };
    let server = hosts.serve().await;
    let client = hosts.client_builder().peer_config(narrow).build();
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let serving = hosts.spawn_server(echo::<P>(server.clone()));
    hosts.until(|| server.stats().endpoints == 1).await;
    let mut calls: Vec<ReplyFuture<String, _>> = Vec::new();
    let refused = loop {
        match send_request(&client, &endpoint, calls.len().to_string(), JsonCodec) {
            Ok(call) => calls.push(call),
            Err(not_sent) => break not_sent,
        }
    };
    assert_eq!((calls.len(), refused.request.as_str()), (4, "4"));
    assert!(matches!(refused.error, TransportError::QueueFull));
    let peer = client.get_or_open_peer(&endpoint.address).unwrap();
    peer.ready().await.unwrap();
    calls.push(send_request(&client, &endpoint, refused.request, JsonCodec).unwrap());
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await, Ok(number.to_string()));
    }
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
    serving.await.unwrap();
}
