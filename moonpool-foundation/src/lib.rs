//! stub
mod ambient;
mod error;
pub mod messaging;
pub mod network;
mod providers;
pub mod random;
pub mod task;
pub mod time;
pub mod wait;

pub use error::{SimulationError, SimulationResult};
pub use messaging::{Endpoint, NetworkAddress, UID};
pub use messaging::{
    HEADER_SIZE, MAX_PAYLOAD_SIZE, PacketHeader, WELL_KNOWN_RESERVED_COUNT, WellKnownId,
    WellKnownToken, WireError, deserialize_packet, serialize_packet, try_deserialize_packet,
};
pub use network::tokio::TokioNetworkProvider;
pub use network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
pub use providers::{Providers, TokioProviders};
pub use random::{RandomProvider, SystemRandomProvider};
pub use task::{JoinError, TaskHandle, TaskProvider, TokioJoinHandle, TokioTaskProvider};
pub use time::{Elapsed, TimeProvider, Timeout, TokioTimeProvider};
