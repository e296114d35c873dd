//! The async runtimes: all processors for a server, one thread for a client.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// After how many tasks a worker looks for input and timers that are due. A task
/// drives up to 63 connections, so these are not to wait for many.
const EVENT_INTERVAL: u32 = 8;

/// As many workers as this process may use processors: `taskset -c 0` gives one.
pub(crate) fn for_server() -> io::Result<Runtime> {
    let workers = thread::available_parallelism()?.get();
    Builder::new_multi_thread().worker_threads(workers).event_interval(EVENT_INTERVAL).enable_all().build()
}

/// One thread.
pub(crate) fn for_client() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
