//! The simulator's core: one seed, one clock, one event queue, one executor.
//!
//! [`SimWorld`] owns all of it. Application code never names it: it holds providers, whose calls
//! end here.

mod addresses;
mod ambient_rng;
mod attrition;
mod breakage;
mod byte_queue;
mod chance;
mod chances;
mod checks;
mod chunks;
mod clock;
mod clocks;
mod clogs;
mod closing;
mod connection;
mod connections;
mod context;
mod delivery;
mod digest;
mod drive;
mod event;
mod events;
mod executor;
mod fault_draws;
mod fault_log;
mod fault_scripts;
mod faults;
mod heal;
mod healing;
mod io_faults;
mod join;
mod lifecycle;
mod links;
mod near;
mod network_faults;
mod notices;
mod parking;
mod pending;
mod pipe;
mod polling;
mod process;
mod queue_probe;
mod random_config;
mod ready;
mod recycle;
mod remains;
mod rng;
mod roster;
mod segment_queue;
mod segments;
mod sim_world;
mod slab;
mod sleep;
mod steps;
mod task_entry;
mod trace;
mod turns;
mod wakes;
mod world;

pub(crate) use checks::SiteCounts;
pub(crate) use connections::{Asked, AttemptId, ConnectionId, ListenerId, Side};
pub(crate) use context::{current, world as driven_world};
pub(crate) use events::EventClass;
pub(crate) use join::JoinState;
pub(crate) use pipe::Outgoing;
pub(crate) use process::ProcessRef;
pub(crate) use rng::{Draws, inert_draws};
pub(crate) use slab::Key as AcceptorId;
pub(crate) use wakes::TaskRole;
pub(crate) use world::{Shared, World};

pub use ambient_rng::{
    get_current_sim_seed, reset_sim_rng, set_sim_seed, sim_random, sim_random_range,
    sim_random_range_or_default,
};
pub use breakage::{CloseReason, SimConnection};
pub use connections::Side as ConnectionSide;
pub use executor::SchedulePolicy;
pub use fault_scripts::{
    clog_random_pair, disconnect_pair_for, enable_connection_failures, swizzle,
};
pub use faults::CloseDirection;
pub use network_faults::Host;
pub use pending::PendingTask;
pub use process::{KillKind, ProcessAddressError, ProcessId};
#[doc(hidden)]
pub use queue_probe::QueueProbe;
pub use sim_world::{Leftovers, SimProcess, SimWorld};
pub use sleep::SleepFuture;
pub use trace::{TraceMode, TraceStep};
pub use world::WeakSimWorld;
