//! The layers of this crate, and the rule that imports go downwards only.
//!
//! | layer | what |
//! | --- | --- |
//! | 0 | errors, messages on the wire, ambient randomness, wait reasons |
//! | 1 | provider traits, configuration, chaos |
//! | 2 | the simulator's core; beside it the peer: neither sees the other |
//! | 3 | the adapters: providers over the simulator and over tokio |
//! | 4 | the runner |
//!
//! `mod.rs` and `lib.rs` may re-export (`pub use`) what lies below them in the tree. What an item
//! is judged by is the module that defines it, not the path it was imported through.
#![allow(
    clippy::expect_used,
    reason = "a test ends with a panic; clippy allows it in #[test] functions but not in helpers"
)]

#[path = "layout/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{ModulePath, Source, Tree, module_of};

/// Which layer the modules below a path belong to. The longest prefix decides.
const LAYERS: &[(&str, Layer)] = &[
    ("collections", Layer::Base),
    ("error", Layer::Base),
    ("messaging", Layer::Base),
    ("ambient", Layer::Base),
    ("collections", Layer::Base),
    ("turns", Layer::Base),
    ("wait", Layer::Base),
    ("providers", Layer::Traits),
    ("network", Layer::Traits),
    ("time", Layer::Traits),
    ("task", Layer::Traits),
    ("random", Layer::Traits),
    ("chaos", Layer::Traits),
    ("chaos/oracle", Layer::Adapters),
    ("sim", Layer::Simulator),
    ("network/peer", Layer::Peer),
    ("network/sim", Layer::Adapters),
    ("network/tokio", Layer::Adapters),
    ("time/sim", Layer::Adapters),
    ("time/tokio", Layer::Adapters),
    ("task/sim", Layer::Adapters),
    ("task/tokio", Layer::Adapters),
    ("random/sim", Layer::Adapters),
    ("random/system", Layer::Adapters),
    ("select", Layer::Adapters),
    ("runner", Layer::Runner),
];

/// Imports that go upwards all the same: the file, the modules it may see, and why.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[(
    "providers.rs",
    &[
        "network/sim/provider",
        "network/tokio",
        "random/sim",
        "random/system",
        "sim/sim_world",
        "task/sim",
        "task/tokio",
        "time/sim",
        "time/tokio",
    ],
    "TokioProviders and SimProviders stand beside the trait that they implement",
)];

/// Modules that exist with the feature `sim` only.
const SIMULATOR_ONLY: &[&str] = &[
    "sim",
    "runner/banner",
    "runner/builder",
    "runner/campaign",
    "runner/checks",
    "runner/coverage",
    "runner/divergence",
    "runner/environment",
    "runner/error",
    "runner/execution",
    "runner/minimize",
    "runner/orchestrator",
    "runner/phases",
    "runner/plan",
    "runner/processes",
    "runner/progress",
    "runner/regressions",
    "runner/replay",
    "runner/report",
    "runner/trace_files",
    "runner/workload",
    "network/config",
    "chaos/assertions",
    "chaos/buggify",
    "network/latency",
    "chaos/attrition",
    "chaos/config",
    "chaos/fault",
    "chaos/invariants",
    "chaos/oracle",
    "chaos/site_table",
    "chaos/state_registry",
    "network/sim",
    "time/sim",
    "task/sim",
    "random/sim",
];

/// Lines of a file before its test module.
const MAX_LINES: usize = 600;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    Base,
    Traits,
    Simulator,
    Peer,
    Adapters,
    Runner,
}

impl Layer {
    fn number(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Traits => 1,
            Self::Simulator | Self::Peer => 2,
            Self::Adapters => 3,
            Self::Runner => 4,
        }
    }

    fn may_import(self, other: Self) -> bool {
        self == other || other.number() < self.number()
    }

    fn of(module: &[String]) -> Option<Self> {
        (1..=module.len()).rev().find_map(|len| {
            let path = module[..len].join("/");
            let known = LAYERS.iter().find(|(prefix, _)| *prefix == path);
            known.map(|(_, layer)| *layer)
        })
    }
}

/// The files of a crate below `src/`: path, then text.
type Files = BTreeMap<String, String>;

/// Every rule that `files` break, one line each.
fn violations(files: &Files) -> Vec<String> {
    let sources: BTreeMap<&str, Source> = files
        .iter()
        .map(|(path, text)| (path.as_str(), source::read(path, text)))
        .collect();
    let tree = Tree(
        sources
            .values()
            .map(|source| (source.module.clone(), source))
            .collect(),
    );
    let compiled = compiled_modules(&tree);
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (path, source) in &sources {
        match compiled.get(&source.module) {
            None => found.push(format!("{path} is in no module")),
            Some(Compiled::ForTests) => continue,
            Some(Compiled::Always) if is_simulator_only(&source.module) => {
                found.push(format!("{path} is compiled without the feature sim"));
            }
            Some(_) => {}
        }
        if source.lines > MAX_LINES {
            found.push(format!("{path} has {} lines", source.lines));
        }
        if *path == "lib.rs" {
            continue;
        }
        match Layer::of(&source.module) {
            Some(layer) => found.extend(upward_imports(path, source, layer, &tree, &mut used)),
            None => found.push(format!("{path} has no layer")),
        }
    }
    found.extend(unused_exceptions(files, &used));
    found
}

fn is_simulator_only(module: &[String]) -> bool {
    let mut prefixes = SIMULATOR_ONLY.iter();
    prefixes.any(|prefix| module.starts_with(&module_of(prefix)))
}

fn upward_imports(
    path: &str,
    source: &Source,
    layer: Layer,
    tree: &Tree<'_>,
    used: &mut BTreeSet<(String, String)>,
) -> Vec<String> {
    let mut found = Vec::new();
    for import in &source.imports {
        let target = tree.defining_module(import);
        let Some(other) = Layer::of(&target) else {
            // What macros expand to, and names of the crate's root that this reader cannot follow.
            if import.len() == 1 || import[0] == "__private" {
                continue;
            }
            found.push(format!("{path} imports {}: unknown", import.join("::")));
            continue;
        };
        let module = target.join("/");
        let excepted = EXCEPTIONS
            .iter()
            .any(|(file, allowed, _)| *file == path && allowed.contains(&module.as_str()));
        if excepted {
            used.insert((path.to_owned(), module));
        } else if !layer.may_import(other) {
            let name = import.join("::");
            found.push(format!("{path} ({layer:?}) imports {name} ({other:?})"));
        }
    }
    if layer == Layer::Peer {
        found.extend(names_of_simulator(source).map(|name| format!("{path} (Peer) names {name}")));
    }
    found
}

fn unused_exceptions(files: &Files, used: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut found = Vec::new();
    for (file, modules, _) in EXCEPTIONS {
        for module in *modules {
            let pair = ((*file).to_owned(), (*module).to_owned());
            if files.contains_key(*file) && !used.contains(&pair) {
                found.push(format!(
                    "the exception for {file} and {module} is not needed"
                ));
            }
        }
    }
    found
}

/// When a module is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Compiled {
    Always,
    WithSimulator,
    ForTests,
}

/// When each module that the crate's root leads to is compiled.
fn compiled_modules(tree: &Tree<'_>) -> BTreeMap<ModulePath, Compiled> {
    let mut reached = BTreeMap::new();
    let mut todo = vec![(ModulePath::new(), Compiled::Always)];
    while let Some((module, compiled)) = todo.pop() {
        let children = tree.0.get(&module).map(|source| source.children.iter());
        for child in children.into_iter().flatten() {
            let mut path = module.clone();
            path.push(child.name.clone());
            let compiled = match compiled {
                _ if child.is_test => Compiled::ForTests,
                Compiled::Always if child.needs_sim => Compiled::WithSimulator,
                inherited => inherited,
            };
            todo.push((path, compiled));
        }
        reached.insert(module, compiled);
    }
    reached
}

/// All `.rs` files below `dir`.
fn read_files(dir: &Path) -> Files {
    fn collect(dir: &Path, prefix: &str, files: &mut Files) {
        for entry in fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().expect("a file type").is_dir() {
                collect(&entry.path(), &format!("{name}/"), files);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(entry.path()).expect("a source file");
                files.insert(name, text);
            }
        }
    }
    let mut files = Files::new();
    collect(dir, "", &mut files);
    files
}

#[test]
fn imports_go_downwards_and_the_simulator_is_optional() {
    let files = read_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 10, "sources were not found");
    let found = violations(&files);
    assert!(found.is_empty(), "{found:#?}");
}

/// The RPC crate is written against the provider traits alone: it never names the simulator, and
/// its files keep to the same length.
#[test]
fn the_rpc_crate_does_not_name_the_simulator() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for (path, text) in read_files(&workspace.join("moonpool/src")) {
        let source = source::read(&path, &text);
        if source.lines > MAX_LINES {
            found.push(format!("{path} has {} lines", source.lines));
        }
        if path != "lib.rs" {
            found.extend(names_of_simulator(&source).map(|name| format!("{path} names {name}")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

fn names_of_simulator(source: &Source) -> impl Iterator<Item = &String> {
    let names = source.identifiers.iter();
    names.filter(|name| *name == "sim" || name.starts_with("Sim"))
}

/// A small crate that breaks no rule, and `changes` to its files.
fn planted(changes: &[(&str, &str)]) -> Vec<String> {
    let clean = [
        (
            "lib.rs",
            "mod error; pub mod network; #[cfg(feature = \"sim\")] mod sim; mod time;\n\
             pub use error::Error; #[cfg(feature = \"sim\")] pub use sim::SimWorld;",
        ),
        ("error.rs", "pub struct Error;"),
        (
            "time/mod.rs",
            "mod tokio; pub use tokio::TokioTimeProvider; pub trait TimeProvider {}",
        ),
        ("time/tokio.rs", "use super::TimeProvider;"),
        ("network/mod.rs", "pub mod peer;"),
        (
            "network/peer/mod.rs",
            "use crate::Error; use crate::time::TimeProvider;\n\
             /* use crate::sim::SimWorld; */ // crate::sim::x\n\
             #[cfg(test)] mod tests { use crate::sim::SimWorld; }",
        ),
        (
            "sim/mod.rs",
            "mod world; pub use world::SimWorld; use crate::error::Error;",
        ),
        ("sim/world.rs", "pub struct SimWorld; use crate::time;"),
    ];
    let mut files: Files = clean
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect();
    for (path, text) in changes {
        files.insert((*path).to_owned(), (*text).to_owned());
    }
    violations(&files)
}

#[test]
fn a_clean_crate_breaks_no_rule() {
    assert_eq!(planted(&[]), Vec::<String>::new());
}

#[test]
fn upward_imports_are_found_however_they_are_written() {
    for (text, import) in [
        ("use crate::sim::SimWorld;", "sim::SimWorld"),
        (
            "use crate::{time::{self}, sim::{SimWorld as W}};",
            "sim::SimWorld",
        ),
        ("use crate::SimWorld;", "SimWorld"),
        ("use super::sim::world;", "sim::world"),
        ("pub use super::sim::world;", "sim::world"),
        ("pub(crate) use crate::sim as s;", "sim"),
        ("fn f() { crate::sim::world::now() }", "sim::world::now"),
        ("impl Drop for crate::SimWorld {}", "SimWorld"),
        (
            "mod inner { use super::super::sim::SimWorld; }",
            "sim::SimWorld",
        ),
        (
            "const S: &str = \"{ //\"; const Q: char = '\"'; use crate::sim::*;",
            "sim::*",
        ),
        (
            "#[cfg(test)] mod tests { fn f() {} } use crate::sim::X;",
            "sim::X",
        ),
    ] {
        let found = planted(&[("error.rs", &format!("pub struct Error; {text}"))]);
        let line = format!("error.rs (Base) imports {import} (Simulator)");
        assert!(found.contains(&line), "{text}: {found:?}");
    }
}

#[test]
fn an_exception_that_is_not_needed_is_found() {
    let found = planted(&[("providers.rs", "use crate::time::TokioTimeProvider;")]);
    assert!(!found.iter().any(|line| line.contains("time/tokio")));
    assert!(
        found.contains(&"the exception for providers.rs and task/tokio is not needed".to_owned())
    );
}

#[test]
fn the_peer_and_the_simulator_do_not_see_each_other() {
    let found = planted(&[("network/peer/mod.rs", "use crate::sim::SimWorld;")]);
    assert!(found[0].contains("(Peer) imports sim::SimWorld (Simulator)"));
    let found = planted(&[("network/peer/mod.rs", "fn f(p: other::SimProviders) {}")]);
    assert_eq!(found, ["network/peer/mod.rs (Peer) names SimProviders"]);
    let found = planted(&[("sim/world.rs", "use crate::network::peer::Peer;")]);
    assert_eq!(
        found,
        ["sim/world.rs (Simulator) imports network::peer::Peer (Peer)"]
    );
}

#[test]
fn simulator_files_without_the_feature_gate_are_found() {
    let root = "mod error; pub mod network; mod sim; mod time;";
    let found = planted(&[("lib.rs", root)]);
    assert!(
        found.contains(&"sim/world.rs is compiled without the feature sim".to_owned()),
        "{found:?}"
    );
    let found = planted(&[("sim/stray.rs", ""), ("unknown.rs", "")]);
    assert_eq!(
        found,
        [
            "sim/stray.rs is in no module",
            "unknown.rs is in no module",
            "unknown.rs has no layer"
        ]
    );
}

#[test]
fn long_files_are_found_and_their_tests_do_not_count() {
    let long = "// a line\n".repeat(MAX_LINES + 1);
    let found = planted(&[("error.rs", &long)]);
    assert_eq!(found, ["error.rs has 601 lines"]);
    let tested = format!("{}#[cfg(test)]\nmod tests {{\n{long}}}\n", "\n".repeat(590));
    assert_eq!(planted(&[("error.rs", &tested)]), Vec::<String>::new());
}
