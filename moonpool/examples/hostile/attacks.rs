//! What a hostile client does. Generic over the world: the same attacks run on real TCP and in the
//! simulator.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use moonpool::foundation::UID;
use moonpool::prelude::*;
use moonpool::{NetworkProvider, TcpStreamTrait};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};

use super::wire::{self, Hello};

/// The endpoint that the server serves.
pub(crate) const WORK: UID = UID::new(0x5E4E, 1);

/// Nobody has this one.
const ABSENT: UID = UID::new(0xAB5E, 1);

/// Bytes that a flood writes at once.
const FLOOD_BYTES: usize = 64 * 1024;

/// What one connection of an attacker does, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Random bytes.
    Garbage,
    /// A connect, then silence.
    NeverGreets,
    /// Half a Hello, then silence.
    HalfHello,
    /// A Hello, one byte at a time, too slowly to be in time.
    SlowHello,
    /// A packet that says it is 4 GiB long, before or after the greeting.
    HugeLength,
    /// Magic, versions or limits that no honest dialler sends.
    WrongHello,
    /// A Hello, and gone before the answer.
    HelloFlood,
    /// A session, then Hello after Hello on it.
    HelloAgain,
    /// A session and one request, then gone without a word. The session is kept for 60 s.
    Abandoned,
    /// The Hello of another client, as it was, with a request behind it.
    CopiedHello,
    /// A Hello that claims an address which is another's.
    ClaimedAddress,
    /// A session, then all but the last byte of the largest packet, and silence.
    HalfPacket,
    /// A session, then a request one byte at a time.
    SlowRequest,
    /// A session, then requests for large answers that are never read.
    SlowReader,
    /// A session, then requests whose answers are read and never acknowledged.
    NoAcknowledgement,
    /// A session, then requests to a token that nobody has.
    AbsentTokens,
    /// A session, then pings; pongs are not read.
    Pings,
    /// A session, then frames that break its rules.
    BrokenRules,
    /// A session, then requests that no codec reads, and envelopes that are none.
    Undecodable,
    /// A connect, and gone.
    Connects,
    /// A connect, Hello, its answer and Close.
    Greetings,
}

impl Kind {
    pub(crate) const ALL: [Self; 21] = [
        Self::Garbage,
        Self::NeverGreets,
        Self::HalfHello,
        Self::SlowHello,
        Self::HugeLength,
        Self::WrongHello,
        Self::HelloFlood,
        Self::HelloAgain,
        Self::Abandoned,
        Self::CopiedHello,
        Self::ClaimedAddress,
        Self::HalfPacket,
        Self::SlowRequest,
        Self::SlowReader,
        Self::NoAcknowledgement,
        Self::AbsentTokens,
        Self::Pings,
        Self::BrokenRules,
        Self::Undecodable,
        Self::Connects,
        Self::Greetings,
    ];
}

/// How much of an attack there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Connections at one time.
    pub(crate) lanes: usize,
    /// Connections in all.
    pub(crate) connections: u64,
    /// No connection begins later than this after the attack did.
    pub(crate) limit: Duration,
    /// How long each connection stays at most.
    pub(crate) stay: Duration,
}

/// What came of an attack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Connections that were tried.
    pub(crate) tried: u64,
    /// Attempts to connect that failed.
    pub(crate) not_connected: u64,
    /// Connections that were cut, or whose greeting was not answered.
    pub(crate) cut: u64,
    /// Bytes written.
    pub(crate) written: u64,
}

/// One hostile client.
#[derive(Debug)]
pub(crate) struct Attacker<P> {
    providers: P,
    /// Addresses of the one server that is attacked.
    targets: Vec<String>,
    kind: Kind,
    plan: Plan,
    tally: Rc<Cell<Tally>>,
    /// Payload limit of the server.
    max_payload: u32,
    /// Bytes of the answers that are asked for.
    answer_bytes: usize,
    /// The Hello to copy, and the address to claim.
    copied: Hello,
}

type Stream<P> = <<P as Providers>::Network as NetworkProvider>::TcpStream;

impl<P: Providers> Attacker<P> {
    pub(crate) fn new(providers: P, targets: Vec<String>, kind: Kind, plan: Plan) -> Self {
        let copied = Hello::new(random_uid(&providers), random_uid(&providers));
        Self {
            providers,
            targets,
            kind,
            plan,
            tally: Rc::default(),
            max_payload: 1024 * 1024,
            answer_bytes: 32 * 1024,
            copied,
        }
    }

    /// The server's limit of payloads, and the size of the answers that it is asked for.
    pub(crate) fn sizes(self, max_payload: u32, answer_bytes: usize) -> Self {
        Self {
            max_payload,
            answer_bytes,
            ..self
        }
    }

    /// Whose Hello is copied, and whose address is claimed.
    pub(crate) fn victim(self, copied: Hello) -> Self {
        Self { copied, ..self }
    }

    /// Attacks until the plan is done.
    pub(crate) async fn run(self) -> Tally {
        let this = Rc::new(self);
        let began = this.providers.time().now();
        let lanes: Vec<_> = (0..this.plan.lanes)
            .map(|_| {
                let attacker = Rc::clone(&this);
                let lane = async move { attacker.lane(began).await };
                this.providers.task().spawn_task("attacker", lane)
            })
            .collect();
        for lane in lanes {
            // It ends with the run, whatever came of it.
            drop(lane.await);
        }
        this.tally.get()
    }

    async fn lane(&self, began: Duration) {
        loop {
            let number = self.tally.get().tried;
            let time = self.providers.time();
            if number >= self.plan.connections || time.now() - began >= self.plan.limit {
                return;
            }
            self.count(|tally| tally.tried += 1);
            let Ok(mut stream) = self.connect(number).await else {
                self.count(|tally| tally.not_connected += 1);
                time.sleep(Duration::from_millis(1)).await;
                continue;
            };
            let attack = time.timeout(self.plan.stay, self.attack(&mut stream, number));
            if let Ok(Err(_)) = attack.await {
                self.count(|tally| tally.cut += 1);
            }
        }
    }

    async fn connect(&self, number: u64) -> io::Result<Stream<P>> {
        let count = self.targets.len().max(1);
        let at = usize::try_from(number).unwrap_or_default() % count;
        let target = self.targets.get(at).ok_or(io::ErrorKind::NotFound)?;
        let connecting = self.providers.network().connect(target);
        let stream = self.providers.time().timeout(self.plan.stay, connecting);
        let stream = stream.await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// What one connection does. `number` tells it from the others.
    async fn attack(&self, stream: &mut Stream<P>, number: u64) -> io::Result<()> {
        match self.kind {
            Kind::Garbage => self.garbage(stream).await,
            Kind::NeverGreets => self.until_cut(stream).await,
            Kind::HalfHello => self.half_hello(stream).await,
            Kind::SlowHello => self.drip(stream, &self.hello().packet(), 40).await,
            Kind::HugeLength => self.huge_length(stream, number).await,
            Kind::WrongHello => self.wrong_hello(stream, number).await,
            Kind::HelloFlood => self.write(stream, &self.hello().packet()).await,
            Kind::HelloAgain => self.hello_again(stream).await,
            Kind::Abandoned => self.abandoned(stream).await,
            Kind::CopiedHello => self.copied_hello(stream).await,
            Kind::ClaimedAddress => self.claimed_address(stream).await,
            Kind::HalfPacket => self.half_packet(stream).await,
            Kind::SlowRequest => self.slow_request(stream).await,
            Kind::SlowReader => self.slow_reader(stream).await,
            Kind::NoAcknowledgement => self.flood_and_read(stream, WORK).await,
            Kind::AbsentTokens => self.flood_and_read(stream, ABSENT).await,
            Kind::Pings => self.pings(stream).await,
            Kind::BrokenRules => self.broken_rules(stream, number).await,
            Kind::Undecodable => self.undecodable(stream).await,
            Kind::Connects => Ok(()),
            Kind::Greetings => self.greeting(stream).await,
        }
    }

    async fn garbage(&self, stream: &mut Stream<P>) -> io::Result<()> {
        let bytes: Vec<u8> = (0..512)
            .flat_map(|_| self.providers.random().random::<u64>().to_le_bytes())
            .collect();
        self.write(stream, &bytes).await?;
        self.until_cut(stream).await
    }

    async fn half_hello(&self, stream: &mut Stream<P>) -> io::Result<()> {
        let hello = self.hello().packet();
        let half = hello.get(..hello.len() / 2).unwrap_or_default();
        self.write(stream, half).await?;
        self.until_cut(stream).await
    }

    async fn huge_length(&self, stream: &mut Stream<P>, number: u64) -> io::Result<()> {
        if number.is_multiple_of(2) {
            self.begin(stream).await?;
        }
        let length = match number % 3 {
            0 => u32::MAX,
            1 => self.max_payload + 57,
            _ => 23,
        };
        self.write(stream, &wire::header(length)).await?;
        self.until_cut(stream).await
    }

    async fn wrong_hello(&self, stream: &mut Stream<P>, number: u64) -> io::Result<()> {
        let mut hello = self.hello();
        match number % 4 {
            0 => hello.magic = *b"MOONPOOL",
            1 => hello.versions = (7, 9),
            2 => hello.versions = (9, 7),
            _ => hello.max_payload = 0,
        }
        self.write(stream, &hello.packet()).await?;
        self.until_cut(stream).await
    }

    async fn hello_again(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        let again: Vec<u8> = (0..100).flat_map(|_| self.hello().packet()).collect();
        self.write(stream, &again).await?;
        self.until_cut(stream).await
    }

    async fn abandoned(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        self.write(stream, &self.request(1, WORK, 1)).await
    }

    async fn copied_hello(&self, stream: &mut Stream<P>) -> io::Result<()> {
        let mut bytes = self.copied.packet();
        bytes.extend(self.request(1, WORK, 1));
        self.write(stream, &bytes).await?;
        self.until_cut(stream).await
    }

    /// Keeps the session, so that the claim stands.
    async fn claimed_address(&self, stream: &mut Stream<P>) -> io::Result<()> {
        let hello = Hello {
            address: self.copied.address,
            ..self.hello()
        };
        self.greet(stream, &hello).await?;
        self.until_cut(stream).await
    }

    async fn half_packet(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        let length = self.max_payload + 56;
        let mut bytes = wire::header(length);
        bytes.resize(usize::try_from(length).unwrap_or_default() - 1, 0x5A);
        self.write(stream, &bytes).await?;
        self.until_cut(stream).await
    }

    async fn slow_request(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        let mut sequence = 1;
        loop {
            let request = self.request(sequence, WORK, 1);
            self.drip(stream, &request, 2).await?;
            sequence += 1;
        }
    }

    async fn slow_reader(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        let mut sequence = 1;
        loop {
            let flood = self.flood(&mut sequence, WORK, self.answer_bytes);
            self.write(stream, &flood).await?;
            self.providers.task().yield_now().await;
        }
    }

    /// Reads answers, and never says that they arrived.
    async fn flood_and_read(&self, stream: &mut Stream<P>, token: UID) -> io::Result<()> {
        self.begin(stream).await?;
        let (mut read, mut write) = split(stream);
        let mut sequence = 1;
        let mut ignored = vec![0; FLOOD_BYTES];
        let writing = async {
            loop {
                let flood = self.flood(&mut sequence, token, 1);
                write.write_all(&flood).await?;
                self.count_written(&flood);
                self.providers.task().yield_now().await;
            }
        };
        let reading = async {
            while read.read(&mut ignored).await? > 0 {}
            Err::<(), _>(io::ErrorKind::UnexpectedEof.into())
        };
        either(writing, reading).await
    }

    async fn pings(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        // Made once: a server that keeps up never makes a writer wait, and one that builds each
        // flood anew would be at it long after its time. For the same reason floods give others their
        // turn, the honest clients of this process: the next one is written as soon as they had it.
        let mut flood = Vec::with_capacity(FLOOD_BYTES + 64);
        let mut nonce = 0;
        while flood.len() < FLOOD_BYTES {
            nonce += 1;
            flood.extend(wire::ping(nonce));
        }
        loop {
            self.write(stream, &flood).await?;
            self.providers.task().yield_now().await;
        }
    }

    async fn broken_rules(&self, stream: &mut Stream<P>, number: u64) -> io::Result<()> {
        self.begin(stream).await?;
        let message = self.message(1);
        let bytes = match number % 5 {
            // A gap, and an acknowledgement of what was never sent.
            0 => wire::sequenced(5, 1, WORK, &message),
            1 => wire::sequenced(1, u64::MAX, WORK, &message),
            // Numbers without packets, as fast as they go.
            2 => (1..2_000).flat_map(wire::skip).collect(),
            // A session frame inside another.
            3 => {
                let hello = moonpool::WellKnownToken::Hello.token();
                wire::sequenced(1, 1, hello, &message)
            }
            // More after the last frame.
            _ => [wire::close(), self.request(1, WORK, 1)].concat(),
        };
        self.write(stream, &bytes).await?;
        self.until_cut(stream).await
    }

    async fn undecodable(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        let mut sequence = 1;
        loop {
            let mut flood = Vec::new();
            while flood.len() < FLOOD_BYTES / 8 {
                let inner = match sequence % 3 {
                    0 => wire::request(UID::new(9, sequence), b"no JSON"),
                    1 => vec![0xFF; 40],
                    _ => vec![1, 0, 0xFF, 0xFF, 1, 2, 3],
                };
                flood.extend(wire::sequenced(sequence, 1, WORK, &inner));
                sequence += 1;
            }
            self.write(stream, &flood).await?;
            self.providers.time().sleep(Duration::from_millis(1)).await;
        }
    }

    async fn greeting(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.begin(stream).await?;
        self.write(stream, &wire::close()).await?;
        stream.shutdown().await?;
        let mut ignored = [0; 256];
        while stream.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    fn hello(&self) -> Hello {
        Hello::new(random_uid(&self.providers), random_uid(&self.providers))
    }

    async fn begin(&self, stream: &mut Stream<P>) -> io::Result<()> {
        self.greet(stream, &self.hello()).await
    }

    /// Says Hello, and reads the answer.
    async fn greet(&self, stream: &mut Stream<P>, hello: &Hello) -> io::Result<()> {
        self.write(stream, &hello.packet()).await?;
        let mut answer = [0; wire::HEADER_BYTES + 80];
        stream.read_exact(&mut answer).await?;
        Ok(())
    }

    /// The message of a request for so many bytes, in JSON.
    fn message(&self, answer_bytes: usize) -> Vec<u8> {
        format!(r#"{{"number":0,"answer_bytes":{answer_bytes}}}"#).into_bytes()
    }

    fn request(&self, sequence: u64, token: UID, answer_bytes: usize) -> Vec<u8> {
        let message = self.message(answer_bytes);
        let inner = wire::request(UID::new(9, sequence), &message);
        wire::sequenced(sequence, 1, token, &inner)
    }

    /// Requests behind each other, from this number on.
    fn flood(&self, sequence: &mut u64, token: UID, answer_bytes: usize) -> Vec<u8> {
        let mut flood = Vec::with_capacity(FLOOD_BYTES + 256);
        while flood.len() < FLOOD_BYTES {
            flood.extend(self.request(*sequence, token, answer_bytes));
            *sequence += 1;
        }
        flood
    }

    async fn write(&self, stream: &mut Stream<P>, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await?;
        self.count_written(bytes);
        Ok(())
    }

    async fn drip(&self, stream: &mut Stream<P>, bytes: &[u8], pause: u64) -> io::Result<()> {
        for byte in bytes {
            self.write(stream, std::slice::from_ref(byte)).await?;
            self.providers
                .time()
                .sleep(Duration::from_millis(pause))
                .await;
        }
        Ok(())
    }

    /// Reads until the server has had enough.
    async fn until_cut(&self, stream: &mut Stream<P>) -> io::Result<()> {
        let mut ignored = [0; 1024];
        while stream.read(&mut ignored).await? > 0 {}
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn count_written(&self, bytes: &[u8]) {
        let written = u64::try_from(bytes.len()).unwrap_or_default();
        self.count(|tally| tally.written += written);
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }
}

fn random_uid(providers: &impl Providers) -> UID {
    UID::random_from(providers.random())
}

/// Whichever ends first.
async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (one, other) = (std::pin::pin!(one), std::pin::pin!(other));
    futures_util::future::select(one, other)
        .await
        .factor_first()
        .0
}
