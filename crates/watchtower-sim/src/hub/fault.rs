//! Faults that a server could have, put between it and those who look at what
//! it says: to show that they are seen. No part of any server.

use super::ears::Item;

/// What goes wrong, each time that it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Two messages change places.
    Swap,
    /// A message is lost.
    Lose,
    /// A message comes twice.
    Double,
    /// An answer is forgotten.
    ForgetAnswer,
    /// An answer comes after what follows it.
    LateAnswer,
    /// A message is said to be from another sender.
    Forge,
    /// A byte of a content is another.
    Garble,
}

impl Fault {
    /// Spoils what was said.
    pub(super) fn spoil(self, items: &mut Vec<(Item, usize)>) {
        let is_message = |item: &(Item, usize)| matches!(item.0, Item::Message(_));
        let is_answer = |item: &(Item, usize)| matches!(item.0, Item::Answer(_));
        match self {
            Fault::Swap => {
                if let Some(at) = items.windows(2).position(|two| two.iter().all(is_message)) {
                    items.swap(at, at + 1);
                }
            }
            Fault::Lose => drop(items.iter().position(is_message).map(|at| items.remove(at))),
            Fault::Double => {
                if let Some(at) = items.iter().position(is_message) {
                    items.insert(at, items[at].clone());
                }
            }
            Fault::ForgetAnswer => drop(items.iter().position(is_answer).map(|at| items.remove(at))),
            Fault::LateAnswer => {
                if let Some(at) = items.windows(2).position(|two| is_answer(&two[0])) {
                    items.swap(at, at + 1);
                }
            }
            Fault::Forge => {
                for (item, _) in items {
                    if let Item::Message(heard) = item {
                        heard.sender = heard.sender.map(|sender| sender ^ 1);
                    }
                }
            }
            Fault::Garble => {
                for (item, _) in items {
                    if let Item::Message(heard) = item {
                        let mut content = heard.content.to_vec();
                        content.last_mut().into_iter().for_each(|byte| *byte ^= 1);
                        heard.content = content.into();
                    }
                }
            }
        }
    }
}
