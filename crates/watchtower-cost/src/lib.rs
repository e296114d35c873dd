//! What the hub and the codecs cost, without a machine's noise: pieces of work whose instructions
//! and allocations are counted.
//!
//! A [`Case`] is one piece of work, such as publishing to a thousand sessions, or reading packets.
//! The program of this crate counts the instructions of each under callgrind and holds them
//! against the figures that are recorded beside it; a test counts their allocations. Neither
//! knows a socket or a clock: what a delivery costs in time is for `watchtower bench` to say.

mod codecs;
mod fanout;
mod relay;
mod scene;

pub use codecs::codec_cases;
pub use fanout::fanout_cases;
pub use relay::relay_cases;

/// Work that can be done again and again, each time alike.
pub trait Work {
    /// What has to be done before each run, and is not counted.
    fn set_up(&mut self);

    /// What is counted.
    fn run(&mut self);
}

/// A piece of work under its name.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// What is done, and for whom, as in `deliver/packets`.
    pub name: &'static str,
    /// What it is done to, one of them: a figure is for each.
    pub unit: &'static str,
    /// How many of these one run is.
    pub units: u64,
    /// Sets the scene.
    pub stage: fn() -> Box<dyn Work>,
}

/// All cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [fanout_cases(), relay_cases(), codec_cases()].concat()
}

impl Case {
    /// Sets the scene and does the work twice, so that what is made once and kept (a buffer, a
    /// thread's own state) is there when the third time is counted.
    #[must_use]
    pub fn staged(&self) -> Box<dyn Work> {
        let mut work = (self.stage)();
        for _ in 0..2 {
            work.set_up();
            work.run();
        }
        work.set_up();
        work
    }
}
