//! The inner rules of tokio's `select!` that `moonpool_foundation::select!` relies on, looked up in the
//! source of the tokio that is compiled. They are not public API. This target uses neither macro, so
//! it still compiles, and explains, when a new tokio makes the others fail to.
#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy allows it in #[test] functions but not in helpers"
)]

use std::path::PathBuf;
use std::process::Command;

/// What `src/select.rs` needs there, and for what.
const RELIED_ON: [(&str, &str); 4] = [
    (
        "(@ { start=$start:expr; $($t:tt)* } ) => {",
        "the entry that takes the starting branch as an expression",
    ),
    (
        "(@ { start=$start:expr; ( $($s:tt)* ) $($t:tt)* } $p:pat = $f:expr => $h:expr ) => {",
        "branches that are normalised after that entry",
    ),
    (
        "const BRANCHES: u32 = $crate::count!( $($count)* );",
        "the number of branches, by the name that our expression uses",
    ),
    (
        "let start = $start;",
        "the expression being evaluated at each poll, as the branch to start with",
    ),
];

/// Where cargo has unpacked the tokio that this crate is built with, and its version.
fn tokio() -> (PathBuf, String) {
    // Packages for other platforms have not been fetched.
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(["--filter-platform", &host()])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {text}");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut tokios = packages.iter().filter(|package| package["name"] == "tokio");
    let tokio = tokios.next().unwrap();
    assert!(tokios.next().is_none(), "more than one tokio is compiled");
    let text = |field: &str| tokio[field].as_str().unwrap().to_owned();
    (text("manifest_path").into(), text("version"))
}

/// The platform that this is compiled on.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap().to_owned()
}

#[test]
fn the_rules_of_tokios_select_that_ours_expands_to_are_still_there() {
    let (manifest, version) = tokio();
    let path = manifest.with_file_name("src/macros/select.rs");
    let source = std::fs::read_to_string(&path).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let source = words(&source);
    for (rule, purpose) in RELIED_ON {
        assert!(
            source.contains(&words(rule)),
            "tokio {version} has changed its `select!`: `{rule}` ({purpose}) is no longer in \
             {}. Adapt moonpool-foundation/src/select.rs, and the range of tokio in the \
             workspace's Cargo.toml",
            path.display()
        );
    }
}
