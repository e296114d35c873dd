//! `watchtower config` as a person uses it [running: serve].

use std::fs;

use super::process::{Ended, run, run_in};

#[test]
fn the_default_file_is_printed_and_nothing_is_wrong_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run_in(folder.path(), &["config", "default"], &[]);
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    assert!(printed.stdout.contains("\nlisten = \"127.0.0.1:3033\"\n"));
    fs::write(folder.path().join("watchtower.toml"), &printed.stdout).unwrap();
    assert_eq!(
        run_in(folder.path(), &["config", "check", "watchtower.toml"], &[]),
        Ended {
            code: Some(0),
            stdout: "watchtower.toml: nothing is wrong\n".to_owned(),
            stderr: String::new(),
        }
    );
}

#[test]
fn everything_that_is_wrong_with_a_file_is_said_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let text = "listen = 5\n[limits]\nmax_conections = 1\n";
    fs::write(folder.path().join("watchtower.toml"), text).unwrap();
    assert_eq!(
        run_in(folder.path(), &["config", "check", "watchtower.toml"], &[]),
        Ended {
            code: Some(2),
            stdout: String::new(),
            stderr: "watchtower.toml:1: listen: got 5, expected an IP address or localhost, a \
                     colon and a port, such as \"127.0.0.1:3033\" or \"[::]:3033\"\n\
                     watchtower.toml:3: unknown key \"limits.max_conections\"; did you mean \
                     \"limits.max_connections\"?\n"
                .to_owned(),
        }
    );
}

#[test]
fn a_file_is_checked_as_the_environment_completes_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("open.toml"), "listen = \"0.0.0.0:3033\"\n").unwrap();
    let check =
        |environment: &[(&str, &str)]| run_in(folder.path(), &["config", "check", "open.toml"], environment);
    let alone = check(&[]);
    assert_eq!(alone.code, Some(2));
    assert!(alone.stderr.contains("secret_key is empty"), "{alone:?}");
    assert_eq!(check(&[("WATCHTOWER_SECRET_KEY", "5f1c-77ab")]).code, Some(0));
    let misspelt = check(&[("WATCHTOWER_SECRET", "5f1c-77ab")]);
    assert_eq!(misspelt.code, Some(2));
    assert!(misspelt.stderr.starts_with("WATCHTOWER_SECRET: unknown key \"secret\""));
    assert!(!misspelt.stderr.contains("5f1c-77ab"));
}

#[test]
fn a_file_that_is_not_there_is_bad_usage() {
    let missing = run(&["config", "check", "missing.toml"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(2), ""));
    assert!(missing.stderr.starts_with("missing.toml: cannot read the configuration: "));
    assert_eq!(missing.stderr.lines().count(), 1);
}
