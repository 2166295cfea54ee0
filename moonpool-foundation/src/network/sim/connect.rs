//! The future of a simulated connect.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::SimTcpStream;
use crate::sim::{Asked, AttemptId, ProcessRef, Side, WeakSimWorld};
use crate::wait::{self, WaitReason};

/// Waits for a connect's answer. Dropping it gives the attempt up.
#[derive(Debug)]
pub(super) struct Connecting {
    world: WeakSimWorld,
    owner: ProcessRef,
    attempt: Option<AttemptId>,
    remote: SocketAddr,
}

impl Connecting {
    pub(super) fn new(
        world: WeakSimWorld,
        owner: ProcessRef,
        attempt: AttemptId,
        remote: SocketAddr,
    ) -> Self {
        Self {
            world,
            owner,
            attempt: Some(attempt),
            remote,
        }
    }
}

impl Future for Connecting {
    type Output = io::Result<SimTcpStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (Some(world), Some(attempt)) = (self.world.live(self.owner), self.attempt) else {
            return Poll::Pending;
        };
        match world.with(|world| world.ask_attempt(attempt, cx.waker())) {
            Asked::Ready(answer) => {
                self.attempt = None;
                if let Err(error) = &answer {
                    let connect = attempt.number();
                    tracing::debug!(connect, remote = %self.remote, %error, "connect fails");
                }
                return Poll::Ready(answer.map(|connection| {
                    SimTcpStream::new(
                        self.world.clone(),
                        self.owner,
                        connection,
                        Side::Dialer,
                        self.remote,
                    )
                }));
            }
            Asked::Noted | Asked::Parked => {}
            Asked::Park => {
                let waker = world.register(cx.waker());
                drop(world.with(|world| world.park_attempt(attempt, waker)));
            }
        }
        wait::note(WaitReason::Connect {
            remote: self.remote,
        });
        Poll::Pending
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let (Some(attempt), Some(world)) = (self.attempt, self.world.upgrade()) {
            drop(world.with(|world| world.cancel_connect(attempt)));
        }
    }
}
