//! Packets that expire, and what is held for the other end's sake.

use std::rc::Rc;
use std::time::Duration;

use super::Outbox;
use crate::messaging::UID;
use crate::network::peer::budget::SharedBudget;
use crate::network::peer::terms::{Account, AnswerSlot};

/// How long at least passes between two looks for expired answers.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

impl Outbox {
    /// Whether one more packet of this account is taken. `None`: it is of a session that ended.
    pub(in crate::network::peer) fn accepts(&self, account: Account) -> Option<bool> {
        match account {
            Account::Own | Account::Owed => Some(self.accepts_reliable()),
            Account::Answer(slot) => self.answers.is_of_session(slot).then_some(true),
            Account::Refusal => Some(self.answers.accepts_refusal()),
        }
    }

    /// Adds to the payload of the last packet, if it is a refusal to the same token that has no
    /// sequence number yet, and that fits into `limit` bytes.
    pub(in crate::network::peer) fn extend_refusal(
        &mut self,
        token: UID,
        bytes: &[u8],
        limit: usize,
    ) -> bool {
        let is_extended = self.queue.back_mut().is_some_and(|last| {
            last.terms.account == Account::Refusal && last.extend(token, bytes, limit)
        });
        if is_extended {
            self.reliable_bytes += bytes.len();
            self.answers.handle_grown(Account::Refusal, bytes.len());
        }
        is_extended
    }

    /// Whether refusals take up half of what may be held of them.
    pub(super) fn is_half_refusals(&self) -> bool {
        self.answers.is_half_refusals()
    }

    /// Whether the slot is of the current session.
    pub(in crate::network::peer) fn is_current(&self, slot: AnswerSlot) -> bool {
        self.answers.is_of_session(slot)
    }

    /// What is held for the other end counts against this, too.
    pub(in crate::network::peer) fn share_answers(&mut self, budget: Rc<SharedBudget>) {
        self.answers.share(budget);
    }

    /// A promised answer is to be made, and is expected to be so large. `None`: there is no room.
    pub(in crate::network::peer) fn begin_answer(
        &mut self,
        slot: AnswerSlot,
        expected: usize,
    ) -> Option<AnswerSlot> {
        self.answers.begin(slot, expected)
    }

    /// Promises to take one answer.
    pub(in crate::network::peer) fn reserve_answer(&mut self) -> Option<AnswerSlot> {
        self.answers.reserve()
    }

    /// Gives a promised answer's room back.
    pub(in crate::network::peer) fn release_answer(&mut self, slot: AnswerSlot) {
        self.answers.cancel(slot);
    }

    /// Whether answers were promised that did not come yet.
    pub(in crate::network::peer) fn awaits_answers(&self) -> bool {
        self.answers.reserved() > 0
    }

    /// Answers held and promised.
    pub(in crate::network::peer) fn answer_slots(&self) -> usize {
        self.answers.in_use()
    }

    /// Takes the expired packets off the front of what is to be laid out.
    pub(super) fn drop_expired_front(&mut self, now: Duration) {
        if let Some(frame) = self.relay.front_mut() {
            if frame.is_expired(now) {
                let (account, saved) = (frame.terms.account, frame.become_skip());
                self.count_saved(account, saved);
            }
            return;
        }
        while self
            .queue
            .front()
            .is_some_and(|frame| frame.is_expired(now))
        {
            if let Some(frame) = self.queue.pop_front() {
                self.release(&frame);
            }
        }
    }

    /// Lets go of the answers that are of no use any more. Looks at everything that is held, so it
    /// does so at most ten times a second.
    pub(in crate::network::peer) fn drop_expired(&mut self, now: Duration) {
        if self.answers.next_expiry().is_none_or(|at| at > now) {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|frame| {
            let is_expired = frame.is_expired(now);
            if is_expired {
                self.release(frame);
            }
            !is_expired
        });
        self.queue = queue;
        let mut next = None::<Duration>;
        let lines = [(&mut self.retained, true), (&mut self.relay, false)];
        for (frames, are_retained) in lines {
            for frame in frames.iter_mut() {
                if frame.is_expired(now) {
                    let (account, saved) = (frame.terms.account, frame.become_skip());
                    self.reliable_bytes -= saved;
                    self.retained_bytes -= if are_retained { saved } else { 0 };
                    self.answers.handle_saved(account, saved);
                }
            }
        }
        let held = self.retained.iter().chain(&self.relay).chain(&self.queue);
        for expiry in held.filter_map(|frame| frame.terms.expiry) {
            next = Some(next.map_or(expiry.at, |at| at.min(expiry.at)));
        }
        let not_before = now.saturating_add(SWEEP_INTERVAL);
        // What is in the batch is looked at when it is written.
        let next = next.or((!self.batch.is_empty()).then_some(not_before));
        self.answers
            .set_next_expiry(next.map(|at| at.max(not_before)));
    }

    /// When answers that are held may be of no use any more.
    pub(in crate::network::peer) fn next_expiry(&self) -> Option<Duration> {
        self.answers.next_expiry()
    }

    pub(super) fn drop_answers(&mut self) {
        self.answers.end_session();
        if self.answers.held() == (0, 0) {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|frame| {
            let is_own = frame.terms.account == Account::Own;
            if !is_own {
                self.release(frame);
            }
            is_own
        });
        self.queue = queue;
    }
}
