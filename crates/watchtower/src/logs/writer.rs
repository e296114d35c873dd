//! The thread that writes the log.
//!
//! Whoever reads the log may stop reading, or go away: then lines are left out, and nothing else
//! waits or fails for it. Knows nothing of what is in a line.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use super::limit::LineLimit;

/// How many bytes of lines may wait to be written.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// How long the program waits at its end for the last lines to be written.
const END: Duration = Duration::from_secs(1);

/// Takes whole lines, and hands them to the thread. Clones are the same.
#[derive(Clone)]
pub(super) struct Lines {
    to_write: Sender<Work>,
    waiting: Arc<AtomicUsize>,
    limit: &'static LineLimit,
}

/// What has the log be written to its end when it is dropped.
pub(crate) struct Writing {
    to_write: Sender<Work>,
}

enum Work {
    Line(Vec<u8>),
    /// All lines before it are written.
    End(Sender<()>),
}

/// Starts a thread that writes lines to `log`; what could not be written `limit` counts.
pub(super) fn start(
    log: impl Write + Send + 'static,
    limit: &'static LineLimit,
) -> io::Result<(Lines, Writing)> {
    let (to_write, work) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let lines = Lines { to_write: to_write.clone(), waiting: waiting.clone(), limit };
    thread::Builder::new().name("log".to_owned()).spawn(move || write(log, &work, &waiting, limit))?;
    Ok((lines, Writing { to_write }))
}

fn write(mut log: impl Write, work: &Receiver<Work>, waiting: &AtomicUsize, limit: &LineLimit) {
    for work in work {
        match work {
            Work::Line(line) => {
                if log.write_all(&line).and_then(|()| log.flush()).is_err() {
                    limit.leave_out();
                }
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Work::End(ended) => {
                // Nobody waits for it any more.
                let _ = ended.send(());
            }
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        let has_room = before + line.len() <= WAITING_BYTES_MAX;
        if !has_room || self.to_write.send(Work::Line(line.to_vec())).is_err() {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.limit.leave_out();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let (ended, end) = mpsc::channel();
        // Where nobody reads, the last lines are lost.
        if self.to_write.send(Work::End(ended)).is_ok() {
            let _ = end.recv_timeout(END);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::SyncSender;

    use super::*;

    /// A log each of whose writes waits until it is read.
    struct Unread(SyncSender<Vec<u8>>);

    impl Write for Unread {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.0.send(bytes.to_vec()).map(|()| bytes.len()).map_err(gone)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_waits_for_a_reader_is_bounded_and_the_rest_counted() {
        static LIMIT: LineLimit = LineLimit::new();
        let (log, reader) = mpsc::sync_channel(0);
        let (mut lines, writing) = start(Unread(log), &LIMIT).unwrap();
        let line = vec![b'x'; WAITING_BYTES_MAX / 4];
        for _ in 0..6 {
            lines.write_all(&line).unwrap();
        }
        assert_eq!(LIMIT.take_left_out(), 2);
        for _ in 0..4 {
            assert_eq!(reader.recv().unwrap(), line);
        }
        // A reader that is gone takes nothing.
        drop(reader);
        lines.write_all(b"unheard").unwrap();
        drop(writing);
        assert_eq!(LIMIT.take_left_out(), 1);
    }

    #[test]
    fn what_was_logged_is_written_at_the_end() {
        static LIMIT: LineLimit = LineLimit::new();
        let kept = Kept::default();
        let (mut lines, writing) = start(kept.clone(), &LIMIT).unwrap();
        for number in 0..1_000 {
            writeln!(lines, "{number}").unwrap();
        }
        drop(writing);
        assert!(kept.0.lock().unwrap().ends_with(b"\n999\n"));
        assert_eq!(LIMIT.take_left_out(), 0);
    }
}
