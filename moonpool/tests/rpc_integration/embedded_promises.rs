//! Promises that travel inside messages, and are answered by whoever has them.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    EmbeddedPromise, Endpoint, JsonCodec, MessageCodec, Providers, ReplyError, ReplyFuture,
    ReplyPromise, Serving, TimeProvider, TransportError, UID, send_request,
};
use serde::{Deserialize, Serialize};

use crate::common::{Hosts, Transport, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    test_reply_promise_network: 20;
    a_promise_in_a_reply_is_answered_over_a_session_of_its_own: 20;
    a_forwarded_promise_is_answered_by_a_third_party: 20;
    a_bound_promise_that_is_dropped_is_broken: 20;
    an_error_is_an_answer_too: 20;
    a_promise_that_nobody_binds_ends_with_its_deadline: 20;
    the_first_answer_counts: 20;
    a_promise_whose_future_is_dropped_takes_no_answer: 20;
    made_up_promises_end_nothing: 20;
    an_answer_that_cannot_be_read_is_a_serialization_error: 10;
    an_answer_that_is_too_large_is_reported: 10;
    nothing_is_left_of_an_answer_to_a_maker_that_is_gone: 20;
    a_promise_ends_by_its_deadline_when_its_holder_dies: 20;
    a_transport_answers_its_own_promise: 20;
    a_promise_ends_with_its_transport: 20;
    a_promise_needs_an_address: 5;
    promises_count_as_calls_that_wait: 5;
    a_server_hands_the_duty_for_a_request_on: 20;
    a_duty_handed_on_ends_with_its_caller: 20;
    a_promise_within_a_request_ends_with_its_deadline: 20;
    a_promise_is_answered_within_the_grace: 20;
    a_promise_is_answered_while_its_connection_closes: 20;
    a_promise_is_answered_over_a_connection_made_within_the_grace: 20;
}

const TOKEN: UID = UID::new(0xE3BD, 1);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
struct Order {
    number: u32,
    done: EmbeddedPromise<u32>,
}

fn endpoint<P: Providers>(server: &Transport<P>) -> Endpoint {
    Endpoint::new(server.local_address().unwrap(), TOKEN)
}

/// Sends an order, and waits until it was taken.
async fn order<P: Providers>(transport: &Transport<P>, to: &Endpoint, order: Order) {
    let taken: ReplyFuture<(), _> = send_request(transport, to, order, JsonCodec).unwrap();
    taken.await.unwrap();
}

/// Takes one order.
async fn take<P: Providers>(transport: &Transport<P>) -> Order {
    let orders = transport.register_handler::<Order, _>(TOKEN, JsonCodec);
    let (order, reply) = orders
        .recv_with_transport::<_, _, _, ()>(transport)
        .await
        .unwrap();
    reply.send(());
    order
}

async fn shut_all_down<P: Providers>(transports: &[&Rc<Transport<P>>]) {
    for transport in transports {
        shut_down::<P>(transport).await;
    }
}

/// As the orders have it: the request carries the promise, the server reads it, gets the promise,
/// meets it, and the answer travels.
async fn test_reply_promise_network<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.serve().await);
    let (done, answer) = client.promise::<u32, _>(JsonCodec).open().unwrap();
    assert_eq!(client.stats().pending_calls, 1);
    let serving = hosts.spawn_server({
        let server = server.clone();
        async move {
            let Order { number, done } = take::<P>(&server).await;
            let promise = done.bind(&server, JsonCodec);
            assert!(promise.expects_answer() && promise.deadline().is_none());
            promise.send(number * 2);
        }
    });
    order::<P>(&client, &endpoint::<P>(&server), Order { number: 21, done }).await;
    assert_eq!(answer.await, Ok(42));
    serving.await.unwrap();
    assert_eq!(client.stats().pending_calls, 0);
    shut_all_down::<P>(&[&client, &server]).await;
}

/// The maker listens on one host, and whoever answers is on the other and does not listen.
async fn a_promise_in_a_reply_is_answered_over_a_session_of_its_own<P: Providers>(hosts: Hosts<P>) {
    let (maker, client) = (hosts.serve().await, hosts.connect());
    let asked = maker.register_handler::<(), _>(TOKEN, JsonCodec);
    let call: ReplyFuture<EmbeddedPromise<String>, _> =
        send_request(&client, &endpoint::<P>(&maker), (), JsonCodec).unwrap();
    let ((), reply) = asked.recv_with_transport(&maker).await.unwrap();
    let (promise, answer) = maker.promise::<String, _>(JsonCodec).open().unwrap();
    reply.send(promise);
    let received = call.await.unwrap();
    assert_eq!(received, promise);
    received.bind(&client, JsonCodec).send("done".to_owned());
    assert_eq!(answer.await.as_deref(), Ok("done"));
    assert_eq!(
        client.stats().peers,
        1,
        "the session that leads there is used"
    );
    shut_all_down::<P>(&[&client, &maker]).await;
}

async fn a_forwarded_promise_is_answered_by_a_third_party<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.serve().await;
    let (shop, courier) = (hosts.serve().await, hosts.serve().await);
    let (done, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    let forwarding = hosts.spawn_server({
        let (shop, courier) = (shop.clone(), endpoint::<P>(&courier));
        async move {
            let taken = take::<P>(&shop).await;
            order::<P>(&shop, &courier, taken).await;
        }
    });
    let delivering = hosts.spawn_server({
        let courier = courier.clone();
        async move {
            let Order { number, done } = take::<P>(&courier).await;
            done.bind(&courier, JsonCodec).send(number + 1);
        }
    });
    order::<P>(&maker, &endpoint::<P>(&shop), Order { number: 6, done }).await;
    assert_eq!(answer.await, Ok(7));
    forwarding.await.unwrap();
    delivering.await.unwrap();
    shut_all_down::<P>(&[&maker, &shop, &courier]).await;
}

async fn a_bound_promise_that_is_dropped_is_broken<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    drop(promise.bind(&holder, JsonCodec));
    assert_eq!(answer.await, Err(ReplyError::BrokenPromise));
    assert_eq!(holder.stats().broken_promises, 1);
    shut_all_down::<P>(&[&holder, &maker]).await;
}

async fn an_error_is_an_answer_too<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    let error = ReplyError::application(3, "sold out");
    promise.bind(&holder, JsonCodec).send_error(error.clone());
    assert_eq!(answer.await, Err(error));
    shut_all_down::<P>(&[&holder, &maker]).await;
}

async fn a_promise_that_nobody_binds_ends_with_its_deadline<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.serve().await;
    let promise = maker.promise::<u32, _>(JsonCodec).timeout(SECOND / 20);
    let (_, answer) = promise.open().unwrap();
    assert_eq!(answer.await, Err(ReplyError::Timeout));
    let (_, answer) = maker
        .promise::<u32, _>(JsonCodec)
        .timeout(Duration::ZERO)
        .open()
        .unwrap();
    assert_eq!(answer.await, Err(ReplyError::Timeout));
    assert_eq!(maker.stats().calls_timed_out, 2);
    shut_all_down::<P>(&[&maker]).await;
}

async fn the_first_answer_counts<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    for number in 1..=3 {
        promise.bind(&holder, JsonCodec).send(number);
    }
    hosts.until(|| maker.stats().replies_late == 2).await;
    promise.bind(&maker, JsonCodec).send(4);
    assert_eq!(answer.await, Ok(1));
    promise.bind(&holder, JsonCodec).send(5);
    hosts.until(|| maker.stats().replies_late == 4).await;
    assert_eq!(maker.stats().replies_received, 1);
    shut_all_down::<P>(&[&holder, &maker]).await;
}

async fn a_promise_whose_future_is_dropped_takes_no_answer<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    drop(answer);
    assert_eq!(maker.stats().pending_calls, 0);
    let (_next, next_answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    promise.bind(&holder, JsonCodec).send(1);
    hosts.until(|| maker.stats().replies_late == 1).await;
    assert_eq!(maker.stats().pending_calls, 1, "its successor waits");
    drop(next_answer);
    shut_all_down::<P>(&[&holder, &maker]).await;
}

/// A promise with another token, written down as an endpoint.
fn made_up(address: moonpool::NetworkAddress, token: UID) -> EmbeddedPromise<u32> {
    let bytes = JsonCodec.encode(&Endpoint::new(address, token)).unwrap();
    JsonCodec.decode(&bytes).unwrap()
}

async fn made_up_promises_end_nothing<P: Providers>(hosts: Hosts<P>) {
    let (maker, hostile) = (hosts.serve().await, hosts.connect());
    let slow = maker.register_handler::<u32, _>(TOKEN, JsonCodec);
    let (known, known_answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    let (other, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    let call: ReplyFuture<u32, _> =
        send_request(&maker, &endpoint::<P>(&maker), 1, JsonCodec).unwrap();
    let (number, reply) = slow.recv_with_transport(&maker).await.unwrap();
    let Endpoint { address, token } = known.endpoint();
    assert_ne!(token.first, other.endpoint().token.first, "a secret each");
    // What one promise says about the next is its place, and nothing of its secret.
    let guesses: Vec<UID> = (0..4)
        .flat_map(|slot| {
            let second = (1 << 32) | slot;
            [token.first, token.first + 1, 0, u64::MAX - 1].map(|first| UID::new(first, second))
        })
        .filter(|guess| *guess != token)
        .collect();
    for guess in &guesses {
        made_up(address, *guess).bind(&hostile, JsonCodec).send(13);
        made_up(address, *guess).bind(&maker, JsonCodec).send(13);
    }
    let late = 2 * u64::try_from(guesses.len()).unwrap();
    hosts.until(|| maker.stats().replies_late == late).await;
    assert_eq!(maker.stats().pending_calls, 3);
    reply.send(number);
    known.bind(&hostile, JsonCodec).send(2);
    other.bind(&hostile, JsonCodec).send(3);
    assert_eq!(call.await, Ok(1));
    assert_eq!((known_answer.await, answer.await), (Ok(2), Ok(3)));
    shut_all_down::<P>(&[&hostile, &maker]).await;
}

async fn an_answer_that_cannot_be_read_is_a_serialization_error<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    let bytes = JsonCodec.encode(&promise).unwrap();
    let mistaken: EmbeddedPromise<String> = JsonCodec.decode(&bytes).unwrap();
    mistaken
        .bind(&holder, JsonCodec)
        .send("no number".to_owned());
    let error = answer.await.unwrap_err();
    assert!(matches!(error, ReplyError::Serialization { .. }), "{error}");
    shut_all_down::<P>(&[&holder, &maker]).await;
}

async fn an_answer_that_is_too_large_is_reported<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker.promise::<String, _>(JsonCodec).open().unwrap();
    promise
        .bind(&holder, JsonCodec)
        .send("x".repeat(2 * 1024 * 1024));
    assert_eq!(answer.await, Err(ReplyError::ReplyTooLarge));
    shut_all_down::<P>(&[&holder, &maker]).await;
}

/// Whoever answers is not held up by a maker that is gone, and nothing of the answer is left.
async fn nothing_is_left_of_an_answer_to_a_maker_that_is_gone<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.serve().await;
    let holder = hosts
        .client_builder()
        .peer_config(hosts.impatient())
        .build();
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    drop((answer, maker));
    promise.bind(&holder, JsonCodec).send(1);
    hosts.until(|| holder.stats().queued_packets == 0).await;
    shut_all_down::<P>(&[&holder]).await;
    promise.bind(&holder, JsonCodec).send(2);
    assert_eq!(holder.stats().replies_dropped, 1, "it is shut down");
}

async fn a_promise_ends_by_its_deadline_when_its_holder_dies<P: Providers>(hosts: Hosts<P>) {
    let (maker, holder) = (hosts.serve().await, hosts.connect());
    let (promise, answer) = maker
        .promise::<u32, _>(JsonCodec)
        .timeout(SECOND / 10)
        .open()
        .unwrap();
    let bound = promise.bind(&holder, JsonCodec);
    drop(holder);
    drop(bound);
    assert_eq!(answer.await, Err(ReplyError::Timeout));
    shut_all_down::<P>(&[&maker]).await;
}

async fn a_transport_answers_its_own_promise<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.serve().await;
    let (promise, mut answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    promise.bind(&maker, JsonCodec).send(9);
    let at_once = futures_util::poll!(&mut answer);
    assert!(at_once.is_pending(), "it is delivered in a later turn");
    assert_eq!(answer.await, Ok(9));
    let (promise, answer) = maker.promise::<u32, _>(JsonCodec).open().unwrap();
    drop(promise.bind(&maker, JsonCodec));
    assert_eq!(answer.await, Err(ReplyError::BrokenPromise));
    assert_eq!(maker.stats().peers, 0);
    shut_all_down::<P>(&[&maker]).await;
}

async fn a_promise_ends_with_its_transport<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.serve().await;
    let (_, answer) = maker
        .promise::<u32, _>(JsonCodec)
        .timeout(None)
        .open()
        .unwrap();
    shut_all_down::<P>(&[&maker]).await;
    assert_eq!(answer.await, Err(ReplyError::MaybeDelivered));
    let closed = maker.promise::<u32, _>(JsonCodec).open().unwrap_err();
    assert!(matches!(closed, TransportError::Closed), "{closed}");
}

async fn a_promise_needs_an_address<P: Providers>(hosts: Hosts<P>) {
    let client = hosts.connect();
    let error = client.promise::<u32, _>(JsonCodec).open().unwrap_err();
    assert!(matches!(error, TransportError::NoAddress), "{error}");
    assert_eq!(ReplyError::from(error), ReplyError::ConnectionFailed);
    assert_eq!(client.stats().pending_calls, 0);
    shut_all_down::<P>(&[&client]).await;
}

async fn promises_count_as_calls_that_wait<P: Providers>(hosts: Hosts<P>) {
    let maker = hosts.server_builder().max_pending_calls(2);
    let maker = maker.build_listening().await.unwrap();
    let open = || maker.promise::<u32, _>(JsonCodec).open();
    let (first, second) = (open().unwrap(), open().unwrap());
    let error = open().unwrap_err();
    assert!(matches!(error, TransportError::TooManyCalls), "{error}");
    drop(first);
    let third = open().unwrap();
    drop((second, third));
    assert_eq!(maker.stats().pending_calls, 0);
    shut_all_down::<P>(&[&maker]).await;
}

/// The caller asked the first server, and gets the answer of the second one from it.
async fn a_server_hands_the_duty_for_a_request_on<P: Providers>(hosts: Hosts<P>) {
    let (front, worker, client) = (hosts.serve().await, hosts.serve().await, hosts.connect());
    let requests = front.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = hosts.spawn_server({
        let (front, worker) = (front.clone(), endpoint::<P>(&worker));
        async move {
            for _ in 0..2 {
                let (number, reply) = requests.recv_with_transport(&front).await.unwrap();
                let (done, answer) = front.promise(JsonCodec).within(&reply).open().unwrap();
                order::<P>(&front, &worker, Order { number, done }).await;
                reply.relay(answer).await;
            }
        }
    });
    let working = hosts.spawn_server({
        let worker = worker.clone();
        async move {
            let Order { number, done } = take::<P>(&worker).await;
            done.bind(&worker, JsonCodec).send(number * 10);
            drop(take::<P>(&worker).await.done.bind(&worker, JsonCodec));
        }
    });
    let ask = |number: u32| -> ReplyFuture<u32, _> {
        send_request(&client, &endpoint::<P>(&front), number, JsonCodec).unwrap()
    };
    assert_eq!(ask(4).await, Ok(40));
    assert_eq!(ask(5).await, Err(ReplyError::BrokenPromise));
    serving.await.unwrap();
    working.await.unwrap();
    shut_all_down::<P>(&[&client, &front, &worker]).await;
}

async fn a_duty_handed_on_ends_with_its_caller<P: Providers>(hosts: Hosts<P>) {
    let (front, client) = (hosts.serve().await, hosts.connect());
    let requests = front.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call: ReplyFuture<u32, _> =
        send_request(&client, &endpoint::<P>(&front), 1, JsonCodec).unwrap();
    let (_, reply) = requests
        .recv_with_transport::<_, _, _, u32>(&front)
        .await
        .unwrap();
    let kept = Rc::new(RefCell::new(None));
    let relaying = hosts.spawn_server({
        let (front, kept) = (front.clone(), kept.clone());
        async move {
            let (promise, answer) = front.promise(JsonCodec).timeout(None).open().unwrap();
            kept.replace(Some(promise));
            reply.relay::<JsonCodec>(answer).await;
        }
    });
    hosts.until(|| kept.borrow().is_some()).await;
    assert_eq!(front.stats().pending_calls, 1);
    drop(call);
    relaying.await.unwrap();
    assert_eq!(front.stats().pending_calls, 0);
    shut_all_down::<P>(&[&client, &front]).await;
}

async fn a_promise_within_a_request_ends_with_its_deadline<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let requests = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let call = server.call(&endpoint::<P>(&server), 1_u32, JsonCodec);
    let call = call.timeout(SECOND / 10).send::<u32>().unwrap();
    let received = requests.recv_with_transport::<_, _, _, u32>(&server);
    let (_, reply) = received.await.unwrap();
    let promise = server.promise::<u32, _>(JsonCodec).timeout(None);
    let (_, answer) = promise.within(&reply).open().unwrap();
    assert_eq!(answer.await, Err(ReplyError::Timeout));
    assert_eq!(call.await, Err(ReplyError::Timeout));
    drop(reply);
    shut_all_down::<P>(&[&server]).await;
}

async fn a_promise_is_answered_within_the_grace<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.serve().await);
    let orders = server.register_handler::<Order, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let (holder, time) = (server.clone(), hosts.server.time().clone());
    let served = hosts.spawn_server(async move {
        let handler = async move |order: Order, _: &ReplyPromise<(), _>| {
            time.sleep(Duration::from_millis(100)).await;
            order.done.bind(&holder, JsonCodec).send(order.number * 2);
            Ok(())
        };
        serving.serve(orders, handler).await;
    });
    let (done, answer) = client.promise(JsonCodec).timeout(SECOND).open().unwrap();
    let order = Order { number: 21, done };
    let call: ReplyFuture<(), _> =
        send_request(&client, &endpoint::<P>(&server), order, JsonCodec).unwrap();
    hosts.until(|| server.stats().open_requests == 1).await;
    server.shutdown(SECOND * 5).await;
    assert_eq!(call.await, Ok(()));
    assert_eq!(answer.await, Ok(42));
    served.await.unwrap();
    shut_down::<P>(&client).await;
}

/// A holder of a promise and of a request shuts down; both are answered after that. `asks` has sent
/// the request, `maker` has made the promise.
async fn answer_both_while_closing<P: Providers>(
    hosts: &Hosts<P>,
    asks: &Transport<P>,
    maker: &Transport<P>,
) {
    let holder = hosts.serve().await;
    let orders = holder.register_handler::<Order, _>(TOKEN, JsonCodec);
    let (done, answer) = maker.promise(JsonCodec).timeout(SECOND * 5).open().unwrap();
    let order = Order { number: 21, done };
    let call: ReplyFuture<(), _> =
        send_request(asks, &endpoint::<P>(&holder), order, JsonCodec).unwrap();
    let received = orders.recv_with_transport::<_, _, _, ()>(&holder).await;
    let (order, reply) = received.unwrap();
    let promise = order.done.bind(&holder, JsonCodec);
    let closing = hosts.spawn_server({
        let holder = holder.clone();
        async move { holder.shutdown(SECOND * 10).await }
    });
    hosts.until(|| holder.is_closing()).await;
    // By now the connection is closing, and waits for the reply.
    hosts.client.time().sleep(Duration::from_millis(10)).await;
    promise.send(order.number * 2);
    reply.send(());
    closing.await.unwrap();
    assert_eq!(holder.stats().replies_dropped, 0);
    assert_eq!(call.await, Ok(()));
    assert_eq!(answer.await, Ok(42));
    drop(orders);
    shut_down::<P>(&holder).await;
}

async fn a_promise_is_answered_while_its_connection_closes<P: Providers>(hosts: Hosts<P>) {
    let client = hosts.serve().await;
    answer_both_while_closing::<P>(&hosts, &client, &client).await;
    shut_down::<P>(&client).await;
}

async fn a_promise_is_answered_over_a_connection_made_within_the_grace<P: Providers>(
    hosts: Hosts<P>,
) {
    let (front, maker) = (hosts.connect(), hosts.serve().await);
    answer_both_while_closing::<P>(&hosts, &front, &maker).await;
    shut_all_down::<P>(&[&front, &maker]).await;
}
