//! [`ReplyPromise`].

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use moonpool_traits::MessageCodec;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call_record::Served;
use super::envelope::{Metadata, TraceContext};
use super::middleware::ServedRequest;
use super::peer_info::PeerInfo;
use super::reply_error::ReplyError;
use super::reply_future::ReplyFuture;
use super::reply_route::ReplyRoute;

/// The duty to answer one request, or one [embedded promise](super::EmbeddedPromise).
///
/// It may be kept, moved into a task and answered at any time. Dropping it unanswered tells the
/// caller [`ReplyError::BrokenPromise`]. The answer goes back on the connection the request came in
/// on; if that is gone by then, so is the caller's interest, and the answer is dropped and counted.
///
/// A one-way message has nobody to answer: its promise takes an answer and forgets it.
#[must_use = "dropping it tells the caller that the promise is broken"]
pub struct ReplyPromise<Resp, C> {
    route: Option<ReplyRoute>,
    codec: C,
    response: PhantomData<fn(Resp)>,
}

impl<Resp, C> ReplyPromise<Resp, C> {
    pub(crate) fn new(route: Option<ReplyRoute>, codec: C) -> Self {
        Self {
            route,
            codec,
            response: PhantomData,
        }
    }

    /// Whether somebody waits for the answer: true for a request and an embedded promise, false for a
    /// one-way message.
    #[must_use]
    pub fn expects_answer(&self) -> bool {
        self.route.is_some()
    }

    /// When the caller stops waiting, in the time of this transport's provider
    /// ([`TimeProvider::now`](crate::TimeProvider::now)). `None`: it has no deadline, the message is
    /// one-way, or it is an embedded promise, whose deadline only its maker knows.
    ///
    /// It counts from the request's arrival: the caller has stopped waiting by then, and may have
    /// done so earlier, by the time that the request was on its way. The server may outlive the
    /// caller's deadline: no lease may rest on it. An answer that comes later is dropped.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.route.as_ref()?.deadline()
    }

    /// What remains until the [`deadline`](Self::deadline): zero once it has passed. For calls that
    /// are made to answer this one, [`Call::within`](super::Call::within) says it shorter.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.route.as_ref()?.remaining()
    }

    /// The pairs that the caller [gave the call](super::Call::metadata), in its order. They come from
    /// the other end as they are: nothing of them is checked but that keys are UTF-8.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        self.route
            .as_ref()
            .map(ReplyRoute::metadata)
            .unwrap_or_default()
    }

    /// The caller's [trace context](super::Call::trace_context).
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext<'_>> {
        self.route.as_ref()?.trace_context()
    }

    /// Who asked, as the operating system names the other end; `None` if it is this process itself,
    /// or the message is one-way.
    #[must_use]
    pub fn peer(&self) -> Option<PeerInfo<'_>> {
        self.route.as_ref()?.peer_info()
    }

    pub(crate) fn served(&self, served: &Served) -> ServedRequest<'_> {
        ServedRequest {
            route: self.route.as_ref(),
            name: served.name,
            token: served.token,
        }
    }

    /// For logs.
    pub(crate) fn peer_name(&self) -> Option<&str> {
        self.route.as_ref().map(ReplyRoute::peer_name)
    }

    /// Whether nobody waits for the answer any more: the caller gave up, its deadline has passed,
    /// or the session is over. What was done for the request by then stands; an answer is dropped.
    /// False for a one-way message, for which nobody ever waits, and for an embedded promise, of
    /// which nothing is heard.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.route.as_ref().is_some_and(ReplyRoute::is_cancelled)
    }

    /// Waits until the caller is known to have given up: it dropped its future or its deadline
    /// passed, and said so, or the session ended. Never ready for a one-way message or an embedded
    /// promise. For a handler
    /// that can stop early, beside its work in a `select!`.
    ///
    /// A caller behind a broken connection cannot say anything: bound the work by
    /// [`remaining`](Self::remaining) as well.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn cancelled(&self) {
        match &self.route {
            Some(route) => route.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Answers with an error: [`ReplyError::application`] for answers of your own,
    /// [`ReplyError::Refused`] if nothing was done for the request.
    ///
    /// An error that another call ended with may be passed on. If it says that *that* call's request
    /// was surely not executed, the caller gets [`ReplyError::BrokenPromise`] in its place, since of
    /// *this* request it is not true: the handler ran.
    pub fn send_error(self, error: ReplyError) {
        if let Some(route) = self.route {
            if error.is_surely_not_executed() {
                tracing::debug!(%error, "a handler answers with an error");
            }
            route.send_error(&error.into_answer());
        }
    }
}

impl<Resp, C> ReplyPromise<Resp, C>
where
    Resp: Serialize,
    C: MessageCodec,
{
    /// Answers. If the response cannot be encoded the caller gets [`ReplyError::Serialization`], if
    /// it is larger than the limit [`ReplyError::ReplyTooLarge`].
    pub fn send(self, response: Resp) {
        if let Some(route) = self.route {
            route.send(&response, &self.codec);
        }
    }
}

impl<Resp, C> ReplyPromise<Resp, C>
where
    Resp: Serialize + DeserializeOwned,
    C: MessageCodec,
{
    /// Hands the duty on: passes on the answer to another call, or to a promise that was
    /// [embedded](super::EmbeddedPromise) in a message to whoever is to answer in this one's place.
    /// Ends when the answer is passed on, or when nobody waits for it any more; then the other call
    /// is given up. Errors are passed on as [`send_error`](Self::send_error) does it.
    ///
    /// ```
    /// use moonpool::{EmbeddedPromise, Endpoint, FlowTransport, JsonCodec, NetworkProvider};
    /// use moonpool::{ReplyError, ReplyPromise, TaskProvider, TimeProvider};
    ///
    /// async fn hand_on<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
    ///     transport: &FlowTransport<N, T, TP>,
    ///     worker: &Endpoint,
    ///     reply: ReplyPromise<u64, JsonCodec>,
    /// ) -> Result<(), ReplyError> {
    ///     let (promise, answer) = transport.promise(JsonCodec).within(&reply).open()?;
    ///     let task: EmbeddedPromise<u64> = promise;
    ///     transport.call(worker, task, JsonCodec).send::<()>()?.await?;
    ///     reply.relay(answer).await;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future breaks the promise.
    pub async fn relay<D: MessageCodec>(self, answer: ReplyFuture<Resp, D>) {
        let outcome = {
            let (mut cancelled, mut answer) = (pin!(self.cancelled()), pin!(answer));
            poll_fn(|cx| match cancelled.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => answer.as_mut().poll(cx).map(Some),
            })
            .await
        };
        match outcome {
            Some(Ok(response)) => self.send(response),
            Some(Err(error)) => self.send_error(error),
            None => self.send_error(ReplyError::Cancelled),
        }
    }
}

impl<Resp, C> fmt::Debug for ReplyPromise<Resp, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyPromise")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
