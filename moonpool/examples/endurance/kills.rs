//! A server process that is killed and started again: every call tells the truth.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;

use crate::ledger::Ledger;
use crate::service::{self, Pace, ensure_ends_at_zero};
use crate::{Failure, Scale, ensure, row};

/// The subcommand that is the server. Its arguments: the address, the ledger's file.
pub(crate) const SERVER: &str = "kills-server";

pub(crate) async fn run(scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    let goal: u64 = scale.pick(10, 2);
    let ledger_file = LedgerFile::new();
    let mut server = Server::start("127.0.0.1:0", &ledger_file.0)?;
    let address = server.address()?;
    let (client, ledger) = (service::client(providers), Rc::new(Ledger::default()));
    let kills = Rc::new(Cell::new(0));
    let (seen, killed) = (Rc::clone(&kills), ledger_file.0.clone());
    let (time, random) = (*providers.time(), *providers.random());
    let killer = providers.task().spawn_task("killer", async move {
        for _ in 0..goal {
            let pause = Duration::from_millis(random.random_range(50..400));
            time.sleep(pause).await;
            if let Err(error) = server.kill() {
                return Err(error.to_string());
            }
            kills.set(kills.get() + 1);
            let outage = Duration::from_millis(random.random_range(0..100));
            time.sleep(outage).await;
            server = match Server::start(&address.to_string(), &killed) {
                Ok(server) => server,
                Err(error) => return Err(error.to_string()),
            };
        }
        // The last one gets to answer.
        time.sleep(Duration::from_millis(300)).await;
        kills.set(u64::MAX);
        Ok(server)
    });
    let is_over = {
        let seen = Rc::clone(&seen);
        move || seen.get() == u64::MAX
    };
    service::call_until(
        providers,
        &client,
        address,
        &ledger,
        service::IN_FLIGHT,
        is_over,
    )
    .await?;
    let mut server = killer.await??;
    let answered = ledger.replies();
    ensure_ends_at_zero("the client", &client).await?;
    server.kill()?;
    row("servers killed", goal);
    let executed = ledger_file.read()?;
    ensure(answered > 0, || "nothing was answered".to_owned())?;
    ledger.audit(&executed)?;
    row("gauges of the client", 0);
    Ok(())
}

/// Serves until the process that started this one is gone.
pub(crate) async fn serve(
    providers: &TokioProviders,
    address: &str,
    ledger: &str,
) -> Result<(), Failure> {
    let file = OpenOptions::new().create(true).append(true).open(ledger)?;
    // One write per execution, which outlives this process, before the answer is sent.
    let execute = move |number: u64| {
        if let Err(error) = (&file).write_all(&number.to_le_bytes()) {
            eprintln!("the ledger cannot be written: {error}");
            std::process::abort();
        }
    };
    let server = service::serve(providers, address, Pace::Mixed, execute).await?;
    let bound = server.local_address().ok_or("the server has no address")?;
    println!("{bound}");
    let read = providers.task().run_blocking(|| {
        let mut ignored = Vec::new();
        std::io::stdin().read_to_end(&mut ignored)
    });
    read.await??;
    Ok(())
}

/// A server in a process of its own, which is not left behind.
struct Server {
    child: Child,
}

impl Server {
    fn start(address: &str, ledger: &Path) -> Result<Self, Failure> {
        let child = Command::new(std::env::current_exe()?)
            .arg(SERVER)
            .arg(address)
            .arg(ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self { child })
    }

    /// Waits until it listens, and says where.
    fn address(&mut self) -> Result<NetworkAddress, Failure> {
        let stdout = self.child.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }

    /// Kills it without warning: SIGKILL on Unix.
    fn kill(&mut self) -> Result<(), Failure> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("the server ended by itself: {status}").into());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the servers executed: eight bytes for each, in a file that is removed in the end.
struct LedgerFile(PathBuf);

impl LedgerFile {
    fn new() -> Self {
        let name = format!("moonpool-endurance-{}.ledger", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn read(&self) -> Result<Vec<u64>, Failure> {
        let mut bytes = Vec::new();
        File::open(&self.0)?.read_to_end(&mut bytes)?;
        let (numbers, rest) = bytes.as_chunks::<8>();
        ensure(rest.is_empty(), || {
            "the ledger ends inside a number".to_owned()
        })?;
        Ok(numbers
            .iter()
            .map(|number| u64::from_le_bytes(*number))
            .collect())
    }
}

impl Drop for LedgerFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}
