//! stub
mod ambient;
pub mod collections;
mod error;
pub mod messaging;
pub mod network;
mod providers;
pub mod random;
mod select;
#[cfg(feature = "sim")]
pub mod sim;
pub mod task;
pub mod time;
pub mod wait;

pub use error::{SimulationError, SimulationResult};
pub use messaging::{Endpoint, NetworkAddress, UID};
pub use messaging::{
    HEADER_SIZE, MAX_PAYLOAD_SIZE, PacketHeader, WELL_KNOWN_RESERVED_COUNT, WellKnownId,
    WellKnownToken, WireError, deserialize_packet, serialize_packet, try_deserialize_packet,
};
pub use network::peer::{
    CloseOutcome, ConnectionError, PacketId, Peer, PeerConfig, PeerConfigError, PeerError,
    PeerHandle, PeerId, PeerMetrics, PeerSink, ProtocolError, ReceivedPacket, SendError,
    SessionEnded, SessionIdentity, SessionMode,
};
pub use network::tokio::TokioNetworkProvider;
pub use network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
pub use providers::{Providers, TokioProviders};
pub use random::{RandomProvider, SystemRandomProvider};
pub use task::{JoinError, TaskHandle, TaskProvider, TokioJoinHandle, TokioTaskProvider};
pub use time::{Elapsed, TimeProvider, Timeout, TokioTimeProvider};

#[cfg(feature = "sim")]
pub use network::sim::{SimNetworkProvider, SimTcpListener, SimTcpStream};
#[cfg(feature = "sim")]
pub use network::{LatencyModel, NetworkConfigError, NetworkConfiguration};
#[cfg(feature = "sim")]
pub use providers::SimProviders;
#[cfg(feature = "sim")]
pub use random::SimRandomProvider;
#[cfg(feature = "sim")]
pub use sim::{
    KillKind, Leftovers, PendingTask, ProcessId, SchedulePolicy, SimProcess, SimWorld, SleepFuture,
    TraceMode, TraceStep, WeakSimWorld, get_current_sim_seed, reset_sim_rng, set_sim_seed,
    sim_random, sim_random_range, sim_random_range_or_default,
};
#[cfg(feature = "sim")]
pub use task::{SimJoinHandle, SimTaskProvider};
#[cfg(feature = "sim")]
pub use time::SimTimeProvider;

/// What the macros expand to. Not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::select::select_start;
    pub use tokio;
}
