//! What a world leaves to the next one of its thread: memory, and nothing of what was in it. A campaign
//! makes a world a seed, and all of them grow alike.

use std::cell::Cell;

use super::connections::Network;
use super::event::Queued;
use super::events::EventQueue;
use super::executor::Executor;
use super::process::Processes;
use super::recycle::{Recycle, recycle};
use super::world::World;

recycle!(Network { connections, listeners, attempts } Self::default());

/// What grows in every world.
pub(super) struct Remains {
    pub(super) events: EventQueue<Queued>,
    pub(super) executor: Executor,
    pub(super) network: Network,
    pub(super) processes: Processes,
}

impl Default for Remains {
    fn default() -> Self {
        Self {
            events: EventQueue::default(),
            executor: Executor::new(),
            network: Network::default(),
            processes: Processes::default(),
        }
    }
}

thread_local! {
    /// Of the last world that ended on this thread.
    static REMAINS: Cell<Option<Remains>> = const { Cell::new(None) };
}

/// What the last world left, or as much in new memory.
pub(super) fn take() -> Remains {
    let kept = REMAINS.try_with(Cell::take).ok().flatten();
    kept.unwrap_or_default()
}

impl Drop for World {
    fn drop(&mut self) {
        keep(Remains {
            events: self.events.recycled(),
            executor: self.executor.recycled(),
            network: self.network.recycled(),
            processes: self.processes.recycled(),
        });
    }
}

/// Keeps it for the next world, instead of what is kept.
fn keep(remains: Remains) {
    // At the end of a thread there is no next one.
    let replaced = REMAINS.try_with(|kept| kept.replace(Some(remains)));
    drop(replaced);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::network::NetworkProvider;
    use crate::providers::Providers;
    use crate::task::TaskProvider;
    use crate::time::TimeProvider;
    use crate::{KillKind, SimWorld};

    use super::*;

    /// A world with tasks, listeners, connections, attempts and events that are never done, and a
    /// process that died.
    fn leave_a_world_unfinished() {
        let world = SimWorld::new_with_seed(3);
        let hosts: Vec<_> = (0..20)
            .map(|host| world.add_process(&format!("host{host}")))
            .collect();
        for (number, host) in hosts.iter().enumerate() {
            let providers = host.providers();
            let next = format!("host{}:80", (number + 1) % hosts.len());
            providers.task().clone().spawn_task("busy", async move {
                let listener = providers.network().bind(&format!("host{number}:80")).await;
                let stream = providers.network().connect(&next).await;
                for sleep in 1..100_000 {
                    providers.time().sleep(Duration::from_millis(sleep)).await;
                }
                drop((listener, stream));
            });
        }
        world.run_for(Duration::from_secs(1)).unwrap();
        world.kill(hosts[4].id(), KillKind::Crash);
        world.run_for(Duration::from_secs(1)).unwrap();
        assert!(world.leftovers().tasks > 0 && world.leftovers().connections > 0);
    }

    #[test]
    fn a_world_in_memory_of_another_is_like_one_in_new_memory() {
        let made = || format!("{:?}", SimWorld::new_with_seed(7));
        leave_a_world_unfinished();
        let kept = REMAINS.take();
        assert!(kept.is_some());
        REMAINS.set(kept);
        let recycled = made();
        let new = std::thread::spawn(made).join().unwrap();
        assert_eq!(recycled, new);
    }
}
