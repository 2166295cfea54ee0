//! Tokens, addresses and endpoints.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A 128-bit token: names an endpoint, an incarnation, a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UID {
    /// The upper half; `u64::MAX` marks a well-known token.
    pub first: u64,
    /// The lower half.
    pub second: u64,
}

impl UID {
    /// The token with these halves.
    #[must_use]
    pub const fn new(first: u64, second: u64) -> Self {
        Self { first, second }
    }

    /// A random token from the ambient stream.
    #[must_use]
    pub fn random() -> Self {
        Self::new(crate::ambient::random_u64(), crate::ambient::random_u64())
    }
}

impl fmt::Display for UID {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.first, self.second)
    }
}

/// An IP address, a port and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkAddress {
    /// The host.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// `FLAG_TLS`, `FLAG_PUBLIC`.
    pub flags: u16,
}

/// Where a message goes: a process's address and a token there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The process.
    pub address: NetworkAddress,
    /// The receiver in it.
    pub token: UID,
}
