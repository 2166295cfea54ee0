//! What the `metrics` facade is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};
use moonpool::observability::metrics as names;
use moonpool::{
    Endpoint, JsonCodec, PeerConfig, Providers, QueueLimits, ReplyError, ReplyFuture,
    RequestStream, Serving, TimeProvider, UID, define_interface, send_request,
};

use crate::common::{Hosts, on_tokio, shut_down};

/// Keeps every value: sums of counters, gauges, and the values of histograms.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

struct Of(Kept, String);

impl Of {
    fn change(&self, change: impl FnOnce(&mut Vec<f64>)) {
        change(self.0.0.lock().unwrap().entry(self.1.clone()).or_default());
    }
    fn add(&self, value: f64) {
        self.change(|values| {
            let sum = values.pop().unwrap_or_default() + value;
            values.push(sum);
        });
    }
}

impl CounterFn for Of {
    fn increment(&self, value: u64) {
        self.add(f64::from(u32::try_from(value).unwrap()));
    }
    fn absolute(&self, _: u64) {
        panic!("nothing is set");
    }
}

impl GaugeFn for Of {
    fn increment(&self, value: f64) {
        self.add(value);
    }
    fn decrement(&self, value: f64) {
        self.add(-value);
    }
    fn set(&self, _: f64) {
        panic!("gauges of several transports add up");
    }
}

impl HistogramFn for Of {
    fn record(&self, value: f64) {
        self.change(|values| values.push(value));
    }
}

impl Kept {
    fn handle(&self, key: &Key) -> Arc<Of> {
        let labels: Vec<_> = key
            .labels()
            .map(|label| format!(" {}={}", label.key(), label.value()))
            .collect();
        Arc::new(Of(
            self.clone(),
            format!("{}{}", key.name(), labels.concat()),
        ))
    }

    fn values(&self, key: &str) -> Vec<f64> {
        self.0.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    fn value(&self, key: &str) -> f64 {
        self.values(key).first().copied().unwrap_or_default()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

define_interface! {
    Slow, id 0x510, { wait: u32 => u32 }
}

/// Four calls that end in four ways, and one to nowhere.
async fn some_calls<P: Providers>(hosts: Hosts<P>) {
    let server = hosts.serve().await;
    let address = server.local_address().unwrap();
    let slow = Slow::serve(&server, JsonCodec).unwrap();
    let serving = Serving::new(&server);
    let time = hosts.server.time().clone();
    drop(hosts.spawn_server(async move {
        let handler = async move |millis: u32, _: &_| {
            time.sleep(Duration::from_millis(millis.into())).await;
            match millis {
                0 => Err(ReplyError::application(1, "no")),
                millis => Ok(millis),
            }
        };
        serving.serve(slow.wait, handler).await;
    }));
    let client = hosts.connect();
    let slow = Slow::remote(&client, address, JsonCodec);
    assert_eq!(slow.wait(20).await, Ok(20));
    assert_eq!(slow.wait(0).await.unwrap_err().name(), "application");
    let call = slow.wait(60_000).timeout(Duration::from_millis(50));
    assert_eq!(call.await, Err(ReplyError::Timeout));
    drop(slow.wait(5).send().unwrap());
    let endpoint = slow.base_endpoint().adjusted(9);
    let lost: Result<u32, _> = moonpool::send_request(&client, &endpoint, 1, JsonCodec)
        .unwrap()
        .await;
    assert_eq!(lost, Err(ReplyError::EndpointNotFound));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

fn check(kept: &Kept) {
    let method = "interface=Slow method=wait";
    let of = |name: &str| kept.value(&format!("{name} {method}"));
    let ended = |outcome: &str| {
        kept.value(&format!(
            "{} {method} outcome={outcome}",
            names::CALLS_ENDED
        ))
    };
    assert_eq!(of(names::CALLS_STARTED), 4.0);
    for outcome in ["ok", "application", "timeout", "given_up"] {
        assert_eq!(ended(outcome), 1.0, "{outcome}");
    }
    let raw = "interface= method=";
    let lost = format!("{} {raw} outcome=endpoint_not_found", names::CALLS_ENDED);
    assert_eq!(kept.value(&lost), 1.0);
    assert_eq!(kept.values(names::CALLS_IN_FLIGHT), [0.0]);
    let durations = kept.values(&format!("{} {method}", names::CALL_DURATION));
    assert_eq!(durations.len(), 4);
    assert!(
        durations[0] >= 0.02 && durations[2] >= 0.05,
        "{durations:?}"
    );
    let served = |outcome: &str| {
        kept.value(&format!(
            "{} {method} outcome={outcome}",
            names::REQUESTS_SERVED
        ))
    };
    assert_eq!((served("ok"), served("application")), (1.0, 1.0));
    assert!(served("cancelled") >= 1.0);
    let handled = kept.values(&format!("{} {method}", names::HANDLER_DURATION));
    assert!(handled.len() >= 3 && handled[0] >= 0.02, "{handled:?}");
    let refused = format!("{} reason=endpoint_not_found", names::REQUESTS_REFUSED);
    assert_eq!(kept.value(&refused), 1.0);
    // Both ends are in this process.
    assert_eq!(kept.value(names::CONNECTIONS), 2.0);
    assert!(kept.value(names::CONNECTION_ATTEMPTS) >= 1.0);
    assert!(kept.value(names::PACKETS_SENT) >= 8.0);
    assert_eq!(
        kept.value(names::PACKETS_SENT),
        kept.value(names::PACKETS_RECEIVED)
    );
    assert!(kept.value(names::BYTES_RECEIVED) > 500.0);
    assert!(kept.value(names::BYTES_SENT) >= kept.value(names::BYTES_RECEIVED));
    assert!(!kept.values(names::ROUND_TRIP).is_empty());
    assert!(kept.value(names::SESSIONS_ENDED) >= 1.0);
}

#[test]
fn calls_handlers_and_peers_are_measured_on_real_tcp() {
    let kept = Kept::default();
    with_local_recorder(&kept, || on_tokio(some_calls));
    check(&kept);
}

#[cfg(feature = "sim")]
#[test]
fn calls_handlers_and_peers_are_measured_in_simulation() {
    let kept = Kept::default();
    with_local_recorder(&kept, || {
        crate::common::simulate(1, &some_calls);
    });
    check(&kept);
}

/// One that nobody may send, one that finds no room for its answer, and one that finds none in its
/// stream's queue.
async fn some_refusals<P: Providers>(hosts: Hosts<P>) {
    let config = PeerConfig {
        answer_packets: 2,
        ..PeerConfig::default()
    };
    let server = hosts.server_builder().peer_config(config);
    let server = server.build_listening().await.unwrap();
    let address = server.local_address().unwrap();
    let private = server.register_private_handler::<u32, _>(UID::new(0x510_0001, 1), JsonCodec);
    let limits = QueueLimits {
        messages: 1,
        ..QueueLimits::default()
    };
    let mut crowded = RequestStream::<u32, _>::with_limits(JsonCodec, limits);
    crowded.make_dynamic_endpoint(&server).unwrap();
    let roomy = server.register_handler::<u32, _>(UID::new(0x510_0002, 1), JsonCodec);
    let client = hosts.connect();
    let ask = |stream: &RequestStream<u32, JsonCodec>| -> ReplyFuture<u32, _> {
        let token = stream.endpoint().unwrap().token;
        send_request(&client, &Endpoint::new(address, token), 1, JsonCodec).unwrap()
    };
    assert_eq!(ask(&private).await, Err(ReplyError::Unauthorized));
    let first = ask(&crowded);
    assert_eq!(ask(&crowded).await, Err(ReplyError::Overloaded));
    let second = ask(&roomy);
    assert_eq!(ask(&roomy).await, Err(ReplyError::Overloaded));
    drop((first, second));
    shut_down::<P>(&client).await;
    shut_down::<P>(&server).await;
}

#[test]
fn refused_messages_are_counted_by_their_reason() {
    let kept = Kept::default();
    with_local_recorder(&kept, || on_tokio(some_refusals));
    let refused = |reason| kept.value(&format!("{} reason={reason}", names::REQUESTS_REFUSED));
    assert_eq!((refused("unauthorized"), refused("overloaded")), (1.0, 2.0));
}

#[cfg(feature = "sim")]
#[test]
fn a_recorder_and_a_subscriber_change_no_step() {
    for seed in 0..10 {
        let digest = crate::common::simulate(seed, &some_calls);
        let recorded = with_local_recorder(&Kept::default(), || {
            crate::capture::captured(|| crate::common::simulate(seed, &some_calls))
        });
        assert_eq!(recorded, digest, "seed {seed}");
    }
}
