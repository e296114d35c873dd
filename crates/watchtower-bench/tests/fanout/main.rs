//! Whole benches against child processes: this program is the tests, and, by its first argument,
//! the servers and the bare loop that they start.
#![cfg(target_os = "linux")]

mod tiny_server;
mod tiny_websocket;

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use watchtower_bench::{
    Error, Options, Pace, Phase, Progress, Protocol, Report, RoundCost, SideCost, fanout,
};

use crate::tiny_server::Fault;

fn main() -> ExitCode {
    let served = match env::args().nth(1).as_deref() {
        Some("child-floor") => watchtower_bench::floor::serve(),
        Some("child-server") => tiny_server::serve(Fault::None),
        Some("child-server-losing") => tiny_server::serve(Fault::LosesDatagrams),
        Some("child-server-closing") => tiny_server::serve(Fault::ClosesSubscribers),
        Some("child-server-repeating") => tiny_server::serve(Fault::Repeats),
        Some("child-server-pinging") => tiny_server::serve(Fault::Pings),
        _ => return run_tests(),
    };
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_tests() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They pin cores and count CPU time: side by side they would measure each other.
    arguments.test_threads = Some(1);
    let trial = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial("every_protocol_delivers_everything_in_windows", every_protocol),
        trial("every_protocol_is_held_against_the_bare_loop", every_protocol_and_the_floor),
        trial("a_rate_is_kept_and_everything_arrives", a_rate),
        trial("messages_over_many_channels_all_arrive", many_channels),
        trial("a_message_of_another_channel_is_no_delivery", another_channel),
        trial("the_cost_of_a_server_whose_process_is_named_is_known", server_with_a_process),
        trial("large_messages_in_large_windows_all_arrive", large_messages),
        trial("lost_datagrams_are_counted_and_not_waited_for", lost_datagrams),
        trial("repeated_messages_are_no_deliveries", repeated_messages),
        trial("a_server_that_closes_a_subscriber_ends_the_bench", closed_subscriber),
        trial("a_wrong_secret_is_told_as_the_server_puts_it", wrong_secret),
        trial("a_server_that_runs_already_is_used_and_its_cost_unknown", server_of_another),
        trial("a_websocket_that_closes_is_told_with_its_reason", closed_websocket),
        trial("pings_are_answered", answered_pings),
        trial("subscribers_may_have_a_secret_of_their_own", read_only_subscribers),
        trial("a_refusal_over_websocket_is_told_as_the_server_puts_it", websocket_refusals),
        trial("a_server_that_runs_already_is_left_without_users_and_channels", tidied_webtalk),
        trial("progress_counts_up_to_what_it_announced", progress),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// This program as something else.
fn command(role: &str) -> Vec<OsString> {
    vec![env::current_exe().unwrap().into(), role.into()]
}

fn options(protocol: Protocol) -> Options {
    Options {
        protocol,
        subscribers: 5,
        messages: 40,
        secret: Some(tiny_server::SECRET.into()),
        server_command: command("child-server"),
        floor_command: command("child-floor"),
        ..Options::default()
    }
}

const PROTOCOLS: [Protocol; 6] =
    [Protocol::Tcp, Protocol::Udp, Protocol::Http, Protocol::Sse, Protocol::WebRocket, Protocol::WebTalk];

/// What each protocol can be tried with.
fn every_option() -> impl Iterator<Item = Options> {
    PROTOCOLS.into_iter().flat_map(|protocol| {
        let is_websocket = matches!(protocol, Protocol::WebRocket | Protocol::WebTalk);
        let deflates: &[bool] = if is_websocket { &[false, true] } else { &[false] };
        deflates.iter().map(move |deflate| Options { deflate: *deflate, ..options(protocol) })
    })
}

fn check_complete(options: &Options) -> Report {
    let report = fanout(options, &mut ()).unwrap();
    let deliveries = u64::from(options.messages) * u64::from(options.subscribers);
    assert_eq!(report.messages, u64::from(options.messages));
    assert_eq!((report.deliveries, report.lost, report.unexpected), (deliveries, 0, 0));
    assert!(report.deliveries_per_second > 0.0);
    let latency = &report.latency;
    assert!(latency.p50_ns > 0 && latency.p50_ns <= latency.p99_ns);
    assert!(latency.p999_ns <= latency.max_ns);
    report
}

/// CPU time in all rounds. In a round of a few messages the system may have counted
/// none for a process that runs all the while.
fn spent(report: &Report, side: impl Fn(&RoundCost) -> Option<SideCost>) -> f64 {
    report.rounds.iter().filter_map(|round| side(round)?.cpu_ns_per_delivery).sum()
}

fn every_protocol() {
    for options in every_option() {
        for window in [1, 16] {
            let pace = Pace::Window(window);
            let report = check_complete(&Options { pace, ..options.clone() });
            let server = report.server.as_ref().unwrap();
            assert!(server.cpu_ns_per_delivery.is_some() && spent(&report, |round| Some(round.server)) > 0.0);
            assert!(server.ready_ms.unwrap() > 0.0);
            assert!(server.resident_bytes_after > 0);
            assert_eq!(report.floor, None);
        }
    }
}

fn every_protocol_and_the_floor() {
    for options in every_option() {
        for window in [1, 16] {
            let pace = Pace::Window(window);
            let report = check_complete(&Options { pace, floor: true, ..options.clone() });
            let floor = report.floor.as_ref().unwrap();
            assert_eq!(floor.lost, 0);
            assert!(floor.ratio.unwrap() > 0.0);
            assert!(floor.cpu_ns_per_delivery.is_some() && spent(&report, |round| round.floor) > 0.0);
            for round in &report.rounds {
                assert_eq!(round.server.deliveries, round.floor.unwrap().deliveries);
            }
        }
    }
}

fn a_rate() {
    for floor in [false, true] {
        let pace = Pace::Rate(2000);
        let report = check_complete(&Options { pace, floor, ..options(Protocol::Tcp) });
        let seconds: f64 = report.rounds.iter().map(|round| round.server.seconds).sum();
        // The last of n messages is due n - 1 intervals after the first.
        let rounds = report.rounds.len() as f64;
        assert!(seconds >= (40.0 - rounds) / 2000.0, "{seconds}");
    }
}

fn many_channels() {
    for options in every_option() {
        let pace = Pace::Window(16);
        check_complete(&Options { channels: 3000, pace, ..options });
    }
}

/// The tiny server has one channel under all its numbers.
fn another_channel() {
    for protocol in [Protocol::Tcp, Protocol::WebRocket] {
        let (publishers, channels) = (Some(3), 7);
        let options = Options { publishers, channels, subscribers: 2, ..options(protocol) };
        let report = fanout(&options, &mut ()).unwrap();
        assert_eq!((report.subscribers, report.deliveries, report.lost), (14, 80, 0));
        assert!(report.unexpected > 0);
    }
}

fn server_with_a_process() {
    let (running, _) = tiny_server::start_here();
    let server_pid = Some(std::process::id());
    let options = Options { server: Some(running), server_pid, floor: true, ..options(Protocol::Tcp) };
    let report = check_complete(&options);
    let server = report.server.unwrap();
    assert_eq!(server.ready_ms, None);
    assert!(server.cpu_ns_per_delivery.unwrap() > 0.0);
    assert!(report.floor.unwrap().ratio.unwrap() > 0.0);
}

fn large_messages() {
    // More than sockets hold: publisher and subscribers must be served in turn.
    for protocol in [Protocol::Tcp, Protocol::Sse, Protocol::WebRocket, Protocol::WebTalk] {
        let pace = Pace::Window(40);
        let size = if protocol == Protocol::WebTalk { 99_970 } else { 1_000_000 };
        check_complete(&Options { size, pace, floor: true, ..options(protocol) });
    }
}

fn lost_datagrams() {
    let server_command = command("child-server-losing");
    let pace = Pace::Window(8);
    let options = Options { server_command, pace, ..options(Protocol::Udp) };
    let report = fanout(&options, &mut ()).unwrap();
    assert_eq!(report.messages, 40);
    assert!(report.lost > 0);
    assert_eq!(report.deliveries + report.lost, 200);
}

fn repeated_messages() {
    let server_command = command("child-server-repeating");
    let report = fanout(&Options { server_command, ..options(Protocol::Tcp) }, &mut ());
    let report = report.unwrap();
    assert_eq!((report.deliveries, report.lost), (200, 0));
    assert!(report.unexpected > 0);
}

fn closed_subscriber() {
    let server_command = command("child-server-closing");
    let error = fanout(&Options { server_command, ..options(Protocol::Tcp) }, &mut ());
    let error = error.unwrap_err().to_string();
    assert!(error.ends_with("refused with error 8 (lagging)"), "{error}");
}

fn wrong_secret() {
    let secret = Some("guess".to_owned());
    let error = fanout(&Options { secret, ..options(Protocol::Sse) }, &mut ()).unwrap_err();
    assert!(matches!(error, Error::Peer { .. }));
    let expected = "the publisher: refused with error 5 (wrong secret)";
    assert_eq!(error.to_string(), expected);
}

fn server_of_another() {
    for protocol in [Protocol::Http, Protocol::WebRocket, Protocol::WebTalk] {
        let (running, private) = tiny_server::start_here();
        let webtalk_private = (protocol == Protocol::WebTalk).then_some(private);
        let options = Options { server: Some(running), webtalk_private, ..options(protocol) };
        let report = check_complete(&options);
        assert_eq!(report.server, None);
        assert_eq!(report.cores.server, None);
    }
}

fn closed_websocket() {
    let server_command = command("child-server-closing");
    let error = fanout(&Options { server_command, ..options(Protocol::WebRocket) }, &mut ());
    let expected = "subscriber 0: the connection was closed with 1008 (lagging)";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

fn answered_pings() {
    for protocol in [Protocol::WebRocket, Protocol::WebTalk] {
        check_complete(&Options { server_command: command("child-server-pinging"), ..options(protocol) });
    }
}

fn read_only_subscribers() {
    let read_only_secret = Some(tiny_websocket::READ_ONLY_SECRET.to_owned());
    check_complete(&Options { read_only_secret, ..options(Protocol::WebRocket) });
}

fn websocket_refusals() {
    let wrong = Some("guess".to_owned());
    for (options, expected) in [
        (
            Options { secret: wrong.clone(), ..options(Protocol::WebRocket) },
            "the publisher: refused with `invalid_credentials`",
        ),
        (
            Options { read_only_secret: wrong.clone(), ..options(Protocol::WebRocket) },
            "subscriber 0: refused with `invalid_credentials`",
        ),
        (
            Options { secret: wrong, ..options(Protocol::WebTalk) },
            "the private link: refused with `wrong secret`",
        ),
        (
            Options { secret: None, ..options(Protocol::WebTalk) },
            "the private link: refused with `not logged in`",
        ),
    ] {
        assert_eq!(fanout(&options, &mut ()).unwrap_err().to_string(), expected);
    }
    let path = Some("/nowhere".to_owned());
    let error = fanout(&Options { path, ..options(Protocol::WebRocket) }, &mut ()).unwrap_err();
    let expected = "the publisher: expected `101` and a WebSocket, got `HTTP/1.1 200 OK`";
    assert_eq!(error.to_string(), expected);
}

fn tidied_webtalk() {
    let (running, private) = tiny_server::start_here();
    let options = Options {
        server: Some(running),
        webtalk_private: Some(private),
        channels: 3,
        ..options(Protocol::WebTalk)
    };
    check_complete(&options);
    let login = format!("{:05}[login] {}", 8 + tiny_server::SECRET.len(), tiny_server::SECRET);
    let mut link = std::net::TcpStream::connect(private).unwrap();
    let commands = format!("{login}00012[newchannel]");
    link.write_all(commands.as_bytes()).unwrap();
    let mut replies = [0; 21];
    link.read_exact(&mut replies).unwrap();
    assert_eq!(&replies, b"00005[ok] 00006[ok] 2", "the lowest id is free again");
}

fn progress() {
    #[derive(Default)]
    struct Heard(Vec<(Phase, u64, u64)>);
    impl Progress for Heard {
        fn begin(&mut self, phase: Phase, total: u64) {
            self.0.push((phase, total, 0));
        }
        fn done(&mut self, count: u64) {
            self.0.last_mut().unwrap().2 = count;
        }
    }
    let mut heard = Heard::default();
    fanout(&Options { floor: true, ..options(Protocol::Tcp) }, &mut heard).unwrap();
    let expected = [
        (Phase::Starting, 0, 0),
        (Phase::Joining, 5, 5),
        (Phase::ConnectingFloor, 5, 5),
        (Phase::WarmingUp, 0, 0),
        (Phase::Measuring, 40, 40),
    ];
    assert_eq!(heard.0, expected);
}
