//! How far a long campaign is, on a terminal.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A campaign that is over sooner shows nothing.
const QUIET_TIME: Duration = Duration::from_secs(2);
const COUNTED: &str = "{pos}/{len} seeds, {per_sec}, {msg} [{elapsed}, {eta} left]";
const OPEN_ENDED: &str = "{pos} seeds, {per_sec}, {msg} [{elapsed}]";

/// Whether a campaign of this process shows its progress: two at once would draw over each other.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Seeds done, failures, seeds per second and coverage, on standard error if that is a terminal and
/// nowhere else. Cleared at the end.
pub(super) struct SeedProgress(Option<Shown>);

struct Shown {
    bar: ProgressBar,
    failed: AtomicUsize,
    is_drawn: AtomicBool,
    began: Instant,
}

impl SeedProgress {
    /// Of a campaign with so many seeds, or without a known end.
    pub(super) fn begin(seeds: Option<u64>) -> Self {
        Self::on(seeds, stderr().is_terminal())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "what is drawn when is real time; it decides nothing"
    )]
    fn on(seeds: Option<u64>, is_terminal: bool) -> Self {
        if !is_terminal || SHOWN.swap(true, Ordering::AcqRel) {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(seeds, ProgressDrawTarget::hidden());
        let template = if seeds.is_some() { COUNTED } else { OPEN_ENDED };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(Some(Shown {
            bar,
            failed: AtomicUsize::new(0),
            is_drawn: AtomicBool::new(false),
            began: Instant::now(),
        }))
    }

    /// So many seeds are done, and so many of them failed; of the required sites so many have been
    /// reached.
    pub(super) fn seeds_done(&self, seeds: usize, failed: usize, sites: (usize, usize)) {
        let Some(shown) = &self.0 else {
            return;
        };
        let (reached, required) = sites;
        let failed = failed + shown.failed.fetch_add(failed, Ordering::Relaxed);
        shown.bar.inc(seeds as u64);
        if shown.began.elapsed() < QUIET_TIME {
            return;
        }
        shown.bar.set_message(message(failed, reached, required));
        if !shown.is_drawn.swap(true, Ordering::Relaxed) {
            shown.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for SeedProgress {
    fn drop(&mut self) {
        if let Some(shown) = &self.0 {
            shown.bar.finish_and_clear();
            SHOWN.store(false, Ordering::Release);
        }
    }
}

fn message(failed: usize, reached: usize, required: usize) -> String {
    match required {
        0 => format!("{failed} failed"),
        _ => format!("{failed} failed, {reached} of {required} sites reached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_on_one_terminal_at_a_time_and_nowhere_else() {
        assert!(SeedProgress::on(Some(3), false).0.is_none());
        let first = SeedProgress::on(Some(3), true);
        assert!(first.0.is_some());
        assert!(SeedProgress::on(Some(3), true).0.is_none());
        first.seeds_done(1, 0, (0, 0));
        first.seeds_done(2, 1, (1, 2));
        let shown = first.0.as_ref().unwrap();
        assert_eq!(shown.bar.position(), 3);
        assert_eq!(shown.failed.load(Ordering::Relaxed), 1);
        drop(first);
        assert!(SeedProgress::on(None, true).0.is_some());
    }

    #[test]
    fn failures_and_coverage_are_told() {
        assert_eq!(message(3, 0, 0), "3 failed");
        assert_eq!(message(0, 7, 9), "0 failed, 7 of 9 sites reached");
    }
}
