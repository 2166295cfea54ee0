//! What a task that sleeps takes of memory: large worlds are mostly made of such.
//!
//! The allocator counts for the whole process, so this binary holds one test.
#![cfg(feature = "sim")]

use std::alloc::System;
use std::time::Duration;

use moonpool_foundation::{Providers, SimWorld, TaskProvider, TimeProvider};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// As many as the tables have room for after their last doubling, so that they are full.
const TASKS: usize = 1 << 12;

#[test]
fn a_sleeping_task_takes_at_most_247_bytes() {
    let world = SimWorld::new();
    let providers = world.add_process("host").providers();
    let region = Region::new(ALLOCATOR);
    for task in 0..TASKS {
        let time = providers.time().clone();
        let duration = Duration::from_micros(1_000 + u64::try_from(task).unwrap());
        drop(providers.task().spawn_task("sleeper", async move {
            time.sleep(duration).await;
        }));
    }
    world.run_for(Duration::from_micros(1)).unwrap();
    let change = region.change();
    let bytes = (change.bytes_allocated - change.bytes_deallocated) / TASKS;
    println!("{bytes} bytes a sleeping task");
    // Its future, its entries among tasks, ready ones, events and in the wheel.
    assert!(bytes <= 247, "{bytes}");
}
