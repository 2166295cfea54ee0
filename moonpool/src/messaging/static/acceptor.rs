//! The task that accepts connections.

use std::rc::{Rc, Weak};
use std::time::Duration;

use moonpool_foundation::network::peer::{Peer, PeerConfig, PeerSink};
use moonpool_foundation::{NetworkProvider, TaskProvider, TcpListenerTrait, TimeProvider};

use super::core::Core;
use super::flow_transport::session_mode;

/// How long accepting pauses after a failure. The usual cause is that the process has no file
/// descriptors left, and then the next attempt fails at once too.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Turns accepted connections into peers of a transport.
pub(crate) struct Acceptor<L, T, TP> {
    pub(crate) listener: L,
    pub(crate) core: Weak<Core>,
    pub(crate) sink: Rc<dyn PeerSink>,
    pub(crate) time: T,
    pub(crate) task: TP,
    pub(crate) peer_config: PeerConfig,
    pub(crate) max_connections: usize,
}

impl<L, T, TP> Acceptor<L, T, TP>
where
    L: TcpListenerTrait,
    T: TimeProvider,
    TP: TaskProvider,
{
    /// Accepts until the transport closes.
    pub(crate) async fn run<N>(self)
    where
        N: NetworkProvider<TcpListener = L, TcpStream = L::TcpStream>,
    {
        loop {
            let accepted = self.listener.accept().await;
            let Some(core) = self.core.upgrade().filter(|core| core.is_open()) else {
                return;
            };
            match accepted {
                Ok((stream, address)) => self.adopt::<N>(&core, stream, address),
                Err(error) => {
                    core.counters.accept_errors.add();
                    drop(core);
                    tracing::warn!(%error, "accepting a connection failed");
                    self.time.sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn adopt<N>(&self, core: &Core, stream: L::TcpStream, address: String)
    where
        N: NetworkProvider<TcpListener = L, TcpStream = L::TcpStream>,
    {
        let incoming = {
            let peers = core.peers.borrow();
            peers.len() - peers.dialled_len()
        };
        if incoming >= self.max_connections {
            core.counters.accept_refused.add();
            tracing::warn!(%address, limit = self.max_connections, "too many connections");
            return;
        }
        core.counters.accepted.add();
        let id = core.peers.borrow_mut().next_id();
        tracing::debug!(%address, %id, "accepted a connection");
        let peer = Peer::<N, T, TP>::incoming_with_sink(
            stream,
            address,
            self.time.clone(),
            self.task.clone(),
            self.peer_config.clone(),
            session_mode(core),
            id,
            self.sink.clone(),
        );
        let handle = peer.handle().clone();
        core.peers.borrow_mut().insert(handle, None, Box::new(peer));
    }
}
