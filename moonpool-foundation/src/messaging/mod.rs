//! What travels: tokens, addresses, endpoints, and the packet they are framed in.

mod types;

pub use types::{Endpoint, NetworkAddress, UID};
