//! What the thread knows while simulated code runs: which world, which process, which task; and
//! the panic hook that turns a panic in there into a verdict instead of noise.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use super::process::ProcessRef;
use super::world::{WeakSimWorld, World};
use crate::chaos::assertions::{self, Tally};

/// Whose code runs right now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Current {
    pub(crate) process: ProcessRef,
}

/// Where and how the last panic in simulated code happened.
#[derive(Debug, Default)]
pub(crate) struct PanicSite {
    pub(crate) location: Option<String>,
    /// Set if tokio panicked for want of a runtime: what the code should have used.
    pub(crate) escape: Option<&'static str>,
}

thread_local! {
    static WORLD: RefCell<Option<WeakSimWorld>> = const { RefCell::new(None) };
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    static LAST_PANIC: RefCell<Option<PanicSite>> = const { RefCell::new(None) };
    static THREAD_TAG: Cell<u32> = const { Cell::new(0) };
}

/// A number for this thread, to tell a wake from another one. It decides nothing else.
pub(crate) fn thread_tag() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let tag = THREAD_TAG.get();
    if tag != 0 {
        return tag;
    }
    let tag = NEXT.fetch_add(1, Ordering::Relaxed);
    THREAD_TAG.set(tag);
    tag
}

/// The code that runs right now, if it is simulated.
pub(crate) fn current() -> Option<Current> {
    CURRENT.get()
}

/// The world that is driven on this thread.
pub(crate) fn world() -> Option<WeakSimWorld> {
    WORLD.with_borrow(Clone::clone)
}

/// Marks simulated code as running until dropped; what ran before is restored then.
#[derive(Debug)]
pub(crate) struct Running {
    before: Option<Current>,
}

#[inline]
pub(crate) fn run_as(current: Current) -> Running {
    Running {
        before: CURRENT.replace(Some(current)),
    }
}

/// Lends the place of what [`current`] gives: for a loop that runs one's code after the other's.
#[inline]
pub(super) fn with_current<R>(f: impl FnOnce(&Cell<Option<Current>>) -> R) -> R {
    CURRENT.with(f)
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Marks a world as driven on this thread until dropped.
#[derive(Debug)]
pub(crate) struct Driving {
    before: Option<WeakSimWorld>,
    asserted_before: Option<assertions::Before>,
}

pub(crate) fn drive(world: WeakSimWorld) -> Driving {
    install_hook();
    crate::ambient::install(ambient_u64);
    let (hook, tally) = match world.upgrade() {
        Some(world) => world.with(World::enter),
        None => (None, Tally::default()),
    };
    Driving {
        before: WORLD.replace(Some(world)),
        asserted_before: Some(assertions::enter(hook, tally)),
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let driven = WORLD.replace(self.before.take());
        let tally = self.asserted_before.take().map(assertions::leave);
        if let (Some(tally), Some(world)) = (tally, driven.and_then(|world| world.upgrade())) {
            world.with(|world| world.tally = tally);
        }
    }
}

/// Bits for code without a provider: the current process's own stream of draws.
fn ambient_u64() -> Option<u64> {
    let current = current()?;
    Some(world()?.workload_u64(current.process))
}

/// What the hook saw of the panic that was just caught.
pub(crate) fn take_panic_site() -> PanicSite {
    LAST_PANIC.take().unwrap_or_default()
}

fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CURRENT.get().is_some() {
                LAST_PANIC.set(Some(panic_site(info)));
            } else {
                before(info);
            }
        }));
    });
}

fn panic_site(info: &PanicHookInfo<'_>) -> PanicSite {
    let text = info.payload_as_str().unwrap_or_default();
    PanicSite {
        location: info.location().map(ToString::to_string),
        escape: escape_from(text),
    }
}

/// What to use instead, if `panic` is tokio's complaint that no runtime is entered.
fn escape_from(panic: &str) -> Option<&'static str> {
    if let Some(text) = panic.strip_prefix(ESCAPE_PREFIX) {
        return match text {
            BLOCKING => Some(BLOCKING),
            _ => None,
        };
    }
    let tokio_complains = panic.contains("there is no reactor running")
        || panic.contains("must be called from the context of a Tokio")
        || panic.contains("called from outside of a `task::LocalSet`");
    if !tokio_complains {
        return None;
    }
    // The message is the same for timers, sockets and tasks; only the stack tells them apart.
    let stack = Backtrace::force_capture().to_string();
    // Of the blocking pool first: tokio's file system goes there too.
    Some(if stack.contains("spawn_blocking") {
        "tokio's pool for blocking work was used: use TaskProvider::run_blocking"
    } else if panic.contains("spawn_local") {
        "tokio's spawn_local was used: use TaskProvider::spawn_task"
    } else if stack.contains("tokio::time::") {
        "tokio's timers were used: use TimeProvider::sleep and TimeProvider::timeout"
    } else if stack.contains("tokio::net::") {
        "tokio's sockets were used: use NetworkProvider::connect and NetworkProvider::bind"
    } else if stack.contains("tokio::task::") {
        "tokio's spawn was used: use TaskProvider::spawn_task"
    } else {
        "tokio's runtime was used: use TimeProvider::sleep for its timers, \
         NetworkProvider::connect and bind for its sockets, TaskProvider::spawn_task for its spawn"
    })
}

const ESCAPE_PREFIX: &str = "moonpool escape: ";
const BLOCKING: &str = "a simulated future was polled by another runtime: await it in a simulated \
                        task instead of blocking on it (SimWorld::block_on drives a world from outside)";

/// Ends the current task if it is polled by a foreign runtime that blocks on simulated futures: that
/// would wait in real time for an event that nobody can process meanwhile.
pub(crate) fn check_not_blocking() {
    if current().is_some() {
        check_not_entered();
    }
}

/// As [`check_not_blocking`], where simulated code runs for certain: a runtime may also be entered and
/// held across an await.
#[expect(
    clippy::panic,
    reason = "the only way out of a foreign runtime's block_on; it becomes a verdict"
)]
#[inline]
pub(super) fn check_not_entered() {
    if tokio::runtime::Handle::try_current().is_ok() {
        panic!("{ESCAPE_PREFIX}{BLOCKING}");
    }
}
