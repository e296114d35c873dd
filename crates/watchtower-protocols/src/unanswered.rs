//! What a client published and was not told the end of yet, in order.
//!
//! Knows no protocol. A client that does not wait for one answer before it
//! publishes again has all of it kept with few syncs; whatever else it says has
//! to wait, so that answers come in the order of what they are for.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use watchtower_hub::{Position, Published, Refused};

/// How many publications of one client may wait; from there on what it says waits
/// too.
const UNANSWERED_MAX: usize = 1024;

/// Publications, each with what is to be said of it.
#[derive(Debug)]
pub(crate) struct Unanswered<T>(VecDeque<(Published, T)>);

impl<T> Unanswered<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= UNANSWERED_MAX
    }

    /// What came of a publication, if that is known and nothing is to be
    /// answered before it. Otherwise it waits here.
    #[inline]
    pub(crate) fn add(
        &mut self,
        mut published: Result<Published, Refused>,
        about: T,
    ) -> Option<(Result<Position, Refused>, T)> {
        if self.is_empty() {
            match &mut published {
                Err(refused) => return Some((Err(refused.clone()), about)),
                Ok(published) => {
                    if let Some(position) = published.take_known() {
                        return Some((Ok(position), about));
                    }
                }
            }
        }
        self.answer_or_wait(published.unwrap_or_else(Published::refused), about)
    }

    #[cold]
    fn answer_or_wait(&mut self, published: Published, about: T) -> Option<(Result<Position, Refused>, T)> {
        let published = match published.now() {
            Ok(result) if self.is_empty() => return Some((result, about)),
            Ok(result) => result.map_or_else(Published::refused, Published::known),
            Err(published) => published,
        };
        self.0.push_back((published, about));
        None
    }

    /// The first that was answered, if what comes before it was; `waker` is
    /// woken when there is one.
    pub(crate) fn next(&mut self, waker: &Waker) -> Option<(Result<Position, Refused>, T)> {
        let Poll::Ready(result) = self.0.front_mut()?.0.poll_with(waker) else { return None };
        let (_, about) = self.0.pop_front()?;
        if self.0.is_empty() {
            // An idle connection holds no buffer.
            self.0 = VecDeque::new();
        }
        Some((result, about))
    }
}

impl<T> Default for Unanswered<T> {
    fn default() -> Self {
        Unanswered(VecDeque::new())
    }
}
