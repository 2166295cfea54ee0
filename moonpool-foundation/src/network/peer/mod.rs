//! One logical connection to one address, kept alive.
