//! An oracle over deliveries: senders and receivers publish what they accepted and what they got, and
//! invariants compare the two across processes.
//!
//! It asks for what [`Peer`](crate::Peer)s promise. Over acknowledged sessions ([`sessions`]): each
//! reliable packet arrives once and in order, and at quiescence every one that was accepted has arrived
//! or was reported in a [`SessionEnded`]. Between bare peers ([`bare_peers`]): each packet arrives at
//! most once, and in order within its connection. Of both: nothing arrives that was not sent, nothing
//! that was reported as not delivered, and an unreliable packet at most once.
//!
//! Packets are known by numbers that a test puts into their payloads. Reliable ones are numbered as
//! [`PeerHandle::send_reliable`](crate::PeerHandle::send_reliable) numbers them: from 1, one more for
//! each that was accepted.
//!
//! ```
//! use moonpool_foundation::chaos::oracle::{self, ReceiverLog, SenderLog};
//! use moonpool_foundation::{PacketId, SimulationBuilder, SimulationMetrics};
//!
//! let report = SimulationBuilder::new()
//!     .set_iterations(1)
//!     .register_workload("both", |_random, _network, _time, _task, topology| async move {
//!         let sent = SenderLog::new(&topology.state_registry, "client");
//!         let received = ReceiverLog::new(&topology.state_registry, "server");
//!         sent.reliable_sent(PacketId::new(1));
//!         sent.reliable_sent(PacketId::new(2));
//!         // No packet 1: it is lost.
//!         received.reliable_received("client", 0, 2);
//!         Ok(SimulationMetrics::default())
//!     })
//!     .with_invariants(oracle::sessions())
//!     .run();
//! let verdict = report.individual_metrics[0].verdict.to_string();
//! assert!(verdict.contains("reliable packet 1 of client was neither received nor reported"));
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::invariants::InvariantCheck;
use super::state_registry::{StateRegistry, States};
use crate::network::peer::{PacketId, SessionEnded};

const SENDER: &str = "sender/";
const RECEIVER: &str = "receiver/";

const RELIABLE_SENT: &str = "reliable_sent";
const UNRELIABLE_SENT: &str = "unreliable_sent";
const NOT_DELIVERED: &str = "not_delivered";
const MAYBE_DELIVERED: &str = "maybe_delivered";
const RELIABLE_RECEIVED: &str = "reliable_received";
const UNRELIABLE_RECEIVED: &str = "unreliable_received";

/// What one sending peer accepted, published as the state `sender/<name>`.
#[derive(Clone, Debug)]
pub struct SenderLog {
    registry: StateRegistry,
    key: String,
}

impl SenderLog {
    /// The log of the sender `name`: one for each peer, since each numbers its packets from 1.
    #[must_use]
    pub fn new(registry: &StateRegistry, name: &str) -> Self {
        let log = Self {
            registry: registry.clone(),
            key: format!("{SENDER}{name}"),
        };
        log.registry.register_state(log.key.clone(), json!({}));
        log
    }

    /// The peer accepted a reliable packet. To be said before the task waits for anything: a packet
    /// that arrives first was not sent.
    pub fn reliable_sent(&self, packet: PacketId) {
        self.push(RELIABLE_SENT, packet.get());
    }

    /// The peer took an unreliable packet, whose number no other has.
    pub fn unreliable_sent(&self, number: u64) {
        self.push(UNRELIABLE_SENT, number);
    }

    /// The peer reported the end of a session or connection.
    pub fn session_ended(&self, ended: &SessionEnded) {
        for (list, range) in [
            (NOT_DELIVERED, &ended.not_delivered),
            (MAYBE_DELIVERED, &ended.maybe_delivered),
        ] {
            for number in range.start.get()..range.end.get() {
                self.push(list, number);
            }
        }
    }

    fn push(&self, list: &str, number: u64) {
        self.registry
            .update_state(&self.key, |state| push(state, list, number));
    }
}

/// What one receiver got, published as the state `receiver/<name>`.
#[derive(Clone, Debug)]
pub struct ReceiverLog {
    registry: StateRegistry,
    key: String,
}

impl ReceiverLog {
    /// The log of the receiver `name`. A process that is restarted begins one with another name.
    #[must_use]
    pub fn new(registry: &StateRegistry, name: &str) -> Self {
        let log = Self {
            registry: registry.clone(),
            key: format!("{RECEIVER}{name}"),
        };
        log.registry.register_state(log.key.clone(), json!({}));
        log
    }

    /// The reliable packet `number` of `sender` arrived on `stream`: the connection's number between
    /// bare peers, and 0 over a session, which connections are no concern of.
    pub fn reliable_received(&self, sender: &str, stream: u64, number: u64) {
        self.push(RELIABLE_RECEIVED, sender, stream, number);
    }

    /// The unreliable packet `number` of `sender` arrived on `stream`.
    pub fn unreliable_received(&self, sender: &str, stream: u64, number: u64) {
        self.push(UNRELIABLE_RECEIVED, sender, stream, number);
    }

    fn push(&self, list: &str, sender: &str, stream: u64, number: u64) {
        self.registry.update_state(&self.key, |state| {
            let streams = field(state, sender, Value::Object(Map::new()));
            let lists = field(streams, &stream.to_string(), Value::Object(Map::new()));
            push(lists, list, number);
        });
    }
}

/// What acknowledged sessions promise: see [the module](self).
#[must_use]
pub fn sessions() -> Vec<InvariantCheck> {
    vec![
        InvariantCheck::new("packets arrive once and in order", |states: &States, _| {
            check_arrivals(states, Order::OfSender)
        }),
        InvariantCheck::at_end("no reliable packet is lost", |states: &States, _| {
            check_accounts(states)
        }),
    ]
}

/// What bare peers promise: see [the module](self).
#[must_use]
pub fn bare_peers() -> Vec<InvariantCheck> {
    vec![InvariantCheck::new(
        "packets arrive at most once, in order",
        |states: &States, _| check_arrivals(states, Order::OfStream),
    )]
}

/// How far reliable packets keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// On whatever stream they arrive.
    OfSender,
    /// Within one stream.
    OfStream,
}

fn check_arrivals(states: &States, order: Order) -> Result<(), String> {
    let mut seen: BTreeMap<(&str, &str), BTreeSet<u64>> = BTreeMap::new();
    for (receiver, arrivals) in receivers(states) {
        for (sender, streams) in members(arrivals) {
            let sent = states.get(&format!("{SENDER}{sender}"));
            let sent =
                sent.ok_or_else(|| format!("{receiver} heard of {sender}, who sent nothing"))?;
            let mut last_of_sender = 0;
            for (_, lists) in members(streams) {
                let mut last = match order {
                    Order::OfSender => last_of_sender,
                    Order::OfStream => 0,
                };
                for number in numbers(lists, RELIABLE_RECEIVED) {
                    if number <= last {
                        return Err(format!(
                            "reliable packet {number} of {sender} reached {receiver} after {last}"
                        ));
                    }
                    last = number;
                }
                last_of_sender = last;
                for (received, sent_as) in [
                    (RELIABLE_RECEIVED, RELIABLE_SENT),
                    (UNRELIABLE_RECEIVED, UNRELIABLE_SENT),
                ] {
                    let seen = seen.entry((sender, received)).or_default();
                    check_list(numbers(lists, received), sent, sent_as, seen)
                        .map_err(|wrong| format!("of {sender} at {receiver}, {wrong}"))?;
                }
            }
        }
    }
    Ok(())
}

/// Whether each number was sent, arrives for the first time, and was not reported.
fn check_list(
    received: impl Iterator<Item = u64>,
    sent: &Value,
    sent_as: &str,
    seen: &mut BTreeSet<u64>,
) -> Result<(), String> {
    let reported: BTreeSet<u64> = match sent_as {
        RELIABLE_SENT => numbers(sent, NOT_DELIVERED).collect(),
        _ => BTreeSet::new(),
    };
    let sent: BTreeSet<u64> = numbers(sent, sent_as).collect();
    for number in received {
        if !sent.contains(&number) {
            return Err(format!("packet {number} arrived and is not in {sent_as}"));
        }
        if !seen.insert(number) {
            return Err(format!("packet {number} of {sent_as} arrived twice"));
        }
        if reported.contains(&number) {
            return Err(format!(
                "packet {number} arrived and was reported not delivered"
            ));
        }
    }
    Ok(())
}

/// Whether every reliable packet was received or reported.
fn check_accounts(states: &States) -> Result<(), String> {
    let mut received: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for (_, arrivals) in receivers(states) {
        for (sender, streams) in members(arrivals) {
            let known = received.entry(sender).or_default();
            for (_, lists) in members(streams) {
                known.extend(numbers(lists, RELIABLE_RECEIVED));
            }
        }
    }
    for (key, sent) in states {
        let Some(sender) = key.strip_prefix(SENDER) else {
            continue;
        };
        let mut known = received.remove(sender).unwrap_or_default();
        known.extend(numbers(sent, NOT_DELIVERED));
        known.extend(numbers(sent, MAYBE_DELIVERED));
        if let Some(lost) = numbers(sent, RELIABLE_SENT).find(|number| !known.contains(number)) {
            return Err(format!(
                "reliable packet {lost} of {sender} was neither received nor reported"
            ));
        }
    }
    Ok(())
}

fn receivers(states: &States) -> impl Iterator<Item = (&str, &Value)> {
    let named = states.iter();
    named.filter_map(|(key, state)| Some((key.strip_prefix(RECEIVER)?, state)))
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = value.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.as_str(), value))
}

fn numbers(lists: &Value, list: &str) -> impl Iterator<Item = u64> {
    let numbers = lists.get(list).and_then(Value::as_array);
    numbers.into_iter().flatten().filter_map(Value::as_u64)
}

/// The member `name` of an object; whatever else `value` is becomes one.
fn field<'a>(value: &'a mut Value, name: &str, empty: Value) -> &'a mut Value {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => members.entry(name.to_owned()).or_insert(empty),
        other => other,
    }
}

fn push(lists: &mut Value, list: &str, number: u64) {
    if let Value::Array(numbers) = field(lists, list, Value::Array(Vec::new())) {
        numbers.push(number.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The first promise that `log` breaks.
    fn verdict(
        checks: Vec<InvariantCheck>,
        log: impl Fn(&SenderLog, &ReceiverLog),
    ) -> Result<(), String> {
        let registry = StateRegistry::new();
        log(
            &SenderLog::new(&registry, "client"),
            &ReceiverLog::new(&registry, "server"),
        );
        registry.with_states(|states| {
            let mut checks = checks.iter();
            checks.try_for_each(|check| check.check(states, Duration::ZERO))
        })
    }

    fn send(sent: &SenderLog, packets: u64) {
        for number in 1..=packets {
            sent.reliable_sent(PacketId::new(number));
        }
    }

    fn ended(maybe: std::ops::Range<u64>, not_end: u64) -> SessionEnded {
        SessionEnded {
            maybe_delivered: PacketId::new(maybe.start)..PacketId::new(maybe.end),
            not_delivered: PacketId::new(maybe.end)..PacketId::new(not_end),
        }
    }

    #[test]
    fn what_arrives_once_and_in_order_is_fine() {
        let log = |sent: &SenderLog, received: &ReceiverLog| {
            send(sent, 3);
            sent.unreliable_sent(9);
            for number in 1..=3 {
                received.reliable_received("client", 0, number);
            }
            received.unreliable_received("client", 0, 9);
        };
        assert_eq!(verdict(sessions(), log), Ok(()));
        assert_eq!(verdict(bare_peers(), log), Ok(()));
    }

    #[test]
    fn a_repetition_a_swap_and_a_phantom_are_noticed() {
        for (arrivals, expected) in [
            (vec![1, 2, 2], "packet 2 of client reached server after 2"),
            (vec![2, 1], "packet 1 of client reached server after 2"),
            (
                vec![1, 2, 4],
                "packet 4 arrived and is not in reliable_sent",
            ),
        ] {
            for checks in [sessions(), bare_peers()] {
                let error = verdict(checks, |sent, received| {
                    send(sent, 3);
                    for number in &arrivals {
                        received.reliable_received("client", 0, *number);
                    }
                });
                assert!(error.clone().unwrap_err().contains(expected), "{error:?}");
            }
        }
    }

    #[test]
    fn bare_peers_keep_order_within_a_connection_only_but_never_repeat() {
        let log = |numbers: [u64; 2]| {
            move |sent: &SenderLog, received: &ReceiverLog| {
                send(sent, 2);
                received.reliable_received("client", 1, numbers[0]);
                received.reliable_received("client", 2, numbers[1]);
            }
        };
        assert_eq!(verdict(bare_peers(), log([2, 1])), Ok(()));
        assert!(verdict(sessions(), log([2, 1])).is_err());
        let twice = verdict(bare_peers(), log([1, 1])).unwrap_err();
        assert!(twice.contains("arrived twice"), "{twice}");
    }

    #[test]
    fn an_unreliable_packet_arrives_at_most_once() {
        let error = verdict(sessions(), |sent, received| {
            sent.unreliable_sent(7);
            sent.unreliable_sent(8);
            received.unreliable_received("client", 0, 7);
            received.unreliable_received("client", 0, 7);
        });
        assert!(
            error
                .unwrap_err()
                .contains("packet 7 of unreliable_sent arrived twice")
        );
    }

    #[test]
    fn what_is_not_received_must_be_reported() {
        let log = |report: SessionEnded| {
            move |sent: &SenderLog, received: &ReceiverLog| {
                send(sent, 4);
                received.reliable_received("client", 0, 1);
                sent.session_ended(&report);
                received.reliable_received("client", 0, 4);
            }
        };
        assert_eq!(verdict(sessions(), log(ended(2..4, 4))), Ok(()));
        let lost = verdict(sessions(), log(ended(2..3, 3))).unwrap_err();
        assert!(lost.contains("packet 3 of client was neither"), "{lost}");
        let wrong = verdict(sessions(), log(ended(2..3, 5))).unwrap_err();
        assert!(
            wrong.contains("packet 4 arrived and was reported"),
            "{wrong}"
        );
    }
}
