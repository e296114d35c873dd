//! Files that came: which there are, and how they are handed out.
//!
//! A file is whatever its sender likes, so a browser is to take it for nothing
//! else than a picture or a download. Only what this peer saved in this run can
//! be had, by a number that cannot be guessed; no request names a path.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, Take};

use super::guard::hex;
use super::refusal::Refusal;
use super::update::FileInfo;

/// How many can be had. Older ones are where they were saved.
const FILES_MAX: usize = 1_000;

/// What is read of a file at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of a file tells what it is.
const MAGIC_BYTES: u64 = 12;

/// What a file may do that a browser shows after all: nothing.
const FILE_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// The files of a run.
#[derive(Debug, Default)]
pub(super) struct Files(Mutex<VecDeque<Saved>>);

#[derive(Debug, Clone)]
struct Saved {
    id: String,
    name: String,
    path: PathBuf,
}

impl Files {
    /// Takes in a file that was saved. Its name is a safe one.
    pub(super) async fn add(&self, name: &str, path: &Path) -> io::Result<FileInfo> {
        let mut number = [0; 16];
        getrandom::fill(&mut number).map_err(io::Error::other)?;
        let saved = Saved { id: hex(&number), name: name.to_owned(), path: path.to_owned() };
        let opened = Opened::open(path).await?;
        let info = FileInfo {
            id: saved.id.clone(),
            name: saved.name.clone(),
            bytes: opened.bytes,
            image: opened.image.is_some(),
        };
        let mut files = self.0.lock();
        if files.len() >= FILES_MAX {
            files.pop_front();
        }
        files.push_back(saved);
        Ok(info)
    }

    /// Hands a file out: a picture to be shown, and everything else to be
    /// saved.
    pub(super) async fn serve(&self, id: &str) -> Result<Response, Refusal> {
        let saved = self.0.lock().iter().find(|saved| saved.id == id).cloned().ok_or(Refusal::NotFound)?;
        let opened = Opened::open(&saved.path).await.map_err(|_| Refusal::NotFound)?;
        let (mime_type, disposition) = match opened.image {
            Some(image) => (image, "inline"),
            None => ("application/octet-stream", "attachment"),
        };
        let headers: [(HeaderName, HeaderValue); 4] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(mime_type)),
            (header::CONTENT_LENGTH, opened.bytes.into()),
            (header::CONTENT_DISPOSITION, named(disposition, &saved.name)),
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(FILE_POLICY)),
        ];
        Ok((headers, Body::from_stream(chunks(opened))).into_response())
    }
}

/// A file, and what it is by its content.
struct Opened {
    file: File,
    bytes: u64,
    image: Option<&'static str>,
}

impl Opened {
    async fn open(path: &Path) -> io::Result<Opened> {
        // Opening what is no file might never end.
        if !fs::symlink_metadata(path).await?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut file = File::open(path).await?;
        let bytes = file.metadata().await?.len();
        let mut magic = Vec::new();
        (&mut file).take(MAGIC_BYTES).read_to_end(&mut magic).await?;
        file.rewind().await?;
        Ok(Opened { file, bytes, image: image_type(&magic) })
    }
}

/// The type of a picture, by its first bytes: what its sender says is not
/// asked for. SVG is none, since it may hold scripts.
fn image_type(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P'] => Some("image/webp"),
        _ => None,
    }
}

/// As much of a file as its length says, whatever becomes of it meanwhile.
fn chunks(opened: Opened) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(opened.file.take(opened.bytes), |mut file: Take<File>| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await?;
        Ok((!chunk.is_empty()).then(|| (chunk.into(), file)))
    })
}

/// `Content-Disposition` (RFC 6266): the name in ASCII, and as it is.
fn named(disposition: &str, name: &str) -> HeaderValue {
    let ascii: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let value = format!("{disposition}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}");
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("attachment"))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '.' | '_' | '(' | ')' | '+' | ',')
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and more";

    #[test]
    fn a_picture_is_known_by_its_content_alone() {
        for (content, expected) in [
            (PNG, Some("image/png")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF", Some("image/jpeg")),
            (b"GIF87a......", Some("image/gif")),
            (b"GIF89a......", Some("image/gif")),
            (b"RIFF\x01\x02\x03\x04WEBP", Some("image/webp")),
            (b"RIFF\x01\x02\x03\x04WAVE", None),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", None),
            (b"<!doctype html><script>", None),
            (b"GIF88a......", None),
            (b"\x89PNG", None),
            (b"", None),
        ] {
            let magic = &content[..content.len().min(MAGIC_BYTES as usize)];
            assert_eq!(image_type(magic), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_head() {
        assert_eq!(
            named("attachment", "a\"; b\r\nc.png"),
            "attachment; filename=\"a__ b__c.png\"; filename*=UTF-8''a%22%3B%20b%0D%0Ac.png"
        );
        assert_eq!(named("inline", "ä.png"), "inline; filename=\"_.png\"; filename*=UTF-8''%C3%A4.png");
    }

    async fn served(content: &[u8]) -> (String, String, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved");
        std::fs::write(&path, content).unwrap();
        let files = Files::default();
        let info = files.add("name.png", &path).await.unwrap();
        assert_eq!(info.bytes, content.len() as u64);
        let response = files.serve(&info.id).await.unwrap();
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], FILE_POLICY);
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        let heads = (header(header::CONTENT_TYPE), header(header::CONTENT_DISPOSITION));
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (heads.0, heads.1.split(';').next().unwrap().to_owned(), body.to_vec())
    }

    #[tokio::test]
    async fn pictures_are_shown_and_everything_else_is_a_download() {
        let large = [PNG, &vec![7; 3 * CHUNK_BYTES][..]].concat();
        for (content, mime_type, disposition) in [
            (PNG, "image/png", "inline"),
            (&large, "image/png", "inline"),
            (b"<svg onload='alert(1)'/>", "application/octet-stream", "attachment"),
            (b"<script>alert(1)</script>", "application/octet-stream", "attachment"),
            (b"", "application/octet-stream", "attachment"),
        ] {
            let expected = (mime_type.to_owned(), disposition.to_owned(), content.to_vec());
            assert!(served(content).await == expected, "{} bytes", content.len());
        }
    }

    #[tokio::test]
    async fn what_was_not_saved_or_is_no_file_cannot_be_had() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::default();
        for id in ["", "0", "..", "%2e%2e/etc/passwd", "/etc/passwd"] {
            assert!(matches!(files.serve(id).await, Err(Refusal::NotFound)), "{id}");
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        assert!(files.add("link", &link).await.is_err());
        assert!(files.add("folder", folder.path()).await.is_err());
        let path = folder.path().join("saved");
        std::fs::write(&path, b"x").unwrap();
        let info = files.add("saved", &path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(files.serve(&info.id).await, Err(Refusal::NotFound)));
    }
}
