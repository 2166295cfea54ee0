//! The simulated work on the bare loop.

use std::hint::black_box;

use bench_common::{Arguments, Measurement, Numbers, ONE_WAY, PAYLOAD, memory, print};

use crate::bare;

const AFTER: u64 = ONE_WAY.as_nanos() as u64;

pub fn mesh(arguments: &Arguments) {
    let nodes: u64 = arguments.number("nodes", 10);
    let window = arguments.number("window", 8);
    streams(nodes * nodes, window, arguments.number("n", 1_000_000));
}

pub fn streams(connections: u64, window: u64, count: u64) {
    let each = count / connections;
    for _ in 0..connections {
        let (there, back) = (bare::pipe(), bare::pipe());
        bare::spawn(async move {
            let mut bytes = [0; PAYLOAD];
            for _ in 0..each {
                bare::read_exact(there, &mut bytes).await;
                bare::write(back, &bytes, AFTER);
            }
        })
        .detach();
        bare::spawn(async move {
            let mut bytes = [7; PAYLOAD];
            let window = window.min(each);
            for _ in 0..window {
                bare::write(there, &bytes, AFTER);
            }
            for _ in 0..each - window {
                bare::read_exact(back, &mut bytes).await;
                bare::write(there, &bytes, AFTER);
            }
            for _ in 0..window {
                bare::read_exact(back, &mut bytes).await;
            }
        })
        .detach();
    }
    let measurement = Measurement::begin();
    black_box(bare::run());
    measurement.end(each * connections);
}

pub fn repeated_sleeps(arguments: &Arguments) {
    let tasks: u64 = arguments.number("tasks", 1000);
    let each = arguments.number::<u64>("n", 1_000_000) / tasks;
    let measurement = Measurement::begin();
    for task in 0..tasks {
        bare::spawn(async move {
            let mut numbers = Numbers::new(task);
            for _ in 0..each {
                bare::sleep(numbers.sleep().as_nanos() as u64).await;
            }
        })
        .detach();
    }
    black_box(bare::run());
    measurement.end(each * tasks);
}

pub fn concurrent_sleeps(count: u64) {
    let resident = memory("VmRSS");
    let measurement = Measurement::begin();
    let mut numbers = Numbers::new(1);
    for _ in 0..count {
        let duration = numbers.sleep().as_nanos() as u64;
        bare::spawn(bare::sleep(duration)).detach();
    }
    black_box(bare::run());
    let most = memory("VmHWM");
    measurement.end(count);
    print("bytes", most.saturating_sub(resident) / count);
}

pub fn switches(count: u64) {
    for _ in 0..2 {
        bare::spawn(async move {
            for _ in 0..count / 2 {
                bare::yield_now().await;
            }
        })
        .detach();
    }
    let measurement = Measurement::begin();
    black_box(bare::run());
    measurement.end(count);
}
