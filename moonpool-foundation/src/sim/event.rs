//! [`Event`]: what the queue holds.

use std::fmt;

use super::breakage::Breakage;
use super::clogs::ClogSide;
use super::connections::{AttemptId, ConnectionId, Side};
use super::digest::Digest;
use super::links::{Block, Cause};
use super::wakes::Waiter;

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
