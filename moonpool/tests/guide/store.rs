//! The service that the guide builds.

use std::{
    cell::RefCell, collections::BTreeMap, error::Error, future::Future, rc::Rc, time::Duration,
};

use moonpool::prelude::*;
use moonpool::{Client, Serving, define_interface};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Put {
    pub key: String,
    pub value: String,
}

define_interface! {
    /// Values by key.
    pub Store, id 0x5701_4E00, {
        /// The value of a key.
        get: String => Option<String>,
        /// Sets a key. Gives the number of the change.
        put: Put => u64,
    }
}

pub type Transport<P> =
    FlowTransport<<P as Providers>::Network, <P as Providers>::Time, <P as Providers>::Task>;

/// What outlives a process. In production it is on a disk.
#[derive(Default)]
pub struct Disk {
    pub values: BTreeMap<String, String>,
    pub changes: u64,
}

pub async fn listen<P: Providers>(
    p: &P,
    address: NetworkAddress,
) -> Result<Rc<Transport<P>>, BuildError> {
    let builder = FlowTransportBuilder::from_providers(p).local_address(address);
    builder.build_listening().await
}

/// Serves until `stop`; then lets handlers that run finish, and their answers leave.
pub async fn serve<P: Providers>(
    p: &P,
    transport: Rc<Transport<P>>,
    disk: Rc<RefCell<Disk>>,
    stop: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error>> {
    let store = Store::serve(&transport, JsonCodec)?;
    let serving = Serving::new(&transport).max_concurrency(256);
    let reads = disk.clone();
    let get = async move |key, _: &_| Ok(reads.borrow().values.get(&key).cloned());
    let put = async move |Put { key, value }, _: &_| {
        let mut disk = disk.borrow_mut();
        disk.values.insert(key, value);
        disk.changes += 1;
        Ok(disk.changes)
    };
    p.task().spawn_task("store", async move {
        tokio::join!(serving.serve(store.get, get), serving.serve(store.put, put));
    });
    stop.await;
    transport.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Sets a key and reads it back.
pub async fn set_and_get(
    store: &Client<Store>,
    key: &str,
    value: &str,
) -> Result<Option<String>, ReplyError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    let put = Put {
        key: key.clone(),
        value,
    };
    store.put(put).timeout(Duration::from_secs(2)).await?;
    store.get(key).timeout(Duration::from_secs(2)).await
}

// main
/// Resolves when a supervisor or a person asks the process to end.
#[cfg(unix)]
async fn asked_to_end() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

#[cfg(unix)]
fn run(address: NetworkAddress) -> Result<(), Box<dyn Error>> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(Default::default())?;
    runtime.block_on(async {
        let p = TokioProviders::new();
        let transport = listen(&p, address).await?;
        let stop = async {
            if let Err(error) = asked_to_end().await {
                tracing::error!(%error, "cannot wait for signals: this will not end by itself");
                std::future::pending().await
            }
        };
        serve(&p, transport, Rc::default(), stop).await
    })
}
// end of main

/// A signal for this process itself, which another test may have in its process too: their handlers
/// do nothing but end what waits for them.
#[cfg(unix)]
#[test]
fn sigterm_ends_the_program_in_order() {
    let asking = std::thread::spawn(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            // The handler is there before anything is sent: so the signal cannot end the test.
            let waits = asked_to_end();
            let sends = async {
                let pid = std::process::id().to_string();
                let kill = std::process::Command::new("kill")
                    .args(["-TERM", &pid])
                    .status();
                assert!(kill.unwrap().success());
            };
            let (ended, ()) = tokio::join!(biased; waits, sends);
            ended.unwrap();
        });
    });
    asking.join().unwrap();
    // What it is used for compiles, and refuses an address that is not this host's.
    let refused = run("192.0.2.1:1".parse().unwrap());
    assert!(refused.unwrap_err().to_string().contains("192.0.2.1:1"));
}

// test
use moonpool::SimulationError;
use moonpool::foundation::{
    Attrition, SimProviders, SimulationBuilder, SimulationMetrics, SimulationResult,
    WorkloadTopology,
};

/// One life of the server's process.
async fn live(p: SimProviders, topology: WorkloadTopology) -> SimulationResult<()> {
    let address = format!("{}:4500", topology.my_ip).parse().unwrap();
    let transport = listen(&p, address).await.unwrap();
    let stop = topology.shutdown_signal.cancelled();
    let served = serve(&p, transport, topology.own(), stop).await;
    served.map_err(|error| SimulationError::workload(error.to_string()))
}

/// Sets keys, and looks at the end whether all are there.
async fn call(p: SimProviders, topology: WorkloadTopology) -> SimulationResult<SimulationMetrics> {
    let server = topology.get_peer_by_name("store").unwrap();
    let transport = FlowTransportBuilder::from_providers(&p).build();
    let address = format!("{server}:4500").parse().unwrap();
    let store = Store::remote(&transport, address, JsonCodec);
    let mut acknowledged = Vec::new();
    for number in 0..50 {
        // A new key each time: a write of which nothing is known may still arrive.
        let key = format!("key {number}");
        match set_and_get(&store, &key, "value").await {
            Ok(value) => acknowledged.push((key, value)),
            Err(error) => tracing::debug!(%error, "no answer"),
        }
        p.time().sleep(Duration::from_millis(100)).await;
    }
    for (key, value) in acknowledged {
        assert_eq!(value.as_deref(), Some("value"));
        if let Ok(read) = store.get(key).await {
            assert_eq!(read, value);
        }
    }
    transport.shutdown(Duration::from_secs(1)).await;
    Ok(SimulationMetrics::default())
}

#[test]
fn what_was_acknowledged_is_read_back() {
    SimulationBuilder::new()
        .process("store", live)
        .register_providers_workload("client", call)
        .attrition(Attrition::default())
        .use_random_config()
        .run()
        .assert_passed();
}
// end of test
