//! A peer that the user named, and what the user was told of it: each trouble
//! once, until it is over.

use std::io;
use std::mem;
use std::time::Duration;

/// How soon a connection ends that the other side did not want.
const AT_ONCE: Duration = Duration::from_secs(1);

/// How many such connections in a row are no accident.
const REFUSALS: u32 = 2;

/// A peer that the user named.
pub(crate) struct Named {
    pub(crate) name: String,
    /// Whether the user knows that it cannot be reached.
    is_told: bool,
    /// How many connections in a row it ended at once.
    refusals: u32,
}

impl Named {
    pub(crate) fn new(name: String) -> Named {
        Named { name, is_told: false, refusals: 0 }
    }

    /// It could not be reached: what is to be said of that.
    pub(crate) fn unreached(&mut self, error: &io::Error) -> Option<String> {
        let is_news = !mem::replace(&mut self.is_told, true);
        is_news.then(|| format!("cannot reach {}, trying again: {error}", self.name))
    }

    /// It is connected to, or no more.
    pub(crate) fn changed(&mut self) {
        self.is_told = false;
    }

    /// It ended a connection that lasted so long: what is to be said of that.
    pub(crate) fn hung_up(&mut self, lasted: Duration) -> Option<String> {
        self.refusals = if lasted < AT_ONCE { self.refusals.saturating_add(1) } else { 0 };
        (self.refusals == REFUSALS).then(|| {
            let name = &self.name;
            format!("{name} ends every connection at once: it may refuse this address, be full, or want TLS")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hangs_up_at_once_is_told_of_at_the_second_time_and_again_after_one_that_lasted() {
        let mut phil = Named::new("phil:5".to_owned());
        let mut told = |lasted| phil.hung_up(lasted);
        let soon = AT_ONCE / 2;
        let words = "phil:5 ends every connection at once: it may refuse this address, be full, or want TLS";
        assert_eq!([soon, soon, soon].map(&mut told), [None, Some(words.to_owned()), None]);
        assert_eq!([AT_ONCE, soon, AT_ONCE, soon].map(&mut told), [const { None }; 4]);
        assert_eq!(told(soon).as_deref(), Some(words));
    }
}
