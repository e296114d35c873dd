//! The configuration: any text in its file.

use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use watchtower_server::config::{Config, Sources};

use crate::folder;

/// How many bytes may be said of a fault, beside the names of the file and of keys.
const FAULT_BYTES_MAX: usize = 2_000;

thread_local! {
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// It is a configuration, or every fault in it is told within bounds.
pub(crate) fn config(data: &[u8]) {
    let file = FOLDER.with(|made| {
        let folder = made.get_or_init(folder::new);
        folder.path().join("watchtower.toml")
    });
    fs::write(&file, data).expect("room");
    load(&Sources { file: Some(file), ..Sources::default() });
    if let Ok(text) = std::str::from_utf8(data) {
        load(&Sources { set: text.lines().map(str::to_owned).collect(), ..Sources::default() });
        load(&Sources {
            environment: vec![("WATCHTOWER_LIMITS__LAG_BYTES".into(), text.into())],
            ..Sources::default()
        });
    }
}

fn load(sources: &Sources) {
    match Config::load(sources) {
        Ok(config) => config.check().expect("it was checked when it was loaded"),
        Err(errors) => {
            for error in errors.iter() {
                let said = error.to_string();
                let named: usize = sources.file.iter().map(|file: &PathBuf| file.as_os_str().len()).sum();
                assert!(
                    !said.is_empty() && said.len() <= named + FAULT_BYTES_MAX,
                    "{} bytes: {said}",
                    said.len()
                );
            }
        }
    }
}
