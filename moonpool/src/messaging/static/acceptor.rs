//! The task that accepts connections.

use std::rc::{Rc, Weak};
use std::time::Duration;

use moonpool_foundation::network::peer::{
    Acceptance, PacketId, Peer, PeerHandle, PeerId, SessionAcceptor, SessionOwner,
};
use moonpool_foundation::{
    NetworkAddress, NetworkProvider, TaskProvider, TcpListenerTrait, TimeProvider,
    buggify_with_prob,
};

use super::core::Core;

/// How long accepting pauses after a failure. The usual cause is that the process has no file
/// descriptors left, and then the next attempt fails at once too.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Accepts a transport's connections.
pub(crate) struct Acceptor<N: NetworkProvider, T: TimeProvider, TP: TaskProvider> {
    pub(crate) listener: N::TcpListener,
    pub(crate) core: Weak<Core>,
    pub(crate) sessions: Rc<SessionAcceptor<N, T, TP>>,
    pub(crate) time: T,
}

impl<N, T, TP> Acceptor<N, T, TP>
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// Accepts until the transport closes.
    pub(crate) async fn run(self) {
        loop {
            let accepted = self.listener.accept().await;
            let Some(core) = self.core.upgrade().filter(|core| core.is_open()) else {
                return;
            };
            match accepted {
                Ok((stream, address)) => self.adopt(&core, stream, address),
                Err(error) => {
                    core.counters.accept_errors.add();
                    drop(core);
                    tracing::warn!(%error, "accepting a connection failed");
                    self.time.sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn adopt(&self, core: &Core, stream: N::TcpStream, address: String) {
        if buggify_with_prob!(0.05) {
            // As if the host had run out of sockets.
            return;
        }
        match self.sessions.accept(stream, address) {
            Acceptance::Greeted => {}
            Acceptance::GreetedForOldest => core.counters.handshakes_evicted.add(),
            Acceptance::Refused => {
                core.counters.accept_refused.add();
                warn_of(
                    self.sessions.connections(),
                    core.counters.accept_refused.count(),
                );
                return;
            }
        }
        core.counters.accepted.add();
    }
}

/// Puts the peers of accepted sessions into the transport's table.
pub(crate) struct AcceptedPeers(pub(crate) Weak<Core>);

impl<N, T, TP> SessionOwner<N, T, TP> for AcceptedPeers
where
    N: NetworkProvider,
    T: TimeProvider,
    TP: TaskProvider,
{
    fn next_id(&self) -> PeerId {
        let core = self.0.upgrade();
        core.map_or_else(PeerId::default, |core| core.peers.borrow_mut().next_id())
    }

    fn adopt(&self, peer: Peer<N, T, TP>, serves: Option<NetworkAddress>) {
        let Some(core) = self.0.upgrade().filter(|core| core.is_open()) else {
            return;
        };
        let handle = peer.handle().clone();
        tracing::debug!(target: "moonpool::peer", peer = handle.peer_name(), "session begins");
        let mut peers = core.peers.borrow_mut();
        peers.insert(&handle, serves.as_ref(), false, Box::new(peer));
    }

    fn evict(&self, peer: PeerId) {
        if let Some(core) = self.0.upgrade() {
            core.handle_finished(peer);
        }
    }

    fn pass_over(&self, from: PeerId, to: &PeerHandle, packets: Vec<(PacketId, PacketId)>) {
        if let Some(core) = self.0.upgrade() {
            core.handle_passed_over(from, to, &packets);
        }
    }
}

/// The first, the second, the fourth ..: whoever connects in a loop fills no log.
fn warn_of(connections: usize, refused: u64) {
    if refused.is_power_of_two() {
        tracing::warn!(target: "moonpool::peer", connections, refused, "too many connections");
    }
}
