//! [`TaskEntry`]: what the executor has of a task beside its future. There are worlds of a million of
//! these, most of them asleep: what others need has a box of its own.

use std::rc::Rc;
use std::time::Duration;

use super::clock::SimInstant;
use super::join::Body;
use super::process::ProcessRef;
use super::roster::{Links, Site};
use super::wakes::{OwnWaker, TaskRole};
use crate::wait::{MAX_NOTES, WaitReason};

pub(super) struct TaskEntry {
    /// `None` while it is polled, or dropped.
    pub(super) body: Option<Body>,
    /// Made when it is needed first, and kept.
    more: Option<Box<More>>,
    pub(super) site: Rc<Site>,
    pub(super) process: ProcessRef,
    /// Its neighbours among the tasks of its process.
    pub(super) links: Links,
    /// In nanoseconds, of a task that sleeps and waits for nothing else.
    sleeps_until: u64,
    pub(super) polls: TaskPolls,
    pub(super) role: TaskRole,
    /// Among the ready ones, or held with those of its process.
    pub(super) is_ready: bool,
    /// Its future is still to be dropped, and that is all.
    pub(super) is_cancelled: bool,
}

/// What a task has that keeps its waker, or waits for anything but a sleep.
#[derive(Default)]
struct More {
    /// Its own, once anybody keeps a copy.
    waker: Option<OwnWaker>,
    noted: usize,
    /// Beyond the first `noted` they are of earlier polls.
    reasons: [Option<WaitReason>; MAX_NOTES],
}

impl More {
    #[inline]
    fn note(&mut self, reason: impl FnOnce() -> WaitReason) {
        if let Some(place) = self.reasons.get_mut(self.noted) {
            *place = Some(reason());
            self.noted += 1;
        }
    }
}

/// No time that anybody sleeps until.
const NO_SLEEP: u64 = u64::MAX;

impl TaskEntry {
    /// Of a task that is ready.
    pub(super) fn new(body: Body, site: Rc<Site>, process: ProcessRef, role: TaskRole) -> Self {
        Self {
            body: Some(body),
            more: None,
            site,
            process,
            links: Links::default(),
            sleeps_until: NO_SLEEP,
            polls: TaskPolls::default(),
            role,
            is_ready: true,
            is_cancelled: false,
        }
    }

    #[inline]
    pub(super) fn take_waker(&mut self) -> Option<OwnWaker> {
        self.more.as_mut()?.waker.take()
    }

    #[cold]
    pub(super) fn keep_waker(&mut self, waker: OwnWaker) {
        self.more.get_or_insert_default().waker = Some(waker);
    }

    /// A new poll begins.
    #[inline]
    pub(super) fn forget_waits(&mut self) {
        self.sleeps_until = NO_SLEEP;
        if let Some(more) = &mut self.more {
            more.noted = 0;
        }
    }

    /// What its poll was told to wait for.
    #[inline]
    pub(super) fn note(&mut self, reason: WaitReason) {
        if let WaitReason::Sleep { until } = reason {
            match u64::try_from(until.as_nanos()) {
                Ok(until) if until != NO_SLEEP => return self.note_sleep(until),
                _ => {}
            }
        }
        self.note_with(|| reason);
    }

    /// As [`note`](Self::note), of a sleep until so many nanoseconds after the start.
    #[inline]
    pub(super) fn note_sleep(&mut self, until: u64) {
        let waits_for_more = self.more.as_ref().is_some_and(|more| more.noted > 0);
        if waits_for_more || self.sleeps_until != NO_SLEEP || until == NO_SLEEP {
            self.note_with(|| sleep(until));
        } else {
            self.sleeps_until = until;
        }
    }

    /// As [`note`](Self::note), of anything but a sleep, which is written where it is kept.
    #[inline]
    pub(super) fn note_with(&mut self, reason: impl FnOnce() -> WaitReason) {
        let more = self.more.get_or_insert_default();
        if self.sleeps_until != NO_SLEEP {
            let until = std::mem::replace(&mut self.sleeps_until, NO_SLEEP);
            more.note(|| sleep(until));
        }
        more.note(reason);
    }

    /// What its last poll waited for, in the order it said so.
    pub(super) fn waits(&self) -> impl Iterator<Item = WaitReason> {
        let sleeps = (self.sleeps_until != NO_SLEEP).then(|| sleep(self.sleeps_until));
        let more = self.more.iter();
        let noted = more.flat_map(|more| more.reasons[..more.noted].iter().flatten().copied());
        sleeps.into_iter().chain(noted)
    }
}

fn sleep(until: u64) -> WaitReason {
    WaitReason::Sleep {
        until: Duration::from_nanos(until),
    }
}

/// How often a task was polled at one instant. There is one of these for each task, so it is small: the
/// instant is told from others by 32 bits of a mix of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TaskPolls {
    instant: u32,
    polls: u32,
}

impl TaskPolls {
    #[inline]
    pub(super) fn count(&mut self, now: SimInstant) -> u64 {
        let mixed = now.as_nanos().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let instant = u32::try_from(mixed).unwrap_or(0);
        if self.instant != instant {
            (self.instant, self.polls) = (instant, 0);
        }
        self.polls = self.polls.saturating_add(1);
        self.polls.into()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::sim::process::Processes;
    use crate::sim::{ProcessId, join, roster};

    struct Nothing;

    impl join::TaskBody for Nothing {
        fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
            Poll::Pending
        }

        fn panicked(self: Pin<&mut Self>, _message: &str) {}

        fn look(&self) -> usize {
            0
        }

        fn detach(self: Pin<&mut Self>) {}
    }

    #[test]
    fn what_a_task_waited_for_in_an_earlier_poll_does_not_show() {
        let site = roster::Sites::default().of("task".into(), std::panic::Location::caller());
        let process = Processes::new(0, Processes::default()).life(ProcessId::WORLD);
        let mut entry = TaskEntry::new(Box::pin(Nothing), site, process, TaskRole::Ordinary);
        let (never, soon) = (sleep(u64::MAX), sleep(7));
        let join = WaitReason::Join { task: 7 };
        for noted in [
            &[join, never][..],
            &[soon],
            &[join],
            &[never],
            &[soon, join, never],
            &[soon, soon],
            &[],
        ] {
            entry.forget_waits();
            noted.iter().copied().for_each(|reason| entry.note(reason));
            assert_eq!(entry.waits().collect::<Vec<_>>(), noted);
        }
    }

    #[test]
    fn what_a_million_tasks_have_is_small() {
        assert_eq!(size_of::<TaskEntry>(), 72);
    }
}
