//! The network: provider traits, their real and simulated implementations, and [`Peer`](peer::Peer).

#[cfg(feature = "sim")]
mod config;
#[cfg(feature = "sim")]
mod latency;
pub mod peer;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tokio;
mod traits;

#[cfg(feature = "sim")]
pub use config::{LatencyModel, NetworkConfigError, NetworkConfiguration};
pub use traits::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
