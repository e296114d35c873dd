//! Several lists, each in the order of its keys, as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

/// Gives what is in several lists in the order of keys, and what has the same key
/// in the order of lists, with the number of its list. Ends with the first error.
///
/// Has one of each list in memory.
pub(crate) struct InOrder<K, V, L> {
    lists: Vec<L>,
    /// The next of each list that is not over.
    keys: BinaryHeap<Reverse<(K, usize)>>,
    values: Vec<Option<V>>,
}

impl<K: Ord, V, L: Iterator<Item = io::Result<(K, V)>>> InOrder<K, V, L> {
    /// Takes these lists.
    ///
    /// # Errors
    /// That of a list which begins with one.
    pub(crate) fn new(lists: Vec<L>) -> io::Result<InOrder<K, V, L>> {
        let values = lists.iter().map(|_| None).collect();
        let mut all = InOrder { keys: BinaryHeap::with_capacity(lists.len()), lists, values };
        (0..all.lists.len()).try_for_each(|list| all.advance(list))?;
        Ok(all)
    }

    fn advance(&mut self, list: usize) -> io::Result<()> {
        if let Some((key, value)) = self.lists[list].next().transpose()? {
            self.keys.push(Reverse((key, list)));
            self.values[list] = Some(value);
        }
        Ok(())
    }

    /// The next: its list, its key, and what it is.
    pub(crate) fn next(&mut self) -> io::Result<Option<(usize, K, V)>> {
        let Some(Reverse((key, list))) = self.keys.pop() else { return Ok(None) };
        let value = self.values[list].take();
        self.advance(list)?;
        Ok(value.map(|value| (list, key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order(lists: &[&[io::Result<u8>]]) -> io::Result<Vec<(usize, u8)>> {
        let item = |(at, key): (usize, &io::Result<u8>)| match key {
            Ok(key) => Ok((*key, at)),
            Err(error) => Err(error.kind().into()),
        };
        let lists = lists.iter().map(|list| list.iter().enumerate().map(item)).collect();
        let mut all = InOrder::new(lists)?;
        let mut found = Vec::new();
        while let Some((list, key, _)) = all.next()? {
            found.push((list, key));
        }
        Ok(found)
    }

    #[test]
    fn keys_come_in_order_and_equal_ones_in_the_order_of_lists() {
        let found = in_order(&[&[Ok(1), Ok(3), Ok(3)], &[], &[Ok(1), Ok(2), Ok(3)], &[Ok(0)]]).unwrap();
        assert_eq!(found, [(3, 0), (0, 1), (2, 1), (2, 2), (0, 3), (0, 3), (2, 3)]);
    }

    #[test]
    fn an_error_of_any_list_ends_it() {
        let error = || Err(io::ErrorKind::InvalidData.into());
        assert!(in_order(&[&[Ok(1)], &[error()]]).is_err());
        assert!(in_order(&[&[Ok(1), Ok(2)], &[Ok(1), error()]]).is_err());
    }
}
