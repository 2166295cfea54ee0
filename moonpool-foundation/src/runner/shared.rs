//! [`SharedValues`]: what the workloads and processes of one run have in common.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Values that the workloads and processes of one run share, one of each type: see
/// [`WorkloadTopology::shared`](super::WorkloadTopology::shared).
#[derive(Clone, Default)]
pub(super) struct SharedValues(Rc<RefCell<Vec<Value>>>);

type Value = (TypeId, Rc<dyn Any>);

impl SharedValues {
    /// The run's value of this type, made by the first who asks.
    pub(super) fn get<T: Default + 'static>(&self) -> Rc<T> {
        if let Some(known) = self.find() {
            return known;
        }
        // Made without a borrow: a `default` may ask for other values, or for this one.
        let made = Rc::new(T::default());
        if let Some(known) = self.find() {
            return known;
        }
        let value: Rc<dyn Any> = made.clone();
        self.0.borrow_mut().push((TypeId::of::<T>(), value));
        made
    }

    /// A linear search: runs have a few of these, and ask at their beginning.
    fn find<T: 'static>(&self) -> Option<Rc<T>> {
        let values = self.0.borrow();
        let (_, value) = values.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        Rc::clone(value).downcast().ok()
    }
}

impl fmt::Debug for SharedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedValues")
            .field("values", &self.0.borrow().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn there_is_one_value_of_each_type() {
        let shared = SharedValues::default();
        shared.get::<Cell<u32>>().set(7);
        assert_eq!(shared.clone().get::<Cell<u32>>().get(), 7);
        assert_eq!(shared.get::<Cell<u64>>().get(), 0);
        assert_eq!(SharedValues::default().get::<Cell<u32>>().get(), 0);
    }
}
