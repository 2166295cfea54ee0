//! A server under attack on real TCP, beside honest clients that must not notice.
//!
//! `cargo run --release --example hostile [-- [--quick] [Kind ..]]`, with the names of
//! `attacks::Kind`; without names all of them run, one after the other. Each has a server of its
//! own, in a process of its own, whose memory is read before, during and after the attack, three
//! honest clients that stay and one that connects anew for each call. Everything stays on
//! 127.0.0.0/8, on ports that the system chooses, and ends by itself.
//!
//! The program fails if an honest client's call fails, if the server takes more memory than its
//! limits allow (`allowed_growth` says how that is computed), or if a gauge of its transport is above
//! 0 once it was shut down.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

mod attacks;
mod neighbours;
mod server;
mod service;
mod wire;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use moonpool::prelude::*;

use crate::attacks::{Attacker, Kind, Plan, Tally};
use crate::neighbours::Neighbours;
use crate::server::{Memory, Server};
use crate::wire::Hello;

type Failure = Box<dyn Error>;

/// How often memory is read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

/// What a process may take more than what is counted: allocators keep some, and code is read in.
const SLACK: u64 = 24 * 1024 * 1024;

/// A connection that has not greeted: a task, a socket and a first read of 4 KiB.
const UNGREETED: u64 = 16 * 1024;

/// Connections that may be without a Hello at one time.
const HANDSHAKES: u64 = 1_024;

/// A session that waits for its next connection, for a minute.
const KEPT_SESSION: u64 = 12 * 1024;

/// Reads of a connection: 128 KiB at most, beside what the one before left unfinished.
const READS: u64 = 2 * 128 * 1024;

/// How much is done: in full, or in the few seconds that a continuous check has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Full,
    Quick,
}

impl Kind {
    fn plan(self, scale: Scale) -> Plan {
        let second = Duration::from_secs(1);
        let (lanes, connections) = match self {
            Self::NeverGreets | Self::HalfHello => (2_000, 10_000),
            Self::SlowHello | Self::SlowRequest | Self::ClaimedAddress => (200, 2_000),
            Self::HalfPacket => (500, 500),
            Self::SlowReader | Self::NoAcknowledgement | Self::AbsentTokens => (4, 1_000),
            Self::Pings | Self::Undecodable => (4, 100),
            Self::Connects | Self::Greetings => (64, 100_000),
            Self::Garbage
            | Self::HugeLength
            | Self::WrongHello
            | Self::HelloFlood
            | Self::HelloAgain
            | Self::Abandoned
            | Self::CopiedHello
            | Self::BrokenRules => (64, 20_000),
        };
        let is_long = matches!(self, Self::Connects | Self::Greetings);
        match scale {
            Scale::Full => Plan {
                lanes,
                connections,
                limit: if is_long { 300 * second } else { 5 * second },
                stay: 5 * second,
            },
            Scale::Quick => Plan {
                lanes: lanes.min(200),
                connections: connections.min(1_000),
                limit: second / 2,
                stay: second / 2,
            },
        }
    }

    /// What the server may take for this attack beyond what it took before.
    ///
    /// Every lane has a connection, and the server may not have noticed yet that the one before is
    /// gone. One that has not greeted costs a first read. A session has two reads, an unfinished
    /// packet and the one before it; the sessions of those that left are kept for a minute. A session
    /// that does not acknowledge holds answers up to its limit, and refusals of what it asks for beyond
    /// that.
    fn allowed_growth(self, plan: &Plan, tally: &Tally) -> u64 {
        let lanes = 2 * u64::try_from(plan.lanes).unwrap_or(u64::MAX);
        let payload = u64::from(service::MAX_PAYLOAD) + 56;
        let session = READS + 2 * payload;
        let kept = tally.tried * KEPT_SESSION;
        let answers = service::most_answer_bytes();
        let refusals = service::most_refusal_bytes();
        SLACK
            + match self {
                Self::Garbage
                | Self::NeverGreets
                | Self::HalfHello
                | Self::SlowHello
                | Self::WrongHello
                | Self::Connects => lanes.min(HANDSHAKES) * UNGREETED,
                Self::HelloFlood | Self::Abandoned | Self::CopiedHello => lanes * UNGREETED + kept,
                Self::Greetings => lanes * UNGREETED,
                Self::HugeLength | Self::HelloAgain | Self::BrokenRules => lanes * UNGREETED + kept,
                Self::HalfPacket
                | Self::SlowRequest
                | Self::ClaimedAddress
                | Self::Pings
                | Self::Undecodable => lanes * session,
                Self::SlowReader | Self::NoAcknowledgement => {
                    lanes * (session + answers + refusals)
                }
                Self::AbsentTokens => lanes * (session + refusals),
            }
    }
}

/// One attack, from the start of its server to its end.
async fn attack(providers: &TokioProviders, kind: Kind, scale: Scale) -> Result<(), Failure> {
    let mut server = Server::start()?;
    let plan = kind.plan(scale);
    let neighbours = Neighbours::start(server.address);
    let time = providers.time();
    time.sleep(Duration::from_millis(200)).await;
    let before = server.memory().unwrap_or_default();
    let targets = (1..=8)
        .map(|host| format!("127.0.0.{host}:{}", server.address.port))
        .collect();
    let victim = Hello {
        address: Some(([127, 0, 0, 1], server.address.port)),
        ..Hello::new(UID::new(7, 7), UID::new(8, 8))
    };
    let attacker = Attacker::new(providers.clone(), targets, kind, plan)
        .sizes(service::MAX_PAYLOAD, service::ANSWER_BYTES)
        .victim(victim);
    let began = time.now();
    let attacking = providers.task().spawn_task("attack", attacker.run());
    let mut during = before.now;
    while !attacking.is_finished() {
        time.sleep(SAMPLE_INTERVAL).await;
        during = during.max(server.memory().unwrap_or_default().now);
    }
    let (tally, took) = (attacking.await?, time.now() - began);
    let rest = if scale == Scale::Full { 3_000 } else { 100 };
    time.sleep(Duration::from_millis(rest)).await;
    let left = server.gauges("gauges")?;
    let seen = neighbours.stop()?;
    let after = server.memory().unwrap_or_default();
    let stopped = server.gauges("stop")?;

    let allowed = kind.allowed_growth(&plan, &tally);
    print_row(kind, &tally, took, [before, after], during, allowed, &seen);
    if stopped.contains(' ') {
        return Err(format!("{kind:?}: gauges above 0 after shutdown: {stopped}").into());
    }
    if !seen.failed.is_empty() {
        return Err(format!(
            "{kind:?}: calls of others failed: {:?}; {left}",
            seen.failed
        )
        .into());
    }
    if seen.done == 0 || seen.newcomers == 0 {
        return Err(format!("{kind:?}: others were not served: {seen:?}; {left}").into());
    }
    if after.most > before.now + allowed {
        let most = after.most;
        return Err(format!("{kind:?}: {most} bytes of memory; gauges: {left}").into());
    }
    Ok(())
}

fn print_head() {
    println!(
        "{:<18} {:>7} {:>7} {:>9} {:>6} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>6} {:>8} {:>8} {:>6} {:>9}",
        "attack",
        "tried",
        "cut",
        "MiB sent",
        "s",
        "before",
        "during",
        "after",
        "allowed",
        "calls",
        "failed",
        "p50 ms",
        "p99 ms",
        "new",
        "their p99",
    );
}

fn print_row(
    kind: Kind,
    tally: &Tally,
    took: Duration,
    [before, after]: [Memory; 2],
    during: u64,
    allowed: u64,
    seen: &neighbours::Report,
) {
    let mebibytes = |bytes: u64| format!("{:.1}", bytes as f64 / (1024.0 * 1024.0));
    let milliseconds = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
    println!(
        "{:<18} {:>7} {:>7} {:>9} {:>6.1} | {:>7} {:>7} {:>7} {:>7} | {:>7} {:>6} {:>8} {:>8} {:>6} {:>9}",
        format!("{kind:?}"),
        tally.tried,
        tally.cut + tally.not_connected,
        mebibytes(tally.written),
        took.as_secs_f64(),
        mebibytes(before.now),
        mebibytes(during.max(after.most)),
        mebibytes(after.now),
        mebibytes(before.now + allowed),
        seen.done,
        seen.failed.values().sum::<u64>(),
        milliseconds(seen.p50),
        milliseconds(seen.p99),
        seen.newcomers,
        milliseconds(seen.newcomers_p99),
    );
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let providers = TokioProviders::new();
    if arguments.first().is_some_and(|name| name == server::SERVER) {
        return server::run(&providers).await;
    }
    let is_quick = arguments.iter().any(|argument| argument == "--quick");
    let scale = if is_quick { Scale::Quick } else { Scale::Full };
    let is_named = |kind: &Kind| arguments.contains(&format!("{kind:?}"));
    let named: Vec<Kind> = Kind::ALL.into_iter().filter(is_named).collect();
    let kinds = if named.is_empty() {
        Kind::ALL.to_vec()
    } else {
        named
    };
    println!("memory of the server in MiB; calls of three that stay, and of newcomers");
    print_head();
    let mut failures = Vec::new();
    for kind in kinds {
        if let Err(failure) = attack(&providers, kind, scale).await {
            failures.push(failure.to_string());
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("\n").into())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(&arguments)),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
