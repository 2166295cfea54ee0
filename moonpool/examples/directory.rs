//! Workers that come, move and die, a directory that lists them, and clients that follow the list.
//!
//! `cargo run --example directory` runs all of them over real TCP in one process, tells what
//! happens, and ends.
//!
//! A worker's methods have tokens that its transport chooses, of which no restart repeats one: what
//! is called is this life of this worker, and nobody else. The worker's interface travels as one
//! endpoint: worker to directory, directory to clients. The directory watches the address of every
//! worker it lists, and takes out who has failed. Clients ask it for a list newer than theirs, and
//! wait for the answer; meanwhile they leave out whom their own transport knows to have failed.
//!
//! The pattern is that of FoundationDB's `ServerDBInfo` (`fdbserver/ServerDBInfo.actor.h`; workers
//! register in `fdbserver/worker.actor.cpp`, `registrationClient`). Everything but `main` is generic
//! over `Providers`: the tests at the end run the same functions in simulation, where processes are
//! killed, restarted and cut off.

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::{Future, pending};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;
use moonpool::{
    Client, EndpointState, FailureWatch, Refusal, RetryPolicy, Server, Serving, define_interface,
    select,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How often a worker says again that it is there: a directory that was restarted has heard of all
/// of them after this time.
const RENEWAL: Duration = Duration::from_secs(1);

/// A directory that was restarted tells nobody anything for so long, until its workers have come
/// back. Before that, its list would say that they are gone.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long a client waits for news before it asks again.
const POLL: Duration = Duration::from_secs(5);

/// Before asking a directory again that did not answer, or for a worker when there is none.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a client tries to get an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time for handlers to finish and for the last answers to leave.
const GRACE: Duration = Duration::from_secs(1);

const MAX_WORKERS: usize = 10_000;
/// Clients that wait for news. Each takes a handler, so the default limit is not for them.
const MAX_WAITING: usize = 10_000;

define_interface! {
    /// Knows where the workers are.
    Directory, id 0xD14E_C704, {
        /// Enters a worker, or says again that it is there. Idempotent.
        register: Registration => Version,
        /// Takes a worker out, unless another one has taken its place. Idempotent.
        leave: Registration => Version,
        /// Waits until there is a list newer than that.
        newer_than: Version => Listing,
    }
}

define_interface! {
    Worker {
        square: u32 => Squared,
    }
}

/// A worker under its name. The latest with a name is the one that counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Registration {
    name: String,
    /// The base endpoint of its interface.
    worker: Endpoint,
}

/// Rises with every change, also from one life of the directory to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Version {
    /// The directory's life.
    generation: u64,
    /// The change within it.
    change: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Listing {
    version: Version,
    workers: BTreeMap<String, Endpoint>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Squared {
    square: u64,
    /// Who says so.
    by: Endpoint,
}

type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

async fn listen<P: Providers>(
    providers: &P,
    address: NetworkAddress,
) -> Result<Rc<Transport<P>>, BuildError> {
    FlowTransportBuilder::from_providers(providers)
        .local_address(address)
        .build_listening()
        .await
}

// The directory.

/// What a directory keeps in memory.
struct Book {
    listing: RefCell<Listing>,
    /// Who looks after each worker.
    watches: RefCell<BTreeMap<String, JoinHandle<()>>>,
    changed: Notify,
    /// Is told of each change.
    announce: Box<dyn Fn(&Listing)>,
}

impl Book {
    fn version(&self) -> Version {
        self.listing.borrow().version
    }

    fn has(&self, registration: &Registration) -> bool {
        let listing = self.listing.borrow();
        listing.workers.get(&registration.name) == Some(&registration.worker)
    }

    /// What is told of a worker, once it is entered. Another one of its name is forgotten.
    fn enter(&self, registration: Registration, watch: JoinHandle<()>) {
        let Registration { name, worker } = registration;
        let before = self.watches.borrow_mut().insert(name.clone(), watch);
        if let Some(before) = before {
            before.abort();
        }
        self.change(|workers| workers.insert(name, worker));
    }

    /// Nothing, if another one of its name has taken its place.
    fn remove(&self, registration: &Registration) {
        if self.has(registration) {
            let watch = self.watches.borrow_mut().remove(&registration.name);
            self.change(|workers| workers.remove(&registration.name));
            if let Some(watch) = watch {
                watch.abort();
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Endpoint>) -> T) {
        let mut listing = self.listing.borrow_mut();
        change(&mut listing.workers);
        listing.version.change += 1;
        let listing = listing.clone();
        (self.announce)(&listing);
        self.changed.notify_waiters();
    }

    async fn newer_than(&self, seen: Version) -> Listing {
        loop {
            // Made before the look: what changes from here on is not missed.
            let changed = self.changed.notified();
            if self.version() > seen {
                return self.listing.borrow().clone();
            }
            changed.await;
        }
    }
}

struct DirectoryServer<P: Providers> {
    providers: P,
    transport: Rc<Transport<P>>,
    methods: Server<Directory>,
    book: Rc<Book>,
}

impl<P: Providers> DirectoryServer<P> {
    /// `generation` has to be greater in every life of the directory, and 1 in the first: it comes
    /// from a disk, or from whoever elected it.
    async fn listen(
        providers: &P,
        address: NetworkAddress,
        generation: u64,
        announce: impl Fn(&Listing) + 'static,
    ) -> Result<Self, Box<dyn Error>> {
        let transport = listen(providers, address).await?;
        let version = Version {
            generation,
            change: 0,
        };
        let listing = Listing {
            version,
            ..Listing::default()
        };
        Ok(Self {
            providers: providers.clone(),
            methods: Directory::serve(&transport, JsonCodec)?,
            transport,
            book: Rc::new(Book {
                listing: RefCell::new(listing),
                watches: RefCell::default(),
                changed: Notify::new(),
                announce: Box::new(announce),
            }),
        })
    }

    fn address(&self) -> Option<NetworkAddress> {
        self.transport.local_address()
    }

    async fn run(self, stop: impl Future<Output = ()>) {
        let (transport, task) = (self.transport.clone(), self.providers.task().clone());
        task.spawn_task("directory", self.answer());
        stop.await;
        transport.shutdown(GRACE).await;
    }

    async fn answer(self) {
        let Self {
            providers,
            transport,
            methods,
            book,
        } = self;
        let serving = Serving::new(&transport);
        let waiting = Serving::new(&transport).max_concurrency(MAX_WAITING);
        let monitor = transport.failure_monitor();
        let (registering, leaving, reading) = (book.clone(), book.clone(), book.clone());
        let task = providers.task().clone();
        // From here on it is this task that would keep the transport, beyond its owner's end.
        drop(transport);
        let register = serving.serve(methods.register, async move |registration, _| {
            let book = &registering;
            if book.has(&registration) {
                return Ok(book.version());
            }
            if book.listing.borrow().workers.len() >= MAX_WORKERS {
                return Err(ReplyError::Refused(Refusal::Overloaded));
            }
            let failed = monitor.on_failed(registration.worker.address);
            let (watched, its) = (registration.clone(), book.clone());
            let watch = task.spawn_task("watch", async move {
                if failed.await.is_ok() {
                    its.remove(&watched);
                }
            });
            book.enter(registration, watch);
            Ok(book.version())
        });
        let leave = serving.serve(methods.leave, async move |registration, _| {
            leaving.remove(&registration);
            Ok(leaving.version())
        });
        let newer_than = async {
            if book.version().generation > 1 {
                providers.time().sleep(WARM_UP).await;
            }
            let handler = async move |seen, _: &_| Ok(reading.newer_than(seen).await);
            waiting.serve(methods.newer_than, handler).await;
        };
        tokio::join!(register, leave, newer_than);
    }
}

// A worker.

struct WorkerServer<P: Providers> {
    providers: P,
    transport: Rc<Transport<P>>,
    methods: Server<Worker>,
    directory: Client<Directory>,
    registration: Registration,
}

impl<P: Providers> WorkerServer<P> {
    async fn listen(
        providers: &P,
        name: &str,
        address: NetworkAddress,
        directory: NetworkAddress,
    ) -> Result<Self, Box<dyn Error>> {
        let transport = listen(providers, address).await?;
        let methods = Worker::serve_dynamic(&transport, JsonCodec)?;
        let worker = methods.base_endpoint().ok_or("a worker needs an address")?;
        let name = name.to_owned();
        Ok(Self {
            providers: providers.clone(),
            directory: Directory::remote(&transport, directory, JsonCodec),
            methods,
            transport,
            registration: Registration { name, worker },
        })
    }

    /// Works until `stop`; then says goodbye.
    async fn run(self, stop: impl Future<Output = ()>) {
        let by = self.registration.worker;
        let serving = Serving::new(&self.transport);
        let square = async move |number: u32, _: &_| {
            let square = u64::from(number).pow(2);
            Ok(Squared { square, by })
        };
        let methods = self.methods;
        let work = async move { serving.serve(methods.square, square).await };
        self.providers.task().spawn_task("worker", work);
        let renewal = keep_registered(&self.directory, &self.registration, self.providers.time());
        select! {
            biased;
            () = stop => {}
            () = renewal => {}
        }
        // As a courtesy: the directory would find out by itself.
        let goodbye = self.directory.leave(self.registration.clone());
        if let Err(error) = goodbye.timeout(GRACE).await {
            tracing::debug!(%error, "the directory was not told");
        }
        self.transport.shutdown(GRACE).await;
    }
}

/// A registration that arrives late, after its worker was replaced, is corrected by the successor's
/// next one.
async fn keep_registered(
    directory: &Client<Directory>,
    registration: &Registration,
    time: &impl TimeProvider,
) {
    loop {
        let call = directory.register(registration.clone());
        // Registering twice does no harm.
        let policy = RetryPolicy::new().while_not_found();
        if let Err(error) = call.retry(policy).await {
            tracing::debug!(%error, "not registered");
        }
        time.sleep(RENEWAL).await;
    }
}

// A client.

/// The workers, as a client knows them.
struct Fleet<P: Providers> {
    providers: P,
    transport: Rc<Transport<P>>,
    directory: Client<Directory>,
    listing: RefCell<Listing>,
    /// For as long as they are held, its transport keeps a connection to each worker, and asks a
    /// silent one for a sign of life: a client that calls seldom learns of a death as soon as one
    /// that calls often.
    watches: RefCell<BTreeMap<NetworkAddress, FailureWatch>>,
    /// Whose turn it is.
    next: Cell<usize>,
}

/// Why there is no result.
#[derive(Debug)]
enum NoResult {
    /// No worker was known that had not failed. Nobody was asked to do anything.
    NoWorker,
    /// The last one that was asked gave this.
    Failed(ReplyError),
}

impl fmt::Display for NoResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorker => f.write_str("no worker is known"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<P: Providers> Fleet<P> {
    /// It knows nobody until it [follows](Self::follow) the directory.
    fn new(providers: &P, directory: NetworkAddress) -> Rc<Self> {
        let transport = FlowTransportBuilder::from_providers(providers).build();
        Rc::new(Self {
            providers: providers.clone(),
            directory: Directory::remote(&transport, directory, JsonCodec),
            transport,
            listing: RefCell::default(),
            watches: RefCell::default(),
            next: Cell::new(0),
        })
    }

    /// Keeps the list up to date, for ever. `seen` is told of each list.
    async fn follow(self: Rc<Self>, seen: impl Fn(&Listing)) {
        loop {
            let version = self.listing.borrow().version;
            match self.directory.newer_than(version).timeout(POLL).await {
                Ok(listing) if listing.version > version => {
                    seen(&listing);
                    self.watch(&listing);
                    self.listing.replace(listing);
                }
                // Nothing new.
                Ok(_) | Err(ReplyError::Timeout) => {}
                Err(_) => self.providers.time().sleep(PAUSE).await,
            }
        }
    }

    fn watch(&self, listing: &Listing) {
        let monitor = self.transport.failure_monitor();
        let mut before = self.watches.take();
        for worker in listing.workers.values() {
            let address = worker.address;
            let watch = before.remove(&address);
            let watch = watch.unwrap_or_else(|| monitor.on_failed(address));
            self.watches.borrow_mut().insert(address, watch);
        }
    }

    /// One after the other, without those whose address has failed, and those whose process has
    /// said that it has no such worker: the directory will find out, but has not yet.
    fn pick(&self) -> Option<Endpoint> {
        let monitor = self.transport.failure_monitor();
        let listing = self.listing.borrow();
        let is_usable =
            |worker: &&Endpoint| monitor.endpoint_state(worker) == EndpointState::Available;
        let usable: Vec<&Endpoint> = listing.workers.values().filter(is_usable).collect();
        let turn = self.next.replace(self.next.get().wrapping_add(1));
        let index = turn.checked_rem(usable.len())?;
        usable.get(index).map(|worker| **worker)
    }

    /// Asks one worker, and others as long as it is sure that nobody has done anything. `asked` is
    /// told whom.
    async fn square(&self, number: u32, asked: impl Fn(Endpoint)) -> Result<Squared, NoResult> {
        let time = self.providers.time();
        let deadline = time.now() + PATIENCE;
        let mut last = NoResult::NoWorker;
        loop {
            let remaining = deadline.saturating_sub(time.now());
            if remaining.is_zero() {
                return Err(last);
            }
            if let Some(worker) = self.pick() {
                asked(worker);
                let worker = Worker::at(&self.transport, worker, JsonCodec);
                match worker.square(number).timeout(remaining).await {
                    Ok(squared) => return Ok(squared),
                    Err(error) if error.is_surely_not_executed() => last = NoResult::Failed(error),
                    // Squaring could be repeated; what it stands for could not.
                    Err(error) => return Err(NoResult::Failed(error)),
                }
            }
            time.sleep(PAUSE.min(remaining)).await;
        }
    }
}

// The program.

/// A worker in this process that can be stopped, or killed.
struct Running {
    task: JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
}

async fn start<P: Providers>(
    providers: &P,
    name: &str,
    address: NetworkAddress,
    directory: NetworkAddress,
) -> Result<Running, Box<dyn Error>> {
    let worker = WorkerServer::listen(providers, name, address, directory).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let run = worker.run(async move {
        // The sender's end is the signal, whatever was sent.
        let _ended = stopped.await;
    });
    let task = providers.task().spawn_task("worker-main", run);
    Ok(Running { task, stop })
}

/// Waits until the client's list is as wanted.
async fn until<P: Providers>(fleet: &Fleet<P>, wanted: impl Fn(&Listing) -> bool) {
    while !wanted(&fleet.listing.borrow()) {
        fleet.providers.time().sleep(PAUSE).await;
    }
}

async fn ask<P: Providers>(fleet: &Fleet<P>, number: u32) -> String {
    let time = fleet.providers.time();
    let asked = time.now();
    match fleet.square(number, |_| {}).await {
        Ok(Squared { square, by }) => format!("{number} squared is {square}, says {}", by.address),
        Err(error) => format!(
            "{number} squared, after {:.1?}: {error}",
            time.now() - asked
        ),
    }
}

fn describe(listing: &Listing) -> String {
    let Listing { version, workers } = listing;
    let Version { generation, change } = version;
    let workers: Vec<String> = workers
        .iter()
        .map(|(name, worker)| format!("{name} at {}", worker.address))
        .collect();
    let who = if workers.is_empty() {
        "nobody".to_owned()
    } else {
        workers.join(", ")
    };
    format!("list {generation}.{change}: {who}")
}

/// Two workers come, one moves, one dies. `address` has a free port for each of them.
async fn demonstrate<P: Providers>(
    providers: &P,
    address: NetworkAddress,
    say: impl Fn(String) + Clone + 'static,
) -> Result<(), Box<dyn Error>> {
    let server = DirectoryServer::listen(providers, address, 1, |_| {}).await?;
    let directory = server.address().ok_or("the directory has no address")?;
    let task = providers.task();
    let directory_task = task.spawn_task("directory-main", server.run(pending()));
    say(format!("the directory listens on {directory}"));

    let fleet = Fleet::new(providers, directory);
    let tell = say.clone();
    let seen = move |listing: &Listing| tell(format!("  the client sees {}", describe(listing)));
    let follow = task.spawn_task("follow", fleet.clone().follow(seen));

    say("workers a and b start".into());
    let a = start(providers, "a", address, directory).await?;
    let b = start(providers, "b", address, directory).await?;
    until(&fleet, |listing| listing.workers.len() == 2).await;
    say(ask(&fleet, 12).await);
    say(ask(&fleet, 13).await);

    say("worker b moves: it says goodbye, and starts elsewhere".into());
    drop(b.stop);
    b.task.await?;
    until(&fleet, |listing| listing.workers.len() == 1).await;
    let b = start(providers, "b", address, directory).await?;
    until(&fleet, |listing| listing.workers.len() == 2).await;
    say(ask(&fleet, 14).await);
    say(ask(&fleet, 15).await);

    say("worker a dies without a word".into());
    let died = providers.time().now();
    a.task.abort();
    say(ask(&fleet, 16).await);
    say(ask(&fleet, 17).await);
    until(&fleet, |listing| listing.workers.len() == 1).await;
    let after = providers.time().now() - died;
    say(format!("it is off the list after {after:.1?}"));

    drop(b.stop);
    b.task.await?;
    follow.abort();
    fleet.transport.shutdown(GRACE).await;
    directory_task.abort();
    Ok(())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    let free_port = "127.0.0.1:0".parse()?;
    let say = |line| println!("{line}");
    runtime.block_on(demonstrate(&TokioProviders::new(), free_port, say))
}

fn main() -> ExitCode {
    match try_main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::collections::BTreeSet;
    use std::pin::Pin;

    use moonpool::foundation::{
        Attrition, InvariantCheck, KillKind, NetworkConfiguration, Phases, SimProviders, SimWorld,
        SimulationBuilder, SimulationMetrics, SimulationResult, States, WorkloadTopology,
    };
    use moonpool::{SimulationError, always_assert, sometimes_assert};
    use serde_json::json;

    use super::*;

    const PORT: u16 = 4500;
    const WORKERS: usize = 3;
    const CLIENTS: usize = 2;
    /// Of each client: half a minute of them.
    const CALLS: u32 = 150;

    /// After it has called a worker that is gone, a client calls it no more from this time on. A host
    /// that vanishes is silent for 3 s until its connection counts as lost, and for 3 s more until its
    /// address counts as failed.
    const BLIND: Duration = Duration::from_secs(7);

    /// A network and processes without faults settle within this time: the longest partition and the
    /// longest downtime are over, and everybody has dialled again.
    const SETTLED: Duration = Duration::from_secs(60);

    // What stands outside the processes.

    #[derive(Default)]
    struct Ledger {
        /// The directory's lives: on its disk.
        generations: Cell<u64>,
        /// The directory's last list.
        latest: Cell<Version>,
        /// Everybody who was ever on a list.
        listed: RefCell<BTreeMap<Endpoint, Version>>,
        alive: RefCell<BTreeSet<Endpoint>>,
        /// How many workers have lived at an address.
        lives: RefCell<BTreeMap<NetworkAddress, u32>>,
        /// When a client first called a worker that was gone, by how many had lived there by then:
        /// that the address is somebody else's now is something that it can only ask.
        called_dead: RefCell<BTreeMap<(String, Endpoint, u32), Duration>>,
    }

    impl Ledger {
        fn announce(&self, listing: &Listing) {
            let before = self.latest.replace(listing.version);
            always_assert!(
                directory_version_rises,
                listing.version > before,
                "{:?} after {before:?}",
                listing.version
            );
            for worker in listing.workers.values() {
                self.listed.borrow_mut().insert(*worker, listing.version);
            }
        }

        /// A client begins to call that worker.
        fn check_asked(&self, client: &str, worker: Endpoint, now: Duration) {
            always_assert!(
                asked_worker_was_listed,
                self.listed.borrow().contains_key(&worker),
                "nobody has listed {worker}"
            );
            if self.alive.borrow().contains(&worker) {
                return;
            }
            let lives = self.lives.borrow().get(&worker.address).copied();
            let call = (client.to_owned(), worker, lives.unwrap_or_default());
            let first = *self.called_dead.borrow_mut().entry(call).or_insert(now);
            sometimes_assert!(
                dead_worker_called_again,
                now > first,
                "twice, within the time"
            );
            always_assert!(
                dead_worker_is_left_alone,
                now - first < BLIND,
                "{client} has called {worker} for {:?}",
                now - first
            );
        }
    }

    /// Ends the life of a worker when it is dropped, which a kill does as well.
    struct Living(Rc<Ledger>, Endpoint);

    impl Living {
        fn begin(ledger: &Rc<Ledger>, worker: Endpoint) -> Self {
            ledger.alive.borrow_mut().insert(worker);
            *ledger.lives.borrow_mut().entry(worker.address).or_default() += 1;
            Self(ledger.clone(), worker)
        }
    }

    impl Drop for Living {
        fn drop(&mut self) {
            self.0.alive.borrow_mut().remove(&self.1);
        }
    }

    // The processes.

    fn failed(error: impl fmt::Display) -> SimulationError {
        SimulationError::workload(error.to_string())
    }

    fn address(ip: &str, port: u16) -> SimulationResult<NetworkAddress> {
        Ok(NetworkAddress::new(ip.parse().map_err(failed)?, port))
    }

    fn directory_address(topology: &WorkloadTopology) -> SimulationResult<NetworkAddress> {
        let ip = topology.get_peer_by_name("directory").unwrap_or_default();
        address(&ip, PORT)
    }

    async fn directory(
        providers: SimProviders,
        topology: WorkloadTopology,
    ) -> SimulationResult<()> {
        let ledger = topology.shared::<Ledger>();
        let generation = ledger.generations.get() + 1;
        ledger.generations.set(generation);
        let (states, announced) = (topology.state_registry.clone(), ledger.clone());
        let announce = move |listing: &Listing| {
            announced.announce(listing);
            states.register_state("directory", json!(listing.version));
        };
        let address = address(&topology.my_ip, PORT)?;
        let server = DirectoryServer::listen(&providers, address, generation, announce)
            .await
            .map_err(failed)?;
        server.book.change(|_| ());
        server.run(topology.shutdown_signal.cancelled()).await;
        Ok(())
    }

    /// Lives at one port after the other.
    async fn worker(providers: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
        let ledger = topology.shared::<Ledger>();
        let directory = directory_address(&topology)?;
        let name = format!("worker at {}", topology.my_ip);
        let end = &topology.shutdown_signal;
        while !end.is_cancelled() {
            let port = PORT + providers.random().random_range(0..3);
            let address = address(&topology.my_ip, port)?;
            let worker = WorkerServer::listen(&providers, &name, address, directory)
                .await
                .map_err(failed)?;
            let living = Living::begin(&ledger, worker.registration.worker);
            let stay = Duration::from_secs(providers.random().random_range(5..60));
            let moved = async {
                select! {
                    biased;
                    () = end.cancelled() => {}
                    () = providers.time().sleep(stay) => {}
                }
            };
            worker.run(moved).await;
            drop(living);
        }
        Ok(())
    }

    /// Asks for squares; in the end, with the faults over soon, everybody has to be found again.
    async fn client(
        providers: SimProviders,
        topology: WorkloadTopology,
    ) -> SimulationResult<SimulationMetrics> {
        let ledger = topology.shared::<Ledger>();
        let time = providers.time();
        let fleet = Fleet::new(&providers, directory_address(&topology)?);
        let (states, name) = (topology.state_registry.clone(), topology.my_ip.clone());
        let last = Cell::new(Version::default());
        let seen = move |listing: &Listing| {
            always_assert!(
                client_version_rises,
                listing.version > last.get(),
                "it fell"
            );
            last.set(listing.version);
            states.register_state(format!("client {name}"), json!(listing.version));
        };
        let follow = providers
            .task()
            .spawn_task("follow", fleet.clone().follow(seen));
        for number in 0..CALLS {
            square(&fleet, &topology, number).await?;
            time.sleep(Duration::from_millis(
                providers.random().random_range(10..400),
            ))
            .await;
        }
        let settled_by = time.now() + SETTLED;
        loop {
            let workers = fleet.listing.borrow().workers.clone();
            let known: BTreeSet<Endpoint> = workers.into_values().collect();
            let alive = ledger.alive.borrow().clone();
            if known == alive && known.len() == WORKERS && square(&fleet, &topology, 1).await? {
                break;
            }
            if time.now() > settled_by {
                return Err(failed(format!("{known:?} are known, {alive:?} are alive")));
            }
            time.sleep(PAUSE).await;
        }
        follow.abort();
        fleet.transport.shutdown(GRACE).await;
        Ok(SimulationMetrics::default())
    }

    /// Whether there was an answer.
    async fn square(
        fleet: &Fleet<SimProviders>,
        topology: &WorkloadTopology,
        number: u32,
    ) -> SimulationResult<bool> {
        let ledger = topology.shared::<Ledger>();
        let time = fleet.providers.time();
        let began = time.now();
        let asked = Cell::new(None);
        let outcome = fleet.square(number, |worker| {
            asked.set(Some(worker));
            ledger.check_asked(&topology.my_ip, worker, time.now());
        });
        let outcome = outcome.await;
        let took = time.now() - began;
        always_assert!(
            call_ends_in_time,
            took <= PATIENCE + PAUSE,
            "it took {took:?}"
        );
        match outcome {
            Ok(Squared { square, by }) => {
                let expected = u64::from(number).pow(2);
                always_assert!(square_is_right, square == expected, "{number}: {square}");
                always_assert!(asked_worker_answers, asked.get() == Some(by), "it was {by}");
                Ok(true)
            }
            Err(error) => {
                tracing::debug!(%error, "no square");
                Ok(false)
            }
        }
    }

    /// News travels from the directory to the clients, and not the other way round.
    fn no_client_is_ahead() -> InvariantCheck {
        InvariantCheck::new(
            "no client is ahead of the directory",
            |states: &States, _| {
                let version = |state: &serde_json::Value| {
                    serde_json::from_value::<Version>(state.clone()).unwrap_or_default()
                };
                let latest = states.get("directory").map(version).unwrap_or_default();
                let ahead = states.iter().find(|(_, state)| version(state) > latest);
                match ahead {
                    None => Ok(()),
                    Some((name, state)) => {
                        Err(format!("{name} has seen {state}, before {latest:?}"))
                    }
                }
            },
        )
    }

    fn campaign() -> SimulationBuilder {
        let mut campaign = SimulationBuilder::new().process("directory", directory);
        for index in 0..WORKERS {
            campaign = campaign.process(format!("worker-{index}"), worker);
        }
        for index in 0..CLIENTS {
            campaign = campaign.register_providers_workload(format!("client-{index}"), client);
        }
        // `MOONPOOL_ITERATIONS` runs more.
        campaign
            .set_iterations(30)
            .with_invariants(vec![no_client_is_ahead()])
            .attrition(Attrition {
                probability: 0.3,
                max_dead: 2,
                ..Attrition::default()
            })
            .phases(Phases::default())
    }

    #[test]
    fn clients_follow_workers_that_are_killed_and_come_back_elsewhere() {
        let report = campaign().require_coverage().run();
        report.assert_passed();
    }

    #[test]
    fn clients_follow_workers_through_a_network_drawn_for_each_seed() {
        let report = campaign().use_random_config().run();
        report.assert_passed();
    }

    // One thing at a time.

    type Body = fn(Rc<Fleet<SimProviders>>, WorkloadTopology) -> Pin<Box<dyn Future<Output = ()>>>;

    /// A client beside the processes, on a network without faults; nobody dies but by its hand.
    fn directed(body: Body) {
        let mut campaign = SimulationBuilder::new().process("directory", directory);
        for index in 0..WORKERS {
            campaign = campaign.process(format!("worker-{index}"), worker);
        }
        let report = campaign
            .set_iterations(20)
            .with_network_config(NetworkConfiguration::disabled())
            .register_providers_workload("client", move |p: SimProviders, topology| async move {
                let fleet = Fleet::new(&p, directory_address(&topology)?);
                let follow = fleet.clone().follow(warmed_up);
                let follow = p.task().spawn_task("follow", follow);
                until(&fleet, |listing| listing.workers.len() == WORKERS).await;
                body(fleet, topology).await;
                follow.abort();
                Ok(SimulationMetrics::default())
            })
            .run();
        report.assert_passed();
    }

    /// The first list of a directory that was restarted is not empty.
    fn warmed_up(listing: &Listing) {
        assert!(listing.version.generation == 1 || listing.workers.len() >= WORKERS - 1);
    }

    #[expect(clippy::unwrap_used, reason = "a test ends with a panic")]
    fn kill(topology: &WorkloadTopology, name: &str, kind: KillKind) {
        let world = topology.world().unwrap();
        let process = world.process(name).unwrap().id();
        world.kill(process, kind);
    }

    #[test]
    fn a_restarted_directory_has_heard_of_all_workers_soon() {
        directed(|fleet, topology| {
            Box::pin(async move {
                let after = RENEWAL..RENEWAL * 2;
                kill(&topology, "directory", KillKind::Reboot { after });
                let known = until(&fleet, |listing| {
                    listing.version.generation == 2 && listing.workers.len() == WORKERS
                });
                // One may be on its way from one port to another, without being able to say goodbye.
                let soon = RENEWAL * 2 + WARM_UP + GRACE * 2;
                let in_time = fleet.providers.time().timeout(soon, known).await;
                in_time.unwrap();
            })
        });
    }

    #[test]
    fn a_client_that_calls_nobody_learns_of_a_death_without_the_directory() {
        directed(|fleet, topology| {
            Box::pin(async move {
                let ip = topology.get_peer_by_name("worker-0").unwrap();
                kill(&topology, "directory", KillKind::PowerLoss);
                kill(&topology, "worker-0", KillKind::PowerLoss);
                fleet.providers.time().sleep(BLIND).await;
                let listed = fleet.listing.borrow().workers.len();
                assert_eq!(listed, WORKERS, "nobody could tell");
                for _ in 0..10 {
                    let dead = |worker: Endpoint| worker.address.ip.to_string() == ip;
                    assert!(!fleet.pick().is_some_and(dead));
                }
            })
        });
    }

    #[test]
    fn a_late_goodbye_does_not_take_out_the_successor() {
        directed(|fleet, _topology| {
            Box::pin(async move {
                let at = |port| {
                    Endpoint::new(
                        NetworkAddress::new([10, 0, 9, 9].into(), port),
                        UID::new(1, 1),
                    )
                };
                let [old, new] = [at(1), at(2)].map(|worker| Registration {
                    name: "twice".into(),
                    worker,
                });
                let directory = &fleet.directory;
                directory.register(old.clone()).await.unwrap();
                directory.register(new.clone()).await.unwrap();
                directory.leave(old).await.unwrap();
                let listing = directory.newer_than(Version::default()).await.unwrap();
                assert_eq!(listing.workers.get("twice"), Some(&new.worker));
                directory.leave(new).await.unwrap();
                let listing = directory.newer_than(Version::default()).await.unwrap();
                assert_eq!(listing.workers.get("twice"), None);
            })
        });
    }

    #[test]
    fn the_demonstration_runs_in_the_simulator_too() {
        for seed in 0..20 {
            let config = NetworkConfiguration::disabled();
            let world = SimWorld::new_with_network_config_and_seed(config, seed).unwrap();
            let host = world.add_process("host");
            let (providers, address) = (host.providers(), NetworkAddress::new(host.ip(), 0));
            let said = Rc::new(RefCell::new(Vec::new()));
            let lines = said.clone();
            let say = move |line| lines.borrow_mut().push(line);
            let main = async move {
                let demonstration = demonstrate(&providers, address, say);
                let minute = Duration::from_secs(60);
                let ended = providers.time().timeout(minute, demonstration).await;
                ended.unwrap().unwrap();
            };
            world.block_on(main).unwrap();
            let said = said.borrow().join("\n");
            assert!(said.contains("12 squared is 144"), "seed {seed}: {said}");
            assert!(said.contains("17 squared is 289"), "seed {seed}: {said}");
            assert!(
                said.contains("off the list after 3."),
                "seed {seed}: {said}"
            );
        }
    }
}
