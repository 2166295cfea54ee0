//! The macros without the simulator: type-checked, and nothing else.
#![cfg(not(feature = "simulation"))]
#![forbid(unsafe_code)]

use moonpool::{always_assert, buggify, buggify_with_prob, sometimes_assert};
use moonpool_user_crate::{Evaluations, use_everything};

#[test]
fn no_argument_is_evaluated() {
    assert_eq!(use_everything(), 0);
    let evaluations = Evaluations::default();
    always_assert!(broken, evaluations.of(false), "nobody looks");
    sometimes_assert!(missed, evaluations.of(false), "nobody looks");
    assert_eq!(evaluations.count(), 0);
}

#[test]
fn buggify_is_false() {
    assert!(!buggify!());
    assert!(!buggify_with_prob!(1.0));
}
