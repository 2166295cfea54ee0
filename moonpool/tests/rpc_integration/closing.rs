//! What still leaves while a transport shuts down.

use std::time::Duration;

use moonpool::{Endpoint, JsonCodec, Providers, ReplyFuture, TimeProvider, UID, send_request};

use crate::common::{Hosts, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    answers_given_within_the_grace_arrive: 20;
}

const TOKEN: UID = UID::new(0xEC40, 1);
const GRACE: Duration = Duration::from_secs(30);

/// Gives how long the shutdown took from the last answer on.
async fn answer_while_closing<P: Providers>(hosts: Hosts<P>) -> Duration {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let endpoint = Endpoint::new(server.local_address().unwrap(), TOKEN);
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let mut promises = Vec::new();
    let mut calls = Vec::new();
    for number in 0..3 {
        let call: ReplyFuture<u32, _> =
            send_request(&client, &endpoint, number, JsonCodec).unwrap();
        calls.push(call);
        let received = stream.recv_with_transport::<_, _, _, u32>(&server).await;
        promises.push(received.unwrap().1);
    }
    let closing = {
        let (server, time) = (server.clone(), hosts.server.time().clone());
        hosts.spawn_server(async move {
            server.shutdown(GRACE).await;
            time.now()
        })
    };
    hosts.until(|| server.is_closing()).await;
    let mut answered_at = Duration::ZERO;
    for ((number, promise), call) in (0..).zip(promises).zip(calls) {
        // The one before has arrived: each of them is asked about anew.
        hosts.server.time().sleep(Duration::from_millis(1)).await;
        answered_at = hosts.server.time().now();
        promise.send(number);
        assert_eq!(call.await, Ok(number));
    }
    let closed_at = closing.await.unwrap();
    drop(stream);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    closed_at - answered_at
}

async fn answers_given_within_the_grace_arrive<P: Providers>(hosts: Hosts<P>) {
    answer_while_closing(hosts).await;
}

#[cfg(feature = "sim")]
#[test]
fn a_shutdown_ends_soon_after_the_last_answer() {
    crate::common::in_simulation(20, |hosts| async move {
        let took = answer_while_closing(hosts).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    });
}
