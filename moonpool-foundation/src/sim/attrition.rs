//! Attrition in a world: what is drawn at each opportunity, and that it happens.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use super::SimWorld;
use super::clock::nanos;
use super::digest::Digest;
use super::events::{EventClass, EventKey, index_u32};
use super::process::{Death, ProcessId};
use super::rng::{Stream, StreamId};
use super::world::{Event, Shared, World};
use crate::chaos::{Attrition, AttritionError, AttritionKind, FaultSet};

const TWO_TO_32: f64 = 4_294_967_296.0;

/// Attrition that is going on. Pure: it draws and answers.
#[derive(Debug)]
pub(crate) struct Attritor {
    config: Attrition,
    victims: Vec<ProcessId>,
    stream: Stream,
    next: Option<EventKey>,
}

/// What an opportunity comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Strike {
    victim: ProcessId,
    kind: AttritionKind,
    /// How long it is dead, or paused.
    down: Duration,
    /// How long it has to end by itself, if it is asked to.
    grace: Duration,
}

impl Attritor {
    fn new(seed: u64, config: Attrition, victims: Vec<ProcessId>) -> Self {
        Self {
            config,
            victims,
            stream: Stream::new(seed, StreamId::Attrition),
            next: None,
        }
    }

    fn between(&mut self, range: RangeInclusive<Duration>, digest: &mut Digest) -> Duration {
        let (low, high) = (nanos(*range.start()), nanos(*range.end()));
        Duration::from_nanos(self.stream.between(low, high, digest))
    }

    /// Draws as many numbers whatever comes of it, so that what happened to be down does not
    /// reshuffle what is drawn later.
    fn strike(&mut self, digest: &mut Digest) -> Option<Strike> {
        let taken = f64::from(self.stream.draws(digest).next_u32());
        let victim = self.stream.below(index_u32(self.victims.len()), digest);
        let kind = self
            .stream
            .below(index_u32(self.config.kinds.len()), digest);
        let kind = *self.config.kinds.get(kind as usize)?;
        let down = match kind {
            AttritionKind::Crash | AttritionKind::PowerLoss | AttritionKind::Graceful => {
                self.config.downtime.clone()
            }
            AttritionKind::Reboot => self.config.reboot.clone(),
            AttritionKind::Pause => self.config.pause.clone(),
        };
        let strike = Strike {
            victim: *self.victims.get(victim as usize)?,
            kind,
            down: self.between(down, digest),
            grace: self.between(self.config.grace.clone(), digest),
        };
        (taken < self.config.probability * TWO_TO_32).then_some(strike)
    }
}

impl SimWorld {
    /// Lets attrition begin among `victims`, in place of one that was going on. It ends with
    /// [`stop_attrition`](Self::stop_attrition) or [`heal_processes`](Self::heal_processes).
    ///
    /// A victim without a [factory](Self::start_process) is alive again after its death, and does
    /// nothing.
    ///
    /// # Errors
    /// What [`Attrition::validate`] finds, and [`AttritionError::WorldProcess`].
    pub fn start_attrition(
        &self,
        attrition: Attrition,
        victims: impl IntoIterator<Item = ProcessId>,
    ) -> Result<(), AttritionError> {
        attrition.validate()?;
        let victims: Vec<ProcessId> = victims.into_iter().collect();
        if victims.contains(&ProcessId::WORLD) {
            return Err(AttritionError::WorldProcess);
        }
        self.stop_attrition();
        if attrition.probability > 0.0 && !victims.is_empty() {
            self.shared.begin_attrition(attrition, victims);
        }
        Ok(())
    }

    /// Lets no more processes be picked. Those that are dead or paused are restarted and resumed when
    /// their time comes.
    pub fn stop_attrition(&self) {
        let stale = self.shared.with(World::end_attrition);
        drop(stale);
    }
}

impl Shared {
    fn begin_attrition(self: &Rc<Self>, attrition: Attrition, victims: Vec<ProcessId>) {
        self.with(|world| {
            let enabled = FaultSet::of(|kind| attrition.may_fire(kind));
            world.lifecycle.enabled.add(enabled);
            let attritor = Attritor::new(world.seed, attrition, victims);
            world.lifecycle.attrition = Some(attritor);
        });
        self.await_opportunity();
    }

    fn await_opportunity(self: &Rc<Self>) {
        let weak = self.downgrade();
        let tick = Event::Call(Box::new(move || {
            if let Some(world) = weak.upgrade() {
                world.opportunity();
            }
        }));
        let unused = self.with(|world| {
            let Some(attritor) = &mut world.lifecycle.attrition else {
                return Some(tick);
            };
            let interval = attritor.config.interval.clone();
            let interval = attritor.between(interval, &mut world.digest);
            let at = world.clock.after(interval);
            let next = world.queue(at, EventClass::Background, tick);
            if let Some(attritor) = &mut world.lifecycle.attrition {
                attritor.next = Some(next);
            }
            None
        });
        drop(unused);
    }

    fn opportunity(self: &Rc<Self>) {
        let strike = self.with(|world| {
            let attritor = world.lifecycle.attrition.as_mut()?;
            let strike = attritor.strike(&mut world.digest)?;
            let victims = attritor.victims.iter();
            let down = victims.filter(|id| !world.processes.is_up(**id)).count();
            let survivable = down < attritor.config.max_dead;
            (survivable && world.processes.is_up(strike.victim)).then_some(strike)
        });
        if let Some(strike) = strike {
            self.strike(strike);
        }
        self.await_opportunity();
    }

    fn strike(self: &Rc<Self>, strike: Strike) {
        let Strike {
            victim,
            kind,
            down,
            grace,
        } = strike;
        match kind {
            AttritionKind::Crash => {
                if self.crash(victim, Death::Crash) {
                    self.restart_later(victim, down);
                }
            }
            AttritionKind::PowerLoss => {
                if self.crash(victim, Death::PowerLoss) {
                    self.restart_later(victim, down);
                }
            }
            AttritionKind::Graceful => {
                self.stop(victim, grace, Some(down));
            }
            AttritionKind::Reboot => {
                self.reboot_after(victim, down);
            }
            AttritionKind::Pause => {
                self.pause_for(victim, down);
            }
        }
    }
}

impl World {
    /// Forgets attrition. Returns what is to be dropped outside the borrow.
    pub(super) fn end_attrition(&mut self) -> (Option<Attritor>, Option<Event>) {
        let attritor = self.lifecycle.attrition.take();
        let next = attritor.as_ref().and_then(|attritor| attritor.next);
        let tick = next.and_then(|next| self.take_event(next));
        (attritor, tick)
    }
}

impl Attrition {
    /// An attrition of its own for each seed: how often, what and for how long are drawn; how many may
    /// be down at once is given, since that is what the system under test promises.
    ///
    /// The probability is drawn from 0.0-0.3, and each kind is left out of half of the seeds; a seed
    /// that leaves out all has none.
    ///
    /// ```
    /// use moonpool_foundation::Attrition;
    ///
    /// let attrition = Attrition::random_for_seed(42, 1);
    /// assert_eq!(attrition, Attrition::random_for_seed(42, 1));
    /// assert_eq!(attrition.validate(), Ok(()));
    /// ```
    #[must_use]
    pub fn random_for_seed(seed: u64, max_dead: usize) -> Self {
        const STEPS: u32 = 1_000_000;
        let mut digest = Digest::new(seed);
        let mut stream = Stream::new(seed, StreamId::RandomAttrition);
        let step = stream.below(STEPS + 1, &mut digest);
        let mut probability = 0.3 * f64::from(step) / f64::from(STEPS);
        let mut range = |min: u64, max: u64| {
            let mut millis = || {
                let nanos = stream.between(min * 1_000_000, max * 1_000_000, &mut digest);
                Duration::from_nanos(nanos)
            };
            let (one, other) = (millis(), millis());
            one.min(other)..=one.max(other)
        };
        let interval = range(100, 3_000);
        let (downtime, reboot) = (range(100, 20_000), range(1, 1_000));
        let (grace, pause) = (range(10, 5_000), range(10, 20_000));
        let all = AttritionKind::ALL.iter().copied();
        let mut kinds: Vec<AttritionKind> =
            all.filter(|_| stream.below(2, &mut digest) == 1).collect();
        if kinds.is_empty() {
            probability = 0.0;
            kinds = AttritionKind::ALL.to_vec();
        }
        Self {
            probability,
            interval,
            kinds,
            max_dead,
            downtime,
            reboot,
            grace,
            pause,
        }
    }
}
