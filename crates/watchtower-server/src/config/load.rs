//! The layers of a configuration, later over earlier: defaults, file, environment, flags,
//! `--set` [running: serve].
//!
//! Names of keys come from the rows of [`super::key`] alone. Reading goes on after a fault, so
//! that all of them are reported at once.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{Row, Table};
use super::{Config, ConfigError, ConfigErrors, Nearest, Origin, rows};
use crate::tls;

/// What begins the name of every environment variable that is read.
const VARIABLE_PREFIX: &str = "WATCHTOWER_";
/// The most characters of a wrong value that a message repeats.
const CAME_CHARS_MAX: usize = 60;

/// Where a configuration is read from, beside the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file, if there is one.
    pub file: Option<PathBuf>,
    /// All variables of the environment, as `std::env::vars_os` gives them.
    ///
    /// Each one whose name begins with `WATCHTOWER_` must name a key: in capitals, with `__`
    /// for the dot. Any other is an error, for a misspelt name would be passed over in
    /// silence. The one exception are the variables that Kubernetes gives every container
    /// beside a service named `watchtower`, such as `WATCHTOWER_SERVICE_HOST`.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags that stand for one key each.
    pub flags: Vec<Flag>,
    /// `KEY=VALUE`, any key, dotted.
    pub set: Vec<String>,
}

/// A flag of the command line that stands for one key. Its value is a text, never TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As it is given, such as `--listen`.
    pub name: &'static str,
    /// The key, dotted from the top.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

impl Config {
    /// Reads all layers and checks that they fit together.
    ///
    /// Values in the environment and of `--set` are TOML; what is no TOML, or not of the type
    /// that the key has, is taken as a text. A secret that is empty stays so: see
    /// [`Config::fill_in_secret`].
    ///
    /// # Errors
    /// Everything that is wrong, in all layers.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut config = Self::default();
        let mut errors = Vec::new();
        if let Some(path) = &sources.file {
            match fs::read_to_string(path) {
                Ok(text) => config.read_file(path, &text, &mut errors),
                Err(source) => errors.push(ConfigError::Unreadable { path: path.clone(), source }),
            }
        }
        let mut variables: Vec<_> = sources.environment.iter().collect();
        variables.sort();
        for (name, value) in variables {
            config.read_variable(name, value, &mut errors);
        }
        for Flag { name, key, value } in &sources.flags {
            let text = DeValue::String(value.into());
            config.read_lone(key, value, text, Origin::Flag(name), &mut errors);
        }
        for given in &sources.set {
            match given.split_once('=') {
                Some((key, raw)) => {
                    let origin = Origin::Flag("--set");
                    config.read_lone(key.trim(), raw, toml_or_text(raw), origin, &mut errors);
                }
                None => {
                    errors.push(ConfigError::NoValue { key: Some(given.clone()).filter(|key| is_key(key)) })
                }
            }
        }
        config.check_together(&mut errors);
        ConfigErrors::none(errors).map(|()| config)
    }

    /// Checks what no key can be checked for alone: a secret that fits the address, and limits
    /// that fit each other. [`Config::load`] has done this already.
    ///
    /// # Errors
    /// Everything that does not fit.
    pub fn check(&self) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        self.check_together(&mut errors);
        ConfigErrors::none(errors)
    }

    fn read_file(&mut self, path: &Path, text: &str, errors: &mut Vec<ConfigError>) {
        let source = Source::File { path, text };
        let (document, syntax_errors) = DeTable::parse_recoverable(text);
        let first = errors.len();
        if syntax_errors.is_empty() {
            self.read_document(document.into_inner(), source, errors);
        } else {
            // What the parser made up to go on says nothing about what was meant.
            errors.extend(syntax_errors.iter().map(|error| ConfigError::Syntax {
                at: source.origin(&error.span().unwrap_or_default()),
                message: error.message().trim_end().replace('\n', "; "),
            }));
        }
        errors[first..].sort_by_key(line_of);
    }

    fn read_variable(&mut self, name: &OsStr, value: &OsStr, errors: &mut Vec<ConfigError>) {
        let name = name.to_string_lossy();
        let Some(key) = name.strip_prefix(VARIABLE_PREFIX) else {
            return;
        };
        let Some(value) = value.to_str() else {
            return errors.push(ConfigError::NotText { variable: name.into_owned() });
        };
        if is_from_kubernetes(key, value) {
            return;
        }
        let key = key.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Variable(name.into_owned());
        self.read_lone(&key, value, toml_or_text(value), origin, errors);
    }

    /// Reads one value, as if a file held it alone.
    fn read_lone(
        &mut self,
        key: &str,
        raw: &str,
        value: DeValue<'_>,
        origin: Origin,
        errors: &mut Vec<ConfigError>,
    ) {
        let nested = key.rsplit('.').fold(value, |value, part| {
            let part = Spanned::new(0..0, part.into());
            let value = Spanned::new(0..0, value);
            DeValue::Table(DeTable::from_iter([(part, value)]))
        });
        if let DeValue::Table(document) = nested {
            self.read_document(document, Source::Lone { key, raw, origin }, errors);
        }
    }

    fn read_document(&mut self, document: DeTable<'_>, source: Source<'_>, errors: &mut Vec<ConfigError>) {
        let mut reader = Reader { source, errors };
        reader.read_table(self, &Spanned::new(0..0, DeValue::Table(document)), "");
    }

    /// Runs the checks on keys whose own values were all taken: what was refused is still at
    /// its default, and to judge that would only confuse.
    fn check_together(&self, errors: &mut Vec<ConfigError>) {
        let was_refused = |name: &str| {
            errors.iter().any(|error| matches!(error, ConfigError::BadValue { key, .. } if key == name))
        };
        let mut found = Vec::new();
        if !was_refused("listen") && !was_refused("secret_key") {
            found.extend(self.check_exposure().err());
        }
        if !was_refused("listen") && !was_refused("webrocket.listen") {
            self.check_hubs(&mut found);
        }
        if !was_refused("webtalk.private") && !was_refused("webtalk.secret") {
            found.extend(self.check_private_link().err());
        }
        let limits = &self.limits;
        let least = limits.max_message_bytes;
        for (smaller, value) in
            [("limits.lag_bytes", limits.lag_bytes), ("limits.max_body_bytes", limits.max_body_bytes)]
        {
            if value < least && !was_refused(smaller) && !was_refused("limits.max_message_bytes") {
                found.push(ConfigError::BelowMessageSize { smaller, value, least });
            }
        }
        if !was_refused("data_dir") {
            found.extend(self.check_durable().err());
        }
        if !was_refused("whispernet.listen") {
            found.extend(self.check_whispernet().err());
        }
        found.extend(self.check_tls(was_refused).err());
        errors.append(&mut found);
    }
}

impl Config {
    /// Reads the files that the configuration names, which [`Config::load`] does not, and checks
    /// that they can be used: those of `[tls]`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_files(&self) -> Result<(), ConfigErrors> {
        tls::check(&self.tls).map_err(|error| ConfigError::from(error).into())
    }

    /// Durable channels are kept in the data directory.
    fn check_durable(&self) -> Result<(), ConfigError> {
        match self.channels.iter().find(|rule| rule.durable) {
            Some(rule) if self.data_dir.is_none() => {
                Err(ConfigError::NowhereToKeep { pattern: rule.pattern.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A certificate is of no use without its key, nor the key without it.
    fn check_tls(&self, was_refused: impl Fn(&str) -> bool) -> Result<(), ConfigError> {
        let (given, missing) = match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => ("tls.cert", "tls.key"),
            (None, Some(_)) => ("tls.key", "tls.cert"),
            _ => return Ok(()),
        };
        if was_refused(missing) {
            return Ok(());
        }
        Err(ConfigError::HalfTls { given, missing })
    }
}

/// Where the values that are being read stand.
enum Source<'a> {
    File {
        path: &'a Path,
        text: &'a str,
    },
    /// One value of its own, in the environment or on the command line.
    Lone {
        key: &'a str,
        raw: &'a str,
        origin: Origin,
    },
}

impl Source<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        match self {
            Self::File { path, text } => {
                let before = text.as_bytes().iter().take(span.start);
                Origin::File {
                    path: path.to_path_buf(),
                    line: 1 + before.filter(|byte| **byte == b'\n').count(),
                }
            }
            Self::Lone { origin, .. } => origin.clone(),
        }
    }

    /// What was written there, on one line, not too long.
    fn snippet(&self, span: Range<usize>) -> String {
        let written = match self {
            Self::File { text, .. } => text.get(span).unwrap_or_default(),
            Self::Lone { raw, .. } => raw,
        };
        let mut snippet = String::new();
        for (index, c) in written.chars().enumerate() {
            if index == CAME_CHARS_MAX {
                snippet.push('…');
                break;
            }
            if c.is_control() {
                snippet.extend(c.escape_default());
            } else {
                snippet.push(c);
            }
        }
        if snippet.is_empty() {
            "nothing".clone_into(&mut snippet);
        }
        snippet
    }
}

/// Takes a document apart and gathers what is wrong with it.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    errors: &'a mut Vec<ConfigError>,
}

impl Reader<'_> {
    /// Reads the keys of a table; `name` is the table's, empty for the whole document.
    pub(super) fn read_table<T: Table>(&mut self, table: &mut T, input: &Spanned<DeValue<'_>>, name: &str) {
        let Some(entries) = input.get_ref().as_table() else {
            return self.refuse(name, input, self.holds_no_secret(input), "a table of keys".to_owned());
        };
        for (field, value) in entries {
            let full_name = if name.is_empty() {
                field.get_ref().to_string()
            } else {
                format!("{name}.{}", field.get_ref())
            };
            if !table.read_field(field.get_ref(), &full_name, value, self) {
                self.errors.push(ConfigError::UnknownKey {
                    at: self.source.origin(&field.span()),
                    nearest: nearest(&full_name),
                    key: full_name,
                });
            }
        }
    }

    /// Reads a list of tables, each of which must have the keys in `needed`.
    pub(super) fn read_list<T: Table>(
        &mut self,
        input: &Spanned<DeValue<'_>>,
        name: &str,
        needed: &[&str],
    ) -> Option<Vec<T>> {
        let Some(items) = input.get_ref().as_array() else {
            let expected = format!("a list of tables, each under [[{name}]]");
            self.refuse(name, input, self.holds_no_secret(input), expected);
            return None;
        };
        let mut tables = Vec::new();
        for item in items.iter() {
            let mut table = T::default();
            self.read_table(&mut table, item, name);
            tables.push(table);
            let entries = item.get_ref().as_table();
            let lacks = |key: &str| entries.is_some_and(|entries| !entries.contains_key(key));
            for key in needed.iter().filter(|key| lacks(key)) {
                self.errors.push(ConfigError::MissingKey {
                    at: self.source.origin(&item.span()),
                    key: format!("{name}.{key}"),
                    table: name.to_owned(),
                });
            }
        }
        Some(tables)
    }

    /// Whether what came in place of tables, in which there may be secrets, can be shown: a
    /// number and the like, or the head of a table.
    fn holds_no_secret(&self, input: &Spanned<DeValue<'_>>) -> bool {
        match input.get_ref() {
            DeValue::String(_) | DeValue::Array(_) => false,
            DeValue::Table(_) => self.source.snippet(input.span()).starts_with('['),
            _ => true,
        }
    }

    /// Reports a value that was not taken.
    pub(super) fn refuse(
        &mut self,
        name: &str,
        input: &Spanned<DeValue<'_>>,
        is_shown: bool,
        expected: String,
    ) {
        let came = if is_shown {
            self.source.snippet(input.span())
        } else {
            "a value that is not shown here".to_owned()
        };
        self.errors.push(ConfigError::BadValue {
            at: self.source.origin(&input.span()),
            key: name.to_owned(),
            came,
            expected,
        });
    }

    /// The value of this key as a text, where it came alone and not in a file.
    pub(super) fn as_text(&self, name: &str) -> Option<DeValue<'static>> {
        match &self.source {
            Source::Lone { key, raw, .. } if *key == name => Some(DeValue::String((*raw).to_owned().into())),
            _ => None,
        }
    }
}

/// Whether there is a key of that name.
fn is_key(name: &str) -> bool {
    rows(&Config::default()).iter().any(|row| matches!(row, Row::Key { name: key, .. } if key == name))
}

/// A value outside a file: TOML, and a text if it is none.
fn toml_or_text(raw: &str) -> DeValue<'_> {
    DeValue::parse(raw).map_or_else(|_| DeValue::String(raw.into()), Spanned::into_inner)
}

fn line_of(error: &ConfigError) -> usize {
    match error {
        ConfigError::Syntax { at, .. }
        | ConfigError::UnknownKey { at, .. }
        | ConfigError::BadValue { at, .. }
        | ConfigError::MissingKey { at, .. } => match at {
            Origin::File { line, .. } => *line,
            _ => 0,
        },
        _ => 0,
    }
}

/// Whether Kubernetes set `WATCHTOWER_<name>` because of a service named `watchtower`:
/// `SERVICE_HOST`, `SERVICE_PORT`, `SERVICE_PORT_<name>`, `PORT` with a URL, and
/// `PORT_<number>_<protocol>` with `_PORT`, `_PROTO` or `_ADDR`.
fn is_from_kubernetes(name: &str, value: &str) -> bool {
    let is_numbered_port = |rest: &str| {
        let (number, rest) = rest.split_once('_').unwrap_or((rest, ""));
        let (protocol, detail) = rest.split_once('_').unwrap_or((rest, ""));
        number.parse::<u16>().is_ok()
            && matches!(protocol, "TCP" | "UDP" | "SCTP")
            && matches!(detail, "" | "PORT" | "PROTO" | "ADDR")
    };
    match name {
        "SERVICE_HOST" | "SERVICE_PORT" => true,
        "PORT" => value.contains("://"),
        _ => name.starts_with("SERVICE_PORT_") || name.strip_prefix("PORT_").is_some_and(is_numbered_port),
    }
}

/// From how many characters on a name that is the beginning of another is taken for it.
const BEGINNING_CHARS_MIN: usize = 3;

/// The known key that is nearest to an unknown one, or the table if that is probably meant.
///
/// A key in the wrong table is as near as one letter that is wrong: it is the commonest slip. One
/// of which a part was written, or more than there is of it, is nearer than any other. Where
/// nothing is near, it is one of those that stand in the same table.
fn nearest(unknown: &str) -> Nearest {
    let unknown = unknown.to_lowercase();
    let (unknown_table, unknown_name) = table_and_name(&unknown);
    let distance = |known: &str| {
        let (table, name) = table_and_name(known);
        let whole = strsim::damerau_levenshtein(&unknown, known);
        let apart =
            if is_part(unknown_name, name) { 0 } else { strsim::damerau_levenshtein(unknown_name, name) };
        whole.min(apart + usize::from(table != unknown_table))
    };
    let is_likely = |distance: usize| distance <= 1 + unknown_name.chars().count() / 3;
    let all: Vec<_> = rows(&Config::default())
        .into_iter()
        .map(|row| match row {
            Row::Table { name, .. } => (distance(&name), name, true),
            Row::Key { name, .. } => (distance(&name), name, false),
        })
        .collect();
    let likely =
        all.iter().filter(|(distance, ..)| is_likely(*distance)).min_by_key(|(distance, ..)| *distance);
    let beside = all
        .iter()
        .filter(|(_, name, is_table)| !is_table && table_and_name(name).0 == unknown_table)
        .min_by_key(|(distance, ..)| *distance);
    let (_, key, _) = likely.or(beside).cloned().unwrap_or_default();
    Nearest { key, is_likely: likely.is_some() }
}

/// A key or table that is dotted from the top: what it stands in, which may be nothing, and what
/// it is called there.
fn table_and_name(full_name: &str) -> (&str, &str) {
    full_name.rsplit_once('.').unwrap_or(("", full_name))
}

/// Whether one name is the beginning of the other.
fn is_part(one: &str, other: &str) -> bool {
    one.len().min(other.len()) >= BEGINNING_CHARS_MIN && (one.starts_with(other) || other.starts_with(one))
}
