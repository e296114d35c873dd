//! What comes into the program from others is what `deny.toml` lets in: by licence, by name, once
//! each, and from the registry alone. `cargo deny` judges the same file; this needs nothing but
//! cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use toml::Table;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// A crate that the program, or its tests, are made of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
    /// `None` for those of this workspace.
    source: Option<String>,
}

/// All of them, on this kind of machine.
fn crates(rules: &Table) -> Vec<Crate> {
    let target = &rules["graph"]["targets"][0];
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
        .arg(target.as_str().unwrap())
        .current_dir(workspace())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let read = |package: &Value| Crate {
        name: text(&package["name"]).unwrap(),
        version: text(&package["version"]).unwrap(),
        licence: text(&package["license"]).unwrap_or_default(),
        source: text(&package["source"]),
    };
    metadata["packages"].as_array().unwrap().iter().map(read).collect()
}

fn rules() -> Table {
    fs::read_to_string(workspace().join("deny.toml")).unwrap().parse().unwrap()
}

/// The texts in a list of the rules, those of its tables by that key.
fn listed<'a>(rules: &'a Table, list: &[&str], key: &str) -> BTreeSet<&'a str> {
    let list = list.iter().fold(None, |at: Option<&toml::Value>, step| match at {
        None => rules.get(*step),
        Some(at) => at.get(step),
    });
    let items = list.and_then(toml::Value::as_array).unwrap();
    items.iter().map(|item| item.as_str().unwrap_or_else(|| item[key].as_str().unwrap())).collect()
}

/// Whether one may be had under the licences that are allowed: an expression of SPDX, or the older
/// way with a slash for OR.
fn is_allowed(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    let is_so = any_of(&mut words, allowed);
    is_so && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut is_so = all_of(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        is_so |= all_of(words, allowed);
    }
    is_so
}

fn all_of(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let mut is_so = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        is_so &= one(words, allowed);
    }
    is_so
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<&str>) -> bool {
    let Some(licence) = words.next() else { return false };
    if licence == "(" {
        return any_of(words, allowed) && words.next() == Some(")");
    }
    if words.next_if_eq(&"WITH").is_some() {
        let exception = words.next().unwrap_or_default();
        return allowed.contains(format!("{licence} WITH {exception}").as_str());
    }
    allowed.contains(licence)
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "ISC"]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("", false),
        ("GPL-3.0 OR MIT", true),
        ("Unlicense/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("Apache-2.0 AND ISC", true),
        ("(MIT OR GPL-3.0) AND ISC", true),
        ("MIT OR GPL-3.0 AND BSD", true),
        ("(MIT OR GPL-3.0) AND BSD", false),
        ("Apache-2.0 WITH LLVM-exception", false),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("MIT GPL-3.0", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_under_a_licence_that_is_allowed() {
    let rules = rules();
    let allowed = listed(&rules, &["licenses", "allow"], "");
    let denied = listed(&rules, &["bans", "deny"], "name");
    let crates = crates(&rules);
    assert!(crates.len() > 100, "{}", crates.len());
    for krate in &crates {
        assert!(is_allowed(&krate.licence, &allowed), "deny.toml does not allow the licence of {krate:?}");
        assert!(!denied.contains(krate.name.as_str()), "deny.toml keeps out {krate:?}");
        let is_ours = krate.name.starts_with("watchtower");
        match &krate.source {
            Some(source) => assert!(source.starts_with("registry+"), "from no registry: {krate:?}"),
            None => assert!(is_ours, "from nowhere: {krate:?}"),
        }
    }
}

#[test]
fn no_crate_comes_in_two_versions_but_those_that_are_named() {
    let rules = rules();
    let skipped = listed(&rules, &["bans", "skip"], "crate");
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for krate in crates(&rules) {
        versions.entry(krate.name).or_default().insert(krate.version);
    }
    let is_named = |name: &str, version: &str| {
        skipped.iter().any(|skip| {
            let (skip, begins) = skip.split_once('@').unwrap();
            skip == name && version.strip_prefix(begins).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    for (name, versions) in &versions {
        let unnamed: Vec<_> = versions.iter().filter(|version| !is_named(name, version)).collect();
        assert!(
            unnamed.len() <= 1,
            "{name} comes as {unnamed:?}: name the older one in deny.toml, or do without"
        );
    }
    for skip in &skipped {
        let name = skip.split('@').next().unwrap();
        let count = versions.get(name).map_or(0, BTreeSet::len);
        assert!(count > 1, "{skip} of deny.toml comes in one version by now: take it out");
    }
}
