//! Many calls over one connection: nothing is left of them.

use std::cell::Cell;
use std::rc::Rc;

use moonpool::prelude::*;

use crate::ledger::Ledger;
use crate::service::{self, Memory, Pace, ensure_ends_at_zero, ensure_settled};
use crate::{Failure, Scale, ensure, row};

/// Ledgers, one after the other: many, so that none is large.
const PARTS: u64 = 100;

/// Calls in flight at one time.
const IN_FLIGHT: usize = 256;

pub(crate) async fn run(scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    let calls: u64 = scale.pick(10_000_000, 20_000);
    let memory = Memory::new();
    let executed = Rc::new(Cell::new(0));
    let count = Rc::clone(&executed);
    let execute = move |_| count.set(count.get() + 1);
    let server = service::serve(providers, "127.0.0.1:0", Pace::AtOnce, execute).await?;
    let address = server.local_address().ok_or("the server has no address")?;
    let client = service::client(providers);
    let began = providers.time().now();
    for part in 1..=PARTS {
        // A ledger for each part, so that what it takes is not taken for the library's.
        let ledger = Rc::new(Ledger::default());
        let (seen, goal) = (Rc::clone(&ledger), calls / PARTS);
        let is_over = move || seen.begun() >= goal;
        service::call_until(providers, &client, address, &ledger, IN_FLIGHT, is_over).await?;
        let replies = u64::try_from(ledger.replies())?;
        ensure(replies == goal, || {
            format!("{replies} replies to {goal} calls")
        })?;
        drop(ledger);
        if part == PARTS / 10 {
            memory.note_warm();
        }
        if part.is_multiple_of(PARTS / 10) {
            memory.show(&format!("{} calls", part * goal));
        }
    }
    let took = providers.time().now() - began;
    let stats = client.stats();
    ensure(stats.requests_sent == stats.replies_received, || {
        format!("{stats:?}")
    })?;
    ensure(
        stats.requests_sent == calls && executed.get() == calls,
        || format!("{stats:?}"),
    )?;
    row("calls, all answered, each executed once", executed.get());
    row(
        "calls per second",
        format!("{:.0}", executed.get() as f64 / took.as_secs_f64()),
    );
    ensure_settled(providers, "the client", &client, |stats| {
        (
            stats.pending_calls,
            stats.queued_packets,
            stats.queued_bytes,
        ) == (0, 0, 0)
    })
    .await?;
    ensure_settled(providers, "the server", &server, |stats| {
        (
            stats.pending_calls,
            stats.queued_packets,
            stats.queued_bytes,
        ) == (0, 0, 0)
    })
    .await?;
    ensure_ends_at_zero("the client", &client).await?;
    ensure_ends_at_zero("the server", &server).await?;
    row("gauges at both ends", 0);
    memory.finish()
}
