//! Bare peers: numbered packets, echoed, watched by the oracle.

use std::time::Duration;

use bytes::Bytes;
use moonpool::TcpListenerTrait;
use moonpool::foundation::chaos::oracle::{ReceiverLog, SenderLog};
use moonpool::foundation::{
    Peer, PeerConfig, SimNetworkProvider, SimProviders, SimTaskProvider, SimTimeProvider,
    SimulationMetrics, SimulationResult, StateRegistry, WorkloadTopology, always_assert,
    sometimes_assert,
};
use moonpool::prelude::*;

use super::ledger::{Ledger, Observer, Sightings, any_server};

type SimPeer = Peer<SimNetworkProvider, SimTimeProvider, SimTaskProvider>;

const TOKEN: UID = UID::new(0xCA3B, 1);
const PEERS: u32 = 4;
const PACKETS: u32 = 12;
const PATIENCE: Duration = Duration::from_secs(5);

/// Who sent a packet, and which of its packets it is; the rest is known by those two.
fn payload(sender: &str, number: u64, padding: usize) -> Bytes {
    let filler = number.to_be_bytes()[7];
    let mut payload = format!("{sender} {number} ").into_bytes();
    payload.resize(payload.len() + padding, b'a' + filler % 26);
    payload.into()
}

/// Checks a payload as well, beside reading it.
fn sender_and_number(payload_bytes: &Bytes) -> (String, u64) {
    let text = std::str::from_utf8(payload_bytes).unwrap_or("? 0 ");
    let mut parts = text.splitn(3, ' ');
    let sender = parts.next().unwrap_or_default();
    let number = parts.next().and_then(|number| number.parse().ok());
    let padding = parts.next().map_or(0, str::len);
    let number = number.unwrap_or(0);
    always_assert!(
        a_packet_arrives_as_it_was_sent,
        payload(sender, number, padding) == *payload_bytes,
        "{text} arrived"
    );
    (sender.to_owned(), number)
}

/// What one peer sends, and that it is known.
struct Sender {
    name: String,
    log: SenderLog,
    sent: std::cell::Cell<u64>,
}

impl Sender {
    fn new(registry: &StateRegistry, name: String) -> Self {
        Self {
            log: SenderLog::new(registry, &name),
            name,
            sent: std::cell::Cell::new(0),
        }
    }

    fn send(&self, peer: &SimPeer, padding: usize) -> bool {
        let number = self.sent.get() + 1;
        match peer
            .handle()
            .send_reliable(TOKEN, payload(&self.name, number, padding))
        {
            Ok(id) => {
                assert_eq!(id.get(), number, "packets are numbered from 1");
                self.sent.set(number);
                self.log.reliable_sent(id);
                true
            }
            Err(_) => false,
        }
    }

    fn report(&self, peer: &SimPeer) {
        while let Some(ended) = peer.try_session_ended() {
            let uncertain = !ended.maybe_delivered.is_empty();
            sometimes_assert!(a_packet_became_uncertain, uncertain, "it may have arrived");
            self.log.session_ended(&ended);
        }
    }
}

/// Accepts on port 81 until the process is told to end.
pub(crate) async fn serve(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let ledger = topology.shared::<Ledger>();
    let registry = topology.state_registry.clone();
    let listener = providers.network().bind("0.0.0.0:81").await?;
    loop {
        let accepted = moonpool::select! { biased;
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            continue;
        };
        let (time, task) = (providers.time().clone(), providers.task().clone());
        let peer: SimPeer = Peer::new_incoming(stream, from, time, task, PeerConfig::default());
        let connection = ledger.next();
        let name = format!("server/{connection}");
        let (received, sender) = (
            ReceiverLog::new(&registry, &name),
            Sender::new(&registry, name),
        );
        let shutdown = topology.shutdown_signal.clone();
        providers.task().spawn_task("packets", async move {
            loop {
                let packet = moonpool::select! { biased;
                    () = shutdown.cancelled() => break,
                    packet = peer.receive() => packet,
                };
                let Ok((_, packet)) = packet else { break };
                let (from, number) = sender_and_number(&packet);
                received.reliable_received(&from, connection, number);
                sender.send(&peer, 8);
                sender.report(&peer);
            }
            peer.handle().close(PATIENCE).await;
            sender.report(&peer);
        });
    }
}

/// A few peers after each other; at the end each server has to echo a packet.
pub(crate) async fn client(
    providers: SimProviders,
    topology: WorkloadTopology,
    sightings: Sightings,
) -> SimulationResult<SimulationMetrics> {
    let observer = Observer::new(&providers, "packets", &sightings);
    let (random, time) = (providers.random(), providers.time());
    for number in 0..PEERS {
        let (_, server) = any_server(&providers, &topology);
        let mut client = Client::new(&providers, &topology, &server, format!("client/{number}"));
        for _ in 0..PACKETS {
            client
                .sender
                .send(&client.peer, random.random_range(0..2_000));
            let pause = random.random_range(0..400);
            time.sleep(Duration::from_millis(pause)).await;
            observer.saw(client.receive());
        }
        client.close().await;
        observer.saw(client.echoed);
    }
    for (name, server) in topology.get_peers_with_prefix("server-") {
        let mut client = Client::new(&providers, &topology, &server, format!("client/{name}"));
        while client.receive() == 0 {
            client.sender.send(&client.peer, 8);
            time.sleep(Duration::from_millis(500)).await;
        }
        client.close().await;
        observer.saw(client.echoed);
    }
    observer.finish();
    Ok(SimulationMetrics::default())
}

struct Client {
    peer: SimPeer,
    sender: Sender,
    received: ReceiverLog,
    echoed: u64,
}

impl Client {
    fn new(
        providers: &SimProviders,
        topology: &WorkloadTopology,
        server: &str,
        name: String,
    ) -> Self {
        let registry = &topology.state_registry;
        let peer = Peer::new(
            providers.network().clone(),
            providers.time().clone(),
            providers.task().clone(),
            format!("{server}:81"),
            PeerConfig::default(),
        );
        Self {
            peer,
            received: ReceiverLog::new(registry, &name),
            sender: Sender::new(registry, name),
            echoed: 0,
        }
    }

    /// Takes what has arrived, and gives how many packets that are by now.
    fn receive(&mut self) -> u64 {
        while let Some((_, packet)) = self.peer.try_receive() {
            let (from, number) = sender_and_number(&packet);
            // Each connection's other end has a name of its own.
            self.received.reliable_received(&from, 0, number);
            self.echoed += 1;
        }
        self.sender.report(&self.peer);
        self.echoed
    }

    async fn close(&mut self) {
        self.peer.handle().close(PATIENCE).await;
        let all = self.sender.sent.get() == self.receive();
        sometimes_assert!(every_packet_came_back, all, "none was lost");
        sometimes_assert!(
            a_packet_was_lost,
            !all,
            "with its connection, or on its way back"
        );
    }
}
