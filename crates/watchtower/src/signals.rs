//! The signals that a running command answers.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Catches SIGTERM and SIGINT, and SIGHUP where something can be reloaded.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    ///
    /// Neither does SIGXFSZ: a write beyond the limit on the size of files fails, as one on a full
    /// disk does.
    pub(crate) fn to_stop_or_reload() -> io::Result<Self> {
        // Caught from here on, whether anybody waits for it or not.
        let _: Signal = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        let hangup = Some(signal(SignalKind::hangup())?);
        Ok(Self { hangup, ..Self::to_stop()? })
    }

    /// As above; SIGHUP ends the process as it always does.
    pub(crate) fn to_stop() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// Waits for the next signal. Cancelling it loses none.
    pub(crate) async fn next(&mut self) -> Request {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = hangup => Request::Reload,
        }
    }
}
