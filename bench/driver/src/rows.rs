//! The table: what is measured, by whom, and what is aimed at.

use crate::sides::{Layout, Side};

/// Who a system is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Peer,
    Floor,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer => "peer",
            Self::Floor => "floor",
        }
    }
}

/// What is read off a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    Rate,
    Millions,
    Megabytes,
    WallSeconds,
    Bytes,
    CpuMicros,
    /// Of one operation, by callgrind.
    Instructions,
}

impl Figure {
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate => "/s",
            Self::Millions => "M/s",
            Self::Megabytes => "MB/s",
            Self::WallSeconds => "s",
            Self::Bytes => "bytes",
            Self::CpuMicros => "us of CPU",
            Self::Instructions => "instructions",
        }
    }

    pub fn more_is_better(self) -> bool {
        self.is_rate()
    }

    /// Whether it is operations a second, in whatever unit.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::Rate | Self::Millions | Self::Megabytes)
    }
}

/// How many operations a run has.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    Fixed(u64),
    /// As many as a run's time allows, and at least so many.
    AtLeast(u64),
}

impl Amount {
    /// What a first run has.
    pub fn first(self) -> u64 {
        match self {
            Self::Fixed(count) | Self::AtLeast(count) => count,
        }
    }
}

/// What one of our systems is to reach in a row.
#[derive(Clone, Debug)]
pub enum Goal {
    BestPeer(f64),
    Floor(f64),
    /// Times the system of that name.
    Against(&'static str, f64),
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Debug)]
pub struct System {
    pub name: &'static str,
    pub kind: Kind,
    pub side: Side,
    pub layout: Layout,
    pub work: &'static str,
    pub parameters: Vec<String>,
    pub amount: Amount,
    /// How long a run is at least, whatever the options say.
    pub seconds: f64,
    /// Too slow for several rounds.
    pub once: bool,
    pub goals: Vec<Goal>,
    /// What it does less than the others of its row, if it does.
    pub does_less: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub title: String,
    pub figure: Figure,
    pub systems: Vec<System>,
}

impl Row {
    fn new(name: impl Into<String>, title: impl Into<String>, figure: Figure) -> Self {
        let (name, title) = (name.into(), title.into());
        Self {
            name,
            title,
            figure,
            systems: Vec::new(),
        }
    }

    /// Adds a system.
    fn with(mut self, system: System) -> Self {
        self.systems.push(system);
        self
    }

    /// The row with those systems only, if anything of it is wanted. An empty list wants everything.
    pub fn restricted_to(mut self, rows: &[String], systems: &[String]) -> Option<Self> {
        let wants = |list: &[String], name: &str| {
            list.is_empty() || list.iter().any(|part| name.contains(part.as_str()))
        };
        self.systems.retain(|system| wants(systems, system.name));
        (wants(rows, &self.name) && !self.systems.is_empty()).then_some(self)
    }
}

/// A system on one core, whose runs are as long as the options say.
fn system(name: &'static str, side: Side, work: &'static str) -> System {
    let kind = match side {
        Side::Moonpool => Kind::Ours,
        Side::Untraced | Side::Floor => Kind::Floor,
        _ => Kind::Peer,
    };
    System {
        name,
        kind,
        side,
        layout: Layout::OneCore,
        work,
        parameters: Vec::new(),
        amount: Amount::AtLeast(2000),
        seconds: 0.0,
        once: false,
        goals: Vec::new(),
        does_less: None,
    }
}

impl System {
    fn parameters(mut self, parameters: &[&str]) -> Self {
        self.parameters
            .extend(parameters.iter().map(ToString::to_string));
        self
    }

    fn at_least(mut self, count: u64) -> Self {
        self.amount = Amount::AtLeast(count);
        self
    }

    fn exactly(mut self, count: u64) -> Self {
        self.amount = Amount::Fixed(count);
        self
    }

    fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    fn seconds(mut self, seconds: f64) -> Self {
        self.seconds = seconds;
        self
    }

    fn once(mut self, once: bool) -> Self {
        self.once = once;
        self
    }

    fn does_less(mut self, what: &'static str) -> Self {
        self.does_less = Some(what);
        self
    }

    fn goal(mut self, goal: Goal) -> Self {
        self.goals.push(goal);
        self
    }
}

/// All rows, in the order they are printed. Quick ones have fewer concurrent sleeps, and leave out what takes
/// minutes.
pub fn all(quick: bool) -> Vec<Row> {
    let mut rows = vec![
        stream(),
        stream_instructions(),
        call(),
        call_instructions(),
        mesh(),
        mesh_calls(),
        heartbeats(),
        seeds(),
        workers(),
    ];
    rows.extend([10, 100, 1000].map(|nodes| ring(nodes, quick)));
    if !quick {
        rows.push(ring(100_000, quick));
    }
    rows.push(sleeps());
    if !quick {
        rows.extend(part_instructions());
        rows.push(tracing());
    }
    rows.extend(concurrent_sleeps(quick));
    rows.extend([1_000, 100_000, 1_000_000].map(queue));
    rows.push(tcp_sequential());
    rows.extend([64, 256].map(tcp_in_flight));
    rows.extend(tcp_two_cores());
    rows.push(tcp_large());
    rows
}

fn stream() -> Row {
    Row::new(
        "sim-stream",
        "simulated: sequential 64-byte echoes over a stream",
        Figure::Rate,
    )
    .with(
        system("moonpool", Side::Moonpool, "sim-stream")
            .goal(Goal::BestPeer(4.0))
            .goal(Goal::Floor(0.7)),
    )
    .with(system("turmoil", Side::Turmoil, "sim-stream"))
    .with(system("madsim", Side::Madsim, "sim-stream"))
    .with(system("bare loop", Side::Floor, "sim-stream"))
}

fn call() -> Row {
    Row::new(
        "sim-rpc",
        "simulated: sequential calls (madsim serialises nothing)",
        Figure::Rate,
    )
    .with(
        system("moonpool postcard", Side::Moonpool, "sim-rpc")
            .parameters(&["codec=postcard"])
            .goal(Goal::BestPeer(3.0)),
    )
    .with(
        system("moonpool JSON", Side::Moonpool, "sim-rpc")
            .parameters(&["codec=json"])
            .goal(Goal::BestPeer(2.0)),
    )
    .with(system("madsim", Side::Madsim, "sim-rpc"))
}

/// Rows that count instructions.
pub fn instructions() -> Vec<Row> {
    let mut rows = vec![stream_instructions(), call_instructions()];
    rows.extend(part_instructions());
    rows
}

fn stream_instructions() -> Row {
    let add = |name, side| system(name, side, "sim-stream").exactly(1000);
    let title = "simulated: the same echo in instructions";
    Row::new("instructions-sim-stream", title, Figure::Instructions)
        .with(add("moonpool", Side::Moonpool).goal(Goal::AtMost(3500.0)))
        .with(add("turmoil", Side::Turmoil))
        .with(add("madsim", Side::Madsim))
        .with(add("bare loop", Side::Floor))
}

fn call_instructions() -> Row {
    let add = |name, side, parameters: &[&str]| {
        system(name, side, "sim-rpc")
            .parameters(parameters)
            .exactly(500)
    };
    let title = "simulated: the same call in instructions";
    Row::new("instructions-sim-rpc", title, Figure::Instructions)
        .with(add(
            "moonpool postcard",
            Side::Moonpool,
            &["codec=postcard"],
        ))
        .with(add("moonpool JSON", Side::Moonpool, &["codec=json"]))
        .with(add("madsim", Side::Madsim, &[]))
}

/// What the points of tracing cost when nobody listens.
pub fn tracing() -> Row {
    let add = |name, side| {
        system(name, side, "sim-rpc")
            .parameters(&["codec=postcard"])
            .exactly(500)
    };
    let title =
        "simulated: a call without a subscriber, and with tracing compiled out, in instructions";
    Row::new("instructions-tracing", title, Figure::Instructions)
        .with(add("moonpool", Side::Moonpool).goal(Goal::Floor(0.98)))
        .with(add("tracing compiled out", Side::Untraced))
}

/// What else a baseline is kept of, beside what it can be compared with.
fn part_instructions() -> Vec<Row> {
    let row = |name: &str, title: &str| {
        Row::new(format!("instructions-{name}"), title, Figure::Instructions)
    };
    let queue = |name, side| {
        system(name, side, "queue")
            .parameters(&["pending=1000"])
            .exactly(20_000)
    };
    let packets = |work: &'static str, what: &str| {
        let ours = system("moonpool", Side::Moonpool, work).exactly(16_000);
        row(work, &format!("{what}, in instructions")).with(ours)
    };
    let switch = |name, side| system(name, side, "sim-switch").exactly(20_000);
    let sleeps = |name, side| system(name, side, "sim-sleeps").exactly(10_000);
    let call = |name, side, codec: &[&str]| {
        system(name, side, "tcp")
            // As many in both runs, so that the difference has none of them.
            .parameters(&["window=1", "warm=20"])
            .parameters(codec)
            .exactly(300)
    };
    vec![
        row(
            "queue",
            "event queue: pop and push, 1000 pending, in instructions",
        )
        .with(queue("moonpool", Side::Moonpool))
        .with(queue("std BinaryHeap", Side::Floor))
        .with(queue("4-level wheel", Side::Floor).parameters(&["kind=wheel"])),
        row(
            "switch",
            "simulated: one task yields to another, in instructions",
        )
        .with(switch("moonpool", Side::Moonpool))
        .with(switch("bare loop", Side::Floor)),
        row(
            "sleeps",
            "simulated: a sleep of one of 1000 tasks, in instructions",
        )
        .with(sleeps("moonpool", Side::Moonpool))
        .with(sleeps("turmoil", Side::Turmoil).does_less(TICKS))
        .with(sleeps("madsim", Side::Madsim))
        .with(sleeps("bare loop", Side::Floor)),
        packets(
            "packets-encode",
            "a packet of 64 bytes framed, checksummed and laid out, 16 a write",
        ),
        packets(
            "packets-decode",
            "a packet of 64 bytes split off and checked, 16 a read",
        ),
        row(
            "tcp",
            "TCP: a sequential call, both sides, in instructions outside the kernel",
        )
        .with(call(
            "moonpool postcard",
            Side::Moonpool,
            &["codec=postcard"],
        ))
        .with(call("moonpool JSON", Side::Moonpool, &["codec=json"]))
        .with(call("tarpc bincode", Side::Tarpc, &["codec=bincode"]))
        .with(call("tarpc JSON", Side::Tarpc, &["codec=json"]))
        .with(call("tonic", Side::Tonic, &[]))
        .with(call("capnp", Side::Capnp, &[]))
        .with(call("raw tokio", Side::Floor, &[])),
    ]
}

fn mesh() -> Row {
    let title = "simulated: 10 x 10 nodes, 64-byte echoes, 8 in flight on each connection";
    Row::new("sim-mesh", title, Figure::Rate)
        .with(
            system("moonpool", Side::Moonpool, "sim-mesh")
                .at_least(20_000)
                .goal(Goal::BestPeer(2.0)),
        )
        .with(system("turmoil", Side::Turmoil, "sim-mesh").at_least(20_000))
        .with(system("madsim", Side::Madsim, "sim-mesh").at_least(20_000))
        .with(system("bare loop", Side::Floor, "sim-mesh").at_least(20_000))
}

fn mesh_calls() -> Row {
    let title = "simulated: 10 x 10 nodes, calls, 8 in flight from each to each";
    Row::new("sim-mesh-rpc", title, Figure::Rate)
        .with(
            system("moonpool postcard", Side::Moonpool, "sim-mesh-rpc")
                .parameters(&["codec=postcard"])
                .at_least(20_000)
                .goal(Goal::BestPeer(3.0)),
        )
        .with(
            system("moonpool JSON", Side::Moonpool, "sim-mesh-rpc")
                .parameters(&["codec=json"])
                .at_least(20_000),
        )
        .with(system("madsim", Side::Madsim, "sim-mesh-rpc").at_least(20_000))
}

fn heartbeats() -> Row {
    let title = "simulated: 10 nodes beat to each other every 100 ms, simulated seconds a second";
    Row::new("sim-heartbeat", title, Figure::Rate)
        .with(
            system("moonpool", Side::Moonpool, "sim-heartbeat")
                .at_least(10)
                .goal(Goal::BestPeer(3.0)),
        )
        .with(system("turmoil", Side::Turmoil, "sim-heartbeat").at_least(2))
        .with(system("madsim", Side::Madsim, "sim-heartbeat").at_least(10))
}

fn seeds() -> Row {
    let title = "simulated: a run of two hosts and one exchange, seeds a second";
    Row::new("sim-seeds", title, Figure::Rate)
        .with(system("moonpool bare", Side::Moonpool, "sim-seeds").goal(Goal::AtLeast(150_000.0)))
        .with(
            system("moonpool builder", Side::Moonpool, "sim-seeds-builder")
                .goal(Goal::AtLeast(60_000.0)),
        )
        .with(system("turmoil", Side::Turmoil, "sim-seeds").at_least(500))
        .with(system("madsim", Side::Madsim, "sim-seeds").at_least(500))
}

fn workers() -> Row {
    let title = "simulated: the same through SimulationBuilder with one worker and with two";
    let builder = |name, layout, jobs: &str| {
        system(name, Side::Moonpool, "sim-seeds-builder")
            .parameters(&[jobs])
            .layout(layout)
            .at_least(10_000)
            // What a campaign does once must not count as something that its workers wait for.
            .seconds(0.5)
    };
    let two = builder("moonpool two workers", Layout::TwoCores, "jobs=2");
    let mut processes = builder("moonpool two processes", Layout::SideBySide, "jobs=1");
    // They share nothing but the machine.
    processes.kind = Kind::Floor;
    Row::new("sim-workers", title, Figure::Rate)
        .with(builder("moonpool one worker", Layout::TwoCores, "jobs=1"))
        .with(two.goal(Goal::Against("moonpool one worker", 1.9)))
        .with(processes)
}

fn ring(nodes: u64, quick: bool) -> Row {
    let parameter = format!("nodes={nodes}");
    let title = format!("simulated: {nodes} nodes in a ring beat once a second, wall time of 60 s");
    let ours = system("moonpool", Side::Moonpool, "sim-ring").once(nodes > 1000);
    let ours = match nodes {
        1000 => ours.goal(Goal::AtMost(0.1)),
        100_000 => ours.goal(Goal::AtMost(60.0)),
        _ => ours,
    };
    let mut row = Row::new(format!("sim-ring-{nodes}"), title, Figure::WallSeconds).with(ours);
    if nodes <= 1000 {
        row = row.with(system("madsim", Side::Madsim, "sim-ring"));
    }
    // With a hundred nodes it takes two minutes.
    if nodes == 10 {
        row = row.with(system("turmoil", Side::Turmoil, "sim-ring").once(quick));
    }
    for system in &mut row.systems {
        system.parameters.push(parameter.clone());
        system.amount = Amount::Fixed(60);
    }
    row
}

/// Of turmoil's sleeps. A thousand timers then fire in a hundred steps.
const TICKS: &str = "sleeps end with ticks of 1 ms";

fn sleeps() -> Row {
    let title = "simulated: 1000 tasks that sleep again and again, sleeps a second";
    Row::new("sim-sleeps", title, Figure::Rate)
        .with(
            system("moonpool", Side::Moonpool, "sim-sleeps")
                .at_least(100_000)
                .goal(Goal::BestPeer(3.0)),
        )
        .with(
            system("turmoil", Side::Turmoil, "sim-sleeps")
                .at_least(100_000)
                .does_less(TICKS),
        )
        .with(system("madsim", Side::Madsim, "sim-sleeps").at_least(100_000))
        .with(system("bare loop", Side::Floor, "sim-sleeps").at_least(100_000))
}

fn concurrent_sleeps(quick: bool) -> [Row; 2] {
    let count = if quick { 100_000 } else { 1_000_000 };
    let row = |name: &str, what: &str, figure, goals: &[Goal]| {
        let title = format!("simulated: {count} tasks sleep once at the same time, {what}");
        let mut ours = system("moonpool", Side::Moonpool, "sim-concurrent-sleeps").exactly(count);
        ours.goals = goals.to_vec();
        let other = |name, side| system(name, side, "sim-concurrent-sleeps").exactly(count);
        Row::new(name, title, figure)
            .with(ours)
            .with(other("turmoil", Side::Turmoil).does_less(TICKS))
            .with(other("madsim", Side::Madsim))
            .with(other("bare loop", Side::Floor))
    };
    [
        row(
            "sim-concurrent-sleeps",
            "sleeps a second",
            Figure::Rate,
            &[Goal::BestPeer(3.0)],
        ),
        row(
            "sim-concurrent-bytes",
            "resident bytes each",
            Figure::Bytes,
            &[Goal::AtMost(250.0)],
        ),
    ]
}

fn queue(pending: u64) -> Row {
    let parameter = format!("pending={pending}");
    let parameters = [parameter.as_str()];
    let title = format!("event queue: pop and push, {pending} pending");
    let ours = system("moonpool", Side::Moonpool, "queue").parameters(&parameters);
    let ours = match pending {
        1000 => ours.goal(Goal::Against("std BinaryHeap", 1.0)),
        1_000_000 => ours.goal(Goal::AtLeast(20.0)),
        _ => ours,
    };
    let mut row = Row::new(format!("queue-{pending}"), title, Figure::Millions)
        .with(ours)
        .with(system("std BinaryHeap", Side::Floor, "queue").parameters(&parameters))
        .with(
            system("4-level wheel", Side::Floor, "queue")
                .parameters(&parameters)
                .parameters(&["kind=wheel"]),
        );
    for system in &mut row.systems {
        system.amount = Amount::AtLeast(100_000);
    }
    row
}

/// Everybody who speaks TCP, with those parameters.
fn tcp(row: Row, layout: Layout, parameters: &[&str]) -> Row {
    let add = |name, side, codec: &[&str]| {
        system(name, side, "tcp")
            .parameters(parameters)
            .parameters(codec)
            .layout(layout)
    };
    row.with(add(
        "moonpool postcard",
        Side::Moonpool,
        &["codec=postcard"],
    ))
    .with(add("moonpool JSON", Side::Moonpool, &["codec=json"]))
    .with(add("tarpc bincode", Side::Tarpc, &["codec=bincode"]))
    .with(add("tarpc JSON", Side::Tarpc, &["codec=json"]))
    .with(add("tonic", Side::Tonic, &[]))
    .with(add("capnp", Side::Capnp, &[]))
    .with(add("raw tokio", Side::Floor, &[]))
}

fn aim(mut row: Row, name: &str, goal: Goal) -> Row {
    for system in row.systems.iter_mut().filter(|system| system.name == name) {
        system.goals.push(goal.clone());
    }
    row
}

fn tcp_sequential() -> Row {
    let title = "TCP, both ends on one core: sequential calls";
    let row = tcp(
        Row::new("tcp-1", title, Figure::Rate),
        Layout::OneCore,
        &["window=1"],
    );
    let row = aim(row, "moonpool postcard", Goal::BestPeer(1.7));
    aim(row, "moonpool postcard", Goal::Floor(0.75))
}

fn like_codecs(row: Row) -> Row {
    let row = aim(
        row,
        "moonpool postcard",
        Goal::Against("tarpc bincode", 3.0),
    );
    aim(row, "moonpool JSON", Goal::Against("tarpc JSON", 3.0))
}

fn tcp_in_flight(window: u64) -> Row {
    let title = format!("TCP, both ends on one core: {window} calls in flight");
    let row = Row::new(format!("tcp-{window}"), title, Figure::Rate);
    like_codecs(tcp(row, Layout::OneCore, &[&format!("window={window}")]))
}

fn tcp_two_cores() -> [Row; 2] {
    let title = "TCP, two processes on a core each: 256 calls in flight";
    let layout = Layout::TwoProcesses;
    let rate = tcp(
        Row::new("tcp-two-cores", title, Figure::Rate),
        layout,
        &["window=256"],
    );
    let title = "TCP, the same: CPU of both sides for a call";
    let cpu = tcp(
        Row::new("tcp-cpu", title, Figure::CpuMicros),
        layout,
        &["window=256"],
    );
    [
        like_codecs(rate),
        aim(cpu, "moonpool postcard", Goal::AtMost(1.0)),
    ]
}

fn tcp_large() -> Row {
    let add = |name, side| system(name, side, "tcp-large").at_least(20);
    Row::new(
        "tcp-large",
        "TCP, both ends on one core: echoes of 1 MiB",
        Figure::Megabytes,
    )
    .with(add("moonpool postcard", Side::Moonpool).goal(Goal::Floor(0.85)))
    .with(add("tarpc bincode", Side::Tarpc))
    .with(add("tonic", Side::Tonic))
    .with(add("capnp", Side::Capnp))
    .with(add("raw tokio", Side::Floor))
}
