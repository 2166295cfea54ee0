//! What stands outside the processes, whoever died since: who called whom for what, what was executed,
//! what became of the promises, and how the calls ended. Here it is judged whether that was true.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use moonpool::foundation::{FaultKind, SimProviders, always_assert};
use moonpool::prelude::*;

use super::limits::Narrowness;
use super::protocol::{Act, Girth, OVERHEAD, Place};

/// What the two ends take a message to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typing {
    Alike,
    /// The caller takes the reply to be of another type.
    ReplyMistaken,
}

/// What is asked, as its caller knows it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) server: NetworkAddress,
    pub(crate) place: Place,
    pub(crate) act: Act,
    pub(crate) padding: usize,
    pub(crate) typing: Typing,
    pub(crate) caller: UID,
    pub(crate) caller_girth: Girth,
    /// Made again when it ends without an answer.
    pub(crate) is_retried: bool,
    pub(crate) is_one_way: bool,
    pub(crate) is_tagged: bool,
    pub(crate) began: Duration,
    /// When it has to have ended.
    pub(crate) deadline: Option<Duration>,
    /// The deadline that its request carries.
    pub(crate) carried: Option<Duration>,
    /// Given up as soon as there is no connection for a moment: greeting takes longer at times.
    pub(crate) is_impatient: bool,
    /// How often it is sent at most.
    pub(crate) attempts: Option<usize>,
    /// The caller is never killed nor paused.
    pub(crate) is_steady: bool,
}

/// How a call ended, as its caller knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Answered,
    Failed(ReplyError),
    /// The transport did not take it.
    NotSent,
    GivenUp,
}

#[derive(Debug)]
struct Record {
    facts: Facts,
    /// The lives of servers that executed it.
    executed: Vec<u64>,
    /// A handler dropped its promise.
    is_broken: bool,
    /// A handler saw that nobody waited, while its caller still did.
    was_seen_cancelled: bool,
    ending: Option<Ending>,
}

/// See the [module's documentation](self).
#[derive(Default)]
pub(crate) struct Ledger {
    next: Cell<u64>,
    calls: RefCell<BTreeMap<u64, Record>>,
    /// Transports that private endpoints accept, by their incarnations.
    friends: RefCell<BTreeSet<UID>>,
    girths: RefCell<BTreeMap<NetworkAddress, (Girth, Narrowness)>>,
    /// Servers that were told to end once.
    stopped: RefCell<BTreeSet<NetworkAddress>>,
    /// Interfaces at endpoints of their own that were served at some time, and whether they still are.
    dynamic: RefCell<Vec<(Endpoint, bool)>>,
}

/// What may have happened without a connection's coming to harm.
const HARMLESS: [FaultKind; 7] = [
    FaultKind::LongTail,
    FaultKind::AsymmetricDelay,
    FaultKind::PartialWrite,
    FaultKind::PartialRead,
    FaultKind::ClockDrift,
    FaultKind::BuggifiedDelay,
    FaultKind::Segmentation,
];

/// Whether something has happened in this seed that breaks connections, or silences them.
fn is_disturbed(providers: &SimProviders) -> bool {
    let Some(world) = providers.world() else {
        return true;
    };
    let counts = world.fault_counts();
    let kinds = FaultKind::ALL.iter();
    let mut harmful = kinds.filter(|kind| !HARMLESS.contains(kind));
    harmful.any(|kind| counts.of(*kind) > 0)
}

fn fired(providers: &SimProviders, kind: FaultKind) -> u64 {
    let world = providers.world();
    world.map_or(0, |world| world.fault_counts().of(kind))
}

impl Ledger {
    /// A number that nobody else has.
    pub(crate) fn next(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    pub(crate) fn befriend(&self, incarnation: UID) {
        self.friends.borrow_mut().insert(incarnation);
    }

    pub(crate) fn is_friend(&self, incarnation: Option<UID>) -> bool {
        incarnation.is_some_and(|incarnation| self.friends.borrow().contains(&incarnation))
    }

    pub(crate) fn listens(&self, server: NetworkAddress, girth: Girth, narrowness: Narrowness) {
        let mut girths = self.girths.borrow_mut();
        girths.insert(server, (girth, narrowness));
    }

    fn girth(&self, server: NetworkAddress) -> Girth {
        let girths = self.girths.borrow();
        girths.get(&server).map_or(Girth::Wide, |(girth, _)| *girth)
    }

    /// A server was told to end: from now on it drops what it has not answered.
    pub(crate) fn stops(&self, server: NetworkAddress) {
        self.stopped.borrow_mut().insert(server);
    }

    pub(crate) fn has_stopped(&self, server: NetworkAddress) -> bool {
        self.stopped.borrow().contains(&server)
    }

    pub(crate) fn publishes(&self, base: Endpoint) {
        let mut dynamic = self.dynamic.borrow_mut();
        // An earlier life of this server has taken its endpoints along.
        let earlier = dynamic.iter_mut();
        let of_this_server = earlier.filter(|(other, _)| other.address == base.address);
        of_this_server.for_each(|(_, is_served)| *is_served = false);
        dynamic.push((base, true));
    }

    /// One that was published, served or not.
    pub(crate) fn any_published(&self, random: &impl RandomProvider) -> Option<Endpoint> {
        let dynamic = self.dynamic.borrow();
        let latest = dynamic.len().checked_sub(1)?;
        // Half of the time it is one that may still be served.
        let pick = match random.random_bool(0.5) {
            true => latest,
            false => random.random_range(0..dynamic.len()),
        };
        Some(dynamic[pick].0)
    }

    /// A server is about to drop a published interface.
    pub(crate) fn withdraws(&self, base: Endpoint) {
        let mut dynamic = self.dynamic.borrow_mut();
        let published = dynamic.iter_mut().filter(|(other, _)| *other == base);
        published.for_each(|(_, is_served)| *is_served = false);
    }

    fn was_withdrawn(&self, base: Endpoint) -> bool {
        let dynamic = self.dynamic.borrow();
        dynamic
            .iter()
            .any(|(other, is_served)| *other == base && !is_served)
    }

    /// A call is about to be made.
    pub(crate) fn begins(&self, facts: Facts) -> u64 {
        let call = self.next();
        let record = Record {
            facts,
            executed: Vec::new(),
            is_broken: false,
            was_seen_cancelled: false,
            ending: None,
        };
        self.calls.borrow_mut().insert(call, record);
        call
    }

    fn of<T>(&self, call: u64, look: impl FnOnce(&mut Record) -> T) -> T {
        let mut calls = self.calls.borrow_mut();
        let record = calls.get_mut(&call);
        always_assert!(
            nothing_comes_of_nothing,
            record.is_some(),
            "nobody has made call {call}"
        );
        look(record.unwrap())
    }

    /// A handler has taken a request, and was told how long its caller waits.
    pub(crate) fn check_remaining(
        &self,
        providers: &SimProviders,
        call: u64,
        remaining: Option<Duration>,
    ) {
        let now = providers.time().now();
        self.of(call, |record| {
            let Facts { carried, began, .. } = record.facts;
            let told = remaining.map(|remaining| now + remaining);
            let is_true = match (carried, told) {
                (Some(carried), Some(told)) => {
                    // An attempt of several may have less than the whole of them.
                    let is_early = told < carried && !record.facts.is_retried;
                    !is_early && told <= carried + now.saturating_sub(began)
                }
                (carried, told) => carried.is_none() && told.is_none(),
            };
            always_assert!(
                a_handler_knows_how_long_its_caller_waits,
                is_true,
                "call {call}: the handler was told {told:?} at {now:?}: {record:?}"
            );
        });
    }

    /// A handler has taken a request, which said that it came from `caller`.
    pub(crate) fn executes(&self, call: u64, caller: UID, life: u64) {
        self.of(call, |record| {
            record.executed.push(life);
            always_assert!(
                a_request_names_its_caller,
                record.facts.caller == caller,
                "call {call} is of {}, not of {caller}",
                record.facts.caller
            );
            always_assert!(
                no_call_is_executed_twice_unless_it_is_retried,
                record.executed.len() == 1 || record.facts.is_retried,
                "call {call} was executed by {:?}: {record:?}",
                record.executed
            );
            let most = record.facts.attempts.unwrap_or(usize::MAX);
            always_assert!(
                no_call_is_executed_more_often_than_it_is_sent,
                record.executed.len() <= most,
                "call {call}: {record:?}"
            );
            let surely_not = match &record.ending {
                Some(Ending::Failed(error)) => error.is_surely_not_executed(),
                Some(Ending::NotSent) => true,
                Some(Ending::Answered | Ending::GivenUp) | None => false,
            };
            always_assert!(
                what_was_surely_not_executed_never_is,
                !surely_not,
                "call {call} is executed after its end: {record:?}"
            );
            always_assert!(
                strangers_execute_nothing_private,
                record.facts.place != Place::Private || self.is_friend(Some(record.facts.caller)),
                "call {call} is executed: {record:?}"
            );
        });
    }

    pub(crate) fn check_tag(&self, call: u64, tag: Option<&[u8]>) {
        self.of(call, |record| {
            let expected = record.facts.is_tagged.then(|| call.to_string());
            always_assert!(
                metadata_arrives_with_its_request,
                tag == expected.as_deref().map(str::as_bytes),
                "call {call} came with {tag:?}"
            );
        });
    }

    pub(crate) fn check_expects_answer(&self, call: u64, expects_answer: bool) {
        self.of(call, |record| {
            always_assert!(
                a_promise_knows_whether_somebody_waits,
                expects_answer != record.facts.is_one_way,
                "call {call}: {record:?}"
            );
        });
    }

    /// A handler is about to drop a promise, on purpose.
    pub(crate) fn breaks(&self, call: u64) {
        self.of(call, |record| record.is_broken = true);
    }

    /// A handler was told that nobody waits for its answer.
    pub(crate) fn sees_cancelled(&self, call: u64) {
        self.of(call, |record| {
            if record.ending.is_none() && !record.facts.is_retried {
                record.was_seen_cancelled = true;
            }
            always_assert!(
                only_what_was_given_up_is_cancelled,
                record.facts.is_retried
                    || matches!(
                        &record.ending,
                        None | Some(
                            Ending::GivenUp
                                | Ending::Failed(ReplyError::Timeout | ReplyError::MaybeDelivered)
                        )
                    ),
                "the handler of call {call} was told that nobody waits: {record:?}"
            );
        });
    }

    /// A call has an answer.
    pub(crate) fn answered_by(&self, call: u64, life: u64) {
        self.of(call, |record| {
            always_assert!(
                who_answers_has_executed,
                record.executed.contains(&life),
                "call {call} was answered by life {life}: {record:?}"
            );
        });
    }

    /// A call has ended.
    pub(crate) fn ends(&self, providers: &SimProviders, call: u64, ending: Ending) {
        let now = providers.time().now();
        self.of(call, |record| {
            always_assert!(
                a_call_ends_once,
                record.ending.is_none(),
                "call {call}: {record:?} and {ending:?}"
            );
            record.ending = Some(ending.clone());
            check_in_time(providers, call, record, now);
            self.check_truth(providers, call, record);
        });
    }

    fn check_truth(&self, providers: &SimProviders, call: u64, record: &Record) {
        let was_executed = !record.executed.is_empty();
        let ending = record.ending.as_ref().unwrap();
        let error = match ending {
            Ending::Failed(error) => error,
            Ending::Answered => {
                always_assert!(
                    what_is_answered_was_executed,
                    was_executed && answers(record.facts.act),
                    "call {call}: {record:?}"
                );
                self.check_not_cancelled(call, record);
                return;
            }
            Ending::NotSent => {
                always_assert!(
                    what_was_not_sent_was_not_executed,
                    !was_executed,
                    "call {call}: {record:?}"
                );
                return;
            }
            Ending::GivenUp => return,
        };
        always_assert!(
            what_is_surely_not_executed_was_not,
            !(was_executed && error.is_surely_not_executed()),
            "call {call}: {record:?}"
        );
        let is_answer = !matches!(error, ReplyError::Timeout | ReplyError::MaybeDelivered);
        if is_answer {
            self.check_not_cancelled(call, record);
        }
        always_assert!(
            an_outcome_has_its_cause,
            self.has_cause(providers, record, error),
            "call {call} cannot end like this: {record:?}"
        );
    }

    fn check_not_cancelled(&self, call: u64, record: &Record) {
        always_assert!(
            who_sees_a_call_cancelled_is_right,
            !record.was_seen_cancelled,
            "call {call} was waited for when its handler was told otherwise: {record:?}"
        );
    }

    /// Whether something has happened that explains the outcome.
    fn has_cause(&self, providers: &SimProviders, record: &Record, error: &ReplyError) -> bool {
        let now = providers.time().now();
        let Record {
            facts, executed, ..
        } = record;
        let has_stopped = self.has_stopped(facts.server);
        let limit = self.smallest_limit(facts);
        match error {
            ReplyError::BrokenPromise => {
                let was_dropped = match facts.place {
                    Place::Dynamic(base) => self.was_withdrawn(base),
                    _ => false,
                };
                record.is_broken || has_stopped || was_dropped
            }
            // A narrow server closes connections and sessions beyond its limits. A deadline may pass
            // before there is a connection.
            ReplyError::ConnectionFailed => {
                facts.is_impatient
                    || facts.deadline.is_some_and(|deadline| deadline <= now)
                    || self.may_break(providers)
                    || self.girth(facts.server) == Girth::Narrow
            }
            // Its refusals have a limit, too: past it the session ends. Of several attempts the last
            // may not have been executed, where one that was broken has.
            ReplyError::MaybeDelivered => {
                facts.is_impatient
                    || (facts.is_retried && record.is_broken)
                    || self.may_break(providers)
                    || self.girth(facts.server) == Girth::Narrow
            }
            ReplyError::Timeout => facts.deadline.is_some_and(|deadline| deadline <= now),
            ReplyError::Serialization { .. } => {
                let is_mistaken = facts.typing == Typing::ReplyMistaken;
                (is_mistaken || facts.act == Act::AnswerUnencodable) && !executed.is_empty()
            }
            ReplyError::EndpointNotFound => match facts.place {
                Place::Nobody | Place::NobodyWellKnown => true,
                Place::Dynamic(base) => has_stopped || self.was_withdrawn(base),
                _ => has_stopped,
            },
            ReplyError::Unauthorized => {
                facts.place == Place::Private && !self.is_friend(Some(facts.caller))
            }
            ReplyError::Overloaded => {
                facts.place == Place::Narrow
                    || has_stopped
                    || self.girth(facts.server) == Girth::Narrow
                    || facts.caller_girth == Girth::Narrow
            }
            ReplyError::PayloadTooLarge => facts.padding + OVERHEAD > limit,
            ReplyError::ReplyTooLarge => {
                let is_large = facts.padding + OVERHEAD > limit;
                (is_large || facts.act == Act::AnswerTooMuch) && !executed.is_empty()
            }
            ReplyError::Application { code, message } => {
                let said = *code == APPLICATION_CODE && refuses(facts.act);
                said && *message == record.words() && !executed.is_empty()
            }
            // Of the server's side alone.
            ReplyError::Cancelled => false,
            _ => false,
        }
    }

    /// The limit that has ended a call, if nothing but one can have.
    pub(crate) fn limit_behind(
        &self,
        providers: &SimProviders,
        call: u64,
        ending: &Ending,
    ) -> Option<&'static str> {
        let Ending::Failed(error) = ending else {
            return None;
        };
        self.of(call, |record| {
            let Facts {
                attempts,
                is_impatient,
                is_retried,
                server,
                deadline,
                ..
            } = record.facts;
            if attempts == Some(record.executed.len()) && record.is_broken {
                return Some("attempts");
            }
            let girths = self.girths.borrow();
            let narrow = girths
                .get(&server)
                .filter(|(girth, _)| *girth == Girth::Narrow);
            let narrowness = narrow?.1;
            let now = providers.time().now();
            let is_over = deadline.is_some_and(|deadline| deadline <= now);
            if self.may_break(providers) || is_impatient || is_retried || is_over {
                return None;
            }
            match (error, narrowness) {
                (ReplyError::ConnectionFailed, Narrowness::Whole) => Some("sessions"),
                (ReplyError::MaybeDelivered, Narrowness::Packets | Narrowness::Bytes) => {
                    Some("refusals")
                }
                _ => None,
            }
        })
    }

    /// Whether anything but a limit may have ended a session: a fault, or the end of a process.
    pub(crate) fn may_break(&self, providers: &SimProviders) -> bool {
        is_disturbed(providers) || !self.stopped.borrow().is_empty()
    }

    fn smallest_limit(&self, facts: &Facts) -> usize {
        let server = self.girth(facts.server).payload_limit();
        server.min(facts.caller_girth.payload_limit())
    }
}

/// The code of the handlers' own errors.
pub(crate) const APPLICATION_CODE: u32 = 7;

/// What a handler says that refuses a request of `caller`.
pub(crate) fn words(caller: UID, act: Act) -> String {
    format!("{act:?} of {caller}")
}

impl Record {
    fn words(&self) -> String {
        words(self.facts.caller, self.facts.act)
    }
}

fn answers(act: Act) -> bool {
    matches!(
        act,
        Act::Answer | Act::AnswerAfter { .. } | Act::AskAnother | Act::AwaitCancellation
    )
}

fn refuses(act: Act) -> bool {
    matches!(act, Act::Refuse | Act::AskAnother)
}

/// A call has ended by its deadline: exactly, unless sleeps take longer than asked for, or its caller
/// was killed or stood still.
fn check_in_time(providers: &SimProviders, call: u64, record: &Record, now: Duration) {
    let runs_on = record.facts.is_steady || fired(providers, FaultKind::Pause) == 0;
    let (Some(deadline), Some(_), true) = (record.facts.deadline, providers.world(), runs_on)
    else {
        return;
    };
    // On behalf of a request that has expired: it ends at once.
    let late = now.saturating_sub(deadline.max(record.facts.began));
    let allowed = match fired(providers, FaultKind::BuggifiedDelay) {
        0 => Duration::ZERO,
        _ => LONGEST_ADDITION,
    };
    always_assert!(
        a_call_ends_by_its_deadline,
        late <= allowed,
        "call {call} ended {late:?} late: {record:?}"
    );
}

/// What a sleep takes longer at most, in any drawn configuration.
const LONGEST_ADDITION: Duration = Duration::from_millis(150);
