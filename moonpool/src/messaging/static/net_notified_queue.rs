//! [`NetNotifiedQueue`]: a bounded queue of decoded messages, filled from the network.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{Endpoint, UID, WellKnownToken, sometimes_assert};
use moonpool_traits::MessageCodec;
use serde::de::DeserializeOwned;

use super::answer_sizes::AnswerSizes;
use super::receivers::{Incoming, MessageReceiver};
use super::reply_error::ReplyError;
use super::reply_route::ReplyRoute;

/// What a queue holds at most. A request beyond it is answered with
/// [`ReplyError::Overloaded`]; a one-way message beyond it is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Messages, 1 or more. By default 16,384: one read of a connection can bring thousands of
    /// small requests before the handler's task has its next turn.
    pub messages: usize,
    /// Their encoded size together, in bytes, metadata included. By default 64 MiB. A single message is admitted into
    /// an empty queue whatever its size.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            messages: 16_384,
            bytes: 64 * 1024 * 1024,
        }
    }
}

/// What happened to the messages that arrived at a queue since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStats {
    /// Taken in.
    pub received: u64,
    /// Not decodable; requests among them were answered with [`ReplyError::Serialization`].
    pub malformed: u64,
    /// Refused because the queue was full, or, when their turn came, because the caller's session
    /// held more answers than it may.
    pub overloaded: u64,
    /// Refused because the queue was closed.
    pub refused: u64,
}

/// A typed queue behind an endpoint: packets are decoded as they arrive, tasks wait for messages.
///
/// A payload that does not decode is counted and, if it is a request, answered; the queue lives on.
/// [`RequestStream`](super::RequestStream) is the usual way to have one; by itself it receives
/// one-way messages:
///
/// ```
/// # use std::rc::Rc;
/// # use moonpool::{FlowTransportBuilder, JsonCodec, NetNotifiedQueue, Providers, WellKnownId};
/// async fn listen<P: Providers>(providers: P) -> Result<(), Box<dyn std::error::Error>> {
///     let transport = FlowTransportBuilder::from_providers(&providers)
///         .local_address("10.0.0.1:4500".parse()?)
///         .build_listening()
///         .await?;
///     let queue = Rc::new(NetNotifiedQueue::<String, _>::new(JsonCodec));
///     transport.add_well_known_endpoint(WellKnownId::user(20)?, queue.clone())?;
///     while let Some(line) = queue.recv().await {
///         tracing::info!(line, "received");
///     }
///     Ok(())
/// }
/// ```
pub struct NetNotifiedQueue<T, C> {
    state: RefCell<State<T>>,
    limits: QueueLimits,
    stats: Cell<QueueStats>,
    endpoint: Cell<Option<Endpoint>>,
    token: Cell<Option<UID>>,
    is_private: Cell<bool>,
    /// Streams that read from the queue.
    readers: Cell<usize>,
    /// How large the answers to its requests were.
    answers: Rc<Cell<AnswerSizes>>,
    codec: C,
}

struct State<T> {
    messages: VecDeque<Received<T>>,
    /// Encoded size of `messages` together.
    bytes: usize,
    closed: bool,
    /// Receivers that wait, in order of arrival, each once.
    waiters: VecDeque<(u64, Waker)>,
    next_waiter: u64,
    /// A message woke one of them.
    has_notified: bool,
}

/// A message, where its answer goes, and the bytes it counts for.
struct Received<T> {
    request: (T, Option<ReplyRoute>),
    bytes: usize,
}

/// Why a message is not taken in.
enum Refusal {
    Closed,
    Full,
}

impl<T, C> NetNotifiedQueue<T, C> {
    /// An empty queue with the default limits.
    #[must_use]
    pub fn new(codec: C) -> Self {
        Self::with_limits(codec, QueueLimits::default())
    }

    /// An empty queue.
    #[must_use]
    pub fn with_limits(codec: C, limits: QueueLimits) -> Self {
        Self {
            state: RefCell::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                closed: false,
                waiters: VecDeque::new(),
                next_waiter: 0,
                has_notified: false,
            }),
            limits,
            stats: Cell::default(),
            endpoint: Cell::new(None),
            token: Cell::new(None),
            is_private: Cell::new(false),
            readers: Cell::new(0),
            answers: Rc::default(),
            codec,
        }
    }

    /// Lets only those send to the queue whom the transport's builder was told to accept; see
    /// [`verify`](super::FlowTransportBuilder::verify).
    pub fn make_private(&self) {
        self.is_private.set(true);
    }

    /// Where the queue is registered, once it is, in a transport that has an address.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.get()
    }

    /// The codec of the queue's messages.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// Waits for the next message. `None` when the queue is closed and empty. If the message was a
    /// request, its caller gets [`ReplyError::BrokenPromise`].
    ///
    /// # Cancel safety
    /// Dropping the future loses no message: one is taken only when the future is ready.
    pub async fn recv(&self) -> Option<T> {
        Receive::new(self).await.map(|(message, _reply)| message)
    }

    /// The next message, if one is there.
    pub fn try_recv(&self) -> Option<T> {
        self.try_recv_request().map(|(message, _reply)| message)
    }

    /// Waits for the next message, with the route for its answer if it is a request.
    ///
    /// # Cancel safety
    /// As [`recv`](Self::recv).
    pub async fn recv_request(&self) -> Option<(T, Option<ReplyRoute>)> {
        Receive::new(self).await
    }

    /// The next message, if one is there, with the route for its answer if it is a request.
    pub fn try_recv_request(&self) -> Option<(T, Option<ReplyRoute>)> {
        while !self.may_take_next()? {
            let refused = self.state.borrow_mut().take();
            if let Some((_, Some(reply))) = refused {
                self.count(|stats| stats.overloaded += 1);
                reply.send_error(&ReplyError::Overloaded);
            }
        }
        self.state.borrow_mut().take()
    }

    /// Whether the first message is to be handled; `None` if there is none. A request is, unless its
    /// caller's session holds more answers by now than it may, those that are being made included: it
    /// was admitted when nobody could know how large they would be.
    #[inline]
    fn may_take_next(&self) -> Option<bool> {
        let mut state = self.state.borrow_mut();
        let (_, reply) = &mut state.messages.front_mut()?.request;
        let is_kept = reply
            .as_mut()
            .is_none_or(|reply| reply.begin(&self.answers));
        Some(is_kept)
    }

    /// Takes in no more messages; those that are queued can still be received. Requests that
    /// arrive from now on are answered with [`ReplyError::EndpointNotFound`].
    pub fn close(&self) {
        let waiters = {
            let mut state = self.state.borrow_mut();
            if !std::mem::replace(&mut state.closed, true) {
                state.note_coverage(self.stats.get());
            }
            std::mem::take(&mut state.waiters)
        };
        for (_, waker) in waiters {
            waker.wake();
        }
    }

    /// Whether the queue is closed.
    pub fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }

    /// Number of queued messages.
    pub fn len(&self) -> usize {
        self.state.borrow().messages.len()
    }

    /// Whether no message is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What arrived so far.
    pub fn stats(&self) -> QueueStats {
        self.stats.get()
    }

    /// Drops what is queued: requests become broken promises.
    fn clear(&self) {
        let messages = {
            let mut state = self.state.borrow_mut();
            state.bytes = 0;
            std::mem::take(&mut state.messages)
        };
        drop(messages);
    }

    /// One poll of a receiver. `waiter` is its place in the list of waiters, kept by the receiver.
    fn poll_request(
        &self,
        waiter: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(T, Option<ReplyRoute>)>> {
        let request = self.try_recv_request();
        if request.is_some() {
            if waiter.is_some() {
                let unused = self.state.borrow_mut().leave(waiter);
                drop(unused);
            }
            return Poll::Ready(request);
        }
        let (result, unused) = {
            let mut state = self.state.borrow_mut();
            if state.closed {
                sometimes_assert!(queue_closed_empty, true, "there will be no more");
                (Poll::Ready(None), state.leave(waiter))
            } else {
                (Poll::Pending, state.wait(waiter, cx.waker()))
            }
        };
        drop(unused);
        if result.is_pending() {
            wait::note(WaitReason::Message {
                token: self.token.get(),
            });
        }
        result
    }

    /// Called when a receiver goes away. If it was woken for a message that it did not take, the
    /// next one is woken instead.
    fn leave(&self, waiter: &mut Option<u64>) {
        if waiter.is_none() {
            return;
        }
        let (own, next) = {
            let mut state = self.state.borrow_mut();
            let own = state.leave(waiter);
            let was_woken = own.is_none();
            let next = if was_woken && !state.messages.is_empty() {
                state.waiters.pop_front()
            } else {
                None
            };
            (own, next)
        };
        drop(own);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }

    fn count(&self, change: impl FnOnce(&mut QueueStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    fn admit(&self, bytes: usize) -> Result<(), Refusal> {
        let state = self.state.borrow();
        if state.closed {
            return Err(Refusal::Closed);
        }
        let fits = state.messages.len() < self.limits.messages
            && state.bytes.saturating_add(bytes) <= self.limits.bytes;
        if fits || state.messages.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Inlined, so that the message goes to its place without being moved on the way.
    #[inline]
    fn push(&self, received: Received<T>) {
        self.count(|stats| stats.received += 1);
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.bytes += received.bytes;
            state.messages.push_back(received);
            state.has_notified |= !state.waiters.is_empty();
            state.waiters.pop_front()
        };
        if let Some((_, waker)) = waiter {
            waker.wake();
        }
    }

    fn refuse(&self, refusal: &Refusal, token: UID, reply: Option<ReplyRoute>) {
        match refusal {
            Refusal::Closed => {
                self.count(|stats| stats.refused += 1);
                if let Some(reply) = reply {
                    reply.send_notice(WellKnownToken::EndpointNotFound, token);
                }
            }
            Refusal::Full => {
                self.count(|stats| stats.overloaded += 1);
                if let Some(reply) = reply {
                    reply.note_refusal("overloaded");
                    reply.send_error(&ReplyError::Overloaded);
                }
            }
        }
    }
}

impl<T, C> MessageReceiver for NetNotifiedQueue<T, C>
where
    T: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn receive(&self, packet: Incoming<'_>) {
        let token = packet.token();
        let source = packet.to_share();
        // What precedes the message is kept with it.
        let bytes = match &source {
            Some((_, memory)) => *memory,
            None => packet.size(),
        };
        if let Err(refusal) = self.admit(bytes) {
            return self.refuse(&refusal, token, packet.into_reply());
        }
        let decoded = match &source {
            Some((shared, _)) => self.codec.decode_shared(shared),
            None => self.codec.decode(packet.payload()),
        };
        match decoded {
            Ok(message) => self.push(Received {
                request: (message, packet.into_reply()),
                bytes,
            }),
            Err(error) => {
                self.count(|stats| stats.malformed += 1);
                sometimes_assert!(deserialization_failed, true, "the message was no message");
                tracing::debug!(%token, %error, "a message could not be decoded");
                if let Some(reply) = packet.into_reply() {
                    reply.send_error(&ReplyError::serialization("request", &error));
                }
            }
        }
    }

    fn is_private(&self) -> bool {
        self.is_private.get()
    }

    fn handle_registered(&self, token: UID, endpoint: Option<Endpoint>) {
        self.token.set(Some(token));
        self.endpoint.set(endpoint);
    }

    fn handle_closed(&self) {
        self.close();
    }
}

impl<T, C> fmt::Debug for NetNotifiedQueue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetNotifiedQueue")
            .field("token", &self.token.get())
            .field("messages", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl<T> State<T> {
    /// Says what a queue that is closed has done. Asked once, at its end: nothing of it costs the path
    /// of a message anything.
    fn note_coverage(&self, stats: QueueStats) {
        let received = stats.received;
        let was_taken = received > self.messages.len() as u64;
        sometimes_assert!(
            deserialization_success,
            received > 0,
            "a message was decoded"
        );
        sometimes_assert!(message_available, was_taken, "a receiver got a message");
        sometimes_assert!(recv_pending, self.next_waiter > 0, "a receiver had to wait");
        sometimes_assert!(
            waker_notified,
            self.has_notified,
            "a message woke a receiver"
        );
    }

    #[inline]
    fn take(&mut self) -> Option<(T, Option<ReplyRoute>)> {
        let received = self.messages.pop_front()?;
        self.bytes -= received.bytes;
        Some(received.request)
    }

    /// Puts the receiver into the list, or updates its waker there. An old waker is given out, to
    /// be dropped where no borrow is held.
    fn wait(&mut self, waiter: &mut Option<u64>, waker: &Waker) -> Option<Waker> {
        let listed = waiter.and_then(|id| self.waiters.iter_mut().find(|entry| entry.0 == id));
        if let Some((_, noted)) = listed {
            if noted.will_wake(waker) {
                return None;
            }
            return Some(std::mem::replace(noted, waker.clone()));
        }
        let id = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.push_back((id, waker.clone()));
        *waiter = Some(id);
        None
    }

    /// Takes the receiver out of the list. `None` if it was not in it.
    fn leave(&mut self, waiter: &mut Option<u64>) -> Option<Waker> {
        let id = waiter.take()?;
        let at = self.waiters.iter().position(|entry| entry.0 == id)?;
        self.waiters.remove(at).map(|(_, waker)| waker)
    }
}

/// Waits for one message.
struct Receive<'a, T, C> {
    queue: &'a NetNotifiedQueue<T, C>,
    waiter: Option<u64>,
}

impl<'a, T, C> Receive<'a, T, C> {
    fn new(queue: &'a NetNotifiedQueue<T, C>) -> Self {
        Self {
            queue,
            waiter: None,
        }
    }
}

impl<T, C> Future for Receive<'_, T, C> {
    type Output = Option<(T, Option<ReplyRoute>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.queue.poll_request(&mut this.waiter, cx)
    }
}

impl<T, C> Drop for Receive<'_, T, C> {
    fn drop(&mut self) {
        self.queue.leave(&mut self.waiter);
    }
}

/// A stream's hold on its queue. With the last one go the messages that nobody can receive any
/// more; the queue itself may stay behind, under a well-known token that cannot be removed.
pub(crate) struct Reader<T, C> {
    queue: Rc<NetNotifiedQueue<T, C>>,
    waiter: Option<u64>,
}

impl<T, C> Reader<T, C> {
    pub(crate) fn new(queue: Rc<NetNotifiedQueue<T, C>>) -> Self {
        queue.readers.set(queue.readers.get() + 1);
        Self {
            queue,
            waiter: None,
        }
    }

    pub(crate) fn queue(&self) -> &Rc<NetNotifiedQueue<T, C>> {
        &self.queue
    }

    pub(crate) fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(T, Option<ReplyRoute>)>> {
        self.queue.poll_request(&mut self.waiter, cx)
    }
}

impl<T, C> Drop for Reader<T, C> {
    fn drop(&mut self) {
        self.queue.leave(&mut self.waiter);
        let readers = self.queue.readers.get() - 1;
        self.queue.readers.set(readers);
        if readers == 0 {
            self.queue.close();
            self.queue.clear();
        }
    }
}

/// A queue that several owners share, one of them usually a transport's endpoint map.
pub struct SharedNetNotifiedQueue<T, C>(Rc<NetNotifiedQueue<T, C>>);

impl<T, C> SharedNetNotifiedQueue<T, C> {
    /// An empty queue with the default limits.
    #[must_use]
    pub fn new(codec: C) -> Self {
        Self(Rc::new(NetNotifiedQueue::new(codec)))
    }

    /// The queue as what a transport registers.
    #[must_use]
    pub fn receiver(&self) -> Rc<dyn MessageReceiver>
    where
        T: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        self.0.clone()
    }
}

impl<T, C> From<Rc<NetNotifiedQueue<T, C>>> for SharedNetNotifiedQueue<T, C> {
    fn from(queue: Rc<NetNotifiedQueue<T, C>>) -> Self {
        Self(queue)
    }
}

impl<T, C> Clone for SharedNetNotifiedQueue<T, C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, C> Deref for SharedNetNotifiedQueue<T, C> {
    type Target = NetNotifiedQueue<T, C>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T, C> fmt::Debug for SharedNetNotifiedQueue<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
