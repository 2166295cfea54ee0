//! The code of `docs/guide.md`, and a test that the guide prints it.
#![cfg(feature = "sim")]
#![expect(
    unreachable_pub,
    reason = "the guide prints what a library has: nobody else uses a test"
)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "guide/around.rs"]
mod around;
#[path = "guide/bridge.rs"]
mod bridge;
#[path = "guide/cores.rs"]
mod cores;
#[path = "guide/limits.rs"]
mod limits;
#[path = "guide/nested.rs"]
mod nested;
#[path = "guide/once.rs"]
mod once;
#[path = "guide/one_way.rs"]
mod one_way;
#[path = "guide/promises.rs"]
mod promises;
#[path = "guide/store.rs"]
mod store;
#[path = "guide/upgrades.rs"]
mod upgrades;

const GUIDE: &str = include_str!("../../docs/guide.md");

/// The guide's Rust code, block by block.
fn blocks() -> impl Iterator<Item = &'static str> {
    GUIDE.split("```rust\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").unwrap();
        block.trim_end()
    })
}

#[test]
fn the_guide_prints_code_that_is_compiled_here() {
    let sources = [
        include_str!("guide/around.rs"),
        include_str!("guide/bridge.rs"),
        include_str!("guide/cores.rs"),
        include_str!("guide/nested.rs"),
        include_str!("guide/once.rs"),
        include_str!("guide/one_way.rs"),
        include_str!("guide/promises.rs"),
        include_str!("guide/store.rs"),
        include_str!("guide/upgrades.rs"),
    ];
    assert!(blocks().count() > 8);
    for block in blocks() {
        let found = sources.iter().any(|source| source.contains(block));
        assert!(found, "compiled nowhere:\n{block}");
    }
}
