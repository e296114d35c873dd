//! `watchtower bench` [running: watchtower bench].

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

use super::process::{Ended, run, run_in, watchtower};

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
fn a_bench_that_is_stopped_while_it_waits_for_an_answer_goes_on_waiting() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = watchtower(["bench", "fanout", "--server", &server.local_addr().unwrap().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut connection, _) = server.accept().unwrap();
    assert_ne!(connection.read(&mut [0; 64]).unwrap(), 0, "it has asked");
    let pid = Pid::from_child(&bench);
    kill_process(pid, Signal::STOP).unwrap();
    waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    drop(connection);
    let ended: Ended = bench.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.ends_with(": the connection was closed\n"), "{}", ended.stderr);
}

const PROTOCOLS: [&str; 6] = ["tcp", "udp", "http", "sse", "webrocket", "webtalk"];

/// The report of a bench that is over, and ended well.
fn report(arguments: &[&str]) -> Value {
    let ended = run(&[&["bench"], arguments, &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn many_publishers_reach_the_subscribers_of_their_channels() {
    for protocol in PROTOCOLS {
        for (publishers, channels) in [("3", "7"), ("5", "2")] {
            let many = ["many", "--protocol", protocol, "--publishers", publishers, "--channels", channels];
            let more = ["--subscribers", "2", "--messages", "40", "--window", "16", "--floor"];
            let report = report(&[&many[..], &more].concat());
            assert_eq!((&report["deliveries"], &report["lost"]), (&80.into(), &0.into()), "{report}");
            assert_eq!(report["unexpected"], 0, "{report}");
            assert_eq!(report["floor"]["lost"], 0, "{report}");
        }
    }
}

#[test]
fn more_and_more_subscribers_are_a_report_each_and_a_plot() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "scale", "--subscribers", "2,5", "--messages", "10", "--plot", "cost.svg"];
    let ended = run_in(folder.path(), &arguments, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    assert!(std::fs::read_to_string(folder.path().join("cost.svg")).unwrap().contains("<svg"));
}

#[test]
fn latency_is_told_for_each_rate() {
    let latency = ["latency", "--rates", "50,200", "--seconds", "0.2", "--subscribers", "3"];
    let report = report(&latency);
    let points = report["points"].as_array().unwrap();
    assert_eq!(points.iter().map(|point| &point["rate"]).collect::<Vec<_>>(), [50, 200]);
    assert!(points[1]["latency"]["p99_ns"].is_u64(), "{report}");
    assert!(points[1]["server_cpu_ns_per_delivery"].is_f64(), "{report}");
}

#[test]
fn connections_come_and_go_and_rest_over_every_protocol() {
    for protocol in PROTOCOLS {
        let churn = report(&["churn", "--protocol", protocol, "--connections", "30", "--held", "5"]);
        assert_eq!(churn["connections"], 30);
        assert!(churn["joining"]["p50_ns"].as_u64().unwrap() > 0, "{churn}");
        assert!(churn["server"]["cpu_ns_per_connection"].as_f64().unwrap() > 0.0, "{churn}");
        let idle = report(&["idle", "--protocol", protocol, "--connections", "30", "--seconds", "0"]);
        assert!(idle["resident_bytes_after"].as_u64().unwrap() > 0, "{idle}");
        assert!(idle["join_cpu_ns_per_connection"].as_f64().unwrap() > 0.0, "{idle}");
    }
}

#[test]
fn resting_connections_answer_pings() {
    // One that says nothing between two pings is closed.
    let heartbeat = "websocket.heartbeat=1s";
    let idle =
        ["idle", "--protocol", "webrocket", "--connections", "3", "--seconds", "3", "--set", heartbeat];
    assert!(report(&idle)["seconds"].as_f64().unwrap() >= 3.0);
}

#[test]
fn durable_publishing_is_measured_beside_the_store_alone_and_a_channel_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let durable = "bench durable --publishers 4 --in-flight 2 --messages 80 --seconds 0.1 --json";
    let durable: Vec<_> = durable.split(' ').collect();
    let ended = run_in(folder.path(), &durable, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["publishers"], &report["in_flight"]), (&4.into(), &2.into()));
    assert_eq!(report["messages"], 80);
    for figure in [&report["acknowledged_per_second"], &report["store_per_second"], &report["ratio"]] {
        assert!(figure.as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(report["beside"]["slowed"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left behind");
    let missing = run_in(folder.path(), &["bench", "durable", "--folder", "missing"], &[]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.starts_with("watchtower: cannot make a folder in missing: "), "{missing:?}");
}

#[test]
fn the_commands_of_what_a_server_is_held_against_are_not_shown_to_people() {
    for command in ["floor-server", "store-alone"] {
        assert!(!run(&["bench", "--help"]).stdout.contains(command));
        assert!(!run(&["man"]).stdout.contains(command));
    }
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
