//! The place of virtual actors. Nothing is here yet.
//!
//! Planned, on top of the static endpoints and without changes to them: actors in the manner of
//! Orleans' grains, addressed by identity instead of by endpoint. A directory says where an actor
//! is active; the first message to it activates it, on a process that a placement policy chooses; at
//! most one activation exists at a time, whatever fails; one that is idle is deactivated.
