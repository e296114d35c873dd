//! `watchtower bench` [running: watchtower bench].

use serde_json::Value;

use super::process::{run, run_in};

#[test]
fn a_bench_of_a_server_of_its_own_reports_every_delivery_and_what_it_cost() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "fanout", "--subscribers", "3", "--messages", "20", "--floor", "--json"];
    let plot = ["--plot", "latency.svg"];
    let ended = run_in(folder.path(), &[&arguments[..], &plot].concat(), &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["deliveries"], 60);
    assert_eq!(report["lost"], 0);
    assert!(report["latency"]["p999_ns"].is_u64(), "{report}");
    assert!(report["server"]["idle_bytes_per_connection"].is_number(), "{report}");
    assert!(report["floor"].is_object(), "{report}");
    let drawn = std::fs::read_to_string(folder.path().join("latency.svg")).unwrap();
    assert!(drawn.contains("<svg"));
}

/// The margin is wide: this build is not optimised, which makes it about 1.6, and other tests run
/// beside it. A second system call for each delivery does not fit in.
#[test]
fn a_delivery_costs_less_than_two_and_a_half_times_a_bare_write() {
    let arguments = ["bench", "fanout", "--subscribers", "200", "--messages", "200", "--floor", "--json"];
    let ended = run(&arguments);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["deliveries"], 40_000);
    let ratio = report["floor"]["ratio"].as_f64().unwrap();
    assert!(ratio < 2.5, "{ratio} times the bare loop's CPU: {report}");
}

#[test]
fn a_server_that_does_not_start_is_code_1_and_says_why() {
    let ended = run(&["bench", "fanout", "--set", "limits.max_sendres=5"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("did you mean \"limits.max_senders\"?"), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn the_command_of_the_bare_loop_is_not_shown_to_people() {
    assert!(!run(&["bench", "--help"]).stdout.contains("floor-server"));
    assert!(!run(&["man"]).stdout.contains("floor-server"));
}

#[test]
fn a_bench_over_websocket_gives_its_server_what_it_needs() {
    for protocol in ["webrocket", "webtalk"] {
        for option in [&[][..], &["--deflate"]] {
            let arguments = ["bench", "fanout", "--protocol", protocol, "--subscribers", "3"];
            let more = ["--messages", "20", "--size", "1000", "--floor", "--json"];
            let ended = run(&[&arguments[..], &more, option].concat());
            assert_eq!(ended.code, Some(0), "{protocol} {option:?}: {}", ended.stderr);
            let report: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(report["protocol"], protocol);
            assert_eq!((&report["deliveries"], &report["lost"]), (&60.into(), &0.into()), "{report}");
            assert_eq!(report["deflate"], !option.is_empty());
            assert!(report["floor"]["ratio"].is_number(), "{report}");
        }
    }
}
