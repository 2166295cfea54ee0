//! Two ends and a network that delays, cuts, duplicates, half-opens and restarts, against a model
//! that knows what was accepted, delivered and reported.
//!
//! A dialler keeps its session with an acceptor: a [`SessionTable`] and one peer per session, as
//! the acceptor's driver has them. Every payload is a number that is used once, so a number that
//! arrives twice, out of order, or although it was reported as not delivered, is a broken promise.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::network::peer::Withdrawal;
use crate::network::peer::session_table::{Decision, SessionTable};

/// Small, so that they are met.
const PACKETS: usize = 6;
const SESSIONS: usize = 3;

/// What happens next: which kind of thing, and two numbers that say where and how much.
type Op = (u8, u16, u16);

/// One direction of a connection: bytes on their way, and bytes that are no whole packet yet.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    partial: Vec<u8>,
}

impl Pipe {
    /// The packets that `bytes` more bytes complete.
    fn read(&mut self, bytes: usize) -> Vec<(UID, Vec<u8>)> {
        let taken = bytes.min(self.bytes.len());
        self.partial.extend(self.bytes.drain(..taken));
        let mut packets = Vec::new();
        while let Some(packet) = try_deserialize_packet(&self.partial, 1 << 20).unwrap() {
            let size = packet.size;
            packets.push((packet.token, packet.payload.to_vec()));
            self.partial.drain(..size);
        }
        packets
    }
}

/// What the acceptor's end of a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acceptor {
    Greeting,
    Attached(PeerId),
    Gone,
}

struct Connection {
    up: Pipe,
    down: Pipe,
    /// Everything that was written up first, for a network that repeats it.
    first: Vec<u8>,
    /// Whether the dialler still holds its end.
    is_dialled: bool,
    acceptor: Acceptor,
}

/// What one end promised about the packets it accepted: numbers by packet id.
#[derive(Default)]
struct Ledger {
    accepted: BTreeMap<u64, u64>,
    withdrawn: BTreeSet<u64>,
    /// Every id below was reported.
    reported: u64,
}

/// A peer with its promises.
struct End {
    kit: Kit,
    ledger: Ledger,
}

impl End {
    fn new(state: PeerState) -> Self {
        Self {
            kit: Kit::new(state),
            ledger: Ledger {
                reported: 1,
                ..Ledger::default()
            },
        }
    }
}

fn config() -> PeerConfig {
    PeerConfig {
        reliable_packets: PACKETS,
        ..PeerConfig::default()
    }
}

struct World {
    now: Duration,
    dialler: End,
    /// Lives of either end so far: what their incarnations are made of.
    lives: u64,
    incarnation: UID,
    table: SessionTable,
    accepted: BTreeMap<PeerId, End>,
    connections: Vec<Connection>,
    /// The dialler's, while it has one.
    current: Option<usize>,
    next_number: u64,
    next_peer: u64,
    next_session: u64,
    delivered: BTreeSet<u64>,
    /// Numbers that were promised not to arrive.
    excluded: BTreeSet<u64>,
    /// The last number that each accepted peer received, and sent.
    last_up: BTreeMap<PeerId, u64>,
    last_down: BTreeMap<PeerId, u64>,
    resumed: u64,
}

impl World {
    fn new() -> Self {
        let incarnation = UID::new(2, 0);
        Self {
            now: ZERO,
            dialler: End::new(PeerState::dialling(config(), mode(UID::new(1, 0)))),
            lives: 0,
            incarnation,
            table: SessionTable::new(incarnation, SESSIONS),
            accepted: BTreeMap::new(),
            connections: Vec::new(),
            current: None,
            next_number: 1,
            next_peer: 1,
            next_session: 1,
            delivered: BTreeSet::new(),
            excluded: BTreeSet::new(),
            last_up: BTreeMap::new(),
            last_down: BTreeMap::new(),
            resumed: 0,
        }
    }

    fn apply(&mut self, (kind, at, much): Op) {
        let bytes = usize::from(much % 700) + 1;
        match kind % 40 {
            0..4 => self.send_up(bytes),
            4..7 => self.send_down(at, bytes),
            7..13 => self.turn(u64::from(much % 150)),
            13..17 => self.write_up(bytes),
            17..21 => self.write_down(at, bytes),
            21..24 => self.read_up(at, bytes),
            24..26 => self.read_down(bytes),
            26 => self.cut(at, much),
            27 => self.withdraw(at, much),
            28 => self.repeat(at),
            29 => self.dialler.kit.handle.reconnect(),
            30 if much % 4 == 0 => self.restart(at),
            30 if much % 4 == 1 => self.turn(59_000 + u64::from(at % 3_000)),
            30 => self.flush(),
            31 => self.acceptor_forgets(at, much),
            // Only the dialler learns of it: what it wrote may still arrive, or be overtaken.
            32..35 if self.current.is_some() => self.dialler_drops(lost()),
            35..37 => {
                // Right after an answer that said what did not arrive.
                self.read_down(usize::MAX);
                self.withdraw(at, much);
            }
            _ => self.read_up(at, bytes),
        }
        self.collect();
        self.check_limits();
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    fn send_up(&mut self, size: usize) {
        let number = self.number();
        send(&mut self.dialler, number, size);
    }

    fn send_down(&mut self, at: u16, size: usize) {
        let number = self.number();
        if let Some(peer) = pick(self.accepted.keys(), at) {
            send(self.accepted.get_mut(&peer).unwrap(), number, size);
        }
    }

    fn withdraw(&mut self, at: u16, much: u16) {
        let ids: Vec<u64> = self.dialler.ledger.accepted.keys().copied().collect();
        let recent = ids.len().saturating_sub(8);
        if let Some(id) = pick(ids[recent..].iter(), at) {
            let end = &mut self.dialler;
            withdraw(end, id, &self.delivered, &mut self.excluded);
        }
        if let Some(peer) = pick(self.accepted.keys(), much) {
            let end = self.accepted.get_mut(&peer).unwrap();
            let ids: Vec<u64> = end.ledger.accepted.keys().copied().collect();
            if let Some(id) = pick(ids.iter(), at) {
                withdraw(end, id, &self.delivered, &mut self.excluded);
            }
        }
    }

    /// Time passes, and both ends do what they decide.
    fn turn(&mut self, passed: u64) {
        self.now += ms(passed);
        match self.dialler.kit.decide(self.now) {
            Action::Connect => self.connect(),
            Action::Disconnect(cause) => self.dialler_drops(cause),
            Action::Wait | Action::Shutdown | Action::Finish => {}
        }
        let peers: Vec<PeerId> = self.accepted.keys().copied().collect();
        for peer in peers {
            match self.accepted[&peer].kit.decide(self.now) {
                Action::Disconnect(cause) => self.acceptor_drops(peer, cause),
                Action::Finish => self.finish(peer),
                _ => {}
            }
        }
    }

    fn connect(&mut self) {
        self.next_session += 1;
        let session = UID::new(0xD1A1, self.next_session);
        let mut state = self.dialler.kit.handle.state();
        state.handle_connected(self.now, session);
        drop(state);
        self.current = Some(self.connections.len());
        self.connections.push(Connection {
            up: Pipe::default(),
            down: Pipe::default(),
            first: Vec::new(),
            is_dialled: true,
            acceptor: Acceptor::Greeting,
        });
    }

    /// The dialler drops its end. What it has written is still on its way.
    fn dialler_drops(&mut self, cause: ConnectionError) {
        if let Some(current) = self.current.take() {
            self.connections[current].is_dialled = false;
        }
        self.dialler.kit.closed(self.now, cause);
    }

    /// The accepted peer loses its connection.
    fn acceptor_drops(&mut self, peer: PeerId, cause: ConnectionError) {
        self.fence(peer);
        let end = &self.accepted[&peer];
        end.kit.closed(self.now, cause);
        if end.kit.handle.is_finished() {
            self.finish(peer);
        } else {
            self.table.handle_detached(peer);
        }
    }

    /// No connection leads to this peer any more.
    fn fence(&mut self, peer: PeerId) {
        for connection in &mut self.connections {
            if connection.acceptor == Acceptor::Attached(peer) {
                connection.acceptor = Acceptor::Gone;
            }
        }
    }

    fn finish(&mut self, peer: PeerId) {
        self.fence(peer);
        self.table.remove(peer);
        if let Some(mut end) = self.accepted.remove(&peer) {
            collect(&mut end, &self.delivered, &mut self.excluded);
            assert_eq!(end.kit.handle.metrics().reliable_bytes, 0);
            let ids = end.ledger.accepted.keys();
            assert!(ids.copied().all(|id| id < end.ledger.reported));
        }
    }

    fn write_up(&mut self, bytes: usize) {
        if let Some(current) = self.current {
            let written = self.dialler.kit.write(bytes);
            let connection = &mut self.connections[current];
            let missing = 136_usize.saturating_sub(connection.first.len());
            connection.first.extend(written.iter().take(missing));
            connection.up.bytes.extend(written);
        }
    }

    fn write_down(&mut self, at: u16, bytes: usize) {
        let attached = |connection: &Connection| match connection.acceptor {
            Acceptor::Attached(peer) => Some(peer),
            Acceptor::Greeting | Acceptor::Gone => None,
        };
        let peers: Vec<_> = self.connections.iter().filter_map(attached).collect();
        let Some(peer) = pick(peers.iter(), at) else {
            return;
        };
        let written = self.accepted[&peer].kit.write(bytes);
        let connection = self
            .connections
            .iter_mut()
            .find(|connection| attached(connection) == Some(peer));
        connection.unwrap().down.bytes.extend(written);
    }

    /// Bytes arrive at the acceptor, on any connection that leads somewhere.
    fn read_up(&mut self, at: u16, bytes: usize) {
        let open: Vec<usize> = (0..self.connections.len())
            .filter(|index| self.connections[*index].acceptor != Acceptor::Gone)
            .collect();
        let Some(index) = pick(open.iter(), at) else {
            return;
        };
        for (token, payload) in self.connections[index].up.read(bytes) {
            match self.connections[index].acceptor {
                Acceptor::Gone => return,
                Acceptor::Greeting => self.greet(index, token, &payload),
                Acceptor::Attached(peer) => self.receive_up(peer, token, &payload),
            }
        }
        let connection = &self.connections[index];
        if !connection.is_dialled && connection.up.bytes.is_empty() {
            match connection.acceptor {
                Acceptor::Attached(peer) => self.acceptor_drops(peer, ConnectionError::Ended),
                _ => self.connections[index].acceptor = Acceptor::Gone,
            }
        }
    }

    /// What the acceptor's driver does with the first packet of a connection.
    fn greet(&mut self, index: usize, token: UID, payload: &[u8]) {
        assert_eq!(token, WellKnownToken::Hello.token());
        let HelloKind::Compatible(hello) = Hello::decode(payload).unwrap() else {
            panic!("our own version is compatible");
        };
        let (peer, drawn) = (PeerId(self.next_peer), UID::new(0xACCE, self.next_peer));
        self.next_peer += 1;
        match self.table.decide(&hello, peer, drawn) {
            Decision::Full => self.connections[index].acceptor = Acceptor::Gone,
            Decision::Superseded { generation } => {
                let answer = HelloAnswer::superseded(self.identity(), 1 << 20, generation);
                let token = WellKnownToken::HelloAnswer.token();
                let connection = &mut self.connections[index];
                connection.down.bytes = serialize_packet(token, &answer.encode());
                connection.acceptor = Acceptor::Gone;
            }
            Decision::Fresh { evicted } => {
                if let Some(evicted) = evicted {
                    self.accepted[&evicted].kit.handle.start_close(ZERO);
                    self.accepted[&evicted].kit.decide(self.now);
                    self.finish(evicted);
                }
                let state = PeerState::of_session(config(), self.identity(), drawn);
                self.accepted.insert(peer, End::new(state));
                self.attach(index, peer, &hello);
            }
            Decision::Resume(peer) => {
                self.fence(peer);
                self.attach(index, peer, &hello);
                self.resumed += 1;
            }
        }
    }

    fn identity(&self) -> SessionIdentity {
        SessionIdentity {
            incarnation: self.incarnation,
            address: None,
        }
    }

    fn attach(&mut self, index: usize, peer: PeerId, hello: &Hello) {
        let mut state = self.accepted[&peer].kit.handle.state();
        let attached = state.handle_attached(self.now, hello);
        drop(state);
        match attached {
            Ok(()) => self.connections[index].acceptor = Acceptor::Attached(peer),
            Err(ConnectionError::Closed) => {
                self.connections[index].acceptor = Acceptor::Gone;
                self.acceptor_drops(peer, ConnectionError::Ended);
            }
            Err(cause) => panic!("two correct ends understand each other: {cause:?}"),
        }
    }

    fn receive_up(&mut self, peer: PeerId, token: UID, payload: &[u8]) {
        let received = self.accepted[&peer].kit.packet(self.now, token, payload);
        match received {
            Ok(Some((_, payload, true))) => {
                let number = self.deliver(&payload);
                let last = self.last_up.insert(peer, number).unwrap_or(0);
                assert!(last < number, "{number} came after {last}");
            }
            Ok(_) => {}
            Err(ConnectionError::RemoteClosed) => {
                self.acceptor_drops(peer, ConnectionError::RemoteClosed);
            }
            Err(cause) => panic!("two correct ends understand each other: {cause:?}"),
        }
    }

    /// Bytes arrive at the dialler, on its current connection.
    fn read_down(&mut self, bytes: usize) {
        let Some(index) = self.current else {
            return;
        };
        for (token, payload) in self.connections[index].down.read(bytes) {
            match self.dialler.kit.packet(self.now, token, &payload) {
                Ok(Some((_, payload, true))) => {
                    let number = self.deliver(&payload);
                    if let Acceptor::Attached(peer) = self.connections[index].acceptor {
                        let last = self.last_down.insert(peer, number).unwrap_or(0);
                        assert!(last < number, "{number} came after {last}");
                    }
                }
                Ok(_) => {}
                Err(
                    cause @ (ConnectionError::Superseded { .. } | ConnectionError::RemoteClosed),
                ) => {
                    self.dialler_drops(cause);
                    return;
                }
                Err(cause) => panic!("two correct ends understand each other: {cause:?}"),
            }
        }
        let connection = &self.connections[index];
        if connection.acceptor == Acceptor::Gone && connection.down.bytes.is_empty() {
            self.dialler_drops(ConnectionError::Ended);
        }
    }

    fn deliver(&mut self, payload: &[u8]) -> u64 {
        let number = u64::from_le_bytes(*payload.first_chunk().unwrap());
        assert!(self.delivered.insert(number), "{number} came twice");
        assert!(
            !self.excluded.contains(&number),
            "{number} was said not to come"
        );
        number
    }

    /// The network ends a connection, for one end or for both, with what was on its way or part of
    /// it. What only one end knows makes it half open.
    fn cut(&mut self, at: u16, much: u16) {
        let indices: Vec<usize> = (0..self.connections.len()).collect();
        let Some(index) = pick(indices.iter().rev().take(3), at) else {
            return;
        };
        let connection = &mut self.connections[index];
        let keeps = usize::from(much / 4) % (connection.up.bytes.len() + 1);
        connection.up.bytes.truncate(keeps);
        let acceptor = connection.acceptor;
        if much % 4 != 1 && self.current == Some(index) {
            self.dialler_drops(lost());
        }
        if much % 4 != 2 {
            self.connections[index].up = Pipe::default();
            match acceptor {
                Acceptor::Attached(peer) => self.acceptor_drops(peer, lost()),
                _ => self.connections[index].acceptor = Acceptor::Gone,
            }
        }
    }

    /// An old Hello arrives again, on a connection of its own.
    fn repeat(&mut self, at: u16) {
        let first = |connection: &Connection| connection.first.clone();
        let hellos: Vec<Vec<u8>> = self.connections.iter().map(first).collect();
        if let Some(bytes) = pick(hellos.iter().rev().take(4), at) {
            self.connections.push(Connection {
                up: Pipe {
                    bytes,
                    partial: Vec::new(),
                },
                down: Pipe::default(),
                first: Vec::new(),
                is_dialled: false,
                acceptor: Acceptor::Greeting,
            });
        }
    }

    /// A process dies and comes back without memory. What it accepted dies with it.
    fn restart(&mut self, at: u16) {
        self.lives += 1;
        if at.is_multiple_of(2) {
            if let Some(current) = self.current.take() {
                self.connections[current].is_dialled = false;
            }
            let incarnation = mode(UID::new(1, self.lives));
            self.dialler = End::new(PeerState::dialling(config(), incarnation));
        } else {
            for connection in &mut self.connections {
                connection.acceptor = Acceptor::Gone;
            }
            self.accepted.clear();
            self.incarnation = UID::new(2, self.lives);
            self.table = SessionTable::new(self.incarnation, SESSIONS);
        }
    }

    /// The acceptor closes a session, in order or at once.
    fn acceptor_forgets(&mut self, at: u16, much: u16) {
        if let Some(peer) = pick(self.accepted.keys(), at) {
            let grace = if much.is_multiple_of(2) {
                ZERO
            } else {
                ms(500)
            };
            self.accepted[&peer].kit.handle.start_close(grace);
        }
    }

    /// Everything that is on its way arrives, on the current connection.
    fn flush(&mut self) {
        for _ in 0..4 {
            self.turn(100);
            self.write_up(usize::MAX);
            for at in 0..16 {
                self.read_up(at, usize::MAX);
                self.write_down(at, usize::MAX);
            }
            self.read_down(usize::MAX);
        }
    }

    fn collect(&mut self) {
        collect(&mut self.dialler, &self.delivered, &mut self.excluded);
        for end in self.accepted.values_mut() {
            collect(end, &self.delivered, &mut self.excluded);
        }
        self.connections_that_matter();
    }

    /// Forgets connections that can do nothing any more, but the latest, for their Hellos.
    fn connections_that_matter(&mut self) {
        let is_dead = |connection: &Connection| {
            connection.acceptor == Acceptor::Gone && !connection.is_dialled
        };
        while self.connections.len() > 24 && is_dead(&self.connections[0]) {
            self.connections.remove(0);
            self.current = self.current.map(|current| current - 1);
        }
    }

    fn check_limits(&self) {
        assert!(self.table.len() <= SESSIONS);
        assert_eq!(self.table.len(), self.accepted.len());
        for peer in self.accepted.keys() {
            let leads_here =
                |connection: &&Connection| connection.acceptor == Acceptor::Attached(*peer);
            let carrying = self.connections.iter().filter(leads_here).count();
            assert!(carrying <= 1, "{carrying} connections carry one session");
        }
        for end in self.accepted.values().chain([&self.dialler]) {
            let metrics = end.kit.handle.metrics();
            let held = metrics.reliable_queued + metrics.unacknowledged;
            assert!(held <= PACKETS, "{metrics:?}");
        }
    }

    /// Everything works from now on, until nothing is left to do.
    fn settle(&mut self) {
        for round in 0..400 {
            self.flush();
            self.collect();
            let metrics = self.dialler.kit.handle.metrics();
            if self.dialler.kit.handle.is_finished() {
                return self.check_end();
            }
            if metrics.reliable_queued == 0 && round > 2 {
                self.dialler.kit.handle.start_close(ms(120_000));
            }
        }
        panic!("no rest: {:?}", self.dialler.kit.handle.metrics());
    }

    fn check_end(&mut self) {
        let metrics = self.dialler.kit.handle.metrics();
        assert_eq!((metrics.reliable_queued, metrics.reliable_bytes), (0, 0));
        let ledger = &self.dialler.ledger;
        for (id, number) in &ledger.accepted {
            let is_settled = *id < ledger.reported
                || ledger.withdrawn.contains(id)
                || self.delivered.contains(number);
            assert!(is_settled, "{number} was lost without a word");
        }
        // Nobody comes back: what accepted sessions still hold is reported within their time.
        self.turn(61_000);
        self.turn(61_000);
        for connection in 0..self.connections.len() {
            self.connections[connection].up = Pipe::default();
            if let Acceptor::Attached(peer) = self.connections[connection].acceptor {
                self.acceptor_drops(peer, lost());
            }
        }
        self.turn(61_000);
        self.turn(1);
        assert_eq!((self.table.len(), self.accepted.len()), (0, 0));
    }
}

fn pick<'a, T: Clone + 'a>(from: impl Iterator<Item = &'a T> + Clone, at: u16) -> Option<T> {
    let count = from.clone().count();
    let index = usize::from(at).checked_rem(count)?;
    from.clone().nth(index).cloned()
}

fn send(end: &mut End, number: u64, size: usize) {
    let mut payload = vec![0; size.max(8)];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    match end.kit.handle.send_reliable(TOKEN, payload.into()) {
        Ok(id) => drop(end.ledger.accepted.insert(id.get(), number)),
        Err(PeerError::QueueFull { .. } | PeerError::Closed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

fn withdraw(end: &mut End, id: u64, delivered: &BTreeSet<u64>, excluded: &mut BTreeSet<u64>) {
    let number = end.ledger.accepted[&id];
    match end.kit.handle.withdraw(PacketId::new(id)) {
        Withdrawal::Unknown => return,
        Withdrawal::MaybeDelivered => {}
        Withdrawal::NotDelivered => {
            assert!(!delivered.contains(&number), "{number} came all the same");
            excluded.insert(number);
        }
    }
    end.ledger.withdrawn.insert(id);
}

fn collect(end: &mut End, delivered: &BTreeSet<u64>, excluded: &mut BTreeSet<u64>) {
    for event in end.kit.events() {
        let Event::SessionEnded(ended) = event else {
            panic!("{event:?}");
        };
        let (maybe, not) = (&ended.maybe_delivered, &ended.not_delivered);
        assert!(maybe.start <= maybe.end && maybe.end == not.start && not.start <= not.end);
        let ledger = &mut end.ledger;
        assert!(maybe.start.get() >= ledger.reported, "reported twice");
        // What lies between two reports was acknowledged, so it was delivered.
        for id in ledger.reported..maybe.start.get() {
            let number = ledger.accepted[&id];
            assert!(
                delivered.contains(&number) || ledger.withdrawn.contains(&id),
                "{number} counts as delivered and was not"
            );
        }
        for id in not.start.get()..not.end.get() {
            let number = ledger.accepted[&id];
            assert!(!delivered.contains(&number), "{number} came all the same");
            excluded.insert(number);
        }
        ledger.reported = not.end.get();
    }
}

fn run(ops: &[Op]) -> World {
    let mut world = World::new();
    for op in ops {
        world.apply(*op);
    }
    world.settle();
    world
}

/// The splitmix64 generator (Steele, Lea, Flood 2014): each seed is one interleaving.
fn interleaving(seed: u64) -> Vec<Op> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    };
    let length = 20 + next() % 180;
    let op = |bits: u64| {
        let [kind, _, a, b, c, d, ..] = bits.to_le_bytes();
        (kind, u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
    };
    (0..length).map(|_| op(next())).collect()
}

fn check_seeds(seeds: Range<u64>) {
    let mut resumed = 0;
    let mut delivered = 0;
    for seed in seeds.clone() {
        let ran = std::panic::catch_unwind(|| {
            let world = run(&interleaving(seed));
            (world.resumed, world.delivered.len())
        });
        let Ok((resumes, deliveries)) = ran else {
            panic!("seed {seed} failed: see above");
        };
        resumed += resumes;
        delivered += deliveries;
    }
    let count = seeds.end - seeds.start;
    // Otherwise nothing was tested.
    assert!(resumed > count / 2, "{resumed} resumes in {count} runs");
    assert!(delivered as u64 > 3 * count, "{delivered} deliveries");
}

#[test]
fn random_interleavings_keep_every_promise() {
    check_seeds(0..1_500);
}

/// `cargo test --release -p moonpool-foundation slow_ -- --ignored`
#[test]
#[ignore = "ten seconds in release, minutes in debug; .ci/run runs it"]
fn slow_a_hundred_thousand_interleavings_keep_every_promise() {
    check_seeds(0..100_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_interleaving_keeps_every_promise(
        ops in proptest::collection::vec(any::<Op>(), 0..150),
    ) {
        run(&ops);
    }
}
