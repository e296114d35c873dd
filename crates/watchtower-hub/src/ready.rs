//! Which of a session's subscriptions have something to read, in turn.

use std::collections::VecDeque;

/// Keys, first come, first served. A single one takes no memory of its own: most
/// sessions read one channel.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    first: Option<u32>,
    /// Those behind `first`.
    others: VecDeque<u32>,
}

impl Ready {
    pub(crate) fn push(&mut self, key: u32) {
        if self.first.is_none() && self.others.is_empty() {
            self.first = Some(key);
        } else {
            self.others.push_back(key);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<u32> {
        self.first.take().or_else(|| self.others.pop_front())
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.first.iter().chain(&self.others).copied()
    }

    /// Keeps those that `wanted` names, which is asked in turn.
    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(u32) -> bool) {
        self.first = self.first.filter(|key| wanted(*key));
        self.others.retain(|key| wanted(*key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_in_which_they_were_put() {
        let mut ready = Ready::default();
        let mut expected = VecDeque::new();
        for turn in 0..100 {
            for key in 0..turn % 4 {
                ready.push(10 * turn + key);
                expected.push_back(10 * turn + key);
            }
            assert_eq!(ready.iter().collect::<Vec<_>>(), Vec::from(expected.clone()));
            assert_eq!(ready.len(), expected.len());
            assert_eq!(ready.pop(), expected.pop_front());
            if turn % 7 == 0 {
                ready.retain(|key| key % 3 != 0);
                expected.retain(|key| key % 3 != 0);
            }
        }
        while let Some(key) = expected.pop_front() {
            assert_eq!(ready.pop(), Some(key));
        }
        assert_eq!(ready.pop(), None);
    }
}
