//! Peers on whole networks. Each body runs over any [`Providers`]; [`worlds`] says over which.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{
    CloseOutcome, ConnectionError, NetworkProvider, PacketId, Peer, PeerConfig, PeerError,
    PeerHandle, PeerId, PeerSink, Providers, ReceivedPacket, SessionEnded, SessionIdentity,
    SessionMode, TaskProvider, TcpListenerTrait, TimeProvider, UID,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type PeerOf<P> = Peer<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;
type StreamOf<P> = <<P as Providers>::Network as NetworkProvider>::TcpStream;
type ListenerOf<P> = <<P as Providers>::Network as NetworkProvider>::TcpListener;

const TOKEN: UID = UID::new(7, 8);

/// Providers and the host that their listeners bind on.
struct World<P> {
    providers: P,
    host: &'static str,
}

impl<P: Providers> World<P> {
    async fn bind(&self) -> (ListenerOf<P>, String) {
        let any_port = format!("{}:0", self.host);
        let listener = self.providers.network().bind(&any_port).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address at which nobody listens.
    async fn nobody(&self) -> String {
        self.bind().await.1
    }

    fn dial(&self, address: &str, config: PeerConfig) -> PeerOf<P> {
        let p = &self.providers;
        Peer::new(
            p.network().clone(),
            p.time().clone(),
            p.task().clone(),
            address,
            config,
        )
    }

    fn adopt(&self, (stream, from): (StreamOf<P>, String)) -> PeerOf<P> {
        let p = &self.providers;
        let config = PeerConfig::default();
        Peer::new_incoming(stream, from, p.time().clone(), p.task().clone(), config)
    }

    fn dial_session(&self, address: &str, config: PeerConfig, sink: Rc<Recorder>) -> PeerOf<P> {
        let p = &self.providers;
        let (network, time, task) = (p.network().clone(), p.time().clone(), p.task().clone());
        let mode = acknowledged(1);
        Peer::with_sink(network, time, task, address, config, mode, PeerId(1), sink)
    }

    fn adopt_session(&self, accepted: (StreamOf<P>, String), sink: Rc<Recorder>) -> PeerOf<P> {
        let p = &self.providers;
        let (stream, from) = accepted;
        let (time, task) = (p.time().clone(), p.task().clone());
        let config = PeerConfig::default();
        Peer::incoming_with_sink(
            stream,
            from,
            time,
            task,
            config,
            acknowledged(2),
            PeerId(2),
            sink,
        )
    }

    /// Lets the other tasks run until `reached`, however long that takes.
    async fn until(&self, mut reached: impl FnMut() -> bool) {
        while !reached() {
            self.providers.time().sleep(Duration::from_millis(1)).await;
        }
    }
}

fn acknowledged(incarnation: u64) -> SessionMode {
    let incarnation = UID::new(incarnation, incarnation);
    let address = (incarnation.first == 2).then(|| "10.9.9.9:4500".parse().unwrap());
    SessionMode::Acknowledged(SessionIdentity {
        incarnation,
        address,
    })
}

/// What a sink was told, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Packet(Bytes, bool),
    Ended(SessionEnded),
    Finished,
}

#[derive(Default)]
struct Recorder {
    told: RefCell<Vec<Told>>,
    /// Sends every packet back from within the callback.
    echoes: bool,
}

impl Recorder {
    fn new() -> Rc<Self> {
        Rc::default()
    }

    fn echoing() -> Rc<Self> {
        Rc::new(Self {
            echoes: true,
            ..Self::default()
        })
    }

    fn packets(&self) -> Vec<Bytes> {
        let packet = |told: &Told| match told {
            Told::Packet(payload, _) => Some(payload.clone()),
            Told::Ended(_) | Told::Finished => None,
        };
        self.told.borrow().iter().filter_map(packet).collect()
    }

    fn ended(&self) -> Vec<SessionEnded> {
        let ended = |told: &Told| match told {
            Told::Ended(ended) => Some(ended.clone()),
            Told::Packet(..) | Told::Finished => None,
        };
        self.told.borrow().iter().filter_map(ended).collect()
    }

    fn is_finished(&self) -> bool {
        self.told.borrow().last() == Some(&Told::Finished)
    }
}

impl PeerSink for Recorder {
    fn handle_packet(&self, peer: &PeerHandle, packet: ReceivedPacket<'_>) {
        let payload = packet.to_bytes();
        assert_eq!(payload, packet.payload);
        if self.echoes {
            peer.send_reliable(packet.token, payload.clone()).unwrap();
        }
        self.told
            .borrow_mut()
            .push(Told::Packet(payload, packet.reliable));
    }

    fn handle_session_ended(&self, _: &PeerHandle, ended: SessionEnded) {
        self.told.borrow_mut().push(Told::Ended(ended));
    }

    fn handle_finished(&self, _: &PeerHandle) {
        self.told.borrow_mut().push(Told::Finished);
    }
}

/// Runs one body over each kind of network.
macro_rules! worlds {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test] fn $name() { super::on_real_sockets(super::$name); })*
        }
    };
}

fn on_real_sockets<F: Future<Output = ()>>(
    body: impl FnOnce(World<moonpool_foundation::TokioProviders>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let providers = moonpool_foundation::TokioProviders::new();
    runtime.block_on(body(World {
        providers,
        host: "127.0.0.1",
    }));
}

worlds! {
    test_peer_send_receive,
    hello_is_exchanged_and_sequenced_packets_flow_both_ways,
}

async fn test_peer_send_receive<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let dialler = world.dial(&address, PeerConfig::default());
    dialler
        .send_reliable(TOKEN, "to the listener".into())
        .unwrap();
    let accepted = world.adopt(listener.accept().await.unwrap());
    assert_eq!(
        accepted.receive().await,
        Ok((TOKEN, "to the listener".into()))
    );
    accepted
        .send_unreliable(TOKEN, "to the dialler".into())
        .unwrap();
    assert_eq!(
        dialler.receive().await,
        Ok((TOKEN, "to the dialler".into()))
    );
    assert_eq!(dialler.try_receive(), None);
}

async fn hello_is_exchanged_and_sequenced_packets_flow_both_ways<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let (client, server) = (Recorder::new(), Recorder::echoing());
    let dialler = world.dial_session(&address, PeerConfig::default(), Rc::clone(&client));
    for number in 0..200u32 {
        let payload = Bytes::copy_from_slice(&number.to_le_bytes());
        let id = dialler.send_reliable(TOKEN, payload).unwrap();
        assert_eq!(id, PacketId::new(u64::from(number) + 1));
    }
    let accepted = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    world.until(|| client.packets().len() == 200).await;
    assert_eq!(client.packets(), server.packets());
    assert_eq!(dialler.remote_incarnation(), Some(UID::new(2, 2)));
    assert_eq!(
        dialler.remote_address(),
        Some("10.9.9.9:4500".parse().unwrap())
    );
    assert_eq!(accepted.remote_incarnation(), Some(UID::new(1, 1)));
    assert_eq!(accepted.remote_address(), None);
    assert_eq!(dialler.metrics().unacknowledged, 0);
    assert_eq!(
        dialler.close(Duration::from_secs(60)).await,
        CloseOutcome::Complete
    );
    world.until(|| server.is_finished()).await;
    assert!(client.is_finished());
}
