//! The file of seeds that failed: kept beside the test, committed with it, run first next time.
//!
//! It is text. Empty lines and lines that begin with `#` say nothing; every other line is
//!
//! ```text
//! <test> <seed> <configuration> <verdict>
//! ```
//!
//! with the name of the test as its runner prints it, the seed, sixteen hexadecimal digits that tell
//! one configuration of the campaign from another, and the name of the verdict, for whoever reads it.
//! A line counts for the campaign of that test with that configuration: a seed means something only
//! together with what it was drawn for. Lines are removed by hand.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::error::RunError;

/// Where seeds that failed are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Regressions {
    /// Beside the source file that runs the campaign, under its name with the extension
    /// `moonpool-regressions`, if it is run by a test and the file is there.
    #[default]
    BesideSource,
    /// In this file.
    File(PathBuf),
    /// Nowhere; none is run either. For tests that plant a defect and want it found.
    Off,
}

/// Seeds that a file keeps at most; further ones are not added.
const MAX_SEEDS: usize = 256;
/// Bytes of a file that is read.
const MAX_BYTES: u64 = 1 << 20;

const HEADER: &str = "\
# Seeds that failed, one line each: test, seed, configuration, verdict. Found by moonpool.
# Commit this file: its seeds run before all others. Remove a line once it says nothing any more.
";

/// The lines of one campaign in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RegressionFile {
    path: PathBuf,
    test: String,
    /// Of the configuration.
    fingerprint: u64,
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line<'a> {
    test: &'a str,
    seed: u64,
    fingerprint: u64,
}

impl RegressionFile {
    pub(super) fn new(path: PathBuf, test: &str, fingerprint: u64) -> Self {
        Self {
            path,
            test: test.to_owned(),
            fingerprint,
        }
    }

    /// The file beside `source`, a path as the compiler knows it: from the workspace's root, which is
    /// `manifest_dir` or above it. `None` if there is no such source file, as when the tests run on
    /// another machine than they were built on.
    pub(super) fn beside(source: &Path, manifest_dir: &Path) -> Option<PathBuf> {
        let found = manifest_dir.ancestors().map(|root| root.join(source));
        let source = found.into_iter().find(|path| path.is_file())?;
        Some(source.with_extension("moonpool-regressions"))
    }

    /// The seeds that were kept, in the order they were found.
    ///
    /// # Errors
    /// [`RunError::Regressions`] for the first line that is none. A file that cannot be read is no
    /// error: a warning is printed.
    pub(super) fn seeds(&self) -> Result<Vec<u64>, RunError> {
        let text = match self.read() {
            Ok(text) => text,
            Err(error) => {
                eprintln!("warning: cannot read {}: {error}", self.path.display());
                return Ok(Vec::new());
            }
        };
        let lines = self.parse(&text)?;
        let mine = lines.iter().filter(|line| self.is_mine(line));
        Ok(mine.map(|line| line.seed).collect())
    }

    fn read(&self) -> io::Result<String> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Ok(file) if file.len() > MAX_BYTES => {
                return Err(io::Error::other(format!(
                    "it has more than {MAX_BYTES} bytes"
                )));
            }
            _ => {}
        }
        std::fs::read_to_string(&self.path)
    }

    fn parse<'a>(&self, text: &'a str) -> Result<Vec<Line<'a>>, RunError> {
        let mut lines = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match Line::parse(text) {
                Ok(line) => lines.push(line),
                Err(reason) => {
                    return Err(RunError::Regressions {
                        file: self.path.clone(),
                        line: index + 1,
                        reason,
                    });
                }
            }
        }
        Ok(lines)
    }

    fn is_mine(&self, line: &Line<'_>) -> bool {
        line.test == self.test && line.fingerprint == self.fingerprint
    }

    /// Adds a seed, unless it is there already or the file is full. True if it is new.
    fn add(&self, seed: u64, verdict: &str) -> io::Result<bool> {
        let text = self.read()?;
        let lines = self.parse(&text).map_err(io::Error::other)?;
        let known = lines
            .iter()
            .any(|line| self.is_mine(line) && line.seed == seed);
        if known || lines.len() >= MAX_SEEDS {
            return Ok(false);
        }
        // One write, so that tests that run side by side do not mix their lines.
        let mut addition = String::new();
        if text.is_empty() {
            addition.push_str(HEADER);
        } else if !text.ends_with('\n') {
            addition.push('\n');
        }
        let (test, fingerprint) = (&self.test, self.fingerprint);
        addition.push_str(&format!("{test} {seed} {fingerprint:016x} {verdict}\n"));
        let file: io::Result<File> = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.path);
        file?.write_all(addition.as_bytes())?;
        Ok(true)
    }
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let mut words = text.split_whitespace();
        let (Some(test), Some(seed), Some(fingerprint), Some(_verdict), None) = (
            words.next(),
            words.next(),
            words.next(),
            words.next(),
            words.next(),
        ) else {
            return Err("a line is test, seed, configuration and verdict, parted by spaces");
        };
        let Ok(seed) = seed.parse() else {
            return Err("the second word is no seed: a number from 0 to 18446744073709551615");
        };
        let fingerprint = match u64::from_str_radix(fingerprint, 16) {
            Ok(number) if fingerprint.len() == 16 => number,
            _ => return Err("the third word is not sixteen hexadecimal digits"),
        };
        Ok(Self {
            test,
            seed,
            fingerprint,
        })
    }
}

/// Keeps the first failing seed of a report if the test fails, which shows when the report is dropped
/// by its panic. A seed whose failure the test expects is no regression, and leaves no file behind.
#[derive(Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<Option<Finding>>>);

struct Finding {
    file: RegressionFile,
    seed: u64,
    verdict: &'static str,
    replay: String,
}

impl Recorder {
    pub(super) fn new(
        file: RegressionFile,
        seed: u64,
        verdict: &'static str,
        replay: String,
    ) -> Self {
        Self(Arc::new(Mutex::new(Some(Finding {
            file,
            seed,
            verdict,
            replay,
        }))))
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let finding = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(finding) = finding else {
            return;
        };
        let path = finding.file.path.display();
        match finding.file.add(finding.seed, finding.verdict) {
            Ok(false) => {}
            Ok(true) => eprintln!(
                "seed {} was added to {path}: commit it, and the seed runs first from now on\n\
                 replay         {}",
                finding.seed, finding.replay
            ),
            Err(error) => eprintln!("warning: cannot add a seed to {path}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> RegressionFile {
        let path = std::env::temp_dir().join(format!("moonpool-{}-{name}", std::process::id()));
        drop(std::fs::remove_file(&path));
        RegressionFile::new(path, "orders::survive", 0xab)
    }

    #[test]
    fn seeds_are_kept_once_in_the_order_they_were_found() {
        let kept = file("kept");
        assert_eq!(kept.seeds(), Ok(vec![]));
        for (seed, is_new) in [(7, true), (3, true), (7, false)] {
            assert_eq!(kept.add(seed, "Deadlock").ok(), Some(is_new));
        }
        assert_eq!(kept.seeds(), Ok(vec![7, 3]));
        let text = std::fs::read_to_string(&kept.path).unwrap();
        assert!(text.starts_with(HEADER), "{text}");
        assert!(
            text.ends_with("orders::survive 3 00000000000000ab Deadlock\n"),
            "{text}"
        );
        std::fs::remove_file(&kept.path).unwrap();
    }

    #[test]
    fn another_test_and_another_configuration_have_seeds_of_their_own() {
        let mine = file("own");
        mine.add(7, "Panic").unwrap();
        let other_test = RegressionFile::new(mine.path.clone(), "orders::other", 0xab);
        let other_configuration = RegressionFile::new(mine.path.clone(), "orders::survive", 0xac);
        assert_eq!(other_test.seeds(), Ok(vec![]));
        assert_eq!(other_configuration.seeds(), Ok(vec![]));
        other_test.add(7, "Panic").unwrap();
        assert_eq!(mine.seeds(), Ok(vec![7]));
        std::fs::remove_file(&mine.path).unwrap();
    }

    #[test]
    fn a_full_file_stays_as_it_is() {
        let full = file("full");
        for seed in 0..u64::try_from(MAX_SEEDS).unwrap() {
            full.add(seed, "Panic").unwrap();
        }
        assert_eq!(full.add(9999, "Panic").ok(), Some(false));
        assert_eq!(full.seeds().unwrap().len(), MAX_SEEDS);
        std::fs::remove_file(&full.path).unwrap();
    }

    #[test]
    fn a_line_that_is_none_is_told_with_file_and_line() {
        let bad = file("bad");
        for (line, reason) in [
            ("orders::survive 7", "a line is test, seed"),
            ("orders::survive x 00000000000000ab Panic", "no seed"),
            ("orders::survive 7 ab Panic", "sixteen hexadecimal digits"),
        ] {
            std::fs::write(&bad.path, format!("# a comment\n\n{line}\n")).unwrap();
            let error = bad.seeds().unwrap_err().to_string();
            let place = format!("{}:3: ", bad.path.display());
            assert!(error.contains(&place) && error.contains(reason), "{error}");
        }
        std::fs::remove_file(&bad.path).unwrap();
    }

    #[test]
    fn the_file_stands_beside_the_source_wherever_the_workspace_begins() {
        let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let from_package = Path::new("src/runner/regressions.rs");
        let beside = manifest_dir.join("src/runner/regressions.moonpool-regressions");
        assert_eq!(
            RegressionFile::beside(from_package, manifest_dir),
            Some(beside)
        );
        let here = Path::new(file!());
        assert!(RegressionFile::beside(here, manifest_dir).is_some());
        let elsewhere = Path::new("src/of/another/machine.rs");
        assert_eq!(RegressionFile::beside(elsewhere, manifest_dir), None);
    }
}
