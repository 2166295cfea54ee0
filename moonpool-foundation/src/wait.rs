//! What a pending future waits on, told to the simulator for its deadlock report.
//!
//! A leaf future calls [`note`] each time it returns `Pending`. Outside a simulation, and without
//! the `sim` feature, that does nothing.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::messaging::UID;

/// Something that a task can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitReason {
    /// A timer, due at this virtual time.
    Sleep {
        /// When it is due, since the run began.
        until: Duration,
    },
    /// A connection to arrive at a listener.
    Accept {
        /// The listener's address.
        listener: SocketAddr,
    },
    /// A connection to be made.
    Connect {
        /// The address dialled.
        remote: SocketAddr,
    },
    /// Bytes to arrive on a connection.
    Read {
        /// The other end.
        remote: SocketAddr,
    },
    /// Room in a connection's send buffer.
    Write {
        /// The other end.
        remote: SocketAddr,
    },
    /// Another task to end.
    Join {
        /// That task's number in the simulation.
        task: u64,
    },
    /// The reply to a request.
    Reply {
        /// The endpoint's token the request was sent to.
        token: UID,
    },
    /// What becomes of the connection to an address.
    Watch {
        /// The address.
        remote: SocketAddr,
    },
    /// A message to arrive in a queue: a request stream, a peer's inbox.
    Message {
        /// The queue's token, if it has one.
        token: Option<UID>,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sleep { until } => write!(f, "sleep until {until:?}"),
            Self::Accept { listener } => write!(f, "accept on {listener}"),
            Self::Connect { remote } => write!(f, "connect to {remote}"),
            Self::Read { remote } => write!(f, "read from {remote}"),
            Self::Write { remote } => write!(f, "write to {remote}"),
            Self::Join { task } => write!(f, "join of task {task}"),
            Self::Reply { token } => write!(f, "reply from endpoint {token}"),
            Self::Watch { remote } => write!(f, "watch of {remote}"),
            Self::Message { token: Some(token) } => write!(f, "message for endpoint {token}"),
            Self::Message { token: None } => write!(f, "message from a peer"),
        }
    }
}

/// Tells the simulator what the current task waits on, until its next poll.
#[cfg(feature = "sim")]
pub fn note(reason: WaitReason) {
    notes::add(reason);
}

/// Tells the simulator what the current task waits on. Without the `sim` feature: nothing.
#[cfg(not(feature = "sim"))]
pub fn note(_reason: WaitReason) {}

#[cfg(feature = "sim")]
pub(crate) use notes::{MAX_NOTES, has_any, take_each};

#[cfg(feature = "sim")]
mod notes {
    use std::cell::Cell;

    use super::WaitReason;

    /// A task that selects over more futures than this shows the first ones only.
    pub(crate) const MAX_NOTES: usize = 4;

    /// What was noted and not taken.
    struct Notes {
        len: Cell<usize>,
        /// Beyond the first `len` they are old.
        reasons: [Cell<Option<WaitReason>>; MAX_NOTES],
    }

    thread_local! {
        static NOTES: Notes = const {
            Notes {
                len: Cell::new(0),
                reasons: [const { Cell::new(None) }; MAX_NOTES],
            }
        };
    }

    pub(super) fn add(reason: WaitReason) {
        NOTES.with(|notes| {
            let len = notes.len.get();
            if let Some(place) = notes.reasons.get(len) {
                place.set(Some(reason));
                notes.len.set(len + 1);
            }
        });
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn has_any() -> bool {
        NOTES.with(|notes| notes.len.get() > 0)
    }

    /// Takes the notes since this was called last: the executor does so before it polls anybody, and after.
    pub(crate) fn take_each(mut f: impl FnMut(WaitReason)) {
        NOTES.with(|notes| {
            let len = notes.len.take();
            let noted = notes.reasons.iter().take(len);
            noted.filter_map(Cell::get).for_each(&mut f);
        });
    }
}
