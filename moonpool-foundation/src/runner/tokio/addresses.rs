//! Addresses of workloads on the loopback interface, distinct from those of every other run.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Held at the first address of a block while its addresses are in use.
const LEASE_PORT: u16 = 61_001;
/// Blocks of 256 addresses: 127.64.0.0 to 127.127.255.255.
const BLOCKS: u32 = 1 << 14;
/// Blocks that are tried before giving up.
const MAX_TRIES: u32 = 1 << 10;
const FIRST_BLOCK: Ipv4Addr = Ipv4Addr::new(127, 64, 0, 0);

/// Begins where other processes probably do not; then each run in this process takes the next.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Addresses that are this run's until dropped.
#[derive(Debug)]
pub(super) enum Block {
    /// From `first` + 1 upward. The listener keeps others away.
    Own {
        first: Ipv4Addr,
        _lease: TcpListener,
    },
    /// The system has no other than 127.0.0.1.
    Shared,
}

/// A workload's name and address.
#[derive(Clone, Debug)]
pub(super) struct Host {
    name: String,
    ip: IpAddr,
}

impl Host {
    /// Name and address as text.
    pub(super) fn entry(&self) -> (String, String) {
        (self.name.clone(), self.ip.to_string())
    }
}

impl Block {
    /// A block for `hosts` addresses that nobody else has.
    pub(super) fn reserve(hosts: usize) -> io::Result<Self> {
        if hosts > 254 {
            return Err(io::Error::other("a run has at most 254 workloads"));
        }
        for _ in 0..MAX_TRIES {
            let turn = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = std::process::id().wrapping_mul(97).wrapping_add(turn) % BLOCKS;
            let first = Ipv4Addr::from_bits(FIRST_BLOCK.to_bits() + (number << 8));
            match TcpListener::bind((first, LEASE_PORT)) {
                Ok(lease) => {
                    return Ok(Self::Own {
                        first,
                        _lease: lease,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Ok(Self::Shared);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(
            "every block of loopback addresses is taken",
        ))
    }

    /// An address for each name.
    pub(super) fn hosts<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Host> {
        let numbered = (1..).zip(names);
        let hosts = numbered.map(|(number, name)| Host {
            name: name.to_owned(),
            ip: match self {
                Self::Own { first, .. } => Ipv4Addr::from_bits(first.to_bits() + number).into(),
                Self::Shared => Ipv4Addr::LOCALHOST.into(),
            },
        });
        hosts.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_at_once_have_no_address_in_common() {
        let (one, other) = (Block::reserve(2).unwrap(), Block::reserve(2).unwrap());
        let ips = |block: &Block| {
            let hosts = block.hosts(["a", "b"].into_iter());
            hosts.iter().map(|host| host.ip).collect::<Vec<_>>()
        };
        if matches!(one, Block::Shared) {
            return;
        }
        let (one, other) = (ips(&one), ips(&other));
        assert_ne!(one[0], one[1]);
        assert_ne!(other[0], other[1]);
        assert!(one.iter().all(|ip| ip.is_loopback() && !other.contains(ip)));
    }
}
