//! What simulated code logs carries virtual time, seed, process and task.
//!
//! Alone in its binary: `tracing` asks the thread that first meets a callsite whether anyone listens,
//! and tests of other threads would answer for this one.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moonpool_foundation::{SimWorld, TaskProvider, TimeProvider};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the fields of every span, in the order they were made.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{field}={value:?} "));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        span.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn every_poll_is_stamped() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let world = SimWorld::new_with_seed(77);
        let node = world.add_process("node");
        let time = node.time_provider();
        node.task_provider().spawn_task("sleeper", async move {
            time.sleep(Duration::from_secs(2)).await;
        });
        world.run_until_empty().unwrap();
    });
    let seen = spans.0.lock().unwrap().clone();
    assert_eq!(
        seen,
        [
            "at=0ns seed=77 process=node task=sleeper ",
            "at=2s seed=77 process=node task=sleeper "
        ]
    );
}
