//! What simulated code logs carries virtual time, seed, process and task.
//!
//! Alone in its binary: `tracing` asks the thread that first meets a callsite whether anyone listens,
//! and tests of other threads would answer for this one.
#![cfg(feature = "sim")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moonpool_foundation::{
    NetworkConfiguration, NetworkProvider, SimWorld, TaskProvider, TcpListenerTrait, TimeProvider,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the fields of every span, in the order they were made, and the level and fields of events
/// of sockets.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<String>>>);

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
    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields(format!("{} ", metadata.level()));
        event.record(&mut fields);
        self.1.lock().unwrap().push(fields.0);
    }
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

#[test]
fn what_happens_to_a_connection_is_logged_with_its_number_and_at_its_level() {
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        let config = NetworkConfiguration::disabled();
        let world = SimWorld::new_with_network_config(config).unwrap();
        let network = world.network_provider();
        world
            .block_on(async {
                let listener = network.bind("127.0.0.1:80").await.unwrap();
                let mut dialled = network.connect("127.0.0.1:80").await.unwrap();
                let (mut accepted, _) = listener.accept().await.unwrap();
                dialled.write_all(b"hello").await.unwrap();
                accepted.read_u8().await.unwrap();
                let connection = world.connections()[0];
                world.cut_connection(connection, Duration::from_secs(1));
                world.close_connection_abort(connection);
                accepted.read_exact(&mut [0; 5]).await.unwrap_err();
            })
            .unwrap();
    });
    let events = spans.1.lock().unwrap().clone();
    let of_connections: Vec<_> = events
        .iter()
        .filter(|event| event.contains("connection="))
        .map(|event| event.split(" connection=0 ").collect::<Vec<_>>())
        .collect();
    assert!(
        of_connections.iter().all(|event| event.len() == 2),
        "{of_connections:?}"
    );
    for (level, text) in [
        ("INFO", "connection established"),
        ("TRACE", "bytes=5"),
        ("TRACE", "bytes=1"),
        ("DEBUG", "is cut"),
        ("DEBUG", "read fails"),
        ("INFO", "connection closed"),
    ] {
        let found = events
            .iter()
            .any(|event| event.starts_with(level) && event.contains(text));
        assert!(found, "no {level} {text} in {events:#?}");
    }
}
