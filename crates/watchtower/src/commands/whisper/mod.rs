//! `watchtower whisper`: a peer of the whispernet, for a person at a terminal or for a pipe
//! [whispernet: terminal commands].

mod arguments;
mod complete;
mod history;
mod line_editor;
mod palette;
mod perform;
mod plain;
mod render;
mod screen;
mod slash;
mod speaker;
mod telling;
mod terminal;
mod transfers;
mod warned;

use std::env;
use std::io::{self, IsTerminal};
use std::iter;

use jiff::tz::TimeZone;
use watchtower_whisper::Peer;
use watchtower_whisper::page::{self, Page};

pub(crate) use arguments::Whisper;
use history::History;
use line_editor::LineEditor;
use plain::Plain;
use render::{Form, Tone};
use warned::Warned;

use crate::failure::Failure;
use crate::logs::{self, LogFormat};
use crate::runtime;
use crate::signals::Signals;

/// The file in the data folder that the lines go to that were typed.
const HISTORY_FILE: &str = "whisper-history";

impl Whisper {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // A log would be written over the line that is typed.
        let logs = env::var_os("RUST_LOG").is_some() && !(has_editor() && io::stderr().is_terminal());
        let _log = logs.then(|| logs::start(LogFormat::Text)).transpose()?;
        let runtime = runtime::for_server()?;
        let ended = runtime.block_on(self.chat());
        // Nobody waits for a file or a name server.
        runtime.shutdown_background();
        ended
    }

    async fn chat(self) -> Result<(), Failure> {
        let signals = Signals::to_stop_or_reload()?;
        let (peer, events, port) = self.start().await?;
        let page = self.page(&peer).await?;
        let is_terminal = io::stdout().is_terminal();
        let form = Form {
            columns: is_terminal.then(screen::columns),
            colours: self.color.is_on(is_terminal),
            zone: TimeZone::system(),
        };
        let mut greeting: Vec<_> = port.map(|port| (Tone::Warning, port)).into_iter().collect();
        greeting.extend(where_it_is(&peer, has_editor()));
        greeting.extend(page.iter().flat_map(where_the_page_is));
        let ended = if has_editor() {
            let (editor, complaint) = self.editor();
            greeting.extend(complaint);
            terminal::run(&peer, events, signals, form, editor, &greeting).await
        } else {
            for (tone, text) in &greeting {
                plain::notice(text, *tone);
            }
            let chat = Plain { peer: &peer, events, signals, form, warned: Warned::default() };
            chat.run(!self.peers.is_empty()).await
        };
        drop(page);
        peer.shut_down().await;
        ended
    }

    /// The page, if there is to be one.
    async fn page(&self, peer: &Peer) -> Result<Option<Page>, Failure> {
        let Some(listen) = self.http else { return Ok(None) };
        let page = page::serve(peer.clone(), &listen.addrs(), page::Limits::default()).await;
        Ok(Some(page.map_err(anyhow::Error::from)?))
    }

    /// The line to type in, with those that were typed before; or what is wrong with them.
    fn editor(&self) -> (LineEditor, Option<(Tone, String)>) {
        let Some(folder) = self.data_dir() else { return (LineEditor::default(), None) };
        let path = folder.join(HISTORY_FILE);
        match History::open(&path) {
            Ok(history) => (LineEditor::with_history(history), None),
            Err(error) => {
                let text = format!("the lines that you type are not kept: {}: {error}", path.display());
                (LineEditor::default(), Some((Tone::Warning, text)))
            }
        }
    }
}

/// Whether a person types on a terminal that can move its cursor.
fn has_editor() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    io::stdin().is_terminal() && io::stdout().is_terminal() && !is_dumb
}

/// The address that others connect to, and what a person can do.
fn where_it_is(peer: &Peer, has_editor: bool) -> Vec<(Tone, String)> {
    let address = peer.address();
    if !has_editor {
        return vec![(Tone::Notice, format!("listening on {address}"))];
    }
    let mut lines = vec![
        format!("you are at {address}"),
        format!("others connect with: watchtower whisper --peer {address}"),
        "/help lists the commands, Ctrl-D ends".to_owned(),
    ];
    if peer.nick().is_none() {
        lines.push("you have no name yet: /nick NAME".to_owned());
    }
    lines.into_iter().map(|line| (Tone::Notice, line)).collect()
}

fn where_the_page_is(page: &Page) -> impl Iterator<Item = (Tone, String)> {
    let place = (Tone::Notice, format!("the page is at {}", page.url()));
    iter::once(place).chain(page.warning().map(|warning| (Tone::Warning, warning)))
}
