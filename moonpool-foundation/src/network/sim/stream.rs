//! [`SimTcpStream`]: one end of a simulated connection.
//!
//! Logged, each with the connection's number: reads and writes at `trace`; their failures, and what
//! faults do to the connection, at `debug`; that it was established or closed at `info`.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::network::TcpStreamTrait;
use crate::sim::{Asked, ConnectionId, Outgoing, ProcessRef, Shared, Side, WeakSimWorld, World};
use crate::wait::{self, WaitReason};

/// One end of a simulated TCP connection.
///
/// Dropping it sends FIN after the bytes that were accepted, or RST if received bytes were left
/// unread, as Linux does.
#[derive(Debug)]
pub struct SimTcpStream {
    world: WeakSimWorld,
    owner: ProcessRef,
    id: ConnectionId,
    side: Side,
    remote: SocketAddr,
}

/// What an operation waits for at the other end.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Read,
    Write,
}

impl Wait {
    fn on(self, remote: SocketAddr) -> WaitReason {
        match self {
            Self::Read => WaitReason::Read { remote },
            Self::Write => WaitReason::Write { remote },
        }
    }
}

impl SimTcpStream {
    pub(super) fn new(
        world: WeakSimWorld,
        owner: ProcessRef,
        id: ConnectionId,
        side: Side,
        remote: SocketAddr,
    ) -> Self {
        let connection = id.number();
        tracing::info!(connection, ?side, %remote, "connection established");
        Self {
            world,
            owner,
            id,
            side,
            remote,
        }
    }

    #[inline]
    fn log(&self, operation: &'static str, result: Result<usize, &io::Error>) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            self.log_to_somebody(operation, result);
        }
    }

    #[cold]
    fn log_to_somebody(&self, operation: &'static str, result: Result<usize, &io::Error>) {
        let (connection, side) = (self.id.number(), self.side);
        match result {
            Ok(bytes) => tracing::trace!(connection, ?side, bytes, "{operation}"),
            Err(error) => tracing::debug!(connection, ?side, %error, "{operation} fails"),
        }
    }

    /// Asks the world for what is done at this end: pending if that has to wait, as `wait` says. In a world that is
    /// gone, and in a sealed process, everything waits for ever.
    #[inline]
    fn ask<T>(
        &self,
        wait: Wait,
        waker: &Waker,
        ask: impl FnOnce(&mut World, (ConnectionId, Side)) -> Asked<T>,
    ) -> Poll<T> {
        let Some(shared) = self.world.upgrade() else {
            return Poll::Pending;
        };
        let end = (self.id, self.side);
        match shared.with_live(self.owner, |world| ask(world, end)) {
            Some(Asked::Ready(result)) => return Poll::Ready(result),
            None | Some(Asked::Noted) => {}
            Some(Asked::Parked) => wait::note(wait.on(self.remote)),
            Some(Asked::Park) => self.park(&shared, wait, waker),
        }
        Poll::Pending
    }

    #[cold]
    fn park(&self, shared: &Shared, wait: Wait, waker: &Waker) {
        let waker = shared.register(waker);
        let replaced = shared.with(|world| match wait {
            Wait::Read => world.park_reader(self.id, self.side, waker),
            Wait::Write => world.park_writer(self.id, self.side, waker),
        });
        drop(replaced);
        wait::note(wait.on(self.remote));
    }

    #[inline]
    fn write(&self, cx: &mut Context<'_>, bytes: impl Outgoing) -> Poll<io::Result<usize>> {
        let (waker, reason) = (cx.waker(), || Wait::Write.on(self.remote));
        let asked = self.ask(Wait::Write, waker, |world, end| {
            world.write(end, bytes, waker, reason)
        });
        if let Poll::Ready(result) = &asked {
            self.log("write", result.as_ref().copied());
        }
        asked
    }

    fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        self.world
            .upgrade()
            .and_then(|world| world.with(|world| world.addresses(self.id, self.side)))
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for SimTcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let (waker, reason) = (cx.waker(), || Wait::Read.on(self.remote));
        let asked = self.ask(Wait::Read, waker, |world, end| {
            world.read(end, buffer, waker, reason)
        });
        if let Poll::Ready(result) = &asked {
            let read = result.as_ref().map(|()| buffer.filled().len() - before);
            self.log("read", read);
        }
        asked
    }
}

impl AsyncWrite for SimTcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.world.live(self.owner) {
            Some(world) => Poll::Ready(world.with(|world| world.shutdown(self.id, self.side))),
            None => Poll::Pending,
        }
    }
}

impl TcpStreamTrait for SimTcpStream {
    fn local_addr(&self) -> io::Result<String> {
        self.addresses().map(|(local, _)| local.to_string())
    }

    fn peer_addr(&self) -> io::Result<String> {
        let connected = self
            .world
            .upgrade()
            .is_some_and(|world| world.with(|world| world.is_connected(self.id, self.side)));
        if !connected {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.addresses().map(|(_, remote)| remote.to_string())
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (waker, reason) = (cx.waker(), || Wait::Read.on(self.remote));
        self.ask(Wait::Read, waker, |world, end| {
            world.await_bytes(end, waker, reason)
        })
    }

    /// Simulated sockets always send at once: this has no effect.
    fn set_nodelay(&self, _nodelay: bool) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SimTcpStream {
    fn drop(&mut self) {
        if let Some(world) = self.world.live(self.owner) {
            let (connection, side) = (self.id.number(), self.side);
            tracing::info!(connection, ?side, "connection closed");
            drop(world.with(|world| world.close_end(self.id, self.side)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::network::{NetworkProvider, TcpListenerTrait, TcpStreamTrait};
    use crate::sim::SimWorld;
    use crate::{Providers, TimeProvider};

    #[test]
    fn a_stream_that_was_reset_is_readable_so_that_its_reader_learns_of_it() {
        let world = SimWorld::new();
        let [server, client] = ["server", "client"].map(|name| world.add_process(name).providers());
        let end = world.block_on(async move {
            let listener = server.network().bind("server:80").await.unwrap();
            let mut dialled = client.network().connect("server:80").await.unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            dialled.write_all(b"never read").await.unwrap();
            let time = client.time();
            time.sleep(std::time::Duration::from_secs(1)).await;
            drop(accepted);
            time.sleep(std::time::Duration::from_secs(1)).await;
            poll_fn(|cx| dialled.poll_readable(cx)).await;
            dialled.read_u8().await.map_err(|error| error.kind())
        });
        assert_eq!(end.unwrap(), Err(std::io::ErrorKind::ConnectionReset));
    }
}
