//! Streams that are served: so many requests at a time, each in a task of its own.

use std::cell::{Cell, RefCell};
use std::future::IntoFuture;
use std::rc::Rc;
use std::time::Duration;

use moonpool::{
    Endpoint, JsonCodec, NetworkAddress, Providers, QueueLimits, ReplyError, ReplyFuture,
    RequestStream, Serving, TaskProvider, TimeProvider, TokioProviders, UID, define_interface,
    send_request,
};

use crate::common::{Hosts, Transport, on_tokio, shut_down};
use crate::in_both_worlds;

in_both_worlds! {
    answers_and_errors_of_handlers_reach_their_callers: 30;
    no_more_handlers_run_than_the_limit_allows: 30;
    an_idle_stream_keeps_no_permit_from_the_others: 20;
    what_waits_beyond_the_queue_is_overloaded: 20;
    a_handler_whose_caller_gave_up_is_dropped: 30;
    a_handler_whose_deadline_passed_is_dropped_without_a_word_from_its_caller: 20;
    a_request_that_was_cancelled_while_queued_is_not_handled: 30;
    a_shutdown_lets_handlers_finish_and_queued_requests_be_handled: 30;
    a_handler_that_outlasts_the_grace_is_dropped: 20;
    a_dropped_transport_ends_its_handlers: 20;
    a_handler_may_shut_its_own_transport_down: 20;
    a_handler_that_leaves_the_shutdown_to_a_task_is_not_dropped: 20;
    one_way_messages_are_handled: 20;
    a_handler_of_a_one_way_message_ends_with_its_transport: 20;
}

const TOKEN: UID = UID::new(0x5E4E, 1);

define_interface! {
    Arithmetic, id 0xA417, { half: u32 => u32, double: u32 => u32 }
}

fn ask<P: Providers>(
    transport: &Transport<P>,
    address: NetworkAddress,
    request: u32,
) -> ReplyFuture<u32, JsonCodec> {
    let endpoint = Endpoint::new(address, TOKEN);
    send_request(transport, &endpoint, request, JsonCodec).unwrap()
}

/// Opened once, by the test, to let handlers go on.
#[derive(Clone, Default)]
struct Gate(Rc<Cell<bool>>);

impl Gate {
    fn open(&self) {
        self.0.set(true);
    }

    async fn passed<T: TimeProvider>(&self, time: &T) {
        while !self.0.get() {
            time.sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Says when the handler that owns it is gone.
struct Dropped(Rc<Cell<u32>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

async fn answers_and_errors_of_handlers_reach_their_callers<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let arithmetic = Arithmetic::serve(&server, JsonCodec).unwrap();
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let task = hosts.spawn_server(async move {
        let half = of_task.serve(arithmetic.half, async |number, reply| {
            assert!(reply.remaining().is_some());
            if number % 2 == 0 {
                Ok(number / 2)
            } else {
                Err(ReplyError::application(1, "odd"))
            }
        });
        let double = of_task.serve(arithmetic.double, async |number, _| Ok(number * 2));
        futures_util::future::join(half, double).await;
    });
    let arithmetic = Arithmetic::remote(&client, address, JsonCodec);
    assert_eq!(arithmetic.half(8).await, Ok(4));
    let odd = Err(ReplyError::application(1, "odd"));
    assert_eq!(arithmetic.half(7).await, odd);
    assert_eq!(arithmetic.double(7).await, Ok(14));
    hosts.until(|| serving.stats().running == 0).await;
    assert_eq!(serving.stats().answered, 3);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn no_more_handlers_run_than_the_limit_allows<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server).max_concurrency(3);
    let of_task = serving.clone();
    let (running, highest) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (time, counted) = (
        hosts.server.time().clone(),
        (running.clone(), highest.clone()),
    );
    let task = hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            counted.0.set(counted.0.get() + 1);
            counted.1.set(counted.1.get().max(counted.0.get()));
            time.sleep(Duration::from_millis(1)).await;
            counted.0.set(counted.0.get() - 1);
            Ok(number)
        };
        of_task.serve(stream, handler).await;
    });
    let calls: Vec<_> = (0..20).map(|n| ask::<P>(&client, address, n)).collect();
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.into_iter().eq((0..20).map(Ok)));
    assert_eq!(highest.get(), 3);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn an_idle_stream_keeps_no_permit_from_the_others<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let arithmetic = Arithmetic::serve(&server, JsonCodec).unwrap();
    let serving = Serving::new(&server).max_concurrency(1);
    let of_task = serving.clone();
    let task = hosts.spawn_server(async move {
        let half = of_task.serve(arithmetic.half, async |number, _| Ok(number / 2));
        let double = of_task.serve(arithmetic.double, async |number, _| Ok(number * 2));
        futures_util::future::join(half, double).await;
    });
    let arithmetic = Arithmetic::remote(&client, address, JsonCodec);
    for number in 1..5 {
        assert_eq!(arithmetic.double(number).await, Ok(number * 2));
    }
    let both = futures_util::future::join(
        arithmetic.half(4).into_future(),
        arithmetic.double(4).into_future(),
    );
    assert_eq!(both.await, (Ok(2), Ok(8)));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn what_waits_beyond_the_queue_is_overloaded<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let limits = QueueLimits {
        messages: 2,
        ..QueueLimits::default()
    };
    let mut stream = RequestStream::<u32, _>::with_limits(JsonCodec, limits);
    let endpoint = stream.make_dynamic_endpoint(&server).unwrap();
    assert_eq!(endpoint.address, address);
    let serving = Serving::new(&server).max_concurrency(1);
    let of_task = serving.clone();
    let gate = Gate::default();
    let (time, closed) = (hosts.server.time().clone(), gate.clone());
    let task = hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            closed.passed(&time).await;
            Ok(number)
        };
        of_task.serve(stream, handler).await;
    });
    let call = |n: u32| send_request::<_, u32, _, _, _, _>(&client, &endpoint, n, JsonCodec);
    let first = call(0).unwrap();
    hosts.until(|| serving.stats().running == 1).await;
    let queued = [1, 2].map(|n| call(n).unwrap());
    let refused = call(3).unwrap();
    assert_eq!(refused.await, Err(ReplyError::Overloaded));
    gate.open();
    assert_eq!(first.await, Ok(0));
    let answers = futures_util::future::join_all(queued).await;
    assert_eq!(answers, [Ok(1), Ok(2)]);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn a_handler_whose_caller_gave_up_is_dropped<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let dropped = Rc::new(Cell::new(0));
    let counted = dropped.clone();
    let task = hosts.spawn_server(async move {
        let handler = async move |_: u32, _: &_| {
            let _dropped = Dropped(counted.clone());
            std::future::pending().await
        };
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    let calls = [1, 2].map(|n| ask::<P>(&client, address, n));
    hosts.until(|| serving.stats().running == 2).await;
    let [given_up, kept] = calls;
    drop(given_up);
    hosts.until(|| serving.stats().running == 1).await;
    assert_eq!((dropped.get(), serving.stats().abandoned), (1, 1));
    drop(kept);
    hosts.until(|| serving.stats().running == 0).await;
    assert_eq!((dropped.get(), serving.stats().abandoned), (2, 2));
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

/// The caller cannot say that it gave up: what it sends is a request of another client's making,
/// which never cancels.
async fn a_handler_whose_deadline_passed_is_dropped_without_a_word_from_its_caller<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let dropped = Rc::new(Cell::new(0));
    let counted = dropped.clone();
    let task = hosts.spawn_server(async move {
        let handler = async move |_: u32, _: &_| {
            let _dropped = Dropped(counted.clone());
            std::future::pending().await
        };
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    // A request with a reply token and 100 ms, in the envelope's own bytes.
    let mut request = vec![1, 0, 1 | 2, 0];
    request.extend_from_slice(&UID::new(5, 5).to_le_bytes());
    request.extend_from_slice(&100_000_u64.to_le_bytes());
    request.extend_from_slice(b"7");
    let peer = client.get_or_open_peer(&address).unwrap();
    peer.send_reliable(TOKEN, request.into()).unwrap();
    hosts.until(|| serving.stats().abandoned == 1).await;
    assert_eq!((dropped.get(), serving.stats().running), (1, 0));
    assert_eq!(server.stats().cancellations_received, 0);
    drop(peer);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn a_request_that_was_cancelled_while_queued_is_not_handled<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server).max_concurrency(1);
    let of_task = serving.clone();
    let gate = Gate::default();
    let handled = Rc::new(RefCell::new(Vec::new()));
    let (time, closed, list) = (hosts.server.time().clone(), gate.clone(), handled.clone());
    let task = hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            list.borrow_mut().push(number);
            closed.passed(&time).await;
            Ok(number)
        };
        of_task.serve(stream, handler).await;
    });
    let [first, second, third] = [1, 2, 3].map(|n| ask::<P>(&client, address, n));
    hosts.until(|| server.stats().open_requests == 3).await;
    drop(second);
    hosts
        .until(|| server.stats().cancellations_received == 1)
        .await;
    gate.open();
    assert_eq!((first.await, third.await), (Ok(1), Ok(3)));
    assert_eq!(*handled.borrow(), [1, 3]);
    assert_eq!(serving.stats().skipped, 1);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

async fn a_shutdown_lets_handlers_finish_and_queued_requests_be_handled<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server).max_concurrency(2);
    let of_task = serving.clone();
    let gate = Gate::default();
    let (time, closed) = (hosts.server.time().clone(), gate.clone());
    let task = hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            closed.passed(&time).await;
            Ok(number)
        };
        of_task.serve(stream, handler).await;
    });
    let calls = [1, 2, 3, 4].map(|n| ask::<P>(&client, address, n));
    hosts.until(|| server.stats().open_requests == 4).await;
    let of_shutdown = server.clone();
    let shutdown = hosts.spawn_server(async move {
        of_shutdown.shutdown(Duration::from_secs(60)).await;
    });
    hosts.until(|| server.is_closing()).await;
    let late = ask::<P>(&client, address, 5);
    assert_eq!(late.await, Err(ReplyError::Overloaded));
    gate.open();
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.into_iter().eq((1..5).map(Ok)));
    shutdown.await.unwrap();
    task.await.unwrap();
    assert_eq!(serving.stats().answered, 4);
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_handler_that_outlasts_the_grace_is_dropped<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server).max_concurrency(1);
    let of_task = serving.clone();
    let dropped = Rc::new(Cell::new(0));
    let counted = dropped.clone();
    let task = hosts.spawn_server(async move {
        let handler = async move |_: u32, _: &_| {
            let _dropped = Dropped(counted.clone());
            std::future::pending().await
        };
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    let calls = [1, 2].map(|n| ask::<P>(&client, address, n));
    hosts.until(|| server.stats().open_requests == 2).await;
    server.shutdown(Duration::from_millis(20)).await;
    assert_eq!(dropped.get(), 1);
    shut_down::<P>(&server).await;
    let stats = serving.stats();
    assert_eq!((stats.broken, stats.running), (1, 0));
    for call in calls {
        assert_eq!(call.await, Err(ReplyError::BrokenPromise));
    }
    task.await.unwrap();
    shut_down::<P>(&client).await;
}

async fn a_dropped_transport_ends_its_handlers<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let task = hosts.spawn_server(async move {
        let handler = async |_: u32, _: &_| std::future::pending().await;
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    let call = ask::<P>(&client, address, 1);
    hosts.until(|| serving.stats().running == 1).await;
    drop(server);
    task.await.unwrap();
    hosts.until(|| serving.stats().running == 0).await;
    drop(call);
    shut_down::<P>(&client).await;
}

async fn a_handler_may_shut_its_own_transport_down<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let (of_task, own) = (serving.clone(), server.clone());
    let task = hosts.spawn_server(async move {
        let handler = async move |_: u32, _: &_| {
            own.shutdown(Duration::from_millis(20)).await;
            Ok(0)
        };
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    let call = ask::<P>(&client, address, 1);
    assert_eq!(call.await, Err(ReplyError::MaybeDelivered));
    task.await.unwrap();
    hosts.until(|| serving.stats().running == 0).await;
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn a_handler_that_leaves_the_shutdown_to_a_task_is_not_dropped<P: Providers>(
    hosts: Hosts<P>,
) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let (own, task) = (server.clone(), hosts.server.task().clone());
    let served = hosts.spawn_server(async move {
        let handler = async move |number: u32, _: &_| {
            let own = own.clone();
            let ending = async move { own.shutdown(Duration::from_secs(60)).await };
            drop(task.spawn_task("ending", ending));
            Ok(number)
        };
        serving.serve::<_, u32, _, _>(stream, handler).await;
    });
    assert_eq!(ask::<P>(&client, address, 1).await, Ok(1));
    served.await.unwrap();
    hosts.until(|| server.stats().tasks == 0).await;
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
}

async fn one_way_messages_are_handled<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let task = hosts.spawn_server(async move {
        let handler = async |number: u32, _: &_| Ok(number);
        of_task.serve(stream, handler).await;
    });
    client
        .send_reliable(&Endpoint::new(address, TOKEN), b"7")
        .unwrap();
    hosts.until(|| serving.stats().answered == 1).await;
    shut_down::<P>(&server).await;
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

/// There is no caller whose end would end it.
async fn a_handler_of_a_one_way_message_ends_with_its_transport<P: Providers>(hosts: Hosts<P>) {
    let (server, client) = (hosts.serve().await, hosts.connect());
    let address = server.local_address().unwrap();
    let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
    let serving = Serving::new(&server);
    let of_task = serving.clone();
    let dropped = Rc::new(Cell::new(0));
    let counted = dropped.clone();
    let task = hosts.spawn_server(async move {
        let handler = async move |_: u32, _: &_| {
            let _dropped = Dropped(counted.clone());
            std::future::pending().await
        };
        of_task.serve::<_, u32, _, _>(stream, handler).await;
    });
    client
        .send_reliable(&Endpoint::new(address, TOKEN), b"7")
        .unwrap();
    hosts.until(|| serving.stats().running == 1).await;
    assert!(server.stats().tasks >= 3);
    server.shutdown(Duration::from_millis(20)).await;
    assert_eq!((dropped.get(), server.stats().tasks), (1, 0));
    assert_eq!((serving.stats().broken, serving.stats().running), (1, 0));
    shut_down::<P>(&client).await;
    task.await.unwrap();
}

/// In simulation a panic of a task fails the seed.
#[test]
fn a_handlers_panic_breaks_its_own_promise_only() {
    on_tokio(|hosts| async move {
        let (server, client) = (hosts.serve().await, hosts.connect());
        let address = server.local_address().unwrap();
        let stream = server.register_handler::<u32, _>(TOKEN, JsonCodec);
        let serving = Serving::new(&server).max_concurrency(2);
        let of_task = serving.clone();
        let (gate, time) = (Gate::default(), *hosts.server.time());
        let closed = gate.clone();
        let task = hosts.server.task().spawn_task("server", async move {
            let handler = async move |number: u32, _: &_| {
                assert!(number != 1, "planted");
                closed.passed(&time).await;
                Ok(number)
            };
            of_task.serve(stream, handler).await;
        });
        let [zero, one, two] = [0, 1, 2].map(|n| ask::<TokioProviders>(&client, address, n));
        assert_eq!(one.await, Err(ReplyError::BrokenPromise));
        gate.open();
        assert_eq!((zero.await, two.await), (Ok(0), Ok(2)));
        assert_eq!((serving.stats().broken, serving.stats().answered), (1, 2));
        shut_down::<TokioProviders>(&server).await;
        shut_down::<TokioProviders>(&client).await;
        task.await.unwrap();
    });
}
