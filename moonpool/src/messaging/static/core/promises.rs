//! Promises that travel inside messages: how they are made, and how answers to them get home.

use std::time::Duration;

use bytes::BytesMut;
use moonpool_foundation::network::peer::{Account, Expiry, PacketTerms, Tail};
use moonpool_foundation::{NetworkAddress, UID};
use moonpool_traits::CodecError;

use super::{Admission, Core};
use crate::error::TransportError;
use crate::messaging::r#static::call_table::{CallTerms, Outcome};

/// How long an answer to a promise may wait to be written: as long as a session is kept without a
/// connection. Whoever answers does not know the promise's deadline.
const ANSWER_KEPT: Duration = Duration::from_secs(60);

impl Core {
    /// Opens a promise. `secret` becomes the upper half of its token: 64 random bits of its own,
    /// because unlike a reply to a request, an answer to it may come from anywhere.
    pub(crate) fn start_promise(&self, terms: CallTerms, secret: u64) -> Option<UID> {
        let token = self.calls.borrow_mut().start_promise(terms, secret)?;
        self.wake_timer_for_next_look();
        Some(token)
    }

    /// Gives a promise its answer. One that nobody waits for, or not any more, is counted.
    pub(super) fn end_promise(&self, token: UID, outcome: Outcome) {
        let ended = self.calls.borrow_mut().end_promise(token, outcome);
        match ended {
            Some(waker) => {
                self.counters.replies_received.add();
                self.wake_caller(waker);
            }
            None => self.counters.replies_late.add(),
        }
    }

    /// Sends an answer to the process that made a promise.
    pub(crate) fn answer_promise(
        &self,
        address: &NetworkAddress,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<Tail, CodecError>,
    ) -> Result<(), TransportError> {
        if self.is_local(address) {
            return self.answer_own_promise(token, encode);
        }
        let transport = self.transport().ok_or(TransportError::Closed)?;
        let peer = transport.open_peer_to_answer(address)?;
        let terms = PacketTerms {
            expiry: Some(Expiry {
                at: self.now().saturating_add(ANSWER_KEPT),
                remaining_offset: None,
            }),
            account: Account::Owed,
        };
        peer.send_reliable_parts(token, terms, encode)?;
        Ok(())
    }

    /// The promise was made here. An answer that is waited for always has room, as other answers do:
    /// there is one per promise. What nobody waits for takes none.
    fn answer_own_promise(
        &self,
        token: UID,
        encode: impl FnOnce(&mut BytesMut) -> Result<Tail, CodecError>,
    ) -> Result<(), TransportError> {
        if !self.calls.borrow().awaits_promise(token) {
            self.counters.replies_late.add();
            return Ok(());
        }
        self.send_local(token, Admission::Always, encode)?;
        let start = self.start_local.borrow().clone();
        if let Some(start) = start {
            start();
        }
        Ok(())
    }
}
