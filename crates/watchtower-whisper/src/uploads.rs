//! Sending files ([whispernet: 10]): a small one in one message, as deployed
//! peers do, a larger one in parts.
//!
//! Parts go at a quarter of what flood control allows ([whispernet: 12]), all
//! files together, and wait for peers that take less. So words find room
//! between them, and peers that share an address and pass each part on stay
//! below the threshold for a while.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use watchtower_protocols::whispernet::safe_text::safe_file_name;
use watchtower_protocols::whispernet::{FloodLimits, PART_BYTES, Said, TransferId, WHOLE_BYTES_MAX, Whole};

use crate::disk::{blocking, head, mime_type, read, sha256};
use crate::driver::Driver;
use crate::event::Event;
use crate::{Unsendable, clock};

/// For how long a part waits for a peer, and for one that takes little.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files that go out.
pub(crate) struct Uploads {
    /// When the next part may go. Whoever holds it is the next to send one.
    turn: Mutex<Instant>,
    bytes_per_second: u64,
    under_way: AtomicUsize,
}

impl Uploads {
    pub(crate) fn new(flood: FloodLimits) -> Uploads {
        Uploads {
            turn: Mutex::new(Instant::now()),
            bytes_per_second: (flood.bytes_per_second / 4).max(1),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Whether all parts of all files are out.
    pub(crate) fn are_over(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    /// How long the wire is left to others after that many bytes of a file, in
    /// base64.
    fn pause(&self, bytes: u64) -> Duration {
        let micros = bytes.saturating_mul(4_000_000) / 3 / self.bytes_per_second;
        Duration::from_micros(micros)
    }
}

/// A file that is being sent.
struct Upload {
    path: PathBuf,
    file: Arc<File>,
    /// A safe name.
    name: String,
    bytes: u64,
    mime_type: &'static str,
    nick: Option<String>,
    transfer: TransferId,
}

impl Driver {
    /// Sends a file; returns its number once the first part is out.
    pub(crate) async fn send_file(self: &Arc<Self>, path: &Path) -> Result<u64, Unsendable> {
        let (transfer, nick) = self.look(|state| (state.downloads.new_transfer(), state.nick.clone()));
        let upload = Upload::open(path, transfer, nick).await?;
        // An empty `FileContents` is no file to anybody, an empty part is.
        if (1..=PART_BYTES).contains(&upload.bytes) {
            self.send_at_once(&upload).await?;
            return Ok(transfer.0);
        }
        if upload.bytes > WHOLE_BYTES_MAX {
            // Not only after all of it was read.
            return Err(upload.too_large());
        }
        let sha256 = sha256(&upload.file, upload.bytes).await.map_err(|error| upload.unreadable(error))?;
        let whole = Whole::new(&upload.name, upload.mime_type, upload.bytes, sha256, clock::random())
            .map_err(|_| upload.too_large())?;
        let mut parts = Parts { upload, whole, sent: 0, hasher: Sha256::new(), sha256 };
        self.send_part(&mut parts).await?;
        self.uploads.under_way.fetch_add(1, Ordering::AcqRel);
        self.look(|state| self.spawn(state, self.clone().send_rest(parts)));
        Ok(transfer.0)
    }

    async fn send_at_once(self: &Arc<Self>, upload: &Upload) -> Result<(), Unsendable> {
        let contents = read(&upload.file, 0..upload.bytes).await.map_err(|error| upload.unreadable(error))?;
        upload.check_length().await?;
        let file = Some((upload.mime_type, &*contents));
        self.say(Said { nick: upload.nick.as_deref(), body: &upload.name, file }).await?;
        self.look(|state| state.tell(&upload.progress(upload.bytes)));
        Ok(())
    }

    async fn send_rest(self: Arc<Self>, mut parts: Parts) {
        while parts.sent < parts.whole.parts() {
            if let Err(error) = self.send_part(&mut parts).await {
                let (transfer, name) = (parts.upload.transfer.0, parts.upload.name.clone());
                let failed = Event::Failed { transfer, name, reason: error.to_string() };
                self.look(|state| state.tell(&failed));
                break;
            }
        }
        self.uploads.under_way.fetch_sub(1, Ordering::AcqRel);
        self.progressed();
    }

    async fn send_part(self: &Arc<Self>, parts: &mut Parts) -> Result<(), Unsendable> {
        let mut turn = self.uploads.turn.lock().await;
        sleep_until(*turn).await;
        if !self.wait_for_room(PATIENCE).await {
            return Err(Unsendable::NoPeer);
        }
        // Not read before, so that files which wait for their turn take no memory.
        let contents = parts.next().await?;
        let number = parts.sent + 1;
        let pause = self.uploads.pause(contents.len() as u64);
        let part = parts.whole.part(number, contents);
        let nick = parts.upload.nick.as_deref();
        self.update(|state, now| state.say_part(nick, &part, now))?;
        // A part that was late is made up for by the next, and no more.
        *turn = (*turn + pause).max(Instant::now());
        drop(turn);

        parts.sent = number;
        let bytes_done = parts.whole.range(number).end;
        self.look(|state| state.tell(&parts.upload.progress(bytes_done)));
        Ok(())
    }
}

impl Upload {
    async fn open(path: &Path, transfer: TransferId, nick: Option<String>) -> Result<Upload, Unsendable> {
        let owned = path.to_owned();
        let unreadable = |error| Unsendable::Read { path: path.to_owned(), error };
        let opened = blocking(move || {
            // To open a pipe would be to wait for who writes to it.
            if !fs::metadata(&owned)?.is_file() {
                return Ok(None);
            }
            let file = File::open(&owned)?;
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((Arc::new(file), metadata.len())))
        });
        let Some((file, bytes)) = opened.await.map_err(unreadable)? else {
            return Err(Unsendable::NotAFile { path: path.to_owned() });
        };
        let head = head(&file, bytes).await.map_err(unreadable)?;
        let name = safe_file_name(&path.file_name().unwrap_or_default().to_string_lossy());
        let mime_type = mime_type(&head);
        Ok(Upload { path: path.to_owned(), file, name, bytes, mime_type, nick, transfer })
    }

    /// A file that ends early has changed since its length was asked for.
    fn unreadable(&self, error: io::Error) -> Unsendable {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Unsendable::Read { path: self.path.clone(), error },
        }
    }

    fn too_large(&self) -> Unsendable {
        Unsendable::TooLarge { path: self.path.clone(), bytes: self.bytes }
    }

    fn changed(&self) -> Unsendable {
        Unsendable::Changed { path: self.path.clone() }
    }

    async fn check_length(&self) -> Result<(), Unsendable> {
        let file = self.file.clone();
        let metadata = blocking(move || file.metadata()).await.map_err(|error| self.unreadable(error))?;
        if metadata.len() == self.bytes { Ok(()) } else { Err(self.changed()) }
    }

    fn progress(&self, bytes_done: u64) -> Event {
        let (name, bytes_all) = (self.name.clone(), self.bytes);
        Event::Progress { transfer: self.transfer.0, name, outgoing: true, bytes_done, bytes_all }
    }
}

/// A file that is being sent in parts.
struct Parts {
    upload: Upload,
    whole: Whole,
    /// How many parts are out.
    sent: u64,
    /// Over what was read for them.
    hasher: Sha256,
    /// What it is to come to.
    sha256: [u8; 32],
}

impl Parts {
    /// The contents of the next part. The last one is not read where the file
    /// has changed meanwhile: nobody takes the rest for whole then.
    async fn next(&mut self) -> Result<Bytes, Unsendable> {
        let range = self.whole.range(self.sent + 1);
        let is_last = range.end == self.whole.bytes();
        let contents = read(&self.upload.file, range).await;
        let contents = contents.map_err(|error| self.upload.unreadable(error))?;
        let mut hasher = mem::take(&mut self.hasher);
        let hashed = contents.clone();
        let hash = blocking(move || {
            hasher.update(&hashed);
            Ok(hasher)
        });
        self.hasher = hash.await.map_err(|error| self.upload.unreadable(error))?;
        if is_last {
            self.upload.check_length().await?;
            if self.hasher.clone().finalize()[..] != self.sha256 {
                return Err(self.upload.changed());
            }
        }
        Ok(contents)
    }
}
