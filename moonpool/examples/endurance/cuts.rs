//! Connections that are reset at random bytes: sessions go on, and every call tells the truth.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::try_join;
use moonpool::TcpListenerTrait;
use moonpool::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ledger::Ledger;
use crate::service::{self, Executed, Pace, ensure_ends_at_zero};
use crate::{Failure, Scale, ensure, row};

pub(crate) async fn run(scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    let goal: u64 = scale.pick(1_000, 50);
    let executed = Executed::default();
    let server = service::serve(providers, "127.0.0.1:0", Pace::Mixed, executed.note()).await?;
    let address = server.local_address().ok_or("the server has no address")?;
    let cuts = Rc::new(Cell::new(0));
    let proxy = Proxy {
        providers: providers.clone(),
        server: address,
        goal,
        cuts: Rc::clone(&cuts),
    };
    let listener = providers.network().bind("127.0.0.1:0").await?;
    let proxied: NetworkAddress = TcpListenerTrait::local_addr(&listener)?.parse()?;
    let proxy = providers.task().spawn_task("proxy", proxy.run(listener));

    let (client, ledger) = (service::client(providers), Rc::new(Ledger::default()));
    let seen = Rc::clone(&cuts);
    let is_over = move || seen.get() >= goal;
    service::call_until(
        providers,
        &client,
        proxied,
        &ledger,
        service::IN_FLIGHT,
        is_over,
    )
    .await?;
    let peer = client.get_or_open_peer(&proxied)?.metrics();
    ensure_ends_at_zero("the client", &client).await?;
    ensure_ends_at_zero("the server", &server).await?;
    proxy.abort();
    row("connections cut", cuts.get());
    row("connections greeted", peer.connections);
    row("attempts that failed", peer.connection_failures);
    ledger.audit(&executed.numbers())?;
    // Sessions survive their connections: hardly any call ends otherwise.
    let (replies, begun) = (ledger.replies() as u64, ledger.begun());
    ensure(replies * 10 >= begun * 9, || {
        format!("{replies} replies to {begun} calls")
    })?;
    row("gauges at both ends", 0);
    Ok(())
}

/// Passes bytes on, and cuts connections until there were enough.
struct Proxy {
    providers: TokioProviders,
    server: NetworkAddress,
    goal: u64,
    cuts: Rc<Cell<u64>>,
}

impl Proxy {
    async fn run(self, listener: tokio::net::TcpListener) {
        let this = Rc::new(self);
        while let Ok((client, _)) = TcpListenerTrait::accept(&listener).await {
            let proxy = Rc::clone(&this);
            this.providers.task().spawn_task("connection", async move {
                // Whatever ends it is an end like the others.
                drop(proxy.pass(client).await);
            });
        }
    }

    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = self
            .providers
            .network()
            .connect(&self.server.to_string())
            .await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let is_cut = {
            let budget = Cell::new(self.budget());
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let there = copy(&mut from_client, &mut to_server, &budget);
            let back = copy(&mut from_server, &mut to_client, &budget);
            try_join(there, back).await.is_err() && budget.get() == 0
        };
        if !is_cut {
            return Ok(());
        }
        self.cuts.set(self.cuts.get() + 1);
        // The other side gets what closing gives it: an end, or a reset if bytes were unread.
        let sides = self.providers.random().random_range(0..3);
        if sides != 0 {
            reset_when_dropped(&client)?;
        }
        if sides != 1 {
            reset_when_dropped(&server)?;
        }
        if self.providers.random().random_range(0..4) == 0 {
            // One side learns of it later than the other.
            drop(client);
            self.providers.time().sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// After how many bytes, both ways together, the connection is cut. The first packet alone, a
    /// few, or many of them.
    fn budget(&self) -> usize {
        if self.cuts.get() >= self.goal {
            return usize::MAX;
        }
        let magnitude = self.providers.random().random_range(4..17);
        self.providers.random().random_range(1..=1 << magnitude)
    }
}

fn reset_when_dropped(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Passes bytes on until there are none, or the budget of both directions is used up.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    budget: &Cell<usize>,
) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let passed = read.min(budget.get());
        budget.set(budget.get() - passed);
        to.write_all(buffer.get(..passed).unwrap_or_default())
            .await?;
        if budget.get() == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}
