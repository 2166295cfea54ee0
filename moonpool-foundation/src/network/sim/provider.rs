//! [`SimNetworkProvider`]: binds and connects inside a world, as one process.

use std::io;
use std::rc::Rc;

use super::connect::Connecting;
use super::{SimTcpListener, SimTcpStream};
use crate::network::NetworkProvider;
use crate::sim::{ProcessRef, Shared, SimProcess, SimWorld, WeakSimWorld};

/// The simulated network as one process sees it.
///
/// Sockets belong to the process of this provider and die with it. Names of processes resolve to
/// their addresses; loopback addresses reach the process itself.
#[derive(Clone, Debug)]
pub struct SimNetworkProvider {
    world: WeakSimWorld,
    owner: ProcessRef,
}

impl SimWorld {
    /// The network as the world's own process sees it.
    #[must_use]
    pub fn network_provider(&self) -> SimNetworkProvider {
        self.world_process().network_provider()
    }
}

impl SimProcess {
    /// The network as this process sees it, in its current life.
    #[must_use]
    pub fn network_provider(&self) -> SimNetworkProvider {
        SimNetworkProvider {
            world: self.world.clone(),
            owner: self.life(),
        }
    }
}

impl SimNetworkProvider {
    /// The world, or a wait without end in a sealed process: it learns nothing any more.
    async fn world(&self) -> Rc<Shared> {
        match self.world.live(self.owner) {
            Some(world) => world,
            None => std::future::pending().await,
        }
    }
}

impl NetworkProvider for SimNetworkProvider {
    type TcpStream = SimTcpStream;
    type TcpListener = SimTcpListener;

    async fn bind(&self, addr: &str) -> io::Result<SimTcpListener> {
        let (local, ready) = {
            let world = self.world().await;
            let local = world.with(|world| world.resolve(addr))?;
            let latency = world.with(|world| world.bind_latency(self.owner));
            (local, world.sleep(self.owner, latency))
        };
        ready.await;
        let world = self.world().await;
        let (id, local) = world.with(|world| world.bind(self.owner, local))?;
        Ok(SimTcpListener::new(
            self.world.clone(),
            self.owner,
            id,
            local,
        ))
    }

    async fn connect(&self, addr: &str) -> io::Result<SimTcpStream> {
        let connecting = {
            let world = self.world().await;
            let remote = world.with(|world| world.resolve(addr))?;
            let attempt = world.with(|world| world.start_connect(self.owner, remote))?;
            Connecting::new(self.world.clone(), self.owner, attempt, remote)
        };
        connecting.await
    }
}
