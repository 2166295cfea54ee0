//! What stands outside the processes: what was sent and what was executed, whoever died since; and
//! what each client of a seed saw, so that two runs can be compared by more than their digests.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use moonpool::foundation::{FaultKind, SimProviders, WorkloadTopology, always_assert};
use moonpool::prelude::*;

/// Which way bytes of a stream travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From the client to the server.
    Up,
    /// Back.
    Down,
}

/// What one end of a stream did.
#[derive(Clone, Copy, Default)]
struct Sent {
    /// Bytes that its writes accepted.
    bytes: u64,
    /// It closed the stream itself.
    closed: bool,
}

/// What all processes of a seed did.
#[derive(Default)]
pub(crate) struct Ledger {
    next_number: Cell<u64>,
    streams: RefCell<BTreeMap<(u64, Way), Sent>>,
    /// Streams that a server closed without knowing which, because a bit of their header was flipped.
    pub(crate) unreadable_headers: Cell<u64>,
    /// Bytes of streams that were not what was sent.
    changed_bytes: Cell<u64>,
    /// How often each call was executed.
    executed: RefCell<BTreeMap<u64, u32>>,
    /// Calls whose promise a handler dropped on purpose.
    dropped: RefCell<BTreeSet<u64>>,
    /// How each call ended.
    ended: RefCell<BTreeMap<u64, Result<(), ReplyError>>>,
    /// A server was told to end, and has dropped what it had not answered.
    pub(crate) a_server_stopped: Cell<bool>,
}

fn fired(providers: &SimProviders, kind: FaultKind) -> u64 {
    let world = providers.world();
    world.map_or(0, |world| world.fault_counts().of(kind))
}

impl Ledger {
    /// A number that nobody else has: of a stream, a call, a life.
    pub(crate) fn next(&self) -> u64 {
        self.next_number.set(self.next_number.get() + 1);
        self.next_number.get()
    }

    /// A write accepted so many bytes.
    pub(crate) fn sent(&self, stream: u64, way: Way, bytes: usize) {
        let mut streams = self.streams.borrow_mut();
        streams.entry((stream, way)).or_default().bytes += bytes as u64;
    }

    /// Said before a stream is closed, or dropped.
    pub(crate) fn closes(&self, stream: u64, way: Way) {
        let mut streams = self.streams.borrow_mut();
        streams.entry((stream, way)).or_default().closed = true;
    }

    /// The reader of a stream saw its end, not an error, after so many bytes.
    pub(crate) fn check_end(&self, providers: &SimProviders, stream: u64, way: Way, received: u64) {
        let streams = self.streams.borrow();
        let sent = streams.get(&(stream, way)).copied().unwrap_or_default();
        always_assert!(
            a_fin_comes_after_every_byte,
            sent.bytes == received,
            "stream {stream} {way:?} ended after {received} of {} bytes",
            sent.bytes
        );
        always_assert!(
            nobody_closes_for_another,
            sent.closed
                || self.unreadable_headers.get() > 0
                || fired(providers, FaultKind::RandomClose) + fired(providers, FaultKind::Close)
                    > 0,
            "stream {stream} {way:?} ended, and its sender had not closed it"
        );
    }

    /// So many bytes of a stream were not what was sent.
    pub(crate) fn check_changed(&self, providers: &SimProviders, stream: u64, bytes: u64) {
        self.changed_bytes.set(self.changed_bytes.get() + bytes);
        // A flip has 32 bits at most; what the server got wrong the client gets wrong as well.
        let most = 64 * fired(providers, FaultKind::BitFlip);
        always_assert!(
            only_flipped_bits_change_bytes,
            self.changed_bytes.get() <= most,
            "stream {stream}: {} bytes changed by now, and {most} at most by flipped bits",
            self.changed_bytes.get()
        );
    }

    /// A handler has taken a call.
    pub(crate) fn executes(&self, call: u64) {
        let times = {
            let mut executed = self.executed.borrow_mut();
            let times = executed.entry(call).or_default();
            *times += 1;
            *times
        };
        always_assert!(
            no_call_is_executed_twice,
            times == 1,
            "call {call} was executed {times} times"
        );
        let ended = self.ended.borrow();
        always_assert!(
            what_was_surely_not_executed_never_is,
            !matches!(ended.get(&call), Some(Err(error)) if error.is_surely_not_executed()),
            "call {call} is executed after it ended with {:?}",
            ended.get(&call)
        );
    }

    /// A handler is about to drop a call's promise.
    pub(crate) fn drops(&self, call: u64) {
        self.dropped.borrow_mut().insert(call);
    }

    /// A call has ended.
    pub(crate) fn check_outcome(&self, call: u64, outcome: &Result<(), ReplyError>) {
        let before = self.ended.borrow_mut().insert(call, outcome.clone());
        always_assert!(
            a_call_ends_once,
            before.is_none(),
            "call {call} had ended before"
        );
        let executed = self.executed.borrow().contains_key(&call);
        let (is_fine, says) = match outcome {
            Ok(()) | Err(ReplyError::Application { .. }) => (executed, "executed"),
            Err(ReplyError::BrokenPromise) => (
                self.dropped.borrow().contains(&call) || self.a_server_stopped.get(),
                "dropped by its handler",
            ),
            Err(ReplyError::MaybeDelivered | ReplyError::Timeout) => (true, "anything"),
            Err(error) if error.is_surely_not_executed() => (!executed, "not executed"),
            Err(_) => (false, "nothing that this workload does"),
        };
        always_assert!(
            outcomes_are_true,
            is_fine,
            "call {call} ended with {outcome:?}, so it should be {says}; executed: {executed}"
        );
    }
}

/// What the clients of each seed saw: a digest of their own, into which no skipped fault is folded.
#[derive(Clone, Default)]
pub(crate) struct Sightings(Arc<Mutex<BTreeMap<(u64, &'static str), u64>>>);

impl Sightings {
    /// What all clients of `seed` saw.
    pub(crate) fn of(&self, seed: u64) -> Vec<u64> {
        let seen = self.0.lock().unwrap();
        let clients = seen.range((seed, "")..(seed + 1, ""));
        clients.map(|(_, hash)| *hash).collect()
    }
}

/// One client's eyes.
pub(crate) struct Observer {
    providers: SimProviders,
    seed: u64,
    name: &'static str,
    hash: Cell<u64>,
    sightings: Sightings,
}

impl Observer {
    pub(crate) fn new(providers: &SimProviders, name: &'static str, all: &Sightings) -> Self {
        Self {
            providers: providers.clone(),
            seed: providers.world().unwrap().seed(),
            name,
            hash: Cell::new(0xCBF2_9CE4_8422_2325),
            sightings: all.clone(),
        }
    }

    /// Something happened, now by both clocks.
    pub(crate) fn saw(&self, what: u64) {
        let time = self.providers.time();
        for number in [nanos(time.now()), nanos(time.timer()), what] {
            let mixed = (self.hash.get() ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.hash.set(mixed ^ (mixed >> 29));
        }
    }

    pub(crate) fn finish(&self) {
        let mut seen = self.sightings.0.lock().unwrap();
        seen.insert((self.seed, self.name), self.hash.get());
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// One of the servers.
pub(crate) fn any_server(
    providers: &SimProviders,
    topology: &WorkloadTopology,
) -> (String, String) {
    let mut servers = topology.get_peers_with_prefix("server-");
    let drawn = providers.random().random_range(0..servers.len());
    servers.swap_remove(drawn)
}
