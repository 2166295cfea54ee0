//! [`ReplyPromise`].

use std::fmt;
use std::marker::PhantomData;

use moonpool_traits::MessageCodec;
use serde::Serialize;

use super::reply_error::ReplyError;
use super::reply_route::ReplyRoute;

/// The duty to answer one request.
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

    /// Whether somebody waits for the answer: true for a request, false for a one-way message.
    #[must_use]
    pub fn expects_answer(&self) -> bool {
        self.route.is_some()
    }

    /// Answers with an error. Choose the variant by what the caller may conclude from it:
    /// [`ReplyError::application`] is for answers of your own, `Overloaded` and `Unauthorized` say
    /// that nothing was executed.
    pub fn send_error(self, error: ReplyError) {
        if let Some(route) = self.route {
            route.send_error(&error);
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

impl<Resp, C> fmt::Debug for ReplyPromise<Resp, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyPromise")
            .field("route", &self.route)
            .finish_non_exhaustive()
    }
}
