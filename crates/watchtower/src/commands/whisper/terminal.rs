//! A chat on a terminal: keys go to the line below, what happens is shown above it.

use std::collections::VecDeque;
use std::io::{self, Stdout};
use std::time::Duration;

use anyhow::anyhow;
use crossterm::event::{Event as Input, EventStream};
use futures_util::StreamExt;
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc;
use tokio::time::timeout;
use watchtower_whisper::protocol::Shown;
use watchtower_whisper::{Event, Events, Peer};

use super::line_editor::{Keyed, LineEditor};
use super::palette::Look;
use super::render::{self, Form, From, Tone};
use super::screen::{self, Below, RawMode, Screen};
use super::speaker::{self, Answer};
use super::telling;
use super::transfers::Transfers;
use super::warned::Warned;
use crate::failure::Failure;
use crate::signals::Signals;

/// How many nicks are remembered for the Tab key.
const NICKS_MAX: usize = 100;

/// How many lines wait to be said.
const LINES_MAX: usize = 64;

/// How long it is waited at the end for what was entered.
const LEAVING: Duration = Duration::from_secs(1);

/// The chat.
struct Terminal<'a> {
    peer: &'a Peer,
    screen: Screen<Stdout>,
    form: Form,
    editor: LineEditor,
    transfers: Transfers,
    warned: Warned,
    /// Who spoke last, the latest behind. Invariant: at most [`NICKS_MAX`].
    nicks: VecDeque<String>,
    /// What was typed, on its way to be said.
    lines: mpsc::Sender<String>,
    raw: Option<RawMode>,
}

/// Whether the chat goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

/// Runs it to its end. `form` is that of the terminal; `greeting` is shown first.
pub(super) async fn run(
    peer: &Peer,
    mut events: Events,
    mut signals: Signals,
    form: Form,
    editor: LineEditor,
    greeting: &[(Tone, String)],
) -> Result<(), Failure> {
    let (lines, mut answers) = speaker::start(peer.clone(), form.zone.clone(), LINES_MAX);
    let mut terminal = Terminal {
        peer,
        screen: Screen::new(io::stdout(), screen::columns()),
        form,
        editor,
        transfers: Transfers::default(),
        warned: Warned::default(),
        nicks: VecDeque::new(),
        lines,
        raw: Some(RawMode::enter()?),
    };
    for (tone, text) in greeting {
        terminal.notice(text, *tone)?;
    }
    let mut keys = EventStream::new();
    loop {
        let next = tokio::select! {
            event = events.next() => match event {
                Ok(Some(event)) => terminal.tell(&event)?,
                Ok(None) => Next::End,
                Err(skipped) => terminal.notice(&skipped.to_string(), Tone::Warning)?,
            },
            input = keys.next() => match input {
                Some(Ok(input)) => terminal.take(input).await?,
                // The terminal is gone.
                Some(Err(_)) | None => Next::End,
            },
            answer = answers.recv() => match answer {
                Some(Answer::Said) => Next::GoOn,
                Some(Answer::Done(answer) | Answer::Sending(answer)) => terminal.notice(&answer, Tone::Notice)?,
                Some(Answer::Refused(complaint)) => terminal.notice(&complaint, Tone::Warning)?,
                Some(Answer::Quit) | None => Next::End,
            },
            _ = signals.next() => Next::End,
        };
        if next == Next::End {
            break;
        }
    }
    terminal.leave(&mut answers).await
}

impl Terminal<'_> {
    /// What was entered is said before the end, unless that takes too long; what becomes of it is
    /// not shown any more.
    async fn leave(mut self, answers: &mut mpsc::Receiver<Answer>) -> Result<(), Failure> {
        for name in self.transfers.outgoing() {
            self.notice(&format!("{name} is not sent to its end"), Tone::Warning)?;
        }
        self.screen.leave()?;
        drop(self.lines);
        let answered = async { while answers.recv().await.is_some() {} };
        let is_late = |_| Failure::Other(anyhow!("what was entered last is not sent"));
        timeout(LEAVING, answered).await.map_err(is_late)
    }

    /// Shows what happened.
    fn tell(&mut self, event: &Event) -> io::Result<Next> {
        match event {
            Event::Shown(shown) => return self.message(shown, false),
            Event::Said(shown) => return self.message(shown, true),
            Event::Progress { transfer, name, outgoing, bytes_done, bytes_all } => {
                self.transfers.progress(*transfer, name, *outgoing, *bytes_done, *bytes_all);
                self.print("")?;
            }
            Event::Saved { transfer, .. } | Event::Failed { transfer, .. } => self.transfers.ended(*transfer),
            _ => {}
        }
        match telling::sentence(event, &self.form.zone) {
            Some((tone, sentence)) => self.notice(&sentence, tone),
            None => Ok(Next::GoOn),
        }
    }

    fn message(&mut self, shown: &Shown, is_own: bool) -> io::Result<Next> {
        let reader = self.peer.nick();
        let from = if is_own { From::Oneself } else { From::Other { reader: reader.as_deref() } };
        let message = render::message(shown, from, &self.form, jiff::Timestamp::now());
        if !is_own {
            self.remember(render::name(shown));
        }
        self.print(&message)?;
        match self.warned.of(shown) {
            Some(warning) if !is_own => self.notice(&warning, Tone::Warning),
            _ => Ok(Next::GoOn),
        }
    }

    fn remember(&mut self, nick: String) {
        self.nicks.retain(|known| *known != nick);
        if self.nicks.len() >= NICKS_MAX {
            self.nicks.pop_front();
        }
        self.nicks.push_back(nick);
    }

    fn notice(&mut self, text: &str, tone: Tone) -> io::Result<Next> {
        self.print(&render::notice(text, tone, &self.form))
    }

    /// A key, a paste, or another size.
    async fn take(&mut self, input: Input) -> io::Result<Next> {
        let keyed = match input {
            Input::Key(key) => self.editor.key(key),
            Input::Paste(text) => self.editor.paste(&text),
            Input::Resize(columns, _) => {
                self.screen.columns = screen::width_of(columns);
                self.form.columns = Some(self.screen.columns);
                Keyed::Changed
            }
            _ => Keyed::Nothing,
        };
        match keyed {
            Keyed::Nothing => Ok(Next::GoOn),
            Keyed::Changed => self.print(""),
            Keyed::Line(line) => self.entered(line),
            Keyed::Tab => self.complete().await,
            Keyed::Clear => self.with_below(|screen, below| screen.clear(below)),
            Keyed::Suspend => self.suspend(),
            Keyed::Full => self.notice("the line is full: /send sends a file", Tone::Warning),
            Keyed::End => Ok(Next::End),
        }
    }

    /// A line is done.
    fn entered(&mut self, line: String) -> io::Result<Next> {
        self.print("")?;
        if line.trim().is_empty() {
            return Ok(Next::GoOn);
        }
        if let Err(error) = self.editor.history.push(&line) {
            self.notice(&format!("the lines that you type are no longer kept: {error}"), Tone::Warning)?;
        }
        match self.lines.try_send(line) {
            Ok(()) => Ok(Next::GoOn),
            Err(_) => self.notice("not sent: the lines before it are still on their way", Tone::Warning),
        }
    }

    async fn complete(&mut self) -> io::Result<Next> {
        let peers = self.peer.peers().await;
        let peers: Vec<String> = peers.iter().map(|peer| peer.addr.to_string()).collect();
        let nicks: Vec<String> = self.nicks.iter().cloned().collect();
        let before = self.editor.line().to_owned();
        let choices = self.editor.complete(&nicks, &peers);
        if choices.is_empty() || self.editor.line() != before {
            return self.print("");
        }
        self.notice(&choices.join("  "), Tone::Notice)
    }

    /// Ctrl-Z: back in the shell until that brings it to the front again.
    fn suspend(&mut self) -> io::Result<Next> {
        self.screen.leave()?;
        self.raw = None;
        kill_process(getpid(), Signal::TSTP)?;
        self.raw = Some(RawMode::enter()?);
        self.screen.columns = screen::columns();
        self.form.columns = Some(self.screen.columns);
        self.print("")
    }

    /// Shows lines above, and what is below as it is now.
    fn print(&mut self, lines: &str) -> io::Result<Next> {
        self.with_below(|screen, below| screen.print(lines, below))
    }

    fn with_below(
        &mut self,
        draw: impl FnOnce(&mut Screen<Stdout>, Below<'_>) -> io::Result<()>,
    ) -> io::Result<Next> {
        let status = self.transfers.line(self.screen.columns.saturating_sub(1));
        let nick = self.peer.nick().map(|nick| render::as_name(&nick));
        let seen = nick.as_deref().map_or_else(|| "> ".to_owned(), |nick| format!("<{nick}> "));
        let painted = nick.as_deref().map_or_else(
            || seen.clone(),
            |nick| format!("<{}> ", Look::of_nick(nick).paint(nick, self.form.colours)),
        );
        let below = Below { status: status.as_deref(), prompt: (&seen, &painted), editor: &self.editor };
        draw(&mut self.screen, below)?;
        Ok(Next::GoOn)
    }
}
