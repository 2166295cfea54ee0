//! Many bytes in a message: whole, in whatever way they travel.

use std::rc::Rc;
use std::time::Duration;

use moonpool::{Blob, Endpoint, Providers, RetryPolicy, UID, send_request};
use moonpool_traits::PostcardCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    blobs_of_all_sizes_come_back_as_they_were: 2;
}

const TOKEN: UID = UID::new(0xB10B, 1);
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
