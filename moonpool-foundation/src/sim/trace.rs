//! The trace: what happened, step by step, recorded only on demand.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// What is kept of a run's steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceMode {
    /// Nothing: a branch per step is all it costs.
    #[default]
    Off,
    /// The last steps, as many as a failure report shows.
    Recent,
    /// Every step, to find where two runs part.
    Full,
}

/// How many steps [`TraceMode::Recent`] keeps.
const RECENT_STEPS: usize = 20;

/// One step of a run: an event, a poll of a task, or a fault that fires in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceStep {
    /// Its number, from 0.
    pub index: u64,
    /// Virtual time.
    pub at: Duration,
    /// The process it happened in; `None` for what the network does, and for timers.
    pub process: Option<String>,
    /// What happened.
    pub what: String,
    /// The digest after it: two runs that agree so far have the same.
    pub digest: u64,
}

impl fmt::Display for TraceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{:<6} {:>14} {:016x} {}",
            self.index,
            format!("{:?}", self.at),
            self.digest,
            self.what
        )
    }
}

#[derive(Debug, Default)]
pub(crate) struct Recorder {
    mode: TraceMode,
    steps: VecDeque<TraceStep>,
    next_index: u64,
    /// Only these steps are kept; `None`: all.
    window: Option<Range<u64>>,
}

impl Recorder {
    pub(crate) fn set_mode(&mut self, mode: TraceMode) {
        self.mode = mode;
    }

    pub(crate) fn set_window(&mut self, window: Range<u64>) {
        self.window = Some(window);
    }

    pub(crate) fn is_on(&self) -> bool {
        self.mode != TraceMode::Off
    }

    pub(crate) fn record(
        &mut self,
        at: Duration,
        digest: u64,
        process: Option<String>,
        what: String,
    ) {
        let index = self.next_index;
        self.next_index += 1;
        if self
            .window
            .as_ref()
            .is_some_and(|kept| !kept.contains(&index))
        {
            return;
        }
        if self.mode == TraceMode::Recent && self.steps.len() == RECENT_STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(TraceStep {
            index,
            at,
            process,
            what,
            digest,
        });
    }

    pub(crate) fn steps(&self) -> Vec<TraceStep> {
        self.steps.iter().cloned().collect()
    }
}
