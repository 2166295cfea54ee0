//! The coverage list: every way in which a call can end, and every reason for which a transport refuses
//! to send, has to be seen in a campaign.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use moonpool::foundation::sometimes_assert;
use moonpool::{ReplyError, TransportError};

use super::ledger::Ending;

/// How often each thing was seen, over all seeds.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    endings: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    limits: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Tally {
    pub(crate) fn add(&self, name: &'static str, count: u64) {
        *self.endings.lock().unwrap().entry(name).or_default() += count;
    }

    /// A limit was reached.
    pub(crate) fn limit(&self, name: &str) {
        let mut counts = self.limits.lock().unwrap();
        *counts.entry(name.to_owned()).or_default() += 1;
    }

    pub(crate) fn has_limit(&self, name: &str) -> bool {
        self.limits.lock().unwrap().contains_key(name)
    }

    pub(crate) fn print(&self) {
        for (name, count) in self.endings.lock().unwrap().iter() {
            println!("{count:>9} {name}");
        }
        for (name, count) in self.limits.lock().unwrap().iter() {
            println!("{count:>9} limit: {name}");
        }
    }
}

/// One line per variant: its name, what is covered, and the pattern. A variant of the enum that is on
/// no line fails [`the_list_names_every_variant`].
macro_rules! coverage_list {
    ($names:ident, $cover:ident, $error:ty, { $($variant:ident, $site:ident, $pattern:pat,)+ }) => {
        const $names: &[&str] = &[$(stringify!($variant)),+];

        fn $cover(error: &$error) -> &'static str {
            $(sometimes_assert!($site, matches!(error, $pattern), "a call ended like that");)+
            match error {
                $($pattern => concat!(stringify!($error), "::", stringify!($variant)),)+
                _ => unreachable!("{error:?} is not on the coverage list"),
            }
        }
    };
}

coverage_list!(REPLY_ERRORS, cover_reply_error, ReplyError, {
    BrokenPromise, outcome_broken_promise, ReplyError::BrokenPromise,
    ConnectionFailed, outcome_connection_failed, ReplyError::ConnectionFailed,
    MaybeDelivered, outcome_maybe_delivered, ReplyError::MaybeDelivered,
    Timeout, outcome_timeout, ReplyError::Timeout,
    Serialization, outcome_serialization, ReplyError::Serialization { .. },
    EndpointNotFound, outcome_endpoint_not_found, ReplyError::EndpointNotFound,
    Unauthorized, outcome_unauthorized, ReplyError::Unauthorized,
    Overloaded, outcome_overloaded, ReplyError::Overloaded,
    PayloadTooLarge, outcome_payload_too_large, ReplyError::PayloadTooLarge,
    ReplyTooLarge, outcome_reply_too_large, ReplyError::ReplyTooLarge,
    Application, outcome_application, ReplyError::Application { .. },
});

/// Of the server's side alone: no caller sees them.
const NEVER_OUTCOMES: [&str; 2] = ["Cancelled", "Refused"];

coverage_list!(TRANSPORT_ERRORS, cover_transport_error, TransportError, {
    QueueFull, refused_queue_full, TransportError::QueueFull,
    PayloadTooLarge, refused_payload_too_large, TransportError::PayloadTooLarge { .. },
    Codec, refused_codec, TransportError::Codec(_),
    TlsNotSupported, refused_tls, TransportError::TlsNotSupported { .. },
    NoDestination, refused_no_destination, TransportError::NoDestination { .. },
    ReservedToken, refused_reserved_token, TransportError::ReservedToken { .. },
    TooManyCalls, refused_too_many_calls, TransportError::TooManyCalls,
    MetadataTooLarge, refused_metadata_too_large, TransportError::MetadataTooLarge,
    PeerConfig, refused_peer_config, TransportError::PeerConfig(_),
    NoAddress, refused_no_address, TransportError::NoAddress,
    Closed, refused_closed, TransportError::Closed,
});

/// A call has ended.
pub(crate) fn cover_outcome(ending: &Ending, tally: &Tally) {
    let name = match ending {
        Ending::Answered => "answered",
        Ending::Failed(error) => cover_reply_error(error),
        Ending::NotSent => "not sent",
        Ending::GivenUp => "given up",
    };
    tally.add(name, 1);
    match ending {
        Ending::Failed(ReplyError::PayloadTooLarge) => tally.limit("payload_taken"),
        Ending::Failed(ReplyError::ReplyTooLarge) => tally.limit("reply"),
        Ending::Failed(ReplyError::Timeout) => tally.limit("time"),
        _ => {}
    }
    let is_answered = *ending == Ending::Answered;
    sometimes_assert!(outcome_answered, is_answered, "with its reply");
    sometimes_assert!(
        outcome_given_up,
        *ending == Ending::GivenUp,
        "by its caller"
    );
}

/// A transport did not send something.
pub(crate) fn cover_refusal(error: &TransportError, tally: &Tally) {
    tally.add(cover_transport_error(error), 1);
    match error {
        TransportError::TooManyCalls => tally.limit("pending_calls"),
        TransportError::PayloadTooLarge { .. } => tally.limit("payload_sent"),
        TransportError::MetadataTooLarge => tally.limit("metadata"),
        _ => {}
    }
}

/// The variants of an enum, as they stand in its source.
fn variants(source: &str, name: &str) -> Vec<String> {
    let (_, body) = source.split_once(&format!("pub enum {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let lines = lines.filter(|line| line.starts_with(char::is_uppercase));
    let names = lines.map(|line| line.split(|c: char| !c.is_alphanumeric()).next());
    names.map(|name| name.unwrap().to_owned()).collect()
}

#[test]
fn the_list_names_every_variant() {
    let source = include_str!("../../../src/messaging/static/reply_error.rs");
    let mut outcomes = variants(source, "ReplyError");
    outcomes.retain(|name| !NEVER_OUTCOMES.contains(&name.as_str()));
    assert_eq!(outcomes, REPLY_ERRORS);
    let source = include_str!("../../../src/error.rs");
    assert_eq!(variants(source, "TransportError"), TRANSPORT_ERRORS);
}
