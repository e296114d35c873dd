//! Files on their way from the page to the peers.
//!
//! A file is written to a private folder under its own name, is sent from
//! there, and goes when it was sent. What the browser leaves unfinished goes
//! at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Limits;
use super::refusal::Refusal;
use crate::protocol::safe_text::safe_file_name;
use crate::{Event, Events};

/// How long a file is kept of whose sending nothing is heard.
const SILENCE_MAX: Duration = Duration::from_secs(10 * 60);

/// Where files wait to be sent. Clones are the same; the folder goes with the
/// last.
#[derive(Debug, Clone)]
pub(super) struct Uploads {
    folder: Arc<TempDir>,
    permits: Arc<Semaphore>,
    bytes_max: u64,
    patience: Duration,
}

/// A file that came whole. It goes when this is dropped.
#[derive(Debug)]
pub(super) struct Upload {
    path: PathBuf,
    _folder: TempDir,
    _all: Arc<TempDir>,
    _permit: OwnedSemaphorePermit,
}

impl Uploads {
    pub(super) fn new(limits: &Limits) -> io::Result<Uploads> {
        Ok(Uploads {
            folder: Arc::new(private_folder(&std::env::temp_dir())?),
            permits: Arc::new(Semaphore::new(limits.uploads_max)),
            bytes_max: limits.upload_bytes_max,
            patience: limits.patience,
        })
    }

    /// Takes a file that a browser calls `name`.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; nothing is left of it then, nor when the future is dropped.
    pub(super) async fn receive(&self, name: &str, body: Body) -> Result<Upload, Refusal> {
        let too_large = || Refusal::TooLarge { bytes_max: self.bytes_max };
        if body.size_hint().lower() > self.bytes_max {
            return Err(too_large());
        }
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| Refusal::TooManyFiles)?;
        let folder = private_folder(self.folder.path())?;
        let path = folder.path().join(safe_file_name(name));
        let mut file = File::create_new(&path).await?;
        let mut chunks = body.into_data_stream();
        let mut bytes = 0;
        while let Some(chunk) = timeout(self.patience, chunks.next()).await.map_err(|_| Refusal::Late)? {
            let chunk = chunk.map_err(|_| Refusal::CutOff)?;
            bytes += chunk.len() as u64;
            if bytes > self.bytes_max {
                return Err(too_large());
            }
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        Ok(Upload { path, _folder: folder, _all: self.folder.clone(), _permit: permit })
    }
}

impl Upload {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps it until nothing more of it is to be sent. `events` began before
    /// it was.
    pub(super) async fn keep_until_sent(self, mut events: Events, transfer: u64) {
        while let Ok(Some(done)) = timeout(SILENCE_MAX, heard(&mut events, transfer)).await {
            if done {
                return;
            }
        }
    }
}

/// What comes next of a file: whether it was the last. None when the peer has
/// ended.
async fn heard(events: &mut Events, transfer: u64) -> Option<bool> {
    loop {
        match events.next().await {
            Ok(None) => return None,
            Ok(Some(Event::Progress { transfer: of, bytes_done, bytes_all, .. })) if of == transfer => {
                return Some(bytes_done >= bytes_all);
            }
            Ok(Some(Event::Failed { transfer: of, .. })) if of == transfer => return Some(true),
            // The end may be among what was missed; then silence tells it.
            Ok(Some(_)) | Err(_) => {}
        }
    }
}

/// A folder that nobody else can look into.
fn private_folder(within: &Path) -> io::Result<TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().prefix("watchtower-whisper-").permissions(permissions).tempdir_in(within)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use bytes::Bytes;
    use futures_util::stream;

    use super::*;

    fn uploads(bytes_max: u64) -> Uploads {
        let limits = Limits {
            upload_bytes_max: bytes_max,
            uploads_max: 2,
            patience: Duration::from_millis(50),
            ..Limits::default()
        };
        Uploads::new(&limits).unwrap()
    }

    /// A body that does not say how long it is.
    fn pieces(pieces: &'static [&'static [u8]]) -> Body {
        Body::from_stream(stream::iter(
            pieces.iter().map(|piece| Ok::<_, io::Error>(Bytes::from_static(piece))),
        ))
    }

    fn left(uploads: &Uploads) -> usize {
        std::fs::read_dir(uploads.folder.path()).unwrap().count()
    }

    #[tokio::test]
    async fn a_file_is_kept_under_its_own_name_where_nobody_else_looks() {
        let uploads = uploads(100);
        let upload = uploads.receive("../../etc/ca\0t.png", pieces(&[b"ab", b"c"])).await.unwrap();
        assert_eq!(upload.path().file_name().unwrap(), "cat.png");
        assert!(upload.path().starts_with(uploads.folder.path()));
        assert_eq!(std::fs::read(upload.path()).unwrap(), b"abc");
        for folder in [uploads.folder.path(), upload.path().parent().unwrap()] {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        let path = upload.path().to_owned();
        drop(upload);
        assert!(!path.exists());
        assert_eq!(left(&uploads), 0);
    }

    #[tokio::test]
    async fn what_is_too_long_is_refused_whether_it_says_so_or_not() {
        let uploads = uploads(4);
        for body in [Body::from("12345"), pieces(&[b"123", b"45"])] {
            let refused = uploads.receive("a", body).await.unwrap_err();
            assert!(matches!(refused, Refusal::TooLarge { bytes_max: 4 }), "{refused}");
        }
        assert!(uploads.receive("a", Body::from("1234")).await.is_ok());
        assert_eq!(left(&uploads), 0);
    }

    #[tokio::test]
    async fn what_does_not_come_to_its_end_leaves_nothing() {
        let uploads = uploads(100);
        let broken =
            Body::from_stream(stream::iter([Ok(Bytes::from_static(b"a")), Err(io::Error::other("gone"))]));
        assert!(matches!(uploads.receive("a", broken).await, Err(Refusal::CutOff)));
        let silent = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        assert!(matches!(uploads.receive("a", silent).await, Err(Refusal::Late)));
        assert_eq!(left(&uploads), 0);
    }

    #[tokio::test]
    async fn no_more_files_are_on_their_way_than_may_be() {
        let uploads = uploads(100);
        let first = uploads.receive("a", Body::from("1")).await.unwrap();
        let _second = uploads.receive("a", Body::from("2")).await.unwrap();
        assert!(matches!(uploads.receive("a", Body::from("3")).await, Err(Refusal::TooManyFiles)));
        drop(first);
        assert!(uploads.receive("a", Body::from("3")).await.is_ok());
    }
}
