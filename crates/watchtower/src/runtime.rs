//! The async runtime of a client.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// One thread.
pub(crate) fn for_client() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
