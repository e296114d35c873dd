//! Saving the files that arrive ([whispernet: 10]).
//!
//! Contents go to the disk as they come, where they belong in a file that has
//! no name to be found by yet, and which is gone if it does not become whole.
//! Knows nothing of messages: which parts are new, the assembler says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::{Builder, TempPath};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use watchtower_hub::Timestamp;
use watchtower_protocols::whispernet::{
    Assembler, FileLimits, Part, Sender, Shown, Taken, TransferError, TransferId, Whole,
};

use crate::disk::{blocking, head, image_type, sha256};
use crate::driver::{Driver, State};
use crate::event::Event;

/// How many bytes wait for the disk at most, of all files.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// What a piece counts for in that besides its contents.
const PIECE_BYTES: usize = 4 << 10;

/// What a file that came in one message counts for besides its contents. So few
/// are open at a time.
const FILE_BYTES: usize = 1 << 20;

/// How many bytes a permit of the semaphore stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// How many names are tried for a file: `a.txt`, `a (2).txt` and so on.
const NAMES_MAX: u32 = 10_000;

/// The files that are arriving.
pub(crate) struct Downloads {
    dir: Option<Arc<Path>>,
    file_bytes_max: u64,
    assembler: Assembler,
    /// Where the pieces go of those in parts.
    saving: BTreeMap<TransferId, UnboundedSender<Piece>>,
    room: Arc<Semaphore>,
}

/// Contents on their way to the disk.
struct Piece {
    offset: u64,
    contents: Bytes,
    /// Who sent it.
    nick: Option<String>,
    _room: OwnedSemaphorePermit,
}

/// A file that is being saved.
struct Saving {
    transfer: TransferId,
    name: String,
    mime_type: String,
    bytes: u64,
    /// What proves it, if it comes in parts.
    whole: Option<Whole>,
}

/// Why a file is not saved.
#[derive(Debug, Error)]
enum Unsaved {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("files are not saved here")]
    NoDirectory,
    #[error("the disk takes it too slowly")]
    SlowDisk,
    #[error("it cannot be saved: {0}")]
    Disk(#[from] io::Error),
    #[error("what came is not what was sent: its hash is another")]
    WrongHash,
}

impl Downloads {
    /// Files are saved in `dir`, if there is one.
    pub(crate) fn new(dir: Option<PathBuf>, limits: FileLimits) -> Downloads {
        Downloads {
            dir: dir.map(Into::into),
            file_bytes_max: limits.file_bytes,
            assembler: Assembler::new(limits),
            saving: BTreeMap::new(),
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX / PERMIT_BYTES)),
        }
    }

    /// A number for a file that goes out.
    pub(crate) fn new_transfer(&mut self) -> TransferId {
        self.assembler.new_transfer()
    }

    /// When [`expire`](Downloads::expire) is due.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.assembler.deadline()
    }

    /// Gives up what did not come in time: what to tell of it.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Event> {
        let expired = self.assembler.expire(now).into_iter();
        let failed = expired.map(|(transfer, whole, error)| {
            self.saving.remove(&transfer);
            failed(transfer, whole.name(), &error.into())
        });
        failed.collect()
    }

    /// All that is not whole is gone.
    pub(crate) fn end(&mut self) {
        self.saving.clear();
    }

    fn give_up(&mut self, transfer: TransferId) {
        self.assembler.give_up(transfer);
        self.saving.remove(&transfer);
    }

    fn piece(
        &self,
        offset: u64,
        contents: &Bytes,
        nick: Option<&str>,
        extra: usize,
    ) -> Result<Piece, Unsaved> {
        let nick = nick.map(str::to_owned);
        let bytes = contents.len() + nick.as_ref().map_or(0, String::len) + extra;
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).map_err(|_| Unsaved::SlowDisk)?;
        let room = self.room.clone().try_acquire_many_owned(permits).map_err(|_| Unsaved::SlowDisk)?;
        Ok(Piece { offset, contents: contents.clone(), nick, _room: room })
    }
}

impl Driver {
    /// A part of a file came.
    pub(crate) fn take_part(self: &Arc<Self>, state: &mut State, shown: &Shown, part: &Part, now: Timestamp) {
        let name = part.whole.name();
        let event = match state.downloads.assembler.take(part, Sender::of(shown), now) {
            Taken::Repeated => return,
            Taken::Refused { transfer, error } => failed(transfer, name, &error.into()),
            Taken::New { transfer, bytes_done, is_last } => {
                match self.save_part(state, transfer, shown.nick.as_deref(), part) {
                    Ok(()) => {
                        if is_last {
                            state.downloads.saving.remove(&transfer);
                        }
                        let (name, bytes_all) = (name.to_owned(), part.whole.bytes());
                        Event::Progress { transfer: transfer.0, name, outgoing: false, bytes_done, bytes_all }
                    }
                    Err(error) => {
                        state.downloads.give_up(transfer);
                        failed(transfer, name, &error)
                    }
                }
            }
        };
        state.tell(&event);
    }

    fn save_part(
        self: &Arc<Self>,
        state: &mut State,
        transfer: TransferId,
        nick: Option<&str>,
        part: &Part,
    ) -> Result<(), Unsaved> {
        let dir = state.downloads.dir.clone().ok_or(Unsaved::NoDirectory)?;
        let piece = state.downloads.piece(part.offset(), &part.contents, nick, PIECE_BYTES)?;
        let pieces = match state.downloads.saving.get(&transfer) {
            Some(pieces) => pieces.clone(),
            None => {
                let (pieces, arriving) = unbounded_channel();
                state.downloads.saving.insert(transfer, pieces.clone());
                let saving = Saving {
                    transfer,
                    name: part.whole.name().to_owned(),
                    mime_type: part.whole.mime_type().to_owned(),
                    bytes: part.whole.bytes(),
                    whole: Some(part.whole.clone()),
                };
                self.spawn(state, self.clone().save(dir, saving, arriving));
                pieces
            }
        };
        // Its task has failed, and tells why.
        pieces.send(piece).ok();
        Ok(())
    }

    /// A file came in one message.
    pub(crate) fn take_file(self: &Arc<Self>, state: &mut State, shown: &Shown) {
        let (Some(file), Some(dir)) = (&shown.file, state.downloads.dir.clone()) else { return };
        let transfer = state.downloads.new_transfer();
        let (bytes, bytes_max) = (file.contents.len() as u64, state.downloads.file_bytes_max);
        let piece = match state.downloads.piece(0, &file.contents, shown.nick.as_deref(), FILE_BYTES) {
            _ if bytes > bytes_max => Err(TransferError::TooLarge { bytes, bytes_max }.into()),
            piece => piece,
        };
        match piece {
            Ok(piece) => {
                let (pieces, arriving) = unbounded_channel();
                pieces.send(piece).ok();
                let (name, mime_type) = (file.name.clone(), file.mime_type.clone());
                let saving = Saving { transfer, name, mime_type, bytes, whole: None };
                self.spawn(state, self.clone().save(dir, saving, arriving));
            }
            Err(error) => state.tell(&failed(transfer, &file.name, &error)),
        }
    }

    /// Saves a file as it arrives, and tells what becomes of it.
    async fn save(self: Arc<Self>, dir: Arc<Path>, saving: Saving, pieces: UnboundedReceiver<Piece>) {
        let transfer = saving.transfer;
        let event = match saving.run(&dir, pieces).await {
            Ok(Some(Saved { path, image, nick })) => {
                let Saving { name, mime_type, .. } = saving;
                Event::Saved { transfer: transfer.0, name, mime_type, image, path, nick }
            }
            // Whoever gave it up has told why.
            Ok(None) => return,
            Err(error) => failed(transfer, &saving.name, &error),
        };
        self.look(|state| {
            state.downloads.give_up(transfer);
            state.tell(&event);
        });
    }
}

fn failed(transfer: TransferId, name: &str, error: &Unsaved) -> Event {
    Event::Failed { transfer: transfer.0, name: name.to_owned(), reason: error.to_string() }
}

/// A file that is saved.
struct Saved {
    path: PathBuf,
    image: Option<&'static str>,
    nick: Option<String>,
}

impl Saving {
    /// Writes the pieces until all are there. `None` when no more come.
    async fn run(
        &self,
        dir: &Arc<Path>,
        mut pieces: UnboundedReceiver<Piece>,
    ) -> Result<Option<Saved>, Unsaved> {
        let (file, partial) = create(dir.clone(), &self.name).await?;
        let mut bytes_done = 0;
        while let Some(piece) = pieces.recv().await {
            let Piece { offset, contents, nick, _room } = piece;
            bytes_done += contents.len() as u64;
            let writer = file.clone();
            blocking(move || writer.write_all_at(&contents, offset)).await?;
            if bytes_done == self.bytes {
                self.check(&file).await?;
                let image = image_type(&head(&file, self.bytes).await?);
                let (dir, name) = (dir.clone(), self.name.clone());
                let path = blocking(move || give_name(&file, partial, &dir, &name)).await?;
                return Ok(Some(Saved { path, image, nick }));
            }
        }
        Ok(None)
    }

    /// Reads again what was written: whatever order it came in, it is what was
    /// sent.
    async fn check(&self, file: &Arc<File>) -> Result<(), Unsaved> {
        match &self.whole {
            Some(whole) if !whole.has_hash(sha256(file, self.bytes).await?) => Err(Unsaved::WrongHash),
            _ => Ok(()),
        }
    }
}

/// A new file that its owner alone may read, by a name that says that it is not
/// whole. It is removed when its path is dropped.
async fn create(dir: Arc<Path>, name: &str) -> io::Result<(Arc<File>, TempPath)> {
    let prefix = format!(".{name}.");
    blocking(move || {
        fs::create_dir_all(&dir)?;
        let file = Builder::new().prefix(&prefix).suffix(".part").tempfile_in(&dir)?;
        let (file, partial) = file.into_parts();
        Ok((Arc::new(file), partial))
    })
    .await
}

/// Gives a file that is whole its name, or the first one with a number that no
/// file has.
fn give_name(file: &File, mut partial: TempPath, dir: &Path, name: &str) -> io::Result<PathBuf> {
    file.sync_all()?;
    for number in 1..=NAMES_MAX {
        let path = dir.join(numbered(name, number));
        match partial.persist_noclobber(&path) {
            Ok(()) => return Ok(path),
            Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => partial = taken.path,
            Err(failed) => return Err(failed.error),
        }
    }
    Err(io::Error::other("there are too many files of its name"))
}

/// `photo.jpg`, `photo (2).jpg` and so on.
fn numbered(name: &str, number: u32) -> String {
    match name.rsplit_once('.') {
        _ if number == 1 => name.to_owned(),
        Some((stem, extension)) => format!("{stem} ({number}).{extension}"),
        None => format!("{name} ({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_before_the_extension() {
        for (name, expected) in
            [("photo.jpg", "photo (2).jpg"), ("photo", "photo (2)"), ("a.tar.gz", "a.tar (2).gz")]
        {
            assert_eq!(numbered(name, 1), name);
            assert_eq!(numbered(name, 2), expected);
        }
    }
}
