//! Deaths, new lives and pauses of processes.
//!
//! A kill seals the process first, so that nothing it does afterwards is seen by anyone; then it
//! breaks its sockets; then it drops its tasks, outside any borrow of the world, since destructors
//! are user code.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::SimWorld;
use super::attrition::Attritor;
use super::clock::nanos;
use super::events::{EventClass, EventKey};
use super::process::{Death, KillKind, LifeState, ProcessId, ProcessRef};
use super::rng::{Stream, StreamId};
use super::world::{Event, Shared, World};
use crate::chaos::{FaultKind, FaultSet, FaultTarget};

/// What is drawn for lives and deaths.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    reboot: Stream,
    pub(super) attrition: Option<Attritor>,
    /// The kinds that attrition may have fired.
    pub(super) enabled: FaultSet,
    /// The run is about to end: nobody lives again any more.
    settled: bool,
}

impl Lifecycle {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            reboot: Stream::new(seed, StreamId::Fault(FaultKind::Reboot)),
            attrition: None,
            enabled: FaultSet::default(),
            settled: false,
        }
    }
}

/// A point in `range`; its start if it is empty.
fn within(range: &Range<Duration>, draw: impl FnOnce(u64, u64) -> u64) -> Duration {
    let last = nanos(range.end).saturating_sub(1);
    Duration::from_nanos(draw(nanos(range.start), last))
}

impl SimWorld {
    /// Ends a process: seals it first (nothing it does from now on is seen by anyone), breaks its
    /// sockets, then drops its tasks. Destructors run, without effect. A task that kills its own
    /// process is dropped when its current poll ends. False if nothing happened: the process is dead,
    /// or is to be killed gracefully and is stopping already, or the fault is skipped.
    ///
    /// Code inside the world calls it too, by [`SimProviders::world`](crate::SimProviders::world).
    pub fn kill(&self, process: ProcessId, kind: KillKind) -> bool {
        self.shared.kill(process, &kind)
    }

    /// Begins a new life of a dead process, with fresh memory: runs the factory that
    /// [`start_process`](Self::start_process) was given, if any. Its random streams go on where the
    /// last life left them; providers of earlier lives stay inert. False if the process is alive.
    pub fn restart(&self, process: ProcessId) -> bool {
        self.shared.restart(process)
    }

    /// Lets a process stand still, as one that swaps or is stopped by a debugger: none of its tasks is
    /// polled. Its timers fire late, on [`resume`](Self::resume). Its sockets stay open, and its kernel
    /// goes on: what arrives is kept as far as its buffers reach, connects fill the backlog of its
    /// listeners. So peers see silence, and no RST.
    ///
    /// A task that pauses its own process stops at the end of its current poll. False if nothing
    /// happened: the process is dead, paused already or the world's own, or the fault is skipped.
    pub fn pause(&self, process: ProcessId) -> bool {
        self.shared.pause(process)
    }

    /// Lets a paused process go on: everything that became ready meanwhile runs now. False if it is
    /// not paused.
    pub fn resume(&self, process: ProcessId) -> bool {
        self.shared.resume(process)
    }

    /// [Pauses](Self::pause) a process and resumes it `duration` later. False if it was not paused.
    pub fn pause_for(&self, process: ProcessId, duration: Duration) -> bool {
        self.shared.pause_for(process, duration)
    }

    /// Ends all that is wrong with processes: no more attrition; those that are paused go on; those that are dead live
    /// again (without a factory, only their hosts are back); those that are stopping gracefully are killed and live again.
    /// From now on clocks do not drift and sleeps take as long as they say.
    pub fn heal_processes(&self) {
        self.shared.heal_processes();
    }
}

impl Shared {
    fn kill(self: &Rc<Self>, process: ProcessId, kind: &KillKind) -> bool {
        match kind {
            KillKind::Crash => self.crash(process, Death::Crash),
            KillKind::PowerLoss => self.crash(process, Death::PowerLoss),
            KillKind::Graceful { grace } => self.stop(process, *grace, None),
            KillKind::Reboot { after } => self.reboot(process, after),
        }
    }

    pub(super) fn crash(&self, process: ProcessId, death: Death) -> bool {
        let fires = self.with(|world| world.strikes(FaultKind::Kill, process));
        if fires {
            self.end_life(process, death);
        }
        fires
    }

    /// Asks a process to end, kills it after `grace`, and restarts it after `downtime`, if given.
    pub(super) fn stop(
        self: &Rc<Self>,
        process: ProcessId,
        grace: Duration,
        downtime: Option<Duration>,
    ) -> bool {
        let weak = self.downgrade();
        let token = self.with(|world| {
            let is_stopping = world.processes.get(process).state == LifeState::Stopping;
            if is_stopping || !world.strikes(FaultKind::Graceful, process) {
                return None;
            }
            let life = world.processes.life(process);
            let end = move || {
                if let Some(world) = weak.upgrade() {
                    world.end_of_grace(life, downtime);
                }
            };
            let due = world.call_later(grace, end);
            let stopping = world.processes.get_mut(process);
            stopping.state = LifeState::Stopping;
            stopping.due = Some(due);
            let token = stopping.shutdown.clone();
            world.note(process, "is asked to end");
            Some(token)
        });
        if let Some(token) = &token {
            token.cancel();
        }
        token.is_some()
    }

    fn end_of_grace(self: &Rc<Self>, life: ProcessRef, downtime: Option<Duration>) {
        if !self.with(|world| world.processes.is_live(life)) {
            return;
        }
        self.end_life(life.id, Death::Crash);
        if let Some(downtime) = downtime {
            self.restart_later(life.id, downtime);
        }
    }

    fn reboot(self: &Rc<Self>, process: ProcessId, after: &Range<Duration>) -> bool {
        let drawn = self.with(|world| {
            if !world.processes.is_alive(process) {
                return None;
            }
            let stream = &mut world.lifecycle.reboot;
            let delay = within(after, |low, high| {
                stream.between(low, high, &mut world.digest)
            });
            Some(delay)
        });
        drawn.is_some_and(|delay| self.reboot_after(process, delay))
    }

    pub(super) fn reboot_after(self: &Rc<Self>, process: ProcessId, delay: Duration) -> bool {
        if !self.with(|world| world.strikes(FaultKind::Reboot, process)) {
            return false;
        }
        self.end_life(process, Death::Crash);
        self.restart_later(process, delay);
        true
    }

    /// Lets a dead process live again `delay` from now, if nobody restarts it before.
    pub(super) fn restart_later(self: &Rc<Self>, process: ProcessId, delay: Duration) {
        let weak = self.downgrade();
        let replaced = self.with(|world| {
            if world.lifecycle.settled || world.processes.is_alive(process) {
                return None;
            }
            let begin = move || {
                if let Some(world) = weak.upgrade() {
                    world.restart(process);
                }
            };
            let due = world.call_later(delay, begin);
            let before = world.processes.get_mut(process).due.replace(due)?;
            world.take_event(before)
        });
        drop(replaced);
    }

    /// Ends the current life of a process that lives.
    pub(super) fn end_life(&self, process: ProcessId, death: Death) {
        let (due, cancelled) = self.with(|world| {
            let due = (world.take_due(process), world.take_resume_due(process));
            world.processes.seal(process, death);
            world.digest.fold(u64::from(process.number()));
            world.crash_sockets(process, death);
            world.note(
                process,
                match death {
                    Death::Crash => "is killed (Crash)",
                    Death::PowerLoss => "is killed (PowerLoss)",
                },
            );
            (due, world.executor.cancel_process(process))
        });
        drop(due);
        if let Some(panic) = self.drop_cancelled(cancelled) {
            self.with(|world| {
                world.unreported_panic.get_or_insert(panic);
            });
        }
    }

    /// Begins a new life of a dead process and runs its factory, if it has one.
    pub(super) fn restart(&self, process: ProcessId) -> bool {
        let revived = self.with(|world| {
            if world.processes.is_alive(process) {
                return None;
            }
            let due = world.take_due(process);
            world.processes.revive(process);
            world.digest.fold(u64::from(process.number()));
            world.revive_host(process);
            world.note(process, "is restarted");
            Some((due, world.processes.get(process).factory.clone()))
        });
        let Some((due, factory)) = revived else {
            return false;
        };
        drop(due);
        if let Some(factory) = factory {
            factory();
        }
        true
    }

    fn pause(&self, process: ProcessId) -> bool {
        self.with(|world| {
            let can_pause = process != ProcessId::WORLD && !world.processes.get(process).paused;
            if !can_pause || !world.strikes(FaultKind::Pause, process) {
                return false;
            }
            world.processes.get_mut(process).paused = true;
            world.executor.hold(process);
            world.note(process, "is paused");
            true
        })
    }

    pub(super) fn resume(&self, process: ProcessId) -> bool {
        let due = self.with(|world| {
            let paused = &mut world.processes.get_mut(process).paused;
            if !std::mem::take(paused) {
                return None;
            }
            world.digest.fold(u64::from(process.number()));
            world.executor.release(process);
            world.note(process, "goes on");
            Some(world.take_resume_due(process))
        });
        due.is_some()
    }

    pub(super) fn pause_for(self: &Rc<Self>, process: ProcessId, duration: Duration) -> bool {
        if !self.pause(process) {
            return false;
        }
        let weak = self.downgrade();
        self.with(|world| {
            let due = world.call_later(duration, move || {
                if let Some(world) = weak.upgrade() {
                    world.resume(process);
                }
            });
            world.processes.get_mut(process).resume_due = Some(due);
        });
        true
    }

    fn heal_processes(&self) {
        let (stale, processes) = self.with(|world| {
            world.clocks.heal();
            let processes: Vec<ProcessId> = world.processes.ids().collect();
            (world.end_attrition(), processes)
        });
        drop(stale);
        for process in processes {
            self.resume(process);
            if self.with(|world| world.processes.get(process).state == LifeState::Stopping) {
                self.end_life(process, Death::Crash);
            }
            self.restart(process);
        }
    }
}

impl SimWorld {
    /// The workloads are done: nobody is killed, restarted or paused any more.
    pub(crate) fn settle_processes(&self) {
        self.stop_attrition();
        self.shared.with(|world| world.lifecycle.settled = true);
        for process in self.all_processes() {
            self.resume(process.id());
            let due = self.shared.with(|world| {
                let is_alive = world.processes.is_alive(process.id());
                (!is_alive).then(|| world.take_due(process.id()))
            });
            drop(due);
        }
    }
}

impl World {
    /// Whether a fault of this kind happens to a process that lives.
    fn strikes(&mut self, kind: FaultKind, process: ProcessId) -> bool {
        self.processes.is_alive(process)
            && self.fault_fires(kind, FaultTarget::Process(process.number()))
    }

    fn call_later(&mut self, delay: Duration, call: impl FnOnce() + 'static) -> EventKey {
        let (at, event) = (self.clock.after(delay), Event::Call(Box::new(call)));
        self.queue(at, EventClass::Foreground, event)
    }

    /// Takes what is due to `process` out of the queue: to be dropped outside the borrow.
    fn take_due(&mut self, process: ProcessId) -> Option<Event> {
        let due = self.processes.get_mut(process).due.take()?;
        self.take_event(due)
    }

    fn take_resume_due(&mut self, process: ProcessId) -> Option<Event> {
        let due = self.processes.get_mut(process).resume_due.take()?;
        self.take_event(due)
    }

    fn note(&mut self, process: ProcessId, what: &str) {
        if self.trace.is_on() {
            let name = self.processes.get(process).name.to_string();
            self.record(Some(process), format!("`{name}` {what}"));
        }
    }
}
