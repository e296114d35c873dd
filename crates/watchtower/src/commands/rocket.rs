//! `watchtower rocket`: WebRocket alone, with the command line and the configuration file of the
//! original [webrocket: configuration].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use watchtower_server::config::{
    Access, Config, HubNamespace, HubPath, Hubs, Listen, SecretKey, WebRocketHub,
};
use watchtower_server::{HubLog, Server};

use super::original::unreadable;
use super::serve;
use crate::failure::Failure;
use crate::logs::{self, LogFormat};

#[derive(Debug, Args)]
#[command(
    version,
    after_help = "\
The configuration is JSON:

{\"Host\": \"localhost\", \"Port\": 9772, \"TLSCertFile\": \"\", \"TLSKeyFile\": \"\", \"Log\": \"\",
 \"Hubs\": [{\"Path\": \"/echo\", \"Codec\": \"JSON\", \"Log\": \"./echo.log\",
 \"Secrets\": {\"ReadOnly\": \"\", \"ReadWrite\": \"secret\"}}]}

Flags win over the file; an option may have one dash, as in -port 9772. Each hub has channels of
its own. When ready, prints a line for each listener and then the line ready.

Examples:
  watchtower rocket my.json
  watchtower rocket -host 127.0.0.1 -port 9773 my.json
  watchtower rocket --tls-cert cert.pem --tls-key key.pem my.json"
)]
pub(crate) struct Rocket {
    /// The configuration file, JSON.
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Where to listen: an IP address, or localhost.
    #[arg(long, value_name = "H")]
    host: Option<String>,
    /// The port; 0 takes a free one.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// The certificate, PEM.
    #[arg(long, value_name = "F")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "F")]
    tls_key: Option<PathBuf>,
    /// Where to write the log, in place of standard error.
    #[arg(long, value_name = "F")]
    log: Option<PathBuf>,
}

/// The original's configuration file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct File {
    host: String,
    port: u16,
    #[serde(rename = "TLSCertFile")]
    tls_cert_file: PathBuf,
    #[serde(rename = "TLSKeyFile")]
    tls_key_file: PathBuf,
    log: PathBuf,
    hubs: Vec<Hub>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 9772,
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            log: PathBuf::new(),
            hubs: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Hub {
    #[serde(deserialize_with = "path")]
    path: HubPath,
    #[serde(default)]
    codec: Codec,
    #[serde(default)]
    log: PathBuf,
    #[serde(default)]
    secrets: Secrets,
}

/// The codecs that there are.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
enum Codec {
    #[default]
    #[serde(rename = "JSON")]
    Json,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Secrets {
    read_only: String,
    read_write: String,
}

/// Without the secrets.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(hidden)")
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HubPath, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(|expected| D::Error::custom(format!("expected {expected}")))
}

impl Rocket {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let path = self.config.clone();
        let file = self.over(read(&path)?);
        let _log = logs::start_to(LogFormat::Text, named(&file.log))?;
        let config = to_config(&path, &file)?;
        config.check_files()?;
        let mut server = Server::builder(config).without_shared_port();
        for hub in &file.hubs {
            if let Some(log) = named(&hub.log) {
                server = server.observe_hub(hub.path.as_str(), Arc::new(HubLog::to(logs::append_to(log)?)));
            }
        }
        serve::until_stopped(
            server,
            || Ok(()),
            |_| (),
            || {
                let file = self.over(read(&path)?);
                to_config(&path, &file)
            },
        )
    }

    /// The file, with what the command line says over it.
    fn over(&self, mut file: File) -> File {
        if let Some(host) = &self.host {
            file.host.clone_from(host);
        }
        file.port = self.port.unwrap_or(file.port);
        let over = |path: &mut PathBuf, flag: &Option<PathBuf>| {
            if let Some(flag) = flag {
                path.clone_from(flag);
            }
        };
        over(&mut file.tls_cert_file, &self.tls_cert);
        over(&mut file.tls_key_file, &self.tls_key);
        over(&mut file.log, &self.log);
        file
    }
}

/// A path, unless it is empty.
fn named(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Reads the configuration; what is wrong is named with its line.
fn read(path: &Path) -> Result<File, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{}: cannot read it: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| unreadable(path, &error))
}

/// The original's configuration as ours.
fn to_config(path: &Path, file: &File) -> Result<Config, Failure> {
    let mut config = Config::default();
    let listen = match file.host.parse() {
        Ok(ip) => Some(Listen::Address(SocketAddr::new(ip, file.port))),
        Err(_) if file.host.eq_ignore_ascii_case("localhost") => Some(Listen::Localhost(file.port)),
        Err(_) => None,
    };
    let wrong_host = || {
        let host = &file.host;
        Failure::Usage(format!(
            "{}: Host: got \"{host}\", expected an IP address or localhost",
            path.display()
        ))
    };
    config.webrocket.listen = Some(listen.ok_or_else(wrong_host)?);
    config.webrocket.hubs = Hubs::new(file.hubs.iter().map(to_hub).collect());
    config.tls.cert = (!file.tls_cert_file.as_os_str().is_empty()).then(|| file.tls_cert_file.clone());
    config.tls.key = (!file.tls_key_file.as_os_str().is_empty()).then(|| file.tls_key_file.clone());
    config.check()?;
    Ok(config)
}

/// Each hub has channels of its own, as it had: its path is their namespace.
fn to_hub(hub: &Hub) -> WebRocketHub {
    let Codec::Json = hub.codec;
    WebRocketHub {
        path: hub.path.clone(),
        read_only: SecretKey::new(hub.secrets.read_only.clone()),
        read_write: SecretKey::new(hub.secrets.read_write.clone()),
        anonymous: Access::None,
        namespace: HubNamespace::of_path(&hub.path),
        origins: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my.json");
        fs::write(&path, text).unwrap();
        let loaded = read(&path).and_then(|file| to_config(&path, &file));
        loaded.map_err(|failure| failure.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn the_originals_example_is_understood() {
        let config = load(
            r#"{"Host": "localhost", "Port": 9772, "TLSCertFile": "", "TLSKeyFile": "", "Log": "",
                "Hubs": [{"Path": "/echo", "Codec": "JSON", "Log": "./echo.log",
                          "Secrets": {"ReadOnly": "", "ReadWrite": "secret"}},
                         {"Path": "/a/b"}]}"#,
        )
        .unwrap();
        assert_eq!(config.webrocket.listen.unwrap().to_string(), "localhost:9772");
        let [echo, other] = &config.webrocket.hubs[..] else { panic!("two hubs") };
        let namespace = |hub: &WebRocketHub| hub.namespace.get().map(ToString::to_string);
        assert_eq!((echo.path.as_str(), namespace(echo)), ("/echo", Some("echo".to_owned())));
        assert!(echo.read_only.is_empty() && echo.read_write.matches(b"secret"));
        assert_eq!((other.path.as_str(), namespace(other)), ("/a/b", Some("a%2Fb".to_owned())));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, message) in [
            ("{\n\"Prt\": 1}", "my.json:2: unknown field `Prt`, expected one of `Host`, `Port`"),
            ("{\"Port\": 70000}", "my.json:1: invalid value: integer `70000`, expected u16"),
            (
                "{\"Hubs\": [\n{\"Path\": \"/a\", \"Codec\": \"BSON\"}]}",
                "my.json:2: unknown variant `BSON`, expected `JSON`",
            ),
            ("{\"Hubs\": [{\"Path\": \"a\"}]}", "my.json:1: expected a path such as \"/webrocket\""),
            ("{\"Hubs\": [{}]}", "my.json:1: missing field `Path`"),
            (
                "{\"Host\": \"example.com\"}",
                "my.json: Host: got \"example.com\", expected an IP address or localhost",
            ),
            (
                "{\"Hubs\": [{\"Path\": \"/a\"}, {\"Path\": \"/a\"}]}",
                "webrocket.hubs: the path /a is there twice",
            ),
            (
                "{\"Host\": \"0.0.0.0\", \"Hubs\": [{\"Path\": \"/a\"}]}",
                "webrocket.hubs: the hub /a can be reached",
            ),
        ] {
            let complaint = load(text).unwrap_err();
            assert!(complaint.starts_with(message), "{complaint}");
        }
    }
}
