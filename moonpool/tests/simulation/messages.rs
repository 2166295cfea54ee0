//! What clients and servers say to each other.

use moonpool::UID;
use serde::{Deserialize, Serialize};

pub(crate) const PORT: u16 = 4500;

const INTERFACE: u64 = 0x51_u64 << 32;
pub(crate) const WORK: UID = UID::new(INTERFACE, 0);
pub(crate) const AUDIT: UID = UID::new(INTERFACE, 1);
pub(crate) const GOODBYE: UID = UID::new(INTERFACE, 2);
/// Nobody registers this one.
pub(crate) const NOWHERE: UID = UID::new(INTERFACE, 3);

/// What the server is to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    Answer,
    /// Answer from a task of its own, later.
    AnswerAfter {
        millis: u64,
    },
    DropPromise,
    Refuse,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) client: String,
    pub(crate) id: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) client: String,
    pub(crate) id: u64,
}

/// Asks which of a client's requests the server has executed, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Audit {
    pub(crate) client: String,
}

/// A client needs the server no longer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Goodbye {
    pub(crate) client: String,
}
