//! What a reliable packet is sent under: until when it is of use, and which limit it counts against.

use std::rc::Rc;
use std::time::Duration;

use super::budget::SharedBudget;
use super::config::PeerConfig;
use super::frame::Frame;

/// Bytes of refusals that a session may hold whatever the others do: all requests of one read can be
/// refused, and what others hold ends no session.
const REFUSALS_FLOOR: usize = 64 * 1024;

/// Until when a packet is of use.
///
/// An expired packet is not written any more: one that was never laid out vanishes, one that was
/// becomes an empty frame with its number. Nothing is reported for it; who set the expiry knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// In the time of the peer's [`TimeProvider`](crate::TimeProvider).
    pub at: Duration,
    /// Where in the payload, in bytes from its start, what remains of that time is written anew for
    /// each transmission: 8 bytes, nanoseconds, little-endian. `None`: nowhere.
    pub remaining_offset: Option<u16>,
}

/// Which limit a packet counts against.
///
/// Answers and refusals belong to the session whose packets they answer: they do not move to
/// another one, and are dropped without a report when theirs ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Account {
    /// This end's own: `reliable_packets` and `reliable_bytes`.
    #[default]
    Own,
    /// As [`Own`](Self::Own), but owed: while the peer closes it is taken as answers are, until
    /// goodbye is said.
    Owed,
    /// An answer, for which a slot was [reserved](super::PeerHandle::reserve_answer). Never refused
    /// for want of room.
    Answer(AnswerSlot),
    /// A short answer to what was not admitted: `refusals`.
    Refusal,
}

/// Room for one answer in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSlot {
    /// Counts the sessions of the peer.
    pub(super) session: u32,
    /// Bytes that the answer is expected to have, once it is being made.
    expected: u32,
}

/// How a reliable packet is sent. By default it does not expire, and is the sender's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketTerms {
    /// Until when it is of use; `None`: always.
    pub expiry: Option<Expiry>,
    /// Which limit it counts against.
    pub account: Account,
}

/// Frames and bytes of one kind that are held: queued, laid out, or not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    frames: usize,
    bytes: usize,
}

/// What an outbox holds of answers and refusals, and what it has promised to take.
#[derive(Debug)]
pub(super) struct Answers {
    packets_limit: usize,
    bytes_limit: usize,
    refusals_limit: usize,
    refusal_bytes_limit: usize,
    /// Slots that wait for their answers.
    reserved: usize,
    /// Bytes of those answers that are being made.
    expected: usize,
    answers: Held,
    refusals: Held,
    /// Counts the sessions: a slot of another one is void.
    session: u32,
    /// No answer that is held expires earlier, as far as is known.
    next_expiry: Option<Duration>,
    /// What all sessions of the transport hold, if this is one of a transport's.
    budget: Option<Rc<SharedBudget>>,
}

impl Answers {
    pub(super) fn new(config: &PeerConfig) -> Self {
        Self {
            packets_limit: config.answer_packets,
            bytes_limit: config.answer_bytes,
            refusals_limit: config.refusals,
            refusal_bytes_limit: config.refusal_bytes,
            reserved: 0,
            expected: 0,
            answers: Held::default(),
            refusals: Held::default(),
            session: 0,
            next_expiry: None,
            budget: None,
        }
    }

    /// From now on what is held counts against this, too. To be called before anything is held.
    pub(super) fn share(&mut self, budget: Rc<SharedBudget>) {
        debug_assert_eq!(self.held(), (0, 0), "what is held is in no account");
        self.budget = Some(budget);
    }

    /// Whether there is room for the bytes of an answer.
    fn has_room(&self) -> bool {
        self.answers.bytes < self.bytes_limit && self.has_share()
    }

    /// An answer that was promised is to be made, and is expected to be so large: until it is there or
    /// the slot is given back, that counts as held. `None`: there is no room for it besides what is
    /// held and what else is expected.
    pub(super) fn begin(&mut self, slot: AnswerSlot, expected: usize) -> Option<AnswerSlot> {
        if !self.is_of_session(slot) {
            return Some(slot);
        }
        let (_, held) = self.held();
        let budget = self.budget.as_ref();
        let has_room = self.answers.bytes.saturating_add(self.expected) < self.bytes_limit
            && budget.is_none_or(|budget| budget.has_room_to_expect(held + self.expected));
        if !has_room {
            return None;
        }
        self.expect_no_more(slot);
        // Payloads are limited to 64 MiB.
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        self.expected += expected as usize;
        if let Some(budget) = &self.budget {
            budget.expect(expected as usize);
        }
        Some(AnswerSlot { expected, ..slot })
    }

    fn expect_no_more(&mut self, slot: AnswerSlot) {
        let expected = slot.expected as usize;
        debug_assert!(expected <= self.expected, "it was expected");
        self.expected = self.expected.saturating_sub(expected);
        if let Some(budget) = &self.budget {
            budget.expect_no_more(expected);
        }
    }

    fn has_share(&self) -> bool {
        let (_, bytes) = self.held();
        self.budget
            .as_ref()
            .is_none_or(|budget| budget.has_room(bytes))
    }

    /// Promises to take one answer.
    pub(super) fn reserve(&mut self) -> Option<AnswerSlot> {
        let in_use = self.reserved + self.answers.frames;
        if in_use >= self.packets_limit || !self.has_room() {
            return None;
        }
        self.reserved += 1;
        Some(AnswerSlot {
            session: self.session,
            expected: 0,
        })
    }

    pub(super) fn is_of_session(&self, slot: AnswerSlot) -> bool {
        slot.session == self.session
    }

    pub(super) fn accepts_refusal(&self) -> bool {
        let Held { frames, bytes } = self.refusals;
        let is_within = frames < self.refusals_limit && bytes < self.refusal_bytes_limit;
        is_within && (bytes < REFUSALS_FLOOR || self.has_share())
    }

    /// Whether as many refusals are held as half of their limit: of their packets, of their bytes, or
    /// of what the session may hold of them while others leave it nothing.
    pub(super) fn is_half_refusals(&self) -> bool {
        let Held { frames, bytes } = self.refusals;
        frames >= self.refusals_limit.div_ceil(2)
            || bytes >= self.refusal_bytes_limit.div_ceil(2)
            || (bytes >= REFUSALS_FLOOR / 2 && !self.has_share())
    }

    /// A frame got larger.
    pub(super) fn handle_grown(&mut self, account: Account, bytes: usize) {
        if let Some(held) = self.of(account) {
            held.bytes += bytes;
            if let Some(budget) = &self.budget {
                budget.add(bytes);
            }
        }
    }

    /// Gives a slot back whose answer will not come. One of another session is void already.
    pub(super) fn cancel(&mut self, slot: AnswerSlot) {
        if self.is_of_session(slot) {
            self.reserved = self.reserved.saturating_sub(1);
            self.expect_no_more(slot);
        }
    }

    /// Slots that wait for their answers.
    pub(super) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Slots reserved and answers held.
    pub(super) fn in_use(&self) -> usize {
        self.reserved + self.answers.frames
    }

    /// Frames and bytes that do not count against the sender's own limits.
    pub(super) fn held(&self) -> (usize, usize) {
        (
            self.answers.frames + self.refusals.frames,
            self.answers.bytes + self.refusals.bytes,
        )
    }

    pub(super) fn handle_pushed(&mut self, frame: &Frame) {
        if let Account::Answer(slot) = frame.terms.account {
            debug_assert!(self.reserved > 0, "an answer has a slot");
            self.reserved = self.reserved.saturating_sub(1);
            self.expect_no_more(slot);
        }
        if let Some(held) = self.of(frame.terms.account) {
            held.frames += 1;
            held.bytes += frame.size();
            if let Some(budget) = &self.budget {
                budget.add(frame.size());
            }
            if let Some(expiry) = frame.terms.expiry {
                let next = self.next_expiry.map_or(expiry.at, |at| at.min(expiry.at));
                self.next_expiry = Some(next);
            }
        }
    }

    pub(super) fn handle_released(&mut self, frame: &Frame) {
        if let Some(held) = self.of(frame.terms.account) {
            held.frames -= 1;
            held.bytes -= frame.size();
            self.release(frame.size());
        }
        if self.answers.frames == 0 && self.refusals.frames == 0 {
            self.next_expiry = None;
        }
    }

    /// A frame got smaller.
    pub(super) fn handle_saved(&mut self, account: Account, bytes: usize) {
        if let Some(held) = self.of(account) {
            held.bytes -= bytes;
            self.release(bytes);
        }
    }

    fn release(&self, bytes: usize) {
        if let Some(budget) = &self.budget {
            budget.remove(bytes);
        }
    }

    /// Slots of the session that ended are void.
    pub(super) fn end_session(&mut self) {
        self.session = self.session.wrapping_add(1);
        self.reserved = 0;
        self.expect_nothing();
    }

    fn expect_nothing(&mut self) {
        if let Some(budget) = &self.budget {
            budget.expect_no_more(self.expected);
        }
        self.expected = 0;
    }

    /// When an answer that is held may be of no use any more.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.next_expiry
    }

    pub(super) fn set_next_expiry(&mut self, at: Option<Duration>) {
        self.next_expiry = at;
    }

    fn of(&mut self, account: Account) -> Option<&mut Held> {
        match account {
            Account::Own | Account::Owed => None,
            Account::Answer(_) => Some(&mut self.answers),
            Account::Refusal => Some(&mut self.refusals),
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let (_, bytes) = self.held();
        self.release(bytes);
        self.expect_nothing();
    }
}
