//! Addresses of the simulated network: what a name means, and which port is free.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::world::World;

/// Linux's range of ephemeral ports.
const EPHEMERAL_PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// The ephemeral ports of one process.
#[derive(Debug)]
pub(super) struct Ports {
    next: u16,
    used: BTreeSet<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            next: *EPHEMERAL_PORTS.start(),
            used: BTreeSet::new(),
        }
    }
}

impl Ports {
    /// The next free port, in turn, so that a port rests before it is used again.
    pub(super) fn take(&mut self, is_bound: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in EPHEMERAL_PORTS {
            let port = self.next;
            self.next = if port == *EPHEMERAL_PORTS.end() {
                *EPHEMERAL_PORTS.start()
            } else {
                port + 1
            };
            if !is_bound(port) && self.used.insert(port) {
                return Some(port);
            }
        }
        None
    }

    pub(super) fn release(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

/// Whether a listener on `bound` is reached at `dialled`, which is no wildcard. As on Linux, `[::]`
/// takes IPv4 as well, and `0.0.0.0` takes nothing else.
pub(super) fn is_reached(bound: IpAddr, dialled: IpAddr) -> bool {
    bound == dialled || (bound.is_unspecified() && (bound.is_ipv6() || dialled.is_ipv4()))
}

/// Whether there cannot be a listener on each of two addresses, on one port.
pub(super) fn collide(one: IpAddr, other: IpAddr) -> bool {
    is_reached(one, other) || is_reached(other, one)
}

/// What a connect to `dialled` goes to: Linux takes a wildcard for the loopback address.
pub(super) fn destination(dialled: IpAddr) -> IpAddr {
    match dialled {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

fn invalid(addr: &str, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}: `{addr}`"))
}

impl World {
    /// The socket address that `addr` names: `ip:port`, `[v6]:port` or `name:port`.
    pub(crate) fn resolve(&self, addr: &str) -> io::Result<SocketAddr> {
        if let Ok(parsed) = addr.parse() {
            return Ok(parsed);
        }
        let Some((host, port)) = addr.rsplit_once(':') else {
            return Err(invalid(addr, "invalid socket address"));
        };
        let port = port
            .parse()
            .map_err(|_not_a_number| invalid(addr, "invalid port value"))?;
        if host == "localhost" {
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        match self.processes.by_name(host) {
            Some(process) => Ok(SocketAddr::new(self.processes.get(process).ip, port)),
            None => Err(io::Error::other(format!(
                "failed to look up address information: no process is named `{host}`"
            ))),
        }
    }
}
