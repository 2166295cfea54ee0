//! [`ReplyError`]: how a request ended without its reply.

use serde::{Deserialize, Serialize};

/// Why a request has no reply, and what that says about its execution.
///
/// A call ends in exactly one of these ways or with its reply, also when everything around it dies.
/// The variants fall into three groups, and the group decides what a caller may do:
///
/// - *surely not executed*: calling again cannot execute the request twice;
/// - *unknown*: calling again may execute it twice, which is for idempotent requests only;
/// - *answered*: the server saw the request and says no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The server took the request and dropped its promise unanswered: the handler returned early,
    /// was cancelled, panicked, or its stream was dropped. What it did by then stands, so the
    /// request may be executed in part. Ask the server for its state before calling again.
    #[error("the server dropped the request without an answer")]
    BrokenPromise,
    /// No byte of the request was handed to a socket, or none since the server said that it had not
    /// got it: surely not executed. Call again, here or elsewhere.
    ///
    /// No connection took the request before the call's patience or its deadline was over, or none
    /// could: the address is none to send to, or this process's own transport is shut down.
    ///
    /// Why there was no connection is known to the peer, for as long as it is kept:
    /// [`FlowTransport::peer_metrics`](super::FlowTransport::peer_metrics) gives its last
    /// [`ConnectionError`](crate::ConnectionError), and each failed attempt is logged with its cause.
    #[error("the request was never sent: no connection took it")]
    ConnectionFailed,
    /// The request was on its way when the session or the transport ended, or no connection could
    /// be made for too long: executed or not, unknown. Call again only if executing twice does no
    /// harm.
    #[error("the session ended before an answer came; the request may have been executed")]
    MaybeDelivered,
    /// The deadline passed without an answer: executed or not, unknown. Call again only if
    /// executing twice does no harm. A request of which nothing was sent by then ends as
    /// [`ConnectionFailed`](Self::ConnectionFailed) in its place.
    #[error("the deadline passed before an answer came")]
    Timeout,
    /// One end could not decode what the other encoded, or not encode its own message. The text
    /// says which. The types or codecs of the two ends differ: calling again will fail again. If
    /// it was the request, it was not executed; if it was the reply, it was.
    #[error("serialization failed: {message}")]
    Serialization {
        /// What the codec says, shortened to [`MAX_ERROR_TEXT`](Self::MAX_ERROR_TEXT) bytes.
        message: String,
    },
    /// Nobody is registered for the endpoint at its address: surely not executed. The service has
    /// moved, is not up yet, or its stream was dropped; look the endpoint up again.
    #[error("nobody is registered for the endpoint")]
    EndpointNotFound,
    /// The server does not let this caller use the endpoint: surely not executed. Calling again
    /// will not help.
    #[error("the caller is not allowed to use the endpoint")]
    Unauthorized,
    /// A queue on the way was full, or the server is shutting down: surely not executed. Call again
    /// after a pause, or elsewhere.
    #[error("a queue is full, or the server is shutting down")]
    Overloaded,
    /// The request is larger than both ends allow: surely not executed. Send less at a time, or
    /// raise the limit at both ends.
    #[error("the request is larger than the limit")]
    PayloadTooLarge,
    /// The request was executed, but its reply is larger than both ends allow. Ask for less at a
    /// time, or raise the limit at both ends.
    #[error("the reply is larger than the limit")]
    ReplyTooLarge,
    /// The caller has given up on the request. Only the server's side sees this: the caller of a
    /// handler that answers with it gets [`BrokenPromise`](Self::BrokenPromise).
    #[error("the request was cancelled by its caller")]
    Cancelled,
    /// The handler has done nothing for the request, and does not want to. Only the server's side
    /// sees this: the caller gets the [`Overloaded`](Self::Overloaded) or
    /// [`Unauthorized`](Self::Unauthorized) that it says, surely not executed.
    #[error("the handler refuses: {0}")]
    Refused(Refusal),
    /// The handler's own answer is no. What to do is between the application's two ends.
    #[error("application error {code}: {message}")]
    Application {
        /// The application's number for it.
        code: u32,
        /// The application's words for it.
        message: String,
    },
}

/// What a handler says that refuses a request unexecuted: see [`ReplyError::Refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is too much to do: the caller gets [`ReplyError::Overloaded`].
    #[error("there is too much to do")]
    Overloaded,
    /// The caller may not ask for this: it gets [`ReplyError::Unauthorized`].
    #[error("the caller may not ask for this")]
    Unauthorized,
}

impl ReplyError {
    /// Texts that the library itself puts into an error are cut to this many bytes, so that a
    /// refusal has a bounded size whatever a codec has to say.
    pub const MAX_ERROR_TEXT: usize = 512;

    /// An answer of the application's own.
    pub fn application(code: u32, message: impl Into<String>) -> Self {
        Self::Application {
            code,
            message: message.into(),
        }
    }

    /// Whether the request was surely not executed, so that calling again cannot execute it twice.
    ///
    /// `Serialization` gives false: the variant does not say which end failed. So does
    /// `Application`, because the handler ran.
    #[must_use]
    pub fn is_surely_not_executed(&self) -> bool {
        match self {
            Self::ConnectionFailed
            | Self::EndpointNotFound
            | Self::Unauthorized
            | Self::Overloaded
            | Self::PayloadTooLarge
            | Self::Refused(_) => true,
            Self::BrokenPromise
            | Self::MaybeDelivered
            | Self::Timeout
            | Self::Serialization { .. }
            | Self::ReplyTooLarge
            | Self::Cancelled
            | Self::Application { .. } => false,
        }
    }

    /// The variant's name for logs and metrics, in `snake_case`. Stable; an unknown one may come with
    /// a new variant.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::BrokenPromise => "broken_promise",
            Self::ConnectionFailed => "connection_failed",
            Self::MaybeDelivered => "maybe_delivered",
            Self::Timeout => "timeout",
            Self::Serialization { .. } => "serialization",
            Self::EndpointNotFound => "endpoint_not_found",
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
            Self::PayloadTooLarge => "payload_too_large",
            Self::ReplyTooLarge => "reply_too_large",
            Self::Cancelled => "cancelled",
            Self::Refused(_) => "refused",
            Self::Application { .. } => "application",
        }
    }

    /// What the caller gets when a handler answers with this error.
    ///
    /// That a request was not executed, a handler says with [`Refused`](Self::Refused) alone: what it
    /// passes on from a call of its own is about that call's request, and its own caller must not
    /// take it for a licence to repeat what the handler did by then.
    pub(crate) fn into_answer(self) -> Self {
        match self {
            Self::Refused(Refusal::Overloaded) => Self::Overloaded,
            Self::Refused(Refusal::Unauthorized) => Self::Unauthorized,
            Self::ConnectionFailed
            | Self::EndpointNotFound
            | Self::Unauthorized
            | Self::Overloaded
            | Self::PayloadTooLarge
            | Self::Cancelled => Self::BrokenPromise,
            Self::BrokenPromise
            | Self::MaybeDelivered
            | Self::Timeout
            | Self::Serialization { .. }
            | Self::ReplyTooLarge
            | Self::Application { .. } => self,
        }
    }

    /// What a caller is told when this arrives as its answer: other releases send what their handlers
    /// say.
    pub(crate) fn into_outcome(self) -> Self {
        match self {
            Self::Cancelled => Self::BrokenPromise,
            error => error,
        }
    }

    pub(crate) fn serialization(what: &str, error: &dyn std::fmt::Display) -> Self {
        let mut message = format!("{what}: {error}");
        let end = message.floor_char_boundary(Self::MAX_ERROR_TEXT);
        message.truncate(end);
        Self::Serialization { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_texts_are_cut_at_a_character() {
        let ReplyError::Serialization { message } =
            ReplyError::serialization("request", &"é".repeat(2000))
        else {
            panic!("another variant");
        };
        assert!(message.len() <= ReplyError::MAX_ERROR_TEXT);
        assert!(message.len() > ReplyError::MAX_ERROR_TEXT - 4);
        assert!(message.starts_with("request: é") && message.ends_with('é'));
    }

    #[test]
    fn errors_travel_through_serde() {
        let error = ReplyError::application(7, "division by zero");
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<ReplyError>(&json).unwrap(), error);
    }
}
