//! Reading files a piece at a time, off the threads that others wait for, and
//! telling what is in them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use infer::MatcherType;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

/// How much is read for a hash before whoever waits may give up.
const STEP_BYTES: u64 = 8 << 20;

/// How much is read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// From how much of its beginning the type of a file is told.
const HEAD_BYTES: u64 = 4 << 10;

/// The images that every browser shows. None of them has scripts.
const IMAGES: [&str; 5] = ["image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"];

/// Does what blocks on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Those bytes of a file. A file that ends before is an error.
pub(crate) async fn read(file: &Arc<File>, range: Range<u64>) -> io::Result<Bytes> {
    let file = file.clone();
    blocking(move || {
        let length = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut contents = vec![0; length];
        file.read_exact_at(&mut contents, range.start)?;
        Ok(contents.into())
    })
    .await
}

/// The beginning of a file that has as many bytes.
pub(crate) async fn head(file: &Arc<File>, bytes: u64) -> io::Result<Bytes> {
    read(file, 0..bytes.min(HEAD_BYTES)).await
}

/// The SHA-256 of a file that has as many bytes, in memory that does not depend
/// on how many. A file that ends before is an error.
pub(crate) async fn sha256(file: &Arc<File>, bytes: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut offset = 0;
    while offset < bytes {
        let end = bytes.min(offset.saturating_add(STEP_BYTES));
        let file = file.clone();
        hasher = blocking(move || hash(&file, offset..end, hasher)).await?;
        offset = end;
    }
    Ok(hasher.finalize().into())
}

fn hash(file: &File, range: Range<u64>, mut hasher: Sha256) -> io::Result<Sha256> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = range.start;
    while offset < range.end {
        let length = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        file.read_exact_at(&mut buffer[..length], offset)?;
        hasher.update(&buffer[..length]);
        offset += length as u64;
    }
    Ok(hasher)
}

/// The MIME type of a file that begins so.
pub(crate) fn mime_type(head: &[u8]) -> &'static str {
    let is_text = || match std::str::from_utf8(head) {
        Ok(text) => !text.contains('\0'),
        // The head may end within a character.
        Err(error) => error.error_len().is_none() && !head.contains(&0),
    };
    match infer::get(head) {
        Some(known) => known.mime_type(),
        None if is_text() => "text/plain",
        None => "application/octet-stream",
    }
}

/// The MIME type of an image that is safe to show, by what it begins with and
/// whatever its sender says.
pub(crate) fn image_type(head: &[u8]) -> Option<&'static str> {
    let known = infer::get(head).filter(|known| known.matcher_type() == MatcherType::Image)?;
    IMAGES.into_iter().find(|image| *image == known.mime_type())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_told_by_the_contents() {
        for (head, mime_type, image_type) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], "image/png", Some("image/png")),
            (b"\xff\xd8\xff\xe0", "image/jpeg", Some("image/jpeg")),
            (b"GIF89a", "image/gif", Some("image/gif")),
            (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", Some("image/webp")),
            (b"%PDF-1.7", "application/pdf", None),
            (b"<!DOCTYPE html><script>", "text/html", None),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\">", "text/plain", None),
            (b"Gr\xc3\xbc\xc3\x9fe", "text/plain", None),
            (b"cut \xc3", "text/plain", None),
            (b"\xc3\x28", "application/octet-stream", None),
            (b"a\0b", "application/octet-stream", None),
        ] {
            assert_eq!(
                (super::mime_type(head), super::image_type(head)),
                (mime_type, image_type),
                "{head:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_is_read_and_hashed_by_steps() {
        let contents: Vec<u8> = (0..STEP_BYTES + 1_000).map(|at| at as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &contents).unwrap();
        let (file, bytes) = (Arc::new(file), contents.len() as u64);
        assert_eq!(sha256(&file, bytes).await.unwrap(), <[u8; 32]>::from(Sha256::digest(&contents)));
        assert_eq!(read(&file, 10..12).await.unwrap(), [10, 11][..]);
        assert_eq!(sha256(&file, bytes + 1).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
