//! The names under which moonpool logs: targets, spans, and the fields of spans and events.
//!
//! They are stable: dashboards and filters may rest on them. What each says, and how often it comes,
//! is described in `docs/observability.md`, which also has the names of the metrics (feature
//! `metrics`).

pub use moonpool_foundation::network::peer::observability::{PEER_TARGET, fields as peer_fields};

/// The `tracing` target of the spans of calls and handlers.
pub const RPC_TARGET: &str = "moonpool::rpc";

/// The span of a call, from the moment it is sent until its outcome is known or it is given up.
/// Level `DEBUG`.
pub const CALL_SPAN: &str = "moonpool.call";

/// The span of a handler that [`Serving`](crate::Serving) runs. Level `DEBUG`.
pub const SERVE_SPAN: &str = "moonpool.serve";

/// The outcome of a call that gave a reply, and of a handler that gave one.
pub const OK: &str = "ok";

/// The outcome of a call whose future was dropped before it was known.
pub const GIVEN_UP: &str = "given_up";

/// The outcome of a call whose request was not accepted for sending:
/// [`NotSent`](crate::NotSent) says why.
pub const NOT_SENT: &str = "not_sent";

/// The fields of both spans.
pub mod fields {
    /// Whom the call goes to, `ip:port`; whom the request came from, or `local`.
    pub const PEER: &str = "peer";
    /// The interface's name, as `define_interface!` has it. Missing for raw endpoints.
    pub const INTERFACE: &str = "interface";
    /// The method's name. Missing for raw endpoints.
    pub const METHOD: &str = "method";
    /// The endpoint's token, 32 hex digits.
    pub const TOKEN: &str = "token";
    /// The number of the attempt, from 1. Of calls only.
    pub const ATTEMPT: &str = "attempt";
    /// How it ended: [`OK`](super::OK), [`ReplyError::name`](crate::ReplyError::name), or
    /// [`GIVEN_UP`](super::GIVEN_UP) and [`NOT_SENT`](super::NOT_SENT).
    pub const OUTCOME: &str = "outcome";
    /// How long it took, in seconds, by the provider's clock.
    pub const DURATION: &str = "duration";
    /// The W3C trace context of the request, in the header's form, if it has one.
    pub const TRACEPARENT: &str = "traceparent";
}

/// The metrics of calls and handlers, and their labels (feature `metrics`).
#[cfg(feature = "metrics")]
pub mod metrics {
    pub use moonpool_foundation::network::peer::observability::metrics::*;

    /// Counter: calls that began. Labels `interface`, `method`.
    pub const CALLS_STARTED: &str = "moonpool_calls_started_total";
    /// Counter: calls that ended. Labels `interface`, `method`, `outcome`.
    pub const CALLS_ENDED: &str = "moonpool_calls_ended_total";
    /// Histogram, seconds: from a call's start to its end. Labels `interface`, `method`.
    pub const CALL_DURATION: &str = "moonpool_call_duration_seconds";
    /// Gauge: calls that began and did not end.
    pub const CALLS_IN_FLIGHT: &str = "moonpool_calls_in_flight";
    /// Counter: requests that a [`Serving`](crate::Serving) handled. Labels `interface`, `method`,
    /// `outcome`.
    pub const REQUESTS_SERVED: &str = "moonpool_requests_served_total";
    /// Histogram, seconds: how long handlers ran. Labels `interface`, `method`.
    pub const HANDLER_DURATION: &str = "moonpool_handler_duration_seconds";
    /// Counter: messages that no handler gets. Label `reason`: `overloaded` (no room for the answer,
    /// or in the stream's queue), `unauthorized`, `endpoint_not_found`.
    pub const REQUESTS_REFUSED: &str = "moonpool_requests_refused_total";

    /// Label: the interface's name, empty for a raw endpoint.
    pub const INTERFACE: &str = "interface";
    /// Label: the method's name, empty for a raw endpoint.
    pub const METHOD: &str = "method";
    /// Label: as the field [`OUTCOME`](super::fields::OUTCOME) of spans.
    pub const OUTCOME: &str = "outcome";
    /// Label: why no handler gets a message.
    pub const REASON: &str = "reason";
}
