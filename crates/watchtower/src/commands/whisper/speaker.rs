//! Says and does what was typed, line by line in its order, in a task of its own: a slow name
//! server or a slow peer holds up no key and no message of others.

use jiff::tz::TimeZone;
use tokio::sync::mpsc;
use watchtower_whisper::Peer;

use super::perform::perform;
use super::slash::{self, Command, Input};

/// What came of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is on its way.
    Said,
    /// A file is.
    Sending(String),
    /// Another command was carried out.
    Done(String),
    /// It was not said, or not carried out.
    Refused(String),
    /// `/quit`: no further line is looked at.
    Quit,
}

/// Starts it. So many lines wait at most; the answers end when all lines were answered, and the
/// sender is dropped.
pub(super) fn start(
    peer: Peer,
    zone: TimeZone,
    waiting_max: usize,
) -> (mpsc::Sender<String>, mpsc::Receiver<Answer>) {
    let (lines, mut typed) = mpsc::channel::<String>(waiting_max);
    let (answers, answered) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(line) = typed.recv().await {
            let Some(answer) = speak(&peer, &line, &zone).await else { continue };
            let quits = answer == Answer::Quit;
            if answers.send(answer).await.is_err() || quits {
                break;
            }
        }
    });
    (lines, answered)
}

/// `None` for a line of nothing.
async fn speak(peer: &Peer, line: &str, zone: &TimeZone) -> Option<Answer> {
    Some(match slash::parse(line) {
        Ok(Input::Nothing) => return None,
        Ok(Input::Say(body)) => match peer.say(&body).await {
            Ok(_) => Answer::Said,
            Err(unsaid) => Answer::Refused(unsaid.to_string()),
        },
        Ok(Input::Do(Command::Quit)) => Answer::Quit,
        Ok(Input::Do(command)) => {
            let sends = matches!(command, Command::Send(_));
            match perform(peer, command, zone).await {
                Ok(answer) if sends => Answer::Sending(answer),
                Ok(answer) => Answer::Done(answer),
                Err(complaint) => Answer::Refused(complaint),
            }
        }
        Err(mistake) => Answer::Refused(mistake.to_string()),
    })
}
