//! The honest clients, on a thread of their own, so that an attacker's work is not taken for theirs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use moonpool::prelude::*;

use crate::Failure;
use crate::service::{self, Seen};

/// Clients that stay.
const SETTLED: usize = 3;

/// What they saw.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// Calls that were answered, of those that stay.
    pub(crate) done: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The same of those that connect anew for each call.
    pub(crate) newcomers: usize,
    pub(crate) newcomers_p99: Duration,
    /// What else calls ended with, and how often.
    pub(crate) failed: BTreeMap<String, u64>,
}

pub(crate) struct Neighbours {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Report, String>>,
}

impl Neighbours {
    pub(crate) fn start(server: NetworkAddress) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .map_err(|error| error.to_string())?;
            runtime.block_on(run(server, &stop))
        });
        Self { is_over, thread }
    }

    pub(crate) fn stop(self) -> Result<Report, Failure> {
        self.is_over.store(true, Ordering::Relaxed);
        let joined = self.thread.join();
        Ok(joined.map_err(|_panic| "the honest clients panicked")??)
    }
}

async fn run(server: NetworkAddress, stop: &AtomicBool) -> Result<Report, String> {
    let providers = TokioProviders::new();
    let (stay, come) = (Seen::default(), Seen::default());
    let is_over = Rc::new(Cell::new(false));
    let mut clients: Vec<_> = (0..SETTLED)
        .map(|_| {
            let calls =
                service::settled(providers.clone(), server, stay.clone(), Rc::clone(&is_over));
            providers.task().spawn_task("settled", calls)
        })
        .collect();
    let calls = service::newcomer(providers.clone(), server, come.clone(), Rc::clone(&is_over));
    clients.push(providers.task().spawn_task("newcomer", calls));
    while !stop.load(Ordering::Relaxed) {
        providers.time().sleep(Duration::from_millis(5)).await;
    }
    is_over.set(true);
    for client in clients {
        client.await.map_err(|error| error.to_string())?;
    }
    let mut failed = stay.failed();
    for (ending, count) in come.failed() {
        *failed.entry(format!("newcomer: {ending}")).or_default() += count;
    }
    Ok(Report {
        done: stay.done(),
        p50: stay.percentile(50),
        p99: stay.percentile(99),
        newcomers: come.done(),
        newcomers_p99: come.percentile(99),
        failed,
    })
}
