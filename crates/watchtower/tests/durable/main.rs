//! Durable channels, by the real binary and the bytes of its protocols: what is acknowledged is
//! there whatever happens to the process [model: promises].

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "others use the rest")]
mod support;

mod client;
mod faults;
mod kill;
mod restart;

use std::path::Path;

use support::Server;

const SECRET: &str = "3f9c-aa01";

/// A server whose channels 1, 10 to 19 and so on, and `kept/…`, are durable, kept in this folder.
fn start(data_dir: &Path) -> Server {
    start_with(data_dir, &[])
}

fn start_with(data_dir: &Path, options: &[&str]) -> Server {
    start_after("true", data_dir, options)
}

/// In a process for which a shell has done something before.
fn start_after(shell: &str, data_dir: &Path, options: &[&str]) -> Server {
    let data_dir = data_dir.to_str().unwrap();
    let rules = r#"channels=[{pattern="1*",durable=true},{pattern="kept/*",durable=true}]"#;
    let always = ["--data-dir", data_dir, "--secret", SECRET, "--set", rules, "--set", "http.heartbeat=1h"];
    Server::start_after(shell, &[&always, options].concat())
}
