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
    use std::time::Duration;

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

    /// No time that anybody sleeps until.
    const NO_SLEEP: u64 = u64::MAX;

    /// What one task waits for. Room for anything but a single sleep is made once, when it is needed:
    /// worlds of a million tasks are mostly made of sleeping ones.
    #[derive(Debug)]
    pub(crate) struct Waits {
        /// In nanoseconds: of a task that sleeps and waits for nothing else.
        sleeps_until: u64,
        noted: Option<Box<Noted>>,
    }

    #[derive(Debug, Default)]
    struct Noted {
        len: usize,
        /// Beyond the first `len` they are of earlier polls.
        reasons: [Option<WaitReason>; MAX_NOTES],
    }

    impl Default for Waits {
        fn default() -> Self {
            Self {
                sleeps_until: NO_SLEEP,
                noted: None,
            }
        }
    }

    impl Waits {
        /// Keeps the notes made since the last reset.
        #[inline]
        pub(crate) fn take(&mut self) {
            let len = LEN.get();
            self.sleeps_until = NO_SLEEP;
            if len == 0 {
                if let Some(noted) = &mut self.noted {
                    noted.len = 0;
                }
                return;
            }
            NOTES.with_borrow(|notes| match &notes[..len] {
                [Some(WaitReason::Sleep { until })]
                    if let Ok(until) = until.as_nanos().try_into()
                        && until != NO_SLEEP =>
                {
                    self.sleeps_until = until;
                }
                notes => {
                    let noted = self.noted.get_or_insert_default();
                    noted.len = len;
                    noted.reasons[..len].copy_from_slice(notes);
                }
            });
        }

        pub(crate) fn iter(&self) -> impl Iterator<Item = WaitReason> {
            let only_sleeps = self.sleeps_until != NO_SLEEP;
            let sleep = only_sleeps.then(|| WaitReason::Sleep {
                until: Duration::from_nanos(self.sleeps_until),
            });
            let noted = self.noted.iter().filter(move |_| !only_sleeps);
            let noted =
                noted.flat_map(|noted| noted.reasons[..noted.len].iter().flatten().copied());
            sleep.into_iter().chain(noted)
        }
    }

    /// The notes made since the last reset.
    pub(crate) fn taken() -> ([Option<WaitReason>; MAX_NOTES], usize) {
        (NOTES.with_borrow(|notes| *notes), LEN.get())
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_waited_for_in_an_earlier_poll_does_not_show() {
        let sleep = WaitReason::Sleep {
            until: Duration::from_nanos(u64::MAX),
        };
        let join = WaitReason::Join { task: 7 };
        let mut waits = Waits::default();
        for noted in [
            &[join, sleep][..],
            &[sleep],
            &[join],
            &[sleep, join, sleep],
            &[],
        ] {
            reset();
            noted.iter().copied().for_each(note);
            waits.take();
            assert_eq!(waits.iter().collect::<Vec<_>>(), noted);
        }
    }
}
