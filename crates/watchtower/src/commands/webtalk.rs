//! `watchtower webtalk`: WebTalk alone, with the configuration file of the original
//! [webtalk: public side].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use watchtower_server::Server;
use watchtower_server::config::{Config, Listen};

use super::original::unreadable;
use super::serve;
use crate::failure::Failure;
use crate::logs::{self, LogFormat};

/// Where the configuration is when nothing else is said, as in the original.
const USUAL_FILE: &str = "webtalk.ini";

#[derive(Debug, Args)]
#[command(after_help = "\
The configuration is JSON, whatever the file is called; without the file it is this:

{\"Public\": \"0.0.0.0:12345\", \"Private\": \"localhost:12344\"}

Public is where browsers connect, Private where the application does. When ready, prints a line
for each listener and then the line ready.

Examples:
  watchtower webtalk
  watchtower webtalk webtalk.ini")]
pub(crate) struct WebTalk {
    /// The configuration file.
    #[arg(value_name = "FILE", default_value = USUAL_FILE)]
    config: PathBuf,
}

/// The original's configuration file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct File {
    #[serde(deserialize_with = "listen")]
    public: Listen,
    #[serde(deserialize_with = "listen")]
    private: Listen,
}

impl Default for File {
    fn default() -> Self {
        Self { public: Listen::Address(([0, 0, 0, 0], 12345).into()), private: Listen::Localhost(12344) }
    }
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Listen, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|expected| D::Error::custom(format!("got \"{text}\", expected {expected}")))
}

impl WebTalk {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let _log = logs::start(LogFormat::Text)?;
        let file = read(&self.config)?;
        let mut config = Config::default();
        config.webtalk.public = Some(file.public);
        config.webtalk.private = Some(file.private);
        config.check()?;
        let server = Server::builder(config).without_shared_port();
        serve::until_stopped(
            server,
            || Ok(()),
            |_| (),
            || Err(Failure::Usage("there is nothing to reload".to_owned())),
        )
    }
}

/// Without the file, the defaults hold.
fn read(path: &Path) -> Result<File, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| unreadable(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(Failure::Usage(format!("{}: cannot read it: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_the_originals_defaults_hold() {
        let file = read(Path::new("there is none")).unwrap();
        assert_eq!(
            (file.public.to_string(), file.private.to_string()),
            ("0.0.0.0:12345".into(), "localhost:12344".into())
        );
    }

    #[test]
    fn a_file_is_json_and_what_is_wrong_in_it_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webtalk.ini");
        let read_text = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path)
                .map_err(|failure| failure.to_string().replace(&format!("{}", folder.path().display()), ""))
        };
        let file = read_text("{\"Public\": \"127.0.0.1:1\"}").unwrap();
        assert_eq!(
            (file.public.to_string(), file.private.to_string()),
            ("127.0.0.1:1".into(), "localhost:12344".into())
        );
        assert_eq!(
            read_text("{\n  \"Pubic\": \"\"}").unwrap_err(),
            "/webtalk.ini:2: unknown field `Pubic`, expected `Public` or `Private`"
        );
        assert_eq!(
            read_text("{\"Private\": \"here\"}").unwrap_err(),
            "/webtalk.ini:1: got \"here\", expected an IP address or localhost, a colon and a port, such as \
             \"127.0.0.1:3033\" or \"[::]:3033\""
        );
    }
}
