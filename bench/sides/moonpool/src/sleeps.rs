//! Timers and tasks.

use bench_common::{Arguments, LONGEST_SLEEP, Measurement, Numbers, memory, print};
use moonpool::{Providers, TaskProvider, TimeProvider};

use crate::streams;

/// `tasks` tasks that sleep one after the other, `n` sleeps in all.
pub fn repeated(arguments: &Arguments) {
    let tasks: u64 = arguments.number("tasks", 1000);
    let each = arguments.number::<u64>("n", 1_000_000) / tasks;
    let world = streams::world(1);
    let providers = world.add_process("host").providers();
    let measurement = Measurement::begin();
    let mut sleeping = Vec::new();
    for task in 0..tasks {
        let time = providers.time().clone();
        sleeping.push(providers.task().spawn_task("sleeper", async move {
            let mut numbers = Numbers::new(task);
            for _ in 0..each {
                time.sleep(numbers.sleep()).await;
            }
        }));
    }
    let all = async move {
        for one in sleeping {
            one.await.unwrap();
        }
    };
    world.block_on(all).unwrap();
    measurement.end(each * tasks);
}

/// `count` tasks that sleep once, at the same time.
pub fn concurrent(count: u64) {
    let world = streams::world(1);
    let providers = world.add_process("host").providers();
    let resident = memory("VmRSS");
    let measurement = Measurement::begin();
    let mut numbers = Numbers::new(1);
    for _ in 0..count {
        let sleep = providers.time().clone();
        let duration = numbers.sleep();
        drop(providers.task().spawn_task("sleeper", async move {
            sleep.sleep(duration).await;
        }));
    }
    let time = providers.time().clone();
    world
        .block_on(async move { time.sleep(2 * LONGEST_SLEEP).await })
        .unwrap();
    let most = memory("VmHWM");
    measurement.end(count);
    print("bytes", most.saturating_sub(resident) / count);
}

/// Two tasks that take turns.
pub fn switches(count: u64) {
    let world = streams::world(1);
    let providers = world.add_process("host").providers();
    let task = |_| {
        let task = providers.task().clone();
        providers.task().spawn_task("turn", async move {
            for _ in 0..count / 2 {
                task.yield_now().await;
            }
        })
    };
    let [first, second] = [0, 1].map(task);
    let measurement = Measurement::begin();
    let all = async move {
        first.await.unwrap();
        second.await.unwrap();
    };
    world.block_on(all).unwrap();
    measurement.end(count);
}
