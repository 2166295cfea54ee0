//! Draws without a provider.

use std::cell::RefCell;
use std::rc::Rc;

use moonpool_foundation::{
    RandomProvider, SimWorld, TaskProvider, UID, get_current_sim_seed, reset_sim_rng, set_sim_seed,
    sim_random, sim_random_range, sim_random_range_or_default,
};

#[test]
fn the_threads_own_stream_repeats_for_its_seed() {
    set_sim_seed(5);
    let first: [u64; 3] = [sim_random(), sim_random(), sim_random()];
    reset_sim_rng();
    assert_eq!(get_current_sim_seed(), 5);
    assert_eq!(first, [(); 3].map(|()| sim_random::<u64>()));
    set_sim_seed(6);
    assert_ne!(first[0], sim_random::<u64>());
    let roll = sim_random_range(1..=6);
    assert!((1..=6).contains(&roll));
    let (low, high) = (7_u32, 7_u32);
    assert_eq!(sim_random_range_or_default(low..high), 0);
}

/// What a task of one process draws, by provider or without one.
fn draws_in_a_world(ambient: bool) -> (Vec<u64>, u64) {
    let world = SimWorld::new_with_seed(9);
    let process = world.add_process("node");
    let seen = Rc::new(RefCell::new((Vec::new(), 0)));
    let (log, random) = (Rc::clone(&seen), process.random_provider());
    process.task_provider().spawn_task("drawer", async move {
        let drawn = (0..3).map(|_| {
            if ambient {
                sim_random()
            } else {
                random.random()
            }
        });
        *log.borrow_mut() = (drawn.collect(), get_current_sim_seed());
    });
    world.run_until_empty().unwrap();
    seen.take()
}

#[test]
fn inside_a_simulation_draws_come_from_the_current_process() {
    set_sim_seed(1);
    let (drawn, seed) = draws_in_a_world(true);
    assert_eq!((drawn, seed), draws_in_a_world(false));
    assert_eq!(seed, 9);
}

#[test]
fn random_tokens_repeat_inside_a_simulation_and_differ_outside() {
    let token = || {
        SimWorld::new_with_seed(2)
            .block_on(async { (UID::random(), UID::random()) })
            .unwrap()
    };
    assert_eq!(token(), token());
    assert_ne!(token().0, token().1);
    assert_ne!(UID::random(), UID::random());
}
