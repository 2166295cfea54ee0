//! The server's process: serves, and tells its gauges when asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use moonpool::prelude::*;

use crate::Failure;
use crate::service;

/// The argument that makes this program the server.
pub(crate) const SERVER: &str = "hostile-server";

/// Serves until its input ends. Each line of it is answered with the gauges that are not 0; `stop`
/// shuts the transport down first.
pub(crate) async fn run(providers: &TokioProviders) -> Result<(), Failure> {
    let everywhere = "0.0.0.0:0".parse()?;
    let transport = service::listen(providers, everywhere, Some("127.0.0.1:0".parse()?)).await?;
    let serving = service::serve::<TokioProviders>(Rc::clone(&transport));
    providers.task().spawn_task("service", serving);
    let public = transport.local_address().ok_or("there is no address")?;
    println!("{public}");
    loop {
        let read = providers.task().run_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = read.await??;
        if line.is_empty() {
            return Ok(());
        }
        if line.trim() == "stop" {
            transport.shutdown(Duration::from_secs(1)).await;
        }
        let stats = transport.stats();
        let gauges = service::gauges(&stats);
        let above: Vec<String> = gauges
            .into_iter()
            .filter(|(_, gauge)| *gauge != 0)
            .map(|(name, gauge)| format!("{name}={gauge}"))
            .collect();
        let refused = stats.accept_refused;
        println!("accept_refused={refused} {}", above.join(" "));
    }
}

/// What a process takes of the machine's memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    /// The most that it ever was.
    pub(crate) most: u64,
}

/// A server in a process of its own, which is not left behind.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) address: NetworkAddress,
}

impl Server {
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("the server has no input")?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse()?;
        Ok(Self {
            child,
            input,
            output,
            address,
        })
    }

    /// The gauges above 0, by name; those that a server without clients has are left out.
    pub(crate) fn gauges(&mut self, command: &str) -> Result<String, Failure> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the server is gone".into());
        }
        Ok(line.trim().to_owned())
    }

    /// `None` where the system does not tell.
    pub(crate) fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        };
        Some(Memory {
            now: field("VmRSS:")?,
            most: field("VmHWM:")?,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
