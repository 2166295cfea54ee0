//! What each call got, and whether that agrees with what was executed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use moonpool::prelude::*;

use crate::{Failure, ensure, row};

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was not even accepted: surely not executed.
    NotSent,
    Replied,
    /// The reply to the call with this number, which is another one.
    ReplyTo(u64),
    Failed(ReplyError),
}

impl Ending {
    fn name(&self) -> String {
        match self {
            Self::NotSent => "not accepted".to_owned(),
            Self::Replied => "reply".to_owned(),
            Self::ReplyTo(_) => "another call's reply".to_owned(),
            Self::Failed(error) => {
                let text = format!("{error:?}");
                text.split(' ').next().unwrap_or_default().to_owned()
            }
        }
    }

    /// What the ending says of the number of executions.
    fn allows(&self, executions: u64) -> bool {
        match self {
            Self::Replied => executions == 1,
            Self::ReplyTo(_) => false,
            Self::NotSent => executions == 0,
            Self::Failed(error) if error.is_surely_not_executed() => executions == 0,
            Self::Failed(_) => executions <= 1,
        }
    }
}

/// The calls that were begun, by their numbers, and how they ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    begun: Cell<u64>,
    endings: RefCell<BTreeMap<u64, Ending>>,
}

impl Ledger {
    /// The number of the next call.
    pub(crate) fn begin(&self) -> u64 {
        let number = self.begun.get();
        self.begun.set(number + 1);
        number
    }

    /// How many there were.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }

    pub(crate) fn end(&self, number: u64, ending: Ending) {
        self.endings.borrow_mut().insert(number, ending);
    }

    pub(crate) fn replies(&self) -> usize {
        let endings = self.endings.borrow();
        endings
            .values()
            .filter(|ending| **ending == Ending::Replied)
            .count()
    }

    /// Holds every ending against the executions, of which there is one entry each.
    pub(crate) fn audit(&self, executed: &[u64]) -> Result<(), Failure> {
        let mut executions: BTreeMap<u64, u64> = BTreeMap::new();
        for number in executed {
            *executions.entry(*number).or_default() += 1;
        }
        if let Some((unknown, _)) = executions.range(self.begun.get()..).next() {
            return Err(format!("call {unknown} was executed and never begun").into());
        }
        let endings = self.endings.borrow();
        let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (number, ending) in &*endings {
            let times = executions.get(number).copied().unwrap_or_default();
            ensure(ending.allows(times), || {
                format!("call {number} ended with {ending:?} and was executed {times} times")
            })?;
            let (calls, run) = counts.entry(ending.name()).or_default();
            *calls += 1;
            *run += times;
        }
        let (begun, ended) = (self.begun.get(), endings.len());
        ensure(u64::try_from(ended)? == begun, || {
            format!("{begun} calls were begun, {ended} ended")
        })?;
        row("calls", begun);
        for (name, (calls, run)) in counts {
            row(&format!("  {name}"), calls);
            row(&format!("  {name}, executed"), run);
        }
        Ok(())
    }
}
