//! The version in the table is that of the crate that was built.

fn main() {
    let manifest = "../../../Cargo.toml";
    println!("cargo::rerun-if-changed={manifest}");
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let version = text.lines().find_map(|line| {
        let quoted = line.strip_prefix("version = \"")?;
        quoted.strip_suffix('"')
    });
    let version = version.unwrap_or("unknown");
    println!("cargo::rustc-env=MOONPOOL_VERSION={version}");
}
