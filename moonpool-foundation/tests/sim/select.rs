//! `moonpool_foundation::select!` hands its own starting branch to an inner rule of tokio's macro,
//! which is not public API. These fail if a tokio release changes what that rule does; if it changes
//! so much that this does not compile, `tests/tokio_select.rs` says where to look.

use moonpool_foundation::{SimWorld, select};

const CHANGED: &str = "tokio's `select!` no longer takes its starting branch from us: adapt \
                       moonpool-foundation/src/select.rs, and the range of tokio in Cargo.toml";

/// The branches taken by 64 selects between three that are ready.
fn taken(seed: u64) -> Vec<u8> {
    let world = SimWorld::new_with_seed(seed);
    let taken = world.block_on(async {
        let mut taken = Vec::new();
        for _ in 0..64 {
            taken.push(select! {
                () = std::future::ready(()) => 0,
                () = std::future::ready(()) => 1,
                () = std::future::ready(()) => 2,
            });
        }
        taken
    });
    taken.unwrap()
}

#[test]
fn the_first_branch_polled_is_drawn_from_the_seed() {
    let first = taken(1);
    assert_eq!(first, taken(1), "{CHANGED}");
    assert_ne!(first, taken(2), "{CHANGED}");
    for branch in 0..3 {
        assert!(
            first.contains(&branch),
            "{CHANGED}: {branch} is never first"
        );
    }
}

/// The digest of a world in which `future` ran: it folds every draw.
fn digest_of(future: impl Future<Output = ()>) -> u64 {
    let world = SimWorld::new();
    world.block_on(future).unwrap();
    world.digest()
}

#[test]
fn a_select_draws_and_a_biased_one_polls_in_order_and_draws_nothing() {
    let nothing = digest_of(async {});
    let drawn = digest_of(async {
        select! {
            () = std::future::ready(()) => {}
            () = std::future::ready(()) => {}
        }
    });
    assert_ne!(drawn, nothing, "{CHANGED}");
    let biased = digest_of(async {
        for _ in 0..32 {
            let branch = select! {
                biased;
                () = std::future::ready(()) => 0,
                () = std::future::ready(()) => 1,
            };
            assert_eq!(branch, 0);
        }
    });
    assert_eq!(biased, nothing);
}

#[test]
fn tokios_grammar_is_ours() {
    let world = SimWorld::new();
    let taken = world.block_on(async {
        let disabled = false;
        let mut text = String::from("x");
        // Patterns, preconditions, blocks with and without commas, and `else`.
        let first = select! {
            Some(number) = std::future::ready(None::<u32>) => number,
            () = std::future::pending(), if disabled => { text.push('!'); 1 }
            else => 2,
        };
        let second = select! { number = async { 3 } => number };
        let third = select! { else => 4 };
        (first, second, third, text)
    });
    assert_eq!(taken.unwrap(), (2, 3, 4, "x".to_owned()));
}

#[test]
fn outside_a_simulation_every_branch_has_its_turn() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let taken = runtime.block_on(async {
        let mut taken = [false; 2];
        // Each misses one branch with a chance of 2^-256.
        for _ in 0..256 {
            let branch: usize = select! {
                () = std::future::ready(()) => 0,
                () = std::future::ready(()) => 1,
            };
            taken[branch] = true;
        }
        taken
    });
    assert_eq!(taken, [true, true], "{CHANGED}");
}
