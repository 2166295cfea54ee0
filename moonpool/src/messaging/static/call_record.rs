//! [`CallRecord`] and [`ServeRecord`]: what spans and metrics learn of one call and of one handler.
//!
//! With nobody listening each is a few words that are never looked at: the clock is not read, and
//! nothing is formatted or allocated.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{Endpoint, TimeProvider, UID};
use tracing::Span;
use tracing::field::Empty;

use super::core::Core;
#[cfg(feature = "metrics")]
use super::method_metrics::{CallMetrics, ServeMetrics};
use super::method_name::MethodName;
use super::reply_error::ReplyError;
use super::reply_promise::ReplyPromise;
use crate::observability::{GIVEN_UP, OK, fields};

static NO_SPAN: Span = Span::none();

/// One call, from its start to its outcome. Dropped before that, it was given up.
pub(crate) struct CallRecord(Option<Kept<Watched>>);

/// With metrics somebody watches every call, else hardly any.
#[cfg(feature = "metrics")]
type Kept<T> = T;
#[cfg(not(feature = "metrics"))]
type Kept<T> = Box<T>;

/// What is kept of a call that somebody watches.
struct Watched {
    /// `None`: nobody wants it. A span is larger than all the rest.
    span: Option<Box<Span>>,
    /// `None`: the outcome was told.
    started: Cell<Option<Started>>,
    attempt: Cell<u32>,
    #[cfg(feature = "metrics")]
    metrics: Rc<CallMetrics>,
}

struct Started {
    at: Duration,
    /// For the clock, and the gauge of calls in flight.
    core: Rc<Core>,
}

impl CallRecord {
    /// A call begins.
    pub(crate) fn begin(core: &Rc<Core>, to: &Endpoint, name: Option<MethodName>) -> Self {
        let span = tracing::debug_span!(
            target: "moonpool::rpc",
            "moonpool.call",
            peer = %to.address,
            interface = name.map(|name| name.interface),
            method = name.map(|name| name.method),
            token = %to.token,
            attempt = 1_u32,
            outcome = Empty,
            duration = Empty,
        );
        if span.is_disabled() && cfg!(not(feature = "metrics")) {
            return Self(None);
        }
        let watched = Watched {
            span: (!span.is_disabled()).then(|| Box::new(span)),
            started: Cell::new(Some(Started {
                at: core.now(),
                core: core.clone(),
            })),
            attempt: Cell::new(1),
            #[cfg(feature = "metrics")]
            metrics: core.instruments.begin_call(name),
        };
        Self(Some(Kept::<Watched>::from(watched)))
    }

    /// To be entered for each poll.
    #[inline]
    pub(crate) fn span(&self) -> &Span {
        match &self.0 {
            Some(watched) => watched.span(),
            None => &NO_SPAN,
        }
    }

    /// An attempt with this number is being made.
    #[inline]
    pub(crate) fn note_attempt(&self, attempt: u32) {
        if let Some(watched) = &self.0
            && attempt != watched.attempt.replace(attempt)
        {
            watched.span().record(fields::ATTEMPT, attempt);
        }
    }

    /// The outcome is known.
    #[inline]
    pub(crate) fn end(&self, outcome: Result<(), &ReplyError>) {
        if let Some(watched) = &self.0 {
            watched.end_as(outcome_name(outcome));
        }
    }

    /// The call is over like this.
    #[inline]
    pub(crate) fn end_as(&self, outcome: &'static str) {
        if let Some(watched) = &self.0 {
            watched.end_as(outcome);
        }
    }
}

impl Watched {
    fn span(&self) -> &Span {
        self.span.as_deref().unwrap_or(&NO_SPAN)
    }

    fn end_as(&self, outcome: &'static str) {
        let Some(Started { at, core }) = self.started.take() else {
            return;
        };
        let duration = core.now().saturating_sub(at);
        record_end(self.span(), outcome, duration);
        #[cfg(feature = "metrics")]
        self.metrics.end(&core.instruments, outcome, duration);
    }
}

impl Drop for CallRecord {
    #[inline]
    fn drop(&mut self) {
        self.end_as(GIVEN_UP);
    }
}

/// The run of one handler. Dropped before its outcome is known, it broke its promise.
pub(crate) struct ServeRecord<T: TimeProvider> {
    time: T,
    span: Span,
    started: Option<Duration>,
    #[cfg(feature = "metrics")]
    metrics: Rc<ServeMetrics>,
}

/// What all requests of a stream have in common.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) name: Option<MethodName>,
    pub(crate) token: Option<UID>,
    #[cfg(feature = "metrics")]
    pub(crate) metrics: Rc<ServeMetrics>,
}

impl<T: TimeProvider> ServeRecord<T> {
    /// A handler begins.
    pub(crate) fn begin<Resp, C>(served: &Served, reply: &ReplyPromise<Resp, C>, time: T) -> Self {
        let name = served.name;
        let span = tracing::debug_span!(
            target: "moonpool::rpc",
            "moonpool.serve",
            peer = reply.peer_name(),
            interface = name.map(|name| name.interface),
            method = name.map(|name| name.method),
            token = served.token.map(tracing::field::display),
            outcome = Empty,
            duration = Empty,
            traceparent = reply.trace_context().map(tracing::field::display),
        );
        let is_wanted = cfg!(feature = "metrics") || !span.is_disabled();
        Self {
            started: is_wanted.then(|| time.now()),
            time,
            span,
            #[cfg(feature = "metrics")]
            metrics: served.metrics.clone(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// The handler gave its answer, or nobody waits for it any more.
    pub(crate) fn end(&mut self, outcome: Result<(), &ReplyError>) {
        self.end_as(outcome_name(outcome));
    }

    fn end_as(&mut self, outcome: &'static str) {
        let Some(started) = self.started.take() else {
            return;
        };
        let duration = self.time.now().saturating_sub(started);
        record_end(&self.span, outcome, duration);
        #[cfg(feature = "metrics")]
        self.metrics.end(outcome, duration);
    }
}

impl<T: TimeProvider> Drop for ServeRecord<T> {
    fn drop(&mut self) {
        self.end_as(ReplyError::BrokenPromise.name());
    }
}

fn outcome_name(outcome: Result<(), &ReplyError>) -> &'static str {
    outcome.map_or_else(ReplyError::name, |()| OK)
}

fn record_end(span: &Span, outcome: &'static str, duration: Duration) {
    if !span.is_disabled() {
        span.record(fields::OUTCOME, outcome);
        span.record(fields::DURATION, duration.as_secs_f64());
    }
}
