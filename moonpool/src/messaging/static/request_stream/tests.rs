use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use moonpool_foundation::{TaskProvider, TokioTaskProvider, WellKnownToken};
use moonpool_traits::JsonCodec;

use super::super::receivers::Incoming;
use super::super::reply_error::ReplyError;
use super::super::test_support::{TokioTransport, block_on, local_endpoint, local_transport};
use super::*;

const TOKEN: UID = UID::new(0xEC40, 1);

fn ask(transport: &TokioTransport, request: u32) -> ReplyFuture<u32, JsonCodec> {
    send_request(transport, &local_endpoint(TOKEN), request, JsonCodec).unwrap()
}

/// Lets the local task and whoever it wakes run.
async fn turns() {
    for _ in 0..4 {
        TokioTaskProvider.yield_now().await;
    }
}

#[test]
fn test_recv_with_transport() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let reply = ask(&transport, 41);
        let (request, promise) = stream
            .recv_with_transport::<_, _, _, u32>(&transport)
            .await
            .unwrap();
        assert_eq!(request, 41);
        assert!(promise.expects_answer());
        drop(promise);
        assert_eq!(reply.await, Err(ReplyError::BrokenPromise));
    });
}

#[test]
fn test_try_recv_with_transport() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let try_recv = || stream.try_recv_with_transport::<_, _, _, u32>(&transport);
        assert!(try_recv().is_none());
        let reply = ask(&transport, 41);
        assert!(try_recv().is_none(), "delivered in the sender's own turn");
        turns().await;
        let (request, promise) = try_recv().unwrap();
        promise.send(request + 1);
        assert_eq!(reply.await, Ok(42));
    });
}

#[test]
fn test_recv_with_transport_reply_works() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let replies = join_all((0..10).map(|request| ask(&transport, request)));
        let serve = async {
            for _ in 0..10 {
                let (request, promise) = stream.recv_with_transport(&transport).await.unwrap();
                promise.send(request * 2);
            }
        };
        let (replies, ()) = futures_util::join!(replies, serve);
        let expected: Vec<_> = (0..10).map(|request| Ok(request * 2)).collect();
        assert_eq!(replies, expected);
        let stats = transport.stats();
        assert_eq!((stats.pending_calls, stats.local_packets), (0, 0));
        assert_eq!((stats.requests_sent, stats.replies_received), (10, 10));
    });
}

#[test]
fn an_error_of_the_application_reaches_the_caller() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let reply = ask(&transport, 1);
        let (_, promise) = stream
            .recv_with_transport::<_, _, _, u32>(&transport)
            .await
            .unwrap();
        promise.send_error(ReplyError::application(3, "no"));
        assert_eq!(reply.await, Err(ReplyError::application(3, "no")));
    });
}

#[test]
fn a_reply_that_has_no_encoding_is_a_serialization_error() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let reply = ask(&transport, 1);
        let (_, promise) = stream.recv_with_transport(&transport).await.unwrap();
        promise.send(BTreeMap::from([((1, 2), 3)]));
        let Err(ReplyError::Serialization { message }) = reply.await else {
            panic!("another outcome");
        };
        assert!(message.starts_with("reply: "), "{message}");
    });
}

#[test]
fn a_request_without_encoding_is_given_back() {
    block_on(async {
        let transport = local_transport();
        let request = BTreeMap::from([((1, 2), 3)]);
        let sent = send_request::<_, u32, _, _, _, _>(
            &transport,
            &local_endpoint(TOKEN),
            request.clone(),
            JsonCodec,
        );
        let not_sent = sent.unwrap_err();
        assert_eq!(not_sent.request, request);
        assert!(matches!(not_sent.error, crate::TransportError::Codec(_)));
        assert_eq!(transport.stats().pending_calls, 0);
    });
}

#[test]
fn a_request_that_does_not_decode_is_answered_and_the_stream_lives_on() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let wrong = send_request::<_, u32, _, _, _, _>(
            &transport,
            &local_endpoint(TOKEN),
            "text",
            JsonCodec,
        );
        let Err(ReplyError::Serialization { message }) = wrong.unwrap().await else {
            panic!("another outcome");
        };
        assert!(message.starts_with("request: "), "{message}");
        let right = ask(&transport, 1);
        let (_, promise) = stream.recv_with_transport(&transport).await.unwrap();
        promise.send(2);
        assert_eq!(right.await, Ok(2));
        assert_eq!(stream.stats().malformed, 1);
    });
}

#[test]
fn a_full_stream_is_overloaded() {
    block_on(async {
        let transport = local_transport();
        let limits = QueueLimits {
            messages: 1,
            ..QueueLimits::default()
        };
        let mut stream = RequestStream::<u32, _>::with_limits(JsonCodec, limits);
        stream
            .register(transport.core(), TOKEN, OnConflict::Refuse)
            .unwrap();
        let (first, second) = (ask(&transport, 1), ask(&transport, 2));
        assert_eq!(second.await, Err(ReplyError::Overloaded));
        let (request, promise) = stream.recv_with_transport(&transport).await.unwrap();
        promise.send(request);
        assert_eq!(first.await, Ok(1));
    });
}

#[test]
fn a_dropped_stream_breaks_its_promises_and_leaves_no_endpoint() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let queued = ask(&transport, 1);
        turns().await;
        assert_eq!((stream.len(), transport.stats().endpoints), (1, 1));
        drop(stream);
        assert_eq!(transport.stats().endpoints, 0);
        assert_eq!(queued.await, Err(ReplyError::BrokenPromise));
        assert_eq!(ask(&transport, 2).await, Err(ReplyError::EndpointNotFound));
    });
}

#[test]
fn a_dropped_well_known_stream_answers_that_it_is_gone() {
    block_on(async {
        let transport = local_transport();
        let id = WellKnownId::user(20).unwrap();
        let mut stream = RequestStream::<u32, _>::new(JsonCodec);
        stream.make_well_known_endpoint(&transport, id).unwrap();
        assert_eq!(stream.endpoint(), Some(local_endpoint(id.token())));
        let ask = || send_request(&transport, &local_endpoint(id.token()), 1_u32, JsonCodec);
        let queued: ReplyFuture<u32, _> = ask().unwrap();
        turns().await;
        drop(stream);
        assert_eq!(queued.await, Err(ReplyError::BrokenPromise));
        let late: ReplyFuture<u32, _> = ask().unwrap();
        assert_eq!(late.await, Err(ReplyError::EndpointNotFound));
    });
}

#[test]
fn a_second_registration_replaces_the_first_or_is_refused() {
    block_on(async {
        let transport = local_transport();
        let first = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let refused = transport.try_register_handler::<u32, _>(TOKEN, JsonCodec);
        let expected = RegisterError::AlreadyRegistered { token: TOKEN };
        assert_eq!(refused.err(), Some(expected));
        let second = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let none = first.recv_with_transport::<_, _, _, u32>(&transport).await;
        assert!(none.is_none());
        drop(first);
        let reply = ask(&transport, 5);
        let (request, promise) = second.recv_with_transport(&transport).await.unwrap();
        promise.send(request);
        assert_eq!(reply.await, Ok(5));
    });
}

#[test]
fn tokens_that_are_not_for_users_give_a_closed_stream() {
    block_on(async {
        let transport = local_transport();
        let ping = WellKnownToken::Ping.token();
        let stream = transport.register_handler::<u32, _>(ping, JsonCodec);
        assert!(stream.is_closed());
        let refused = transport.try_register_handler::<u32, _>(ping, JsonCodec);
        assert_eq!(refused.err(), Some(RegisterError::Reserved { token: ping }));
        let (stream, _) = transport.register_handler_at::<u32, _>(u64::MAX, 20, JsonCodec);
        assert!(stream.is_closed());
        let nil = transport.try_register_handler::<u32, _>(UID::NIL, JsonCodec);
        assert!(matches!(nil.err(), Some(RegisterError::InvalidToken(_))));
        assert_eq!(transport.stats().endpoints, 0);
    });
}

#[test]
fn a_dynamic_endpoint_works_until_it_is_dropped() {
    block_on(async {
        let transport = local_transport();
        let mut stream = RequestStream::<u32, _>::new(JsonCodec);
        let endpoint = stream.make_dynamic_endpoint(&transport).unwrap();
        let client = RequestStream::with_endpoint(endpoint, JsonCodec);
        let reply = client.get_reply::<u32, _, _, _>(&transport, 6).unwrap();
        let (request, promise) = stream.recv_with_transport(&transport).await.unwrap();
        promise.send(request * 7);
        assert_eq!(reply.await, Ok(42));
        drop(stream);
        let late = client.get_reply::<u32, _, _, _>(&transport, 6).unwrap();
        assert_eq!(late.await, Err(ReplyError::EndpointNotFound));
    });
}

#[test]
fn requests_come_as_a_futures_stream() {
    block_on(async {
        let transport = local_transport();
        let mut stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let mut future = stream.get_future();
        let (first, second) = (ask(&transport, 1), ask(&transport, 2));
        let (message, promise) = future.next().await.unwrap().into_parts();
        promise.send(message + 10);
        let (message, promise) = stream.next().await.unwrap().into_parts();
        promise.send(message + 10);
        assert_eq!((first.await, second.await), (Ok(11), Ok(12)));
        let third = ask(&transport, 3);
        turns().await;
        drop(stream);
        let (_, promise) = future.next().await.unwrap().into_parts();
        promise.send(13);
        assert_eq!(third.await, Ok(13));
        assert!(future.next().await.is_none());
    });
}

/// Calls back into its transport from within `receive`: sends, registers, deregisters.
struct Reentrant {
    transport: Weak<TokioTransport>,
    depths: RefCell<Vec<u32>>,
}

impl MessageReceiver for Reentrant {
    fn receive(&self, packet: Incoming<'_>) {
        let transport = self.transport.upgrade().unwrap();
        let (payload, reply) = packet.into_parts();
        let depth: u32 = JsonCodec.decode(payload).unwrap();
        self.depths.borrow_mut().push(depth);
        if depth > 0 {
            let endpoint = local_endpoint(TOKEN);
            transport
                .send_reliable(&endpoint, (depth - 1).to_string().as_bytes())
                .unwrap();
        } else {
            assert!(transport.remove_endpoint(&TOKEN));
            let stream = transport.register_handler::<u32, _>(UID::new(1, 1), JsonCodec);
            drop(stream);
        }
        if let Some(reply) = reply {
            reply.send(&depth, &JsonCodec);
        }
    }
}

#[test]
fn a_receiver_may_call_back_into_the_transport() {
    block_on(async {
        let transport = local_transport();
        let receiver = Rc::new(Reentrant {
            transport: Rc::downgrade(&transport),
            depths: RefCell::default(),
        });
        let registered = receiver.clone();
        transport
            .core()
            .register(TOKEN, registered, OnConflict::Refuse)
            .unwrap();
        assert_eq!(ask(&transport, 3).await, Ok(3));
        for _ in 0..4 {
            turns().await;
        }
        assert_eq!(*receiver.depths.borrow(), [3, 2, 1, 0]);
        assert_eq!(transport.stats().endpoints, 0);
    });
}

#[test]
fn a_dropped_reply_future_frees_its_call_and_the_reply_is_late() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let mut reply = ask(&transport, 1);
        poll_fn(|cx| {
            assert!(Pin::new(&mut reply).poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        let (_, promise) = stream.recv_with_transport(&transport).await.unwrap();
        drop(reply);
        assert_eq!(transport.stats().pending_calls, 0);
        promise.send(1);
        turns().await;
        assert_eq!(transport.stats().replies_late, 1);
    });
}

#[test]
fn shutdown_ends_streams_and_calls() {
    block_on(async {
        let transport = local_transport();
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let reply = ask(&transport, 1);
        let (_, promise) = stream
            .recv_with_transport::<_, _, _, u32>(&transport)
            .await
            .unwrap();
        transport.shutdown(Duration::ZERO).await;
        assert_eq!(reply.await, Err(ReplyError::MaybeDelivered));
        drop(promise);
        let none = stream.recv_with_transport::<_, _, _, u32>(&transport).await;
        assert!(none.is_none());
        let not_sent = send_request::<_, u32, _, _, _, _>(
            &transport,
            &local_endpoint(TOKEN),
            1_u32,
            JsonCodec,
        );
        assert!(matches!(
            not_sent.unwrap_err().error,
            crate::TransportError::Closed
        ));
        let stats = transport.stats();
        let gauges = (stats.endpoints, stats.pending_calls, stats.tasks);
        assert_eq!(gauges, (0, 0, 0));
        assert_eq!((stats.local_packets, stats.local_bytes), (0, 0));
    });
}

#[test]
fn dropping_the_transport_ends_what_hangs_on_it() {
    block_on(async {
        let transport = local_transport();
        let core = Rc::downgrade(transport.core());
        let stream = transport.register_handler::<u32, _>(TOKEN, JsonCodec);
        let future = stream.get_future();
        let reply = ask(&transport, 1);
        turns().await;
        drop(transport);
        assert!(stream.is_closed());
        assert_eq!(reply.await, Err(ReplyError::MaybeDelivered));
        drop((stream, future));
        turns().await;
        assert!(core.upgrade().is_none(), "a cycle keeps the core alive");
    });
}
