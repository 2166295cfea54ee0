//! Holds `docs/wire-format.md` against the golden files, the constants and the states; and the golden
//! files against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::messaging::wire::{
    MAX_PAYLOAD_LIMIT, MIN_PAYLOAD_LIMIT, SEQUENCED_PREFIX_SIZE, max_packet_size,
};
use crate::messaging::{
    HEADER_SIZE, MAX_PAYLOAD_SIZE, UID, WELL_KNOWN_RESERVED_COUNT, WellKnownToken,
    deserialize_packet, serialize_packet,
};

use super::exchange::{ACK_BYTES, ACK_PACKETS};
use super::frame::{Frame as Outgoing, FrameKind, Prefix};
use super::fuzzing::encode_frame;
use super::session::{
    ANSWER_SIZE, Frame, HELLO_SIZE, Hello, HelloAnswer, HelloKind, Outcome, VERSION,
};
use super::session_acceptor::{MAX_HANDSHAKES, MAX_HELLO_BYTES, MAX_SESSIONS};
use super::terms::PacketTerms;

const INNER_TOKEN: UID = UID::new(0x0102_0304_0506_0708, 0x1112_1314_1516_1718);
const SEQUENCE: u64 = 0x0102;
const ACK: u64 = 0x0304;
const NONCE: u64 = 1_500_000_000;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> String {
    fs::read_to_string(repository().join("docs/wire-format.md")).unwrap()
}

/// The golden files of both crates: their paths in the repository, and their texts.
fn golden_files() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for dir in ["moonpool-foundation/tests/golden", "moonpool/tests/golden"] {
        for entry in fs::read_dir(repository().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() != Some("hex".as_ref()) {
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            files.insert(format!("{dir}/{name}"), fs::read_to_string(&path).unwrap());
        }
    }
    files
}

/// The bytes of a line of a golden file.
fn line_bytes(line: &str) -> Vec<u8> {
    let text = line.split('#').next().unwrap_or_default();
    text.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn golden(name: &str) -> Vec<u8> {
    let path = format!("moonpool-foundation/tests/golden/{name}.hex");
    let files = golden_files();
    files[&path].lines().flat_map(line_bytes).collect()
}

/// The cells of the table behind a mark, without its head.
fn table(document: &str, mark: &str) -> Vec<Vec<String>> {
    let (_, behind) = document
        .split_once(&format!("<!-- {mark} -->\n"))
        .unwrap_or_else(|| panic!("the mark `{mark}` is not there"));
    behind
        .lines()
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

/// Offset and size of each field; the last one's size may be open.
fn layout(document: &str, mark: &str) -> Vec<(usize, Option<usize>)> {
    let rows = table(document, mark);
    let number = |text: &String| text.parse().ok();
    rows.iter()
        .map(|row| (number(&row[0]).unwrap(), number(&row[1])))
        .collect()
}

#[test]
fn every_golden_file_is_in_the_document_and_nothing_else() {
    let document = document();
    let mut blocks = BTreeMap::new();
    for part in document.split("```text\n").skip(1) {
        let (block, _) = part.split_once("```").unwrap();
        let before = &document[..document.find(block).unwrap()];
        let title = before.trim_end_matches("```text\n").trim_end();
        let named = title.lines().last().unwrap_or_default();
        if let Some(name) = named
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix("`:"))
        {
            blocks.insert(name.to_owned(), block.to_owned());
        }
    }
    assert_eq!(blocks, golden_files());
    let listed: BTreeSet<_> = table(&document, "files")
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    assert_eq!(listed, blocks.into_keys().collect());
}

#[test]
fn the_tokens_in_the_document_are_those_of_the_code() {
    let rows = table(&document(), "tokens");
    let all = [
        WellKnownToken::EndpointNotFound,
        WellKnownToken::Ping,
        WellKnownToken::UnauthorizedEndpoint,
        WellKnownToken::Hello,
        WellKnownToken::HelloAnswer,
        WellKnownToken::Sequenced,
        WellKnownToken::Ack,
        WellKnownToken::Skip,
        WellKnownToken::SessionPing,
        WellKnownToken::SessionPong,
        WellKnownToken::Close,
        WellKnownToken::Overloaded,
    ];
    assert_eq!(rows.len(), all.len());
    for (row, token) in rows.iter().zip(all) {
        assert_eq!(
            row[..2],
            [u32::from(token).to_string(), format!("{token:?}")]
        );
        let is_frame = WellKnownToken::session_frame(token.token()).is_some();
        assert_eq!(row[2].starts_with("session frame"), is_frame, "{row:?}");
    }
}

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    let constants = [
        ("HEADER_SIZE", HEADER_SIZE),
        ("SEQUENCED_PREFIX_SIZE", SEQUENCED_PREFIX_SIZE),
        ("MAX_PAYLOAD_SIZE", MAX_PAYLOAD_SIZE),
        ("MAX_PAYLOAD_LIMIT", MAX_PAYLOAD_LIMIT),
        ("MIN_PAYLOAD_LIMIT", MIN_PAYLOAD_LIMIT),
        ("HELLO_SIZE", HELLO_SIZE),
        ("ANSWER_SIZE", ANSWER_SIZE),
        ("MAX_HELLO_BYTES", MAX_HELLO_BYTES),
        ("ACK_PACKETS", ACK_PACKETS as usize),
        ("ACK_BYTES", ACK_BYTES),
        ("MAX_SESSIONS", MAX_SESSIONS),
        ("MAX_HANDSHAKES", MAX_HANDSHAKES),
        ("WELL_KNOWN_RESERVED_COUNT", WELL_KNOWN_RESERVED_COUNT),
        ("VERSION", usize::from(VERSION)),
    ];
    let rows = table(&document(), "limits");
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row[0].as_str(), row[1].parse().unwrap()))
        .collect();
    assert_eq!(told, constants);
    assert_eq!(max_packet_size(MAX_HELLO_BYTES), 1_080);
}

#[test]
fn the_layouts_in_the_document_have_no_gaps_and_the_sizes_of_the_code() {
    let document = document();
    let layouts = [
        ("layout packet", HEADER_SIZE, "packet"),
        ("layout hello 112", HELLO_SIZE, "hello"),
        ("layout answer 80", ANSWER_SIZE, "answer_fresh"),
        ("layout answer 80", ANSWER_SIZE, "answer_resumed"),
        ("layout answer 80", ANSWER_SIZE, "answer_superseded"),
        ("layout answer 80", ANSWER_SIZE, "answer_incompatible"),
        ("layout sequenced", SEQUENCED_PREFIX_SIZE, "sequenced"),
        ("layout ack 8", 8, "ack"),
        ("layout skip 16", 16, "skip"),
        ("layout ping 16", 16, "ping"),
        ("layout ping 16", 16, "pong"),
        ("layout close 8", 8, "close"),
    ];
    let address: Vec<_> = layout(&document, "layout address 24");
    assert_eq!(end_without_gaps(&address), 24);
    let files = golden_files();
    for (mark, size, file) in layouts {
        let fields = layout(&document, mark);
        assert_eq!(end_without_gaps(&fields), size, "{mark}");
        let mut offsets: BTreeSet<_> = fields.iter().map(|field| field.0).collect();
        if fields.last().is_some_and(|last| last.1 == Some(24)) {
            offsets.extend(address.iter().map(|field| size - 24 + field.0));
        }
        // Each line of a dump begins where a field does.
        let mut at = 0;
        let text = &files[&format!("moonpool-foundation/tests/golden/{file}.hex")];
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(offsets.contains(&at), "{file}: {line}");
            at += line_bytes(line).len();
        }
    }
}

/// Where the last field of a known size ends.
fn end_without_gaps(fields: &[(usize, Option<usize>)]) -> usize {
    fields.iter().fold(0, |end, (offset, size)| {
        assert_eq!(*offset, end, "{fields:?}");
        end + size.unwrap_or(0)
    })
}

#[test]
fn the_states_in_the_document_are_those_of_the_code() {
    let document = document();
    let diagrams: String = document
        .split("```mermaid\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
        .collect();
    let named: BTreeSet<_> = diagrams
        .lines()
        .filter_map(|line| line.split(':').next()?.split_once(" --> "))
        .flat_map(|(from, to)| [from.trim(), to.trim()])
        .filter(|name| *name != "[*]")
        .collect();
    assert_eq!(named, variants(include_str!("state.rs"), "enum Phase"));
    for step in variants(include_str!("state.rs"), "enum EndStep") {
        assert!(document.contains(&format!("`{step}` (")), "{step}");
    }
    let (_, drawing) = document.split_once("### The session's states").unwrap();
    for session in variants(include_str!("exchange.rs"), "enum Session") {
        assert!(drawing.contains(session), "{session}");
    }
}

/// The names of an enum's variants, as its source has them.
fn variants<'a>(source: &'a str, head: &str) -> BTreeSet<&'a str> {
    let (_, behind) = source.split_once(&format!("{head} {{\n")).unwrap();
    let (body, _) = behind.split_once("\n}").unwrap();
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .filter_map(|line| line.split([' ', ',', '(']).next())
        .collect()
}

#[test]
fn every_frame_has_its_golden_bytes() {
    let (sequence, ack, nonce) = (SEQUENCE, ACK, NONCE);
    let frames = [
        (
            "sequenced",
            WellKnownToken::Sequenced,
            Frame::Sequenced {
                sequence,
                ack,
                token: INNER_TOKEN,
                payload: b"hello",
            },
        ),
        ("ack", WellKnownToken::Ack, Frame::Ack { ack }),
        ("skip", WellKnownToken::Skip, Frame::Skip { sequence, ack }),
        (
            "ping",
            WellKnownToken::SessionPing,
            Frame::Ping { ack, nonce },
        ),
        (
            "pong",
            WellKnownToken::SessionPong,
            Frame::Pong { ack, nonce },
        ),
        ("close", WellKnownToken::Close, Frame::Close { ack }),
    ];
    for (name, kind, frame) in frames {
        let bytes = golden(name);
        assert_eq!(Frame::decode(kind, &bytes), Ok(Some(frame)), "{name}");
        assert_eq!(encode_frame(frame), (kind.token(), bytes), "{name}");
    }
}

#[test]
fn what_is_laid_out_has_the_golden_bytes() {
    let mut head = BytesMut::new();
    Prefix::Sequenced(INNER_TOKEN).write(&mut head);
    let body = Bytes::from_static(b"hello");
    let mut frame = Outgoing::new(head, FrameKind::Reliable, PacketTerms::default());
    frame.set_body(body);
    frame.sequence = SEQUENCE;
    frame.lay_out(ACK);
    let sequenced = serialize_packet(WellKnownToken::Sequenced.token(), &golden("sequenced"));
    assert_eq!(frame.laid_out(), sequenced);
    frame.become_skip();
    frame.lay_out(ACK);
    let skip = serialize_packet(WellKnownToken::Skip.token(), &golden("skip"));
    assert_eq!(frame.laid_out(), skip);
}

#[test]
fn every_greeting_has_its_golden_bytes() {
    let hello = golden("hello");
    let Ok(HelloKind::Compatible(decoded)) = Hello::decode(&hello) else {
        panic!("the golden Hello is compatible");
    };
    assert_eq!(decoded.encode()[..], hello);
    let outcomes = [
        (
            "answer_fresh",
            Outcome::Fresh {
                session: UID::new(0xB1, 0xB2),
            },
        ),
        (
            "answer_resumed",
            Outcome::Resumed {
                next_expected: 0x0102,
            },
        ),
        (
            "answer_superseded",
            Outcome::Superseded { generation: 0x0102 },
        ),
    ];
    for (name, outcome) in outcomes {
        let bytes = golden(name);
        let answer = HelloAnswer::decode(&bytes).unwrap();
        assert_eq!(answer.outcome, outcome);
        assert_eq!(answer.encode()[..], bytes, "{name}");
    }
    let refusal = golden("answer_incompatible");
    let decoded = HelloAnswer::decode(&refusal).unwrap();
    assert_eq!(decoded.outcome, Outcome::Incompatible { version_min: 3 });
    let again = HelloAnswer {
        incarnation: UID::new(0xA1, 0xA2),
        ..decoded
    };
    assert_eq!(again.encode()[..], refusal);
}

#[test]
fn the_golden_packet_is_one() {
    let bytes = golden("packet");
    assert_eq!(deserialize_packet(&bytes), Ok((INNER_TOKEN, &b"hello"[..])));
    assert_eq!(serialize_packet(INNER_TOKEN, b"hello"), bytes);
}
