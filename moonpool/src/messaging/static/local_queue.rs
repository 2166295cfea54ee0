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
    /// Withdrawn ones leave a hole until their turn.
    packets: VecDeque<Option<(UID, Bytes)>>,
    /// The number of the first of them.
    first: u64,
    /// Those that are not withdrawn.
    len: usize,
    bytes: usize,
    waker: Option<Waker>,
}

impl LocalQueue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number that the next packet gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.first + u64::try_from(self.packets.len()).unwrap_or(u64::MAX)
    }

    /// Queues a packet and gives the waker of the task that empties the queue.
    pub(crate) fn push(&mut self, token: UID, packet: Bytes) -> Option<Waker> {
        self.len += 1;
        self.bytes += packet.len();
        self.packets.push_back(Some((token, packet)));
        self.waker.take()
    }

    pub(crate) fn pop(&mut self) -> Option<(UID, Bytes)> {
        loop {
            let popped = self.packets.pop_front()?;
            self.first += 1;
            if let Some((token, packet)) = popped {
                self.len -= 1;
                self.bytes -= packet.len();
                return Some((token, packet));
            }
        }
    }

    /// Takes a packet back. `None`: it had its turn.
    pub(crate) fn withdraw(&mut self, number: u64) -> Option<Bytes> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let (_, packet) = self.packets.get_mut(at)?.take()?;
        self.len -= 1;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Notes whom the next push wakes; the one noted before is for the caller to drop.
    pub(crate) fn wait(&mut self, waker: &Waker) -> Option<Waker> {
        self.waker.replace(waker.clone())
    }

    /// Forgets all packets and gives the waker.
    pub(crate) fn clear(&mut self) -> Option<Waker> {
        self.first = self.next_number();
        self.packets.clear();
        self.len = 0;
        self.bytes = 0;
        self.waker.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: UID = UID::new(1, 1);

    #[test]
    fn a_withdrawn_packet_has_no_turn_and_counts_no_more() {
        let mut queue = LocalQueue::default();
        for text in ["a", "bb", "ccc"] {
            queue.push(TOKEN, Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(queue.withdraw(1).unwrap(), "bb");
        assert_eq!(queue.withdraw(1), None);
        assert_eq!((queue.len(), queue.bytes(), queue.next_number()), (2, 4, 3));
        assert_eq!(queue.pop().unwrap().1, "a");
        assert_eq!(queue.withdraw(0), None, "it had its turn");
        assert_eq!(queue.pop().unwrap().1, "ccc");
        assert_eq!(queue.pop(), None);
        queue.push(TOKEN, Bytes::from_static(b"d"));
        assert_eq!(queue.next_number(), 4);
        queue.clear();
        assert_eq!(queue.next_number(), 4);
        assert_eq!(queue.withdraw(3), None);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }
}
