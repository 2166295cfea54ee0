//! [`Event`]: what the queue holds.

use std::fmt;
use std::task::Waker;

use super::breakage::Breakage;
use super::clogs::ClogSide;
use super::connections::{AttemptId, ConnectionId, Side};
use super::digest::Digest;
use super::links::{Block, Cause};
use super::slab::Key;
use super::wakes::Waiter;

/// An [`Event`] as it lies in the queue: two words, which are handed over in registers. The kinds that nearly all
/// are of have their subject's number beside their own; others a box.
#[derive(Debug)]
pub(crate) enum Queued {
    /// A sleep of this task is over.
    Task(u64),
    /// A segment arrives on this connection.
    FromDialer(u64),
    FromAcceptor(u64),
    /// What happens to this attempt.
    ConnectArrives(u64),
    ConnectAnswered(u64),
    Other(Box<Event>),
}

impl Queued {
    /// A segment that `from` sent arrives.
    #[inline]
    pub(super) fn segment(connection: ConnectionId, from: Side) -> Self {
        match from {
            Side::Dialer => Self::FromDialer(connection.number()),
            Side::Acceptor => Self::FromAcceptor(connection.number()),
        }
    }
}

/// Boxes of events that have happened, for those to come.
#[derive(Debug, Default)]
pub(crate) struct SpareBoxes(Vec<Box<Event>>);

impl SpareBoxes {
    pub(super) fn pack(&mut self, event: Event) -> Queued {
        match event {
            Event::Wake(Waiter::Task(key)) => Queued::Task(key.number()),
            Event::Segment { connection, from } => Queued::segment(connection, from),
            Event::ConnectArrives(attempt) => Queued::ConnectArrives(attempt.number()),
            Event::ConnectAnswered(attempt) => Queued::ConnectAnswered(attempt.number()),
            event => Queued::Other(match self.0.pop() {
                Some(mut spare) => {
                    *spare = event;
                    spare
                }
                None => Box::new(event),
            }),
        }
    }

    pub(super) fn unpack(&mut self, queued: Queued) -> Event {
        let segment = |number, from| Event::Segment {
            connection: key_of(number),
            from,
        };
        match queued {
            Queued::Task(number) => Event::Wake(Waiter::Task(key_of(number))),
            Queued::FromDialer(number) => segment(number, Side::Dialer),
            Queued::FromAcceptor(number) => segment(number, Side::Acceptor),
            Queued::ConnectArrives(number) => Event::ConnectArrives(key_of(number)),
            Queued::ConnectAnswered(number) => Event::ConnectAnswered(key_of(number)),
            Queued::Other(mut boxed) => {
                let event = std::mem::replace(&mut *boxed, Event::Mark(0));
                self.0.push(boxed);
                event
            }
        }
    }
}

/// The key that gave a number.
#[inline]
pub(super) fn key_of(number: u64) -> Key {
    Key::of_number(number).unwrap_or(Key::FIRST)
}

/// What happens at a point in virtual time.
pub(crate) enum Event {
    /// A sleep is over.
    Wake(Waiter),
    /// The first segment of one direction reaches its reader.
    Segment {
        connection: ConnectionId,
        from: Side,
    },
    /// A RST reaches this end, or its kernel gives up.
    Break {
        connection: ConnectionId,
        to: Side,
        breakage: Breakage,
    },
    /// What `from` sent stayed unacknowledged for too long.
    GiveUp {
        connection: ConnectionId,
        from: Side,
    },
    /// A clog ends.
    Unclog {
        connection: ConnectionId,
        side: Side,
        clogs: ClogSide,
    },
    /// A cut ends.
    Restore(ConnectionId),
    /// What stands between processes is lifted.
    Lift(Block, Cause),
    /// A connect reaches the host it is for.
    ConnectArrives(AttemptId),
    /// Its answer is back.
    ConnectAnswered(AttemptId),
    /// A closure of the test's.
    Call(Box<dyn FnOnce()>),
    /// A mark of the test's: it only shows in digest and trace.
    Mark(u64),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake(_) => f.write_str("timer fires"),
            Self::Segment { connection, from } => {
                write!(
                    f,
                    "segment arrives, connection {} from {from:?}",
                    connection.number()
                )
            }
            Self::Break {
                connection,
                to,
                breakage,
            } => {
                let connection = connection.number();
                write!(f, "connection {connection} breaks at {to:?}: {breakage:?}")
            }
            Self::GiveUp { connection, from } => {
                let connection = connection.number();
                write!(f, "connection {connection} times out at {from:?}")
            }
            Self::Unclog {
                connection,
                side,
                clogs,
            } => {
                let connection = connection.number();
                write!(
                    f,
                    "connection {connection} is unclogged at {side:?}: {clogs:?}"
                )
            }
            Self::Restore(connection) => {
                write!(f, "connection {} is restored", connection.number())
            }
            Self::Lift(block, _) => write!(f, "lifted: {block:?}"),
            Self::ConnectArrives(attempt) => write!(f, "connect {} arrives", attempt.number()),
            Self::ConnectAnswered(attempt) => {
                write!(f, "connect {} is answered", attempt.number())
            }
            Self::Call(_) => f.write_str("scheduled closure"),
            Self::Mark(mark) => write!(f, "mark {mark}"),
        }
    }
}

impl Event {
    /// Whether it wakes whoever `waker` does.
    pub(super) fn would_wake(&self, waker: &Waker) -> bool {
        matches!(self, Self::Wake(Waiter::Other(kept)) if kept.will_wake(waker))
    }

    /// What the digest folds: the kind, and what it happens to.
    #[inline]
    pub(super) fn fold_into(&self, digest: &mut Digest) {
        let (kind, subject) = match self {
            Self::Wake(_) => (1, 0),
            Self::Segment { connection, from } => (2 + from.number(), connection.number()),
            Self::Break {
                connection,
                to,
                breakage,
            } => {
                let kind = 10 + 2 * to.number() + breakage.number();
                (kind, connection.number())
            }
            Self::GiveUp { connection, from } => (14 + from.number(), connection.number()),
            Self::Unclog {
                connection,
                side,
                clogs,
            } => {
                let kind = 16 + 2 * side.number() + clogs.number();
                (kind, connection.number())
            }
            Self::Restore(connection) => (20, connection.number()),
            Self::Lift(block, Cause::Call) => (21, block.number()),
            Self::Lift(block, Cause::Chance) => (22, block.number()),
            Self::ConnectArrives(attempt) => (6, attempt.number()),
            Self::ConnectAnswered(attempt) => (7, attempt.number()),
            Self::Call(_) => (8, 0),
            Self::Mark(mark) => (9, *mark),
        };
        digest.fold(kind);
        digest.fold(subject);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::executor::TaskKey;

    fn key(number: u64) -> TaskKey {
        Key::of_number(number).unwrap()
    }

    fn all() -> Vec<Event> {
        let connection = key(7 << 32 | 3);
        let segment = |from| Event::Segment { connection, from };
        vec![
            Event::Wake(Waiter::Task(key(5 << 32 | 1))),
            Event::Wake(Waiter::Other(Waker::noop().clone())),
            segment(Side::Dialer),
            segment(Side::Acceptor),
            Event::ConnectArrives(connection),
            Event::ConnectAnswered(connection),
            Event::Restore(connection),
            Event::Mark(9),
        ]
    }

    #[test]
    fn what_is_packed_is_the_same_when_it_is_unpacked() {
        let mut spare = SpareBoxes::default();
        for (event, packed) in all().into_iter().zip(all()) {
            let packed = spare.pack(packed);
            let unpacked = spare.unpack(packed);
            assert_eq!(format!("{unpacked:?}"), format!("{event:?}"));
            let [before, after] = [&event, &unpacked].map(|event| {
                let mut digest = Digest::new(0);
                event.fold_into(&mut digest);
                digest.value()
            });
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_box_serves_one_event_after_the_other() {
        let mut spare = SpareBoxes::default();
        for mark in 0..10 {
            let packed = spare.pack(Event::Mark(mark));
            assert!(spare.0.is_empty());
            spare.unpack(packed);
            assert_eq!(spare.0.len(), 1);
        }
    }
}
