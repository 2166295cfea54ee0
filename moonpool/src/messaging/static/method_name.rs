//! [`MethodName`].

/// The names that `define_interface!` gave a method: for people, logs and metrics. They do not
/// travel; the other end may know the method by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct MethodName {
    /// The interface's.
    pub interface: &'static str,
    /// The method's.
    pub method: &'static str,
}

impl MethodName {
    /// For `define_interface!` alone.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(interface: &'static str, method: &'static str) -> Self {
        Self { interface, method }
    }
}
