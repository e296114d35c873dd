//! A map that nearly always holds one or two, and may hold very many.

use std::hash::Hash;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

/// How many entries are searched one by one, before they are hashed.
const SEARCHED_MAX: usize = 8;

/// Takes little memory for one entry, and little time for many: finding,
/// adding and removing one takes the same, however many there are.
///
/// Its tag is a byte, so that it is not the place where an `Option` around it
/// marks that there is none: see [`Subscription`](crate::subscription::Subscription).
#[derive(Debug)]
#[repr(u8)]
pub(crate) enum FewMap<K, V> {
    Few(SmallVec<[(K, V); 1]>),
    Many(Box<FxHashMap<K, V>>),
}

impl<K: Copy + Eq + Hash, V> FewMap<K, V> {
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        match self {
            FewMap::Few(few) => few.iter().find(|(other, _)| *other == key).map(|(_, value)| value),
            FewMap::Many(many) => many.get(&key),
        }
    }

    /// Adds an entry, in place of one that has this key already; whether there
    /// was none.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        match self {
            FewMap::Few(few) => {
                if let Some((_, old)) = few.iter_mut().find(|(other, _)| *other == key) {
                    *old = value;
                    return false;
                }
                few.push((key, value));
                if few.len() > SEARCHED_MAX {
                    *self = FewMap::Many(Box::new(few.drain(..).collect()));
                }
                true
            }
            FewMap::Many(many) => many.insert(key, value).is_none(),
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        match self {
            FewMap::Few(few) => {
                let index = few.iter().position(|(other, _)| *other == key)?;
                Some(few.swap_remove(index).1)
            }
            FewMap::Many(many) => many.remove(&key),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            FewMap::Few(few) => few.is_empty(),
            FewMap::Many(many) => many.is_empty(),
        }
    }

    /// Whether one of these, which are sorted, is the key of such a value.
    pub(crate) fn any_of(&self, sorted: &[K], is_such: impl Fn(&V) -> bool) -> bool
    where
        K: Ord,
    {
        match self {
            FewMap::Few(few) => {
                few.iter().any(|(key, value)| is_such(value) && sorted.binary_search(key).is_ok())
            }
            FewMap::Many(many) => sorted.iter().any(|key| many.get(key).is_some_and(&is_such)),
        }
    }

    pub(crate) fn for_each_value(&mut self, change: impl FnMut(&mut V)) {
        match self {
            FewMap::Few(few) => few.iter_mut().map(|(_, value)| value).for_each(change),
            FewMap::Many(many) => many.values_mut().for_each(change),
        }
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        match self {
            FewMap::Few(few) => few.iter().map(|(key, _)| *key).collect(),
            FewMap::Many(many) => many.keys().copied().collect(),
        }
    }

    pub(crate) fn values(&self) -> Vec<V>
    where
        V: Clone,
    {
        match self {
            FewMap::Few(few) => few.iter().map(|(_, value)| value.clone()).collect(),
            FewMap::Many(many) => many.values().cloned().collect(),
        }
    }
}

impl<K, V> Default for FewMap<K, V> {
    fn default() -> Self {
        FewMap::Few(SmallVec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    proptest::proptest! {
        #[test]
        fn it_is_a_map_however_many_it_holds(
            steps in proptest::collection::vec((0u8..40, proptest::option::of(0u8..9)), 0..200),
        ) {
            let (mut map, mut model) = (FewMap::default(), BTreeMap::new());
            for (key, value) in steps {
                match value {
                    Some(value) => assert_eq!(map.insert(key, value), model.insert(key, value).is_none()),
                    None => assert_eq!(map.remove(key), model.remove(&key)),
                }
                assert_eq!(map.get(key), model.get(&key));
                let is_odd = |value: &u8| value % 2 == 1;
                assert_eq!(map.any_of(&[key, 99], is_odd), model.get(&key).is_some_and(is_odd));
                assert_eq!(map.is_empty(), model.is_empty());
            }
            let (mut keys, mut values) = (map.keys(), map.values());
            keys.sort_unstable();
            values.sort_unstable();
            let mut expected: Vec<_> = model.values().copied().collect();
            expected.sort_unstable();
            assert_eq!((keys, values), (model.into_keys().collect(), expected));
        }
    }
}
