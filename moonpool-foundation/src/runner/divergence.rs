//! Where two runs of one seed part: both are run again, step by step.

use super::orchestrator::{self, Plan};
use super::verdict::Divergence;
use crate::sim::{TraceMode, TraceStep};

/// Steps shown before the first that differs.
const STEPS_BEFORE: usize = 20;

/// Runs `seed` twice more with all steps recorded, and compares.
pub(super) fn find(plan: &Plan<'_>, seed: u64) -> Divergence {
    let (_, first) = orchestrator::run_recorded(plan, seed, TraceMode::Full);
    let (_, second) = orchestrator::run_recorded(plan, seed, TraceMode::Full);
    compare(&first.steps, &second.steps)
}

fn compare(first: &[TraceStep], second: &[TraceStep]) -> Divergence {
    let same = first
        .iter()
        .zip(second)
        .take_while(|(first, second)| first == second)
        .count();
    if same == first.len() && same == second.len() {
        return Divergence::RerunsAgree { steps: same as u64 };
    }
    Divergence::At {
        step: same as u64,
        first: around(first, same),
        second: around(second, same),
    }
}

/// The step at `place` and those before it, as text.
fn around(steps: &[TraceStep], place: usize) -> Vec<String> {
    let begin = place.saturating_sub(STEPS_BEFORE);
    let end = (place + 1).min(steps.len());
    steps[begin..end].iter().map(ToString::to_string).collect()
}
