//! Raw streams: bytes that are known by their place, echoed.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use moonpool::TcpListenerTrait;
use moonpool::foundation::{
    ConnectionSide, SimProviders, SimWorld, SimulationMetrics, SimulationResult, WorkloadTopology,
    clog_random_pair, disconnect_pair_for, sometimes_assert, swizzle,
};
use moonpool::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::TROUBLE_ENDS;
use super::ledger::{Ledger, Observer, Sightings, Way, any_server};

const ROUNDS: u32 = 12;
const HEADER: usize = 16;
const PATIENCE: Duration = Duration::from_secs(8);
/// Longer than any client waits.
const IDLE: Duration = Duration::from_secs(10);

/// Spreads a number's bits.
fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// What stands at `offset` behind the header of a stream.
fn byte_at(stream: u64, offset: u64) -> u8 {
    mix(mix(stream) ^ offset).to_be_bytes()[0]
}

fn header_of(stream: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&stream.to_le_bytes());
    header[8..].copy_from_slice(&mix(stream).to_le_bytes());
    header
}

/// How many of `bytes` are not what stands there.
fn count_changed(stream: u64, offset: u64, bytes: &[u8]) -> u64 {
    let places = (offset..).zip(bytes);
    let changed = places.filter(|(place, byte)| byte_at(stream, *place) != **byte);
    changed.count() as u64
}

async fn write_counted(
    ledger: &Ledger,
    (stream, way): (u64, Way),
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let count = to.write(left).await?;
        assert!(count > 0, "a write of something accepts something");
        ledger.sent(stream, way, count);
        left = &left[count..];
    }
    Ok(())
}

/// Accepts on port 80 until the process is told to end.
pub(crate) async fn serve(
    providers: SimProviders,
    topology: WorkloadTopology,
) -> SimulationResult<()> {
    let ledger = topology.shared::<Ledger>();
    let listener = providers.network().bind("0.0.0.0:80").await?;
    loop {
        moonpool::select! { biased;
            () = topology.shutdown_signal.cancelled() => return Ok(()),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let echo = echo(providers.clone(), Rc::clone(&ledger), stream);
                providers.task().spawn_task("echo", echo);
            },
        }
    }
}

async fn echo(
    providers: SimProviders,
    ledger: Rc<Ledger>,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) {
    let time = providers.time();
    let mut header = [0; HEADER];
    let read = time.timeout(IDLE, stream.read_exact(&mut header)).await;
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    let id = header.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
    if header != header_of(id) {
        ledger.check_changed(&providers, id, 1);
        let unreadable = &ledger.unreadable_headers;
        unreadable.set(unreadable.get() + 1);
        return;
    }
    let mut received = 0;
    let mut bytes = [0; 2_048];
    loop {
        match time.timeout(IDLE, stream.read(&mut bytes)).await {
            Ok(Ok(0)) => {
                ledger.check_end(&providers, id, Way::Up, received + HEADER as u64);
                break;
            }
            Ok(Ok(count)) => {
                let changed = count_changed(id, received, &bytes[..count]);
                ledger.check_changed(&providers, id, changed);
                received += count as u64;
                let back = (id, Way::Down);
                if write_counted(&ledger, back, &mut stream, &bytes[..count])
                    .await
                    .is_err()
                {
                    break;
                }
            }
            Ok(Err(_)) => break,
            Err(_) => {
                break;
            }
        }
    }
    ledger.closes(id, Way::Down);
    drop(stream.shutdown().await);
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// All came back, as it was sent.
    Whole,
    /// The other end closed before, or bytes were changed.
    Short,
    /// By an error.
    Broken(io::ErrorKind),
    TimedOut,
}

async fn exchange(providers: &SimProviders, ledger: &Ledger, server: &str) -> Ended {
    let (id, time) = (ledger.next(), providers.time());
    let result = time
        .timeout(PATIENCE, send_and_receive(providers, ledger, server, id))
        .await;
    // The stream was dropped just now, if the time was over.
    ledger.closes(id, Way::Up);
    let ended = match result {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => Ended::Broken(error.kind()),
        Err(_) => Ended::TimedOut,
    };
    let broken_by = |kind| ended == Ended::Broken(kind);
    sometimes_assert!(
        an_exchange_was_whole,
        ended == Ended::Whole,
        "all came back"
    );
    sometimes_assert!(
        an_exchange_took_too_long,
        ended == Ended::TimedOut,
        "it was given up"
    );
    sometimes_assert!(
        a_stream_was_reset,
        broken_by(io::ErrorKind::ConnectionReset),
        "RST"
    );
    sometimes_assert!(
        a_connect_was_refused,
        broken_by(io::ErrorKind::ConnectionRefused),
        "RST"
    );
    ended
}

async fn send_and_receive(
    providers: &SimProviders,
    ledger: &Ledger,
    server: &str,
    id: u64,
) -> io::Result<Ended> {
    let random = providers.random();
    let total = match random.random_range(0..8) {
        0 => random.random_range(0..40_000),
        _ => random.random_range(0..3_000_u64),
    };
    let stream = providers.network().connect(&format!("{server}:80")).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    // An error is told once: of a connection that failed for the writer, the reader sees the end.
    let has_failed = Cell::new(false);
    let sending = async {
        let sent = send_all(providers, ledger, id, &mut to, total).await;
        has_failed.set(sent.is_err());
        sent
    };
    let receiving = async {
        let (mut received, mut changed) = (0, 0);
        let mut bytes = [0; 2_048];
        loop {
            let count = from.read(&mut bytes).await?;
            if count == 0 {
                if !has_failed.get() {
                    ledger.check_end(providers, id, Way::Down, received);
                }
                return Ok::<_, io::Error>((received, changed));
            }
            let wrong = count_changed(id, received, &bytes[..count]);
            ledger.check_changed(providers, id, wrong);
            changed += wrong;
            received += count as u64;
        }
    };
    let (sent, received) = tokio::join!(sending, receiving);
    let (received, changed) = received?;
    Ok(match sent {
        Ok(()) if (received, changed) == (total, 0) => Ended::Whole,
        Ok(()) => Ended::Short,
        Err(error) => Ended::Broken(error.kind()),
    })
}

async fn send_all(
    providers: &SimProviders,
    ledger: &Ledger,
    id: u64,
    to: &mut (impl AsyncWrite + Unpin),
    total: u64,
) -> io::Result<()> {
    let (random, up) = (providers.random(), (id, Way::Up));
    write_counted(ledger, up, to, &header_of(id)).await?;
    let mut offset = 0;
    while offset < total {
        let end = total.min(offset + random.random_range(1..=1_500));
        let bytes: Vec<u8> = (offset..end).map(|place| byte_at(id, place)).collect();
        write_counted(ledger, up, to, &bytes).await?;
        offset = end;
        if random.random_bool(0.3) {
            let pause = random.random_range(0..60);
            providers.time().sleep(Duration::from_millis(pause)).await;
        }
    }
    ledger.closes(id, Way::Up);
    to.shutdown().await
}

/// Faults that only happen by call, now and then, while there is time for them.
fn make_trouble(providers: &SimProviders, world: &SimWorld) {
    let random = providers.random();
    let millis = |most: u64| Duration::from_millis(random.random_range(1..most));
    let processes = world.all_processes();
    let connections = world.connections();
    match random.random_range(0..8) {
        0 => clog_random_pair(world),
        1 => swizzle(world, Duration::from_secs(2)),
        2 => {
            let server = random.random_range(0..2);
            let client = random.random_range(2..processes.len());
            disconnect_pair_for(world, &processes[server], &processes[client], millis(2_000));
        }
        3 if !connections.is_empty() => {
            let connection = connections[random.random_range(0..connections.len())];
            let silent = match random.random_bool(0.5) {
                true => ConnectionSide::Dialer,
                false => ConnectionSide::Acceptor,
            };
            world.simulate_peer_crash(connection, silent, millis(4_000));
        }
        4 if !connections.is_empty() => {
            let connection = connections[random.random_range(0..connections.len())];
            world.close_connection_abort(connection);
        }
        5 if !connections.is_empty() => {
            let connection = connections[random.random_range(0..connections.len())];
            world.close_connection_graceful(connection, ConnectionSide::Dialer);
        }
        _ => {}
    }
}

/// Streams to servers drawn anew each time; at the end each server has to echo one.
pub(crate) async fn client(
    providers: SimProviders,
    topology: WorkloadTopology,
    sightings: Sightings,
) -> SimulationResult<SimulationMetrics> {
    let observer = Observer::new(&providers, "streams", &sightings);
    let ledger = topology.shared::<Ledger>();
    let time = providers.time();
    for _ in 0..ROUNDS {
        if time.now() < TROUBLE_ENDS {
            make_trouble(&providers, &providers.world().unwrap());
        }
        let (_, server) = any_server(&providers, &topology);
        let ended = exchange(&providers, &ledger, &server).await;
        observer.saw(match ended {
            Ended::Whole => 1,
            Ended::Short => 2,
            Ended::Broken(kind) => 16 + kind as u64,
            Ended::TimedOut => 3,
        });
        let pause = providers.random().random_range(0..1_500);
        time.sleep(Duration::from_millis(pause)).await;
    }
    for (_, server) in topology.get_peers_with_prefix("server-") {
        while exchange(&providers, &ledger, &server).await != Ended::Whole {
            time.sleep(Duration::from_millis(200)).await;
        }
        observer.saw(4);
    }
    observer.finish();
    Ok(SimulationMetrics::default())
}
