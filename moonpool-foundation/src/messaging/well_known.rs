//! Tokens that are the same in every process: a fixed table of 64.
//!
//! 0-15 belong to moonpool ([`WellKnownToken`]), 16-63 to users ([`WellKnownId::user`]).

use std::fmt;

use super::types::UID;

/// How many well-known tokens there are, moonpool's and users' together.
pub const WELL_KNOWN_RESERVED_COUNT: usize = 64;

/// The first id that is for users.
const FIRST_USER_ID: u32 = 16;

/// The last id there is.
const LAST_ID: u32 = 63;

/// Moonpool's own receivers, and the frames of its sessions.
///
/// The session frames are internal: a peer handles them itself, never shows them to a receiver, and
/// refuses to send them for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum WellKnownToken {
    /// Says that a message was sent to a token that no receiver has.
    EndpointNotFound = 0,
    /// Answers with the payload it was sent.
    Ping = 1,
    /// Says that a message was sent to a receiver its sender may not use.
    UnauthorizedEndpoint = 2,
    /// Internal to sessions: the first packet of the dialling end.
    Hello = 3,
    /// Internal to sessions: the accepting end's answer to a Hello.
    HelloAnswer = 4,
    /// Internal to sessions: a reliable packet with its sequence number.
    Sequenced = 5,
    /// Internal to sessions: an acknowledgement by itself.
    Ack = 6,
    /// Internal to sessions: a sequence number whose packet was given up.
    Skip = 7,
    /// Internal to sessions: asks whether the other end is alive.
    SessionPing = 8,
    /// Internal to sessions: the answer to a ping.
    SessionPong = 9,
    /// Internal to sessions: the last frame of an orderly close.
    Close = 10,
    /// Says that a request was not admitted, because there is no room for its answer.
    Overloaded = 11,
}

impl WellKnownToken {
    /// The token on the wire.
    #[inline]
    #[must_use]
    pub const fn token(self) -> UID {
        UID::well_known(self as u32)
    }

    /// Which session frame `token` stands for, if any.
    #[inline]
    #[must_use]
    pub const fn session_frame(token: UID) -> Option<Self> {
        if token.first != u64::MAX {
            return None;
        }
        match token.second {
            3 => Some(Self::Hello),
            4 => Some(Self::HelloAnswer),
            5 => Some(Self::Sequenced),
            6 => Some(Self::Ack),
            7 => Some(Self::Skip),
            8 => Some(Self::SessionPing),
            9 => Some(Self::SessionPong),
            10 => Some(Self::Close),
            _ => None,
        }
    }
}

impl From<WellKnownToken> for u32 {
    fn from(token: WellKnownToken) -> Self {
        token as Self
    }
}

/// The number of a well-known token, 0-63.
///
/// ```
/// use moonpool_foundation::{UID, WellKnownId, WellKnownToken};
///
/// assert_eq!(WellKnownId::from(WellKnownToken::Ping).token(), UID::well_known(1));
/// assert_eq!(WellKnownId::user(16)?.token(), UID::well_known(16));
/// assert!(WellKnownId::user(3).is_err());
/// # Ok::<(), moonpool_foundation::messaging::InvalidWellKnownId>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WellKnownId(u32);

impl WellKnownId {
    /// One of the users' own ids, 16-63.
    ///
    /// # Errors
    /// [`InvalidWellKnownId`] outside that range.
    pub const fn user(id: u32) -> Result<Self, InvalidWellKnownId> {
        if id < FIRST_USER_ID || id > LAST_ID {
            return Err(InvalidWellKnownId { id });
        }
        Ok(Self(id))
    }

    /// The id of a well-known token, whoever it belongs to; `None` for every other token.
    #[must_use]
    pub fn of(token: UID) -> Option<Self> {
        let id = u32::try_from(token.second).ok()?;
        (token.is_well_known() && id <= LAST_ID).then_some(Self(id))
    }

    /// The number, 0-63.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as the index into a table of [`WELL_KNOWN_RESERVED_COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The token on the wire.
    #[inline]
    #[must_use]
    pub const fn token(self) -> UID {
        UID::well_known(self.0)
    }
}

impl From<WellKnownToken> for WellKnownId {
    fn from(token: WellKnownToken) -> Self {
        Self(token.into())
    }
}

impl fmt::Display for WellKnownId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id is not one that users may take. Choose one of 16-63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("well-known id {id} is not one of the users' 16 to 63")]
#[non_exhaustive]
pub struct InvalidWellKnownId {
    /// The id that was asked for.
    pub id: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_get_the_ids_from_16_to_63_and_no_others() {
        for id in 0..200 {
            assert_eq!(
                WellKnownId::user(id).is_ok(),
                (16..=63).contains(&id),
                "{id}"
            );
        }
    }

    #[test]
    fn an_id_is_found_again_by_its_token() {
        for id in 16..=63 {
            let id = WellKnownId::user(id).unwrap();
            assert_eq!(WellKnownId::of(id.token()), Some(id));
        }
        assert_eq!(WellKnownId::of(UID::well_known(64)), None);
        assert_eq!(WellKnownId::of(UID::new(1, 16)), None);
        assert_eq!(WellKnownId::of(UID::new(u64::MAX, u64::MAX)), None);
    }

    #[test]
    fn session_frames_are_3_to_10() {
        for id in 0..64 {
            let frame = WellKnownToken::session_frame(UID::well_known(id));
            assert_eq!(frame.is_some(), (3..=10).contains(&id), "{id}");
            assert!(frame.is_none_or(|frame| frame as u32 == id));
        }
        assert_eq!(WellKnownToken::session_frame(UID::new(0, 5)), None);
    }
}
