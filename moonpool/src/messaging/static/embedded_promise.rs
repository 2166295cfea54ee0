//! [`EmbeddedPromise`]: a promise that travels inside messages, to be answered by whoever has it.

use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{Endpoint, NetworkProvider, TaskProvider, TimeProvider};
use moonpool_traits::MessageCodec;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::call_record::CallRecord;
use super::call_table::CallTerms;
use super::call_terms::earlier;
use super::flow_transport::FlowTransport;
use super::reply_error::ReplyError;
use super::reply_future::{PendingCall, ReplyFuture, Work};
use super::reply_promise::ReplyPromise;
use super::reply_route::ReplyRoute;
use super::request::Outgoing;
use crate::error::TransportError;

/// A promise as data: where its answer is waited for. It goes into a message of your own, with any
/// codec, from there into another one, and whoever is to answer [binds](Self::bind) it to a transport.
///
/// It is made by [`FlowTransport::promise`], together with the future of the answer. The first answer
/// counts; further ones are dropped and counted ([`TransportStats::replies_late`]), and so is one that
/// comes when nobody waits any more. Until it is bound it is data and no duty: copying and dropping
/// it does nothing, and a promise that nobody binds ends with its deadline.
///
/// Whoever knows the promise can answer it, and nobody else: 64 bits of its token are random, its own,
/// and used once. Nothing but this promise can be answered with it, also if somebody made up its
/// endpoint.
///
/// It travels as its endpoint: an address and a token. As FoundationDB's `ReplyPromise`
/// (`fdbrpc/fdbrpc.h`, `save` and `load`), but it does not come to life by being read.
///
/// ```
/// use moonpool::{EmbeddedPromise, Endpoint, FlowTransport, JsonCodec, NetworkProvider};
/// use moonpool::{ReplyError, TaskProvider, TimeProvider};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order { item: String, delivered: EmbeddedPromise<u32> }
///
/// /// Orders at a shop. The delivery is reported by whomever the shop hands the order on to.
/// async fn order<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
///     transport: &FlowTransport<N, T, TP>,
///     shop: &Endpoint,
/// ) -> Result<u32, ReplyError> {
///     let (delivered, answer) = transport.promise(JsonCodec).open()?;
///     let order = Order { item: "lamp".to_owned(), delivered };
///     transport.call(shop, order, JsonCodec).send::<()>()?.await?;
///     answer.await
/// }
///
/// /// The last one of the chain.
/// fn deliver<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
///     transport: &FlowTransport<N, T, TP>,
///     order: Order,
/// ) {
///     order.delivered.bind(transport, JsonCodec).send(7);
/// }
/// ```
///
/// [`TransportStats::replies_late`]: super::TransportStats::replies_late
pub struct EmbeddedPromise<Resp> {
    endpoint: Endpoint,
    response: PhantomData<fn(Resp)>,
}

impl<Resp> EmbeddedPromise<Resp> {
    /// Where the answer is waited for.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Makes it a duty, to be met through this transport. Dropping what is given unanswered sends
    /// [`ReplyError::BrokenPromise`].
    ///
    /// Nothing is sent before there is an answer. It then goes to the promise's address as a reliable
    /// packet, on the session that leads there or a new one, within the limits of the peer's queue,
    /// and waits for a connection as long as the peer has patience. One that cannot be sent is dropped and counted
    /// (`replies_dropped`): the promise ends with its deadline then. So does one whose answer is larger
    /// than its maker takes, if that was not known yet when the answer was sent. While the transport
    /// [shuts down](FlowTransport::shutdown) answers still leave.
    ///
    /// The message that the promise came in says what address is connected to. Look at
    /// [`endpoint`](Self::endpoint) first if those who send such messages are not trusted.
    pub fn bind<N, T, TP, C>(
        self,
        transport: &FlowTransport<N, T, TP>,
        codec: C,
    ) -> ReplyPromise<Resp, C>
    where
        N: NetworkProvider,
        T: TimeProvider,
        TP: TaskProvider,
    {
        let core = Rc::downgrade(transport.core());
        let route = ReplyRoute::promised(&self.endpoint, core);
        ReplyPromise::new(Some(route), codec)
    }
}

/// A promise about to be made. Made by [`FlowTransport::promise`]; nobody waits for anything before
/// [`open`](Self::open).
#[must_use = "a promise does nothing until it is opened"]
pub struct NewPromise<'a, Resp, C> {
    transport: &'a dyn Outgoing,
    codec: C,
    timeout: Option<Duration>,
    deadline: Option<Duration>,
    response: PhantomData<fn() -> Resp>,
}

impl<N, T, TP> FlowTransport<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// A promise to be embedded in messages, for options and then [`open`](NewPromise::open). `codec`
    /// reads the answer: whoever gives it has to use the same.
    pub fn promise<Resp, C>(&self, codec: C) -> NewPromise<'_, Resp, C>
    where
        C: MessageCodec,
    {
        NewPromise {
            transport: self,
            codec,
            timeout: self.default_timeout,
            deadline: None,
            response: PhantomData,
        }
    }
}

impl<Resp, C> NewPromise<'_, Resp, C> {
    /// How long the answer is waited for, from [`open`](Self::open) on: as long as a call by default,
    /// 10 s. Then the future ends with [`ReplyError::Timeout`]. It does not travel: whoever answers
    /// does not know it. With `None` or `Duration::MAX` a promise that everybody lost waits until the
    /// transport is shut down.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }

    /// Waits no longer than the caller of the request that it is made on behalf of; see
    /// [`ReplyPromise::relay`].
    pub fn within<Other, D>(mut self, promise: &ReplyPromise<Other, D>) -> Self {
        self.deadline = earlier(self.deadline, promise.deadline());
        self
    }

    /// Opens it: gives what is to be embedded, and the future of the answer, which ends in any case,
    /// with its deadline if not before. Dropping the future closes the promise.
    ///
    /// The future gives what the answer says, `BrokenPromise` if a bound promise was dropped,
    /// `Serialization` if the answer cannot be read, `Timeout`, and `MaybeDelivered` if the transport
    /// is shut down. That whoever has the promise is gone, nobody says: the deadline ends it then.
    ///
    /// # Errors
    /// `NoAddress`: the transport has none that an answer could be sent to. `TooManyCalls`: it counts
    /// as a call ([`max_pending_calls`](super::FlowTransportBuilder::max_pending_calls)).
    /// `PeerConfig`, `Closed`.
    pub fn open(self) -> Result<(EmbeddedPromise<Resp>, ReplyFuture<Resp, C>), TransportError> {
        let core = self.transport.core();
        core.check_open()?;
        let address = core.address.get().ok_or(TransportError::NoAddress)?;
        let started = core.now();
        let own = self
            .timeout
            .and_then(|timeout| started.checked_add(timeout));
        let terms = CallTerms {
            token: moonpool_foundation::UID::NIL,
            started,
            deadline: earlier(own, self.deadline),
            patience: None,
        };
        self.transport.keep_deadline(&terms);
        let token = core
            .start_promise(terms, self.transport.jitter())
            .ok_or(TransportError::TooManyCalls)?;
        let call = PendingCall::new(core.clone(), token, token);
        if terms.deadline.is_some_and(|deadline| deadline <= started) {
            core.counters.calls_timed_out.add();
            let waker = core.calls.borrow_mut().fail(token, ReplyError::Timeout);
            debug_assert!(waker.is_none(), "nobody has polled this promise");
        }
        let promise = EmbeddedPromise {
            endpoint: Endpoint::new(address, token),
            response: PhantomData,
        };
        let record = CallRecord::begin(core, &promise.endpoint, None);
        let answer = ReplyFuture::new(Work::Once(call), record, token, self.codec);
        Ok((promise, answer))
    }
}

impl<Resp> Clone for EmbeddedPromise<Resp> {
    fn clone(&self) -> Self {
        *self
    }
}

/// The first answer counts, whoever gives it.
impl<Resp> Copy for EmbeddedPromise<Resp> {}

impl<Resp> PartialEq for EmbeddedPromise<Resp> {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
    }
}

impl<Resp> Eq for EmbeddedPromise<Resp> {}

impl<Resp> Serialize for EmbeddedPromise<Resp> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.endpoint.serialize(serializer)
    }
}

impl<'de, Resp> Deserialize<'de> for EmbeddedPromise<Resp> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            endpoint: Endpoint::deserialize(deserializer)?,
            response: PhantomData,
        })
    }
}

impl<Resp> fmt::Debug for EmbeddedPromise<Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedPromise")
            .field(&self.endpoint)
            .finish()
    }
}

impl<Resp, C> fmt::Debug for NewPromise<'_, Resp, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewPromise")
            .field("timeout", &self.timeout)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
