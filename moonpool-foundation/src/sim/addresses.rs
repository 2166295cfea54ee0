//! Addresses of the simulated network: what a name means, and which port is free.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::digest::Digest;
use super::rng::{Stream, StreamId};
use super::world::World;
use crate::network::NetworkConfiguration;

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

/// What addresses a network address translator shows in place of the dialer's, if there is one.
#[derive(Debug)]
pub(super) struct Translator(Option<Stream>);

/// 100.64.0.0/10: shared address space (RFC 6598), of which the lower 22 bits are free.
const TRANSLATED_V4: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
const FREE_V4: u32 = (1 << 22) - 1;
/// 2001:db8::/32: for documentation (RFC 3849).
const TRANSLATED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
const FREE_V6: u128 = (1 << 96) - 1;
/// As FoundationDB's `Sim2Listener::incoming` has it: the dialer's address and up to this much more.
const MAX_OFFSET: u32 = 255;
const TRANSLATED_PORTS: std::ops::RangeInclusive<u16> = 40_000..=60_000;

/// Whether a translator may show `ip`: no host has it.
pub(super) fn is_translated(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.to_bits() & !FREE_V4 == TRANSLATED_V4.to_bits(),
        IpAddr::V6(v6) => v6.to_bits() & !FREE_V6 == TRANSLATED_V6.to_bits(),
    }
}

impl Translator {
    pub(super) fn new(seed: u64, config: &NetworkConfiguration) -> Self {
        let stream = || Stream::new(seed, StreamId::DisplayedAddress);
        Self(config.nat_addresses.then(stream))
    }

    /// What an acceptor sees of a dialer at `local`.
    pub(super) fn displayed(&mut self, local: SocketAddr, digest: &mut Digest) -> SocketAddr {
        let Some(stream) = &mut self.0 else {
            return local;
        };
        if local.ip().is_loopback() {
            return local;
        }
        let offset = stream.below(MAX_OFFSET + 1, digest);
        let ports = u32::from(TRANSLATED_PORTS.end() - TRANSLATED_PORTS.start()) + 1;
        let port = stream.below(ports, digest);
        let port = TRANSLATED_PORTS.start() + u16::try_from(port).unwrap_or(0);
        let ip = match local.ip() {
            IpAddr::V4(v4) => {
                let free = v4.to_bits().wrapping_add(offset) & FREE_V4;
                IpAddr::from(Ipv4Addr::from_bits(TRANSLATED_V4.to_bits() | free))
            }
            IpAddr::V6(v6) => {
                let free = v6.to_bits().wrapping_add(u128::from(offset)) & FREE_V6;
                IpAddr::from(Ipv6Addr::from_bits(TRANSLATED_V6.to_bits() | free))
            }
        };
        SocketAddr::new(ip, port)
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
