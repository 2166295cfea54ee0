//! [`PendingTask`]: who waits on what.

use std::fmt;
use std::panic::Location;

use super::process::ProcessId;
use crate::wait::WaitReason;

/// One line of a deadlock report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PendingTask {
    /// The task's name.
    pub name: String,
    /// The process it belongs to.
    pub process: ProcessId,
    /// That process's name.
    pub process_name: String,
    /// Where it was spawned.
    pub spawned_at: &'static Location<'static>,
    /// Whether its process is paused: it runs on when that is resumed.
    pub paused: bool,
    /// What its last poll was waiting for; empty if that is nothing of the simulation's: a channel,
    /// a lock, another thread.
    pub waits_on: Vec<WaitReason>,
}

impl fmt::Display for PendingTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paused = if self.paused { " (paused)" } else { "" };
        write!(
            f,
            "task `{}` of `{}`{paused} waits on ",
            self.name, self.process_name
        )?;
        if self.waits_on.is_empty() {
            write!(
                f,
                "something that is not the simulation's (a channel, a lock, another thread)"
            )?;
        }
        for (index, reason) in self.waits_on.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", or " };
            write!(f, "{separator}{reason}")?;
        }
        write!(f, "; spawned at {}", self.spawned_at)
    }
}
