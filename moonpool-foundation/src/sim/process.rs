//! Simulated processes: a name, an address, a life, and random streams of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::clocks::ProcessClock;
use super::events::{EventKey, index_u32};
use super::rng::{Stream, StreamId};

/// Names a process of one world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(u32);

impl ProcessId {
    /// The world's own process: the owner of what `SimWorld`'s own providers make.
    pub(crate) const WORLD: Self = Self(0);

    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.0)
    }
}

/// One life of a process: what a provider handle belongs to. After a kill it is sealed for ever,
/// also when the process lives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessRef {
    pub(crate) id: ProcessId,
    pub(crate) incarnation: u32,
}

/// How a process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillKind {
    /// The process dies and its host lives: peers see RST, connects are refused.
    Crash,
    /// The host dies with it: peers see nothing. What they send is swallowed until their sockets time
    /// out, 15 s later; connects are not answered, and time out after two minutes.
    PowerLoss,
    /// The process is asked to end: its [shutdown token](crate::SimProcess::shutdown_token) fires,
    /// and after `grace` it is killed as by [`Crash`](Self::Crash), whether it has ended or not.
    Graceful {
        /// What it has to close what is open.
        grace: Duration,
    },
    /// As [`Crash`](Self::Crash), and it lives again after a time drawn from `after`; see
    /// [`SimWorld::restart`](crate::SimWorld::restart). An empty range gives its start.
    Reboot {
        /// How long it is dead.
        after: Range<Duration>,
    },
}

/// What a death leaves of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process dies and its host lives.
    Crash,
    /// The host dies with it.
    PowerLoss,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LifeState {
    Up,
    /// Asked to end; it is killed when its grace is over.
    Stopping,
    Dead(Death),
}

/// Starts the tasks of a process's new life.
pub(crate) type Factory = Rc<dyn Fn()>;

pub(crate) struct Process {
    pub(crate) name: Rc<str>,
    pub(crate) ip: IpAddr,
    incarnation: u32,
    pub(super) state: LifeState,
    /// None of its tasks is polled. Only the living are paused.
    pub(super) paused: bool,
    /// The end of its grace while it is stopping, or its restart while it is dead.
    pub(super) due: Option<EventKey>,
    /// The end of its pause, if that is known.
    pub(super) resume_due: Option<EventKey>,
    pub(super) clock: ProcessClock,
    /// Starts its tasks, at the beginning of each life.
    pub(crate) factory: Option<Factory>,
    /// Asks the current life to end by itself.
    pub(crate) shutdown: CancellationToken,
    pub(crate) workload: Stream,
    pub(crate) library: Stream,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("ip", &self.ip)
            .field("incarnation", &self.incarnation)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// All processes of a world.
#[derive(Debug)]
pub(crate) struct Processes {
    list: Vec<Process>,
    by_name: BTreeMap<Rc<str>, ProcessId>,
    seed: u64,
}

/// Processes beside the world's own: as many as 10.0.0.0/8 has room for.
const MAX_PROCESSES: u32 = (1 << 24) - 2;
const WORLD_NAME: &str = "world";

impl Processes {
    pub(crate) fn new(seed: u64) -> Self {
        let mut processes = Self {
            list: Vec::new(),
            by_name: BTreeMap::new(),
            seed,
        };
        processes.push(WORLD_NAME.into(), Ipv4Addr::new(10, 255, 255, 254));
        processes
    }

    /// The process of that name, made with the next free address if there is none.
    pub(crate) fn add(&mut self, name: &str) -> ProcessId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let number = index_u32(self.list.len()).min(MAX_PROCESSES);
        let ip = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
        self.push(name.into(), ip)
    }

    fn push(&mut self, name: Rc<str>, ip: Ipv4Addr) -> ProcessId {
        let id = ProcessId(index_u32(self.list.len()));
        self.list.push(Process {
            name: Rc::clone(&name),
            ip: ip.into(),
            incarnation: 0,
            state: LifeState::Up,
            paused: false,
            due: None,
            resume_due: None,
            clock: ProcessClock::default(),
            factory: None,
            shutdown: CancellationToken::new(),
            workload: Stream::new(self.seed, StreamId::Workload(id.0)),
            library: Stream::new(self.seed, StreamId::Library(id.0)),
        });
        self.by_name.insert(name, id);
        id
    }

    pub(crate) fn get(&self, id: ProcessId) -> &Process {
        &self.list[id.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, id: ProcessId) -> &mut Process {
        &mut self.list[id.0 as usize]
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<ProcessId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn by_ip(&self, ip: IpAddr) -> Option<ProcessId> {
        let world = self.get(ProcessId::WORLD);
        if world.ip == ip {
            return Some(ProcessId::WORLD);
        }
        // Addresses are given out in order, so the address is the index.
        let IpAddr::V4(v4) = ip else { return None };
        let number = v4
            .to_bits()
            .checked_sub(Ipv4Addr::new(10, 0, 0, 0).to_bits())?;
        let found = self.list.get(number as usize)?;
        (found.ip == ip).then_some(ProcessId(number))
    }

    /// All but the world's own, in the order they were made.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ProcessId> + use<> {
        (1..index_u32(self.list.len())).map(ProcessId)
    }

    /// The process's current life.
    pub(crate) fn life(&self, id: ProcessId) -> ProcessRef {
        ProcessRef {
            id,
            incarnation: self.get(id).incarnation,
        }
    }

    /// Whether what `owner` does still counts.
    pub(crate) fn is_live(&self, owner: ProcessRef) -> bool {
        let process = self.get(owner.id);
        process.incarnation == owner.incarnation && !matches!(process.state, LifeState::Dead(_))
    }

    pub(crate) fn is_alive(&self, id: ProcessId) -> bool {
        !matches!(self.get(id).state, LifeState::Dead(_))
    }

    pub(crate) fn is_powered(&self, id: ProcessId) -> bool {
        self.get(id).state != LifeState::Dead(Death::PowerLoss)
    }

    /// Whether it is neither dead nor about to be, and not paused.
    pub(crate) fn is_up(&self, id: ProcessId) -> bool {
        let process = self.get(id);
        process.state == LifeState::Up && !process.paused
    }

    /// Begins a new life. Its random streams go on where the last one left them.
    pub(crate) fn revive(&mut self, id: ProcessId) {
        let process = self.get_mut(id);
        process.state = LifeState::Up;
        process.shutdown = CancellationToken::new();
    }

    /// Ends the current life: from now on nothing it does is seen by anyone.
    pub(crate) fn seal(&mut self, id: ProcessId, death: Death) {
        let process = self.get_mut(id);
        process.state = LifeState::Dead(death);
        process.paused = false;
        process.incarnation = process.incarnation.wrapping_add(1);
    }
}
