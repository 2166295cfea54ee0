//! What every side of the comparison shares, so that all do the same work: arguments, the message of
//! the calls, sizes, and how a figure is measured and printed.
//!
//! A side is a program: `bench-SIDE WORK [key=value ..]`. It prints one `name=value` a line, `rate=`
//! (operations a second) always among them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
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

    /// How many calls go before a measurement of `count` calls by `window` callers: a twentieth of them or as many as
    /// were asked for, and at least one a caller.
    pub fn warm_up(&self, count: u64, window: u64) -> u64 {
        self.number("warm", count / 20).max(window)
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
    cpu: CpuClocks,
    cpu_began: Duration,
    began: Instant,
}

impl Measurement {
    pub fn begin() -> Self {
        Self::begin_with(None)
    }

    /// `other` is the process that runs the other end.
    pub fn begin_with(other: Option<u32>) -> Self {
        let cpu = CpuClocks::new(other);
        Self {
            cpu_began: cpu.now(),
            cpu,
            began: Instant::now(),
        }
    }

    /// Prints what `operations` operations took.
    pub fn end(self, operations: u64) {
        let wall = self.began.elapsed();
        let cpu = self.cpu.now().saturating_sub(self.cpu_began);
        let operations = operations as f64;
        print("rate", operations / wall.as_secs_f64());
        print("wall_s", wall.as_secs_f64());
        print("cpu_us", cpu.as_secs_f64() * 1e6 / operations);
    }
}

/// What all threads of some processes ran on a CPU, ended ones included, to the nanosecond.
struct CpuClocks(Vec<ClockId>);

impl CpuClocks {
    /// Of this process, and of another.
    fn new(other: Option<u32>) -> Self {
        let clock_of = |pid: u32| {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(-1));
            match clock_getcpuclockid(pid) {
                Ok(clock) => clock,
                Err(error) => panic!("no CPU clock of process {pid}: {error}"),
            }
        };
        let mut clocks = vec![ClockId::CLOCK_PROCESS_CPUTIME_ID];
        clocks.extend(other.map(clock_of));
        Self(clocks)
    }

    fn now(&self) -> Duration {
        let read = |clock: &ClockId| match clock.now() {
            Ok(time) => Duration::from(time),
            Err(error) => panic!("CPU clock: {error}"),
        };
        self.0.iter().map(read).sum()
    }
}

/// What all threads of this process ran on a CPU so far, ended ones included.
pub fn cpu_time() -> Duration {
    CpuClocks::new(None).now()
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

/// What came out of a queue: the times in their order and, since events of one time may come in any, the events
/// that were left at the end in none. The same for all queues that give the earliest event.
#[derive(Default)]
pub struct Order {
    times: u64,
    events: u64,
}

impl Order {
    /// The next event has that time.
    pub fn note(&mut self, at: u64) {
        self.times = (self.times.rotate_left(5) ^ at).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    /// One of those that are left has that time.
    pub fn note_left(&mut self, at: u64, event: u64) {
        self.note(at);
        let mixed = (event + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.events = self.events.wrapping_add(mixed ^ (mixed >> 29));
    }

    /// 32 bits, which a floating-point number holds exactly.
    pub fn checksum(&self) -> u64 {
        (self.times ^ self.events.rotate_left(32)) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn work() -> u64 {
        (0..black_box(100_000)).fold(0, |sum, next| black_box(sum ^ next))
    }

    /// A figure of a run that takes a few milliseconds is of use only then.
    #[test]
    fn the_cpu_clock_tells_short_pieces_of_work_apart() {
        let mut readings: Vec<Duration> = (0..20)
            .map(|_| {
                black_box(work());
                cpu_time()
            })
            .collect();
        readings.dedup();
        assert_eq!(readings.len(), 20);
    }

    #[test]
    fn threads_that_have_ended_count() {
        let before = cpu_time();
        let thread = std::thread::spawn(|| {
            black_box(work());
            Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap())
        });
        let of_thread = thread.join().unwrap();
        assert!(of_thread > Duration::ZERO && cpu_time() - before >= of_thread);
    }

    #[test]
    fn another_process_counts() {
        let this = std::process::id();
        let own = cpu_time();
        // Twice this process: as if it were the other one.
        let both = CpuClocks::new(Some(this)).now();
        assert!(both >= 2 * own, "{both:?} {own:?}");
    }

    #[test]
    fn another_order_and_another_event_have_another_checksum() {
        let checksum = |events: &[(u64, u64)]| {
            let mut order = Order::default();
            order.note(0);
            for &(at, event) in events {
                order.note_left(at, event);
            }
            order.checksum()
        };
        let right = checksum(&[(1, 7), (1, 8), (2, 9)]);
        assert_eq!(right, checksum(&[(1, 8), (1, 7), (2, 9)]));
        assert_ne!(right, checksum(&[(2, 9), (1, 8), (1, 7)]));
        assert_ne!(right, checksum(&[(1, 7), (1, 7), (2, 9)]));
        assert_ne!(right, checksum(&[(1, 7), (1, 8)]));
    }
}
