//! [`Recycle`]: a container's memory without what was in it. Pure.

use std::collections::VecDeque;

/// What one container may keep: the thread of a test with a million tasks does not hold their
/// memory for ever.
const MAX_BYTES: usize = 64 << 10;

/// Can be had anew in the memory that it has.
pub(super) trait Recycle {
    /// As a new one is but for its capacity, which nothing depends on. What it held is dropped.
    fn recycled(&mut self) -> Self;
}

/// Recycles a struct: these of its fields keep their memory, the others are as `$new` has them.
macro_rules! recycle {
    ($recycled:ty { $($field:ident),+ } $new:expr) => {
        impl Recycle for $recycled {
            fn recycled(&mut self) -> Self {
                Self {
                    $($field: self.$field.recycled(),)+
                    ..$new
                }
            }
        }
    };
}
pub(super) use recycle;

impl<T> Recycle for Vec<T> {
    fn recycled(&mut self) -> Self {
        let mut kept = std::mem::take(self);
        kept.clear();
        if kept.capacity() * size_of::<T>() > MAX_BYTES {
            return Self::new();
        }
        kept
    }
}

impl<T> Recycle for VecDeque<T> {
    fn recycled(&mut self) -> Self {
        let mut kept = std::mem::take(self);
        kept.clear();
        if kept.capacity() * size_of::<T>() > MAX_BYTES {
            return Self::new();
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_large_world_is_not_kept() {
        let mut many = vec![0_u64; MAX_BYTES / 8];
        assert!(many.recycled().capacity() >= MAX_BYTES / 8);
        let mut too_many = vec![0_u64; MAX_BYTES / 8 + 1];
        assert_eq!(too_many.recycled().capacity(), 0);
        let mut queue: VecDeque<_> = std::iter::repeat_n(0_u64, 2 * MAX_BYTES).collect();
        assert_eq!(queue.recycled().capacity(), 0);
    }
}
