//! Methods of an interface that are told something, and not asked.

use std::time::Duration;

use moonpool::{
    Client, JsonCodec, NetworkAddress, Providers, ReplyPromise, TimeProvider, TransportError,
    define_interface,
};

use crate::common::{Hosts, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    a_message_is_told_to_a_method_in_order_with_its_calls: 20;
    a_message_that_is_told_waits_for_a_connection: 20;
    an_unreliable_message_is_dropped_without_a_connection: 20;
    an_unreliable_message_arrives_over_a_connection: 20;
    a_process_tells_itself: 20;
    what_cannot_be_told_comes_back: 20;
}

define_interface! {
    Log, id 0x0E_A1, { note: u32 => (), count: u32 => u32 }
}

type Promise = ReplyPromise<(), JsonCodec>;

async fn a_message_is_told_to_a_method_in_order_with_its_calls<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let log = Log::serve(&server, JsonCodec).unwrap();
    let remote = Log::remote(&client, server.local_address().unwrap(), JsonCodec);
    remote.note(1).tell().unwrap();
    let call = remote.note(2).send().unwrap();
    remote.note(3).metadata("key", "value").tell().unwrap();
    let mut expected = [(1, false), (2, true), (3, false)].into_iter();
    for _ in 0..3 {
        let (number, promise): (u32, Promise) = log.note.recv().await.unwrap();
        assert_eq!(expected.next(), Some((number, promise.expects_answer())));
        promise.send(());
    }
    assert_eq!(call.await, Ok(()));
    assert_eq!(
        (client.stats().pending_calls, client.stats().requests_sent),
        (0, 1)
    );
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// An address that was free a moment ago.
async fn unused_address<P: Providers>(hosts: &Hosts<P>) -> NetworkAddress {
    let transport = hosts.serve().await;
    let address = transport.local_address().unwrap();
    shut_down::<P>(&transport).await;
    address
}

async fn listen_at<P: Providers>(
    hosts: &Hosts<P>,
    address: NetworkAddress,
) -> std::rc::Rc<crate::common::Transport<P>> {
    loop {
        let builder = hosts.server_builder().local_address(address);
        if let Ok(transport) = builder.build_listening().await {
            return transport;
        }
        hosts.server.time().sleep(Duration::from_millis(5)).await;
    }
}

async fn a_message_that_is_told_waits_for_a_connection<P: Providers>(hosts: Hosts<P>) {
    let address = unused_address(&hosts).await;
    let client = hosts.connect();
    let remote: Client<Log> = Log::remote(&client, address, JsonCodec);
    remote.note(1).tell().unwrap();
    hosts.client.time().sleep(Duration::from_millis(20)).await;
    let server = listen_at(&hosts, address).await;
    let log = Log::serve(&server, JsonCodec).unwrap();
    let (number, _promise) = log.note.recv().await.unwrap();
    assert_eq!(number, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_unreliable_message_is_dropped_without_a_connection<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let log = Log::serve(&server, JsonCodec).unwrap();
    let remote = Log::remote(&client, server.local_address().unwrap(), JsonCodec);
    // `Ok`: nobody says what becomes of it.
    remote.note(1).tell_unreliable().unwrap();
    let connected = || {
        client
            .all_peer_metrics()
            .iter()
            .any(|(_, peer)| peer.connections > 0)
    };
    hosts.until(connected).await;
    let call = remote.note(2).send().unwrap();
    let (number, promise) = log.note.recv().await.unwrap();
    promise.send(());
    assert_eq!((number, call.await), (2, Ok(())));
    assert_eq!(log.note.requests().stats().received, 1);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn an_unreliable_message_arrives_over_a_connection<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let log = Log::serve(&server, JsonCodec).unwrap();
    let remote = Log::remote(&client, server.local_address().unwrap(), JsonCodec);
    let call = remote.note(1).send().unwrap();
    log.note.recv().await.unwrap().1.send(());
    assert_eq!(call.await, Ok(()));
    remote.note(2).tell_unreliable().unwrap();
    let (number, promise) = log.note.recv().await.unwrap();
    assert_eq!((number, promise.expects_answer()), (2, false));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_process_tells_itself<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let log = Log::serve(&server, JsonCodec).unwrap();
    let own = Log::remote(&server, server.local_address().unwrap(), JsonCodec);
    own.note(1).tell().unwrap();
    own.note(2).tell_unreliable().unwrap();
    for expected in 1..3 {
        let (number, promise) = log.note.recv().await.unwrap();
        assert_eq!((number, promise.expects_answer()), (expected, false));
    }
    assert_eq!(server.stats().peers, 0);
    shut_down::<P>(&server).await;
}

async fn what_cannot_be_told_comes_back<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let remote = Log::remote(&client, server.local_address().unwrap(), JsonCodec);
    let large = remote.note(7).metadata("key", vec![0; 9_000]);
    let not_sent = large.tell().unwrap_err();
    assert_eq!(not_sent.request, 7);
    assert!(matches!(not_sent.error, TransportError::MetadataTooLarge));
    shut_down::<P>(&client).await;
    for not_sent in [remote.note(7).tell(), remote.note(7).tell_unreliable()] {
        let not_sent = not_sent.unwrap_err();
        assert_eq!(not_sent.request, 7);
        assert!(matches!(not_sent.error, TransportError::Closed));
    }
    shut_down::<P>(&server).await;
}
