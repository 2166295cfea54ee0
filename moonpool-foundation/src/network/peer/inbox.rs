//! Where a bare peer keeps what arrived until it is asked for.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use bytes::Bytes;

use crate::buggify;
use crate::messaging::UID;

use super::kept_payloads::KeptPayloads;
use super::packet::{ReceivedPacket, SessionEnded};
use super::waiters::Waiters;

/// Reports that are kept; older ones are forgotten and counted.
const MAX_REPORTS: usize = 64;

#[derive(Debug)]
pub(super) struct Inbox {
    limit: usize,
    packets: RefCell<VecDeque<(UID, Bytes)>>,
    kept: RefCell<KeptPayloads>,
    reports: RefCell<VecDeque<SessionEnded>>,
    forgotten: Cell<u64>,
    is_ended: Cell<bool>,
    arrived: Waiters,
}

/// What the inbox has to say to one who waits.
#[derive(Debug)]
pub(super) enum Taken {
    Packet {
        token: UID,
        payload: Bytes,
        made_room: bool,
    },
    Ended,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            // One packet at a time: the peer stops reading after each.
            limit: if buggify!() { 1 } else { limit },
            packets: RefCell::default(),
            kept: RefCell::default(),
            reports: RefCell::default(),
            forgotten: Cell::new(0),
            is_ended: Cell::new(false),
            arrived: Waiters::default(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    pub(super) fn len(&self) -> usize {
        self.packets.borrow().len()
    }

    pub(super) fn push(&self, packet: ReceivedPacket<'_>) {
        let payload = self.kept.borrow_mut().keep(&packet, packet.payload);
        self.packets.borrow_mut().push_back((packet.token, payload));
        self.arrived.wake_all();
    }

    /// The oldest packet, or that none will come; `None` if one may.
    pub(super) fn take(&self) -> Option<Taken> {
        let was_full = self.is_full();
        let packet = self.packets.borrow_mut().pop_front();
        match packet {
            Some((token, payload)) => Some(Taken::Packet {
                token,
                payload,
                made_room: was_full,
            }),
            None => self.is_ended.get().then_some(Taken::Ended),
        }
    }

    /// Waits for [`take`](Self::take) to give something.
    pub(super) async fn wait(&self) -> Taken {
        self.arrived.until(|| self.take()).await
    }

    pub(super) fn push_report(&self, report: SessionEnded) {
        let mut reports = self.reports.borrow_mut();
        if reports.len() >= MAX_REPORTS {
            reports.pop_front();
            self.forgotten.set(self.forgotten.get() + 1);
        }
        reports.push_back(report);
    }

    pub(super) fn take_report(&self) -> Option<SessionEnded> {
        self.reports.borrow_mut().pop_front()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.get()
    }

    /// Nothing more will arrive.
    pub(super) fn end(&self) {
        self.is_ended.set(true);
        self.arrived.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_packet_does_not_keep_a_large_block() {
        let inbox = Inbox::new(1);
        let block = Bytes::from(vec![7; 128 * 1024]);
        let token = UID::new(1, 1);
        let packet = ReceivedPacket::new(token, &block[..9], true, &block, block.len());
        inbox.push(packet);
        let Some(Taken::Packet { payload, .. }) = inbox.take() else {
            unreachable!("it was pushed");
        };
        assert_eq!(payload[..], [7; 9]);
        assert!(!block.as_ptr_range().contains(&payload.as_ptr()), "a copy");
    }
}
