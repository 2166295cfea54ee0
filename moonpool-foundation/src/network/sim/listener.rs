//! [`SimTcpListener`]: hands out connections that arrived, after the latency of an accept.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::SimTcpStream;
use crate::network::TcpListenerTrait;
use crate::sim::{AcceptorId, ListenerId, ProcessRef, Side, SleepFuture, WeakSimWorld};
use crate::wait::{self, WaitReason};

/// A bound listener of a simulated process. Dropping it unbinds it and resets the connections that
/// nobody accepted.
#[derive(Debug)]
pub struct SimTcpListener {
    world: WeakSimWorld,
    owner: ProcessRef,
    id: ListenerId,
    local: SocketAddr,
}

impl SimTcpListener {
    pub(super) fn new(
        world: WeakSimWorld,
        owner: ProcessRef,
        id: ListenerId,
        local: SocketAddr,
    ) -> Self {
        tracing::info!(%local, "listener bound");
        Self {
            world,
            owner,
            id,
            local,
        }
    }
}

impl TcpListenerTrait for SimTcpListener {
    type TcpStream = SimTcpStream;

    fn accept(&self) -> impl Future<Output = io::Result<(SimTcpStream, String)>> {
        Accept {
            listener: self,
            acceptor: None,
            latency: None,
        }
    }

    fn local_addr(&self) -> io::Result<String> {
        Ok(self.local.to_string())
    }
}

impl Drop for SimTcpListener {
    fn drop(&mut self) {
        if let Some(world) = self.world.live(self.owner) {
            tracing::info!(local = %self.local, "listener closed");
            world.with(|world| world.close_listener(self.id));
        }
    }
}

/// Waits for a connection, then for the accept's latency, then takes it. A connection stays queued
/// until that last moment, so dropping this loses none.
#[derive(Debug)]
struct Accept<'a> {
    listener: &'a SimTcpListener,
    /// Our place among those to be woken by an arrival.
    acceptor: Option<AcceptorId>,
    latency: Option<SleepFuture>,
}

impl Accept<'_> {
    fn poll_latency(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.latency {
            Some(latency) => Pin::new(latency).poll(cx),
            None => Poll::Ready(()),
        }
    }

    fn leave(&mut self) {
        if let (Some(acceptor), Some(world)) = (self.acceptor.take(), self.listener.world.upgrade())
        {
            drop(world.with(|world| world.remove_acceptor(self.listener.id, acceptor)));
        }
    }
}

impl Future for Accept<'_> {
    type Output = io::Result<(SimTcpStream, String)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let listener = self.listener;
        let Some(world) = listener.world.live(listener.owner) else {
            return Poll::Pending;
        };
        loop {
            let has_waited = self.latency.is_some();
            ready!(self.poll_latency(cx));
            self.latency = None;
            if has_waited
                && let Some((connection, remote)) = world.with(|world| world.accept(listener.id))
            {
                self.leave();
                let stream = SimTcpStream::new(
                    listener.world.clone(),
                    listener.owner,
                    connection,
                    Side::Acceptor,
                    remote,
                );
                return Poll::Ready(Ok((stream, remote.to_string())));
            }
            if !world.with(|world| world.has_pending(listener.id)) {
                break;
            }
            let latency = world.with(|world| world.accept_latency(listener.owner));
            self.latency = Some(world.sleep(listener.owner, latency));
        }
        self.leave();
        let waker = world.register(cx.waker());
        self.acceptor = world.with(|world| world.add_acceptor(listener.id, waker));
        wait::note(WaitReason::Accept {
            listener: listener.local,
        });
        Poll::Pending
    }
}

impl Drop for Accept<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}
