//! The network: provider traits, their real and simulated implementations, and [`Peer`](peer::Peer).

pub mod peer;
#[cfg(feature = "sim")]
pub mod sim;
pub mod tokio;
mod traits;

pub use traits::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
