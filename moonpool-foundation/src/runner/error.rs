//! [`RunError`]: why a campaign could not start.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::chaos::AttritionError;
use crate::network::NetworkConfigError;

/// Why a campaign could not start. No seed has run then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An environment variable has a value that it does not take. Correct it, or unset it.
    #[error("{variable} takes {expected}, not `{value}`")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// What it was set to.
        value: String,
        /// What it takes.
        expected: Cow<'static, str>,
    },
    /// The network configuration cannot be simulated.
    #[error("network configuration: {0}")]
    Network(#[from] NetworkConfigError),
    /// The attrition cannot be simulated.
    #[error("attrition: {0}")]
    Attrition(#[from] AttritionError),
    /// The phases leave no time for what they are for.
    #[error("phases: {reason}")]
    Phases {
        /// What is wrong with them.
        reason: &'static str,
    },
    /// A line of the file of seeds that failed is none. Correct it, or remove it.
    #[error("{file}:{line}: {reason}", file = .file.display())]
    Regressions {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No workload was registered.
    #[error("nothing to run: register a workload first")]
    NoWorkloads,
    /// There is no seed to run. A campaign without seeds would pass whatever the code does.
    #[error("no seed to run: the seed range, the debug seeds or the iterations are empty")]
    NoSeeds,
    /// The seeds would go beyond `u64::MAX`. Begin the range lower, or run fewer.
    #[error("{iterations} seeds from {first} upward are more than there are")]
    TooManySeeds {
        /// The first seed.
        first: u64,
        /// How many were asked for.
        iterations: usize,
    },
    /// A workload's name cannot be used: it names a host, so `name:port` must reach it.
    #[error("workload name `{name}`: {reason}")]
    WorkloadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
