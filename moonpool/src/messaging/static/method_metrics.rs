//! What a transport tells the `metrics` facade of calls and handlers (feature `metrics`).
//!
//! Handles are asked of the recorder once: per transport, and per method when it is first used. A
//! method's names come from the program's text, so there is a bounded number of labels.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::method_name::MethodName;
use crate::observability::metrics as names;

/// A transport's handles.
#[derive(Default)]
pub(crate) struct Instruments {
    in_flight: OnceCell<Gauge>,
    calls: RefCell<BTreeMap<Option<MethodName>, Rc<CallMetrics>>>,
    served: RefCell<BTreeMap<Option<MethodName>, Rc<ServeMetrics>>>,
    refused: RefCell<BTreeMap<&'static str, Counter>>,
}

impl Instruments {
    /// Counts a call that begins.
    pub(crate) fn begin_call(&self, name: Option<MethodName>) -> Rc<CallMetrics> {
        let metrics = {
            let mut calls = self.calls.borrow_mut();
            let made = calls
                .entry(name)
                .or_insert_with(|| Rc::new(CallMetrics::new(name)));
            made.clone()
        };
        metrics.started.increment(1);
        self.in_flight().increment(1.0);
        metrics
    }

    /// What is counted of a method's handlers.
    pub(crate) fn served(&self, name: Option<MethodName>) -> Rc<ServeMetrics> {
        let mut served = self.served.borrow_mut();
        let made = served
            .entry(name)
            .or_insert_with(|| Rc::new(ServeMetrics::new(name)));
        made.clone()
    }

    /// Counts a message that no handler gets.
    pub(crate) fn refuse(&self, reason: &'static str) {
        let mut refused = self.refused.borrow_mut();
        let counter = refused
            .entry(reason)
            .or_insert_with(|| counter!(names::REQUESTS_REFUSED, names::REASON => reason));
        counter.increment(1);
    }

    fn in_flight(&self) -> &Gauge {
        self.in_flight
            .get_or_init(|| gauge!(names::CALLS_IN_FLIGHT))
    }
}

/// Of one method's calls.
pub(crate) struct CallMetrics {
    started: Counter,
    ended: Outcomes,
    duration: Histogram,
}

impl CallMetrics {
    fn new(name: Option<MethodName>) -> Self {
        let (interface, method) = labels(name);
        Self {
            started: counter!(
                names::CALLS_STARTED,
                names::INTERFACE => interface, names::METHOD => method
            ),
            ended: Outcomes::new(names::CALLS_ENDED, name),
            duration: histogram!(
                names::CALL_DURATION,
                names::INTERFACE => interface, names::METHOD => method
            ),
        }
    }

    /// A call ended.
    pub(crate) fn end(&self, of: &Instruments, outcome: &'static str, duration: Duration) {
        of.in_flight().decrement(1.0);
        self.ended.count(outcome);
        self.duration.record(duration.as_secs_f64());
    }
}

/// Of one method's handlers.
pub(crate) struct ServeMetrics {
    ended: Outcomes,
    duration: Histogram,
}

impl ServeMetrics {
    fn new(name: Option<MethodName>) -> Self {
        let (interface, method) = labels(name);
        Self {
            ended: Outcomes::new(names::REQUESTS_SERVED, name),
            duration: histogram!(
                names::HANDLER_DURATION,
                names::INTERFACE => interface, names::METHOD => method
            ),
        }
    }

    /// A handler ended.
    pub(crate) fn end(&self, outcome: &'static str, duration: Duration) {
        self.ended.count(outcome);
        self.duration.record(duration.as_secs_f64());
    }
}

/// A counter per outcome, made when it comes first.
struct Outcomes {
    metric: &'static str,
    name: Option<MethodName>,
    counters: RefCell<Vec<(&'static str, Counter)>>,
}

impl Outcomes {
    fn new(metric: &'static str, name: Option<MethodName>) -> Self {
        Self {
            metric,
            name,
            counters: RefCell::default(),
        }
    }

    fn count(&self, outcome: &'static str) {
        let mut counters = self.counters.borrow_mut();
        // A handful at most, and nearly always the first.
        if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == outcome) {
            return counter.increment(1);
        }
        let (interface, method) = labels(self.name);
        let counter = counter!(
            self.metric,
            names::INTERFACE => interface, names::METHOD => method, names::OUTCOME => outcome
        );
        counter.increment(1);
        counters.push((outcome, counter));
    }
}

fn labels(name: Option<MethodName>) -> (&'static str, &'static str) {
    name.map_or(("", ""), |name| (name.interface, name.method))
}
