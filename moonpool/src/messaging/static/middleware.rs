//! Middleware: code around calls ([`CallMiddleware`]) and around handlers ([`ServeMiddleware`]).
//!
//! Both are chains. What was installed first is outermost: it sees the call first and its outcome
//! last. A link decides when, and whether, the rest runs; without any link nothing of this is in the
//! way of a call, save one branch.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{Endpoint, UID};

use super::call::CallOptions;
use super::core::Core;
use super::envelope::{Metadata, TraceContext};
use super::hooked_call::Tail;
use super::method_name::MethodName;
use super::peer_info::PeerInfo;
use super::reply_error::ReplyError;
use super::reply_route::ReplyRoute;

/// Code around the calls of a transport, installed by
/// [`FlowTransportBuilder::call_middleware`](super::FlowTransportBuilder::call_middleware).
///
/// ```
/// use moonpool::{CallMiddleware, NextCall, OutgoingCall, ReplyError};
///
/// /// Shows who calls, and says how it went.
/// struct Signed { token: String }
///
/// impl CallMiddleware for Signed {
///     async fn call(&self, mut call: OutgoingCall, next: NextCall) -> Result<moonpool::ReplyBody, ReplyError> {
///         call.add_metadata("authorization", &self.token);
///         let outcome = next.run(call).await;
///         if let Err(error) = &outcome {
///             tracing::info!(%error, "a call failed");
///         }
///         outcome
///     }
/// }
/// ```
///
/// It runs once per call, around all of its attempts ([`Call::retry`](super::Call::retry)), and not
/// around one-way messages. Returning without [`NextCall::run`] refuses the call: nothing is sent
/// then, and an error that says "surely not executed" is true.
///
/// The call's deadline stands: it is fixed before the first link begins, what the links take counts,
/// and a call whose deadline passes outside of `run` ends with [`ReplyError::Timeout`], its links
/// dropped where they wait. So does one whose links stop polling `run` before it is ready, within 0.1 s
/// of its deadline. One without a deadline waits for its links without end.
///
/// # Cancel safety
/// Dropping the future of the call's reply drops the links at their current `.await`, and with them
/// the call. Work that must not stop there belongs into a task of its own.
pub trait CallMiddleware: 'static {
    /// Makes the call by running `next`, or refuses it.
    fn call(
        &self,
        call: OutgoingCall,
        next: NextCall,
    ) -> impl Future<Output = Result<ReplyBody, ReplyError>>;
}

/// The reply to a call as it arrived: the codec's bytes. Its type is checked when they are decoded,
/// outside of all middleware.
#[derive(Clone, PartialEq, Eq)]
pub struct ReplyBody(pub(crate) Bytes);

impl ReplyBody {
    /// The codec's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody")
            .field("bytes", &self.0.len())
            .finish()
    }
}

/// A call that is not sent yet.
pub struct OutgoingCall {
    pub(crate) core: Rc<Core>,
    pub(crate) endpoint: Endpoint,
    /// Its deadline is fixed.
    pub(crate) options: CallOptions,
    pub(crate) body: Bytes,
}

impl OutgoingCall {
    /// Whom it goes to.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The names of the interface and its method; `None` for a raw endpoint.
    #[must_use]
    pub fn name(&self) -> Option<MethodName> {
        self.options.name()
    }

    /// The codec's bytes of the request.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// What remains until its deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.options.deadline()?;
        Some(deadline.saturating_sub(self.core.now()))
    }

    /// The metadata that it has by now.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        self.options.metadata()
    }

    /// Adds a pair; see [`Call::metadata`](super::Call::metadata). A call with more than may travel
    /// ends with `PayloadTooLarge`, unsent.
    pub fn add_metadata(&mut self, key: &str, value: impl AsRef<[u8]>) {
        self.options.extras().push(key, value.as_ref());
    }

    /// The trace context that it has by now.
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext<'_>> {
        self.options.trace()
    }

    /// Sets the trace context; see [`Call::trace_context`](super::Call::trace_context).
    pub fn set_trace_context(&mut self, trace: &TraceContext<'_>) {
        self.options.extras().set_trace(trace);
    }
}

impl fmt::Debug for OutgoingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingCall")
            .field("endpoint", &self.endpoint)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

type BoxedOutcome = Pin<Box<dyn Future<Output = Result<ReplyBody, ReplyError>>>>;

/// A [`CallMiddleware`] without its type.
trait CallLink {
    fn call(self: Rc<Self>, call: OutgoingCall, next: NextCall) -> BoxedOutcome;
}

impl<M: CallMiddleware> CallLink for M {
    fn call(self: Rc<Self>, call: OutgoingCall, next: NextCall) -> BoxedOutcome {
        Box::pin(async move { CallMiddleware::call(&*self, call, next).await })
    }
}

/// The middleware of a transport, outermost first.
#[derive(Clone, Default)]
pub(crate) struct CallChain(Rc<Vec<Rc<dyn CallLink>>>);

impl CallChain {
    pub(crate) fn push(&mut self, middleware: impl CallMiddleware) {
        Rc::make_mut(&mut self.0).push(Rc::new(middleware));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole chain, with `tail` behind it.
    pub(crate) fn start(&self, tail: Tail) -> NextCall {
        NextCall {
            chain: self.clone(),
            index: 0,
            tail,
        }
    }
}

impl fmt::Debug for CallChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallChain").field(&self.0.len()).finish()
    }
}

/// The rest of a call: the links behind this one, and then the network.
#[must_use = "the call is not made unless it runs"]
pub struct NextCall {
    chain: CallChain,
    index: usize,
    tail: Tail,
}

impl NextCall {
    /// Makes the call, and gives its outcome.
    ///
    /// # Errors
    /// As those of the call. What keeps it from being sent at all is one of them, as
    /// [`NotSent`](crate::NotSent) becomes a [`ReplyError`].
    ///
    /// # Cancel safety
    /// Dropping the future gives the call up, as dropping a [`ReplyFuture`](super::ReplyFuture) does.
    pub async fn run(self, call: OutgoingCall) -> Result<ReplyBody, ReplyError> {
        let Self { chain, index, tail } = self;
        match chain.0.get(index).cloned() {
            Some(link) => {
                let next = Self {
                    chain,
                    index: index + 1,
                    tail,
                };
                link.call(call, next).await
            }
            None => {
                let body = tail.run(call).await?;
                Ok(ReplyBody(body.into_bytes()))
            }
        }
    }
}

impl fmt::Debug for NextCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextCall")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// Code around the handlers of a [`Serving`](super::Serving), installed by
/// [`Serving::middleware`](super::Serving::middleware).
///
/// ```
/// use moonpool::{Answered, NextHandler, Refusal, ReplyError, ServeMiddleware, ServedRequest};
///
/// /// Lets those in who show a token.
/// struct Guarded { token: String }
///
/// impl ServeMiddleware for Guarded {
///     async fn serve(
///         &self,
///         request: ServedRequest<'_>,
///         next: NextHandler<'_>,
///     ) -> Result<Answered, ReplyError> {
///         let shown = request.metadata().iter().find(|(key, _)| *key == "authorization");
///         match shown {
///             Some((_, token)) if token == self.token.as_bytes() => next.run().await,
///             _ => Err(ReplyError::Refused(Refusal::Unauthorized)),
///         }
///     }
/// }
/// ```
///
/// Returning without [`NextHandler::run`] refuses the request: its handler is never polled. An error
/// is the answer that the caller gets, also one that replaces the handler's own, as
/// [`ReplyPromise::send_error`](super::ReplyPromise::send_error) has it: that nothing was executed says
/// [`ReplyError::Refused`] alone.
///
/// The request holds its place in the limit of the `Serving` from before the first link on until its
/// answer is sent, and all of it counts against the request's deadline.
///
/// # Cancel safety
/// When nobody waits for the answer any more, links and handler are dropped at their current
/// `.await`; see [`Serving`](super::Serving).
pub trait ServeMiddleware: 'static {
    /// Handles the request by running `next`, or refuses it.
    fn serve(
        &self,
        request: ServedRequest<'_>,
        next: NextHandler<'_>,
    ) -> impl Future<Output = Result<Answered, ReplyError>>;
}

/// What is known of a request beside its message.
#[derive(Clone, Copy)]
pub struct ServedRequest<'a> {
    pub(crate) route: Option<&'a ReplyRoute>,
    pub(crate) name: Option<MethodName>,
    pub(crate) token: Option<UID>,
}

impl<'a> ServedRequest<'a> {
    /// The names of the interface and its method; `None` for a raw endpoint.
    #[must_use]
    pub fn name(&self) -> Option<MethodName> {
        self.name
    }

    /// The token that it was sent to; `None` if the transport has no address.
    #[must_use]
    pub fn token(&self) -> Option<UID> {
        self.token
    }

    /// See [`ReplyPromise::peer`](super::ReplyPromise::peer).
    #[must_use]
    pub fn peer(&self) -> Option<PeerInfo<'a>> {
        self.route?.peer_info()
    }

    /// See [`ReplyPromise::metadata`](super::ReplyPromise::metadata).
    #[must_use]
    pub fn metadata(&self) -> Metadata<'a> {
        self.route.map(ReplyRoute::metadata).unwrap_or_default()
    }

    /// See [`ReplyPromise::trace_context`](super::ReplyPromise::trace_context).
    #[must_use]
    pub fn trace_context(&self) -> Option<TraceContext<'a>> {
        self.route?.trace_context()
    }

    /// See [`ReplyPromise::remaining`](super::ReplyPromise::remaining).
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.route?.remaining()
    }

    /// See [`ReplyPromise::expects_answer`](super::ReplyPromise::expects_answer).
    #[must_use]
    pub fn expects_answer(&self) -> bool {
        self.route.is_some()
    }
}

impl fmt::Debug for ServedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedRequest")
            .field("name", &self.name)
            .field("token", &self.token)
            .field("peer", &self.peer())
            .finish_non_exhaustive()
    }
}

/// Says that the handler gave an answer. Only [`NextHandler::run`] makes one.
#[derive(Debug)]
pub struct Answered(());

type Handling<'a> = Pin<Box<dyn Future<Output = Result<Answered, ReplyError>> + 'a>>;

/// A [`ServeMiddleware`] without its type.
trait ServeLink {
    fn serve<'a>(&'a self, request: ServedRequest<'a>, next: NextHandler<'a>) -> Handling<'a>;
}

impl<M: ServeMiddleware> ServeLink for M {
    fn serve<'a>(&'a self, request: ServedRequest<'a>, next: NextHandler<'a>) -> Handling<'a> {
        Box::pin(ServeMiddleware::serve(self, request, next))
    }
}

/// The middleware of a serving, outermost first.
#[derive(Clone, Default)]
pub(crate) struct ServeChain(Rc<Vec<Rc<dyn ServeLink>>>);

impl ServeChain {
    pub(crate) fn push(&mut self, middleware: impl ServeMiddleware) {
        Rc::make_mut(&mut self.0).push(Rc::new(middleware));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs the handler inside of the chain.
    pub(crate) async fn run<Resp>(
        &self,
        request: ServedRequest<'_>,
        handler: impl Future<Output = Result<Resp, ReplyError>>,
    ) -> Result<Resp, ReplyError> {
        let response = Cell::new(None);
        let handling = async {
            let answer = handler.await?;
            response.set(Some(answer));
            Ok(Answered(()))
        };
        let next = NextHandler {
            rest: &self.0,
            request,
            handling: Box::pin(handling),
        };
        next.run().await?;
        // `Answered` comes from a handler's answer, but maybe from that of another request.
        response.take().ok_or(ReplyError::BrokenPromise)
    }
}

impl fmt::Debug for ServeChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServeChain").field(&self.0.len()).finish()
    }
}

/// The rest of a request's handling: the links behind this one, and then the handler.
#[must_use = "the handler is not called unless it runs"]
pub struct NextHandler<'a> {
    rest: &'a [Rc<dyn ServeLink>],
    request: ServedRequest<'a>,
    handling: Handling<'a>,
}

impl NextHandler<'_> {
    /// Handles the request.
    ///
    /// # Errors
    /// The handler's own, or that of a link that refused.
    ///
    /// # Cancel safety
    /// Dropping the future drops the handler where it waits.
    pub async fn run(self) -> Result<Answered, ReplyError> {
        let Self {
            rest,
            request,
            handling,
        } = self;
        match rest.split_first() {
            Some((link, rest)) => {
                let next = NextHandler {
                    rest,
                    request,
                    handling,
                };
                link.serve(request, next).await
            }
            None => handling.await,
        }
    }
}

impl fmt::Debug for NextHandler<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NextHandler")
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}
