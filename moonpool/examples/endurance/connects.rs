//! Many connects with Hello, one call or none, and an orderly close: nothing is left of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;

use crate::ledger::{Ending, Ledger};
use crate::service::{
    self, Executed, Memory, Pace, Transport, ensure_ends_at_zero, ensure_settled,
};
use crate::{Failure, Scale, ensure, row};

/// Connections at one time.
const AT_ONCE: usize = 32;

/// A closed connection occupies its two addresses and ports for a minute. With one listening address
/// there are about 28,000 of them; with these many there are enough.
const LISTENERS: u8 = 8;

pub(crate) async fn run(scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    let connects: u64 = scale.pick(100_000, 1_000);
    let memory = Rc::new(Memory::new());
    let executed = Executed::default();
    let mut servers = Vec::new();
    for host in 1..=LISTENERS {
        let address = format!("127.0.0.{host}:0");
        servers.push(service::serve(providers, &address, Pace::AtOnce, executed.note()).await?);
    }
    let addresses: Vec<_> = servers
        .iter()
        .filter_map(|server| server.local_address())
        .collect();
    let (ledger, next) = (Rc::new(Ledger::default()), Rc::new(Cell::new(0)));
    let lanes: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let lane = Lane {
                providers: providers.clone(),
                addresses: addresses.clone(),
                ledger: Rc::clone(&ledger),
                next: Rc::clone(&next),
                memory: Rc::clone(&memory),
                connects,
            };
            let failed = async move { lane.run().await.err().map(|error| error.to_string()) };
            providers.task().spawn_task("connects", failed)
        })
        .collect();
    for lane in lanes {
        if let Some(error) = lane.await? {
            return Err(error.into());
        }
    }
    let mut accepted = 0;
    for server in &servers {
        let stats = server.stats();
        ensure(stats.accept_refused + stats.accept_errors == 0, || {
            format!("{stats:?}")
        })?;
        accepted += stats.accepted;
        // One task accepts, and one endpoint is the service.
        ensure_settled(providers, "a server", server, |stats| {
            (stats.incoming_connections, stats.incoming_sessions) == (0, 0)
                && (stats.queued_packets, stats.queued_bytes) == (0, 0)
                && (stats.peers, stats.tasks, stats.endpoints) == (0, 1, 1)
        })
        .await?;
    }
    ensure(accepted == connects, || {
        format!("{accepted} of {connects} were accepted")
    })?;
    row("connects, each with Hello and Close", accepted);
    ledger.audit(&executed.numbers())?;
    for server in &servers {
        ensure_ends_at_zero("a server", server).await?;
    }
    row("gauges at both ends", 0);
    memory.finish()
}

struct Lane {
    providers: TokioProviders,
    addresses: Vec<NetworkAddress>,
    ledger: Rc<Ledger>,
    next: Rc<Cell<u64>>,
    memory: Rc<Memory>,
    connects: u64,
}

impl Lane {
    async fn run(&self) -> Result<(), Failure> {
        loop {
            let number = self.next.get();
            if number >= self.connects {
                return Ok(());
            }
            self.next.set(number + 1);
            if number == self.connects / 10 {
                self.memory.note_warm();
            }
            let at = usize::try_from(number)? % self.addresses.len();
            let address = *self.addresses.get(at).ok_or("there is no server")?;
            self.connect(number, address).await?;
        }
    }

    /// One connection from its Hello to its end.
    async fn connect(&self, number: u64, address: NetworkAddress) -> Result<(), Failure> {
        let client = service::client(&self.providers);
        if number.is_multiple_of(2) {
            let ending = service::call(&client, address, &self.ledger).await;
            ensure(ending == Ending::Replied, || {
                format!("a call ended with {ending:?}")
            })?;
        } else {
            self.greet(&client, address).await?;
        }
        ensure_ends_at_zero("a client", &client).await
    }

    /// Connects without anything to say.
    async fn greet(&self, client: &Transport, address: NetworkAddress) -> Result<(), Failure> {
        let peer = client.get_or_open_peer(&address)?;
        peer.reconnect();
        for _ in 0..10_000 {
            if peer.is_connected() {
                return Ok(());
            }
            self.providers.time().sleep(Duration::from_millis(1)).await;
        }
        Err(format!("no connection: {:?}", peer.metrics()).into())
    }
}
