//! Many calls over one connection: nothing is left of them.

use std::cell::Cell;
use std::rc::Rc;

use moonpool::prelude::*;

use crate::service::{self, IN_FLIGHT, Memory, Pace, ensure_ends_at_zero, ensure_settled};
use crate::{Failure, Scale, ensure, ledger, row};

pub(crate) async fn run(scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    let calls: u64 = scale.pick(1_000_000, 20_000);
    let memory = Memory::new();
    let executed = Rc::new(Cell::new(0));
    let count = Rc::clone(&executed);
    let execute = move |_| count.set(count.get() + 1);
    let server = service::serve(providers, "127.0.0.1:0", Pace::AtOnce, execute).await?;
    let address = server.local_address().ok_or("the server has no address")?;
    let client = service::client(providers);
    let began = providers.time().now();
    for part in 0..10 {
        // A ledger for each part, so that what it takes is not taken for the library's.
        let ledger = Rc::new(ledger::Ledger::default());
        let goal = calls / 10 * (part + 1);
        let (count, in_flight) = (Rc::clone(&executed), u64::try_from(IN_FLIGHT)?);
        let is_over = move || count.get() + in_flight >= goal;
        service::call_until(providers, &client, address, &ledger, is_over).await?;
        let replies = u64::try_from(ledger.replies())?;
        let begun = ledger.begin();
        ensure(replies == begun, || {
            format!("{replies} replies to {begun} calls")
        })?;
        drop(ledger);
        if part == 0 {
            memory.note_warm();
        }
    }
    let took = providers.time().now() - began;
    let stats = client.stats();
    ensure(stats.requests_sent == stats.replies_received, || {
        format!("{stats:?}")
    })?;
    ensure(stats.requests_sent == executed.get(), || {
        format!("{stats:?}")
    })?;
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
