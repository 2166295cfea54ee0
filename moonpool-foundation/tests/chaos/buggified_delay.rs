//! Sleeps that take longer than they say.

use std::time::Duration;

use moonpool_foundation::{
    ChaosConfiguration, FaultKind, NetworkConfiguration, SimWorld, TimeProvider,
};

const SECOND: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_millis(100);

fn slow(seed: u64, probability: f64) -> SimWorld {
    let config = NetworkConfiguration {
        chaos: ChaosConfiguration {
            buggified_delay_enabled: true,
            buggified_delay_max: MAX,
            buggified_delay_probability: probability,
            ..ChaosConfiguration::disabled()
        },
        ..NetworkConfiguration::disabled()
    };
    SimWorld::new_with_network_config_and_seed(config, seed).unwrap()
}

/// By how much each of so many sleeps of a second is longer.
fn additions(world: &SimWorld, sleeps: u32) -> Vec<Duration> {
    let time = world.add_process("host").time_provider();
    world
        .block_on(async move {
            let mut additions = Vec::new();
            for _ in 0..sleeps {
                let began = time.now();
                time.sleep(SECOND).await;
                additions.push(time.now() - began - SECOND);
            }
            additions
        })
        .unwrap()
}

#[test]
fn a_sleep_is_never_shorter_and_seldom_longer_by_up_to_the_limit() {
    let world = slow(1, 1.0);
    let additions = additions(&world, 10_000);
    let longer: Vec<_> = additions.iter().filter(|by| !by.is_zero()).collect();
    // random^1000 of 100 ms is a nanosecond or more in 1.8 % of the draws, a millisecond in 0.46 %.
    assert!((120..250).contains(&longer.len()), "{}", longer.len());
    let by_a_lot = longer.iter().filter(|by| ***by > MAX / 100).count();
    assert!((20..80).contains(&by_a_lot), "{by_a_lot}");
    assert!(longer.iter().all(|by| **by <= MAX));
    let fired = world.fault_counts().of(FaultKind::BuggifiedDelay);
    assert_eq!(fired, longer.len() as u64, "each that did something");
}

#[test]
fn the_probability_is_that_of_being_lengthened() {
    let longer = |probability| {
        let additions = additions(&slow(2, probability), 20_000);
        additions.iter().filter(|by| !by.is_zero()).count()
    };
    let (all, quarter) = (longer(1.0), longer(0.25));
    assert!((all / 6..all / 3).contains(&quarter), "{quarter} of {all}");
    assert_eq!(longer(0.0), 0);
}

#[test]
fn time_outs_are_sleeps_and_take_longer_too() {
    let world = slow(3, 1.0);
    let time = world.add_process("host").time_provider();
    let late = world.block_on(async move {
        let mut late = 0;
        for _ in 0..5_000 {
            let began = time.now();
            let never = std::future::pending::<()>();
            time.timeout(SECOND, never).await.unwrap_err();
            late += u32::from(time.now() - began > SECOND);
        }
        late
    });
    assert!(late.unwrap() > 40);
}

#[test]
fn sleeps_that_are_exact_draw_nothing() {
    let digest = |config| {
        let world = SimWorld::new_with_network_config_and_seed(config, 4).unwrap();
        assert!(additions(&world, 1_000).iter().all(Duration::is_zero));
        world.digest()
    };
    let mut off = NetworkConfiguration::disabled();
    off.chaos.buggified_delay_enabled = true;
    off.chaos.buggified_delay_probability = 0.0;
    assert_eq!(digest(off), digest(NetworkConfiguration::disabled()));
}

#[test]
fn a_skipped_one_leaves_the_others_as_they_were() {
    let run = |skip: Option<&str>| {
        let world = slow(5, 1.0);
        world.set_skipped_faults(skip.map(|fault| fault.parse().unwrap()));
        additions(&world, 1_000)
    };
    let all = run(None);
    let skipped = run(Some("buggified-delay#2"));
    let differing: Vec<usize> = (0..1_000).filter(|i| all[*i] != skipped[*i]).collect();
    let second = all.iter().enumerate().filter(|(_, by)| !by.is_zero());
    assert_eq!(differing, [second.map(|(i, _)| i).nth(1).unwrap()]);
}
