//! `docs/observability.md` names what there is.

const PAGE: &str = include_str!("../../../docs/observability.md");

/// The values of the string constants of a source file.
fn constants(source: &str) -> Vec<&str> {
    let after = source.split("pub const ").skip(1);
    let values = after.filter_map(|item| item.split(';').next()?.split('"').nth(1));
    values.collect()
}

#[test]
fn the_page_has_every_name_that_is_logged_or_counted() {
    let sources = [
        include_str!("../../src/observability.rs"),
        include_str!("../../../moonpool-foundation/src/network/peer/observability.rs"),
    ];
    let names: Vec<_> = sources.into_iter().flat_map(constants).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        assert!(PAGE.contains(&format!("`{name}`")), "`{name}` is missing");
    }
}
