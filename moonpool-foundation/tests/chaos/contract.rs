//! TCP's contract under all faults at once: what is read is what was written, in order, without a
//! hole; a clean end comes after every byte that was accepted, and never while bytes are pending.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;
use moonpool_foundation::{
    CloseDirection, ConnectionSide, FaultCounts, FaultKind, NetworkConfiguration, NetworkProvider,
    Providers, RandomProvider, SimProviders, SimTcpStream, SimWorld, TaskProvider,
    TcpListenerTrait, TcpStreamTrait, TimeProvider, clog_random_pair, disconnect_pair_for, swizzle,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::worlds::{MILLISECOND, SECOND, byte_at};

/// Bytes of each direction of each connection, if nothing happens to it.
const LENGTH: usize = 30_000;
const CONNECTIONS: usize = 12;
/// How long anybody waits for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is known of one direction of one connection.
#[derive(Default)]
struct Direction {
    accepted: Cell<usize>,
    read: Cell<usize>,
    ended: Cell<bool>,
}

#[derive(Default)]
struct Books {
    /// By the dialler's address, and by whether the dialler sends.
    directions: RefCell<BTreeMap<(String, bool), Rc<Direction>>>,
    differing_bits: Cell<u64>,
    complete: Cell<u64>,
    ends: RefCell<BTreeSet<String>>,
}

impl Books {
    fn direction(&self, dialler: &str, dialler_sends: bool) -> Rc<Direction> {
        let key = (dialler.to_owned(), dialler_sends);
        Rc::clone(self.directions.borrow_mut().entry(key).or_default())
    }
}

/// Where a direction's bytes begin in the pattern: each has its own.
fn offset(dialler: &str, dialler_sends: bool) -> usize {
    let port: usize = dialler.rsplit(':').next().unwrap().parse().unwrap();
    port * 1_000_003 + usize::from(dialler_sends) * 77
}

async fn send(
    mut stream: impl AsyncWrite + Unpin,
    providers: &SimProviders,
    direction: &Direction,
    begins: usize,
    told: &Cell<bool>,
) {
    let (random, time) = (providers.random(), providers.time());
    while direction.accepted.get() < LENGTH {
        let at = direction.accepted.get();
        let wanted = random.random_range(1..4_000_usize).min(LENGTH - at);
        let bytes: Vec<u8> = (at..at + wanted).map(|i| byte_at(begins + i)).collect();
        match time.timeout(PATIENCE, stream.write(&bytes)).await {
            Ok(Ok(count)) => {
                assert!((1..=wanted).contains(&count), "{count} of {wanted}");
                assert!(
                    !direction.ended.get(),
                    "accepted after the other end saw the end"
                );
                direction.accepted.set(at + count);
            }
            // A socket tells of its failure once; who reads it then finds the end, as on Linux.
            Ok(Err(error)) => return told.set(error.kind() != ErrorKind::BrokenPipe),
            Err(_) => return,
        }
        if random.random_bool(0.2) {
            time.sleep(random.random_range(0..50) * MILLISECOND).await;
        }
    }
    drop(stream.shutdown().await);
}

async fn receive(
    mut stream: impl AsyncRead + Unpin,
    providers: &SimProviders,
    direction: &Direction,
    begins: usize,
    books: &Books,
    told: &Cell<bool>,
) {
    let (random, time) = (providers.random(), providers.time());
    let mut buffer = vec![0; 5_000];
    loop {
        let wanted = random.random_range(1..5_000_usize);
        let end = match time
            .timeout(PATIENCE, stream.read(&mut buffer[..wanted]))
            .await
        {
            Ok(Ok(0)) if told.get() => "told by a write".to_owned(),
            Ok(Ok(0)) => {
                direction.ended.set(true);
                let (read, accepted) = (direction.read.get(), direction.accepted.get());
                assert_eq!(read, accepted, "a clean end while bytes were pending");
                books
                    .complete
                    .set(books.complete.get() + u64::from(read == LENGTH));
                "end".to_owned()
            }
            Ok(Ok(count)) => {
                let at = direction.read.get();
                for (place, byte) in buffer[..count].iter().enumerate() {
                    let differs = byte ^ byte_at(begins + at + place);
                    let bits = books.differing_bits.get() + u64::from(differs.count_ones());
                    books.differing_bits.set(bits);
                }
                direction.read.set(at + count);
                assert!(direction.read.get() <= direction.accepted.get());
                continue;
            }
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Err(_) => "silence".to_owned(),
        };
        books.ends.borrow_mut().insert(end);
        return;
    }
}

/// Sends and receives on one end.
async fn exchange(
    stream: SimTcpStream,
    providers: SimProviders,
    dialler: String,
    is_dialler: bool,
    books: Rc<Books>,
) {
    let (sends, receives) = (
        books.direction(&dialler, is_dialler),
        books.direction(&dialler, !is_dialler),
    );
    let (reader, writer) = split(stream);
    let told = Cell::new(false);
    join(
        send(
            writer,
            &providers,
            &sends,
            offset(&dialler, is_dialler),
            &told,
        ),
        receive(
            reader,
            &providers,
            &receives,
            offset(&dialler, !is_dialler),
            &books,
            &told,
        ),
    )
    .await;
}

async fn serve(providers: SimProviders, books: Rc<Books>) {
    let listener = providers.network().bind("server:80").await.unwrap();
    loop {
        let (stream, dialler) = listener.accept().await.unwrap();
        let exchanged = exchange(stream, providers.clone(), dialler, false, Rc::clone(&books));
        providers.task().spawn_task("exchange", exchanged);
    }
}

async fn dial(providers: SimProviders, books: Rc<Books>) {
    for _ in 0..CONNECTIONS {
        let connect = providers.network().connect("server:80");
        if let Ok(Ok(stream)) = providers.time().timeout(10 * SECOND, connect).await {
            let dialler = stream.local_addr().unwrap();
            exchange(stream, providers.clone(), dialler, true, Rc::clone(&books)).await;
        }
    }
}

/// A fault by call, drawn.
fn break_something(world: &SimWorld, random: &impl RandomProvider) {
    let processes = world.all_processes();
    let (one, other) = (&processes[0], &processes[1]);
    let lasts = random.random_range(1..3_000) * MILLISECOND;
    let side = if random.random_bool(0.5) {
        ConnectionSide::Dialer
    } else {
        ConnectionSide::Acceptor
    };
    let connections = world.connections();
    let connection = connections.first().copied();
    match (random.random_range(0..16_u32), connection) {
        (0, _) => world.partition_pair(one, other, 10 * lasts),
        (1, _) => world.partition_one_way(one, other, 10 * lasts),
        (2, _) => world.partition_send_from(other, lasts),
        (3, _) => world.partition_recv_to(other, lasts),
        (4, _) => clog_random_pair(world),
        (5, _) => swizzle(world, lasts),
        (6, _) => disconnect_pair_for(world, one, other, lasts),
        (7, _) => world.clog_pair(one, other, lasts),
        (8, Some(connection)) => world.cut_connection(connection, lasts),
        (9, Some(connection)) => world.clog_read(connection, side, lasts),
        (10, Some(connection)) => world.clog_write(connection, side, lasts),
        (11, Some(connection)) => world.close_connection_graceful(connection, side),
        (12, Some(connection)) => world.close_connection_abort(connection),
        (13, Some(connection)) => {
            let direction = match random.random_range(0..3_u32) {
                0 => CloseDirection::Send,
                1 => CloseDirection::Receive,
                _ => CloseDirection::Both,
            };
            world.close_connection_asymmetric(connection, side, direction);
        }
        (14, Some(connection)) => world.simulate_peer_crash(connection, side, lasts),
        (15, Some(connection)) => world.set_asymmetric_delays(connection, lasts / 10, lasts / 20),
        (_, _) => {}
    }
}

struct Outcome {
    counts: FaultCounts,
    complete: u64,
    ends: BTreeSet<String>,
    digest: u64,
}

fn run(config: NetworkConfiguration, seed: u64, breaks: bool) -> Outcome {
    let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
    let books = Rc::new(Books::default());
    let server = world.add_process("server").providers();
    let client = world.add_process("client").providers();
    let serving = serve(server.clone(), Rc::clone(&books));
    server.task().spawn_task("server", serving);
    let dialling = dial(client.clone(), Rc::clone(&books));
    let dialled = client.task().spawn_task("client", dialling);
    let random = world.random_provider();
    while !dialled.is_finished() {
        let pause = random.random_range(1..3_000) * MILLISECOND;
        let ran = world.run_for(pause);
        ran.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        if breaks {
            break_something(&world, &random);
        }
    }
    world.heal_network();
    world.run_for(300 * SECOND).unwrap();
    let left = world.leftovers();
    assert_eq!(
        (left.connections, left.events),
        (0, 0),
        "seed {seed}: {left:?}"
    );
    let counts = world.fault_counts();
    let flips = counts.of(FaultKind::BitFlip);
    let differing = books.differing_bits.get();
    assert!(
        differing <= 32 * flips,
        "seed {seed}: {differing} bits after {flips} flips"
    );
    Outcome {
        counts,
        complete: books.complete.get(),
        ends: books.ends.take(),
        digest: world.digest(),
    }
}

fn campaign(config: impl Fn(u64) -> NetworkConfiguration, seeds: u64, breaks: bool) -> Outcome {
    let mut total = Outcome {
        counts: FaultCounts::default(),
        complete: 0,
        ends: BTreeSet::new(),
        digest: 0,
    };
    for seed in 0..seeds {
        let outcome = run(config(seed), seed, breaks);
        if seed % 20 == 0 {
            assert_eq!(
                run(config(seed), seed, breaks).digest,
                outcome.digest,
                "seed {seed}"
            );
        }
        total.counts.merge(&outcome.counts);
        total.complete += outcome.complete;
        total.ends.extend(outcome.ends);
    }
    total
}

/// Kinds that happen to connections, by chance or by call.
const ON_CONNECTIONS: [FaultKind; 18] = [
    FaultKind::LongTail,
    FaultKind::AsymmetricDelay,
    FaultKind::PartialWrite,
    FaultKind::PartialRead,
    FaultKind::WriteClog,
    FaultKind::ReadClog,
    FaultKind::PairClog,
    FaultKind::Cut,
    FaultKind::Partition,
    FaultKind::Disconnect,
    FaultKind::PacketLoss,
    FaultKind::RandomClose,
    FaultKind::Reset,
    FaultKind::HalfOpen,
    FaultKind::BitFlip,
    FaultKind::ConnectRefused,
    FaultKind::ConnectHang,
    FaultKind::Segmentation,
];

/// More seeds by hand: `CONTRACT_SEEDS=10000`.
fn seeds(default: u64) -> u64 {
    let given = std::env::var("CONTRACT_SEEDS");
    given.map_or(default, |seeds| seeds.parse().unwrap())
}

#[test]
fn the_contract_holds_under_all_faults_together() {
    let all = campaign(
        |_| {
            let mut config = NetworkConfiguration::chaos();
            config.chaos.bit_flip_probability = 1e-3;
            config
        },
        seeds(40),
        true,
    );
    for kind in ON_CONNECTIONS {
        assert!(all.counts.of(kind) > 0, "{kind} never fired");
    }
    assert!(all.complete > 20, "{} directions complete", all.complete);
    for end in ["end", "ConnectionReset", "TimedOut"] {
        assert!(all.ends.contains(end), "{:?}", all.ends);
    }
}

#[test]
fn the_contract_holds_on_drawn_networks() {
    let drawn = campaign(NetworkConfiguration::swarm_for_seed, seeds(40), true);
    assert!(
        drawn.complete > 20,
        "{} directions complete",
        drawn.complete
    );
}

#[test]
fn without_bit_flips_and_closes_every_byte_arrives() {
    let whole = campaign(
        |_| {
            NetworkConfiguration::chaos()
                .without(FaultKind::BitFlip)
                .without(FaultKind::RandomClose)
                .without(FaultKind::Partition)
                .without(FaultKind::ConnectHang)
                .without(FaultKind::ConnectRefused)
        },
        seeds(10),
        false,
    );
    assert_eq!(whole.complete, 2 * CONNECTIONS as u64 * seeds(10));
}
