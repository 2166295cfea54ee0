//! Messaging between processes: static endpoints now, virtual actors on top of them later.

mod r#static;
pub mod r#virtual;

pub use r#static::*;
