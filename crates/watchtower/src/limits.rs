//! The limit on open files: a server of a hundred thousand connections needs as many.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit to the most that this process may have, and says so in the log.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let before = limit.current;
    limit.current = limit.maximum;
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => tracing::debug!(?before, now = ?limit.current, "raised the limit on open files"),
        Err(error) => tracing::warn!(%error, ?before, "cannot raise the limit on open files"),
    }
}
