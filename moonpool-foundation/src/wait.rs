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
pub(crate) use notes::{MAX_NOTES, Waits, reset, taken};

#[cfg(feature = "sim")]
mod notes {
    use std::cell::{Cell, RefCell};

    use super::WaitReason;

    /// A task that selects over more futures than this shows the first ones only.
    pub(crate) const MAX_NOTES: usize = 4;

    thread_local! {
        static LEN: Cell<usize> = const { Cell::new(0) };
        static NOTES: RefCell<[Option<WaitReason>; MAX_NOTES]> =
            const { RefCell::new([None; MAX_NOTES]) };
    }

    pub(super) fn add(reason: WaitReason) {
        let len = LEN.get();
        if len < MAX_NOTES {
            NOTES.with_borrow_mut(|notes| notes[len] = Some(reason));
            LEN.set(len + 1);
        }
    }

    /// Forgets all notes: the executor does so before each poll.
    pub(crate) fn reset() {
        LEN.set(0);
    }

    /// What one task waits for. Most wait for one thing; room for more is made once, when it is needed.
    #[derive(Debug, Default)]
    pub(crate) struct Waits {
        first: Option<WaitReason>,
        /// Beyond the first `len - 1` they are of earlier polls.
        more: Option<Box<[Option<WaitReason>; MAX_NOTES]>>,
        len: u8,
    }

    impl Waits {
        /// Keeps the notes made since the last reset.
        pub(crate) fn take(&mut self) {
            let len = LEN.get();
            self.len = u8::try_from(len).unwrap_or(u8::MAX);
            if len == 0 {
                return;
            }
            NOTES.with_borrow(|notes| {
                self.first = notes[0];
                if len > 1 {
                    let more = self.more.get_or_insert_default();
                    more[..len - 1].copy_from_slice(&notes[1..len]);
                }
            });
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = WaitReason> {
            let more = self.more.iter().flat_map(|more| more.iter());
            let all = std::iter::once(&self.first).chain(more);
            all.take(usize::from(self.len)).flatten().copied()
        }
    }

    /// The notes made since the last reset.
    pub(crate) fn taken() -> ([Option<WaitReason>; MAX_NOTES], usize) {
        (NOTES.with_borrow(|notes| *notes), LEN.get())
    }
}
