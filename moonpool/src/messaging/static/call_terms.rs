//! What a call was started with, and when to look at it again. Pure.

use std::time::Duration;

use moonpool_foundation::UID;

/// What a call was started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTerms {
    /// The endpoint's token.
    pub(crate) token: UID,
    pub(crate) started: Duration,
    /// When it ends at the latest.
    pub(crate) deadline: Option<Duration>,
    /// How long it puts up with there being no working connection.
    pub(crate) patience: Option<Duration>,
}

/// How long at least passes between two looks at a call that has its connection: by so much later
/// may one end whose patience is shorter. A loss is thus not told to each call, and one without any
/// patience is not looked at all the time.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);

/// Whether a call's peer has a working connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connectivity {
    Connected,
    /// There is none since then.
    LostAt(Duration),
}

impl CallTerms {
    /// When to look at the call, if there is no working connection since `unfailed`.
    pub(super) fn next_look(&self, unfailed: Duration) -> Option<Duration> {
        earlier(self.deadline, self.end_of_patience(unfailed))
    }

    /// When to look at the call, if there is a working connection now.
    pub(super) fn next_look_while_connected(&self, now: Duration) -> Option<Duration> {
        let patience = self.patience.map(|patience| patience.max(SHORTEST_LOOK));
        let patience = patience.and_then(|patience| now.checked_add(patience));
        earlier(self.deadline, patience)
    }

    /// When its patience is over, if there is no working connection since `unfailed`.
    pub(super) fn end_of_patience(&self, unfailed: Duration) -> Option<Duration> {
        unfailed.checked_add(self.patience?)
    }
}

/// The earlier of two deadlines, either of which may be missing.
pub(super) fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// When calls are to be looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    /// Some call has a deadline, so something will happen in any case. Patience alone may be renewed
    /// for ever, as long as there is a connection.
    pub(crate) is_certain: bool,
}
