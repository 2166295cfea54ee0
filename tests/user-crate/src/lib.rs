//! A service that uses the macros, in a crate that forbids unsafe code and knows no feature `sim`.
#![forbid(unsafe_code)]

use std::cell::Cell;

use moonpool::{always_assert, buggify, buggify_with_prob, sometimes_assert};

/// Counts how often an argument of a macro was evaluated.
#[derive(Debug, Default)]
pub struct Evaluations(Cell<u32>);

impl Evaluations {
    /// Counts, and gives `value`.
    pub fn of<T>(&self, value: T) -> T {
        self.0.set(self.0.get() + 1);
        value
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.get()
    }
}

/// Uses every macro in every form, and gives how many of the seven arguments were evaluated.
#[must_use]
pub fn use_everything() -> u32 {
    let evaluations = Evaluations::default();
    let seen = &evaluations;
    always_assert!(user_always, seen.of(true), "a literal");
    always_assert!(
        user_always_format,
        seen.of(true),
        "{} formatted",
        seen.of(1)
    );
    always_assert!(
        user_always_display,
        seen.of(true),
        String::from("displayed")
    );
    sometimes_assert!(user_sometimes, seen.of(true), "a literal");
    sometimes_assert!(
        user_sometimes_expression,
        seen.of(true),
        seen.of("an expression")
    );
    let _ = buggify!();
    let _ = buggify_with_prob!(seen.of(0.5));
    evaluations.count()
}

/// Nobody calls this. Its site is known all the same.
pub fn never_called() {
    sometimes_assert!(user_unreached, true, "somebody called it");
}
#[cfg(doctest)]
mod skills {
    //! The snippets of the skills, compiled as a user's code is.
    macro_rules! compiled {
        ($($name:ident: $path:literal,)+) => {
            $(#[doc = include_str!(concat!("../../../.claude/skills/", $path))] struct $name;)+
        };
    }
    compiled! {
        ReadMe: "README.md",
        Workloads: "designing-simulation-workloads/SKILL.md",
        Buggify: "using-buggify/SKILL.md",
        Assertions: "using-chaos-assertions/SKILL.md",
        Invariants: "validating-with-invariants/SKILL.md",
    }

    #[doc = include_str!("../../../docs/observability.md")]
    struct Observability;
}
