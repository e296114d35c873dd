//! The async runtimes: all processors for a server, one thread for a client.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// As many workers as this process may use processors: `taskset -c 0` gives one.
pub(crate) fn for_server() -> io::Result<Runtime> {
    let workers = thread::available_parallelism()?.get();
    Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// One thread.
pub(crate) fn for_client() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
