//! Golden bytes, and what a decoder has to survive.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const TOKEN: UID = UID::new(0x1122_3344_5566_7788, 0x0000_0002_0000_0001);

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_request_has_its_golden_bytes() {
    let mut bytes = Vec::new();
    put_message_head(Some(TOKEN), &mut bytes);
    assert_eq!(bytes.len(), REQUEST_PREFIX_BYTES);
    bytes.extend_from_slice(b"{}");
    assert_eq!(
        bytes,
        hex("01 00 0100 8877665544332211 0100000002000000 7b7d")
    );
    let head = MessageHead {
        reply_token: Some(TOKEN),
        ..MessageHead::default()
    };
    let expected = Envelope::Message { head, body: b"{}" };
    assert_eq!(Envelope::decode(&bytes), Ok(expected));
}

#[test]
fn a_one_way_message_has_its_golden_bytes() {
    let mut bytes = Vec::new();
    put_message_head(None, &mut bytes);
    bytes.extend_from_slice(b"raw");
    assert_eq!(bytes, hex("01 00 0000 726177"));
    let Ok(Envelope::Message { head, body }) = Envelope::decode(&bytes) else {
        panic!("no message");
    };
    assert_eq!((head, body), (MessageHead::default(), &b"raw"[..]));
}

#[test]
fn a_reply_has_its_golden_bytes() {
    let mut bytes = Vec::new();
    put_reply_head(&mut bytes);
    bytes.extend_from_slice(b"42");
    assert_eq!(bytes, hex("01 01 0000 00 3432"));
    let Ok(Envelope::Reply { outcome, metadata }) = Envelope::decode(&bytes) else {
        panic!("no reply");
    };
    assert_eq!(outcome, Ok(&b"42"[..]));
    assert!(metadata.is_empty());
}

#[test]
fn every_error_has_its_golden_bytes() {
    let serialization = ReplyError::Serialization {
        message: "bad".to_owned(),
    };
    let goldens = [
        (ReplyError::BrokenPromise, "01 01 0000 01"),
        (ReplyError::ConnectionFailed, "01 01 0000 02"),
        (ReplyError::MaybeDelivered, "01 01 0000 03"),
        (ReplyError::Timeout, "01 01 0000 04"),
        (serialization, "01 01 0000 05 03000000 626164"),
        (ReplyError::EndpointNotFound, "01 01 0000 06"),
        (ReplyError::Unauthorized, "01 01 0000 07"),
        (ReplyError::Overloaded, "01 01 0000 08"),
        (ReplyError::PayloadTooLarge, "01 01 0000 09"),
        (ReplyError::ReplyTooLarge, "01 01 0000 0a"),
        (ReplyError::Cancelled, "01 01 0000 0b"),
        (
            ReplyError::application(0x0102, "no"),
            "01 01 0000 0c 02010000 02000000 6e6f",
        ),
    ];
    for (error, golden) in goldens {
        let mut bytes = Vec::new();
        put_reply_error(&error, &mut bytes);
        assert_eq!(bytes, hex(golden), "{error:?}");
        bytes.extend_from_slice(b"a later field");
        let Ok(Envelope::Reply { outcome, .. }) = Envelope::decode(&bytes) else {
            panic!("no reply");
        };
        assert_eq!(outcome, Err(error));
    }
}

#[test]
fn a_cancellation_has_its_golden_bytes() {
    let mut bytes = Vec::new();
    put_cancellation(TOKEN, &mut bytes);
    assert_eq!(bytes, hex("01 08 0000 8877665544332211 0100000002000000"));
    bytes.extend_from_slice(b"a later field");
    let expected = Envelope::Cancellation { reply_token: TOKEN };
    assert_eq!(Envelope::decode(&bytes), Ok(expected));
    for end in 4..20 {
        let error = Envelope::decode(&bytes[..end]).unwrap_err();
        assert_eq!(
            error,
            EnvelopeError::Truncated {
                need: if end < 12 { 12 } else { 20 },
                have: end
            }
        );
    }
}

#[test]
fn a_requests_deadline_stands_at_its_offset() {
    let head = MessageHead {
        reply_token: Some(TOKEN),
        deadline: Some(Duration::from_secs(1)),
        ..MessageHead::default()
    };
    let mut bytes = Vec::new();
    put_head(&head, &mut bytes);
    assert_eq!(
        bytes[usize::from(DEADLINE_OFFSET)..],
        hex("00ca9a3b00000000")
    );
    let endless = MessageHead {
        deadline: Some(Duration::MAX),
        ..head
    };
    bytes.clear();
    put_head(&endless, &mut bytes);
    assert_eq!(bytes[usize::from(DEADLINE_OFFSET)..], [0xff; 8]);
}

#[test]
fn optional_parts_are_written_as_they_are_read() {
    let whole = hex(OPTIONAL_PARTS);
    let Ok(Envelope::Message { head, body }) = Envelope::decode(&whole) else {
        panic!("no message");
    };
    let mut extras = Extras::default();
    for (key, value) in head.metadata.iter() {
        extras.push(key, value);
    }
    extras.set_trace(&head.trace.unwrap());
    assert!(extras.fits());
    let written = MessageHead {
        trace: extras.trace(),
        metadata: extras.metadata(),
        ..head
    };
    assert_eq!(written, head);
    let mut bytes = Vec::new();
    put_head(&written, &mut bytes);
    bytes.extend_from_slice(body);
    assert_eq!(bytes, whole);
}

#[test]
fn metadata_is_bounded() {
    let mut extras = Extras::default();
    for _ in 0..MAX_METADATA_PAIRS {
        extras.push("k", b"v");
        assert!(extras.fits());
    }
    extras.push("k", b"v");
    assert!(!extras.fits());
    for (bytes, fits) in [
        (MAX_METADATA_BYTES - 7, true),
        (MAX_METADATA_BYTES - 6, false),
    ] {
        let mut extras = Extras::default();
        extras.push("k", &vec![0; bytes]);
        assert_eq!(extras.fits(), fits, "{bytes}");
    }
    for (bytes, fits) in [(MAX_METADATA_BYTES, true), (MAX_METADATA_BYTES + 1, false)] {
        let mut extras = Extras::default();
        let trace = TraceContext {
            trace_id: [1; 16],
            parent_id: [2; 8],
            flags: 1,
            state: &vec![b'x'; bytes],
        };
        extras.set_trace(&trace);
        assert_eq!(extras.fits(), fits, "{bytes}");
    }
}

const OPTIONAL_PARTS: &str = "01 00 0f00
    8877665544332211 0100000002000000
    00ca9a3b00000000
    000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7 01 0300 613d62
    0200 0100 6b 02000000 7631 0000 00000000
    626f6479";

#[test]
fn optional_parts_are_read_in_their_order() {
    let bytes = hex(OPTIONAL_PARTS);
    let Ok(Envelope::Message { head, body }) = Envelope::decode(&bytes) else {
        panic!("no message");
    };
    assert_eq!(head.reply_token, Some(TOKEN));
    assert_eq!(head.deadline, Some(Duration::from_secs(1)));
    let trace = head.trace.unwrap();
    assert_eq!(trace.trace_id[15], 0x0f);
    assert_eq!(trace.parent_id[0], 0xa0);
    assert_eq!((trace.flags, trace.state), (1, &b"a=b"[..]));
    let pairs: Vec<_> = head.metadata.iter().collect();
    assert_eq!(pairs, [("k", &b"v1"[..]), ("", &b""[..])]);
    assert_eq!(head.metadata.len(), 2);
    assert_eq!(body, b"body");
}

#[test]
fn every_prefix_of_the_optional_parts_is_truncated() {
    let whole = hex("01 00 0f00
         8877665544332211 0100000002000000 00ca9a3b00000000
         000102030405060708090a0b0c0d0e0f a0a1a2a3a4a5a6a7 01 0300 613d62
         0100 0100 6b 02000000 7631");
    assert!(Envelope::decode(&whole).is_ok());
    for end in 0..whole.len() {
        let error = Envelope::decode(&whole[..end]).unwrap_err();
        assert!(
            matches!(error, EnvelopeError::Truncated { have, need } if have == end && need > end),
            "{end}: {error:?}"
        );
    }
}

#[test]
fn what_this_version_does_not_know_is_a_typed_error() {
    let cases = [
        (
            "02 00 0000",
            EnvelopeError::UnsupportedVersion { version: 2 },
        ),
        ("01 02 0000", EnvelopeError::UnknownKind { kind: 2 }),
        ("01 0a 0000", EnvelopeError::UnknownKind { kind: 10 }),
        ("01 08 0100", EnvelopeError::UnknownFlags { flags: 1 }),
        ("01 00 1100", EnvelopeError::UnknownFlags { flags: 0x10 }),
        ("01 01 0100 00", EnvelopeError::UnknownFlags { flags: 1 }),
        ("01 01 0000 0d", EnvelopeError::UnknownStatus { status: 13 }),
        ("01 01 0000 05 01000000 ff", EnvelopeError::InvalidText),
    ];
    for (bytes, error) in cases {
        assert_eq!(Envelope::decode(&hex(bytes)), Err(error), "{bytes}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in vec(any::<u8>(), 0..200)) {
        let decoded = Envelope::decode(&bytes);
        if let Ok(Envelope::Message { head, body }) = decoded {
            prop_assert_eq!(head.metadata.iter().count(), head.metadata.len());
            prop_assert!(body.len() + 4 <= bytes.len());
        }
    }

    #[test]
    fn any_flags_decode_or_fail(kind in 0_u8..10, flags in 0_u8..32, rest in vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![VERSION, kind, flags, 0];
        bytes.extend_from_slice(&rest);
        if let Ok(Envelope::Message { head, .. }) = Envelope::decode(&bytes) {
            prop_assert_eq!(head.metadata.iter().count(), head.metadata.len());
        }
    }

    #[test]
    fn a_request_survives_the_round_trip(first: u64, second: u64, body in vec(any::<u8>(), 0..100)) {
        let token = UID::new(first, second);
        let mut bytes = Vec::new();
        put_message_head(Some(token), &mut bytes);
        bytes.extend_from_slice(&body);
        let Ok(Envelope::Message { head, body: decoded }) = Envelope::decode(&bytes) else {
            return Err(TestCaseError::fail("no message"));
        };
        prop_assert_eq!(head.reply_token, Some(token));
        prop_assert_eq!(decoded, &body[..]);
    }

    #[test]
    fn an_error_survives_the_round_trip(code: u32, text in ".{0,50}") {
        for error in [
            ReplyError::application(code, text.clone()),
            ReplyError::Serialization { message: text.clone() },
        ] {
            let mut bytes = Vec::new();
            put_reply_error(&error, &mut bytes);
            let Ok(Envelope::Reply { outcome, .. }) = Envelope::decode(&bytes) else {
                return Err(TestCaseError::fail("no reply"));
            };
            prop_assert_eq!(outcome, Err(error));
        }
    }
}

/// Nearly every packet takes the short way: it has to say what the long one says, errors included.
#[test]
fn the_short_way_to_read_an_envelope_gives_what_the_long_one_gives() {
    let head = MessageHead {
        reply_token: Some(UID::new(3, 4)),
        deadline: Some(Duration::from_nanos(u64::MAX)),
        ..MessageHead::default()
    };
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    put_head(&head, &mut request);
    put_reply_head(&mut reply);
    for packet in [&mut request, &mut reply] {
        packet.extend_from_slice(b"body");
        let usual = Envelope::from(Usual::decode(packet).unwrap());
        assert_eq!(Ok(usual), Envelope::decode_any(packet));
        for length in 0..packet.len() {
            let part = &packet[..length];
            assert_eq!(Envelope::decode(part), Envelope::decode_any(part));
        }
        for at in 0..8 {
            let mut changed = packet.clone();
            for value in 0..=u8::MAX {
                changed[at] = value;
                assert_eq!(Envelope::decode(&changed), Envelope::decode_any(&changed));
            }
        }
    }
}
