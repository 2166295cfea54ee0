//! The simulator's core: one seed, one clock, one event queue, one executor.
//!
//! [`SimWorld`] owns all of it. Application code never names it: it holds providers, whose calls
//! end here.

mod addresses;
mod ambient_rng;
mod breakage;
mod clock;
mod clocks;
mod connections;
mod context;
mod delivery;
mod digest;
mod drive;
mod events;
mod executor;
mod fault_log;
mod faults;
mod heal;
mod join;
mod lifecycle;
mod process;
mod random_config;
mod rng;
mod sim_world;
mod slab;
mod sleep;
mod trace;
mod wakes;
mod world;

pub(crate) use connections::{Asked, AttemptId, ConnectionId, ListenerId, Side};
pub(crate) use context::{current, world as driven_world};
pub(crate) use events::EventClass;
pub(crate) use join::JoinState;
pub(crate) use process::ProcessRef;
pub(crate) use rng::{Draws, inert_draws};
pub(crate) use slab::Key as AcceptorId;
pub(crate) use world::Shared;

pub use ambient_rng::{
    get_current_sim_seed, reset_sim_rng, set_sim_seed, sim_random, sim_random_range,
    sim_random_range_or_default,
};
pub use breakage::SimConnection;
pub use connections::Side as ConnectionSide;
pub use executor::{PendingTask, SchedulePolicy};
pub use process::{KillKind, ProcessId};
pub use sim_world::{Leftovers, SimProcess, SimWorld};
pub use sleep::SleepFuture;
pub use trace::{TraceMode, TraceStep};
pub use world::WeakSimWorld;
