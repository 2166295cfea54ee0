//! One shard per core.

use std::{error::Error, rc::Rc, sync::mpsc, thread};

use moonpool::prelude::*;
use moonpool::{Client, NetworkProvider};
use tokio::sync::oneshot;

use super::store::{Put, Store, Transport, listen, serve};

// shards
/// A thread, with a runtime, a transport, a port and data of its own.
pub struct Shard {
    pub address: NetworkAddress,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<Result<(), String>>,
}

impl Shard {
    /// Starts a thread, and waits until it listens.
    pub fn start(address: NetworkAddress) -> Result<Self, Box<dyn Error>> {
        let (listens, listening) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(Default::default())?;
            runtime.block_on(async {
                let p = TokioProviders::new();
                let transport = listen(&p, address).await?;
                listens.send(transport.local_address().unwrap_or(address))?;
                let stop = async {
                    // The sender's end is the signal.
                    let _ended: Result<(), _> = stopped.await;
                };
                serve(&p, transport, Rc::default(), stop).await
            })
        };
        // What fails there is told as text: nothing else of a runtime leaves its thread.
        let run = move || run().map_err(|error: Box<dyn Error>| error.to_string());
        let thread = thread::Builder::new().name("shard".into()).spawn(run)?;
        match listening.recv() {
            Ok(address) => Ok(Self {
                address,
                stop,
                thread,
            }),
            Err(_) => Err(thread
                .join()
                .map_or("it panicked".into(), |ended| format!("{ended:?}"))
                .into()),
        }
    }

    /// Lets it finish what it does.
    pub fn stop(self) -> Result<(), String> {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|_| Err("it panicked".into()))
    }
}

/// The store as its clients see it: a key belongs to one shard, and every client knows which.
pub struct Shards(Vec<Client<Store>>);

impl Shards {
    pub fn new<N: NetworkProvider, T: TimeProvider, TP: TaskProvider>(
        transport: &Rc<FlowTransport<N, T, TP>>,
        addresses: &[NetworkAddress],
    ) -> Self {
        let client = |address| Store::remote(transport, address, JsonCodec);
        Self(addresses.iter().copied().map(client).collect())
    }

    pub fn of(&self, key: &str) -> &Client<Store> {
        // FNV-1a: the same in every process and release, as the standard hasher is not.
        let hash = key.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        // Below a length, so that it always fits.
        let shard = usize::try_from(hash % self.0.len() as u64);
        &self.0[shard.unwrap_or_default()]
    }
}
// end of shards

#[test]
fn every_key_is_on_one_shard_and_shards_end_in_order() {
    let any: NetworkAddress = "127.0.0.1:0".parse().unwrap();
    let shards = [Shard::start(any).unwrap(), Shard::start(any).unwrap()];
    let addresses = [shards[0].address, shards[1].address];
    assert_ne!(addresses[0], addresses[1]);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .build_local(Default::default())
        .unwrap();
    let changes = runtime.block_on(async {
        let transport = FlowTransportBuilder::from_providers(&TokioProviders::new()).build();
        let clients = Shards::new(&transport, &addresses);
        for number in 0..100 {
            let (key, value) = (number.to_string(), format!("value {number}"));
            let put = Put {
                key: key.clone(),
                value: value.clone(),
            };
            clients.of(&key).put(put).await.unwrap();
            assert_eq!(clients.of(&key).get(key).await.unwrap(), Some(value));
        }
        let mut changes = Vec::new();
        for client in &clients.0 {
            let put = Put {
                key: "last".into(),
                value: String::new(),
            };
            changes.push(client.put(put).await.unwrap() - 1);
        }
        changes
    });
    assert_eq!(changes.iter().sum::<u64>(), 100);
    assert!(changes.iter().all(|changes| *changes > 30), "{changes:?}");
    for shard in shards {
        shard.stop().unwrap();
    }
    let elsewhere = Shard::start("192.0.2.1:1".parse().unwrap());
    let refused = elsewhere.err().unwrap().to_string();
    assert!(refused.contains("192.0.2.1:1"), "{refused}");
}

/// What the guide says about the speed: run by hand, in release.
#[test]
#[ignore = "measures real time, and asserts nothing about it"]
fn print_the_calls_per_second_of_one_core_and_of_two() {
    for _ in 0..5 {
        for threads in [1, 2] {
            let (per_second, cpu) = measure(threads);
            println!("{threads} threads: {per_second:.0} calls/s, {cpu:.2} us of CPU per call");
        }
    }
}

/// CPU time of this process so far, in ticks of 10 ms.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name in the second field may hold spaces: what counts follows its parenthesis.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = |field| -> u64 { fields.split(' ').nth(field).unwrap().parse().unwrap() };
    ticks(11) + ticks(12)
}

/// Calls per second, and microseconds of CPU per call, of so many threads, each with a shard and a
/// client that keeps 64 calls under way.
#[expect(
    clippy::disallowed_methods,
    reason = "what it costs is real time; it decides nothing"
)]
fn measure(threads: usize) -> (f64, f64) {
    const CALLS: usize = 200_000;
    let work = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_all()
            .build_local(Default::default())
            .unwrap();
        runtime.block_on(async {
            let p = TokioProviders::new();
            let server: Rc<Transport<TokioProviders>> =
                listen(&p, "127.0.0.1:0".parse().unwrap()).await.unwrap();
            let address = server.local_address().unwrap();
            let task = *p.task();
            let at = p.clone();
            task.spawn_task("serve", async move {
                let stop = std::future::pending();
                serve(&at, server, Rc::default(), stop).await.unwrap();
            });
            let transport = FlowTransportBuilder::from_providers(&p).build();
            let store = Store::remote(&transport, address, JsonCodec);
            let mut waiting = std::collections::VecDeque::new();
            for _ in 0..CALLS {
                if waiting.len() == 64
                    && let Some(call) = waiting.pop_front()
                {
                    let answer: Result<Option<String>, _> = call.await;
                    answer.unwrap();
                }
                waiting.push_back(store.get("key".into()).send().unwrap());
            }
        });
    };
    let (began, ticks) = (std::time::Instant::now(), cpu_ticks());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let calls = (threads * CALLS) as f64;
    let cpu = (cpu_ticks() - ticks) as f64 * 10_000.0;
    (calls / began.elapsed().as_secs_f64(), cpu / calls)
}
