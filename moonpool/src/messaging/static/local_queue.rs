//! The messages of a transport to itself: one FIFO, emptied by one task in a turn of its own.
//!
//! The detour makes a local call behave like a remote one. Nothing of the receiver runs inside the
//! sender's call, so a receiver may send, register and shut down at any depth without recursion.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use moonpool_foundation::UID;

/// Pure: the owner wakes and drops what is handed out.
#[derive(Debug, Default)]
pub(crate) struct LocalQueue {
    packets: VecDeque<(UID, Bytes)>,
    bytes: usize,
    waker: Option<Waker>,
}

impl LocalQueue {
    pub(crate) fn len(&self) -> usize {
        self.packets.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues a packet and gives the waker of the task that empties the queue.
    pub(crate) fn push(&mut self, token: UID, packet: Bytes) -> Option<Waker> {
        self.bytes += packet.len();
        self.packets.push_back((token, packet));
        self.waker.take()
    }

    pub(crate) fn pop(&mut self) -> Option<(UID, Bytes)> {
        let (token, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some((token, packet))
    }

    /// Notes whom the next push wakes; the one noted before is for the caller to drop.
    pub(crate) fn wait(&mut self, waker: &Waker) -> Option<Waker> {
        self.waker.replace(waker.clone())
    }

    /// Forgets all packets and gives the waker.
    pub(crate) fn clear(&mut self) -> Option<Waker> {
        self.packets.clear();
        self.bytes = 0;
        self.waker.take()
    }
}
