//! The envelope: what precedes the codec's bytes in every packet between two transports.
//!
//! A message (one-way if it has no reply token, else a request), a reply, the cancellation of a
//! request, or the answer to a promise that was embedded in a message. `docs/wire-format.md` describes them byte by byte, with what moonpool's own receivers are
//! sent, and what is reserved.
//!
//! A set flag that is not known makes the packet undecodable, since its meaning may be that another
//! field follows; peers agree on feature bits before they use one.
//!
//! Decoding is total: any bytes give one of these, or an error, without allocating.

mod extras;
pub(crate) mod usual;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
#[cfg(test)]
mod golden;

use std::fmt;
use std::time::Duration;

use bytes::BufMut;
use moonpool_foundation::UID;

use super::reply_error::{Refusal, ReplyError};

pub(crate) use extras::{Extras, RequestContext};
use usual::Usual;

/// The layout described here.
pub const VERSION: u8 = 1;

/// Bytes before the codec's in a request that carries nothing optional.
pub const REQUEST_PREFIX_BYTES: usize = 20;

/// Where a request's remaining deadline stands, if it has one.
pub const DEADLINE_OFFSET: u16 = 20;

const _: () = assert!(DEADLINE_OFFSET as usize == REQUEST_PREFIX_BYTES);

/// Bytes of metadata and `tracestate` that a request can be given, as they are encoded.
pub const MAX_METADATA_BYTES: usize = 8 * 1024;

/// Metadata pairs that a request can be given.
pub const MAX_METADATA_PAIRS: usize = 64;

const KIND_MESSAGE: u8 = 0;
const KIND_REPLY: u8 = 1;
const KIND_CANCELLATION: u8 = 8;
const KIND_PROMISE_ANSWER: u8 = 9;

const FLAG_REPLY_TOKEN: u16 = 0x0001;
const FLAG_DEADLINE: u16 = 0x0002;
const FLAG_TRACE: u16 = 0x0004;
const FLAG_METADATA: u16 = 0x0008;

const MESSAGE_FLAGS: u16 = FLAG_REPLY_TOKEN | FLAG_DEADLINE | FLAG_TRACE | FLAG_METADATA;
const REPLY_FLAGS: u16 = FLAG_METADATA;

/// A packet that is no envelope of this version. The peer runs another version, or it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// A layout that this version does not know. Upgrade the older end.
    #[error("envelope version {version} is not supported, only {VERSION} is")]
    UnsupportedVersion {
        /// The version byte.
        version: u8,
    },
    /// A kind of packet that this version does not know.
    #[error("envelope kind {kind} is unknown")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// Flags that this version does not know for the packet's kind.
    #[error("envelope flags {flags:#06x} are unknown")]
    UnknownFlags {
        /// The unknown ones.
        flags: u16,
    },
    /// A status that this version does not know.
    #[error("reply status {status} is unknown")]
    UnknownStatus {
        /// The status byte.
        status: u8,
    },
    /// The packet ends inside a field.
    #[error("envelope ends at byte {have}, inside a field that ends at byte {need}")]
    Truncated {
        /// Where the field ends.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// A text is not UTF-8.
    #[error("a text in the envelope is not UTF-8")]
    InvalidText,
}

/// What the fixed prefix of a message says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageHead<'a> {
    /// Where the reply goes, on the same connection; none in a one-way message.
    pub reply_token: Option<UID>,
    /// What remained of the deadline when the packet was written.
    pub deadline: Option<Duration>,
    /// The caller's trace context.
    pub trace: Option<TraceContext<'a>>,
    /// The caller's metadata.
    pub metadata: Metadata<'a>,
}

/// A W3C trace context, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// The whole trace's id.
    pub trace_id: [u8; 16],
    /// The calling span's id.
    pub parent_id: [u8; 8],
    /// `trace-flags`, such as 1 for sampled.
    pub flags: u8,
    /// `tracestate`, uninterpreted.
    pub state: &'a [u8],
}

/// As in the header `traceparent`: version 00, the ids and the flags in hex digits.
impl fmt::Display for TraceContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let parent_id = u64::from_be_bytes(self.parent_id);
        write!(f, "00-{trace_id:032x}-{parent_id:016x}-{:02x}", self.flags)
    }
}

/// Metadata pairs, checked but not collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata<'a> {
    pairs: u16,
    bytes: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// The pairs in the order in which the caller gave them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.pairs).map_while(move |_| reader.pair().ok())
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.pairs)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs == 0
    }
}

/// A decoded envelope. The body's length in bytes says where it begins: it ends with the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// A one-way message or a request.
    Message {
        /// The prefix.
        head: MessageHead<'a>,
        /// The codec's bytes.
        body: &'a [u8],
    },
    /// A reply, or why there is none.
    Reply {
        /// The codec's bytes, or the error.
        outcome: Result<&'a [u8], ReplyError>,
        /// The answering end's metadata.
        metadata: Metadata<'a>,
    },
    /// The caller of a request waits no more.
    Cancellation {
        /// The request's reply token.
        reply_token: UID,
    },
    /// The answer to an embedded promise, from wherever that went. A kind of its own, so that whoever
    /// answers a promise for somebody else cannot be made to answer a request with it.
    PromiseAnswer {
        /// The codec's bytes, or the error.
        outcome: Result<&'a [u8], ReplyError>,
        /// The answering end's metadata.
        metadata: Metadata<'a>,
    },
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of one packet.
    ///
    /// # Errors
    /// [`EnvelopeError`]; no input panics or allocates more than an error text that is there.
    pub fn decode(packet: &'a [u8]) -> Result<Self, EnvelopeError> {
        match Usual::decode(packet) {
            Some(usual) => Ok(usual.into()),
            None => Self::decode_any(packet),
        }
    }

    fn decode_any(packet: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut reader = Reader::new(packet);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(EnvelopeError::UnsupportedVersion { version });
        }
        let kind = reader.u8()?;
        let flags = reader.u16()?;
        match kind {
            KIND_MESSAGE => decode_message(flags, reader),
            KIND_REPLY => {
                let (outcome, metadata) = decode_reply(flags, reader)?;
                Ok(Self::Reply { outcome, metadata })
            }
            KIND_PROMISE_ANSWER => {
                let (outcome, metadata) = decode_reply(flags, reader)?;
                Ok(Self::PromiseAnswer { outcome, metadata })
            }
            KIND_CANCELLATION => decode_cancellation(flags, reader),
            kind => Err(EnvelopeError::UnknownKind { kind }),
        }
    }
}

/// Writes the prefix of a request, or of a one-way message if there is no reply token.
pub(crate) fn put_message_head(reply_token: Option<UID>, buffer: &mut impl BufMut) {
    let head = MessageHead {
        reply_token,
        ..MessageHead::default()
    };
    put_head(&head, buffer);
}

/// Writes the prefix of a message with everything that it says.
#[inline]
pub(crate) fn put_head(head: &MessageHead<'_>, buffer: &mut impl BufMut) {
    if let MessageHead {
        reply_token: Some(token),
        deadline: Some(remaining),
        trace: None,
        metadata: Metadata { pairs: 0, .. },
    } = head
    {
        return buffer.put_slice(&usual::request_head(*token, *remaining));
    }
    put_any_head(head, buffer);
}

fn put_any_head(head: &MessageHead<'_>, buffer: &mut impl BufMut) {
    let flag = |is_there: bool, flag: u16| if is_there { flag } else { 0 };
    let flags = flag(head.reply_token.is_some(), FLAG_REPLY_TOKEN)
        | flag(head.deadline.is_some(), FLAG_DEADLINE)
        | flag(head.trace.is_some(), FLAG_TRACE)
        | flag(!head.metadata.is_empty(), FLAG_METADATA);
    put_fixed(flags, head, buffer);
    if let Some(trace) = &head.trace {
        buffer.put_slice(&trace.trace_id);
        buffer.put_slice(&trace.parent_id);
        buffer.put_u8(trace.flags);
        let length = u16::try_from(trace.state.len()).unwrap_or(u16::MAX);
        buffer.put_u16_le(length);
        buffer.put_slice(&trace.state[..usize::from(length)]);
    }
    if !head.metadata.is_empty() {
        buffer.put_u16_le(head.metadata.pairs);
        buffer.put_slice(head.metadata.bytes);
    }
}

/// Writes what has the same length in every message, in one go.
fn put_fixed(flags: u16, head: &MessageHead<'_>, buffer: &mut impl BufMut) {
    const LONGEST: usize = REQUEST_PREFIX_BYTES + 8;
    let mut bytes = [0; LONGEST];
    let mut size = 4;
    bytes[..4].copy_from_slice(&start(KIND_MESSAGE, flags));
    if let Some(token) = head.reply_token {
        bytes[4..REQUEST_PREFIX_BYTES].copy_from_slice(&token.to_le_bytes());
        size = REQUEST_PREFIX_BYTES;
    }
    if let Some(remaining) = head.deadline {
        bytes[size..size + 8].copy_from_slice(&whole_nanos(remaining).to_le_bytes());
        size += 8;
    }
    buffer.put_slice(&bytes[..size]);
}

/// In nanoseconds. What is longer than 584 years is as good as endless.
#[inline]
fn whole_nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().checked_mul(1_000_000_000);
    seconds
        .and_then(|nanos| nanos.checked_add(u64::from(duration.subsec_nanos())))
        .unwrap_or(u64::MAX)
}

/// Writes that the caller of a request waits no more.
pub(crate) fn put_cancellation(reply_token: UID, buffer: &mut impl BufMut) {
    put_start(KIND_CANCELLATION, 0, buffer);
    put_token(reply_token, buffer);
}

/// Writes the prefix of a reply, up to the codec's bytes.
pub(crate) fn put_reply_head(buffer: &mut impl BufMut) {
    buffer.put_slice(&answer_start(KIND_REPLY));
}

/// Writes a reply that is an error.
pub(crate) fn put_reply_error(error: &ReplyError, buffer: &mut impl BufMut) {
    put_start(KIND_REPLY, 0, buffer);
    put_error(error, buffer);
}

/// Writes the prefix of the answer to an embedded promise, up to the codec's bytes.
pub(crate) fn put_promise_answer_head(buffer: &mut impl BufMut) {
    buffer.put_slice(&answer_start(KIND_PROMISE_ANSWER));
}

/// Writes an answer to an embedded promise that is an error.
pub(crate) fn put_promise_answer_error(error: &ReplyError, buffer: &mut impl BufMut) {
    put_start(KIND_PROMISE_ANSWER, 0, buffer);
    put_error(error, buffer);
}

fn put_error(error: &ReplyError, buffer: &mut impl BufMut) {
    buffer.put_u8(status(error));
    match error {
        ReplyError::Serialization { message } => put_text(message, buffer),
        ReplyError::Application { code, message } => {
            buffer.put_u32_le(*code);
            put_text(message, buffer);
        }
        _ => {}
    }
}

/// Writes a token as it stands in every layout: `first`, then `second`.
pub(crate) fn put_token(token: UID, buffer: &mut impl BufMut) {
    buffer.put_slice(&token.to_le_bytes());
}

/// Two tokens, as `EndpointNotFound` carries one pair or several.
pub(crate) fn token_pair_bytes(first: UID, second: UID) -> [u8; 2 * TOKEN_BYTES] {
    let mut bytes = [0; 2 * TOKEN_BYTES];
    let mut rest = &mut bytes[..];
    put_token(first, &mut rest);
    put_token(second, &mut rest);
    bytes
}

/// Reads the pairs of tokens that fill a body, one or several. Bytes behind the last whole pair are
/// ignored.
pub(crate) fn token_pairs(
    body: &[u8],
) -> Result<impl Iterator<Item = (UID, UID)> + use<'_>, EnvelopeError> {
    let mut reader = Reader::new(body);
    let mut next = Some((reader.token()?, reader.token()?));
    Ok(std::iter::from_fn(move || {
        let pair = next.take()?;
        next = reader.token().ok().zip(reader.token().ok());
        Some(pair)
    }))
}

/// Bytes of a token.
pub(crate) const TOKEN_BYTES: usize = 16;

/// Reads the token that a body begins with.
pub(crate) fn leading_token(body: &[u8]) -> Result<UID, EnvelopeError> {
    Reader::new(body).token()
}

fn decode_message(flags: u16, mut reader: Reader<'_>) -> Result<Envelope<'_>, EnvelopeError> {
    refuse_unknown(flags, MESSAGE_FLAGS)?;
    let head = MessageHead {
        reply_token: (flags & FLAG_REPLY_TOKEN != 0)
            .then(|| reader.token())
            .transpose()?,
        deadline: (flags & FLAG_DEADLINE != 0)
            .then(|| reader.u64().map(Duration::from_nanos))
            .transpose()?,
        trace: (flags & FLAG_TRACE != 0)
            .then(|| reader.trace())
            .transpose()?,
        metadata: reader.metadata(flags)?,
    };
    Ok(Envelope::Message {
        head,
        body: reader.rest(),
    })
}

type Answer<'a> = (Result<&'a [u8], ReplyError>, Metadata<'a>);

fn decode_reply(flags: u16, mut reader: Reader<'_>) -> Result<Answer<'_>, EnvelopeError> {
    refuse_unknown(flags, REPLY_FLAGS)?;
    let metadata = reader.metadata(flags)?;
    let outcome = match reader.u8()? {
        0 => Ok(reader.rest()),
        status => Err(decode_error(status, &mut reader)?),
    };
    Ok((outcome, metadata))
}

fn decode_cancellation(flags: u16, mut reader: Reader<'_>) -> Result<Envelope<'_>, EnvelopeError> {
    refuse_unknown(flags, 0)?;
    Ok(Envelope::Cancellation {
        reply_token: reader.token()?,
    })
}

fn decode_error(status: u8, reader: &mut Reader<'_>) -> Result<ReplyError, EnvelopeError> {
    Ok(match status {
        1 => ReplyError::BrokenPromise,
        2 => ReplyError::ConnectionFailed,
        3 => ReplyError::MaybeDelivered,
        4 => ReplyError::Timeout,
        5 => ReplyError::Serialization {
            message: reader.text()?.to_owned(),
        },
        6 => ReplyError::EndpointNotFound,
        7 => ReplyError::Unauthorized,
        8 => ReplyError::Overloaded,
        9 => ReplyError::PayloadTooLarge,
        10 => ReplyError::ReplyTooLarge,
        11 => ReplyError::Cancelled,
        12 => ReplyError::Application {
            code: reader.u32()?,
            message: reader.text()?.to_owned(),
        },
        status => return Err(EnvelopeError::UnknownStatus { status }),
    })
}

fn status(error: &ReplyError) -> u8 {
    match error {
        ReplyError::BrokenPromise => 1,
        ReplyError::ConnectionFailed => 2,
        ReplyError::MaybeDelivered => 3,
        ReplyError::Timeout => 4,
        ReplyError::Serialization { .. } => 5,
        ReplyError::EndpointNotFound => 6,
        ReplyError::Unauthorized | ReplyError::Refused(Refusal::Unauthorized) => 7,
        ReplyError::Overloaded | ReplyError::Refused(Refusal::Overloaded) => 8,
        ReplyError::PayloadTooLarge => 9,
        ReplyError::ReplyTooLarge => 10,
        ReplyError::Cancelled => 11,
        ReplyError::Application { .. } => 12,
    }
}

fn refuse_unknown(flags: u16, known: u16) -> Result<(), EnvelopeError> {
    match flags & !known {
        0 => Ok(()),
        flags => Err(EnvelopeError::UnknownFlags { flags }),
    }
}

fn put_start(kind: u8, flags: u16, buffer: &mut impl BufMut) {
    buffer.put_slice(&start(kind, flags));
}

/// What an answer that is no error begins with.
fn answer_start(kind: u8) -> [u8; 5] {
    let [version, kind, low, high] = start(kind, 0);
    [version, kind, low, high, 0]
}

/// What every envelope begins with.
fn start(kind: u8, flags: u16) -> [u8; 4] {
    let [low, high] = flags.to_le_bytes();
    [VERSION, kind, low, high]
}

fn put_text(text: &str, buffer: &mut impl BufMut) {
    // A text beyond 4 GiB is far beyond any packet limit: the packet is refused, not its length.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    buffer.put_u32_le(length);
    buffer.put_slice(text.as_bytes());
}

/// Takes fields off the front of a packet and checks each against its end.
#[derive(Clone, Debug)]
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(packet: &'a [u8]) -> Self {
        Self { packet, at: 0 }
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], EnvelopeError> {
        let need = self.at.saturating_add(count);
        let Some(bytes) = self.packet.get(self.at..need) else {
            return Err(EnvelopeError::Truncated {
                need,
                have: self.packet.len(),
            });
        };
        self.at = need;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, EnvelopeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, EnvelopeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, EnvelopeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, EnvelopeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn token(&mut self) -> Result<UID, EnvelopeError> {
        Ok(UID::new(self.u64()?, self.u64()?))
    }

    fn text(&mut self) -> Result<&'a str, EnvelopeError> {
        let length = self.u32()?;
        as_text(self.bytes(usize::try_from(length).unwrap_or(usize::MAX))?)
    }

    fn trace(&mut self) -> Result<TraceContext<'a>, EnvelopeError> {
        let trace_id = self.array()?;
        let parent_id = self.array()?;
        let flags = self.u8()?;
        let length = self.u16()?;
        Ok(TraceContext {
            trace_id,
            parent_id,
            flags,
            state: self.bytes(usize::from(length))?,
        })
    }

    fn metadata(&mut self, flags: u16) -> Result<Metadata<'a>, EnvelopeError> {
        if flags & FLAG_METADATA == 0 {
            return Ok(Metadata::default());
        }
        let pairs = self.u16()?;
        let start = self.at;
        for _ in 0..pairs {
            self.pair()?;
        }
        Ok(Metadata {
            pairs,
            bytes: &self.packet[start..self.at],
        })
    }

    fn pair(&mut self) -> Result<(&'a str, &'a [u8]), EnvelopeError> {
        let key_length = self.u16()?;
        let key = as_text(self.bytes(usize::from(key_length))?)?;
        let value_length = self.u32()?;
        let value = self.bytes(usize::try_from(value_length).unwrap_or(usize::MAX))?;
        Ok((key, value))
    }

    fn rest(&self) -> &'a [u8] {
        &self.packet[self.at..]
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_utf8| EnvelopeError::InvalidText)
}

#[cfg(test)]
mod tests;
