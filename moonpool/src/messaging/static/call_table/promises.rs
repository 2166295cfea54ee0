//! Promises among the calls: they wait for an answer from anywhere, and for that alone.

use std::task::Waker;

use moonpool_foundation::UID;

use super::{CallTable, CallTerms, Outcome, Place};
use crate::messaging::r#static::endpoint_map::token_nonce;
use crate::messaging::r#static::slot_table::SlotKey;

impl CallTable {
    /// Starts to wait for the answer to a promise, whose token has `secret` as its upper half: 64
    /// random bits. It counts as a call. `None` when as many of them wait as may.
    pub(crate) fn start_promise(&mut self, terms: CallTerms, secret: u64) -> Option<UID> {
        let secret = token_nonce(secret);
        let key = self.insert(terms, Place::Promised { secret })?;
        let token = UID::new(secret, key.to_bits());
        if let Some(call) = self.calls.get_mut(key) {
            call.terms.token = token;
        }
        Some(token)
    }

    /// Whether a promise with this token waits for its answer.
    pub(crate) fn awaits_promise(&self, token: UID) -> bool {
        let call = self.calls.get(SlotKey::from_bits(token.second));
        call.is_some_and(|call| {
            call.place
                == Place::Promised {
                    secret: token.first,
                }
        })
    }

    /// An answer to a promise arrived. Gives whom to wake; `None`: nobody waits for it.
    pub(crate) fn end_promise(&mut self, token: UID, outcome: Outcome) -> Option<Option<Waker>> {
        if !self.awaits_promise(token) {
            return None;
        }
        Some(self.end(SlotKey::from_bits(token.second), outcome))
    }
}
