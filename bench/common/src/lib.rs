//! What every side of the comparison shares, so that all do the same work: arguments, the message of
//! the calls, sizes, and how a figure is measured and printed.
//!
//! A side is a program: `bench-SIDE WORK [key=value ..]`. It prints one `name=value` a line, `rate=`
//! (operations a second) always among them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of an echo over a stream, and of a call in bincode's fixed-width form.
pub const PAYLOAD: usize = 64;

/// Bytes of a large echo.
pub const LARGE: usize = 1 << 20;

/// How long a segment or message travels in the simulated networks.
pub const ONE_WAY: Duration = Duration::from_millis(1);

/// The most that [`Numbers::sleep`] gives.
pub const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Between two beats of a heart, and between two of a ring's.
pub const HEARTBEAT: Duration = Duration::from_millis(100);
pub const RING_BEAT: Duration = Duration::from_secs(1);

/// What a call carries there and back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub id: u64,
    pub low: f64,
    pub high: f64,
    pub name: String,
}

impl Sample {
    pub fn new() -> Self {
        Self {
            id: 1_234_567,
            low: 0.25,
            high: 1234.5,
            name: "a name of thirty-two characters.".to_owned(),
        }
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self::new()
    }
}

/// The work that was asked for, with its parameters.
pub struct Arguments {
    pub work: String,
    values: BTreeMap<String, String>,
}

impl Arguments {
    pub fn parse() -> Self {
        let mut arguments = std::env::args().skip(1);
        let work = arguments.next().unwrap_or_default();
        let pair = |argument: String| match argument.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => panic!("not key=value: {argument}"),
        };
        Self {
            work,
            values: arguments.map(pair).collect(),
        }
    }

    /// The number called `key`, or `default`.
    pub fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        match self.values.get(key) {
            None => default,
            Some(text) => match text.parse() {
                Ok(value) => value,
                Err(_) => panic!("not a number: {key}={text}"),
            },
        }
    }

    /// The text called `key`, or `default`.
    pub fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.values.get(key).map_or(default, String::as_str)
    }

    /// Ends the process: this side has no such work.
    pub fn unknown(&self) -> ! {
        eprintln!("no such work here: {}", self.work);
        std::process::exit(2)
    }
}

/// Prints one figure.
pub fn print(name: &str, value: impl Display) {
    println!("{name}={value}");
}

/// From the start of the measured part to its end: wall time, and CPU time of this process and, if
/// it is named, of another.
pub struct Measurement {
    other: Option<u32>,
    cpu: Duration,
    began: Instant,
}

impl Measurement {
    pub fn begin() -> Self {
        Self::begin_with(None)
    }

    /// `other` is the process that runs the other end.
    pub fn begin_with(other: Option<u32>) -> Self {
        let cpu = cpu_of_all(other);
        Self {
            other,
            cpu,
            began: Instant::now(),
        }
    }

    /// Prints what `operations` operations took.
    pub fn end(self, operations: u64) {
        let wall = self.began.elapsed();
        let cpu = cpu_of_all(self.other).saturating_sub(self.cpu);
        let operations = operations as f64;
        print("rate", operations / wall.as_secs_f64());
        print("wall_s", wall.as_secs_f64());
        print("cpu_us", cpu.as_secs_f64() * 1e6 / operations);
    }
}

fn cpu_of_all(other: Option<u32>) -> Duration {
    cpu_time("self") + other.map_or(Duration::ZERO, |pid| cpu_time(&pid.to_string()))
}

/// What all threads of a process ran on a CPU, to the nanosecond. Zero where the kernel does not tell.
pub fn cpu_time(process: &str) -> Duration {
    let mut total = 0;
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let path: PathBuf = task.path().join("schedstat");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let on_cpu = text.split(' ').next().and_then(|field| field.parse().ok());
        total += on_cpu.unwrap_or(0_u64);
    }
    Duration::from_nanos(total)
}

/// A line of `/proc/self/status` in bytes: `VmRSS` is resident now, `VmHWM` the most that ever was.
pub fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Numbers that are the same for every side, whatever its own generator is.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    #[expect(clippy::should_implement_trait, reason = "nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From a microsecond to [`LONGEST_SLEEP`].
    pub fn sleep(&mut self) -> Duration {
        Duration::from_micros(1 + self.next() % 100_000)
    }
}
