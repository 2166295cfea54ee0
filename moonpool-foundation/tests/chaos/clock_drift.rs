//! Clocks that run ahead, each by itself.

use std::time::Duration;

use moonpool_foundation::{
    ChaosConfiguration, FaultKind, NetworkConfiguration, SimWorld, TimeProvider,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const MAX: Duration = Duration::from_millis(100);

fn drifting(seed: u64) -> SimWorld {
    let config = NetworkConfiguration {
        chaos: ChaosConfiguration {
            clock_drift_enabled: true,
            clock_drift_max: MAX,
            ..ChaosConfiguration::disabled()
        },
        ..NetworkConfiguration::disabled()
    };
    SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
}

/// How far the clock of `name` is ahead, read every millisecond.
fn ahead(world: &SimWorld, name: &str, readings: u32) -> Vec<Duration> {
    let time = world.add_process(name).time_provider();
    let read = |_| {
        world.run_for(MILLISECOND).unwrap();
        let timer = time.timer();
        timer.checked_sub(time.now()).unwrap()
    };
    (0..readings).map(read).collect()
}

#[test]
fn a_clock_is_ahead_by_up_to_its_limit_and_never_behind() {
    for seed in 0..20 {
        let world = drifting(seed);
        let ahead = ahead(&world, "host", 1_000);
        assert!(ahead.iter().all(|by| *by <= MAX), "seed {seed}");
        let most = ahead.iter().max().unwrap();
        assert!(*most > MAX / 2, "seed {seed}: {most:?}");
        assert!(
            ahead[0] <= MAX / 2,
            "the first reading gains half the room at most"
        );
    }
}

#[test]
fn a_clock_never_goes_back() {
    let world = drifting(1);
    let time = world.add_process("host").time_provider();
    let mut last = Duration::ZERO;
    for _ in 0..1_000 {
        world.run_for(MILLISECOND / 10).unwrap();
        let timer = time.timer();
        assert!(timer >= last);
        last = timer;
    }
}

#[test]
fn the_clock_of_one_process_does_not_move_that_of_another() {
    let world = drifting(2);
    let one = world.add_process("one").time_provider();
    let other = world.add_process("other").time_provider();
    let ahead = (0..100).map(|_| one.timer()).max().unwrap();
    assert!(ahead > MAX * 9 / 10, "{ahead:?}");
    let first = other.timer();
    assert!(first <= MAX / 2, "{first:?}");
    assert_ne!(first, Duration::ZERO);
}

#[test]
fn the_worlds_own_clock_drifts_too_and_now_does_not() {
    let world = drifting(3);
    world.run_for(MILLISECOND).unwrap();
    assert_eq!(world.now(), MILLISECOND);
    assert!(world.timer() > world.now());
    assert!(world.timer() <= world.now() + MAX);
}

#[test]
fn the_date_is_that_of_the_drifting_clock_and_the_same_in_every_run() {
    let dates = |seed| {
        let time = drifting(seed).add_process("host").time_provider();
        [time.unix_time(), time.unix_time()]
    };
    // A world that is gone has no clock: read while it is there.
    let world = drifting(4);
    let time = world.add_process("host").time_provider();
    let first = time.unix_time();
    assert!(time.timer() >= first - Duration::from_secs(1_577_836_800));
    assert_eq!(dates(4), dates(4));
}

#[test]
fn a_clock_that_does_not_drift_draws_nothing() {
    let digest = |readings| {
        let world = SimWorld::new_with_network_config(NetworkConfiguration::disabled()).unwrap();
        let ahead = ahead(&world, "host", readings);
        assert!(ahead.iter().all(Duration::is_zero));
        world.run_until(Duration::from_secs(1)).unwrap();
        world.digest()
    };
    assert_eq!(digest(0), digest(50));
}

#[test]
fn the_drift_of_one_process_is_one_fault_and_skipped_as_a_whole() {
    let world = drifting(5);
    world.set_skipped_faults(["clock-drift#1".parse().unwrap()]);
    let exact = ahead(&world, "exact", 100);
    let drifts = ahead(&world, "drifts", 100);
    assert!(exact.iter().all(Duration::is_zero));
    assert!(drifts.iter().any(|by| !by.is_zero()));
    assert_eq!(world.fault_counts().of(FaultKind::ClockDrift), 1);
}

#[test]
fn a_clock_goes_on_drifting_over_a_restart() {
    let world = drifting(6);
    let host = world.add_process("host");
    let before = (0..10).map(|_| host.time_provider().timer()).max().unwrap();
    world.kill(host.id(), moonpool_foundation::KillKind::Crash);
    world.restart(host.id());
    assert!(host.time_provider().timer() >= before);
    assert_eq!(world.fault_counts().of(FaultKind::ClockDrift), 1);
}
