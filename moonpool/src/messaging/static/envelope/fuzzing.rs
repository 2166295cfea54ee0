//! What must hold for an envelope of any bytes. Not part of the API.
//!
//! Called by the fuzz target and, with seeded inputs, by a test below.

use bytes::BufMut;

use super::{
    Envelope, FLAG_DEADLINE, FLAG_METADATA, FLAG_REPLY_TOKEN, FLAG_TRACE, KIND_MESSAGE,
    KIND_PROMISE_ANSWER, KIND_REPLY, MESSAGE_FLAGS, Metadata, REPLY_FLAGS, put_cancellation,
    put_reply_error, put_start, put_token,
};
use crate::ReplyError;

/// Bytes of the fields that every envelope has.
const START_BYTES: usize = 4;

/// The envelope decoder: the bytes as one packet's payload.
///
/// # Panics
/// If a property is broken.
pub fn envelope(bytes: &[u8]) {
    let Ok(decoded) = Envelope::decode(bytes) else {
        return;
    };
    let (body, metadata, known) = match &decoded {
        Envelope::Message { head, body } => (Some(*body), head.metadata, MESSAGE_FLAGS),
        Envelope::Reply { outcome, metadata } | Envelope::PromiseAnswer { outcome, metadata } => {
            (outcome.as_ref().ok().copied(), *metadata, REPLY_FLAGS)
        }
        Envelope::Cancellation { .. } => (None, Metadata::default(), 0),
    };
    let flags = bytes.get(2..).and_then(|rest| rest.first_chunk());
    assert!(flags.is_some_and(|flags| u16::from_le_bytes(*flags) & !known == 0));
    if let Some(body) = body {
        assert!(bytes.ends_with(body) && body.len() + START_BYTES <= bytes.len());
    }
    check_metadata(metadata, bytes.len());
    if let Envelope::Reply {
        outcome:
            Err(ReplyError::Serialization { message } | ReplyError::Application { message, .. }),
        ..
    }
    | Envelope::PromiseAnswer {
        outcome:
            Err(ReplyError::Serialization { message } | ReplyError::Application { message, .. }),
        ..
    } = &decoded
    {
        assert!(
            message.len() <= bytes.len(),
            "a text is longer than its packet"
        );
    }
    let again = encode(&decoded);
    assert!(again.len() <= bytes.len());
    assert_eq!(Envelope::decode(&again), Ok(decoded));
}

fn check_metadata(metadata: Metadata<'_>, packet_bytes: usize) {
    assert_eq!(metadata.iter().count(), metadata.len());
    let pairs = metadata.iter();
    let bytes: usize = pairs.map(|(key, value)| 6 + key.len() + value.len()).sum();
    assert!(bytes <= packet_bytes);
}

/// The envelope written down a second time, with everything that it may carry.
fn encode(envelope: &Envelope<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    match envelope {
        Envelope::Message { head, body } => {
            let flags = [
                (head.reply_token.is_some(), FLAG_REPLY_TOKEN),
                (head.deadline.is_some(), FLAG_DEADLINE),
                (head.trace.is_some(), FLAG_TRACE),
                (!head.metadata.is_empty(), FLAG_METADATA),
            ];
            put_start(KIND_MESSAGE, set(&flags), &mut bytes);
            if let Some(token) = head.reply_token {
                put_token(token, &mut bytes);
            }
            if let Some(deadline) = head.deadline {
                bytes.put_u64_le(u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX));
            }
            if let Some(trace) = &head.trace {
                bytes.put_slice(&trace.trace_id);
                bytes.put_slice(&trace.parent_id);
                bytes.put_u8(trace.flags);
                bytes.put_u16_le(u16::try_from(trace.state.len()).unwrap_or(u16::MAX));
                bytes.put_slice(trace.state);
            }
            put_pairs(head.metadata, &mut bytes);
            bytes.put_slice(body);
        }
        Envelope::Cancellation { reply_token } => put_cancellation(*reply_token, &mut bytes),
        Envelope::Reply { outcome, metadata } => {
            encode_answer(KIND_REPLY, outcome, *metadata, &mut bytes);
        }
        Envelope::PromiseAnswer { outcome, metadata } => {
            encode_answer(KIND_PROMISE_ANSWER, outcome, *metadata, &mut bytes);
        }
    }
    bytes
}

fn encode_answer(
    kind: u8,
    outcome: &Result<&[u8], ReplyError>,
    metadata: Metadata<'_>,
    bytes: &mut Vec<u8>,
) {
    let flags = [(!metadata.is_empty(), FLAG_METADATA)];
    put_start(kind, set(&flags), bytes);
    put_pairs(metadata, bytes);
    match outcome {
        Ok(body) => {
            bytes.put_u8(0);
            bytes.put_slice(body);
        }
        Err(error) => {
            let mut alone = Vec::new();
            put_reply_error(error, &mut alone);
            bytes.put_slice(alone.get(START_BYTES..).unwrap_or_default());
        }
    }
}

fn set(flags: &[(bool, u16)]) -> u16 {
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |all, (_, flag)| all | flag)
}

fn put_pairs(metadata: Metadata<'_>, bytes: &mut Vec<u8>) {
    if metadata.is_empty() {
        return;
    }
    bytes.put_u16_le(u16::try_from(metadata.len()).unwrap_or(u16::MAX));
    for (key, value) in metadata.iter() {
        bytes.put_u16_le(u16::try_from(key.len()).unwrap_or(u16::MAX));
        bytes.put_slice(key.as_bytes());
        bytes.put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
        bytes.put_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::envelope;
    use moonpool_foundation::fuzzing::{Generator, corpus};

    #[test]
    fn any_bytes_are_an_envelope_or_a_typed_error() {
        let kept = corpus("envelope");
        kept.iter().for_each(|input| envelope(input));
        let mut generator = Generator::new(0, kept);
        for _ in 0..10_000 {
            envelope(&generator.next_input());
        }
    }
}
