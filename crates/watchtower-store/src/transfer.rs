//! A store as text, for backups and for moving to another version: a JSON value
//! a line, and a last line that says how many there are, so that a copy that was
//! cut off is known.
//!
//! Knows the trait alone, so each implementation can be exported and imported.

use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use watchtower_hub::{
    Audience, ChannelName, Content, ContentKind, Epoch, Message, Position, SenderId, Timestamp,
};

use crate::{Callback, Change, Kind, ReadError, ReadLimit, Record, Refused, Store};

/// The version of the text that is written, and the latest one that is read.
const VERSION: u32 = 1;
/// How much is read from a store, and submitted to one, at a time.
const CHUNK: usize = 1000;
const CHUNK_BYTES: u64 = 1 << 20;
/// The longest line: six times the longest message, since JSON may take that.
const LINE_BYTES_MAX: u64 = 6 * (64 << 20);

/// What was written or read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Logs of channels.
    pub logs: u64,
    /// Their messages.
    pub messages: u64,
    /// Records beside them.
    pub records: u64,
}

impl Transferred {
    fn lines(self) -> u64 {
        self.logs + self.messages + self.records
    }
}

/// Why a transfer was not finished.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The text could not be written or read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store to be exported could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store refused what was imported.
    #[error("line {line}: {refused}")]
    Refused {
        /// The last line that was submitted.
        line: u64,
        /// Why.
        refused: Refused,
    },
    /// A line is none of an export.
    #[error("line {line}: {reason}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The store that is imported to has something in it.
    #[error("the store is not empty: import into a new one")]
    NotEmpty,
    /// The last line is missing, or says another number of lines.
    #[error("the text ends after {lines} lines, and is not complete")]
    Incomplete {
        /// How many were read.
        lines: u64,
    },
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Watchtower { version: u32 },
    Log { channel: String, epoch: String, first: u64, next: u64 },
    Message(MessageLine),
    Sender { id: u32, last_active: u64 },
    Join { sender: u32, channel: String, since: u64, standing: bool },
    Callback { id: String, sender: u32, url: String, channels: Vec<(String, String)> },
    Value { name: String, bytes: String },
    End { lines: u64 },
}

/// A message of the log whose line came before.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageLine {
    offset: u64,
    time: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    kind: KindName,
    /// Text and JSON as text, anything else as base64.
    content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extras: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receivers: Option<Vec<u32>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindName {
    Text,
    Json,
    Binary,
}

/// Writes all of a store, and tells `progress` now and then how much it was.
/// What is changed meanwhile may be in it or not.
///
/// # Errors
///
/// [`TransferError`]; what was written is not complete then.
pub fn export(
    store: &dyn Store,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Transferred),
) -> Result<Transferred, TransferError> {
    let mut done = Transferred::default();
    put(out, &Line::Watchtower { version: VERSION })?;
    let mut after = None;
    loop {
        let channels = store.channels(after.as_ref(), CHUNK);
        let Some((last, _)) = channels.last() else { break };
        after = Some(last.clone());
        for (channel, _) in channels {
            export_log(store, &channel, out, &mut done, progress)?;
        }
    }
    for kind in Kind::ALL {
        let mut after = None;
        loop {
            let records = store.records(kind, after.as_ref(), CHUNK);
            let Some(last) = records.last() else { break };
            after = Some(last.key());
            for record in &records {
                put(out, &record_line(record))?;
                done.records += 1;
            }
            progress(done);
        }
    }
    put(out, &Line::End { lines: done.lines() })?;
    out.flush()?;
    Ok(done)
}

fn export_log(
    store: &dyn Store,
    channel: &ChannelName,
    out: &mut dyn Write,
    done: &mut Transferred,
    progress: &mut dyn FnMut(Transferred),
) -> Result<(), TransferError> {
    // It may have ended since it was listed.
    let Some(ends) = store.ends(channel) else { return Ok(()) };
    let (channel_text, epoch) = (channel.to_string(), ends.epoch.to_string());
    put(out, &Line::Log { channel: channel_text, epoch, first: ends.first, next: ends.next })?;
    done.logs += 1;
    let mut from = ends.first;
    while from < ends.next {
        let page = match store.read(channel, from, ReadLimit { messages: CHUNK, bytes: CHUNK_BYTES }) {
            Ok(page) if page.epoch == ends.epoch && page.next > from => page,
            Ok(_) | Err(ReadError::NoLog { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        from = page.next;
        for message in page.messages.iter().filter(|message| message.position().offset < ends.next) {
            put(out, &Line::Message(message_line(message)))?;
            done.messages += 1;
        }
        progress(*done);
    }
    Ok(())
}

fn put(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

fn message_line(message: &Message) -> MessageLine {
    let content = message.content();
    MessageLine {
        offset: message.position().offset,
        time: message.time().as_millis(),
        sender: message.sender().map(SenderId::get),
        event: message.event().map(str::to_owned),
        kind: match content.kind() {
            ContentKind::Text => KindName::Text,
            ContentKind::Json => KindName::Json,
            ContentKind::Binary => KindName::Binary,
        },
        content: content.as_text().map_or_else(|| STANDARD.encode(content.bytes()), str::to_owned),
        extras: message.extras().map(|extras| STANDARD.encode(extras)),
        receivers: match message.audience() {
            Audience::Channel => None,
            Audience::Senders(senders) => Some(senders.iter().map(|sender| sender.get()).collect()),
        },
    }
}

fn record_line(record: &Record) -> Line {
    match record {
        Record::Sender { id, last_active } => {
            Line::Sender { id: id.get(), last_active: last_active.as_millis() }
        }
        Record::Join { sender, channel, since, standing } => Line::Join {
            sender: sender.get(),
            channel: channel.to_string(),
            since: since.as_millis(),
            standing: *standing,
        },
        Record::Callback(Callback { id, sender, url, channels }) => Line::Callback {
            id: STANDARD.encode(id),
            sender: sender.get(),
            url: url.to_string(),
            channels: channels.iter().map(|(name, at)| (name.to_string(), at.to_string())).collect(),
        },
        Record::Value { name, bytes } => {
            Line::Value { name: name.to_string(), bytes: STANDARD.encode(bytes) }
        }
    }
}

/// Reads what [`export`] wrote into an empty store: with the same epochs and
/// offsets. Whoever wants to know how far it is counts what `input` gives.
///
/// # Errors
///
/// [`TransferError`]. The store is empty again then, unless it refuses that too;
/// a process that ends before leaves a part.
pub fn import(store: &dyn Store, input: &mut dyn BufRead) -> Result<Transferred, TransferError> {
    if !is_empty(store) {
        return Err(TransferError::NotEmpty);
    }
    let imported = import_lines(store, input);
    if imported.is_err() {
        // A store that fails refuses this as well, and why is told already.
        let _ = clear(store);
    }
    imported
}

fn is_empty(store: &dyn Store) -> bool {
    let has_records = Kind::ALL.iter().any(|kind| !store.records(*kind, None, 1).is_empty());
    !has_records && store.channels(None, 1).is_empty()
}

fn clear(store: &dyn Store) -> Result<(), Refused> {
    loop {
        let logs = store.channels(None, CHUNK).into_iter();
        let mut changes: Vec<_> = logs.map(|(channel, _)| Change::Forget { channel }).collect();
        for kind in Kind::ALL {
            let records = store.records(kind, None, CHUNK);
            changes.extend(records.iter().map(|record| Change::Delete(record.key())));
        }
        if changes.is_empty() {
            return Ok(());
        }
        store.commit(changes).wait()?;
    }
}

fn import_lines(store: &dyn Store, input: &mut dyn BufRead) -> Result<Transferred, TransferError> {
    let mut import = Import { store, log: None, changes: Vec::new(), bytes: 0, line: 0 };
    let mut done = Transferred::default();
    let mut text = String::new();
    loop {
        text.clear();
        import.line += 1;
        input.take(LINE_BYTES_MAX).read_line(&mut text)?;
        if !text.ends_with('\n') {
            return Err(TransferError::Incomplete { lines: done.lines() });
        }
        let line = serde_json::from_str(&text)
            .map_err(|error: serde_json::Error| import.wrong(error.to_string()))?;
        match &line {
            Line::Log { .. } => done.logs += 1,
            Line::Message(_) => done.messages += 1,
            Line::Watchtower { version } if import.line == 1 && *version <= VERSION => continue,
            Line::Watchtower { version } if import.line == 1 => {
                return Err(import.wrong(format!("version {version} is newer than this program")));
            }
            Line::End { lines } => {
                if *lines != done.lines() {
                    return Err(TransferError::Incomplete { lines: done.lines() });
                }
                if !input.fill_buf()?.is_empty() {
                    import.line += 1;
                    return Err(import.wrong("there is more behind the last line of an export"));
                }
                import.end_log();
                import.submit()?;
                return Ok(done);
            }
            _ => done.records += 1,
        }
        if import.line == 1 {
            return Err(import.wrong("it is not the first line of an export"));
        }
        import.bytes += text.len() as u64;
        let changes = import.changes(line).map_err(|reason| import.wrong(reason))?;
        import.changes.extend(changes);
        if import.changes.len() >= CHUNK || import.bytes >= CHUNK_BYTES {
            import.submit()?;
        }
    }
}

struct Import<'a> {
    store: &'a dyn Store,
    /// The log that messages belong to, and where it ends.
    log: Option<(ChannelName, Epoch, u64)>,
    changes: Vec<Change>,
    bytes: u64,
    line: u64,
}

impl Import<'_> {
    fn wrong(&self, reason: impl Into<String>) -> TransferError {
        TransferError::Line { line: self.line, reason: reason.into() }
    }

    fn submit(&mut self) -> Result<(), TransferError> {
        self.bytes = 0;
        let changes = std::mem::take(&mut self.changes);
        let line = self.line;
        self.store.commit(changes).wait().map_err(|refused| TransferError::Refused { line, refused })
    }

    /// What is left to do for a log when its messages are over: the last ones
    /// may have been lost.
    fn end_log(&mut self) {
        if let Some((channel, _, next)) = self.log.take() {
            self.changes.push(Change::Skip { channel, next });
        }
    }

    /// What a line means.
    fn changes(&mut self, line: Line) -> Result<Vec<Change>, &'static str> {
        if !matches!(line, Line::Message(_)) {
            self.end_log();
        }
        Ok(match line {
            Line::Log { channel, epoch, first, next } => {
                let channel = name(&channel)?;
                let epoch = Epoch::parse(&epoch).ok_or("not an epoch")?;
                if next < first {
                    return Err("a log that ends before it begins");
                }
                self.log = Some((channel.clone(), epoch, next));
                vec![Change::Begin { channel: channel.clone(), epoch }, Change::Skip { channel, next: first }]
            }
            Line::Message(line) => {
                let (channel, epoch, next) = self.log.clone().ok_or("a message of no log")?;
                if line.offset >= next {
                    return Err("a message beyond the end of its log");
                }
                let position = Position { epoch, offset: line.offset };
                let message = read_message(line, channel.clone(), position)?;
                vec![Change::Skip { channel, next: position.offset }, Change::Append(message)]
            }
            Line::Sender { id, last_active } => {
                let last_active = Timestamp::from_millis(last_active);
                vec![Change::Put(Record::Sender { id: sender(id)?, last_active })]
            }
            Line::Join { sender: id, channel, since, standing } => {
                let since = Timestamp::from_millis(since);
                let (sender, channel) = (sender(id)?, name(&channel)?);
                vec![Change::Put(Record::Join { sender, channel, since, standing })]
            }
            Line::Callback { id, sender: of, url, channels } => {
                let channels = channels.iter().map(|(channel, position)| {
                    Ok((name(channel)?, Position::parse(position).ok_or("not a position")?))
                });
                vec![Change::Put(Record::Callback(Callback {
                    id: bytes(&id)?.try_into().map_err(|_| "an id has 16 bytes")?,
                    sender: sender(of)?,
                    url: url.into(),
                    channels: channels.collect::<Result<_, &str>>()?,
                }))]
            }
            Line::Value { name, bytes: value } => {
                vec![Change::Put(Record::Value { name: name.into(), bytes: bytes(&value)?.into() })]
            }
            Line::Watchtower { .. } | Line::End { .. } => return Err("a first line in the middle"),
        })
    }
}

fn read_message(
    line: MessageLine,
    channel: ChannelName,
    position: Position,
) -> Result<Message, &'static str> {
    let content = match line.kind {
        KindName::Text => Content::text(line.content),
        KindName::Json => Content::json(line.content).ok_or("not JSON that is kept")?,
        KindName::Binary => Content::binary(bytes(&line.content)?),
    };
    let from = line.sender.map(sender).transpose()?;
    let mut message = Message::detached(channel, position, from, content, Timestamp::from_millis(line.time));
    if let Some(event) = line.event {
        message = message.with_event(&event);
    }
    if let Some(extras) = line.extras {
        message = message.with_extras(bytes(&extras)?.into());
    }
    if let Some(receivers) = line.receivers {
        let receivers: Vec<_> = receivers.into_iter().map(sender).collect::<Result<_, _>>()?;
        message = message.with_receivers(receivers);
    }
    Ok(message)
}

fn name(text: &str) -> Result<ChannelName, &'static str> {
    ChannelName::parse(text).map_err(|_| "not a channel's name")
}

fn sender(number: u32) -> Result<SenderId, &'static str> {
    SenderId::new(number).ok_or("0 is nobody's id")
}

fn bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(text).map_err(|_| "not base64")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::MemoryStore;

    const EXPORT: &str = concat!(
        r#"{"watchtower":{"version":1}}"#,
        "\n",
        r#"{"log":{"channel":"5","epoch":"0000000000000007","first":3,"next":3}}"#,
        "\n",
        r#"{"log":{"channel":"a","epoch":"0000000000000008","first":2,"next":8}}"#,
        "\n",
        r#"{"message":{"offset":2,"time":10,"sender":9,"event":"e","kind":"text","content":"é","receivers":[1]}}"#,
        "\n",
        r#"{"message":{"offset":4,"time":11,"kind":"json","content":"{\"a\": 1}"}}"#,
        "\n",
        r#"{"message":{"offset":5,"time":12,"kind":"binary","content":"AP8=","extras":"eA=="}}"#,
        "\n",
        r#"{"sender":{"id":9,"last_active":20}}"#,
        "\n",
        r#"{"join":{"sender":9,"channel":"a","since":21,"standing":true}}"#,
        "\n",
        r#"{"callback":{"id":"AQEBAQEBAQEBAQEBAQEBAQ==","sender":9,"url":"http://x/","channels":[["a","0000000000000008:4"]]}}"#,
        "\n",
        r#"{"value":{"name":"secret","bytes":"cw=="}}"#,
        "\n",
        r#"{"end":{"lines":9}}"#,
        "\n",
    );

    fn imported(text: &str) -> Result<(MemoryStore, Transferred), TransferError> {
        let store = MemoryStore::new();
        let done = import(&store, &mut text.as_bytes())?;
        Ok((store, done))
    }

    #[test]
    fn an_export_is_imported_and_exported_again_as_the_same_bytes() {
        let (store, done) = imported(EXPORT).unwrap();
        assert_eq!(done, Transferred { logs: 2, messages: 3, records: 4 });
        let ends = store.ends(&5.into()).unwrap();
        assert_eq!((ends.epoch, ends.first, ends.next), (Epoch::from_bits(7), 3, 3));
        let ends = store.ends(&ChannelName::parse("a").unwrap()).unwrap();
        assert_eq!((ends.first, ends.next), (2, 8), "the last two were lost");
        let secret = Record::Value { name: "secret".into(), bytes: Bytes::from_static(b"s") };
        assert_eq!(store.record(&secret.key()), Some(secret));
        let (mut again, mut told) = (Vec::new(), Transferred::default());
        assert_eq!(export(&store, &mut again, &mut |so_far| told = so_far).unwrap(), done);
        assert_eq!(told, done);
        assert_eq!(String::from_utf8(again).unwrap(), EXPORT);
    }

    #[test]
    fn an_import_that_fails_leaves_the_store_empty() {
        let store = MemoryStore::new();
        let channels = (0..CHUNK + 7).map(|number| {
            format!("{{\"log\":{{\"channel\":\"{number}\",\"epoch\":\"0000000000000008\",\"first\":1,\"next\":1}}}}\n")
        });
        let first = EXPORT.split_inclusive('\n').next().unwrap().to_owned();
        let text: String = [first].into_iter().chain(channels).collect();
        let failed = import(&store, &mut text.as_bytes());
        assert!(matches!(failed, Err(TransferError::Incomplete { lines }) if lines == CHUNK as u64 + 7));
        assert!(is_empty(&store));
        assert!(import(&store, &mut EXPORT.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_cut_off_or_wrong_is_told_by_line() {
        let check = |text: &str, expected: &str| {
            assert_eq!(imported(text).err().map(|error| error.to_string()).as_deref(), Some(expected));
        };
        let lines: Vec<_> = EXPORT.split_inclusive('\n').collect();
        check(&lines[..5].concat(), "the text ends after 4 lines, and is not complete");
        check(&EXPORT[..EXPORT.len() - 1], "the text ends after 9 lines, and is not complete");
        check(&[lines[0], lines[10]].concat(), "the text ends after 0 lines, and is not complete");
        check(&lines[1..].concat(), "line 1: it is not the first line of an export");
        check("{\"watchtower\":{\"version\":2}}\n", "line 1: version 2 is newer than this program");
        check(&[lines[0], lines[3]].concat(), "line 2: a message of no log");
        let wrong = EXPORT.replace("AP8=", "A");
        check(&wrong, "line 6: not base64");
        check(&EXPORT.replace("\"next\":3", "\"next\":2"), "line 2: a log that ends before it begins");
        check(&EXPORT.replace("\"next\":8", "\"next\":5"), "line 6: a message beyond the end of its log");
        check(&[EXPORT, EXPORT].concat(), "line 12: there is more behind the last line of an export");
        check(&format!("{EXPORT}\n"), "line 12: there is more behind the last line of an export");
        let (store, _) = imported(EXPORT).unwrap();
        assert!(matches!(import(&store, &mut EXPORT.as_bytes()), Err(TransferError::NotEmpty)));
    }
}
