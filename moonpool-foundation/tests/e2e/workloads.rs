//! Clients that draw what they do, and servers, of bare peers and of sessions.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use moonpool_foundation::{
    CloseOutcome, KillKind, MAX_PAYLOAD_SIZE, NetworkAddress, NetworkProvider, PacketId, Peer,
    PeerConfig, PeerHandle, PeerId, PeerSink, ProcessId, Providers, RandomProvider, ReceivedPacket,
    SessionAcceptor, SessionEnded, SessionIdentity, SessionMode, SessionOwner, SimNetworkProvider,
    SimProviders, SimTaskProvider, SimTimeProvider, SimulationMetrics, SimulationResult,
    TaskProvider, TcpListenerTrait, TimeProvider, UID, WorkloadTopology, select, sometimes_assert,
    try_deserialize_packet,
};
use tokio::io::AsyncReadExt;

use crate::invariants::{Receiver, Sender};
use crate::operations::{Operation, Weights};

const SERVER: &str = "server:4500";
const OPERATIONS: usize = 60;
/// Longer than anything here takes: whoever needs it all has lost something.
const GRACE: Duration = Duration::from_secs(300);

type SimPeer = Peer<SimNetworkProvider, SimTimeProvider, SimTaskProvider>;

/// How often the server has started in this run.
#[derive(Default)]
struct Lives(Cell<u64>);

fn life_name(topology: &WorkloadTopology) -> String {
    let lives = topology.shared::<Lives>();
    lives.0.set(lives.0.get() + 1);
    format!("server-{}", lives.0.get())
}

/// The process that runs here.
fn me(providers: &SimProviders, topology: &WorkloadTopology) -> ProcessId {
    let processes = providers.world().unwrap().all_processes();
    let mut mine = processes.iter();
    mine.find(|process| process.ip().to_string() == topology.my_ip)
        .unwrap()
        .id()
}

/// Draws operations and does them; `receive` takes what has arrived.
async fn act(
    providers: &SimProviders,
    topology: &WorkloadTopology,
    weights: Weights,
    sender: &Sender,
    peer: &PeerHandle,
    mut receive: impl FnMut(),
) {
    let me = me(providers, topology);
    for _ in 0..OPERATIONS {
        let world = providers.world().unwrap();
        let mine = || world.connections().into_iter().find(|c| c.dialer() == me);
        match weights.draw(providers.random()) {
            Operation::SendReliable { padding } => sender.send_reliable(peer, padding),
            Operation::SendUnreliable { padding } => sender.send_unreliable(peer, padding),
            Operation::Receive => receive(),
            Operation::ForceReconnect => peer.reconnect(),
            Operation::AbortConnection => {
                if let Some(connection) = mine() {
                    world.close_connection_abort(connection);
                }
            }
            Operation::HalfOpen { error_after } => {
                if let Some(connection) = mine() {
                    let silent = moonpool_foundation::ConnectionSide::Acceptor;
                    world.simulate_peer_crash(connection, silent, error_after);
                }
            }
            Operation::RebootServer => {
                let after = Duration::from_millis(1)..Duration::from_millis(200);
                let server = world.process("server").unwrap();
                world.kill(server.id(), KillKind::Reboot { after });
            }
            Operation::Wait(duration) => providers.time().sleep(duration).await,
        }
    }
}

fn client_config() -> PeerConfig {
    PeerConfig {
        reliable_packets: 12,
        ..PeerConfig::local_network()
    }
}

/// A client with a bare peer. What the server echoes arrives here.
pub(crate) async fn bare_client(
    providers: SimProviders,
    topology: WorkloadTopology,
    weights: Weights,
    name: &'static str,
) -> SimulationResult<SimulationMetrics> {
    let registry = &topology.state_registry;
    let (sender, receiver) = (Sender::new(registry, name), Receiver::new(registry, name));
    let peer: SimPeer = Peer::new(
        providers.network().clone(),
        providers.time().clone(),
        providers.task().clone(),
        SERVER,
        client_config(),
    );
    let receive = || {
        while let Some((_, payload)) = peer.try_receive() {
            receiver.handle_message(0, &payload);
        }
        while let Some(ended) = peer.try_session_ended() {
            sender.handle_ended(&ended);
        }
    };
    act(
        &providers,
        &topology,
        weights,
        &sender,
        peer.handle(),
        receive,
    )
    .await;
    let outcome = peer.close(GRACE).await;
    sometimes_assert!(
        bare_client_closed,
        outcome == CloseOutcome::Complete,
        "all was written"
    );
    while let Some(ended) = peer.try_session_ended() {
        sender.handle_ended(&ended);
    }
    Ok(SimulationMetrics::default())
}

/// A server that knows the packet format and no peer: it parses what its streams bring.
pub(crate) async fn wire_server(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let receiver = Rc::new(Receiver::new(
        &topology.state_registry,
        &life_name(&topology),
    ));
    let listener = providers.network().bind("0.0.0.0:4500").await?;
    for connection in 1.. {
        let accepted = select! {
            biased;
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((mut stream, _)) = accepted else {
            continue;
        };
        let receiver = Rc::clone(&receiver);
        providers.task().spawn_task("wire connection", async move {
            let mut bytes = Vec::new();
            loop {
                match try_deserialize_packet(&bytes, MAX_PAYLOAD_SIZE) {
                    Ok(Some(packet)) => {
                        receiver.handle_message(connection, &packet.payload.to_vec().into());
                        let size = packet.size;
                        bytes.drain(..size);
                        continue;
                    }
                    Ok(None) => {}
                    Err(_) => {
                        sometimes_assert!(wire_server_wire_error, true, "bytes were changed");
                        return;
                    }
                }
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    sometimes_assert!(wire_server_connection_closed, true, "a client went");
                    return;
                }
            }
        });
    }
    Ok(())
}

/// A server with a bare peer per connection, which echoes reliable messages.
pub(crate) async fn bare_server(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let life = life_name(&topology);
    let registry = topology.state_registry.clone();
    let receiver = Rc::new(Receiver::new(&registry, &life));
    let listener = providers.network().bind("0.0.0.0:4500").await?;
    for connection in 1.. {
        let accepted = select! {
            biased;
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            continue;
        };
        let peer: SimPeer = Peer::new_incoming(
            stream,
            from,
            providers.time().clone(),
            providers.task().clone(),
            PeerConfig::default(),
        );
        let sender = Sender::new(&registry, &format!("{life}/{connection}"));
        let receiver = Rc::clone(&receiver);
        providers.task().spawn_task("bare connection", async move {
            while let Ok((_, payload)) = peer.receive().await {
                let message = receiver.handle_message(connection, &payload);
                if message.is_reliable && !peer.is_finished() {
                    sender.send_reliable(peer.handle(), 0);
                }
            }
        });
    }
    Ok(())
}

/// What either end of a session is told.
struct Sink {
    sender: Option<Rc<Sender>>,
    receiver: Receiver,
}

impl PeerSink for Sink {
    fn handle_packet(&self, _: &PeerHandle, packet: ReceivedPacket<'_>) {
        self.receiver.handle_message(0, &packet.to_bytes());
    }

    fn handle_session_ended(&self, _: &PeerHandle, ended: SessionEnded) {
        if let Some(sender) = &self.sender {
            sender.handle_ended(&ended);
        }
    }

    fn handle_finished(&self, _: &PeerHandle) {}
}

fn identity(providers: &SimProviders) -> SessionIdentity {
    let random = providers.random();
    SessionIdentity {
        incarnation: UID::new(random.random(), random.random()),
        address: None,
    }
}

/// A client with an acknowledged peer.
pub(crate) async fn session_client(
    providers: SimProviders,
    topology: WorkloadTopology,
    weights: Weights,
    name: &'static str,
) -> SimulationResult<SimulationMetrics> {
    let registry = &topology.state_registry;
    let sender = Rc::new(Sender::new(registry, name));
    let sink = Rc::new(Sink {
        sender: Some(Rc::clone(&sender)),
        receiver: Receiver::new(registry, name),
    });
    let peer: SimPeer = Peer::with_sink(
        providers.network().clone(),
        providers.time().clone(),
        providers.task().clone(),
        SERVER,
        client_config(),
        SessionMode::Acknowledged(identity(&providers)),
        PeerId(1),
        sink,
    );
    act(
        &providers,
        &topology,
        weights,
        &sender,
        peer.handle(),
        || (),
    )
    .await;
    let outcome = peer.close(GRACE).await;
    sometimes_assert!(
        session_client_closed,
        outcome == CloseOutcome::Complete,
        "all arrived"
    );
    Ok(SimulationMetrics::default())
}

#[derive(Default)]
struct Owner {
    next: Cell<u64>,
    peers: RefCell<BTreeMap<PeerId, SimPeer>>,
}

impl SessionOwner<SimNetworkProvider, SimTimeProvider, SimTaskProvider> for Owner {
    fn next_id(&self) -> PeerId {
        self.next.set(self.next.get() + 1);
        PeerId(self.next.get())
    }

    fn adopt(&self, peer: SimPeer, _serves: Option<NetworkAddress>) {
        let replaced = self.peers.borrow_mut().insert(peer.handle().id(), peer);
        drop(replaced);
    }

    fn evict(&self, peer: PeerId) {
        let evicted = self.peers.borrow_mut().remove(&peer);
        drop(evicted);
    }

    /// Nobody here has an address.
    fn pass_over(&self, _: PeerId, _: &PeerHandle, _: Vec<(PacketId, PacketId)>) {
        unreachable!("no session serves an address")
    }
}

/// A server that keeps sessions over their connections.
pub(crate) async fn session_server(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let sink = Rc::new(Sink {
        sender: None,
        receiver: Receiver::new(&topology.state_registry, &life_name(&topology)),
    });
    let owner = Rc::new(Owner::default());
    let sessions = SessionAcceptor::<SimNetworkProvider, _, _>::new(
        providers.network().clone(),
        providers.time().clone(),
        providers.task().clone(),
        PeerConfig::default(),
        identity(&providers),
        sink,
        Rc::clone(&owner) as Rc<dyn SessionOwner<_, _, _>>,
    );
    let listener = providers.network().bind("0.0.0.0:4500").await?;
    loop {
        select! {
            biased;
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = listener.accept() => {
                if let Ok((stream, from)) = accepted {
                    sessions.accept(stream, from);
                }
            }
        }
    }
}
