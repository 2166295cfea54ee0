//! [`StateRegistry`]: what processes say of themselves, for invariants that look at all of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Value;

/// The named states of one run, in the order of their names.
pub type States = BTreeMap<String, Value>;

/// Named JSON states that all workloads and processes of one run share, and that its
/// [invariants](super::InvariantCheck) look at. Every seed has one of its own, in
/// [`WorkloadTopology::state_registry`](crate::WorkloadTopology::state_registry). Clones are handles
/// to the same.
///
/// It is no part of the simulated system: a state is seen by everybody at once, over partitions and
/// beyond the death of the process that published it. Nothing that is under test should read it.
///
/// ```
/// use moonpool_foundation::{InvariantCheck, SimulationBuilder, SimulationMetrics};
/// use serde_json::json;
///
/// let conserved = InvariantCheck::new("money is conserved", |states, _time_ms| {
///     let total: i64 = states.values().filter_map(|state| state["balance"].as_i64()).sum();
///     if total == 100 { Ok(()) } else { Err(format!("there are {total}")) }
/// });
/// let report = SimulationBuilder::new()
///     .set_iterations(3)
///     .register_workload("bank", |_random, _network, _time, _task, topology| async move {
///         topology.state_registry.register_state("vault", json!({ "balance": 100 }));
///         Ok(SimulationMetrics::default())
///     })
///     .with_invariants(vec![conserved])
///     .run();
/// report.assert_passed();
/// ```
#[derive(Clone, Default)]
pub struct StateRegistry(Rc<Inner>);

#[derive(Default)]
struct Inner {
    states: RefCell<States>,
    /// Set by a change, cleared when invariants are about to look.
    is_changed: Cell<bool>,
}

impl StateRegistry {
    /// One without states.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the state `name` is `state` now. What it was is replaced.
    pub fn register_state(&self, name: impl Into<String>, state: impl Into<Value>) {
        let (name, state) = (name.into(), state.into());
        self.0.states.borrow_mut().insert(name, state);
        self.0.is_changed.set(true);
    }

    /// [`register_state`](Self::register_state) for whatever serialises.
    ///
    /// # Errors
    /// What `Serialize` of the state gave; nothing is changed then.
    pub fn register(
        &self,
        name: impl Into<String>,
        state: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        let state = serde_json::to_value(state)?;
        self.register_state(name, state);
        Ok(())
    }

    /// Changes a state where it lies: a log that grows need not be copied for each entry. It begins
    /// as `null`. `change` must not call the registry.
    pub fn update_state<R>(&self, name: &str, change: impl FnOnce(&mut Value) -> R) -> R {
        self.0.is_changed.set(true);
        let mut states = self.0.states.borrow_mut();
        if let Some(state) = states.get_mut(name) {
            return change(state);
        }
        change(states.entry(name.to_owned()).or_default())
    }

    /// A copy of the state `name`, if there is one.
    #[must_use]
    pub fn get_state(&self, name: &str) -> Option<Value> {
        self.0.states.borrow().get(name).cloned()
    }

    /// A copy of all states. [`with_states`](Self::with_states) does without one.
    #[must_use]
    pub fn get_all_states(&self) -> States {
        self.0.states.borrow().clone()
    }

    /// Looks at all states where they lie. `look` must not change them.
    pub fn with_states<R>(&self, look: impl FnOnce(&States) -> R) -> R {
        look(&self.0.states.borrow())
    }

    /// Whether something changed since the last call.
    pub(crate) fn take_changed(&self) -> bool {
        self.0.is_changed.replace(false)
    }
}

impl fmt::Debug for StateRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.with_states(|states| states.keys().cloned().collect());
        f.debug_tuple("StateRegistry").field(&names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn states_are_registered_changed_and_read_back() {
        let registry = StateRegistry::new();
        registry.register_state("leader", json!({ "term": 1 }));
        registry.register("log", &vec![1, 2]).unwrap();
        registry.update_state("log", |log| {
            log.as_array_mut().map(|log| log.push(json!(3)))
        });
        registry.clone().register_state("leader", 7);
        assert_eq!(registry.get_state("leader"), Some(json!(7)));
        assert_eq!(registry.get_state("log"), Some(json!([1, 2, 3])));
        assert_eq!(registry.get_state("nobody"), None);
        let names: Vec<String> = registry.get_all_states().into_keys().collect();
        assert_eq!(names, ["leader", "log"]);
    }

    #[test]
    fn a_change_is_seen_once() {
        let registry = StateRegistry::new();
        assert!(!registry.take_changed());
        registry.register_state("a", 1);
        assert!(registry.take_changed());
        assert!(!registry.take_changed());
        registry.update_state("a", |_| ());
        assert!(registry.take_changed());
    }
}
