//! The tasks of each process, and where tasks come from.

use std::borrow::Cow;
use std::panic::Location;
use std::ptr;
use std::rc::Rc;

use super::executor::{TaskEntry, TaskKey};
use super::process::ProcessId;
use super::recycle::Recycle;
use super::slab::Slab;

/// No task.
const NONE: u32 = u32::MAX;

/// Two tasks, by their places in the slab: a list's ends, or a task's neighbours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    before: u32,
    after: u32,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            before: NONE,
            after: NONE,
        }
    }
}

/// The tasks of each process, in the order they were started: a list through their entries, so that
/// the end of one process looks at its own tasks only.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// By the process's number: the last one and the first one, so that the list is a ring around this.
    /// Room is made when a process starts its first task.
    ends: Vec<Links>,
}

impl Recycle for Roster {
    fn recycled(&mut self) -> Self {
        Self {
            ends: self.ends.recycled(),
        }
    }
}

impl Roster {
    /// Adds a new task to its process.
    pub(super) fn add(&mut self, tasks: &mut Slab<TaskEntry>, process: ProcessId, key: TaskKey) {
        let number = process.number() as usize;
        if number >= self.ends.len() {
            self.ends.resize(number + 1, Links::default());
        }
        let ends = &mut self.ends[number];
        let before = std::mem::replace(&mut ends.before, key.index());
        match tasks.at_mut(before) {
            Some(last) => last.links.after = key.index(),
            None => ends.after = key.index(),
        }
        if let Some(added) = tasks.get_mut(key) {
            added.links.before = before;
        }
    }

    /// Takes a task out of the list of its process.
    pub(super) fn remove(&mut self, tasks: &mut Slab<TaskEntry>, process: ProcessId, key: TaskKey) {
        let Some(Links { before, after }) = tasks.get(key).map(|task| task.links) else {
            return;
        };
        let ends = &mut self.ends[process.number() as usize];
        match tasks.at_mut(before) {
            Some(before) => before.links.after = after,
            None => ends.after = after,
        }
        match tasks.at_mut(after) {
            Some(after) => after.links.before = before,
            None => ends.before = before,
        }
    }

    /// The first task of a process.
    pub(super) fn first(&self, tasks: &Slab<TaskEntry>, process: ProcessId) -> Option<TaskKey> {
        let ends = self.ends.get(process.number() as usize)?;
        tasks.key_at(ends.after)
    }

    /// The one after that, of the same process.
    pub(super) fn after(&self, tasks: &Slab<TaskEntry>, key: TaskKey) -> Option<TaskKey> {
        tasks.key_at(tasks.get(key)?.links.after)
    }

    /// Reads a task's neighbours, and says nothing of use.
    pub(super) fn look(&self, tasks: &Slab<TaskEntry>, links: Links) -> usize {
        let neighbours = [links.before, links.after].map(|place| tasks.at(place));
        neighbours.iter().flatten().count()
    }

    /// All processes that ever had a task, and some others.
    pub(super) fn processes(&self) -> impl Iterator<Item = ProcessId> + use<> {
        ProcessId::first(self.ends.len())
    }
}

/// What tasks that were started by the same line have in common.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) name: Cow<'static, str>,
    pub(super) spawned_at: &'static Location<'static>,
}

impl Site {
    /// Whether it is the same constant, started from the same place.
    fn is(&self, name: &'static str, spawned_at: &'static Location<'static>) -> bool {
        let is_same_name = matches!(&self.name, Cow::Borrowed(own) if ptr::eq(*own, name));
        is_same_name && ptr::eq(self.spawned_at, spawned_at)
    }
}

/// Sites that are remembered.
const REMEMBERED: usize = 4;

/// The last sites: a million tasks of one line share one.
#[derive(Debug, Default)]
pub(super) struct Sites {
    last: [Option<Rc<Site>>; REMEMBERED],
    next: usize,
}

impl Sites {
    pub(super) fn of(
        &mut self,
        name: Cow<'static, str>,
        spawned_at: &'static Location<'static>,
    ) -> Rc<Site> {
        let Cow::Borrowed(constant) = name else {
            return Rc::new(Site { name, spawned_at });
        };
        let mut last = self.last.iter().flatten();
        if let Some(known) = last.find(|site| site.is(constant, spawned_at)) {
            return Rc::clone(known);
        }
        let site = Rc::new(Site { name, spawned_at });
        self.last[self.next] = Some(Rc::clone(&site));
        self.next = (self.next + 1) % REMEMBERED;
        site
    }
}
