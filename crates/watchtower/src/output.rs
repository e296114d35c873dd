//! Writing to standard output. That a reader has gone is no failure: `watchtower man | head`.

use std::io::{self, ErrorKind, Write};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// Writes all of it, or as much as the reader takes before it goes away.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    write(text).map(drop)
}

/// Writes one line and flushes it; false when the reader has gone away.
pub(crate) fn print_line(line: &[u8]) -> io::Result<bool> {
    write(&[line, b"\n"].concat())
}

/// Waits until the reader of standard output is gone, where that can be seen: a pipe, a terminal.
/// A command that waits for something to print would else never notice.
pub(crate) async fn closed() {
    let (gone, told) = oneshot::channel();
    // Not one of the runtime's threads: it ends with the process, and nobody waits for it.
    thread::spawn(move || {
        let stdout = io::stdout();
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while matches!(poll(&mut watched, None), Ok(0) | Err(Errno::INTR)) {}
        if watched[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            // The command may have ended meanwhile.
            let _ = gone.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending().await
    }
}

fn write(text: &[u8]) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
