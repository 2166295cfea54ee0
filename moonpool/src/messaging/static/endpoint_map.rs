//! [`EndpointMap`]: from a packet's token to its receiver.
//!
//! Three kinds of token, three ways to look one up:
//!
//! - *well-known* tokens index an array, so that a process can be reached without asking anyone;
//! - tokens that a *user* chose (an interface id and a method's index) are in a hash map, and nearly all of
//!   them in a row of a short table as well;
//! - tokens that the map *allocates* index a generational slot table. Their upper half is random per
//!   map, so that a token from before a restart finds nothing.

use std::fmt;
use std::rc::Rc;

use moonpool_foundation::collections::HashMap;
use moonpool_foundation::{UID, WELL_KNOWN_RESERVED_COUNT, WellKnownId, sometimes_assert};

use super::receivers::MessageReceiver;
use super::slot_table::{SlotKey, SlotTable};

type Receiver = Rc<dyn MessageReceiver>;

/// Well-known ids below this one are moonpool's own.
pub(crate) const FIRST_USER_ID: u32 = 16;

/// The methods of an interface have tokens that follow each other, and so a row each.
const ROWS: usize = 16;

fn row_of(token: &UID) -> usize {
    let index = SlotKey::from_bits(token.first ^ token.second).index;
    index as usize % ROWS
}

/// Maps endpoint tokens to message receivers.
///
/// ```
/// use std::rc::Rc;
/// use moonpool::{EndpointMap, Incoming, MessageReceiver, WellKnownToken, UID};
///
/// struct Ignore;
/// impl MessageReceiver for Ignore {
///     fn receive(&self, _packet: Incoming<'_>) {}
/// }
///
/// let mut map = EndpointMap::new();
/// map.insert_well_known(WellKnownToken::Ping, Rc::new(Ignore));
/// let token = map.insert(Rc::new(Ignore));
/// assert!(map.get(&UID::well_known(WellKnownToken::Ping as u32)).is_some());
/// assert!(map.get(&token).is_some());
/// map.remove(&token);
/// assert!(map.get(&token).is_none());
/// ```
pub struct EndpointMap {
    well_known: [Option<Receiver>; WELL_KNOWN_RESERVED_COUNT],
    chosen: HashMap<UID, Receiver>,
    /// Of the chosen ones whose tokens have the same last bits, the one that came last.
    rows: [Option<(UID, Receiver)>; ROWS],
    allocated: SlotTable<Receiver>,
    /// The upper half of allocated tokens.
    nonce: u64,
}

/// A token that no receiver can be registered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// A well-known token outside the array. Use `WellKnownId::user`.
    #[error("{token} is beyond the {WELL_KNOWN_RESERVED_COUNT} well-known tokens")]
    NotWellKnown {
        /// The token.
        token: UID,
    },
    /// The token is in the range that the map allocates itself. Choose another upper half.
    #[error("{token} is in the range of allocated tokens")]
    Allocated {
        /// The token.
        token: UID,
    },
}

impl EndpointMap {
    /// An empty map whose allocated tokens have a random upper half.
    #[must_use]
    pub fn new() -> Self {
        Self::with_nonce(UID::random().first)
    }

    /// An empty map whose allocated tokens have `nonce` as their upper half: 64 random bits, drawn
    /// anew at each start of a process. (`u64::MAX`, which marks well-known tokens, counts as 1.)
    #[must_use]
    pub fn with_nonce(nonce: u64) -> Self {
        Self {
            well_known: [const { None }; WELL_KNOWN_RESERVED_COUNT],
            chosen: HashMap::default(),
            rows: [const { None }; ROWS],
            allocated: SlotTable::new(),
            nonce: token_nonce(nonce),
        }
    }

    /// Registers a receiver under a well-known token, and gives back the one it replaces.
    pub fn insert_well_known(
        &mut self,
        token: impl Into<WellKnownId>,
        receiver: Receiver,
    ) -> Option<Receiver> {
        self.well_known[token.into().index()].replace(receiver)
    }

    /// Registers a receiver under a token of the map's choice, which is never used again.
    ///
    /// `UID::NIL` is given when 2^32 receivers are registered already.
    pub fn insert(&mut self, receiver: Receiver) -> UID {
        match self.allocated.insert(receiver) {
            Ok(key) => UID::new(self.nonce, key.to_bits()),
            Err(_full) => UID::NIL,
        }
    }

    /// Registers the methods of one interface: the i-th receiver is at `base.adjusted(i)`.
    /// `None` if there are no receivers, or no room for them.
    pub fn insert_run(&mut self, receivers: Vec<Receiver>) -> Option<UID> {
        let base = self.allocated.insert_run(receivers)?;
        Some(UID::new(self.nonce, base.to_bits()))
    }

    /// Registers a receiver under a token of the caller's choice, well-known or not, and gives back
    /// the one it replaces.
    ///
    /// # Errors
    /// [`InvalidToken`]; nothing is registered then.
    pub fn insert_at(
        &mut self,
        token: UID,
        receiver: Receiver,
    ) -> Result<Option<Receiver>, InvalidToken> {
        if token.is_well_known() {
            let id = WellKnownId::of(token).ok_or(InvalidToken::NotWellKnown { token })?;
            sometimes_assert!(well_known_registered, true, "under a token that all know");
            return Ok(self.well_known[id.index()].replace(receiver));
        }
        if token.first == self.nonce {
            return Err(InvalidToken::Allocated { token });
        }
        self.rows[row_of(&token)] = Some((token, receiver.clone()));
        Ok(self.chosen.insert(token, receiver))
    }

    /// The receiver registered under the token.
    #[inline]
    #[must_use]
    pub fn get(&self, token: &UID) -> Option<&Receiver> {
        if token.is_well_known() {
            return self.well_known[WellKnownId::of(*token)?.index()].as_ref();
        }
        if token.first == self.nonce {
            let found = self.allocated.get(SlotKey::from_bits(token.second));
            sometimes_assert!(
                dynamic_lookup_found,
                found.is_some(),
                "a token of the map's choice"
            );
            return found;
        }
        match &self.rows[row_of(token)] {
            Some((known, receiver)) if known == token => Some(receiver),
            _ => self.chosen.get(token),
        }
    }

    /// Whether the token is in the range that this map allocates: no other map ever has it.
    pub(crate) fn allocates(&self, token: UID) -> bool {
        token.first == self.nonce
    }

    /// Ends a registration and gives back its receiver. Well-known ones cannot be removed: others
    /// take it for granted that they are there.
    pub fn remove(&mut self, token: &UID) -> Option<Receiver> {
        if token.is_well_known() {
            sometimes_assert!(well_known_removal_rejected, true, "others rely on it");
            return None;
        }
        let removed = if token.first == self.nonce {
            self.allocated.remove(SlotKey::from_bits(token.second))
        } else {
            let row = &mut self.rows[row_of(token)];
            if row.as_ref().is_some_and(|(known, _)| known == token) {
                *row = None;
            }
            self.chosen.remove(token)
        };
        sometimes_assert!(endpoint_deregistered, removed.is_some(), "it was there");
        removed
    }

    /// Ends all registrations of users, well-known ones too, and gives back the receivers.
    pub(crate) fn drain(&mut self) -> Vec<Receiver> {
        let well_known = &mut self.well_known[FIRST_USER_ID as usize..];
        let mut receivers: Vec<Receiver> = well_known.iter_mut().filter_map(Option::take).collect();
        let mut chosen: Vec<(UID, Receiver)> =
            std::mem::take(&mut self.chosen).into_iter().collect();
        self.rows = [const { None }; ROWS];
        // The order in which queues close decides the order in which their tasks wake.
        chosen.sort_unstable_by_key(|(token, _)| *token);
        receivers.extend(chosen.into_iter().map(|(_, receiver)| receiver));
        receivers.extend(self.allocated.drain());
        receivers
    }

    /// Number of registrations.
    #[must_use]
    pub fn len(&self) -> usize {
        let well_known = self.well_known.iter().flatten().count();
        well_known + self.chosen.len() + self.allocated.len()
    }

    /// Whether nothing is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for EndpointMap {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EndpointMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointMap")
            .field("well_known", &self.well_known.iter().flatten().count())
            .field("chosen", &self.chosen.len())
            .field("allocated", &self.allocated.len())
            .finish()
    }
}

/// A random upper half that cannot be mistaken for a well-known or an invalid token's.
pub(crate) fn token_nonce(bits: u64) -> u64 {
    match bits {
        0 | u64::MAX => 1,
        bits => bits,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use moonpool_foundation::WellKnownToken;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::receivers::Incoming;
    use super::*;

    /// With a field, because pointers to values without a size need not differ.
    struct Mock(#[expect(dead_code, reason = "gives the value an address of its own")] u64);

    impl MessageReceiver for Mock {
        fn receive(&self, _packet: Incoming<'_>) {}
    }

    fn mock() -> Receiver {
        Rc::new(Mock(0))
    }

    fn is_at(map: &EndpointMap, token: UID, receiver: &Receiver) -> bool {
        map.get(&token)
            .is_some_and(|found| Rc::ptr_eq(found, receiver))
    }

    #[test]
    fn test_well_known_registration() {
        let mut map = EndpointMap::new();
        let receiver = mock();
        assert!(
            map.insert_well_known(WellKnownToken::Ping, receiver.clone())
                .is_none()
        );
        let token = UID::well_known(WellKnownToken::Ping as u32);
        assert!(is_at(&map, token, &receiver));
        let replaced = map.insert_well_known(WellKnownToken::Ping, mock()).unwrap();
        assert!(Rc::ptr_eq(&replaced, &receiver));
    }

    #[test]
    fn test_dynamic_registration() {
        let mut map = EndpointMap::new();
        let receiver = mock();
        let token = map.insert(receiver.clone());
        assert!(!token.is_well_known());
        assert!(is_at(&map, token, &receiver));
    }

    #[test]
    fn well_known_entries_cannot_be_removed() {
        let mut map = EndpointMap::new();
        let id = WellKnownId::user(20).unwrap();
        map.insert_well_known(id, mock());
        let token = id.token();
        assert!(map.remove(&token).is_none());
        assert!(map.get(&token).is_some());
    }

    /// Colliding hashes cannot slow a well-known token down: it is found with an empty hash map.
    #[test]
    fn test_o1_lookup() {
        let mut map = EndpointMap::new();
        for index in 0..64 {
            map.insert_at(UID::new(u64::MAX, index), mock()).unwrap();
        }
        assert_eq!(
            (map.len(), map.chosen.len(), map.allocated.len()),
            (64, 0, 0)
        );
        assert!(map.get(&UID::new(u64::MAX, 63)).is_some());
        assert!(map.get(&UID::new(u64::MAX, 64)).is_none());
        assert!(map.get(&UID::new(u64::MAX, u64::MAX)).is_none());
    }

    #[test]
    fn chosen_tokens_are_replaced_and_removed() {
        let mut map = EndpointMap::with_nonce(9);
        let (first, second) = (mock(), mock());
        let token = UID::new(0xCA1C, 1);
        assert!(map.insert_at(token, first.clone()).unwrap().is_none());
        let replaced = map.insert_at(token, second.clone()).unwrap().unwrap();
        assert!(Rc::ptr_eq(&replaced, &first));
        assert!(is_at(&map, token, &second));
        assert!(map.remove(&token).is_some());
        assert!(map.is_empty());
    }

    #[test]
    fn tokens_that_cannot_be_chosen_are_refused() {
        let mut map = EndpointMap::with_nonce(9);
        let allocated = map.insert(mock());
        let refused = map.insert_at(allocated, mock()).err();
        assert_eq!(refused, Some(InvalidToken::Allocated { token: allocated }));
        let token = UID::new(u64::MAX, 64);
        let refused = map.insert_at(token, mock()).err();
        assert_eq!(refused, Some(InvalidToken::NotWellKnown { token }));
    }

    #[test]
    fn an_interface_is_adjacent() {
        let mut map = EndpointMap::new();
        let methods = [mock(), mock(), mock()];
        let base = map.insert_run(methods.to_vec()).unwrap();
        for (index, method) in (0..).zip(&methods) {
            assert!(is_at(&map, base.adjusted(index), method));
        }
        assert!(map.get(&base.adjusted(3)).is_none());
    }

    #[test]
    fn a_token_of_another_incarnation_finds_nothing() {
        let mut before = EndpointMap::with_nonce(9);
        let mut after = EndpointMap::with_nonce(10);
        let token = before.insert(mock());
        after.insert(mock());
        assert!(after.get(&token).is_none());
        assert!(EndpointMap::with_nonce(u64::MAX).nonce != u64::MAX);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert,
        InsertRun(usize),
        InsertAt(u64),
        Remove(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            Just(Op::Insert),
            (1_usize..5).prop_map(Op::InsertRun),
            (0_u64..40).prop_map(Op::InsertAt),
            any::<usize>().prop_map(Op::Remove),
            any::<usize>().prop_map(Op::Remove),
        ]
    }

    proptest! {
        /// Against a model: a map from token to receiver that never reuses a removed token.
        #[test]
        fn the_map_agrees_with_its_model(ops in vec(op(), 1..200)) {
            let mut map = EndpointMap::with_nonce(9);
            let mut model: BTreeMap<UID, Receiver> = BTreeMap::new();
            let mut removed: Vec<UID> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert => {
                        let receiver = mock();
                        let token = map.insert(receiver.clone());
                        prop_assert!(!removed.contains(&token));
                        prop_assert!(model.insert(token, receiver).is_none());
                    }
                    Op::InsertRun(count) => {
                        let receivers: Vec<Receiver> = (0..count).map(|_| mock()).collect();
                        let base = map.insert_run(receivers.clone()).unwrap();
                        for (index, receiver) in (0..).zip(receivers) {
                            let token = base.adjusted(index);
                            prop_assert!(!removed.contains(&token));
                            prop_assert!(model.insert(token, receiver).is_none());
                        }
                    }
                    Op::InsertAt(second) => {
                        let (token, receiver) = (UID::new(7, second), mock());
                        let replaced = map.insert_at(token, receiver.clone()).unwrap();
                        prop_assert_eq!(replaced.is_some(), model.insert(token, receiver).is_some());
                        removed.retain(|other| *other != token);
                    }
                    Op::Remove(pick) => {
                        let Some(token) = model.keys().nth(pick % model.len().max(1)).copied() else {
                            continue;
                        };
                        let gone = map.remove(&token).unwrap();
                        prop_assert!(Rc::ptr_eq(&gone, &model.remove(&token).unwrap()));
                        removed.push(token);
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for (token, receiver) in &model {
                prop_assert!(is_at(&map, *token, receiver));
            }
            for token in &removed {
                prop_assert!(map.get(token).is_none() && map.remove(token).is_none());
            }
        }
    }
}
