//! Versions and settings: what has to be known to compare a table with another.

use std::process::Command;

use crate::sides::workspace;
use crate::{Mode, Options};

const PEERS: [&str; 6] = ["turmoil", "madsim", "tarpc", "tonic", "capnp-rpc", "tokio"];

pub fn print(options: &Options) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let lock = std::fs::read_to_string(workspace().join("Cargo.lock")).unwrap_or_default();
    let versions: Vec<String> = PEERS
        .iter()
        .map(|name| format!("{name} {}", locked_version(&lock, name)))
        .collect();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!(
        "moonpool at {}{}; {}",
        commit.unwrap_or_default(),
        changes(),
        versions.join(", ")
    );
    println!(
        "{}; profile release; each side built by itself",
        rustc.unwrap_or_default()
    );
    println!(
        "{model}, {cores} cores; Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    );
    let load = read("/proc/loadavg");
    println!(
        "load when it began: {}",
        load.split(' ').take(3).collect::<Vec<_>>().join(" ")
    );
    if options.mode == Mode::Growth {
        let rounds = crate::growth::rounds(options);
        println!("medians of {rounds} rounds in which the sizes take turns");
    } else {
        println!(
            "medians of {} interleaved runs of about {} s (sim-workers and CPU time: 0.5 s); by {} time{}",
            options.rounds.unwrap_or(5),
            crate::measure::run_seconds(options),
            if options.cpu { "CPU" } else { "wall" },
            if options.quick { "; --quick" } else { "" },
        );
    }
    println!(
        "simulated networks: 1 ms one way, no faults; 64-byte echoes, calls of {{u64, f64, f64, 32 characters}}"
    );
}

/// Whether the commit is all that was built.
fn changes() -> &'static str {
    let status = Command::new("git").args(["status", "--porcelain"]).output();
    match status {
        Ok(output) if output.status.success() && output.stdout.is_empty() => "",
        Ok(output) if output.status.success() => ", with changes that are not committed",
        _ => ", with changes or without: git does not say",
    }
}

/// The version of a package in a lock file.
fn locked_version(lock: &str, name: &str) -> String {
    let begin = format!("name = \"{name}\"\nversion = \"");
    let rest = lock.split_once(&begin).map_or("?", |(_, rest)| rest);
    rest.split('"').next().unwrap_or("?").to_owned()
}
