//! Files in messages ([whispernet: 10]).
//!
//! Opens and saves nothing.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::Bytes;

use super::Message;
use super::safe_text::safe_file_name;

/// What a file is whose sender does not say.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Standard base64, whether or not it is padded.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A file that came in a message. `Debug` shows its length.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// A safe name, from the `Body`.
    pub name: String,
    /// The MIME type as it came.
    pub mime_type: String,
    /// The decoded contents.
    pub contents: Bytes,
}

impl File {
    /// The file in a message. `None` when there is none: deployed peers send
    /// empty strings for no file.
    ///
    /// # Errors
    ///
    /// [`NotBase64`]. The message is text to whoever shows it.
    pub fn of(message: &Message<'_>) -> Result<Option<File>, NotBase64> {
        let Some(encoded) = message.file_contents.as_deref().filter(|encoded| !encoded.is_empty()) else {
            return Ok(None);
        };
        // Some encoders break lines.
        let decoded = if encoded.contains(['\r', '\n']) {
            LENIENT.decode(encoded.replace(['\r', '\n'], ""))
        } else {
            LENIENT.decode(encoded)
        };
        let mime_type = message.file_type.as_deref().filter(|mime_type| !mime_type.is_empty());
        Ok(Some(File {
            name: safe_file_name(&message.body),
            mime_type: mime_type.unwrap_or(UNKNOWN_TYPE).to_owned(),
            contents: decoded.map_err(|_| NotBase64)?.into(),
        }))
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes)", self.contents.len())
    }
}

/// `FileContents` that are not base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// `FileContents` of a message that a node originates.
pub(super) fn encode_contents(contents: &[u8]) -> String {
    STANDARD.encode(contents)
}
