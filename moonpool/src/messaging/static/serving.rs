//! [`Serving`]: streams of requests handled side by side, so many at a time.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::Stream;
use moonpool_foundation::wait::{self, WaitReason};
use moonpool_foundation::{NetworkProvider, TaskProvider, TimeProvider};
use moonpool_traits::MessageCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::call_record::{ServeRecord, Served};
use super::concurrency_limit::{Acquired, ConcurrencyLimit, Ticket};
use super::flow_transport::FlowTransport;
use super::handler_tasks::{HandlerTasks, TaskGuard};
use super::interface::MethodStream;
#[cfg(feature = "metrics")]
use super::method_metrics::Instruments;
use super::middleware::{ServeChain, ServeMiddleware};
use super::reply_error::ReplyError;
use super::reply_promise::ReplyPromise;
use super::request_stream::{Request, RequestStream};

/// Serves streams of requests: each request in a task of its own, so many of them at a time.
///
/// The limit is shared by all streams that are served through one `Serving` or its clones. At the
/// limit no more is received: requests wait in their stream's queue, whose own
/// [limits](super::QueueLimits) answer `Overloaded`.
///
/// ```
/// # use moonpool::define_interface;
/// # define_interface! { pub Calculator, id 0xCA1C, { divide: (i64, i64) => i64, negate: i64 => i64 } }
/// use std::rc::Rc;
/// use moonpool::{FlowTransport, JsonCodec, Providers, RegisterError, ReplyError, Serving};
///
/// type Transport<P> =
///     FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;
///
/// /// Serves until the transport is shut down.
/// async fn serve<P: Providers>(transport: Rc<Transport<P>>) -> Result<(), RegisterError> {
///     let calculator = Calculator::serve(&transport, JsonCodec)?;
///     let serving = Serving::new(&transport).max_concurrency(64);
///     let divide = serving.serve(calculator.divide, async |(a, b), reply| {
///         tracing::debug!(remaining = ?reply.remaining(), "dividing");
///         a.checked_div(b).ok_or_else(|| ReplyError::application(1, "no quotient"))
///     });
///     let negate = serving.serve(calculator.negate, async |number: i64, _reply| Ok(-number));
///     futures_util::future::join(divide, negate).await;
///     Ok(())
/// }
/// ```
///
/// # How a request ends
///
/// | what happens | the caller gets | the handler |
/// | --- | --- | --- |
/// | it gives `Ok` or `Err` | that | is done |
/// | it panics | [`ReplyError::BrokenPromise`], for this request alone | is gone; all others go on. In simulation a panic of a task fails the seed, because it is a bug |
/// | the request's deadline passes, its caller gives up or is gone | it waits no more | is dropped at its current `.await` |
/// | one of these while the request was queued | it waits no more | is never called; [`ServingStats::skipped`] counts it |
/// | the transport is shut down | the answer, if it comes within the grace; else [`ReplyError::BrokenPromise`], then | goes on for the grace, and is dropped then |
///
/// A handler that must not be dropped half-way spawns a task for that part.
///
/// # Shutdown
/// [`FlowTransport::shutdown`] ends the streams: what is queued is still handled, and
/// [`serve`](Self::serve) is done once its stream is empty. The shutdown waits for streams and
/// handlers, within its grace, before it closes any connection, and after it no handler is left.
/// Calls cannot be made any more meanwhile: a handler's own end with `ConnectionFailed`.
/// A handler that awaits the shutdown itself is waited for by it, for the whole grace, and is dropped
/// then: let it spawn a task that does.
pub struct Serving<T, TP> {
    shared: Rc<Shared>,
    time: T,
    task: TP,
    chain: ServeChain,
}

impl<T: Clone, TP: Clone> Clone for Serving<T, TP> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            chain: self.chain.clone(),
            time: self.time.clone(),
            task: self.task.clone(),
        }
    }
}

struct Shared {
    limit: RefCell<ConcurrencyLimit>,
    tasks: Rc<HandlerTasks>,
    stats: Cell<ServingStats>,
    #[cfg(feature = "metrics")]
    instruments: Rc<Instruments>,
}

/// What became of the requests of a [`Serving`] since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServingStats {
    /// Gauge: handlers that run.
    pub running: usize,
    /// Handlers that gave an answer, errors included.
    pub answered: u64,
    /// Requests that nobody waited for any more when their turn came: no handler was called.
    pub skipped: u64,
    /// Handlers that were dropped because nobody waited for their answers any more.
    pub abandoned: u64,
    /// Handlers that panicked, or were dropped at the end of the transport or the runtime.
    pub broken: u64,
}

impl<T, TP> Serving<T, TP>
where
    T: TimeProvider,
    TP: TaskProvider,
{
    /// How many handlers run at one time unless [`max_concurrency`](Self::max_concurrency) says
    /// otherwise.
    pub const DEFAULT_MAX_CONCURRENCY: usize = 1024;

    /// Serves streams of this transport, with a limit of
    /// [`DEFAULT_MAX_CONCURRENCY`](Self::DEFAULT_MAX_CONCURRENCY).
    #[must_use]
    pub fn new<N: NetworkProvider>(transport: &FlowTransport<N, T, TP>) -> Self {
        let (time, task) = transport.time_and_task();
        Self {
            shared: Rc::new(Shared {
                limit: RefCell::new(ConcurrencyLimit::new(Self::DEFAULT_MAX_CONCURRENCY)),
                tasks: transport.core().handlers.clone(),
                stats: Cell::default(),
                #[cfg(feature = "metrics")]
                instruments: transport.core().instruments.clone(),
            }),
            time,
            task,
            chain: ServeChain::default(),
        }
    }

    /// Puts code around the handlers of what is served from now on; see [`ServeMiddleware`]. May be
    /// called several times: what was installed first is outermost. Clones made before do not have it.
    #[must_use]
    pub fn middleware(mut self, middleware: impl ServeMiddleware) -> Self {
        self.chain.push(middleware);
        self
    }

    /// Begins anew with a limit of `handlers` at one time; 0 counts as 1. Call it before anything
    /// is served: what is served already keeps the limit that it has.
    #[must_use]
    pub fn max_concurrency(self, handlers: usize) -> Self {
        Self {
            shared: Rc::new(Shared {
                limit: RefCell::new(ConcurrencyLimit::new(handlers)),
                tasks: self.shared.tasks.clone(),
                stats: Cell::default(),
                #[cfg(feature = "metrics")]
                instruments: self.shared.instruments.clone(),
            }),
            ..self
        }
    }

    /// Counters, and the handlers that run.
    #[must_use]
    pub fn stats(&self) -> ServingStats {
        ServingStats {
            running: self.shared.limit.borrow().in_use(),
            ..self.shared.stats.get()
        }
    }

    /// Handles the requests of a stream until it is closed and empty: a
    /// [`MethodStream`] of an interface, or a [`RequestStream`]. Handlers that run then go on.
    ///
    /// The handler is given the request and its promise, to see the deadline, the metadata, and to
    /// make calls [`within`](super::Call::within) it; what it returns is the answer. The answer to
    /// a one-way message is dropped.
    ///
    /// Nothing happens unless the future is polled: spawn it, join several, or `select!` on it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the stream: what is queued becomes broken promises, and its
    /// endpoint is not found any more. Handlers that run go on. To go on receiving, pin the future
    /// and poll it by reference.
    pub async fn serve<Req, Resp, C, H>(
        &self,
        stream: impl Into<MethodStream<Req, Resp, C>>,
        handler: H,
    ) where
        Req: DeserializeOwned + 'static,
        Resp: Serialize + 'static,
        C: MessageCodec,
        H: AsyncFn(Req, &ReplyPromise<Resp, C>) -> Result<Resp, ReplyError> + 'static,
    {
        let _guard = self.shared.tasks.begin_stream();
        let stream = stream.into();
        let served = self.describe(&stream);
        let mut receiver = Receiver {
            shared: &self.shared,
            stream: stream.into_requests(),
            ticket: Ticket::default(),
        };
        let handler = Rc::new(handler);
        while let Some((request, permit)) = receiver.next().await {
            let (message, reply) = request.into_parts::<Resp>();
            if reply.is_cancelled() {
                permit.settle(|stats| stats.skipped += 1);
                reply.send_error(ReplyError::Cancelled);
                continue;
            }
            let Some(guard) = self.shared.tasks.begin_task() else {
                return;
            };
            let key = guard.key();
            let job = Job {
                permit,
                guard,
                reply,
                time: self.time.clone(),
                handler: handler.clone(),
                served: served.clone(),
                chain: self.chain.clone(),
            };
            let task = self.task.spawn_task("moonpool-handler", job.run(message));
            self.shared.tasks.set_handle(key, task);
        }
    }

    /// What its requests have in common.
    fn describe<Req, Resp, C>(&self, stream: &MethodStream<Req, Resp, C>) -> Served
    where
        Req: DeserializeOwned + 'static,
        C: MessageCodec,
    {
        let endpoint = stream.requests().endpoint();
        Served {
            name: stream.name(),
            token: endpoint.map(|endpoint| endpoint.token),
            #[cfg(feature = "metrics")]
            metrics: self.shared.instruments.served(stream.name()),
        }
    }
}

impl<T, TP> fmt::Debug for Serving<T, TP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("limit", &self.shared.limit.borrow())
            .field("stats", &self.shared.stats.get())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut ServingStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    fn release(&self) {
        let waker = self.limit.borrow_mut().release();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The requests of one stream, each with a permit to handle it.
struct Receiver<'a, Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    shared: &'a Rc<Shared>,
    stream: RequestStream<Req, C>,
    ticket: Ticket,
}

impl<Req, C> Receiver<'_, Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    async fn next(&mut self) -> Option<(Request<Req, C>, Permit)> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// A permit is held only while there is a request: an idle stream keeps none from the others.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Request<Req, C>, Permit)>> {
        if self.shared.tasks.is_closed() {
            return Poll::Ready(None);
        }
        let acquired = {
            let mut limit = self.shared.limit.borrow_mut();
            limit.acquire(&mut self.ticket, cx.waker())
        };
        if let Acquired::Waiting { replaced } = acquired {
            drop(replaced);
            wait::note(WaitReason::Message { token: None });
            return Poll::Pending;
        }
        let received = Pin::new(&mut self.stream).poll_next(cx);
        match received {
            Poll::Ready(Some(request)) => {
                let permit = Permit(Some(self.shared.clone()));
                Poll::Ready(Some((request, permit)))
            }
            Poll::Ready(None) => {
                self.shared.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.shared.release();
                Poll::Pending
            }
        }
    }
}

impl<Req, C> Drop for Receiver<'_, Req, C>
where
    Req: DeserializeOwned + 'static,
    C: MessageCodec,
{
    fn drop(&mut self) {
        let left = self.shared.limit.borrow_mut().leave(&mut self.ticket);
        drop(left.unused);
        if let Some(waker) = left.wake {
            waker.wake();
        }
    }
}

/// The right to handle one request. One that is dropped unsettled was broken off.
struct Permit(Option<Rc<Shared>>);

impl Permit {
    fn settle(mut self, change: impl FnOnce(&mut ServingStats)) {
        if let Some(shared) = self.0.take() {
            shared.count(change);
            shared.release();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(shared) = self.0.take() {
            shared.count(|stats| stats.broken += 1);
            shared.release();
        }
    }
}

/// One request's handling.
struct Job<Resp, C, T, H> {
    reply: ReplyPromise<Resp, C>,
    permit: Permit,
    guard: TaskGuard,
    time: T,
    handler: Rc<H>,
    served: Served,
    chain: ServeChain,
}

impl<Resp, C, T, H> Job<Resp, C, T, H>
where
    Resp: Serialize,
    C: MessageCodec,
    T: TimeProvider,
{
    async fn run<Req>(self, request: Req)
    where
        H: AsyncFn(Req, &ReplyPromise<Resp, C>) -> Result<Resp, ReplyError>,
    {
        // In reverse order of their drops: the promise first, the task's count last.
        let _guard = self.guard;
        let permit = self.permit;
        let reply = self.reply;
        let mut record = ServeRecord::begin(&self.served, &reply, self.time.clone());
        let span = record.span().clone();
        let answer = {
            let work = async {
                let handling = (self.handler)(request, &reply);
                if self.chain.is_empty() {
                    return handling.await;
                }
                let request = reply.served(&self.served);
                self.chain.run(request, handling).await
            };
            let work = pin!(work);
            let unwanted = pin!(unwanted(&reply, &self.time));
            unless(work, unwanted).instrument(span.clone()).await
        };
        let _entered = span.enter();
        match answer {
            Some(Ok(response)) => {
                record.end(Ok(()));
                reply.send(response);
                permit.settle(|stats| stats.answered += 1);
            }
            Some(Err(error)) => {
                record.end(Err(&error));
                reply.send_error(error);
                permit.settle(|stats| stats.answered += 1);
            }
            None => {
                record.end(Err(&ReplyError::Cancelled));
                reply.send_error(ReplyError::Cancelled);
                permit.settle(|stats| stats.abandoned += 1);
            }
        }
    }
}

/// Waits until nobody waits for the answer.
async fn unwanted<Resp, C>(reply: &ReplyPromise<Resp, C>, time: &impl TimeProvider) {
    match reply.remaining() {
        None => reply.cancelled().await,
        Some(remaining) => {
            if time.timeout(remaining, reply.cancelled()).await.is_err() {
                tracing::trace!("a request's deadline passed while it was handled");
            }
        }
    }
}

/// The work's output; `None` if `end` is ready before. The work goes first at the first poll, so
/// that one that never waits makes no timer; after that the end does, so that none goes on whose
/// end has come.
async fn unless<W: Future>(
    mut work: Pin<&mut W>,
    mut end: Pin<&mut impl Future<Output = ()>>,
) -> Option<W::Output> {
    let mut is_first = true;
    poll_fn(|cx| {
        let was_first = std::mem::replace(&mut is_first, false);
        if !was_first && end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if was_first && end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}
