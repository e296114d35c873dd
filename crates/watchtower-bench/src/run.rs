//! What every kind of bench begins with: options that can be done, room for its sockets, and a
//! thread on a core of its own.

use std::thread;

use crate::cores::{Placement, pin_this_thread};
use crate::error::Error;
use crate::load::make_room_for;
use crate::options::Options;

/// Runs a bench with so many sockets on the load's core.
///
/// # Errors
/// [`Error::Options`] before anything is started, and what the bench says.
pub(crate) fn on_its_core<T: Send>(
    options: &Options,
    sockets: u64,
    bench: impl FnOnce(Placement) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    options.check()?;
    make_room_for(sockets)?;
    let placement = Placement::choose(options.server_cpu, options.load_cpu)?;
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            placement.load.map_or(Ok(()), pin_this_thread)?;
            bench(placement)
        });
        load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
