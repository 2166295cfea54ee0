//! The golden files of envelopes, and what `docs/wire-format.md` says of their errors.

use std::time::Duration;

use super::*;

const TOKEN: UID = UID::new(0x1122_3344_5566_7788, 0x0000_0002_0000_0001);

/// The bytes of hexadecimal text, with remarks behind `#`.
macro_rules! golden {
    ($name:literal) => {
        bytes_of(include_str!(concat!(
            "../../../../tests/golden/envelope_",
            $name,
            ".hex"
        )))
    };
}

fn bytes_of(text: &str) -> Vec<u8> {
    let bytes = text.lines().flat_map(|line| {
        let bytes = line.split('#').next().unwrap_or_default();
        bytes.split_whitespace()
    });
    bytes
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes);
    bytes
}

#[test]
fn messages_have_their_golden_bytes() {
    let one_way = written(|bytes| {
        put_message_head(None, bytes);
        bytes.extend_from_slice(b"raw");
    });
    assert_eq!(one_way, golden!("one_way"));
    let request = written(|bytes| {
        put_message_head(Some(TOKEN), bytes);
        bytes.extend_from_slice(b"{}");
    });
    assert_eq!(request, golden!("request"));
    let cancellation = written(|bytes| put_cancellation(TOKEN, bytes));
    assert_eq!(cancellation, golden!("cancellation"));
    let not_found = written(|bytes| {
        put_message_head(None, bytes);
        put_token(TOKEN, bytes);
        put_token(
            UID::new(0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
            bytes,
        );
    });
    assert_eq!(not_found, golden!("endpoint_not_found"));
}

#[test]
fn replies_have_their_golden_bytes() {
    let reply = written(|bytes| {
        put_reply_head(bytes);
        bytes.extend_from_slice(b"42");
    });
    assert_eq!(reply, golden!("reply"));
    let answer = written(|bytes| {
        put_promise_answer_head(bytes);
        bytes.extend_from_slice(b"42");
    });
    assert_eq!(answer, golden!("promise_answer"));
    let broken = written(|bytes| put_promise_answer_error(&ReplyError::BrokenPromise, bytes));
    assert_eq!(broken, [VERSION, KIND_PROMISE_ANSWER, 0, 0, 1]);
    let serialization = ReplyError::Serialization {
        message: "bad".to_owned(),
    };
    let errors = [
        (ReplyError::BrokenPromise, golden!("reply_broken_promise")),
        (serialization, golden!("reply_serialization")),
        (
            ReplyError::application(0x0102, "no"),
            golden!("reply_application"),
        ),
    ];
    for (error, golden) in errors {
        assert_eq!(written(|bytes| put_reply_error(&error, bytes)), golden);
    }
}

#[test]
fn a_request_with_everything_has_its_golden_bytes() {
    let bytes = golden!("request_full");
    let Ok(Envelope::Message { head, body }) = Envelope::decode(&bytes) else {
        panic!("no message");
    };
    let written = written(|bytes| {
        put_head(&head, bytes);
        bytes.extend_from_slice(body);
    });
    assert_eq!(written, bytes);
    assert_eq!(
        bytes[usize::from(DEADLINE_OFFSET)..][..8],
        1_000_000_000_u64.to_le_bytes()
    );
    assert_eq!(head.reply_token, Some(TOKEN));
    assert_eq!(head.deadline, Some(Duration::from_secs(1)));
    let trace = head.trace.unwrap();
    assert_eq!((trace.trace_id[15], trace.parent_id[7]), (0x0F, 0xA7));
    assert_eq!((trace.flags, trace.state), (1, &b"a=b"[..]));
    let pairs: Vec<_> = head.metadata.iter().collect();
    assert_eq!(pairs, [("k", &b"v1"[..]), ("", &b""[..])]);
    assert_eq!(body, b"body");
}

#[test]
fn the_statuses_in_the_document_are_those_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire-format.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, table) = document.split_once("<!-- statuses -->\n").unwrap();
    let rows: Vec<_> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(3)
        .collect();
    for (index, row) in rows.iter().enumerate() {
        let code = u8::try_from(index + 1).unwrap();
        // Fields of zero: no code, no text.
        let bytes = [&[VERSION, KIND_REPLY, 0, 0, code], &[0; 8][..]].concat();
        let Ok(Envelope::Reply {
            outcome: Err(error),
            ..
        }) = Envelope::decode(&bytes)
        else {
            panic!("no error: {row}");
        };
        let name = format!("{error:?}");
        let name = name.split(' ').next().unwrap_or_default();
        assert!(
            row.starts_with(&format!("| {code} | `{name}` |")),
            "{row}: {error:?}"
        );
    }
    let beyond = u8::try_from(rows.len() + 1).unwrap();
    let bytes = [VERSION, KIND_REPLY, 0, 0, beyond];
    let unknown = Envelope::decode(&bytes);
    assert_eq!(
        unknown,
        Err(EnvelopeError::UnknownStatus { status: beyond })
    );
}
