//! What the log says when the program panics.
//!
//! It is a line like all others, so that where lines are JSON this one is too. It says where, and
//! not everything about why: a message that was put together at run time may hold what a client
//! sent.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

/// From now on panics are told by the log.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = fixed_text(panic.payload());
    let thread = thread::current().name().unwrap_or_default().to_owned();
    let backtrace = Backtrace::capture();
    // RUST_BACKTRACE=1 asks for it. It names functions alone.
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(location, reason, thread, backtrace, "panicked: there is a fault in the program");
}

/// A message that stands in the program as it is.
fn fixed_text(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("not shown, since it may hold what a client sent")
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_a_line_that_says_where_and_shows_nothing_that_was_put_together() {
        let lines = Lines::default();
        let to = lines.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || to.clone()).finish();
        let before = panic::take_hook();
        log_panics();
        tracing::subscriber::with_default(subscriber, || {
            let content = String::from("hushed");
            drop(panic::catch_unwind(|| panic!("a fixed text")));
            drop(panic::catch_unwind(|| panic!("it held {content}")));
            drop(panic::catch_unwind(|| u8::try_from("300".parse::<u16>().unwrap()).unwrap()));
        });
        panic::set_hook(before);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("hushed") && text.lines().count() == 3, "{text}");
        for (line, reason) in text.lines().zip(["a fixed text", "not shown", "not shown"]) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| object["fields"][name].as_str().unwrap_or_default().to_owned();
            assert!(field("message").starts_with("panicked"), "{line}");
            assert!(field("reason").starts_with(reason), "{line}");
            assert!(field("location").contains("fault.rs:"), "{line}");
        }
    }
}
