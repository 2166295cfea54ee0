//! Many bytes in a message: whole, in whatever way they travel.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moonpool::{Blob, Endpoint, Providers, ReplyError, RetryPolicy, UID, send_request};
use moonpool_traits::PostcardCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    blobs_of_all_sizes_come_back_as_they_were: 2;
    the_checksum_of_a_blob_travels_with_it_from_host_to_host: 2;
    a_blob_that_changed_after_it_was_received_is_refused_by_the_next_receiver: 2;
}

const TOKEN: UID = UID::new(0xB10B, 1);
const OTHER_TOKEN: UID = UID::new(0xB10B, 2);
const KIB: usize = 1024;
const SIZES: [usize; 9] = [
    0,
    100,
    16 * KIB - 1,
    16 * KIB,
    100 * KIB,
    300 * KIB,
    600 * KIB,
    1024 * KIB - 200,
    10,
];

/// Something before, something last, and something behind.
type Message = (u32, Blob, String, Blob);

type Ends<P> = (Rc<Transport<P>>, Rc<Transport<P>>, Endpoint);

/// A server that sends back what it is sent, a client, and where the one reaches the other.
async fn echo<P, M>(hosts: &Hosts<P>) -> Ends<P>
where
    P: Providers,
    M: Serialize + DeserializeOwned + 'static,
{
    let server = hosts.serve().await;
    let requests = server.register_handler::<M, _>(TOKEN, PostcardCodec);
    let serving = server.clone();
    drop(hosts.spawn_server(async move {
        while let Some((message, reply)) =
            requests.recv_with_transport::<_, _, _, M>(&serving).await
        {
            reply.send(message);
        }
    }));
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    (server, hosts.connect(), endpoint)
}

async fn blobs_of_all_sizes_come_back_as_they_were<P: Providers>(hosts: Hosts<P>) {
    let (server, client, endpoint) = echo::<P, Message>(&hosts).await;
    let mut kept: Vec<(Message, Message)> = Vec::new();
    for transport in [&client, &server] {
        for (number, size) in (0..).zip(SIZES.into_iter().cycle().take(3 * SIZES.len())) {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            let (inner, last) = bytes.split_at(if number % 2 == 0 { size } else { size / 3 });
            let text = "behind".to_owned();
            let message = (number, inner.to_vec().into(), text, last.to_vec().into());
            let back: Message = if number % 3 == 0 {
                let call = transport.call(&endpoint, message.clone(), PostcardCodec);
                let call = call
                    .retry(RetryPolicy::default())
                    .timeout(Duration::from_secs(60));
                call.send().unwrap().await.unwrap()
            } else {
                let reply = send_request(transport, &endpoint, message.clone(), PostcardCodec);
                reply.unwrap().await.unwrap()
            };
            // Those that came before keep what they share.
            kept.push((message, back));
            for (message, back) in kept.iter().rev().take(3) {
                assert!(message == back, "{} bytes, call {number}", size);
            }
        }
    }
    drop(kept);
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

#[test]
fn the_answer_of_a_runtimes_own_future_is_acknowledged_by_its_next_request() {
    crate::common::on_tokio(large_calls_one_after_the_other);
}

async fn large_calls_one_after_the_other<P: Providers>(hosts: Hosts<P>) {
    const BYTES: usize = 500 * KIB;
    const CALLS: usize = 5;
    /// Of a request: headers, envelope, and the length of the bytes.
    const FRONT: usize = 100;
    let (server, client, endpoint) = echo::<P, Blob>(&hosts).await;
    let sent =
        || usize::try_from(client.peer_metrics(&endpoint.address).unwrap().bytes_sent).unwrap();
    let mut blob = Blob::from(vec![7; BYTES]);
    let mut before = 0;
    for call in 0..=CALLS {
        if call == 1 {
            before = sent();
        }
        let reply = send_request(&client, &endpoint, blob, PostcardCodec).unwrap();
        blob = reply.await.unwrap();
    }
    let each = (sent() - before) / CALLS;
    assert!(each < BYTES + FRONT, "{each} bytes for each call");
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

/// What is known of a blob's checksum, which has to end with it.
fn known(blob: &Blob) -> Option<(Bytes, u32)> {
    let known = blob.clone().into_parts().1?.get()?.clone();
    assert_eq!(known.0.as_ptr_range().end, blob.as_ptr_range().end);
    Some(known)
}

async fn the_checksum_of_a_blob_travels_with_it_from_host_to_host<P: Providers>(hosts: Hosts<P>) {
    let (server, client, endpoint) = echo::<P, Blob>(&hosts).await;
    let own = Blob::from(vec![7; 300 * KIB]);
    let reply = send_request(&client, &endpoint, own.clone(), PostcardCodec);
    let received: Blob = reply.unwrap().await.unwrap();
    assert_eq!(known(&own).unwrap().0, own[..], "it was sent");
    let (summed, _) = known(&received).unwrap();
    assert!(summed.len() > received.len(), "the packet that it came in");
    for _ in 0..2 {
        // With the checksum that it came with, and some other front.
        let reply = send_request(&client, &endpoint, received.clone(), PostcardCodec);
        assert_eq!(reply.unwrap().await, Ok(own.clone()));
        assert_eq!(known(&received).unwrap().0, summed);
    }
    let small = Blob::from(vec![7; 63 * KIB]);
    let reply = send_request(&client, &endpoint, small.clone(), PostcardCodec);
    let back: Blob = reply.unwrap().await.unwrap();
    assert_eq!((known(&small), known(&back)), (None, None));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

async fn a_blob_that_changed_after_it_was_received_is_refused_by_the_next_receiver<P>(
    hosts: Hosts<P>,
) where
    P: Providers,
{
    let (server, client, endpoint) = echo::<P, Blob>(&hosts).await;
    let good = Blob::from(vec![7; 300 * KIB]);
    let changed = || {
        let bytes = Bytes::from(vec![8; 300 * KIB]);
        // Of what they were before.
        let (before, checksum) = known(&good).unwrap();
        assert_ne!(before, bytes);
        Blob::from_verified(bytes.clone(), bytes, checksum)
    };
    let call = |blob| send_request::<_, Blob, _, _, _, _>(&client, &endpoint, blob, PostcardCodec);
    assert_eq!(call(good.clone()).unwrap().await, Ok(good.clone()));
    let refused = call(changed()).unwrap().await;
    assert_eq!(refused, Err(ReplyError::MaybeDelivered));
    assert_eq!(call(good.clone()).unwrap().await, Ok(good.clone()));

    let requests = server.register_handler::<u32, _>(OTHER_TOKEN, PostcardCodec);
    let answer = changed();
    let serving = server.clone();
    drop(hosts.spawn_server(async move {
        while let Some((_, reply)) = requests
            .recv_with_transport::<_, _, _, Blob>(&serving)
            .await
        {
            reply.send(answer.clone());
        }
    }));
    let other = Endpoint::new(server.local_address().unwrap(), OTHER_TOKEN);
    let asked = send_request::<_, Blob, _, _, _, _>(&client, &other, 7_u32, PostcardCodec);
    assert_eq!(asked.unwrap().await, Err(ReplyError::MaybeDelivered));
    assert_eq!(call(good.clone()).unwrap().await, Ok(good.clone()));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}
