//! [`ConcurrencyLimit`]: so many at a time, the others in a line. Pure: wakers are handed out for
//! the caller to use once no borrow is held.

use std::collections::VecDeque;
use std::task::Waker;

/// Permits that pass from hand to hand: one that is given back goes to the first in line, so that
/// nobody overtakes those who wait.
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    limit: usize,
    /// Permits that are taken, those included that await their new owner's next poll.
    in_use: usize,
    line: VecDeque<(u64, Waker)>,
    next_ticket: u64,
}

/// A place in the line, or a permit that was passed on to it. Empty for who does not wait.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<u64>);

impl ConcurrencyLimit {
    /// At least 1.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            in_use: 0,
            line: VecDeque::new(),
            next_ticket: 0,
        }
    }

    /// Permits that are taken.
    pub(crate) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes a permit, or a place in the line. An old waker is handed out to be dropped.
    pub(crate) fn acquire(&mut self, ticket: &mut Ticket, waker: &Waker) -> Acquired {
        if let Some(id) = ticket.0 {
            let Some((_, noted)) = self.line.iter_mut().find(|(other, _)| *other == id) else {
                ticket.0 = None;
                return Acquired::Permit;
            };
            let replaced = if noted.will_wake(waker) {
                None
            } else {
                Some(std::mem::replace(noted, waker.clone()))
            };
            return Acquired::Waiting { replaced };
        }
        if self.in_use < self.limit {
            debug_assert!(self.line.is_empty(), "permits go to those who wait");
            self.in_use += 1;
            return Acquired::Permit;
        }
        let id = self.next_ticket;
        self.next_ticket += 1;
        self.line.push_back((id, waker.clone()));
        ticket.0 = Some(id);
        Acquired::Waiting { replaced: None }
    }

    /// Gives a permit back. Gives whom to wake.
    pub(crate) fn release(&mut self) -> Option<Waker> {
        match self.line.pop_front() {
            Some((_, waker)) => Some(waker),
            None => {
                self.in_use -= 1;
                None
            }
        }
    }

    /// Leaves the line; a permit that was passed on to it goes to the next. Gives whom to wake, and
    /// a waker to drop.
    pub(crate) fn leave(&mut self, ticket: &mut Ticket) -> Left {
        let Some(id) = ticket.0.take() else {
            return Left::default();
        };
        match self.line.iter().position(|(other, _)| *other == id) {
            Some(at) => Left {
                wake: None,
                unused: self.line.remove(at).map(|(_, waker)| waker),
            },
            None => Left {
                wake: self.release(),
                unused: None,
            },
        }
    }
}

/// What [`ConcurrencyLimit::acquire`] gives.
#[derive(Debug)]
pub(crate) enum Acquired {
    Permit,
    Waiting { replaced: Option<Waker> },
}

/// What [`ConcurrencyLimit::leave`] gives.
#[derive(Debug, Default)]
pub(crate) struct Left {
    pub(crate) wake: Option<Waker>,
    pub(crate) unused: Option<Waker>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquires(limit: &mut ConcurrencyLimit, ticket: &mut Ticket) -> bool {
        matches!(limit.acquire(ticket, Waker::noop()), Acquired::Permit)
    }

    #[test]
    fn a_permit_goes_to_the_first_in_line() {
        let mut limit = ConcurrencyLimit::new(1);
        let [mut first, mut second, mut late] = [(); 3].map(|()| Ticket::default());
        assert!(acquires(&mut limit, &mut Ticket::default()));
        assert!(!acquires(&mut limit, &mut first) && !acquires(&mut limit, &mut second));
        assert!(limit.release().is_some());
        assert!(!acquires(&mut limit, &mut late), "a late comer overtook");
        assert!(!acquires(&mut limit, &mut second));
        assert!(acquires(&mut limit, &mut first));
        assert_eq!(limit.in_use(), 1);
    }

    #[test]
    fn who_leaves_passes_on_what_was_passed_on_to_it() {
        let mut limit = ConcurrencyLimit::new(1);
        let [mut first, mut second] = [(); 2].map(|()| Ticket::default());
        assert!(acquires(&mut limit, &mut Ticket::default()));
        assert!(!acquires(&mut limit, &mut first) && !acquires(&mut limit, &mut second));
        assert!(limit.release().is_some());
        assert!(limit.leave(&mut first).wake.is_some());
        assert!(acquires(&mut limit, &mut second));
        assert!(limit.release().is_none());
        assert_eq!(limit.in_use(), 0);
    }

    #[test]
    fn who_leaves_the_line_gets_nothing_later() {
        let mut limit = ConcurrencyLimit::new(0);
        let mut waiting = Ticket::default();
        assert!(acquires(&mut limit, &mut Ticket::default()), "at least one");
        assert!(!acquires(&mut limit, &mut waiting));
        assert!(limit.leave(&mut waiting).wake.is_none());
        assert!(limit.release().is_none());
        assert_eq!(limit.in_use(), 0);
    }
}
