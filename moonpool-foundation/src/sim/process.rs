//! Simulated processes: a name, an address, a life, and random streams of their own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::addresses::is_translated;
use super::clocks::ProcessClock;
use super::events::{EventKey, index_u32};
use super::recycle::{Recycle, recycle};
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

    /// So many, from the world's own.
    pub(super) fn first(count: usize) -> impl Iterator<Item = Self> + use<> {
        (0..index_u32(count)).map(Self)
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
    /// What its name means.
    pub(crate) ip: IpAddr,
    /// Its address of the other family, if it has one.
    also: Option<IpAddr>,
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

impl Process {
    /// Its addresses, the one that its name means first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        std::iter::once(self.ip).chain(self.also)
    }

    pub(crate) fn has_ip(&self, ip: IpAddr) -> bool {
        self.ip == ip || self.also == Some(ip)
    }

    /// Where its connects to `remote` come from.
    pub(crate) fn source(&self, remote: IpAddr) -> Option<IpAddr> {
        let mut own = self.addresses();
        own.find(|ip| ip.is_ipv4() == remote.is_ipv4())
    }
}

/// Why a process cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessAddressError {
    /// There is a process of that name. Choose another, or add it with its address first.
    #[error("there is a process named `{name}` already, at {ip}")]
    NameTaken {
        /// The name.
        name: String,
        /// That process's address.
        ip: IpAddr,
    },
    /// Another process has that address.
    #[error("{ip} is the address of `{owner}`")]
    AddressTaken {
        /// The address.
        ip: IpAddr,
        /// Whose it is.
        owner: String,
    },
    /// No host has such an address: it is a wildcard, a loopback or multicast address, or one of
    /// those that a network address translator shows.
    #[error("{ip} is no address of a host")]
    Unusable {
        /// The address.
        ip: IpAddr,
    },
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
#[derive(Debug, Default)]
pub(crate) struct Processes {
    list: Vec<Process>,
    /// By number: the incarnation that lives, or [`DEAD`]. Every operation asks for it.
    lives: Vec<u64>,
    by_name: BTreeMap<Rc<str>, ProcessId>,
    by_ip: BTreeMap<IpAddr, ProcessId>,
    /// How many addresses have been given out.
    given_out: u32,
    seed: u64,
}

/// The addresses of the `number`-th process: 10.0.0.1 and fd00::1 upward.
fn numbered(number: u32) -> (IpAddr, IpAddr) {
    let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number);
    let v6 = Ipv6Addr::from_bits((0xfd00 << 112) | u128::from(number));
    (v4.into(), v6.into())
}

/// No incarnation's number.
const DEAD: u64 = u64::MAX;

/// Processes beside the world's own: as many as 10.0.0.0/8 has room for.
const MAX_PROCESSES: u32 = (1 << 24) - 2;
const WORLD_NAME: &str = "world";

recycle!(Processes { list, lives } Self::default());

impl Processes {
    /// Those of a new world, in the memory of such without any.
    pub(crate) fn new(seed: u64, emptied: Self) -> Self {
        let mut processes = Self { seed, ..emptied };
        let (ip, also) = numbered(MAX_PROCESSES);
        processes.push(WORLD_NAME.into(), ip, Some(also));
        processes
    }

    /// The process of that name, made with the next free address if there is none.
    pub(crate) fn add(&mut self, name: &str) -> ProcessId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        loop {
            self.given_out = (self.given_out + 1).min(MAX_PROCESSES);
            let (ip, also) = numbered(self.given_out);
            let is_free = !self.by_ip.contains_key(&ip) && !self.by_ip.contains_key(&also);
            if is_free || self.given_out == MAX_PROCESSES {
                return self.push(name.into(), ip, Some(also));
            }
        }
    }

    /// A process with this address and no other.
    pub(crate) fn add_with_ip(
        &mut self,
        name: &str,
        ip: IpAddr,
    ) -> Result<ProcessId, ProcessAddressError> {
        if let Some(id) = self.by_name.get(name) {
            return Err(ProcessAddressError::NameTaken {
                name: name.to_owned(),
                ip: self.get(*id).ip,
            });
        }
        if let Some(owner) = self.by_ip.get(&ip) {
            let owner = self.get(*owner).name.to_string();
            return Err(ProcessAddressError::AddressTaken { ip, owner });
        }
        let is_host = !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast());
        if !is_host || is_translated(ip) {
            return Err(ProcessAddressError::Unusable { ip });
        }
        Ok(self.push(name.into(), ip, None))
    }

    fn push(&mut self, name: Rc<str>, ip: IpAddr, also: Option<IpAddr>) -> ProcessId {
        let id = ProcessId(index_u32(self.list.len()));
        self.list.push(Process {
            name: Rc::clone(&name),
            ip,
            also,
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
        self.lives.push(0);
        self.by_name.insert(name, id);
        for ip in std::iter::once(ip).chain(also) {
            self.by_ip.insert(ip, id);
        }
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
        self.by_ip.get(&ip).copied()
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
    #[inline]
    pub(crate) fn is_live(&self, owner: ProcessRef) -> bool {
        self.lives[owner.id.0 as usize] == u64::from(owner.incarnation)
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
        let process = &mut self.list[id.0 as usize];
        process.state = LifeState::Up;
        process.shutdown = CancellationToken::new();
        self.lives[id.0 as usize] = u64::from(process.incarnation);
    }

    /// Ends the current life: from now on nothing it does is seen by anyone.
    pub(crate) fn seal(&mut self, id: ProcessId, death: Death) {
        let process = &mut self.list[id.0 as usize];
        process.state = LifeState::Dead(death);
        process.paused = false;
        process.incarnation = process.incarnation.wrapping_add(1);
        self.lives[id.0 as usize] = DEAD;
    }
}
