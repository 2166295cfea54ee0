//! The programs that are compared: how each is built, by itself, and run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Moonpool,
    /// moonpool with tracing compiled out.
    Untraced,
    Floor,
    Turmoil,
    Madsim,
    Tarpc,
    Tonic,
    Capnp,
}

/// Where the ends of a work run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One process of one thread, on one core.
    OneCore,
    /// As many threads as it starts, on two cores.
    TwoCores,
    /// A server process on one core and a client process on the other.
    TwoProcesses,
    /// A server process and a client process on the same core.
    TwoProcessesOneCore,
    /// Two processes that know nothing of each other, on a core each, at the same time: what the machine
    /// gives to two.
    SideBySide,
}

impl Side {
    pub fn package(self) -> &'static str {
        match self {
            Self::Moonpool => "bench-moonpool",
            Self::Untraced => "bench-moonpool-untraced",
            Self::Floor => "bench-floor",
            Self::Turmoil => "bench-turmoil",
            Self::Madsim => "bench-madsim",
            Self::Tarpc => "bench-tarpc",
            Self::Tonic => "bench-tonic",
            Self::Capnp => "bench-capnp",
        }
    }

    /// madsim replaces parts of its users' crates under a cfg of its own: nothing it shares with other sides
    /// may be built with that.
    fn target_directory(self) -> PathBuf {
        match self {
            Self::Madsim => workspace().join("target/madsim"),
            _ => workspace().join("target"),
        }
    }

    pub fn program(self) -> PathBuf {
        self.target_directory().join("release").join(self.package())
    }

    fn build(self) -> Result<(), String> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut command = Command::new(cargo);
        command.current_dir(workspace());
        command.args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "--package",
            self.package(),
        ]);
        command.arg("--target-dir").arg(self.target_directory());
        if self == Self::Madsim {
            // Beside what the caller asks for: the others are built with that as well.
            let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
            command.env("RUSTFLAGS", format!("{flags} --cfg madsim").trim_start());
        }
        let status = command
            .status()
            .map_err(|error| format!("cargo: {error}"))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{} did not build", self.package()))
        }
    }
}

pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// One invocation of cargo for each: features of one side's dependencies do not reach another's. Gives those
/// that did not build, and why.
pub fn build_each(sides: impl IntoIterator<Item = Side>) -> BTreeMap<Side, String> {
    let sides: BTreeSet<Side> = sides.into_iter().collect();
    let built = sides.into_iter().filter_map(|side| {
        eprintln!("building {}", side.package());
        side.build().err().map(|message| (side, message))
    });
    built.collect()
}

/// What a run printed.
pub type Figures = BTreeMap<String, f64>;

/// `program work n=count parameters`, pinned as the layout says. With a server and a client, those are
/// the works `tcp-server` and `work-client`.
pub fn run(
    side: Side,
    layout: Layout,
    work: &str,
    parameters: &[String],
    count: u64,
) -> Result<Figures, String> {
    let count = format!("n={count}");
    let alone = |cores: &str| {
        let mut command = pinned(cores, side);
        command.arg(work).arg(&count).args(parameters);
        command
    };
    match layout {
        Layout::OneCore => finish(alone(&last_core())),
        Layout::TwoCores => finish(alone(&both_cores())),
        Layout::SideBySide => side_by_side([alone("0"), alone(&last_core())]),
        Layout::TwoProcesses | Layout::TwoProcessesOneCore => {
            let core = match layout {
                Layout::TwoProcesses => "0".to_owned(),
                _ => last_core(),
            };
            let server = Server::start(side, &core, parameters)?;
            let mut command = pinned(&last_core(), side);
            command.arg(format!("{work}-client"));
            command.arg(&count).args(parameters);
            command.arg(format!("address={}", server.address));
            command.arg(format!("server={}", server.process.id()));
            finish(command)
        }
    }
}

/// Both at once: the sum of their rates, and the longer of their times.
fn side_by_side(commands: [Command; 2]) -> Result<Figures, String> {
    let [one, other] = std::thread::scope(|scope| {
        let runs = commands.map(|command| scope.spawn(|| finish(command)));
        runs.map(|run| match run.join() {
            Ok(figures) => figures,
            Err(payload) => std::panic::resume_unwind(payload),
        })
    });
    let (one, other) = (one?, other?);
    let of = |figures: &Figures, name: &str| figures.get(name).copied().unwrap_or(f64::NAN);
    let both = |name: &str| [of(&one, name), of(&other, name)];
    let [rates, walls, cpus] = ["rate", "wall_s", "cpu_us"].map(both);
    let figures = [
        ("rate", rates[0] + rates[1]),
        ("wall_s", walls[0].max(walls[1])),
        ("cpu_us", (cpus[0] + cpus[1]) / 2.0),
    ];
    let figures = figures.map(|(name, value)| (name.to_owned(), value));
    Ok(Figures::from(figures))
}

/// Runs to the end. What takes longer than two minutes is no figure but a fault, and is ended.
fn finish(run: Command) -> Result<Figures, String> {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", "120"])
        .arg(run.get_program())
        .args(run.get_args());
    for (name, _) in run.get_envs() {
        command.env_remove(name);
    }
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let status = output.status;
        return Err(format!("{command:?} ended with {status}: {said}"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(pair).collect())
}

/// How long a server may take to say where it listens.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// The server's half of a side, in a process of its own, which ends with this.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(side: Side, core: &str, parameters: &[String]) -> Result<Self, String> {
        let mut command = pinned(core, side);
        command
            .arg("tcp-server")
            .args(parameters)
            .stdout(Stdio::piped());
        let mut process = command
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let output = process.stdout.take();
        let mut server = Self {
            process,
            address: String::new(),
        };
        // The thread ends with the server's output.
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let line = output.and_then(|output| BufReader::new(output).lines().next());
            // Nobody listens any more once it took too long.
            let _late = tell.send(line);
        });
        let line = match told.recv_timeout(STARTS_WITHIN) {
            Ok(Some(line)) => line.map_err(|error| format!("{command:?}: {error}"))?,
            Ok(None) => return Err(format!("{command:?} ended")),
            Err(error) => return Err(format!("{command:?} says no address: {error}")),
        };
        let address = line.strip_prefix("address=");
        server.address = address.ok_or(format!("{command:?}: {line}"))?.to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the client has told then.
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn last_core() -> String {
    (cores() - 1).to_string()
}

fn both_cores() -> String {
    format!("0,{}", last_core())
}

fn pinned(cores: &str, side: Side) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]).arg(side.program());
    // A seed or a limit left over in the shell must not change one side alone.
    for (name, _) in std::env::vars() {
        if name.starts_with("MOONPOOL_") || name.starts_with("MADSIM_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}
