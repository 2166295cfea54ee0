//! [`PerPeer`]: what a transport keeps for each of its peers. Pure.

use std::collections::hash_map::Entry;

use moonpool_foundation::collections::HashMap;
use moonpool_foundation::network::peer::PeerId;

/// Values by peer. Whatever comes or goes usually belongs to the peer that was asked for last, which is
/// found without a look into a map; and a value's place stays the same for as long as it is there.
#[derive(Debug)]
pub(crate) struct PerPeer<V> {
    values: Vec<Option<(PeerId, V)>>,
    /// Places without a value.
    free: Vec<usize>,
    places: HashMap<PeerId, usize>,
    latest: Option<(PeerId, usize)>,
}

impl<V> PerPeer<V> {
    /// The value's place, where it is made if there is none.
    #[inline]
    pub(crate) fn open(&mut self, peer: PeerId, make: impl FnOnce() -> V) -> usize {
        match self.latest {
            Some((latest, place)) if latest == peer => place,
            _ => self.look_up(peer, make),
        }
    }

    fn look_up(&mut self, peer: PeerId, make: impl FnOnce() -> V) -> usize {
        let place = match self.places.entry(peer) {
            Entry::Occupied(place) => *place.get(),
            Entry::Vacant(entry) => {
                let value = Some((peer, make()));
                let place = match self.free.pop() {
                    Some(place) => {
                        self.values[place] = value;
                        place
                    }
                    None => {
                        self.values.push(value);
                        self.values.len() - 1
                    }
                };
                *entry.insert(place)
            }
        };
        self.latest = Some((peer, place));
        place
    }

    #[inline]
    fn place(&self, peer: PeerId) -> Option<usize> {
        match self.latest {
            Some((latest, place)) if latest == peer => Some(place),
            _ => self.places.get(&peer).copied(),
        }
    }

    #[inline]
    pub(crate) fn get(&self, peer: PeerId) -> Option<&V> {
        self.at(self.place(peer)?).map(|(_, value)| value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, peer: PeerId) -> Option<&mut V> {
        let place = self.place(peer)?;
        self.at_mut(place)
    }

    /// Whose value this place has, and the value.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> Option<(PeerId, &V)> {
        let (peer, value) = self.values.get(place)?.as_ref()?;
        Some((*peer, value))
    }

    /// The value of this place.
    #[inline]
    pub(crate) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        let (_, value) = self.values.get_mut(place)?.as_mut()?;
        Some(value)
    }

    /// The peer is gone.
    pub(crate) fn remove(&mut self, peer: PeerId) -> Option<V> {
        let place = self.places.remove(&peer)?;
        self.latest = None;
        self.free.push(place);
        self.values[place].take().map(|(_, value)| value)
    }

    /// Takes all values out, in the order of the peers' ids.
    pub(crate) fn drain(&mut self) -> Vec<(PeerId, V)> {
        let mut values: Vec<_> = std::mem::take(self).values.into_iter().flatten().collect();
        values.sort_unstable_by_key(|(peer, _)| *peer);
        values
    }

    /// Whether no peer has a value.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl<V> Default for PerPeer<V> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            free: Vec::new(),
            places: HashMap::default(),
            latest: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model: a map from peer to value.
        #[test]
        fn values_agree_with_their_model(ops in vec((0_u8..4, 0_u64..6), 1..200)) {
            let mut values = PerPeer::default();
            let mut model = BTreeMap::new();
            for (number, (op, id)) in ops.into_iter().enumerate() {
                let peer = PeerId(id);
                match op {
                    0 => prop_assert_eq!(values.remove(peer), model.remove(&peer)),
                    1 => {
                        if let Some(value) = values.get_mut(peer) {
                            *value = number;
                            model.insert(peer, number);
                        }
                    }
                    2 => {
                        let place = values.open(peer, || number);
                        let expected = *model.entry(peer).or_insert(number);
                        prop_assert_eq!(values.at(place), Some((peer, &expected)));
                        prop_assert_eq!(values.at_mut(place).copied(), Some(expected));
                    }
                    _ => prop_assert_eq!(values.get(peer), model.get(&peer)),
                }
                prop_assert_eq!(values.is_empty(), model.is_empty());
                prop_assert!(values.values.len() <= 6);
            }
            prop_assert_eq!(values.drain(), model.into_iter().collect::<Vec<_>>());
            prop_assert!(values.is_empty());
        }
    }
}
