//! A chat without an editor: lines of a pipe are said, and what others say is printed, one message
//! a line. Notices go to standard error.

use std::io::{self, BufRead, Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::mpsc;
use watchtower_whisper::{Event, Events, Peer};

use super::render::{self, Form, From, Tone};
use super::speaker::{self, Answer};
use super::{telling, warned::Warned};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;

/// How long it is waited for a peer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a line may be: longer ones would be no message.
const LINE_BYTES_MAX: u64 = 8 << 20;

/// The chat.
pub(super) struct Plain<'a> {
    pub(super) peer: &'a Peer,
    pub(super) events: Events,
    pub(super) signals: Signals,
    /// How messages are printed.
    pub(super) form: Form,
    pub(super) warned: Warned,
}

/// What was said.
#[derive(Debug, Default)]
struct Spoken {
    said: bool,
    refused: usize,
}

impl Plain<'_> {
    /// Says all that comes, until it ends and is delivered. `waits_for_peer`: nothing is said
    /// before a peer is there.
    pub(super) async fn run(mut self, waits_for_peer: bool) -> Result<(), Failure> {
        let peer = self.peer;
        if waits_for_peer {
            let Some(reached) = self.until(is_reached(peer)).await? else { return Ok(()) };
            if !reached {
                return Err(unreached("nothing is sent"));
            }
        }
        let (lines, mut answers) = speaker::start(peer.clone(), self.form.zone.clone(), 1);
        let (failed, mut failure) = mpsc::channel(1);
        // Not one of the runtime's threads: it may wait for input for ever. What it failed at is told
        // before it lets go of the lines.
        thread::spawn(move || {
            if let Err(error) = forward(io::stdin().lock(), &lines) {
                let _ = failed.blocking_send(error);
            }
        });
        let Some(spoken) = self.until(heed(&mut answers)).await? else { return Ok(()) };
        if let Ok(error) = failure.try_recv() {
            return Err(Failure::Other(anyhow!("cannot read what to say: {error}")));
        }
        if spoken.said {
            let Some(delivered) = self.until(is_delivered(peer)).await? else { return Ok(()) };
            if !delivered {
                return Err(unreached("what was said is not delivered"));
            }
            // Who refuses this peer is seen to do so only when there is nothing more to come.
            if !peer.shut_down().await {
                return Err(Failure::Other(anyhow!("every peer hung up without taking what was said")));
            }
        }
        match spoken.refused {
            0 => Ok(()),
            1 => Err(Failure::Other(anyhow!("a line was not sent"))),
            lines => Err(Failure::Other(anyhow!("{lines} lines were not sent"))),
        }
    }

    /// Prints what happens until that is done; `None` when there is an end before it: a signal, or
    /// nobody reads any more.
    async fn until<T>(&mut self, done: impl Future<Output = T>) -> io::Result<Option<T>> {
        let mut done = std::pin::pin!(done);
        let mut closed = std::pin::pin!(output::closed());
        loop {
            let event = tokio::select! {
                done = &mut done => return Ok(Some(done)),
                event = self.events.next() => event,
                _ = self.signals.next() => return Ok(None),
                () = &mut closed => return Ok(None),
            };
            let goes_on = match event {
                Ok(Some(event)) => self.tell(&event)?,
                Ok(None) => false,
                Err(skipped) => {
                    notice(&skipped.to_string(), Tone::Warning);
                    true
                }
            };
            if !goes_on {
                return Ok(None);
            }
        }
    }

    /// False when nobody reads it.
    fn tell(&mut self, event: &Event) -> io::Result<bool> {
        if let Event::Shown(shown) = event {
            let reader = self.peer.nick();
            let from = From::Other { reader: reader.as_deref() };
            let line = render::message(shown, from, &self.form, jiff::Timestamp::now());
            if let Some(warning) = self.warned.of(shown) {
                notice(&warning, Tone::Warning);
            }
            return output::print_line(line.as_bytes());
        }
        if let Some((tone, sentence)) = telling::sentence(event, &self.form.zone) {
            notice(&sentence, tone);
        }
        Ok(true)
    }
}

/// Says something on standard error.
pub(super) fn notice(text: &str, tone: Tone) {
    let form = Form { columns: None, colours: false, zone: jiff::tz::TimeZone::UTC };
    // A chat goes on without anyone to read its standard error.
    let _ = writeln!(io::stderr(), "{}", render::notice(text, tone, &form));
}

/// Hands over each line, until there are no more or nobody takes them.
fn forward(mut input: impl BufRead, lines: &mpsc::Sender<String>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
            return Err(io::Error::other(format!("a line has more than {LINE_BYTES_MAX} bytes")));
        }
        if lines.blocking_send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return Ok(());
        }
    }
}

/// Waits until all lines are answered, or one said that this is the end.
async fn heed(answers: &mut mpsc::Receiver<Answer>) -> Spoken {
    let mut spoken = Spoken::default();
    while let Some(answer) = answers.recv().await {
        match answer {
            Answer::Said => spoken.said = true,
            Answer::Sending(answer) => {
                spoken.said = true;
                notice(&answer, Tone::Notice);
            }
            Answer::Done(answer) => notice(&answer, Tone::Notice),
            Answer::Refused(complaint) => {
                spoken.refused += 1;
                notice(&complaint, Tone::Warning);
            }
            Answer::Quit => break,
        }
    }
    spoken
}

/// Whether a peer is connected to before patience ends.
async fn is_reached(peer: &Peer) -> bool {
    let mut events = peer.events();
    let connected = async {
        while !is_any_connected(peer).await {
            if let Ok(None) = events.next().await {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(PATIENCE, connected).await.unwrap_or(false)
}

/// Whether all that was said reached the peers that are there; false when none is.
async fn is_delivered(peer: &Peer) -> bool {
    // What is slow and goes on is waited for: the peer itself gives up what stands still.
    while !peer.flush(PATIENCE).await {
        if !is_any_connected(peer).await {
            return false;
        }
    }
    true
}

async fn is_any_connected(peer: &Peer) -> bool {
    peer.peers().await.iter().any(|status| status.connected)
}

fn unreached(consequence: &str) -> Failure {
    let seconds = PATIENCE.as_secs();
    Failure::Other(anyhow!("no peer could be reached within {seconds} s: {consequence}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_handed_over_as_they_are_and_without_an_end_too() {
        let (lines, mut typed) = mpsc::channel(4);
        forward(&b"one\n\xff\n\nfour"[..], &lines).unwrap();
        drop(lines);
        let mut all = Vec::new();
        while let Ok(line) = typed.try_recv() {
            all.push(line);
        }
        assert_eq!(all, ["one\n", "\u{fffd}\n", "\n", "four"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_refused() {
        let (lines, _typed) = mpsc::channel(1);
        let error = forward(io::BufReader::new(io::repeat(b'x')), &lines).unwrap_err();
        assert_eq!(error.to_string(), "a line has more than 8388608 bytes");
    }
}
