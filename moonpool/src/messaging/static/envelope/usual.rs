//! The short way to read and to write what nearly every packet is.

use std::time::Duration;

use moonpool_foundation::UID;

use super::{Envelope, FLAG_DEADLINE, FLAG_REPLY_TOKEN, KIND_MESSAGE, KIND_REPLY, VERSION};
use super::{MessageHead, Metadata, REQUEST_PREFIX_BYTES, start, whole_nanos};

/// The flags of a request with a deadline and nothing else that is optional.
const REQUEST: u16 = FLAG_REPLY_TOKEN | FLAG_DEADLINE;

/// What such a request begins with.
#[inline]
pub(super) fn request_head(token: UID, remaining: Duration) -> [u8; REQUEST_PREFIX_BYTES + 8] {
    let mut bytes = [0; REQUEST_PREFIX_BYTES + 8];
    bytes[..4].copy_from_slice(&start(KIND_MESSAGE, REQUEST));
    bytes[4..REQUEST_PREFIX_BYTES].copy_from_slice(&token.to_le_bytes());
    bytes[REQUEST_PREFIX_BYTES..].copy_from_slice(&whole_nanos(remaining).to_le_bytes());
    bytes
}

/// A request with a deadline and nothing else that is optional, or a reply that is no error: nearly
/// every packet is one of the two.
pub(crate) enum Usual<'a> {
    Request {
        reply_token: UID,
        remaining: Duration,
        body: &'a [u8],
    },
    Reply {
        body: &'a [u8],
    },
}

impl<'a> Usual<'a> {
    #[inline]
    pub(crate) fn decode(packet: &'a [u8]) -> Option<Self> {
        let (&[VERSION, kind, low, high], rest) = packet.split_first_chunk()? else {
            return None;
        };
        match (kind, u16::from_le_bytes([low, high])) {
            (KIND_MESSAGE, REQUEST) => {
                let (token, rest) = rest.split_first_chunk()?;
                let (nanos, body) = rest.split_first_chunk()?;
                Some(Self::Request {
                    reply_token: UID::from_le_bytes(*token),
                    remaining: Duration::from_nanos(u64::from_le_bytes(*nanos)),
                    body,
                })
            }
            (KIND_REPLY, 0) => match rest.split_first()? {
                (0, body) => Some(Self::Reply { body }),
                _ => None,
            },
            _ => None,
        }
    }
}

impl<'a> From<Usual<'a>> for Envelope<'a> {
    fn from(usual: Usual<'a>) -> Self {
        match usual {
            Usual::Request {
                reply_token,
                remaining,
                body,
            } => Self::Message {
                head: request(reply_token, remaining),
                body,
            },
            Usual::Reply { body } => Self::Reply {
                outcome: Ok(body),
                metadata: Metadata::default(),
            },
        }
    }
}

/// What the prefix of a usual request says.
#[inline]
pub(crate) fn request<'a>(reply_token: UID, remaining: Duration) -> MessageHead<'a> {
    MessageHead {
        reply_token: Some(reply_token),
        deadline: Some(remaining),
        ..MessageHead::default()
    }
}
