//! The macros, in two versions: with the simulator they work, without it they are nothing. Which
//! version a crate gets is decided here, by this crate's feature, not where they are used.

/// States a guarantee: fails the seed with the verdict `AlwaysAssert` if `condition` does not hold.
///
/// `always_assert!(name, condition, message)`: the name is an identifier, unique for a reader; the
/// message is a format string with its arguments, or anything that can be displayed. How often each
/// assertion was checked and held stands in the report.
///
/// It is checked in simulated code alone. Elsewhere, and without the feature `sim`, neither condition
/// nor message is evaluated: use `assert!` for what production must not survive.
///
/// ```
/// use moonpool_foundation::{SimWorld, SimulationError, always_assert};
///
/// let balance = -3;
/// let failed = SimWorld::new().block_on(async move {
///     always_assert!(balance_is_not_negative, balance >= 0, "it is {balance}");
/// });
/// # #[cfg(feature = "sim")]
/// assert!(matches!(failed, Err(SimulationError::AlwaysAssert { .. })));
/// always_assert!(nobody_looks, balance >= 0, "outside a simulation nothing is checked");
/// ```
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! always_assert {
    ($name:ident, $condition:expr, $message:literal $(,)?) => {
        $crate::__always_assert!($name, $condition, $message, ::core::format_args!($message))
    };
    ($name:ident, $condition:expr, $format:literal, $($argument:tt)+) => {
        $crate::__always_assert!(
            $name, $condition, $format, ::core::format_args!($format, $($argument)+)
        )
    };
    ($name:ident, $condition:expr, $message:expr $(,)?) => {
        $crate::__always_assert!(
            $name, $condition, "", ::core::format_args!("{}", $message)
        )
    };
}

#[cfg(feature = "sim")]
#[doc(hidden)]
#[macro_export]
macro_rules! __always_assert {
    ($name:ident, $condition:expr, $text:literal, $message:expr) => {{
        static SITE: $crate::__private::AssertionSite =
            $crate::__assertion_site!(Always, $name, $text);
        $crate::__private::inventory::submit! { $crate::__private::RegisteredAssertion(&SITE) }
        if $crate::__private::is_simulated() {
            let held: bool = $condition;
            SITE.record(held);
            if !held {
                SITE.fail($message);
            }
        }
    }};
}

/// Says that something rare has to happen: `condition` must hold at least once in a campaign, over
/// all seeds.
///
/// `sometimes_assert!(name, condition, message)`, as [`always_assert!`](crate::always_assert) has it;
/// the message says what has happened when it holds. A site that no seed reached, or at which the
/// condition never held, is reported as missed. Sites are known without being reached: each registers
/// itself when it is compiled. Which sites a campaign requires says
/// `SimulationBuilder::coverage`.
///
/// ```
/// use moonpool_foundation::{
///     RandomProvider, SimulationBuilder, SimulationMetrics, sometimes_assert,
/// };
///
/// let report = SimulationBuilder::new()
///     .set_iterations(50)
///     .register_workload("dice", |random, _network, _time, _task, _topology| async move {
///         let rolled = random.random_range(1..=6);
///         sometimes_assert!(a_six_was_rolled, rolled == 6, "a six was rolled");
///         Ok(SimulationMetrics::default())
///     })
///     .run();
/// assert!(report.coverage_complete());
/// ```
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! sometimes_assert {
    ($name:ident, $condition:expr, $message:literal $(, $($argument:tt)*)?) => {
        $crate::__sometimes_assert!(
            $name, $condition, $message, ::core::format_args!($message $(, $($argument)*)?)
        )
    };
    ($name:ident, $condition:expr, $message:expr $(,)?) => {
        $crate::__sometimes_assert!($name, $condition, "", $message)
    };
}

#[cfg(feature = "sim")]
#[doc(hidden)]
#[macro_export]
macro_rules! __sometimes_assert {
    ($name:ident, $condition:expr, $text:literal, $message:expr) => {{
        static SITE: $crate::__private::AssertionSite =
            $crate::__assertion_site!(Sometimes, $name, $text);
        $crate::__private::inventory::submit! { $crate::__private::RegisteredAssertion(&SITE) }
        if $crate::__private::is_simulated() {
            let held: bool = $condition;
            SITE.record(held);
            if false {
                // Type-checked alone: nobody reads it while the assertion runs.
                let _ = $message;
            }
        }
    }};
}

#[cfg(feature = "sim")]
#[doc(hidden)]
#[macro_export]
macro_rules! __assertion_site {
    ($kind:ident, $name:ident, $text:literal) => {
        $crate::__private::AssertionSite::new(
            $crate::__private::AssertionKind::$kind,
            ::core::stringify!($name),
            $text,
            $crate::__place!(),
        )
    };
}

#[cfg(feature = "sim")]
#[doc(hidden)]
#[macro_export]
macro_rules! __place {
    () => {
        $crate::__private::Place {
            module: ::core::module_path!(),
            file: ::core::file!(),
            line: ::core::line!(),
            column: ::core::column!(),
        }
    };
}

/// True now and then, in simulated code: for what is rare in production and wants to be tried often.
///
/// A site (module, line and column) is active in one seed out of four, and an active one gives true
/// one time in four. What it gives depends on the seed, the site and how often it was asked before, on
/// no stream: a site that is added does not change what others give. Each firing is a fault of the
/// kind `buggify`, counted, shown and skippable like any other.
///
/// Outside a simulation, and without the feature `sim`, it is false at the cost of one branch.
///
/// ```
/// use moonpool_foundation::buggify;
///
/// fn queue_length() -> usize {
///     if buggify!() { 1 } else { 1024 }
/// }
/// assert_eq!(queue_length(), 1024, "there is no simulation here");
/// ```
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! buggify {
    () => {
        $crate::__buggify!(::core::option::Option::None)
    };
}

/// [`buggify!`](crate::buggify) with a probability of its own: an active site gives true with this
/// one, 0.0-1.0.
///
/// ```
/// use moonpool_foundation::buggify_with_prob;
///
/// let is_late = buggify_with_prob!(0.01);
/// assert!(!is_late, "there is no simulation here");
/// ```
#[cfg(feature = "sim")]
#[macro_export]
macro_rules! buggify_with_prob {
    ($probability:expr $(,)?) => {
        $crate::__buggify!(::core::option::Option::Some($probability))
    };
}

#[cfg(feature = "sim")]
#[doc(hidden)]
#[macro_export]
macro_rules! __buggify {
    ($probability:expr) => {{
        static SITE: $crate::__private::BuggifySite =
            $crate::__private::BuggifySite::new($crate::__place!());
        $crate::__private::inventory::submit! { $crate::__private::RegisteredBuggify(&SITE) }
        $crate::__private::is_buggified() && SITE.fires($probability)
    }};
}

/// Without the feature `sim`: nothing is evaluated, everything is type-checked.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! always_assert {
    ($name:ident, $condition:expr, $message:literal $(, $($argument:tt)*)?) => {
        $crate::__unevaluated!(
            $condition, ::core::format_args!($message $(, $($argument)*)?)
        )
    };
    ($name:ident, $condition:expr, $message:expr $(,)?) => {
        $crate::__unevaluated!($condition, ::core::format_args!("{}", $message))
    };
}

/// Without the feature `sim`: nothing is evaluated, everything is type-checked.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! sometimes_assert {
    ($name:ident, $condition:expr, $message:literal $(, $($argument:tt)*)?) => {
        $crate::__unevaluated!(
            $condition, ::core::format_args!($message $(, $($argument)*)?)
        )
    };
    ($name:ident, $condition:expr, $message:expr $(,)?) => {
        $crate::__unevaluated!($condition, $message)
    };
}

#[cfg(not(feature = "sim"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __unevaluated {
    ($condition:expr, $message:expr) => {{
        if false {
            let _: bool = $condition;
            let _ = $message;
        }
    }};
}

/// Without the feature `sim`: always false.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! buggify {
    () => {
        $crate::__private::never()
    };
}

/// Without the feature `sim`: always false. The probability is type-checked, and not evaluated.
#[cfg(not(feature = "sim"))]
#[macro_export]
macro_rules! buggify_with_prob {
    ($probability:expr $(,)?) => {{
        if false {
            let _: f64 = $probability;
        }
        $crate::__private::never()
    }};
}

/// What `buggify!` gives. A call, since a literal would make lints find branches that are never taken.
#[cfg(not(feature = "sim"))]
#[doc(hidden)]
#[inline(always)]
pub fn never() -> bool {
    false
}
