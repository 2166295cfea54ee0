//! [`SharedValues`]: what the workloads and processes of one run have in common.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Values that the workloads and processes of one run share, one of each type, and values that the
/// lives of one process share: see [`WorkloadTopology::shared`](super::WorkloadTopology::shared) and
/// [`WorkloadTopology::own`](super::WorkloadTopology::own).
#[derive(Clone, Default)]
pub(super) struct SharedValues(Rc<RefCell<Vec<Value>>>);

struct Value {
    id: TypeId,
    /// The address of the process whose own it is. `None` if it is everybody's.
    owner: Option<String>,
    value: Rc<dyn Any>,
}

impl SharedValues {
    /// The run's value of this type, or this owner's, made by the first who asks.
    pub(super) fn get<T: Default + 'static>(&self, owner: Option<&str>) -> Rc<T> {
        if let Some(known) = self.find(owner) {
            return known;
        }
        // Made without a borrow: a `default` may ask for other values, or for this one.
        let made = Rc::new(T::default());
        if let Some(known) = self.find(owner) {
            return known;
        }
        self.0.borrow_mut().push(Value {
            id: TypeId::of::<T>(),
            owner: owner.map(str::to_owned),
            value: made.clone(),
        });
        made
    }

    /// A linear search: runs have a few of these, and ask at their beginning.
    fn find<T: 'static>(&self, owner: Option<&str>) -> Option<Rc<T>> {
        let values = self.0.borrow();
        let known = values
            .iter()
            .find(|known| known.id == TypeId::of::<T>() && known.owner.as_deref() == owner)?;
        Rc::clone(&known.value).downcast().ok()
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
    fn there_is_one_value_of_each_type_and_owner() {
        let shared = SharedValues::default();
        shared.get::<Cell<u32>>(None).set(7);
        assert_eq!(shared.clone().get::<Cell<u32>>(None).get(), 7);
        assert_eq!(shared.get::<Cell<u64>>(None).get(), 0);
        assert_eq!(SharedValues::default().get::<Cell<u32>>(None).get(), 0);
        shared.get::<Cell<u32>>(Some("10.0.0.1")).set(8);
        assert_eq!(shared.get::<Cell<u32>>(Some("10.0.0.1")).get(), 8);
        assert_eq!(shared.get::<Cell<u32>>(Some("10.0.0.2")).get(), 0);
        assert_eq!(shared.get::<Cell<u32>>(None).get(), 7);
    }
}
