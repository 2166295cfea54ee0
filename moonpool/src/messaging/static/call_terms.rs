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

impl CallTerms {
    /// When to look at the call, if nothing speaks against its connection before `at`.
    pub(super) fn next_look(&self, unfailed_until: Duration) -> Option<Duration> {
        let patience = self
            .patience
            .and_then(|patience| unfailed_until.checked_add(patience));
        match (self.deadline, patience) {
            (Some(deadline), Some(patience)) => Some(deadline.min(patience)),
            (deadline, patience) => deadline.or(patience),
        }
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
