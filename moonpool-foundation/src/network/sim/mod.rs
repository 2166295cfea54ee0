//! The simulated network behind the provider traits.

mod connect;
mod listener;
mod provider;
mod stream;

pub use listener::SimTcpListener;
pub use provider::SimNetworkProvider;
pub use stream::SimTcpStream;
