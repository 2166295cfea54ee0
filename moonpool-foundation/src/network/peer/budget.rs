//! Memory that many share: what a transport's sessions hold for their other ends, what its connections
//! read into.

use std::cell::Cell;

/// Bytes that the sessions, or connections, of a transport may hold together.
///
/// A session may hold as much as is still free, no more (the dynamic threshold of Choudhury and
/// Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998): one that reads
/// nothing gets half, and each of several such an equal share, so that there is always room for those
/// that read.
#[derive(Debug)]
pub(super) struct SharedBudget {
    limit: usize,
    held: Cell<usize>,
    /// Bytes that are not there yet: of answers that are being made.
    expected: Cell<usize>,
}

impl SharedBudget {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Cell::new(0),
            expected: Cell::new(0),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether one that holds `own` bytes may take on more.
    pub(super) fn has_room(&self, own: usize) -> bool {
        own < self.limit.saturating_sub(self.held.get())
    }

    /// Whether one that holds and expects `own` bytes may expect more, in the same way.
    pub(super) fn has_room_to_expect(&self, own: usize) -> bool {
        let taken = self.held.get().saturating_add(self.expected.get());
        own < self.limit.saturating_sub(taken)
    }

    pub(super) fn expect(&self, bytes: usize) {
        self.expected.set(self.expected.get().saturating_add(bytes));
    }

    /// What was expected is there, or will not come.
    pub(super) fn expect_no_more(&self, bytes: usize) {
        debug_assert!(bytes <= self.expected.get(), "it was expected");
        self.expected.set(self.expected.get().saturating_sub(bytes));
    }

    /// Whether so many bytes more are within the limit.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes <= self.limit.saturating_sub(self.held.get())
    }

    /// Whether half of it is held: what is kept only because it may be needed again is to go.
    pub(super) fn is_short(&self) -> bool {
        self.held.get() > self.limit / 2
    }

    pub(super) fn add(&self, bytes: usize) {
        self.held.set(self.held.get().saturating_add(bytes));
    }

    pub(super) fn remove(&self, bytes: usize) {
        debug_assert!(bytes <= self.held.get(), "what is let go of was held");
        self.held.set(self.held.get().saturating_sub(bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::BytesMut;

    use super::*;
    use crate::network::peer::PeerConfig;
    use crate::network::peer::frame::{Frame, FrameKind};
    use crate::network::peer::terms::{Account, Answers, PacketTerms};

    /// Fills a session's share in steps of one byte.
    fn fill(budget: &SharedBudget) -> usize {
        let mut own = 0;
        while budget.has_room(own) {
            budget.add(1);
            own += 1;
        }
        own
    }

    #[test]
    fn one_that_takes_all_it_gets_leaves_as_much_as_it_has() {
        let budget = SharedBudget::new(1_000);
        assert_eq!(fill(&budget), 500);
        assert!(budget.has_room(499) && !budget.has_room(500));
    }

    #[test]
    fn however_many_take_what_they_get_the_limit_holds_and_the_next_finds_room() {
        let budget = SharedBudget::new(1 << 20);
        let taken: usize = (0..16).map(|_| fill(&budget)).sum();
        assert!(taken < 1 << 20 && budget.has_room(0));
    }

    #[test]
    fn what_is_let_go_of_is_free_again() {
        let budget = SharedBudget::new(1_000);
        let own = fill(&budget);
        budget.remove(own);
        assert_eq!(fill(&budget), own);
    }

    fn refusal(bytes: usize) -> Frame {
        let head = BytesMut::zeroed(bytes);
        let terms = PacketTerms {
            account: Account::Refusal,
            ..PacketTerms::default()
        };
        Frame::new(head, FrameKind::Reliable, terms)
    }

    #[test]
    fn what_a_peer_holds_counts_until_it_lets_go_of_it_or_is_dropped() {
        let budget = Rc::new(SharedBudget::new(1_000));
        let mut answers = Answers::new(&PeerConfig::default());
        answers.share(Rc::clone(&budget));
        let (first, second) = (refusal(100), refusal(200));
        answers.handle_pushed(&first);
        answers.handle_pushed(&second);
        answers.handle_grown(Account::Refusal, 50);
        assert!(budget.fits(650) && !budget.fits(651));
        answers.handle_saved(Account::Refusal, 50);
        answers.handle_released(&first);
        assert!(budget.fits(800) && !budget.fits(801));
        drop(answers);
        assert!(budget.fits(1_000));
    }

    #[test]
    fn what_is_expected_counts_until_it_is_there_or_will_not_come() {
        let budget = Rc::new(SharedBudget::new(1_000));
        let mut answers = Answers::new(&PeerConfig::default());
        answers.share(Rc::clone(&budget));
        let reserve = |answers: &mut Answers| answers.reserve().unwrap();
        let (first, second) = (reserve(&mut answers), reserve(&mut answers));
        let third = reserve(&mut answers);
        let first = answers.begin(first, 300).unwrap();
        let second = answers.begin(second, 300).unwrap();
        assert_eq!(
            answers.begin(third, 300),
            None,
            "600 of the 400 that are free"
        );
        assert!(budget.has_room(0) && budget.fits(1_000), "nothing is held");
        answers.cancel(second);
        assert!(budget.has_room_to_expect(699) && !budget.has_room_to_expect(700));
        let head = BytesMut::zeroed(100);
        let terms = PacketTerms {
            account: Account::Answer(first),
            ..PacketTerms::default()
        };
        answers.handle_pushed(&Frame::new(head, FrameKind::Reliable, terms));
        assert!(budget.has_room_to_expect(899) && !budget.has_room_to_expect(900));
        answers.begin(third, 300).unwrap();
        answers.end_session();
        assert!(budget.has_room_to_expect(899) && !budget.has_room_to_expect(900));
        let late = answers.begin(third, 300);
        assert_eq!(
            late,
            Some(third),
            "nobody waits for it, so it costs nothing"
        );
        let fourth = reserve(&mut answers);
        answers.begin(fourth, 300).unwrap();
        drop(answers);
        assert!(budget.has_room_to_expect(999));
    }
}
