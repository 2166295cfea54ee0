//! What a failure looks like: all one needs to know about the first failing seed on one screen, and
//! the command that replays it last.

use std::cmp::Reverse;
use std::fmt;

use super::orchestrator::{Recording, SeedRun};
use super::phases::Phases;
use super::plan::{Network, Plan};
use super::processes::attrition_of;
use super::report::{SeedReport, SimulationReport};
use super::verdict::{Divergence, Verdict};
use crate::chaos::{Attrition, FaultKind, FaultRecord};
use crate::network::NetworkConfiguration;

/// Other failing seeds that are listed; the rest is counted.
const LISTED_SEEDS: usize = 6;
/// Workloads whose names are part of the configuration's line.
const LISTED_WORKLOADS: usize = 3;
/// Processes that are listed; the rest is counted.
const LISTED_PROCESSES: usize = 4;
/// How many of them stand on one line.
const PROCESSES_PER_LINE: usize = 4;
/// Pending tasks that are listed; the rest is counted.
const LISTED_TASKS: usize = 4;
/// Faults that are listed: those that disturb most, and of these the last ones.
const LISTED_FAULTS: usize = 4;
/// Lines of all that is said of faults.
const LISTED_LINES: usize = 5;
/// Faults that were to be skipped and are listed; the replay command has them all.
const LISTED_SKIPPED: usize = 12;
/// Lines of the headline, of which a panic's message can have many.
const HEADLINE_LINES: usize = 3;

/// A campaign with a failing seed. `Display` gives the banner.
pub(super) struct Failure<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) report: &'a SimulationReport,
    /// One more run of the first failing seed, for its recording.
    pub(super) again: &'a SeedRun,
    pub(super) recording: &'a Recording,
    /// The test that ran the campaign, if it was one.
    pub(super) test: Option<&'a str>,
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(failed) = self.report.failures().next() else {
            return Ok(());
        };
        writeln!(f, "\n{RULE} simulation failed {RULE}")?;
        let headline = failed.verdict.headline();
        let shown: Vec<&str> = headline.lines().take(HEADLINE_LINES).collect();
        entry(f, failed.verdict.name(), &shown.join("\n"))?;
        self.write_run(f, failed)?;
        self.write_configuration(f, failed)?;
        self.write_processes(f)?;
        self.write_pending(f, failed)?;
        self.write_faults(f, failed)?;
        self.write_steps(f, failed)?;
        self.write_others(f)?;
        if let Some(command) = &self.report.replay_command {
            entry(f, "replay", command)?;
        }
        writeln!(f, "{RULE}{RULE}{RULE}")
    }
}

const RULE: &str = "=====================";

/// A title in the margin, and the text beside it.
fn entry(f: &mut fmt::Formatter<'_>, title: &str, text: &str) -> fmt::Result {
    for (index, line) in text.lines().enumerate() {
        let title = if index == 0 { title } else { "" };
        writeln!(f, "{title:<14} {line}")?;
    }
    Ok(())
}

/// Columns of a list that goes over several lines.
const LIST_WIDTH: usize = 120;

/// `text` with lines of the list's width, broken behind commas and semicolons.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_inclusive([' ', '\n']) {
        let may_break = wrapped.ends_with(", ") || wrapped.ends_with("; ");
        if may_break && column + word.len() > LIST_WIDTH {
            wrapped.pop();
            wrapped.push('\n');
            column = 0;
        }
        wrapped.push_str(word);
        column = if word.ends_with('\n') {
            0
        } else {
            column + word.len()
        };
    }
    wrapped
}

impl Failure<'_> {
    fn write_run(&self, f: &mut fmt::Formatter<'_>, failed: &SeedReport) -> fmt::Result {
        let report = self.report;
        let count = match report.iterations {
            1 => String::new(),
            seeds => format!(" ({} of {seeds} seeds failed)", report.failed_runs),
        };
        entry(f, "seed", &format!("{}{count}", failed.seed))?;
        if let Some(test) = self.test {
            entry(f, "test", test)?;
        }
        let metrics = &failed.metrics;
        let time = format!(
            "{:?} simulated, {} events, digest {:016x}",
            metrics.simulated_time, metrics.events_processed, metrics.digest
        );
        entry(f, "time", &time)
    }

    fn write_configuration(&self, f: &mut fmt::Formatter<'_>, failed: &SeedReport) -> fmt::Result {
        let plan = self.plan;
        let workloads = plan.workloads.iter().take(LISTED_WORKLOADS);
        let mut names: Vec<&str> = workloads.map(|workload| workload.name.as_ref()).collect();
        if plan.workloads.len() > LISTED_WORKLOADS {
            // Those that are listed as processes tell who the others are.
            names.push("...");
        }
        let mut configuration = format!(
            "workloads {}; network {}; time budget {:?}; check {}",
            names.join(", "),
            network(plan.network),
            plan.time_budget,
            plan.check.name(),
        );
        if plan.attrition.is_some() {
            let attrition = attrition_of(plan, failed.seed);
            configuration.push_str(&format!("; attrition {}", attrition_text(attrition)));
        }
        if let Some(phases) = &plan.phases {
            let Phases { chaos, quiet } = phases;
            configuration.push_str(&format!("; phases chaos {chaos:?}, quiet {quiet:?}"));
        }
        if !plan.skipped_faults.is_empty() {
            let listed = plan.skipped_faults.iter().take(LISTED_SKIPPED);
            let listed: Vec<String> = listed.map(ToString::to_string).collect();
            configuration.push_str(&format!("; skipped {}", listed.join(", ")));
            let others = plan.skipped_faults.len() - listed.len();
            if others > 0 {
                configuration.push_str(&format!(", and {others} more"));
            }
        }
        entry(f, "configuration", &wrapped(&configuration))?;
        if *plan.network == Network::Swarm {
            entry(f, "drawn", &wrapped(&drawn(&plan.network.of(failed.seed))))?;
        }
        Ok(())
    }

    fn write_processes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = &self.recording.processes;
        let listed = &processes[..processes.len().min(LISTED_PROCESSES)];
        let lines = listed.chunks(PROCESSES_PER_LINE);
        let mut lines: Vec<String> = lines.map(|line| line.join(", ")).collect();
        if processes.len() > listed.len() {
            lines.push(format!("and {} more", processes.len() - listed.len()));
        }
        entry(f, "processes", &lines.join("\n"))
    }

    fn write_pending(&self, f: &mut fmt::Formatter<'_>, failed: &SeedReport) -> fmt::Result {
        let listed = match failed.verdict.waiting() {
            [] => self.recording.pending.as_slice(),
            waiting => waiting,
        };
        let mut text = listed[..listed.len().min(LISTED_TASKS)].join("\n");
        if listed.is_empty() {
            text.push_str("no task");
        }
        if listed.len() > LISTED_TASKS {
            text.push_str(&format!("\nand {} more tasks", listed.len() - LISTED_TASKS));
        }
        entry(f, "pending", &text)
    }

    /// How often each kind fired, and the ones that disturbed most, in the order of time.
    fn write_faults(&self, f: &mut fmt::Formatter<'_>, failed: &SeedReport) -> fmt::Result {
        if failed.faults.total() == 0 {
            return entry(f, "faults", "none fired");
        }
        let counts = failed.faults.fired();
        let counts: Vec<String> = counts
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        let records = &self.recording.faults;
        let mut lines = vec![wrapped(&counts.join(", "))];
        let mut left = LISTED_LINES.saturating_sub(lines[0].lines().count());
        left = left.min(LISTED_FAULTS);
        for (fault, target) in weightiest(records, left) {
            let skipped = if fault.skipped { " (skipped)" } else { "" };
            lines.push(format!("{:?} {}: {target}{skipped}", fault.at, fault.id));
        }
        entry(f, "faults", &lines.join("\n"))
    }

    /// The last steps; or, if the seed's runs differ, where they part.
    fn write_steps(&self, f: &mut fmt::Formatter<'_>, failed: &SeedReport) -> fmt::Result {
        if let Verdict::Nondeterminism(found) = &failed.verdict
            && found.divergence != Divergence::NotSearched
        {
            return entry(f, "steps", &found.divergence.to_string());
        }
        let steps: Vec<String> = self
            .recording
            .steps
            .iter()
            .map(ToString::to_string)
            .collect();
        entry(f, "last steps", &steps.join("\n"))?;
        if self.again.digest != failed.metrics.digest || self.again.verdict != failed.verdict {
            let ended = &self.again.verdict;
            let warning = format!(
                "steps and pending tasks are those of one more run, which differed and ended with: \
                 {}",
                ended.name()
            );
            entry(f, "", &warning)?;
        }
        Ok(())
    }

    fn write_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.report.failed_runs.saturating_sub(1);
        if others == 0 {
            return Ok(());
        }
        let listed = self.report.failures().skip(1).take(LISTED_SEEDS);
        let mut listed: Vec<String> = listed
            .map(|seed| format!("{} {}", seed.seed, seed.verdict.name()))
            .collect();
        if others > LISTED_SEEDS {
            listed.push(format!("and {} more", others - LISTED_SEEDS));
        }
        entry(f, "also failed", &wrapped(&listed.join(", ")))
    }
}

/// `count` of the faults: of the weightiest kinds, and within a kind the last ones; in their order.
fn weightiest(records: &[(FaultRecord, String)], count: usize) -> Vec<&(FaultRecord, String)> {
    let mut places: Vec<usize> = (0..records.len()).collect();
    places.sort_by_key(|place| {
        let (fault, _) = &records[*place];
        (fault.skipped, rank(fault.id.kind), Reverse(*place))
    });
    places.truncate(count);
    places.sort_unstable();
    places.into_iter().map(|place| &records[place]).collect()
}

/// How much a fault of this kind disturbs those it happens to: 0 is most. What every write and read
/// may meet comes last, for it happens all the time.
fn rank(kind: FaultKind) -> usize {
    match kind {
        FaultKind::Kill => 0,
        FaultKind::Reboot => 1,
        FaultKind::Graceful => 2,
        FaultKind::Pause => 3,
        FaultKind::Partition => 4,
        FaultKind::Disconnect => 5,
        FaultKind::Reset => 6,
        FaultKind::HalfOpen => 7,
        FaultKind::BitFlip => 8,
        FaultKind::ConnectRefused => 9,
        FaultKind::ConnectHang => 10,
        FaultKind::RandomClose => 11,
        FaultKind::Cut => 12,
        FaultKind::PairClog => 13,
        FaultKind::WriteClog => 14,
        FaultKind::ReadClog => 15,
        FaultKind::PacketLoss => 16,
        FaultKind::LongTail => 17,
        FaultKind::PartialWrite => 18,
        FaultKind::PartialRead => 19,
        FaultKind::BuggifiedDelay => 20,
        FaultKind::Segmentation => 21,
        FaultKind::AsymmetricDelay => 22,
        FaultKind::ClockDrift => 23,
        FaultKind::Buggify => 24,
    }
}

/// The faults that a drawn network has, and how probable they are.
fn drawn(config: &NetworkConfiguration) -> String {
    let kinds = FaultKind::ALL.iter().filter(|kind| config.may_fire(**kind));
    let kinds: Vec<&str> = kinds.map(|kind| kind.name()).collect();
    if kinds.is_empty() {
        return "no fault".to_owned();
    }
    let rates = fields(&format!("{config:#?}"));
    let rates = rates.into_iter().filter_map(|field| {
        let (name, value) = field.split_once(": ")?;
        if name == "connect_failure_mode" {
            return rate_counts(config, name).then(|| format!("{name} {value}"));
        }
        let name = name.strip_suffix("_probability")?;
        if !rate_counts(config, name) {
            return None;
        }
        let value: f64 = value.parse().ok()?;
        let rounded = match value {
            0.0 => return None,
            0.01.. => format!("{value:.2}"),
            _ => format!("{value:.1e}"),
        };
        Some(format!("{name} {rounded}"))
    });
    let rates: Vec<String> = rates.collect();
    format!("{}\nprobabilities: {}", kinds.join(", "), rates.join(", "))
}

/// Whether a field of this name belongs to a kind that may fire.
fn rate_counts(config: &NetworkConfiguration, name: &str) -> bool {
    match name {
        "partition_long" => config.may_fire(FaultKind::Partition),
        "connect_failure" | "connect_failure_mode" => {
            config.may_fire(FaultKind::ConnectRefused) || config.may_fire(FaultKind::ConnectHang)
        }
        name => match name.replace('_', "-").parse() {
            Ok(kind) => config.may_fire(kind),
            Err(_) => true,
        },
    }
}

/// The attrition of a seed.
fn attrition_text(attrition: Option<Attrition>) -> String {
    match attrition {
        Some(attrition) if attrition.probability > 0.0 => format!(
            "p {:.2} every {:?} of {:?}, down {:?}, at most {} at once",
            attrition.probability,
            attrition.interval,
            attrition.kinds,
            attrition.downtime,
            attrition.max_dead
        ),
        _ => "off in this seed".to_owned(),
    }
}

fn network(network: &Network) -> String {
    let config = match network {
        Network::Swarm => return "drawn per seed".to_owned(),
        Network::Fixed(config) => config,
    };
    let presets = [
        ("default", NetworkConfiguration::default()),
        ("disabled", NetworkConfiguration::disabled()),
        ("fast_local", NetworkConfiguration::fast_local()),
        ("chaos", NetworkConfiguration::chaos()),
    ];
    match presets.iter().find(|(_, preset)| *preset == **config) {
        Some((name, _)) => (*name).to_owned(),
        None => differences(config, &NetworkConfiguration::default()),
    }
}

/// The fields of `config` that are not those of `other`, in the form of its `Debug`.
fn differences(config: &NetworkConfiguration, other: &NetworkConfiguration) -> String {
    let (config, other) = (format!("{config:#?}"), format!("{other:#?}"));
    let config = fields(&config);
    let other = fields(&other);
    let differing = config.iter().filter(|field| !other.contains(field));
    differing.map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The fields of a value that `{:#?}` printed, each on one line; those of its `chaos` among them.
fn fields(debug: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut deep = false;
    for line in debug.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim().trim_end_matches(',');
        let level = if deep { 8 } else { 4 };
        match indent {
            0 => {}
            4 if text == "}" && deep => deep = false,
            4 if text.starts_with("chaos: ") => deep = true,
            _ if indent == level && !text.starts_with(['}', ')', ']']) => found.push(text.into()),
            _ => {
                if let Some(field) = found.last_mut() {
                    field.push(' ');
                    field.push_str(text);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_listed_of_kinds_that_may_fire_only() {
        let mut config = NetworkConfiguration::chaos();
        config.chaos.partition_probability = 0.0;
        config.chaos.partition_long_probability = 0.5;
        config.chaos.buggified_delay_enabled = false;
        config.chaos.buggified_delay_probability = 0.5;
        config.chaos.connect_failure_mode = crate::ConnectFailureMode::Probabilistic;
        let text = drawn(&config);
        assert!(!text.contains("partition_long"), "{text}");
        assert!(!text.contains("buggified"), "{text}");
        assert!(
            text.contains("connect_failure_mode Probabilistic"),
            "{text}"
        );
        config.chaos.connect_failure_mode = crate::ConnectFailureMode::Disabled;
        assert!(!drawn(&config).contains("connect_failure"));
    }
}
