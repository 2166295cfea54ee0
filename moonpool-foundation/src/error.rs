//! Errors of a simulation: what a workload may return, and what ends a seed.

use std::time::Duration;

/// The result of a workload, and of driving a simulation.
pub type SimulationResult<T> = Result<T, SimulationError>;

/// Why a simulation, or a workload in it, did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulationError {
    /// The workload says what went wrong: its seed fails with the verdict `WorkloadError`.
    #[error("{0}")]
    Workload(String),
    /// An I/O operation failed and the workload passed the error on.
    #[error("i/o error: {0}")]
    Io(#[from] std::io::Error),
    /// Another error, with its source.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error>),
    /// A task panicked, or a destructor did. Look at the message and the place it names.
    #[error("task `{task}` of process `{process}` panicked{at}: {message}", at = at(location))]
    Panic {
        /// The task's name.
        task: String,
        /// The process it belongs to.
        process: String,
        /// What `panic!` was given.
        message: String,
        /// File, line and column, if the panic hook saw them.
        location: Option<String>,
    },
    /// Nothing is ready and no event is queued, but the main future is pending. The report lists
    /// every pending task and what it waits on.
    #[error("deadlock at {at:?}: nothing is ready and no event is queued\n{report}")]
    Deadlock {
        /// Virtual time.
        at: Duration,
        /// One line per pending task.
        report: String,
    },
    /// One task was polled more often than the world allows at one instant: it spins. Or all tasks together
    /// were, many times as often: then the one named was the last.
    #[error("livelock at {at:?}: task `{task}` was polled {polls} times without time passing")]
    Livelock {
        /// Virtual time.
        at: Duration,
        /// The task's name.
        task: String,
        /// How often.
        polls: u64,
    },
    /// The run used more virtual time than its budget.
    #[error("the virtual-time budget of {budget:?} is used up\n{report}")]
    TimeBudget {
        /// The budget.
        budget: Duration,
        /// One line per pending task.
        report: String,
    },
    /// An invariant over the states of the run did not hold.
    #[error("invariant `{name}` broken at {at:?}: {message}")]
    Invariant {
        /// Virtual time.
        at: Duration,
        /// The invariant's name.
        name: String,
        /// What it found.
        message: String,
    },
    /// An `always_assert!` did not hold.
    #[error("always_assert `{name}` failed at {at:?}{task} in {location}: {message}", task = in_task(who.as_ref()))]
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
    /// Simulated code reached for the real world. The text names what to use instead.
    #[error("escape from the simulation: {0}")]
    Escape(String),
}

impl SimulationError {
    /// A workload's own error.
    ///
    /// Takes errors as well as text: `.map_err(SimulationError::workload)?`. Of an error the text is
    /// kept; to keep its source, box it into [`SimulationError::Other`].
    pub fn workload(message: impl std::fmt::Display) -> Self {
        Self::Workload(message.to_string())
    }
}

/// Which task of which process, if that is known.
pub(crate) fn in_task(who: Option<&(String, String)>) -> String {
    match who {
        Some((task, process)) => format!(" in task `{task}` of process `{process}`"),
        None => String::new(),
    }
}

fn at(location: &Option<String>) -> String {
    match location {
        Some(location) => format!(" at {location}"),
        None => String::new(),
    }
}
