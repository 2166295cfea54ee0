use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use bytes::Bytes;
use moonpool_foundation::TokioProviders;
use moonpool_traits::{Blob, JsonCodec, PostcardCodec, SHARED_BYTES};

use super::super::FlowTransportBuilder;
use super::super::envelope::MessageHead;
use super::super::receivers::Packet;
use super::super::test_support::block_on;
use super::*;

type Queue = NetNotifiedQueue<u32, JsonCodec>;

#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task of a test: counts its wakes, polls by hand.
struct Task<'a> {
    receive: Pin<Box<Receive<'a, u32, JsonCodec>>>,
    wakes: Arc<Counting>,
}

impl<'a> Task<'a> {
    fn new(queue: &'a Queue) -> Self {
        Self {
            receive: Box::pin(Receive::new(queue)),
            wakes: Arc::default(),
        }
    }

    fn poll(&mut self) -> Poll<Option<u32>> {
        let waker = Waker::from(self.wakes.clone());
        let polled = self.receive.as_mut().poll(&mut Context::from_waker(&waker));
        polled.map(|received| received.map(|(message, _)| message))
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

fn queue() -> Queue {
    NetNotifiedQueue::new(JsonCodec)
}

fn send(queue: &Queue, payload: &[u8]) {
    let bytes = Bytes::copy_from_slice(payload);
    let packet = Packet::Local(&bytes);
    let token = UID::new(1, 2);
    queue.receive(Incoming::new(
        token,
        &packet,
        &MessageHead::default(),
        &bytes,
        None,
    ));
}

#[test]
fn messages_come_in_order() {
    let queue = queue();
    for payload in [b"1", b"2", b"3"] {
        send(&queue, payload);
    }
    assert_eq!(queue.len(), 3);
    let received: Vec<u32> = std::iter::from_fn(|| queue.try_recv()).collect();
    assert_eq!(received, [1, 2, 3]);
    assert!(queue.is_empty());
}

#[test]
fn a_payload_that_does_not_decode_is_counted_and_the_queue_lives_on() {
    let queue = queue();
    send(&queue, b"{");
    send(&queue, b"\"text\"");
    send(&queue, b"5");
    assert_eq!(queue.try_recv(), Some(5));
    let stats = queue.stats();
    assert_eq!((stats.malformed, stats.received), (2, 1));
}

#[test]
fn a_message_wakes_one_waiter() {
    let queue = queue();
    let (mut first, mut second) = (Task::new(&queue), Task::new(&queue));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    send(&queue, b"7");
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    assert_eq!(first.poll(), Poll::Ready(Some(7)));
    assert!(second.poll().is_pending());
}

#[test]
fn polling_again_does_not_wake_twice() {
    let queue = queue();
    let mut task = Task::new(&queue);
    for _ in 0..10 {
        assert!(task.poll().is_pending());
    }
    assert_eq!(queue.state.borrow().waiters.len(), 1);
    send(&queue, b"1");
    send(&queue, b"2");
    assert_eq!(task.wakes(), 1);
}

#[test]
fn a_dropped_waiter_is_forgotten() {
    let queue = queue();
    let mut task = Task::new(&queue);
    assert!(task.poll().is_pending());
    drop(task);
    assert!(queue.state.borrow().waiters.is_empty());
}

#[test]
fn a_waiter_that_goes_after_its_wake_passes_it_on() {
    let queue = queue();
    let (mut first, mut second) = (Task::new(&queue), Task::new(&queue));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    send(&queue, b"7");
    drop(first);
    assert_eq!(second.wakes(), 1);
    assert_eq!(second.poll(), Poll::Ready(Some(7)));
}

#[test]
fn closing_wakes_all_and_ends_after_what_is_queued() {
    let queue = queue();
    let (mut first, mut second) = (Task::new(&queue), Task::new(&queue));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    send(&queue, b"1");
    queue.close();
    send(&queue, b"2");
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
    assert_eq!(first.poll(), Poll::Ready(Some(1)));
    assert_eq!(second.poll(), Poll::Ready(None));
    assert_eq!(queue.stats().refused, 1);
}

#[test]
fn a_full_queue_refuses_by_count_and_by_bytes() {
    let limits = QueueLimits {
        messages: 2,
        bytes: 4,
    };
    let queue = Queue::with_limits(JsonCodec, limits);
    for payload in [&b"1"[..], b"2", b"3"] {
        send(&queue, payload);
    }
    assert_eq!((queue.len(), queue.stats().overloaded), (2, 1));
    assert_eq!((queue.try_recv(), queue.try_recv()), (Some(1), Some(2)));

    send(&queue, b"4444444");
    send(&queue, b"5");
    assert_eq!((queue.len(), queue.stats().overloaded), (1, 2));
    assert_eq!(queue.try_recv(), Some(4_444_444));
    assert_eq!(queue.state.borrow().bytes, 0);
}

#[test]
fn a_shared_queue_is_one_queue() {
    let shared = SharedNetNotifiedQueue::<u32, _>::new(JsonCodec);
    let other = shared.clone();
    let endpoint = Endpoint::new("10.0.0.1:4500".parse().unwrap(), UID::new(1, 2));
    other
        .receiver()
        .handle_registered(endpoint.token, Some(endpoint));
    assert_eq!(shared.endpoint(), Some(endpoint));
    other.receiver().handle_closed();
    assert!(shared.is_closed());
}

#[test]
fn what_precedes_a_message_counts_against_the_bytes_of_the_queue() {
    let limits = QueueLimits {
        bytes: 100,
        ..QueueLimits::default()
    };
    let queue = Queue::with_limits(JsonCodec, limits);
    let mut bytes = vec![0; 59];
    bytes.push(b'1');
    let bytes = Bytes::from(bytes);
    for _ in 0..2 {
        let packet = Packet::Local(&bytes);
        let (head, body) = (MessageHead::default(), &bytes[59..]);
        queue.receive(Incoming::new(UID::new(1, 2), &packet, &head, body, None));
    }
    assert_eq!((queue.len(), queue.stats().overloaded), (1, 1));
}

#[test]
fn a_message_shares_the_memory_that_it_fills_and_no_other() {
    let shares = |length: usize, front: usize| {
        let queue = NetNotifiedQueue::<Blob, _>::new(PostcardCodec);
        let body = PostcardCodec.encode(&Blob::from(vec![7; length])).unwrap();
        let bytes = Bytes::from([&vec![0; front][..], &body].concat());
        let packet = Packet::Local(&bytes);
        let (head, body) = (MessageHead::default(), &bytes[front..]);
        queue.receive(Incoming::new(UID::new(1, 2), &packet, &head, body, None));
        let blob = queue.try_recv().unwrap();
        assert_eq!(blob[..], vec![7; length]);
        bytes.as_ptr_range().contains(&blob.as_ptr())
    };
    assert!(shares(SHARED_BYTES, SHARED_BYTES / 8));
    assert!(!shares(SHARED_BYTES, SHARED_BYTES / 6));
    assert!(!shares(SHARED_BYTES - 1, 0));
}

#[test]
fn a_message_that_shares_counts_with_all_of_the_memory_that_it_keeps() {
    /// More than precedes the message's own bytes, and less than the rest of what was read into.
    const FRONT: usize = 1024;
    block_on(async {
        let builder = || FlowTransportBuilder::from_providers(&TokioProviders::new());
        let server = builder().local_address("127.0.0.1:0".parse().unwrap());
        let server = server.build_listening().await.unwrap();
        let queue = Rc::new(NetNotifiedQueue::<Blob, _>::new(PostcardCodec));
        let endpoint = server.add_endpoint(queue.clone()).unwrap();
        let body = PostcardCodec.encode(&Blob::from(vec![7; 300 * 1024]));
        let body = body.unwrap();
        let client = builder().build();
        client.send_reliable(&endpoint, &body).unwrap();
        while queue.is_empty() {
            tokio::task::yield_now().await;
        }
        let bytes = queue.state.borrow().bytes;
        assert!(bytes > body.len() + FRONT, "{bytes} of {}", body.len());
        drop(queue.try_recv());
        assert_eq!(queue.state.borrow().bytes, 0);
    });
}
