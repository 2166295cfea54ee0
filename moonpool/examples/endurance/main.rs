//! Sessions over real TCP for long: connections cut, servers killed, many connects, many calls.
//!
//! `cargo run --release --example endurance [-- [--quick] [cuts|kills|connects|calls ..]]`. Without
//! names all of them run. Everything stays on 127.0.0.0/8, on ports that the system chooses, and
//! ends by itself. What each call got is held against what the server did; the first promise that
//! does not hold ends the program with an error.
//!
//! - `cuts`: a proxy resets the connection 1,000 times, at random bytes, under 64 calls in flight.
//! - `kills`: the server is a process of its own, killed and started again 10 times.
//! - `connects`: 100,000 connects with Hello, one call or none, and an orderly close.
//! - `calls`: 10,000,000 calls, 256 at a time.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

mod calls;
mod connects;
mod cuts;
mod kills;
mod ledger;
mod service;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use moonpool::prelude::*;

type Failure = Box<dyn Error>;

/// How long any of them may take.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// How much is done: in full, or in the few seconds that a continuous check has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Full,
    Quick,
}

impl Scale {
    fn pick<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// Fails with `message` unless `holds`.
fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(message().into()) }
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("  {name:<44} {value:>16}");
}

async fn run(name: &str, scale: Scale, providers: &TokioProviders) -> Result<(), Failure> {
    println!("{name}");
    let began = providers.time().now();
    let limited = providers.time().timeout(TIME_LIMIT, async {
        match name {
            "cuts" => cuts::run(scale, providers).await,
            "kills" => kills::run(scale, providers).await,
            "connects" => connects::run(scale, providers).await,
            "calls" => calls::run(scale, providers).await,
            _ => Err("it is none of cuts, kills, connects, calls".into()),
        }
    });
    let ended = limited.await;
    ended.map_err(|_elapsed| format!("not done after {TIME_LIMIT:?}"))??;
    let took = providers.time().now() - began;
    row("seconds", format!("{:.1}", took.as_secs_f64()));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let failed = runtime.block_on(async {
        let providers = TokioProviders::new();
        if let [hidden, address, ledger] = &arguments[..]
            && hidden == kills::SERVER
        {
            return kills::serve(&providers, address, ledger)
                .await
                .err()
                .map(|error| (hidden.clone(), error));
        }
        let (options, mut names): (Vec<_>, Vec<_>) = arguments
            .iter()
            .cloned()
            .partition(|argument| argument.starts_with('-'));
        let is_quick = options.iter().any(|option| option == "--quick");
        let scale = if is_quick { Scale::Quick } else { Scale::Full };
        if names.is_empty() {
            names = ["cuts", "kills", "connects", "calls"]
                .map(String::from)
                .to_vec();
        }
        for name in names {
            if let Err(error) = run(&name, scale, &providers).await {
                return Some((name, error));
            }
        }
        None
    });
    match failed {
        None => ExitCode::SUCCESS,
        Some((name, error)) => {
            eprintln!("{name} failed: {error}");
            ExitCode::FAILURE
        }
    }
}
