//! Peers on whole networks. Each body runs over any [`Providers`]; [`worlds`] says over which.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use moonpool_foundation::{
    CloseOutcome, ConnectionError, NetworkProvider, PacketId, Peer, PeerConfig, PeerError,
    PeerHandle, PeerId, PeerSink, Providers, ReceivedPacket, SessionEnded, SessionIdentity,
    SessionMode, TaskProvider, TcpListenerTrait, TimeProvider, TokioProviders, UID, WireError,
    serialize_packet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type PeerOf<P> = Peer<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;
type StreamOf<P> = <<P as Providers>::Network as NetworkProvider>::TcpStream;
type ListenerOf<P> = <<P as Providers>::Network as NetworkProvider>::TcpListener;

const TOKEN: UID = UID::new(7, 8);

/// A grace that no close here needs.
const MINUTE: Duration = Duration::from_secs(60);

/// Providers and the host that their listeners bind on.
struct World<P> {
    providers: P,
    host: String,
    /// More than the buffers of a connection hold.
    too_many_bytes: usize,
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

/// Declares one test per body and per kind of network.
macro_rules! worlds {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test] fn $name() { super::on_real_sockets(super::$name); })*
        }

        #[cfg(feature = "sim")]
        mod simulated {
            $(#[test] fn $name() { super::in_simulation(super::$name); })*
        }
    };
}

fn on_real_sockets<F: Future<Output = ()>>(body: impl FnOnce(World<TokioProviders>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    runtime.block_on(async {
        let providers = TokioProviders::new();
        let time = *providers.time();
        let body = body(World {
            providers,
            host: "127.0.0.1".into(),
            too_many_bytes: 40 << 20,
        });
        // A guard against a hang, far longer than any case takes.
        let done = time.timeout(Duration::from_secs(60), body).await;
        assert!(done.is_ok(), "stuck");
    });
}

/// Small buffers and erratic latencies, and a new order of tasks with each seed.
#[cfg(feature = "sim")]
fn in_simulation<F: Future<Output = ()>>(
    body: impl Fn(World<moonpool_foundation::SimProviders>) -> F,
) {
    use moonpool_foundation::{FaultKind, LatencyModel, Leftovers, NetworkConfiguration, SimWorld};

    // Bodies that count connections break them themselves: none fails by chance.
    let reachable = NetworkConfiguration::default()
        .without(FaultKind::ConnectRefused)
        .without(FaultKind::ConnectHang)
        .without(FaultKind::RandomClose);

    let erratic = NetworkConfiguration {
        read_latency: LatencyModel::uniform(Duration::ZERO, Duration::from_millis(20)),
        write_latency: LatencyModel::uniform(Duration::ZERO, Duration::from_millis(20)),
        connect_latency: LatencyModel::uniform(Duration::ZERO, Duration::from_millis(200)),
        send_buffer_bytes: Some(5_000),
        receive_buffer_bytes: 3_000,
        ..NetworkConfiguration::disabled()
    };
    for seed in 0..8 {
        for config in [reachable.clone(), erratic.clone()] {
            let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
            let process = world.add_process("both ends");
            let (providers, host) = (process.providers(), process.ip().to_string());
            if let Err(error) = world.block_on(body(World {
                providers,
                host,
                too_many_bytes: 1 << 20,
            })) {
                panic!("seed {seed}: {error}");
            }
            world.run_until_empty().unwrap();
            assert_eq!(world.leftovers(), Leftovers::default(), "seed {seed}");
        }
    }
}

worlds! {
    test_peer_send_receive,
    test_peer_reconnection,
    test_send_unreliable_when_disconnected,
    hello_is_exchanged_and_sequenced_packets_flow_both_ways,
    ten_thousand_queued_packets_arrive_in_order,
    a_payload_of_a_mebibyte_arrives_whole_in_both_directions,
    garbage_ends_an_accepted_peer_and_a_dialler_comes_back,
    a_bare_peer_and_an_acknowledged_one_do_not_mix,
    a_close_writes_everything_before_it_ends,
    a_close_ends_a_peer_that_cannot_connect,
    a_full_inbox_stops_the_sender_and_loses_nothing,
    ready_resolves_when_there_is_room_and_when_there_never_will_be,
    a_dropped_peer_gives_everyone_an_answer,
    a_sink_may_drop_its_peer_while_it_is_called,
    reconnect_makes_a_new_connection,
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

async fn test_peer_reconnection<P: Providers>(world: World<P>) {
    // Nobody listens at first: the peer keeps trying.
    let (listener, address) = world.bind().await;
    drop(listener);
    let dialler = world.dial(&address, PeerConfig::default());
    dialler.send_reliable(TOKEN, "first".into()).unwrap();
    world
        .until(|| dialler.metrics().connection_failures >= 2)
        .await;
    let listener = world.providers.network().bind(&address).await.unwrap();
    let accepted = world.adopt(listener.accept().await.unwrap());
    assert_eq!(accepted.receive().await, Ok((TOKEN, "first".into())));
    // The other end goes away, and comes back.
    drop(accepted);
    world.until(|| !dialler.is_connected()).await;
    dialler.send_reliable(TOKEN, "second".into()).unwrap();
    let accepted = world.adopt(listener.accept().await.unwrap());
    assert_eq!(accepted.receive().await, Ok((TOKEN, "second".into())));
    assert!(dialler.metrics().reconnects >= 1);
    let report = dialler.try_session_ended().unwrap();
    assert_eq!(report.maybe_delivered, PacketId::FIRST..PacketId::new(2));
}

async fn test_send_unreliable_when_disconnected<P: Providers>(world: World<P>) {
    let dialler = world.dial(&world.nobody().await, PeerConfig::default());
    dialler
        .send_unreliable(TOKEN, "nobody hears this".into())
        .unwrap();
    let metrics = dialler.metrics();
    assert_eq!(
        (metrics.unreliable_dropped, metrics.unreliable_queued),
        (1, 0)
    );
}

async fn hello_is_exchanged_and_sequenced_packets_flow_both_ways<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let (client, server) = (Recorder::new(), Recorder::echoing());
    let dialler = world.dial_session(&address, PeerConfig::default(), Rc::clone(&client));
    for number in 0..200 {
        let id = dialler.send_reliable(TOKEN, numbered(number)).unwrap();
        assert_eq!(id, PacketId::new(number + 1));
    }
    let accepted = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    world.until(|| client.packets().len() == 200).await;
    assert_eq!(client.packets(), server.packets());
    assert!(
        client
            .told
            .borrow()
            .iter()
            .all(|told| matches!(told, Told::Packet(_, true)))
    );
    assert_eq!(dialler.remote_incarnation(), Some(UID::new(2, 2)));
    assert_eq!(
        dialler.remote_address(),
        Some("10.9.9.9:4500".parse().unwrap())
    );
    assert_eq!(accepted.remote_incarnation(), Some(UID::new(1, 1)));
    assert_eq!(accepted.remote_address(), None);
    assert_eq!(dialler.metrics().unacknowledged, 0);
    assert_eq!(dialler.close(MINUTE).await, CloseOutcome::Complete);
    world.until(|| server.is_finished()).await;
    assert!(client.is_finished());
    let settled = PacketId::new(201)..PacketId::new(201);
    let ended = SessionEnded {
        not_delivered: settled.clone(),
        maybe_delivered: settled,
    };
    assert_eq!(client.ended(), [ended]);
}

async fn ten_thousand_queued_packets_arrive_in_order<P: Providers>(world: World<P>) {
    const COUNT: u64 = 10_000;
    let (listener, address) = world.bind().await;
    let (client, server) = (Recorder::new(), Recorder::new());
    let dialler = world.dial_session(&address, PeerConfig::default(), client);
    for number in 0..COUNT {
        dialler.send_reliable(TOKEN, numbered(number)).unwrap();
    }
    let _accepted = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    assert_eq!(dialler.close(MINUTE).await, CloseOutcome::Complete);
    let expected: Vec<_> = (0..COUNT).map(numbered).collect();
    assert!(server.packets() == expected);
    assert_eq!(dialler.metrics().reliable_bytes, 0);
}

async fn a_payload_of_a_mebibyte_arrives_whole_in_both_directions<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let payload = Bytes::from_iter((0..1u32 << 20).map(|at| at.to_le_bytes()[at as usize % 3]));
    let dialler = world.dial(&address, PeerConfig::default());
    let accepted = world.adopt(listener.accept().await.unwrap());
    // Both at once, and more than the sockets hold: neither may wait for the other.
    for _ in 0..4 {
        dialler.send_reliable(TOKEN, payload.clone()).unwrap();
        accepted.send_reliable(TOKEN, payload.clone()).unwrap();
    }
    for _ in 0..4 {
        assert!(dialler.receive().await == Ok((TOKEN, payload.clone())));
        assert!(accepted.receive().await == Ok((TOKEN, payload.clone())));
    }
    let too_large = Bytes::from(vec![0; (1 << 20) + 1]);
    let refused = dialler.send_reliable(TOKEN, too_large.clone());
    assert!(refused.unwrap_err().into_payload() == Some(too_large));
}

async fn garbage_ends_an_accepted_peer_and_a_dialler_comes_back<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let mut stream = world.providers.network().connect(&address).await.unwrap();
    let accepted = world.adopt(listener.accept().await.unwrap());
    stream
        .write_all(&serialize_packet(TOKEN, b"good"))
        .await
        .unwrap();
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert_eq!(accepted.receive().await, Ok((TOKEN, "good".into())));
    assert_eq!(
        accepted.receive().await,
        Err(PeerError::Closed { payload: None })
    );
    assert_eq!(accepted.metrics().protocol_errors, 1);
    let error = accepted.metrics().last_error;
    let size = WireError::PacketTooLarge {
        size: u32::MAX as usize,
        limit: (1 << 20) + 56,
    };
    assert_eq!(error, Some(ConnectionError::Wire(size)));

    let dialler = world.dial(&address, PeerConfig::default());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut packet = serialize_packet(TOKEN, b"flipped");
    packet[30] ^= 1;
    stream.write_all(&packet).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream
        .write_all(&serialize_packet(TOKEN, b"better"))
        .await
        .unwrap();
    assert_eq!(dialler.receive().await, Ok((TOKEN, "better".into())));
    assert_eq!(dialler.metrics().protocol_errors, 1);
}

async fn a_bare_peer_and_an_acknowledged_one_do_not_mix<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let client = Recorder::new();
    let dialler = world.dial_session(&address, PeerConfig::default(), Rc::clone(&client));
    dialler.send_reliable(TOKEN, "a".into()).unwrap();
    let bare = world.adopt(listener.accept().await.unwrap());
    let closed = PeerError::Closed { payload: None };
    assert_eq!(bare.receive().await, Err(closed));
    world.until(|| dialler.metrics().last_error.is_some()).await;
    let incompatible = ConnectionError::Incompatible {
        version_min: 0,
        version_max: 0,
    };
    assert_eq!(dialler.metrics().last_error, Some(incompatible));

    let server = Recorder::new();
    let bare = world.dial(&address, PeerConfig::default());
    bare.send_reliable(TOKEN, "no Hello".into()).unwrap();
    let accepted = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    world.until(|| server.is_finished()).await;
    assert_eq!(server.packets(), [] as [Bytes; 0]);
    assert_eq!(accepted.metrics().protocol_errors, 1);
}

async fn a_close_writes_everything_before_it_ends<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let dialler = world.dial(&address, PeerConfig::default());
    for number in 0..500 {
        let mut payload = vec![0; 1000];
        payload[..8].copy_from_slice(&u64::to_le_bytes(number));
        dialler.send_reliable(TOKEN, payload.into()).unwrap();
    }
    let accepted = world.adopt(listener.accept().await.unwrap());
    // What the other end still sends must not reset the connection under what is on its way.
    accepted
        .send_reliable(TOKEN, vec![1; 100_000].into())
        .unwrap();
    assert_eq!(dialler.close(MINUTE).await, CloseOutcome::Complete);
    let mut received = 0;
    while accepted.receive().await.is_ok() {
        received += 1;
    }
    assert_eq!(received, 500);
    assert_eq!(dialler.close(MINUTE).await, CloseOutcome::Complete);
}

async fn a_close_ends_a_peer_that_cannot_connect<P: Providers>(world: World<P>) {
    let address = world.nobody().await;
    let idle = world.dial(&address, PeerConfig::default());
    assert_eq!(idle.close(MINUTE).await, CloseOutcome::Complete);
    assert_eq!(
        idle.receive().await,
        Err(PeerError::Closed { payload: None })
    );

    let recorder = Recorder::new();
    let loaded = world.dial_session(&address, PeerConfig::default(), Rc::clone(&recorder));
    loaded.send_reliable(TOKEN, "a".into()).unwrap();
    let lost = SessionEnded {
        not_delivered: PacketId::FIRST..PacketId::new(2),
        maybe_delivered: PacketId::FIRST..PacketId::FIRST,
    };
    let outcome = loaded.close(Duration::from_millis(20)).await;
    assert_eq!(outcome, CloseOutcome::Incomplete(lost.clone()));
    assert_eq!(*recorder.told.borrow(), [Told::Ended(lost), Told::Finished]);
}

async fn a_full_inbox_stops_the_sender_and_loses_nothing<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let (stream, from) = {
        let connecting = world.providers.network().connect(&address);
        let (connected, accepted) = futures_util::join!(connecting, listener.accept());
        (connected.unwrap(), accepted.unwrap())
    };
    let p = &world.providers;
    let config = PeerConfig {
        inbox_packets: 3,
        ..PeerConfig::default()
    };
    let (time, task) = (p.time().clone(), p.task().clone());
    let reader = PeerOf::<P>::new_incoming(stream, String::new(), time, task, config);
    let sender = world.adopt(from);
    let payload = Bytes::from(vec![7; world.too_many_bytes / 40]);
    for _ in 0..40 {
        sender.send_reliable(TOKEN, payload.clone()).unwrap();
    }
    world.until(|| reader.metrics().inbox_packets == 3).await;
    for _ in 0..100 {
        world.providers.task().yield_now().await;
    }
    assert_eq!(reader.metrics().inbox_packets, 3);
    assert!(sender.metrics().reliable_queued > 0);
    for _ in 0..40 {
        assert!(reader.receive().await == Ok((TOKEN, payload.clone())));
        assert!(reader.metrics().inbox_packets <= 3);
    }
}

async fn ready_resolves_when_there_is_room_and_when_there_never_will_be<P: Providers>(
    world: World<P>,
) {
    let (listener, address) = world.bind().await;
    let config = PeerConfig {
        reliable_packets: 2,
        ..PeerConfig::default()
    };
    let dialler = world.dial(&address, config);
    let mut accepted = None;
    for number in 0..50 {
        dialler.ready().await.unwrap();
        dialler.send_reliable(TOKEN, numbered(number)).unwrap();
        if accepted.is_none() {
            accepted = Some(world.adopt(listener.accept().await.unwrap()));
        }
    }
    let accepted = accepted.unwrap();
    for number in 0..50 {
        assert_eq!(accepted.receive().await, Ok((TOKEN, numbered(number))));
    }
    drop((accepted, listener));
    world.until(|| !dialler.is_connected()).await;
    while dialler.send_reliable(TOKEN, "fill".into()).is_ok() {}
    let handle = dialler.handle().clone();
    let waiting = world
        .providers
        .task()
        .spawn_task("waits", async move { handle.ready().await });
    world.providers.task().yield_now().await;
    drop(dialler);
    assert_eq!(waiting.await, Ok(Err(PeerError::Closed { payload: None })));
}

async fn a_dropped_peer_gives_everyone_an_answer<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let dialler = world.dial(&address, PeerConfig::default());
    let (mut stream, _) = listener.accept().await.unwrap();
    let handle = dialler.handle().clone();
    let closing = world.providers.task().spawn_task("closes", async move {
        handle.send_reliable(TOKEN, "a".into()).unwrap();
        handle.close(MINUTE).await
    });
    // The other end does not end its half, so the close waits.
    let mut packet = vec![0; 25];
    stream.read_exact(&mut packet).await.unwrap();
    let handle = dialler.handle().clone();
    drop(dialler);
    let lost = SessionEnded {
        not_delivered: PacketId::new(2)..PacketId::new(2),
        maybe_delivered: PacketId::FIRST..PacketId::new(2),
    };
    assert_eq!(closing.await, Ok(CloseOutcome::Incomplete(lost)));
    assert!(handle.is_finished());
    let refused = handle.send_reliable(TOKEN, "b".into());
    assert_eq!(
        refused,
        Err(PeerError::Closed {
            payload: Some("b".into())
        })
    );
    assert_eq!(
        handle.ready().await,
        Err(PeerError::Closed { payload: None })
    );
}

async fn a_sink_may_drop_its_peer_while_it_is_called<P: Providers>(world: World<P>) {
    struct Dropper<T>(RefCell<Option<T>>, Cell<u32>);
    impl<T> PeerSink for Dropper<T> {
        fn handle_packet(&self, peer: &PeerHandle, _: ReceivedPacket<'_>) {
            self.1.set(self.1.get() + 1);
            let dropped = self.0.take();
            drop(dropped);
            assert!(peer.is_finished());
        }
        fn handle_session_ended(&self, _: &PeerHandle, _: SessionEnded) {}
        fn handle_finished(&self, _: &PeerHandle) {}
    }
    let (listener, address) = world.bind().await;
    let dialler = world.dial(&address, PeerConfig::default());
    dialler.send_reliable(TOKEN, "a".into()).unwrap();
    dialler.send_reliable(TOKEN, "b".into()).unwrap();
    let (stream, from) = listener.accept().await.unwrap();
    let sink = Rc::new(Dropper(RefCell::new(None), Cell::new(0)));
    let p = &world.providers;
    let (time, task, config) = (p.time().clone(), p.task().clone(), PeerConfig::default());
    let (mode, id) = (SessionMode::Plain, PeerId(0));
    let shared = Rc::clone(&sink) as Rc<dyn PeerSink>;
    let peer = PeerOf::<P>::incoming_with_sink(stream, from, time, task, config, mode, id, shared);
    *sink.0.borrow_mut() = Some(peer);
    world.until(|| sink.1.get() > 0).await;
    world.until(|| !dialler.is_connected()).await;
    assert_eq!(sink.1.get(), 1, "nothing is handed out after the drop");
}

async fn reconnect_makes_a_new_connection<P: Providers>(world: World<P>) {
    let (listener, address) = world.bind().await;
    let (client, server) = (Recorder::new(), Recorder::new());
    let dialler = world.dial_session(&address, PeerConfig::default(), Rc::clone(&client));
    dialler.send_reliable(TOKEN, "a".into()).unwrap();
    let first = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    world.until(|| !server.packets().is_empty()).await;
    dialler.reconnect();
    dialler.send_reliable(TOKEN, "b".into()).unwrap();
    let second = world.adopt_session(listener.accept().await.unwrap(), Rc::clone(&server));
    world.until(|| server.packets().len() == 2).await;
    assert!(first.is_finished() && second.is_connected());
    // The other end keeps no sessions: it answers Fresh, which ends the one that was offered.
    let maybe = PacketId::FIRST..PacketId::new(2);
    assert_eq!(
        client.ended()[0].maybe_delivered,
        maybe,
        "its acknowledgement never came"
    );
    assert_eq!(dialler.metrics().reconnects, 1);
}

fn numbered(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}
