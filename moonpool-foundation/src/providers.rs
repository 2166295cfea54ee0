//! [`Providers`]: the four provider traits as one type parameter.
//!
//! Code that takes `P: Providers` runs on real sockets with [`TokioProviders`] and inside the
//! simulator with `SimProviders`, without a line of difference.

#[cfg(feature = "sim")]
use std::future::Future;
#[cfg(feature = "sim")]
use std::rc::Rc;

use crate::network::NetworkProvider;
#[cfg(feature = "sim")]
use crate::network::sim::SimNetworkProvider;
use crate::network::tokio::TokioNetworkProvider;
#[cfg(feature = "sim")]
use crate::random::SimRandomProvider;
use crate::random::{RandomProvider, SystemRandomProvider};
#[cfg(feature = "sim")]
use crate::sim::{SimProcess, SimWorld};
#[cfg(feature = "sim")]
use crate::task::SimTaskProvider;
use crate::task::{TaskProvider, TokioTaskProvider};
#[cfg(feature = "sim")]
use crate::time::SimTimeProvider;
use crate::time::{TimeProvider, TokioTimeProvider};

/// Network, time, tasks and randomness of one process, as one cheaply cloned value.
///
/// ```
/// use moonpool_foundation::{Providers, TimeProvider};
/// use std::time::Duration;
///
/// async fn pause<P: Providers>(providers: &P) -> Duration {
///     providers.time().sleep(Duration::from_millis(1)).await;
///     providers.time().now()
/// }
/// # let runtime = tokio::runtime::Builder::new_current_thread()
/// #     .enable_all().build_local(Default::default()).unwrap();
/// # runtime.block_on(async {
/// # assert!(pause(&moonpool_foundation::TokioProviders::new()).await >= Duration::from_millis(1));
/// # });
/// ```
pub trait Providers: Clone + 'static {
    /// Opens listeners and connections.
    type Network: NetworkProvider;
    /// Tells the time and sleeps.
    type Time: TimeProvider;
    /// Starts tasks.
    type Task: TaskProvider;
    /// Draws random numbers.
    type Random: RandomProvider;

    /// The network.
    fn network(&self) -> &Self::Network;
    /// The clock.
    fn time(&self) -> &Self::Time;
    /// The task spawner.
    fn task(&self) -> &Self::Task;
    /// The random numbers.
    fn random(&self) -> &Self::Random;
}

/// The real world: tokio's sockets, clock and tasks, and the operating system's entropy.
///
/// Use it on tokio's `LocalRuntime`; see [`TokioTaskProvider`].
#[derive(Clone, Debug, Default)]
pub struct TokioProviders {
    network: TokioNetworkProvider,
    time: TokioTimeProvider,
    task: TokioTaskProvider,
    random: SystemRandomProvider,
}

impl TokioProviders {
    /// Providers whose clock starts at zero now.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with names of hosts; see [`TokioNetworkProvider::with_hosts`].
    pub fn with_hosts(hosts: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            network: TokioNetworkProvider::with_hosts(hosts),
            ..Self::default()
        }
    }
}

impl Providers for TokioProviders {
    type Network = TokioNetworkProvider;
    type Time = TokioTimeProvider;
    type Task = TokioTaskProvider;
    type Random = SystemRandomProvider;

    fn network(&self) -> &Self::Network {
        &self.network
    }
    fn time(&self) -> &Self::Time {
        &self.time
    }
    fn task(&self) -> &Self::Task {
        &self.task
    }
    fn random(&self) -> &Self::Random {
        &self.random
    }
}

/// The simulated world, as one process sees it.
#[cfg(feature = "sim")]
#[derive(Clone, Debug)]
pub struct SimProviders {
    network: SimNetworkProvider,
    time: SimTimeProvider,
    task: SimTaskProvider,
    random: SimRandomProvider,
}

#[cfg(feature = "sim")]
impl SimProviders {
    /// The world that this code runs in, for commands from inside: kill a process, cut a connection,
    /// part two hosts. `None` in a process that was killed, whose destructors reach nobody.
    ///
    /// Ask for it each time rather than keep it: a handle that is kept outlives its process. It cannot
    /// drive the world, and dropping it ends nothing.
    ///
    /// ```
    /// use moonpool_foundation::{KillKind, Providers, SimWorld, TaskProvider, TimeProvider};
    /// use std::time::Duration;
    ///
    /// let world = SimWorld::new();
    /// let victim = world.add_process("victim");
    /// let killer = world.add_process("killer").providers();
    /// killer.task().spawn_task("killer", {
    ///     let killer = killer.clone();
    ///     async move {
    ///         killer.time().sleep(Duration::from_secs(1)).await;
    ///         if let Some(world) = killer.world()
    ///             && let Some(victim) = world.process("victim")
    ///         {
    ///             world.kill(victim.id(), KillKind::Crash);
    ///         }
    ///     }
    /// });
    /// world.run_until_empty()?;
    /// assert!(!victim.is_alive());
    /// # Ok::<(), moonpool_foundation::SimulationError>(())
    /// ```
    #[must_use]
    pub fn world(&self) -> Option<SimWorld> {
        self.task.world()
    }
}

#[cfg(feature = "sim")]
impl SimProcess {
    /// All four providers of this process, in its current life.
    #[must_use]
    pub fn providers(&self) -> SimProviders {
        SimProviders {
            network: self.network_provider(),
            time: self.time_provider(),
            task: self.task_provider(),
            random: self.random_provider(),
        }
    }
}

#[cfg(feature = "sim")]
impl SimWorld {
    /// Makes a process that runs `factory`, now and again after each [`restart`](SimWorld::restart):
    /// the future is the main task of that life.
    ///
    /// ```
    /// use moonpool_foundation::{KillKind, Providers, SimWorld, TimeProvider};
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    ///
    /// let world = SimWorld::new();
    /// let starts = Rc::new(Cell::new(0));
    /// let counted = Rc::clone(&starts);
    /// let server = world.start_process("server", move |providers| {
    ///     counted.set(counted.get() + 1);
    ///     async move { providers.time().sleep(Duration::from_secs(60)).await }
    /// });
    /// world.run_for(Duration::from_secs(1))?;
    /// world.kill(server.id(), KillKind::Crash);
    /// world.restart(server.id());
    /// assert_eq!(starts.get(), 2);
    /// # Ok::<(), moonpool_foundation::SimulationError>(())
    /// ```
    pub fn start_process<F, Fut>(&self, name: &str, factory: F) -> SimProcess
    where
        F: Fn(SimProviders) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let process = self.add_process(name);
        let (handle, task_name) = (process.clone(), name.to_owned());
        let start = move || {
            let providers = handle.providers();
            let main = factory(providers.clone());
            providers.task().spawn_task(task_name.clone(), main);
        };
        start();
        process.set_factory(Rc::new(start));
        process
    }

    /// All four providers of the world's own process.
    #[must_use]
    pub fn providers(&self) -> SimProviders {
        self.world_process().providers()
    }
}

#[cfg(feature = "sim")]
impl Providers for SimProviders {
    type Network = SimNetworkProvider;
    type Time = SimTimeProvider;
    type Task = SimTaskProvider;
    type Random = SimRandomProvider;

    fn network(&self) -> &Self::Network {
        &self.network
    }
    fn time(&self) -> &Self::Time {
        &self.time
    }
    fn task(&self) -> &Self::Task {
        &self.task
    }
    fn random(&self) -> &Self::Random {
        &self.random
    }
}
