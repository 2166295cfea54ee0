//! What the environment says about a run: which seeds, how many at once, how closely checked.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::error::RunError;
use super::plan::Shard;
use crate::chaos::FaultId;

/// Which seeds are run twice, to see whether anything but the seed decides.
///
/// Second runs add nothing to counts and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Check {
    /// Every seed.
    All,
    /// Each failing seed; of the passing ones every sixteenth of the first hundred, and every hundredth
    /// after that.
    #[default]
    Sampled,
    /// None.
    Off,
}

impl Check {
    /// Whether the seed at `position` runs twice.
    pub(super) fn covers(self, position: usize, passed: bool) -> bool {
        match self {
            Self::All => true,
            // One look may miss what differs half of the time: a branch that is drawn anew.
            Self::Sampled if position < SAMPLED_EVERY => {
                !passed || position.is_multiple_of(SAMPLED_FIRST)
            }
            Self::Sampled => !passed || position.is_multiple_of(SAMPLED_EVERY),
            Self::Off => false,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Sampled => "sampled",
            Self::Off => "off",
        }
    }
}

const SAMPLED_EVERY: usize = 100;
/// Of the first of those.
const SAMPLED_FIRST: usize = 16;

/// The variables that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) seeds: Option<Vec<u64>>,
    pub(super) iterations: Option<NonZeroUsize>,
    pub(super) time_limit: Option<Duration>,
    pub(super) jobs: Option<NonZeroUsize>,
    pub(super) shard: Option<Shard>,
    pub(super) skip_faults: Option<BTreeSet<FaultId>>,
    pub(super) check: Option<Check>,
    /// Whether faults that the first failure does not need are looked for.
    pub(super) minimize: bool,
    /// Where the steps of failing seeds, and of those that `MOONPOOL_SEED` names, are written.
    pub(super) trace: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables through `lookup`. One that is set to nothing counts as not set.
    pub(super) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, RunError> {
        let read = |variable| -> Option<String> {
            let value = lookup(variable)?.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        Ok(Self {
            seeds: parse(SEED, read(SEED.0), seeds)?,
            iterations: parse(ITERATIONS, read(ITERATIONS.0), |text| text.parse().ok())?,
            time_limit: parse(TIME_LIMIT, read(TIME_LIMIT.0), duration)?,
            jobs: parse(JOBS, read(JOBS.0), |text| text.parse().ok())?,
            shard: parse(SHARD, read(SHARD.0), shard)?,
            skip_faults: read(SKIP_FAULTS).map(faults).transpose()?,
            check: parse(CHECK, read(CHECK.0), check)?,
            minimize: parse(MINIMIZE, read(MINIMIZE.0), switch)?.unwrap_or(false),
            // Any text can be a directory; whether it can be written to is tried before the first seed.
            trace: lookup(TRACE)
                .filter(|dir| !dir.is_empty())
                .map(PathBuf::from),
        })
    }
}

/// A variable and what it takes.
type Variable = (&'static str, &'static str);

const SEED: Variable = (
    "MOONPOOL_SEED",
    "one seed or several separated by commas, each a number from 0 to 18446744073709551615",
);
const ITERATIONS: Variable = ("MOONPOOL_ITERATIONS", "a number of seeds, at least 1");
const JOBS: Variable = (
    "MOONPOOL_JOBS",
    "the number of seeds to run at once, at least 1",
);
const TIME_LIMIT: Variable = (
    "MOONPOOL_TIME_LIMIT",
    "seconds, or a whole number with `ms`, `s`, `m` or `h`: 90, 500ms, 10m; more than zero",
);
const SHARD: Variable = (
    "MOONPOOL_SHARD",
    "i/n, the i-th of n parts of the campaign, with i from 1 to n",
);
pub(super) const SKIP_FAULTS: &str = "MOONPOOL_SKIP_FAULTS";
const MINIMIZE: Variable = (
    "MOONPOOL_MINIMIZE",
    "`1`, to find the faults that the first failure needs, or `0`",
);
pub(super) const TRACE: &str = "MOONPOOL_TRACE";
const CHECK: Variable = ("MOONPOOL_CHECK", "`all`, `sampled` or `off`");

/// Whether `name` looks like a variable of ours and is none.
pub(super) fn is_unknown(name: &str) -> bool {
    let known = [
        SEED.0,
        ITERATIONS.0,
        TIME_LIMIT.0,
        JOBS.0,
        SHARD.0,
        SKIP_FAULTS,
        MINIMIZE.0,
        CHECK.0,
        TRACE,
    ];
    name.starts_with("MOONPOOL_") && !known.contains(&name)
}

fn parse<T>(
    (variable, expected): Variable,
    value: Option<String>,
    parser: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, RunError> {
    let Some(value) = value else {
        return Ok(None);
    };
    match parser(&value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(RunError::Environment {
            variable,
            value,
            expected: Cow::Borrowed(expected),
        }),
    }
}

/// A number of seconds, or one with its unit. Whole numbers: nobody needs more of a time limit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let duration = match unit.trim_start() {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    (!duration.is_zero()).then_some(duration)
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

fn shard(text: &str) -> Option<Shard> {
    let (number, count) = text.split_once('/')?;
    Shard::new(number.trim().parse().ok()?, count.trim().parse().ok()?)
}

/// Faults that are to be skipped. What is wrong with one is told with the variable.
fn faults(text: String) -> Result<BTreeSet<FaultId>, RunError> {
    let faults = text.split(',').map(|fault| fault.trim().parse());
    faults
        .collect::<Result<_, _>>()
        .map_err(|error| RunError::Environment {
            variable: SKIP_FAULTS,
            value: text.clone(),
            expected: format!(
                "faults as a failure prints them, kind#ordinal separated by commas ({error})"
            )
            .into(),
        })
}

fn seeds(text: &str) -> Option<Vec<u64>> {
    text.split(',')
        .map(|seed| seed.trim().parse().ok())
        .collect()
}

fn check(text: &str) -> Option<Check> {
    [Check::All, Check::Sampled, Check::Off]
        .into_iter()
        .find(|check| check.name() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, RunError> {
        Environment::read(|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn every_variable_is_read() {
        let environment = read(&[
            ("MOONPOOL_SEED", "17, 18446744073709551615"),
            ("MOONPOOL_ITERATIONS", "5"),
            ("MOONPOOL_TIME_LIMIT", "10m"),
            ("MOONPOOL_JOBS", "2"),
            ("MOONPOOL_SHARD", "2/3"),
            ("MOONPOOL_SKIP_FAULTS", "cut#3, partial-write#1"),
            ("MOONPOOL_CHECK", "all"),
            ("MOONPOOL_MINIMIZE", "1"),
            ("MOONPOOL_TRACE", "traces"),
        ]);
        assert_eq!(
            environment,
            Ok(Environment {
                seeds: Some(vec![17, u64::MAX]),
                iterations: NonZeroUsize::new(5),
                time_limit: Some(Duration::from_secs(600)),
                jobs: NonZeroUsize::new(2),
                shard: Shard::new(2, 3),
                skip_faults: Some(
                    ["cut#3", "partial-write#1"]
                        .map(|fault| fault.parse().unwrap())
                        .into()
                ),
                check: Some(Check::All),
                minimize: true,
                trace: Some("traces".into()),
            })
        );
    }

    #[test]
    fn a_slip_of_the_pen_is_noticed() {
        assert!(is_unknown("MOONPOOL_SEDE"));
        assert!(!is_unknown("MOONPOOL_SEED") && !is_unknown("PATH"));
    }

    #[test]
    fn nothing_set_changes_nothing() {
        assert_eq!(read(&[]), Ok(Environment::default()));
        assert_eq!(read(&[("MOONPOOL_SEED", " ")]), Ok(Environment::default()));
    }

    #[test]
    fn a_time_limit_has_a_unit_or_means_seconds() {
        let limit = |text| read(&[("MOONPOOL_TIME_LIMIT", text)]).map(|found| found.time_limit);
        assert_eq!(limit("90"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(limit("500ms"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(limit("2 h"), Ok(Some(Duration::from_secs(7200))));
        for bad in ["0", "s", "1.5s", "-3", "1d", "99999999999999999999h"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shard_is_one_of_its_number() {
        let shard = |text| read(&[("MOONPOOL_SHARD", text)]).map(|found| found.shard);
        assert_eq!(shard("3/3"), Ok(Shard::new(3, 3)));
        for bad in ["0/3", "4/3", "1", "1/0", "a/b", "1/2/3"] {
            assert!(shard(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_value_names_the_variable_and_what_it_takes() {
        let cases = [
            (
                "MOONPOOL_SEED",
                "seventeen",
                "MOONPOOL_SEED takes one seed or several separated by commas, each a number from 0 to 18446744073709551615, not `seventeen`",
            ),
            (
                "MOONPOOL_SEED",
                "1,,2",
                "MOONPOOL_SEED takes one seed or several separated by commas, each a number from 0 to 18446744073709551615, not `1,,2`",
            ),
            (
                "MOONPOOL_ITERATIONS",
                "0",
                "MOONPOOL_ITERATIONS takes a number of seeds, at least 1, not `0`",
            ),
            (
                "MOONPOOL_JOBS",
                "-1",
                "MOONPOOL_JOBS takes the number of seeds to run at once, at least 1, not `-1`",
            ),
            (
                "MOONPOOL_TIME_LIMIT",
                "soon",
                "MOONPOOL_TIME_LIMIT takes seconds, or a whole number with `ms`, `s`, `m` or `h`: 90, 500ms, 10m; more than zero, not `soon`",
            ),
            (
                "MOONPOOL_SHARD",
                "3/2",
                "MOONPOOL_SHARD takes i/n, the i-th of n parts of the campaign, with i from 1 to n, not `3/2`",
            ),
            (
                "MOONPOOL_SKIP_FAULTS",
                "cut#1,snow#2",
                "MOONPOOL_SKIP_FAULTS takes faults as a failure prints them, kind#ordinal separated by commas (there is no fault kind `snow`), not `cut#1,snow#2`",
            ),
            (
                "MOONPOOL_MINIMIZE",
                "yes",
                "MOONPOOL_MINIMIZE takes `1`, to find the faults that the first failure needs, or `0`, not `yes`",
            ),
            (
                "MOONPOOL_CHECK",
                "yes",
                "MOONPOOL_CHECK takes `all`, `sampled` or `off`, not `yes`",
            ),
        ];
        for (variable, value, text) in cases {
            let error = read(&[(variable, value)]).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn sampling_takes_failures_and_every_hundredth_and_some_of_the_first() {
        let twice: Vec<usize> = (0..250)
            .filter(|position| Check::Sampled.covers(*position, true))
            .collect();
        assert_eq!(twice, [0, 16, 32, 48, 64, 80, 96, 100, 200]);
        assert!(Check::Sampled.covers(7, false));
        assert!(Check::All.covers(7, true));
        assert!(!Check::Off.covers(0, false));
    }
}
