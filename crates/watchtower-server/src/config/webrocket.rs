//! The parts of `[webrocket]`: paths, namespaces, access, and the hubs that there are.

use std::collections::HashSet;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use thiserror::Error;
use toml::Spanned;
use toml::de::DeValue;
use watchtower_protocols::webrocket::{Access, Namespace};

use super::key::{Check, Row, Setting, Value};
use super::load::Reader;
use super::value::{quoted, text};
use super::{Config, ConfigError, Listen, SecretKey, WebRocketHub};

/// The path of WebTalk's public side.
pub const WEBTALK_PATH: &str = "/webtalk";
/// Bytes that stand for themselves in a path, besides letters and digits (RFC 3986, 3.3).
const PATH_PUNCTUATION: &[u8] = b"/-._~!$&'()*+,;=:@";
/// The most bytes of a path.
const PATH_BYTES_MAX: usize = 256;

/// Every hub that is configured, or the one that there is without.
#[derive(Clone, PartialEq, Eq)]
pub struct Hubs(Vec<WebRocketHub>);

impl Hubs {
    /// These hubs, as if they were configured.
    pub fn new(hubs: Vec<WebRocketHub>) -> Self {
        Self(hubs)
    }

    /// Takes over the secrets and origins of the hubs that are in both.
    pub(super) fn take_over_secrets(&mut self, new: &Hubs) {
        for hub in &mut self.0 {
            if let Some(new) = new.iter().find(|new| new.path == hub.path) {
                hub.read_only = new.read_only.clone();
                hub.read_write = new.read_write.clone();
                hub.origins = new.origins.clone();
            }
        }
    }

    /// Whether somebody chose these hubs and their secrets, be it none.
    ///
    /// The one that there is without is not chosen by being written down as it is, as in the
    /// file with every key at its default.
    pub fn are_configured(&self) -> bool {
        *self != Self::default()
    }
}

impl Default for Hubs {
    fn default() -> Self {
        Self(vec![WebRocketHub::default()])
    }
}

impl Deref for Hubs {
    type Target = [WebRocketHub];

    fn deref(&self) -> &[WebRocketHub] {
        &self.0
    }
}

impl fmt::Debug for Hubs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Setting for Hubs {
    fn read(
        &mut self,
        input: &Spanned<DeValue<'_>>,
        name: &str,
        _check: Check<'_, Self>,
        reader: &mut Reader<'_>,
    ) {
        self.0.read(input, name, &super::key::anything, reader);
    }

    fn list(&self, name: String, explanation: &'static str, rows: &mut Vec<Row>) {
        self.0.list(name, explanation, rows);
    }
}

impl Value for Access {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        let expected = || Self::ALL.map(|access| quoted(&access.to_string())).join(", ");
        input.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("one of {}", expected()))
    }

    fn to_toml(&self) -> String {
        quoted(&self.to_string())
    }
}

/// The path of a hub, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubPath(String);

/// What was given is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a path such as \"/webrocket\", of letters, digits and -._~ between slashes")]
pub struct InvalidPath;

impl HubPath {
    /// The path, with its slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HubPath {
    fn default() -> Self {
        Self("/webrocket".to_owned())
    }
}

impl FromStr for HubPath {
    type Err = InvalidPath;

    fn from_str(path: &str) -> Result<Self, InvalidPath> {
        let stands_for_itself = |byte: u8| byte.is_ascii_alphanumeric() || PATH_PUNCTUATION.contains(&byte);
        let is_path = path.starts_with('/') && path.len() <= PATH_BYTES_MAX;
        if is_path && path.bytes().all(stands_for_itself) {
            Ok(Self(path.to_owned()))
        } else {
            Err(InvalidPath)
        }
    }
}

impl Value for HubPath {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        input.as_str().ok_or(InvalidPath).and_then(str::parse).map_err(|expected| expected.to_string())
    }

    fn to_toml(&self) -> String {
        quoted(&self.0)
    }
}

/// Channels of a hub's own, or the server's where the text is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubNamespace(Option<Namespace>);

impl HubNamespace {
    /// One that no other path has, for a hub that is to have channels of its own.
    pub fn of_path(path: &HubPath) -> Self {
        // A namespace may not have a slash; the percent sign is in no path.
        Self(Namespace::parse(&path.as_str().trim_start_matches('/').replace('/', "%2F")).ok())
    }

    /// The namespace, if there is one.
    pub fn get(&self) -> Option<&Namespace> {
        self.0.as_ref()
    }
}

impl Value for HubNamespace {
    fn from_toml(input: &DeValue<'_>) -> Result<Self, String> {
        match text(input, "a text in quotes")? {
            "" => Ok(Self(None)),
            text => Namespace::parse(text)
                .map(|namespace| Self(Some(namespace)))
                .map_err(|error| error.to_string()),
        }
    }

    fn to_toml(&self) -> String {
        quoted(&self.0.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

impl Config {
    /// Refuses hubs that anybody could publish on by mistake [running: serve], and two at one
    /// path.
    ///
    /// A hub that nobody configured is no mistake: see [`Config::hub_secrets`].
    pub(super) fn check_hubs(&self, errors: &mut Vec<ConfigError>) {
        let hubs = &self.webrocket.hubs;
        let mut paths = HashSet::new();
        for hub in hubs.iter() {
            let path = hub.path.as_str().to_owned();
            if hub.path.as_str() == WEBTALK_PATH {
                errors.push(ConfigError::TakenPath { path });
            } else if !paths.insert(&hub.path) {
                errors.push(ConfigError::SamePath { path });
            } else if let Some(listen) = self.exposed_hubs_listener()
                && let Some(what) = hub.read_write.weakness()
                && hubs.are_configured()
                && hub.anonymous != Access::ReadWrite
            {
                errors.push(ConfigError::ExposedHub { path, listen: listen.to_string(), what });
            }
        }
    }

    /// The secrets for read-only and for read-write access to a hub.
    ///
    /// The hub that there is without configuration is open on this machine alone: beyond
    /// loopback its secrets are the `secret_key`.
    pub fn hub_secrets<'a>(&'a self, hub: &'a WebRocketHub) -> (&'a SecretKey, &'a SecretKey) {
        if self.webrocket.hubs.are_configured() || self.exposed_hubs_listener().is_none() {
            (&hub.read_only, &hub.read_write)
        } else {
            (&self.secret_key, &self.secret_key)
        }
    }

    /// An address that other machines can reach the hubs at, if there is one.
    fn exposed_hubs_listener(&self) -> Option<Listen> {
        [Some(self.listen), self.webrocket.listen].into_iter().flatten().find(|listen| !listen.is_loopback())
    }

    /// Refuses a private link that other machines can reach without a secret and TLS
    /// [webtalk: private link].
    pub(super) fn check_private_link(&self) -> Result<(), ConfigError> {
        let Some(listen) = self.webtalk.private.filter(|listen| !listen.is_loopback()) else { return Ok(()) };
        let lacks = match self.webtalk.secret.weakness() {
            Some("empty") => "webtalk.secret is empty",
            Some(_) => "webtalk.secret is well known",
            None if self.tls.cert.is_none() => "there is no TLS",
            None => return Ok(()),
        };
        Err(ConfigError::ExposedLink { listen: listen.to_string(), lacks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, render_default};

    /// What is exposed to other machines, with these keys besides.
    fn exposed(keys: &[&str]) -> Result<Config, String> {
        let exposed = ["listen=\"0.0.0.0:3033\"", "secret_key=\"nx2-41f\""];
        let set = exposed.iter().chain(keys).map(ToString::to_string).collect();
        Config::load(&Sources { set, ..Sources::default() }).map_err(|errors| errors.to_string())
    }

    /// The secrets of the first hub, to read and to write.
    fn secrets(config: &Config) -> (&str, &str) {
        let (read_only, read_write) = config.hub_secrets(&config.webrocket.hubs[0]);
        (read_only.expose(), read_write.expose())
    }

    const CHOSEN: &str = r#"webrocket.hubs=[{path="/webrocket",read_write="w-aa01",anonymous="read-only"}]"#;
    const AS_IT_IS: &str = r#"webrocket.hubs=[{path="/webrocket"}]"#;

    #[test]
    fn the_hub_that_nobody_chose_has_the_secret_key_beyond_loopback_written_down_or_not() {
        assert_eq!(secrets(&exposed(&[]).unwrap()), ("nx2-41f", "nx2-41f"));
        assert_eq!(secrets(&exposed(&[AS_IT_IS]).unwrap()), ("nx2-41f", "nx2-41f"));
        assert_eq!(secrets(&Config::default()), ("", ""));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("watchtower.toml");
        std::fs::write(&file, render_default()).unwrap();
        let set = vec!["listen=0.0.0.0:1".to_owned(), "secret_key=nx2-41f".to_owned()];
        let config = Config::load(&Sources { file: Some(file), set, ..Sources::default() }).unwrap();
        assert_eq!(secrets(&config), ("nx2-41f", "nx2-41f"));
    }

    #[test]
    fn a_hub_that_somebody_chose_needs_a_secret_beyond_loopback() {
        for hub in ["path=\"/x\"", "path=\"/webrocket\",anonymous=\"read-only\""] {
            let refused = exposed(&[&format!("webrocket.hubs=[{{{hub}}}]")]).unwrap_err();
            assert!(refused.contains("its read_write secret is empty"), "{refused}");
        }
        assert_eq!(secrets(&exposed(&[CHOSEN]).unwrap()), ("", "w-aa01"));
    }

    #[test]
    fn a_reload_takes_over_the_secrets_of_hubs() {
        let new = r#"webrocket.hubs=[{path="/webrocket",read_write="w-bb02",anonymous="read-only"}]"#;
        let reloaded = exposed(&[CHOSEN]).unwrap().reloaded(&exposed(&[new]).unwrap());
        assert_eq!(secrets(&reloaded.config), ("", "w-bb02"));
        assert_eq!(reloaded.needs_restart, Vec::<String>::new());

        let new = r#"webrocket.hubs=[{path="/webrocket",read_write="w-aa01"}]"#;
        let reloaded = exposed(&[]).unwrap().reloaded(&exposed(&[new]).unwrap());
        assert_eq!(secrets(&reloaded.config), ("", "w-aa01"));
    }

    #[test]
    fn a_reload_opens_nothing_that_a_start_would_refuse() {
        let running = exposed(&[CHOSEN]).unwrap();
        let reloaded = running.reloaded(&exposed(&[]).unwrap());
        assert_eq!(secrets(&reloaded.config), ("", "w-aa01"), "it is read-only for all, and stays so");
        assert!(reloaded.needs_restart.contains(&"webrocket.hubs.read_write".to_owned()));

        let on_loopback = ["listen=\"127.0.0.1:3033\"", "secret_key=\"secret\"", AS_IT_IS];
        let reloaded = running.reloaded(&exposed(&on_loopback).unwrap());
        assert_eq!(reloaded.config, running);
        for key in ["listen", "secret_key", "webrocket.hubs.read_write"] {
            assert!(reloaded.needs_restart.contains(&key.to_owned()), "{key}");
        }

        let private = ["webtalk.private=\"0.0.0.0:1\"", "tls.cert=\"a.pem\"", "tls.key=\"b.pem\""];
        let running = exposed(&[&private[..], &["webtalk.secret=\"t-77\""]].concat()).unwrap();
        let reloaded = running.reloaded(&exposed(&["webtalk.private=\"127.0.0.1:1\""]).unwrap());
        assert_eq!(reloaded.config.webtalk.secret.expose(), "t-77");
    }
}
