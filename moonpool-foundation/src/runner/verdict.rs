//! [`Verdict`]: how one seed ended.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::error::{SimulationError, in_task};

/// How one seed ended.
///
/// `Display` gives the whole text, on several lines where tasks are listed; [`headline`](Self::headline)
/// the first of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Verdict {
    /// Every workload returned `Ok`.
    Passed,
    /// A task panicked, or a destructor did.
    Panic {
        /// The task's name.
        task: String,
        /// The process it belongs to.
        process: String,
        /// What `panic!` was given.
        message: String,
        /// File, line and column.
        location: Option<String>,
    },
    /// An invariant over the states of the run did not hold.
    Invariant {
        /// Virtual time.
        at: Duration,
        /// The invariant's name.
        name: String,
        /// What it found.
        message: String,
    },
    /// An `always_assert!` did not hold.
    AlwaysAssert {
        /// Virtual time.
        at: Duration,
        /// The task in which it failed, and the process it belongs to. `None` if its panic was caught,
        /// so that it was noticed later.
        who: Option<(String, String)>,
        /// The assertion's name.
        name: String,
        /// What it says of the failure.
        message: String,
        /// File, line and column.
        location: String,
    },
    /// A workload returned an error.
    WorkloadError {
        /// The workload's name.
        workload: String,
        /// The error and its sources.
        message: String,
    },
    /// Workloads wait, and nothing will ever happen again.
    Deadlock {
        /// Virtual time.
        at: Duration,
        /// Every pending task and what it waits on, a line each.
        waiting: Vec<String>,
    },
    /// One task was polled over and over without time passing: it spins.
    Livelock {
        /// Virtual time.
        at: Duration,
        /// The task's name.
        task: String,
        /// How often it was polled at that instant.
        polls: u64,
    },
    /// The faults were over, and the workloads did not finish in the quiet time after them.
    Liveness {
        /// When the world was healed, in virtual time.
        healed_at: Duration,
        /// How long the workloads had from then on.
        quiet: Duration,
        /// Every pending task and what it waits on, a line each.
        waiting: Vec<String>,
    },
    /// The seed used more virtual time than it may.
    TimeBudget {
        /// What it may use.
        budget: Duration,
        /// Every pending task and what it waits on, a line each.
        waiting: Vec<String>,
    },
    /// Simulated code reached for the real world.
    Escape {
        /// What it did, and what to use instead.
        message: String,
    },
    /// Two runs of the seed differed: something in it is not decided by the seed.
    Nondeterminism(Box<Nondeterminism>),
}

/// Two runs of one seed that differed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Nondeterminism {
    /// The digest and the verdict of the first run.
    pub first: (u64, Verdict),
    /// The digest and the verdict of the second run.
    pub second: (u64, Verdict),
    /// Where two more runs, recorded step by step, parted.
    pub divergence: Divergence,
}

/// Where two recorded runs of one seed part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum Divergence {
    /// Only the first such seed of a campaign is run again with a recording: replay this one alone.
    NotSearched,
    /// The recorded runs did not differ, this time.
    RerunsAgree {
        /// How many steps they had.
        steps: u64,
    },
    /// The recorded runs agree as far as was compared.
    BeyondSearch {
        /// How many steps were compared.
        steps: u64,
    },
    /// The first step that differs.
    At {
        /// Its number, from 0.
        step: u64,
        /// Up to 20 steps before it and the step itself, in one run.
        first: Vec<String>,
        /// The same of the other run. A run that ended before the step has none.
        second: Vec<String>,
    },
}

impl Verdict {
    /// Whether the seed passed.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        *self == Self::Passed
    }

    /// The verdict's name: `Passed`, `Panic`, `Deadlock` ...
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Panic { .. } => "Panic",
            Self::Invariant { .. } => "Invariant",
            Self::AlwaysAssert { .. } => "AlwaysAssert",
            Self::WorkloadError { .. } => "WorkloadError",
            Self::Deadlock { .. } => "Deadlock",
            Self::Livelock { .. } => "Livelock",
            Self::Liveness { .. } => "Liveness",
            Self::TimeBudget { .. } => "TimeBudget",
            Self::Escape { .. } => "Escape",
            Self::Nondeterminism(_) => "Nondeterminism",
        }
    }

    /// What happened, without the lists of tasks and steps.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Passed => "passed".to_owned(),
            Self::Panic {
                task,
                process,
                message,
                location,
            } => {
                let at = match location {
                    Some(location) => format!(" at {location}"),
                    None => String::new(),
                };
                format!("task `{task}` of process `{process}` panicked{at}: {message}")
            }
            Self::Invariant { at, name, message } => {
                format!("invariant `{name}` broken at {at:?}: {message}")
            }
            Self::AlwaysAssert {
                at,
                who,
                name,
                message,
                location,
            } => {
                let who = in_task(who.as_ref());
                format!(
                    "`{name}` must always hold, and did not at {at:?}{who} ({location}): {message}"
                )
            }
            Self::WorkloadError { workload, message } => {
                format!("workload `{workload}` returned an error: {message}")
            }
            Self::Deadlock { at, .. } => {
                format!("nothing is ready and no event is queued at {at:?}, but workloads wait")
            }
            Self::Livelock { at, task, polls } => {
                format!("task `{task}` was polled {polls} times at {at:?}: it spins")
            }
            Self::Liveness {
                healed_at, quiet, ..
            } => format!(
                "the faults ended at {healed_at:?}, and {quiet:?} later workloads still wait"
            ),
            Self::TimeBudget { budget, .. } => {
                format!("the virtual-time budget of {budget:?} is used up, but workloads wait")
            }
            Self::Escape { message } => message.clone(),
            Self::Nondeterminism(found) => found.headline(),
        }
    }

    /// Every pending task, where the verdict is about waiting.
    pub(super) fn waiting(&self) -> &[String] {
        match self {
            Self::Deadlock { waiting, .. }
            | Self::Liveness { waiting, .. }
            | Self::TimeBudget { waiting, .. } => waiting,
            Self::Passed
            | Self::Panic { .. }
            | Self::Invariant { .. }
            | Self::AlwaysAssert { .. }
            | Self::WorkloadError { .. }
            | Self::Livelock { .. }
            | Self::Escape { .. }
            | Self::Nondeterminism(_) => &[],
        }
    }

    #[cfg(feature = "sim")]
    /// The verdict that `error` of a world's run is; `waiting` lists its pending tasks.
    pub(super) fn of(error: SimulationError, waiting: impl FnOnce() -> Vec<String>) -> Self {
        match error {
            SimulationError::Panic {
                task,
                process,
                message,
                location,
            } => Self::Panic {
                task,
                process,
                message,
                location,
            },
            SimulationError::Deadlock { at, .. } => Self::Deadlock {
                at,
                waiting: waiting(),
            },
            SimulationError::Livelock { at, task, polls } => Self::Livelock { at, task, polls },
            SimulationError::TimeBudget { budget, .. } => Self::TimeBudget {
                budget,
                waiting: waiting(),
            },
            SimulationError::Invariant { at, name, message } => {
                Self::Invariant { at, name, message }
            }
            SimulationError::AlwaysAssert {
                at,
                who,
                name,
                message,
                location,
            } => Self::AlwaysAssert {
                at,
                who,
                name,
                message,
                location,
            },
            SimulationError::Escape(message) => Self::Escape { message },
            error @ (SimulationError::Workload(_)
            | SimulationError::Io(_)
            | SimulationError::Other(_)) => Self::WorkloadError {
                workload: "the world".to_owned(),
                message: with_sources(&error),
            },
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_passed() {
            return f.write_str("Passed");
        }
        write!(f, "{}: {}", self.name(), self.headline())?;
        for line in self.waiting() {
            write!(f, "\n  {line}")?;
        }
        if let Self::Nondeterminism(found) = self {
            write!(f, "\n{}", found.divergence)?;
        }
        Ok(())
    }
}

impl Nondeterminism {
    fn headline(&self) -> String {
        let (first, second) = (&self.first, &self.second);
        let outcome = if first.1 == second.1 {
            format!("each ended with: {}", first.1)
        } else {
            format!(
                "the first ended with: {}; the second with: {}",
                first.1, second.1
            )
        };
        format!(
            "two runs of the seed differ (digests {:016x} and {:016x}; {outcome}). Something here \
             is not decided by the seed. Usual causes: tokio::select! (use \
             moonpool_foundation::select! or `biased;`), iteration over a std HashMap or HashSet \
             (use BTreeMap, BTreeSet), a static or thread-local that survives the run, \
             Instant::now or SystemTime::now (use TimeProvider), rand's own generators (use \
             RandomProvider)",
            first.0, second.0
        )
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSearched => f.write_str(
                "Its steps were not compared: replay this seed alone to see where its runs part.",
            ),
            Self::RerunsAgree { steps } => write!(
                f,
                "Two more runs were recorded and did not differ in any of their {steps} steps: the \
                 cause shows only now and then. Replay the seed to try again."
            ),
            Self::BeyondSearch { steps } => write!(
                f,
                "Two more runs were recorded: their first {steps} steps are the same, more were \
                 not compared."
            ),
            Self::At {
                step,
                first,
                second,
            } => {
                write!(f, "Two more runs were recorded: they part at step {step}.")?;
                for (title, steps) in [("one run", first), ("the other", second)] {
                    write!(f, "\n  {title}:")?;
                    if steps.is_empty() {
                        write!(f, "\n    had ended")?;
                    }
                    for line in steps {
                        write!(f, "\n    {line}")?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The error's text, followed by those of its sources that it does not contain.
pub(super) fn with_sources(error: &SimulationError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}
