//! What a client and a server publish, and what they assert on the way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use bytes::Bytes;
use moonpool_foundation::chaos::oracle::{ReceiverLog, SenderLog};
use moonpool_foundation::{
    PeerError, PeerHandle, SessionEnded, StateRegistry, always_assert, sometimes_assert,
};

use crate::{TOKEN, TestMessage};

/// Sends numbered messages, and publishes what was accepted.
pub(crate) struct Sender {
    name: String,
    log: SenderLog,
    accepted: Cell<u64>,
    unreliable: Cell<u64>,
}

impl Sender {
    pub(crate) fn new(registry: &StateRegistry, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            log: SenderLog::new(registry, name),
            accepted: Cell::new(0),
            unreliable: Cell::new(0),
        }
    }

    pub(crate) fn send_reliable(&self, peer: &PeerHandle, padding: usize) {
        let number = self.accepted.get() + 1;
        let message = TestMessage::new(&self.name, number, true, padding);
        match peer.send_reliable(TOKEN, message.to_bytes()) {
            Ok(id) => {
                always_assert!(
                    packet_ids_are_dense,
                    id.get() == number,
                    "the {number}th packet is number {id}"
                );
                self.accepted.set(number);
                self.log.reliable_sent(id);
            }
            Err(PeerError::QueueFull { payload }) => {
                always_assert!(
                    a_full_queue_gives_the_payload_back,
                    payload == message.to_bytes(),
                    "it gave something else"
                );
                sometimes_assert!(queue_was_full, true, "a send was refused");
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn send_unreliable(&self, peer: &PeerHandle, padding: usize) {
        let number = self.unreliable.get() + 1;
        let message = TestMessage::new(&self.name, number, false, padding);
        if peer.send_unreliable(TOKEN, message.to_bytes()).is_ok() {
            self.unreliable.set(number);
            self.log.unreliable_sent(number);
        }
    }

    pub(crate) fn handle_ended(&self, ended: &SessionEnded) {
        sometimes_assert!(
            delivery_became_uncertain,
            !ended.maybe_delivered.is_empty(),
            "packets were reported that may have arrived"
        );
        self.log.session_ended(ended);
    }
}

/// Publishes what arrives.
pub(crate) struct Receiver {
    log: ReceiverLog,
    /// Reliable messages by sender, stream and number.
    seen: RefCell<BTreeSet<(String, u64, u64)>>,
}

impl Receiver {
    pub(crate) fn new(registry: &StateRegistry, name: &str) -> Self {
        Self {
            log: ReceiverLog::new(registry, name),
            seen: RefCell::default(),
        }
    }

    /// A message arrived on `stream`, as [`ReceiverLog::reliable_received`] has it.
    pub(crate) fn handle_message(&self, stream: u64, bytes: &Bytes) -> TestMessage {
        let message = TestMessage::from_bytes(bytes);
        if message.is_reliable {
            let key = (message.sender.clone(), stream, message.number);
            let is_new = self.seen.borrow_mut().insert(key);
            always_assert!(
                receiver_no_duplicates,
                is_new,
                "{message:?} came twice on stream {stream}"
            );
            self.log
                .reliable_received(&message.sender, stream, message.number);
        } else {
            sometimes_assert!(an_unreliable_packet_arrived, true, "nothing was in its way");
            self.log
                .unreliable_received(&message.sender, stream, message.number);
        }
        message
    }
}
