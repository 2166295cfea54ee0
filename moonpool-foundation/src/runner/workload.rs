//! A registered workload: how it is started, and how far those of a seed have come.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio_util::sync::CancellationToken;

use super::metrics::SimulationMetrics;
use super::processes::Servers;
use super::shared::SharedValues;
use super::topology::WorkloadTopology;
use super::verdict::with_sources;
use crate::chaos::StateRegistry;
use crate::error::{SimulationError, SimulationResult};
use crate::providers::SimProviders;
use crate::sim::{SimProcess, TaskRole};

/// A registered workload or process.
pub(super) struct Workload {
    pub(super) name: Cow<'static, str>,
    pub(super) role: Role,
    pub(super) registered_at: &'static Location<'static>,
    /// Starts it as a task. It holds the user's function, whose future has a type of its own: one
    /// call through a pointer per workload and seed, and no boxed future.
    pub(super) launch: Box<dyn Fn(Launch<'_>) + Send + Sync>,
}

/// What a seed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A driver: the seed ends when all of them have returned.
    Workload,
    /// A server: it is told to stop when the drivers are done.
    Process,
}

impl fmt::Debug for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workload")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a workload is started with.
pub(super) struct Launch<'a> {
    pub(super) workload: &'a Workload,
    pub(super) index: usize,
    pub(super) process: &'a SimProcess,
    pub(super) topology: WorkloadTopology,
    pub(super) progress: Rc<Progress>,
}

impl Workload {
    pub(super) fn new<F, Fut>(
        name: Cow<'static, str>,
        registered_at: &'static Location<'static>,
        function: F,
    ) -> Self
    where
        F: Fn(SimProviders, WorkloadTopology) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let function = Arc::new(function);
        Self {
            name,
            role: Role::Workload,
            registered_at,
            launch: Box::new(move |launch| {
                let function = Arc::clone(&function);
                launch.spawn(move |providers, topology| function(providers, topology));
            }),
        }
    }

    /// Starts it as a task of its process.
    pub(super) fn launch(launch: Launch<'_>) {
        (launch.workload.launch)(launch);
    }
}

impl Launch<'_> {
    fn spawn<Fut>(self, function: impl FnOnce(SimProviders, WorkloadTopology) -> Fut + 'static)
    where
        Fut: Future<Output = SimulationResult<SimulationMetrics>> + 'static,
    {
        let Some(world) = self.process.world.upgrade() else {
            return;
        };
        let providers = self.process.providers();
        let (mut topology, progress, index) = (self.topology, self.progress, self.index);
        topology.providers = Some(providers.clone());
        // The function is called inside the task, where a panic in it is the workload's.
        let future = async move {
            let result = function(providers, topology).await;
            progress.returned(index, result);
        };
        let handle = world.spawn(
            self.workload.name.clone(),
            self.process.life(),
            TaskRole::Ordinary,
            self.workload.registered_at,
            future,
        );
        drop(handle);
    }
}

/// When the shutdown signal fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ShutdownAfter {
    #[default]
    First,
    All,
}

/// How far the workloads of a seed are.
pub(super) struct Progress {
    remaining: Cell<usize>,
    /// The first workload that returned an error, and its text.
    failure: RefCell<Option<(usize, String)>>,
    waker: RefCell<Option<Waker>>,
    pub(super) shutdown: CancellationToken,
    pub(super) shared: SharedValues,
    /// What its invariants look at.
    pub(super) registry: StateRegistry,
    shutdown_after: ShutdownAfter,
    pub(super) servers: Servers,
}

impl Progress {
    /// None of `workloads` has returned.
    pub(super) fn new(workloads: usize, shutdown_after: ShutdownAfter) -> Self {
        Self {
            remaining: Cell::new(workloads),
            failure: RefCell::new(None),
            waker: RefCell::new(None),
            shutdown: CancellationToken::new(),
            shared: SharedValues::default(),
            registry: StateRegistry::new(),
            shutdown_after,
            servers: Servers::default(),
        }
    }

    /// The first workload that returned an error, and its text.
    pub(super) fn failure(&self) -> Option<(usize, String)> {
        self.failure.borrow().clone()
    }

    fn returned(&self, workload: usize, result: SimulationResult<SimulationMetrics>) {
        let remaining = self.remaining.get() - 1;
        self.remaining.set(remaining);
        match result {
            Ok(_) => {
                if remaining == 0 || self.shutdown_after == ShutdownAfter::First {
                    self.shutdown.cancel();
                }
            }
            Err(error) => self.note_failure(workload, &error),
        }
        self.wake_if_over();
    }

    /// A process's main future returned an error.
    pub(super) fn process_failed(&self, process: usize, error: &SimulationError) {
        self.note_failure(process, error);
        self.wake_if_over();
    }

    fn note_failure(&self, workload: usize, error: &SimulationError) {
        let text = with_sources(error);
        self.failure.borrow_mut().get_or_insert((workload, text));
    }

    fn wake_if_over(&self) {
        if self.is_over() {
            let waker = self.waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.remaining.get() == 0 || self.failure.borrow().is_some()
    }

    /// Ready when all workloads have returned, or one has failed.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        let replaced = self.waker.replace(Some(cx.waker().clone()));
        drop(replaced);
        Poll::Pending
    }
}

/// How many of `workloads` the end of a seed waits for.
pub(super) fn drivers(workloads: &[Workload]) -> usize {
    let roles = workloads.iter().map(|workload| workload.role);
    roles.filter(|role| *role == Role::Workload).count()
}
