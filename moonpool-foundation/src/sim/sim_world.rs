//! [`SimWorld`]: the owner of everything that a seed decides, as tests and the runner use it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::breakage::SimConnection;
use super::clock::SimInstant;
use super::executor::SchedulePolicy;
use super::pending::PendingTask;
use super::process::{Death, Factory, LifeState, ProcessAddressError, ProcessId, ProcessRef};
use super::trace::{TraceMode, TraceStep};
use super::world::{Event, Shared, WeakSimWorld};
use crate::chaos::{FaultCounts, FaultId, FaultRecord};
use crate::error::SimulationResult;
use crate::network::{NetworkConfigError, NetworkConfiguration};

/// A simulated world: clock, event queue, executor, network and random streams, all of one seed.
///
/// Dropping it drops its tasks; what their destructors do reaches nobody.
///
/// ```
/// use moonpool_foundation::{SimWorld, TimeProvider};
/// use std::time::Duration;
///
/// let world = SimWorld::new_with_seed(7);
/// let time = world.time_provider();
/// world.block_on(async move { time.sleep(Duration::from_secs(3600)).await })?;
/// assert_eq!(world.now(), Duration::from_secs(3600));
/// # Ok::<(), moonpool_foundation::SimulationError>(())
/// ```
#[derive(Debug)]
pub struct SimWorld {
    pub(super) shared: Rc<Shared>,
    /// Who made the world ends it; handles that code inside got do not.
    ends: Option<EndOnDrop>,
}

/// Ends its world when dropped.
#[derive(Debug)]
struct EndOnDrop(Rc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(panic) = self.0.end() {
            tracing::error!(%panic, "a destructor panicked while its world was dropped");
        }
    }
}

/// A simulated host, as [`SimWorld::add_process`] makes it.
#[derive(Clone, Debug)]
pub struct SimProcess {
    pub(crate) world: WeakSimWorld,
    id: ProcessId,
    name: Rc<str>,
    ip: IpAddr,
}

impl SimProcess {
    /// Its number in the world.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Its name: `name:port` reaches it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All its addresses, [`ip`](Self::ip) first: those that [`SimWorld::add_process`] makes have one of
    /// each family.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.world.upgrade() {
            Some(world) => world.with(|world| world.processes.get(self.id).addresses().collect()),
            None => vec![self.ip],
        }
    }

    /// Its address: what its name means to those who dial it.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Whether it lives. One that is paused does.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.world
            .upgrade()
            .is_some_and(|world| world.with(|world| world.processes.is_alive(self.id)))
    }

    /// Whether it is paused: alive, and none of its tasks is polled.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.world
            .upgrade()
            .is_some_and(|world| world.with(|world| world.processes.get(self.id).paused))
    }

    /// What asks its current life to end by itself: it fires when a graceful kill begins, and at the
    /// end of a run by the runner. The next life has one of its own.
    #[must_use]
    pub fn shutdown_token(&self) -> CancellationToken {
        match self.world.upgrade() {
            Some(world) => world.with(|world| world.processes.get(self.id).shutdown.clone()),
            None => CancellationToken::new(),
        }
    }

    /// Whether it runs, in a word or two.
    pub(crate) fn state_name(&self) -> &'static str {
        let Some(world) = self.world.upgrade() else {
            return "gone";
        };
        world.with(|world| {
            let process = world.processes.get(self.id);
            match (process.state, process.paused) {
                (LifeState::Up, false) => "alive",
                (LifeState::Up, true) => "paused",
                (LifeState::Stopping, _) => "stopping",
                (LifeState::Dead(Death::Crash), _) => "dead",
                (LifeState::Dead(Death::PowerLoss), _) => "without power",
            }
        })
    }

    pub(crate) fn set_factory(&self, factory: Factory) {
        if let Some(world) = self.world.upgrade() {
            world.set_factory(self.id, factory);
        }
    }

    /// Its current life: what providers made now belong to.
    pub(crate) fn life(&self) -> ProcessRef {
        match self.world.upgrade() {
            Some(world) => world.with(|world| world.processes.life(self.id)),
            None => ProcessRef {
                id: self.id,
                incarnation: 0,
            },
        }
    }
}

/// What a world still holds: all zero after an orderly end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Leftovers {
    /// Tasks that have not ended.
    pub tasks: usize,
    /// Queued events.
    pub events: usize,
    /// Connections with an open end.
    pub connections: usize,
    /// Bound listeners.
    pub listeners: usize,
}

impl Default for SimWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl SimWorld {
    /// A world of seed 0.
    #[must_use]
    pub fn new() -> Self {
        Self::new_with_seed(0)
    }

    /// A world of this seed, with the default network.
    #[must_use]
    pub fn new_with_seed(seed: u64) -> Self {
        Self::make(Box::default(), seed)
    }

    /// A world of seed 0 on this network.
    ///
    /// # Errors
    /// What [`NetworkConfiguration::validate`] finds.
    pub fn new_with_network_config(
        config: NetworkConfiguration,
    ) -> Result<Self, NetworkConfigError> {
        Self::new_with_network_config_and_seed(config, 0)
    }

    /// A world of this seed on this network.
    ///
    /// # Errors
    /// What [`NetworkConfiguration::validate`] finds.
    pub fn new_with_network_config_and_seed(
        config: NetworkConfiguration,
        seed: u64,
    ) -> Result<Self, NetworkConfigError> {
        config.validate()?;
        Ok(Self::make(Box::new(config), seed))
    }

    /// A world on a network that was validated.
    pub(crate) fn make(config: Box<NetworkConfiguration>, seed: u64) -> Self {
        let shared = Shared::new(seed, config);
        Self {
            ends: Some(EndOnDrop(Rc::clone(&shared))),
            shared,
        }
    }

    /// A handle for commands from inside.
    pub(crate) fn borrowed(shared: Rc<Shared>) -> Self {
        Self { shared, ends: None }
    }

    /// A handle that does not keep the world alive.
    #[must_use]
    pub fn downgrade(&self) -> WeakSimWorld {
        self.shared.downgrade()
    }

    /// The world's own process: the owner of what its own providers make, and of the future that
    /// `block_on` is given.
    #[must_use]
    pub fn world_process(&self) -> SimProcess {
        self.handle(ProcessId::WORLD)
    }

    /// The process of that name; made, with the next address from 10.0.0.1 upward (and its
    /// sibling from fd00::1 upward), if there is none.
    ///
    /// One that was killed is given as it is, dead: [`restart`](Self::restart) it. A name that is empty,
    /// an address, `localhost` or contains a colon cannot be dialled; the process's address can.
    pub fn add_process(&self, name: &str) -> SimProcess {
        let id = self.shared.with(|world| world.processes.add(name));
        self.handle(id)
    }

    /// Makes a process with this address, IPv4 or IPv6, and no other. A name that is dialled means that
    /// address; one that has no address of a family cannot be dialled or dial there.
    ///
    /// ```
    /// use moonpool_foundation::{NetworkProvider, SimWorld, TcpListenerTrait};
    ///
    /// let world = SimWorld::new();
    /// let server = world.add_process_with_ip("server", "2001:470::7".parse()?)?;
    /// let network = server.network_provider();
    /// let bound = world.block_on(async move { network.bind("server:80").await })??;
    /// assert_eq!(bound.local_addr()?, "[2001:470::7]:80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ProcessAddressError`]: name or address are taken, or it is no address of a host.
    pub fn add_process_with_ip(
        &self,
        name: &str,
        ip: IpAddr,
    ) -> Result<SimProcess, ProcessAddressError> {
        let added = self
            .shared
            .with(|world| world.processes.add_with_ip(name, ip));
        added.map(|id| self.handle(id))
    }

    /// The process of that name.
    #[must_use]
    pub fn process(&self, name: &str) -> Option<SimProcess> {
        let id = self.shared.with(|world| world.processes.by_name(name))?;
        Some(self.handle(id))
    }

    /// All processes but the world's own, in the order they were made.
    #[must_use]
    pub fn all_processes(&self) -> Vec<SimProcess> {
        let ids = self.shared.with(|world| world.processes.ids());
        ids.map(|id| self.handle(id)).collect()
    }

    fn handle(&self, id: ProcessId) -> SimProcess {
        let (name, ip) = self.shared.with(|world| {
            let process = world.processes.get(id);
            (Rc::clone(&process.name), process.ip)
        });
        SimProcess {
            world: self.downgrade(),
            id,
            name,
            ip,
        }
    }

    /// The connections of which at least one end is open, in the order of their places in the world.
    #[must_use]
    pub fn connections(&self) -> Vec<SimConnection> {
        self.shared.with(|world| world.sim_connections())
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed()
    }

    /// A digest of all that has happened: of times and kinds of events, tasks chosen, bytes
    /// delivered and numbers drawn.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shared.with(|world| world.digest.value())
    }

    /// How many events have been processed.
    #[must_use]
    pub fn events_processed(&self) -> u64 {
        self.shared.with(|world| world.events_processed)
    }

    /// Virtual time since the run began.
    #[must_use]
    pub fn current_time(&self) -> Duration {
        self.shared.instant().since_start()
    }

    /// Virtual time since the run began; the same as [`current_time`](Self::current_time).
    #[must_use]
    pub fn now(&self) -> Duration {
        self.current_time()
    }

    /// The clock of the world's own process: it drifts as those of others do.
    #[must_use]
    pub fn timer(&self) -> Duration {
        let owner = self.world_process().life();
        self.shared.timer(owner).since_start()
    }

    /// Whether an event is queued.
    #[must_use]
    pub fn has_pending_events(&self) -> bool {
        self.pending_event_count() > 0
    }

    /// How many events are queued.
    #[must_use]
    pub fn pending_event_count(&self) -> usize {
        self.shared.with(|world| world.events.len())
    }

    /// Queues a mark `delay` from now: nothing happens then, but digest and trace show it.
    pub fn schedule_event(&self, mark: u64, delay: Duration) {
        self.shared.with(|world| {
            let at = world.clock.after(delay);
            world.schedule(at, Event::Mark(mark));
        });
    }

    /// Queues a mark at a point in virtual time, or now if that has passed.
    pub fn schedule_event_at(&self, mark: u64, at: Duration) {
        let delay = at.saturating_sub(self.current_time());
        self.schedule_event(mark, delay);
    }

    /// Calls `f` `delay` from now, as the world's own process.
    pub fn schedule_after(&self, delay: Duration, f: impl FnOnce() + 'static) {
        self.shared.with(|world| {
            let at = world.clock.after(delay);
            world.schedule(at, Event::Call(Box::new(f)));
        });
    }

    /// Skips these faults: they are drawn and take their ordinals, but do not happen. Said before
    /// the world is driven; it is part of what decides the run.
    pub fn set_skipped_faults(&self, faults: impl IntoIterator<Item = FaultId>) {
        let faults = Rc::new(faults.into_iter().collect());
        self.skip_faults(faults);
    }

    pub(crate) fn skip_faults(&self, faults: Rc<BTreeSet<FaultId>>) {
        self.shared.with(|world| world.faults.log.skip(faults));
    }

    /// How often each kind of fault has fired.
    #[must_use]
    pub fn fault_counts(&self) -> FaultCounts {
        self.shared.with(|world| world.faults.log.counts())
    }

    /// From now on, faults that fire are recorded: see [`fault_records`](Self::fault_records).
    pub fn record_faults(&self) {
        self.shared.with(|world| world.faults.log.record());
    }

    /// The faults that fired since [`record_faults`](Self::record_faults), oldest first; of very
    /// many, the last 100,000.
    #[must_use]
    pub fn fault_records(&self) -> Vec<FaultRecord> {
        self.shared.with(|world| world.faults.log.records())
    }

    /// As [`fault_records`](Self::fault_records), each with its target by name.
    pub(crate) fn named_faults(&self) -> Vec<(FaultRecord, String)> {
        self.shared.with(|world| {
            world.trace_faults();
            world.named_faults()
        })
    }

    /// In what order ready tasks are polled from now on.
    pub fn set_schedule_policy(&self, policy: SchedulePolicy) {
        self.shared.with(|world| world.executor.set_policy(policy));
    }

    /// How much virtual time a run may use; `None`, the default, sets no limit.
    pub fn set_time_budget(&self, budget: Option<Duration>) {
        let ends = budget.map_or(SimInstant::NEVER, |budget| SimInstant::ZERO.after(budget));
        self.shared.with(|world| world.budget_ends = ends);
    }

    /// How often one task may be polled at one instant before that counts as a livelock. One
    /// million by default.
    pub fn set_livelock_limit(&self, polls: u64) {
        self.shared.with(|world| world.set_livelock_limit(polls));
    }

    /// What is recorded from now on: every event and poll, and before it each fault that fired in it,
    /// by its id.
    pub fn set_trace(&self, mode: TraceMode) {
        self.shared.with(|world| {
            world.trace.set_mode(mode);
            world.faults.log.set_traced(mode != TraceMode::Off);
        });
    }

    /// Of what is recorded, only the steps with these numbers are kept.
    pub(crate) fn set_trace_window(&self, window: Range<u64>) {
        self.shared.with(|world| world.trace.set_window(window));
    }

    /// The recorded steps, oldest first.
    #[must_use]
    pub fn recent_steps(&self) -> Vec<TraceStep> {
        self.shared.with(|world| {
            world.trace_faults();
            world.trace.steps()
        })
    }

    /// Every task that has not ended, and what it waits on.
    #[must_use]
    pub fn pending_tasks(&self) -> Vec<PendingTask> {
        self.shared.with(|world| world.pending_tasks())
    }

    /// What the world still holds.
    #[must_use]
    pub fn leftovers(&self) -> Leftovers {
        self.shared.with(|world| Leftovers {
            tasks: world.executor.live(),
            events: world.events.len(),
            connections: world.network.connections(),
            listeners: world.network.listeners(),
        })
    }

    /// Ends the world as dropping it does: its tasks are dropped, sealed, so that what their
    /// destructors do reaches nobody. A handle that was got [inside](WeakSimWorld::world) ends nothing.
    ///
    /// # Errors
    /// [`SimulationError::Panic`](crate::SimulationError::Panic) if a destructor panicked, now or in a [`kill`](Self::kill).
    pub fn close(self) -> SimulationResult<()> {
        let panic = self.ends.as_ref().and_then(|world| world.0.end());
        match panic {
            Some(panic) => Err(panic),
            None => Ok(()),
        }
    }
}
