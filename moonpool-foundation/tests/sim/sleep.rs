//! Timers: exact, cancelled without a trace, and never a reason to wait in real time.

use std::time::Duration;

use moonpool_foundation::{NetworkConfiguration, SimWorld, SimulationError, TimeProvider};

const HOUR: Duration = Duration::from_secs(3600);

/// A world whose sleeps take as long as they say.
fn exact() -> SimWorld {
    SimWorld::new_with_network_config(NetworkConfiguration::disabled()).unwrap()
}

#[test]
fn a_sleep_ends_exactly_at_its_deadline() {
    let world = exact();
    let time = world.time_provider();
    let woke = world
        .block_on(async move {
            time.sleep(HOUR + Duration::from_nanos(1)).await;
            time.now()
        })
        .unwrap();
    assert_eq!(woke, HOUR + Duration::from_nanos(1));
}

#[test]
fn a_deadline_counts_from_the_call_and_not_from_the_first_poll() {
    let world = exact();
    let time = world.time_provider();
    let woke = world
        .block_on(async move {
            let early = time.sleep(Duration::from_secs(1));
            time.sleep(Duration::from_secs(5)).await;
            early.await;
            time.now()
        })
        .unwrap();
    assert_eq!(woke, Duration::from_secs(5));
}

#[test]
fn dropped_sleeps_leave_no_event_behind() {
    let world = exact();
    let time = world.time_provider();
    let elapsed = world
        .block_on(async move {
            for _ in 0..1000 {
                let slow = time.sleep(HOUR);
                time.timeout(Duration::from_millis(1), slow)
                    .await
                    .unwrap_err();
            }
            time.now()
        })
        .unwrap();
    assert_eq!(elapsed, Duration::from_secs(1));
    assert_eq!(world.pending_event_count(), 0);
}

#[test]
fn a_sleep_of_zero_lets_others_run_and_never_spins_inside_one_poll() {
    let world = exact();
    world.set_livelock_limit(1000);
    let time = world.time_provider();
    let error = world
        .block_on(async move {
            loop {
                time.sleep(Duration::ZERO).await;
            }
        })
        .unwrap_err();
    assert!(error.to_string().contains("livelock"), "{error}");
}

#[test]
fn a_future_that_is_ready_at_the_deadline_wins() {
    let world = exact();
    let time = world.time_provider();
    let result = world
        .block_on(async move {
            let inner = time.sleep(Duration::from_secs(1));
            time.timeout(Duration::from_secs(1), inner).await
        })
        .unwrap();
    assert_eq!(result, Ok(()));
}

#[test]
fn hand_steering_stops_exactly_where_it_is_told() {
    let world = exact();
    world.schedule_event(1, Duration::from_secs(1));
    world.schedule_event(2, Duration::from_secs(2));
    world.schedule_event_at(3, Duration::from_secs(3));
    assert_eq!(world.pending_event_count(), 3);
    world.run_for(Duration::from_millis(1500)).unwrap();
    assert_eq!(world.now(), Duration::from_millis(1500));
    assert_eq!(world.pending_event_count(), 2);
    world.run_until(Duration::from_secs(2)).unwrap();
    assert_eq!(world.pending_event_count(), 1);
    assert!(!world.step().unwrap());
    assert_eq!(
        (world.now(), world.events_processed()),
        (Duration::from_secs(3), 3)
    );
}

#[test]
fn a_scheduled_closure_runs_at_its_time() {
    let world = exact();
    let seen = std::rc::Rc::new(std::cell::Cell::new(None));
    let time = world.time_provider();
    world.schedule_after(Duration::from_secs(7), {
        let seen = std::rc::Rc::clone(&seen);
        move || seen.set(Some(time.now()))
    });
    world.run_until_empty().unwrap();
    assert_eq!(seen.get(), Some(Duration::from_secs(7)));
}

#[test]
fn a_background_sleep_ends_in_time_and_keeps_no_run_alive() {
    let world = exact();
    let time = world.time_provider();
    let woke = world
        .block_on(async move {
            let idle = time.background_sleep(Duration::from_secs(60));
            time.timeout(HOUR, idle).await.unwrap();
            time.now()
        })
        .unwrap();
    assert_eq!(woke, Duration::from_secs(60));
    let time = world.time_provider();
    let stuck = world.block_on(async move { time.background_sleep(HOUR).await });
    assert!(
        matches!(stuck, Err(SimulationError::Deadlock { .. })),
        "{stuck:?}"
    );
}
