//! The service that is attacked, and its honest clients.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::{PeerConfig, TransportStats};
use serde::{Deserialize, Serialize};

use super::attacks::WORK;

/// Bytes of the largest payload.
pub(crate) const MAX_PAYLOAD: u32 = 64 * 1024;

/// Bytes of the answers that attackers ask for.
pub(crate) const ANSWER_BYTES: usize = 32 * 1024;

/// Bytes of answers that one session may leave unacknowledged.
pub(crate) const SESSION_ANSWERS: usize = 4 * 1024 * 1024;

/// Accepted connections.
pub(crate) const MAX_CONNECTIONS: usize = 4_096;

pub(crate) type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) number: u64,
    pub(crate) answer_bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// A listening transport whose limits are small enough to be reached.
pub(crate) async fn listen<P: Providers>(
    providers: &P,
    address: NetworkAddress,
    public: Option<NetworkAddress>,
) -> Result<Rc<Transport<P>>, BuildError> {
    let mut builder = FlowTransportBuilder::from_providers(providers)
        .local_address(address)
        .max_incoming_connections(MAX_CONNECTIONS)
        .peer_config(PeerConfig {
            max_payload_bytes: MAX_PAYLOAD,
            answer_packets: 4_096,
            answer_bytes: SESSION_ANSWERS,
            patience: Some(Duration::from_secs(3)),
            ..PeerConfig::default()
        });
    if let Some(public) = public {
        builder = builder.public_address(public);
    }
    builder.build_listening().await
}

/// Answers each request at once, until the transport closes.
pub(crate) async fn serve<P: Providers>(transport: Rc<Transport<P>>) {
    let requests = transport.register_handler::<Work, _>(WORK, JsonCodec);
    while let Some((work, reply)) = requests
        .recv_with_transport::<_, _, _, Done>(&transport)
        .await
    {
        reply.send(Done {
            number: work.number,
            text: "x".repeat(work.answer_bytes.min(ANSWER_BYTES)),
        });
    }
}

pub(crate) fn client<P: Providers>(providers: &P) -> Rc<Transport<P>> {
    FlowTransportBuilder::from_providers(providers).build()
}

/// What honest clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    latencies: Rc<RefCell<Vec<Duration>>>,
    failed: Rc<RefCell<BTreeMap<String, u64>>>,
}

impl Seen {
    pub(crate) fn done(&self) -> usize {
        self.latencies.borrow().len()
    }

    /// Endings other than the right answer, and how many there were of each.
    pub(crate) fn failed(&self) -> BTreeMap<String, u64> {
        self.failed.borrow().clone()
    }

    /// The latency that this share of the calls was not above.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut latencies = self.latencies.borrow().clone();
        latencies.sort_unstable();
        let last = latencies.len().saturating_sub(1);
        let at = (latencies.len() * percent / 100).min(last);
        latencies.get(at).copied().unwrap_or_default()
    }

    fn note(&self, latency: Duration, ending: Result<(), String>) {
        match ending {
            Ok(()) => self.latencies.borrow_mut().push(latency),
            Err(ending) => *self.failed.borrow_mut().entry(ending).or_default() += 1,
        }
    }
}

/// One call; what it came to.
async fn call<P: Providers>(
    transport: &Transport<P>,
    server: NetworkAddress,
    number: u64,
) -> Result<(), String> {
    let endpoint = Endpoint::new(server, WORK);
    let work = Work {
        number,
        answer_bytes: 64,
    };
    let reply = send_request::<_, Done, _, _, _, _>(transport, &endpoint, work, JsonCodec);
    let reply = reply.map_err(|not_sent| not_sent.error.to_string())?;
    match reply.await {
        Ok(done) if done.number == number => Ok(()),
        Ok(done) => Err(format!("answer to {} instead of {number}", done.number)),
        Err(error) => Err(error.to_string()),
    }
}

/// Calls one after the other on one session, until told to stop.
pub(crate) async fn settled<P: Providers>(
    providers: P,
    server: NetworkAddress,
    seen: Seen,
    is_over: Rc<Cell<bool>>,
) {
    let transport = client(&providers);
    // Its connection is there before it is measured.
    let mut number = 0;
    drop(call::<P>(&transport, server, number).await);
    while !is_over.get() {
        number += 1;
        let began = providers.time().now();
        let ending = call::<P>(&transport, server, number).await;
        seen.note(providers.time().now() - began, ending);
        providers.time().sleep(Duration::from_millis(1)).await;
    }
    transport.shutdown(Duration::from_secs(1)).await;
}

/// Connects anew for each call, until told to stop.
pub(crate) async fn newcomer<P: Providers>(
    providers: P,
    server: NetworkAddress,
    seen: Seen,
    is_over: Rc<Cell<bool>>,
) {
    let mut number = 0;
    while !is_over.get() {
        number += 1;
        let began = providers.time().now();
        let transport = client(&providers);
        let ending = call::<P>(&transport, server, number).await;
        seen.note(providers.time().now() - began, ending);
        transport.shutdown(Duration::from_secs(1)).await;
        providers.time().sleep(Duration::from_millis(5)).await;
    }
}

/// The gauges that hostile clients could leave above 0, by name.
pub(crate) fn gauges(stats: &TransportStats) -> Vec<(&'static str, usize)> {
    vec![
        ("peers", stats.peers),
        ("incoming_connections", stats.incoming_connections),
        ("incoming_sessions", stats.incoming_sessions),
        ("endpoints", stats.endpoints),
        ("pending_calls", stats.pending_calls),
        ("open_requests", stats.open_requests),
        ("queued_packets", stats.queued_packets),
        ("queued_bytes", stats.queued_bytes),
        ("local_packets", stats.local_packets),
        ("local_bytes", stats.local_bytes),
        ("tasks", stats.tasks),
    ]
}

/// Bytes of answers that one session may come to hold: up to its limit, and the answer that passes it.
pub(crate) fn most_answer_bytes() -> u64 {
    u64::try_from(SESSION_ANSWERS + ANSWER_BYTES).unwrap_or(u64::MAX)
}

/// Bytes of refusals that one session may come to hold: up to its limit, and the packet of 16 KiB that
/// passes it.
pub(crate) fn most_refusal_bytes() -> u64 {
    u64::try_from(PeerConfig::default().refusal_bytes + 16 * 1_024).unwrap_or(u64::MAX)
}
