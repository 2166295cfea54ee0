//! The command that replays a seed, for whoever runs the tests: `cargo test`, `cargo nextest run`,
//! or nobody.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::environment::SKIP_FAULTS;
use crate::chaos::FaultId;

/// How this process was started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// The package that cargo runs.
    pub(super) package: Option<String>,
    /// Whether nextest started this process.
    pub(super) nextest: bool,
    /// The name of the thread that runs the campaign: libtest names threads after tests.
    pub(super) thread: Option<String>,
    pub(super) executable: PathBuf,
    /// Without the executable.
    pub(super) arguments: Vec<String>,
}

impl Invocation {
    /// How the current process was started; called on the thread that runs the campaign.
    pub(super) fn current(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |variable| Some(lookup(variable)?.to_string_lossy().into_owned());
        Self {
            package: text("CARGO_PKG_NAME"),
            nextest: text("NEXTEST").is_some_and(|value| value == "1"),
            thread: std::thread::current().name().map(str::to_owned),
            executable: std::env::current_exe().unwrap_or_default(),
            arguments: std::env::args_os()
                .skip(1)
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
        }
    }

    /// The test that runs the campaign, if it is one.
    pub(super) fn test_name(&self) -> Option<&str> {
        if !self.is_test_binary() {
            return None;
        }
        match self.thread.as_deref() {
            Some(name) if name != "main" => Some(name),
            // With one test thread libtest runs tests on the main thread.
            _ => self.exact_argument(),
        }
    }

    /// Cargo puts test binaries into `deps`, and programs above it.
    fn is_test_binary(&self) -> bool {
        let directory = self.executable.parent().and_then(Path::file_name);
        self.nextest || directory.is_some_and(|directory| directory == "deps")
    }

    /// The name given with `--exact`: the one argument that is neither an option nor its value.
    fn exact_argument(&self) -> Option<&str> {
        let mut arguments = self.arguments.iter().map(String::as_str);
        let mut exact = false;
        let mut name = None;
        while let Some(argument) = arguments.next() {
            match argument {
                "--exact" => exact = true,
                "--test-threads" | "--skip" | "--format" | "--color" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                option if option.starts_with('-') => {}
                filter => name = Some(filter),
            }
        }
        name.filter(|_| exact)
    }

    /// What selects the profile this was built with, by the name of its directory.
    fn profile(&self, custom: &str) -> String {
        let directory = self.executable.parent().and_then(Path::parent);
        match directory.and_then(Path::file_name).and_then(|n| n.to_str()) {
            Some("release") => " --release".to_owned(),
            None | Some("debug") => String::new(),
            Some(other) => format!(" {custom} {other}"),
        }
    }

    /// One line for a shell that runs `seed` without the faults in `skipped`, and nothing else.
    pub(super) fn replay_command(&self, seed: u64, skipped: &BTreeSet<FaultId>) -> String {
        let mut command = format!("MOONPOOL_SEED={seed} ");
        if !skipped.is_empty() {
            let faults: Vec<String> = skipped.iter().map(ToString::to_string).collect();
            let faults = quoted(&faults.join(","));
            command.push_str(&format!("{SKIP_FAULTS}={faults} "));
        }
        command + &self.run_command()
    }

    fn run_command(&self) -> String {
        let package = match &self.package {
            Some(package) => format!(" -p {package}"),
            None => String::new(),
        };
        let Some(name) = self.test_name() else {
            let mut command = quoted(&self.executable.to_string_lossy());
            for argument in &self.arguments {
                command.push(' ');
                command.push_str(&quoted(argument));
            }
            return command;
        };
        if self.nextest {
            let profile = self.profile("--cargo-profile");
            format!(
                "cargo nextest run{package}{profile} -E {} --no-capture",
                quoted(&format!("test(={name})"))
            )
        } else {
            let profile = self.profile("--profile");
            format!(
                "cargo test{package}{profile} {} -- --exact --nocapture",
                quoted(name)
            )
        }
    }
}

/// `text` as one word for a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cargo_test() -> Invocation {
        Invocation {
            package: Some("my-service".into()),
            nextest: false,
            thread: Some("orders::survive_a_crash".into()),
            executable: "/home/me/target/debug/deps/orders-0123456789abcdef".into(),
            arguments: Vec::new(),
        }
    }

    #[test]
    fn under_cargo_test_the_command_runs_that_test_alone() {
        assert_eq!(
            cargo_test().replay_command(17, &BTreeSet::new()),
            "MOONPOOL_SEED=17 cargo test -p my-service orders::survive_a_crash -- --exact --nocapture"
        );
    }

    #[test]
    fn skipped_faults_are_skipped_again() {
        let skipped = ["cut#2", "partial-write#1"].map(|fault| fault.parse().unwrap());
        assert_eq!(
            cargo_test().replay_command(17, &skipped.into()),
            "MOONPOOL_SEED=17 MOONPOOL_SKIP_FAULTS='partial-write#1,cut#2' cargo test -p my-service \
             orders::survive_a_crash -- --exact --nocapture"
        );
    }

    #[test]
    fn the_profile_is_that_of_the_run() {
        let mut invocation = cargo_test();
        invocation.executable = "/t/release/deps/orders-0123456789abcdef".into();
        assert_eq!(
            invocation.replay_command(17, &BTreeSet::new()),
            "MOONPOOL_SEED=17 cargo test -p my-service --release orders::survive_a_crash \
             -- --exact --nocapture"
        );
        invocation.executable = "/t/bench/deps/orders-0123456789abcdef".into();
        invocation.nextest = true;
        assert_eq!(
            invocation.replay_command(17, &BTreeSet::new()),
            "MOONPOOL_SEED=17 cargo nextest run -p my-service --cargo-profile bench \
             -E 'test(=orders::survive_a_crash)' --no-capture"
        );
    }

    #[test]
    fn under_nextest_the_command_is_nextests() {
        let mut invocation = cargo_test();
        invocation.nextest = true;
        assert_eq!(
            invocation.replay_command(17, &BTreeSet::new()),
            "MOONPOOL_SEED=17 cargo nextest run -p my-service \
             -E 'test(=orders::survive_a_crash)' --no-capture"
        );
    }

    #[test]
    fn on_the_main_thread_the_test_is_the_one_named_exactly() {
        let mut invocation = cargo_test();
        invocation.thread = Some("main".into());
        invocation.arguments = ["--test-threads", "1", "--exact", "a::b", "--nocapture"]
            .map(str::to_owned)
            .into();
        assert_eq!(invocation.test_name(), Some("a::b"));
        invocation.arguments = ["a::b", "--test-threads=1"].map(str::to_owned).into();
        assert_eq!(invocation.test_name(), None);
    }

    #[test]
    fn outside_tests_the_command_is_the_program_with_its_arguments() {
        let mut invocation = cargo_test();
        invocation.thread = Some("main".into());
        invocation.executable = "/my target/release/examples/soak".into();
        invocation.arguments = vec!["--nodes".into(), "10".into(), "it's".into()];
        assert_eq!(
            invocation.replay_command(3, &BTreeSet::new()),
            r"MOONPOOL_SEED=3 '/my target/release/examples/soak' --nodes 10 'it'\''s'"
        );
    }
}
