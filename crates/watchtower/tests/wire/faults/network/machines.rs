//! Two machines with a cable between them: network namespaces. What happens on the cable is
//! somebody else's affair, save that it can be cut.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What each calls its end of the cable.
const CABLE: &str = "cable";

/// A machine of its own, while this exists.
pub(super) struct Machine {
    name: String,
    pub(super) address: Ipv4Addr,
    /// That of the machine at the other end.
    pub(super) other: Ipv4Addr,
}

impl Machine {
    /// Two of them that reach each other, or why there can be none.
    pub(super) fn pair() -> Result<[Machine; 2], String> {
        static PAIRS: AtomicUsize = AtomicUsize::new(0);
        let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
        let address = |side| Ipv4Addr::new(10, 78, 0, side);
        let machine = |side, other| {
            let name = format!("wtf{}p{pair}s{side}", std::process::id());
            command("ip", &["netns", "add", &name])?;
            Ok::<_, String>(Machine { name, address: address(side), other: address(other) })
        };
        let machines = [machine(1, 2)?, machine(2, 1)?];
        let [a, b] = [&machines[0].name, &machines[1].name];
        let link = ["link", "add", CABLE, "netns", a, "type", "veth", "peer", "name", CABLE, "netns", b];
        command("ip", &link)?;
        for Machine { name, address, .. } in &machines {
            command("ip", &["-n", name, "address", "add", &format!("{address}/24"), "dev", CABLE])?;
            command("ip", &["-n", name, "link", "set", CABLE, "up"])?;
            command("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(machines)
    }

    /// Does something there, with all sockets, threads and processes that come of it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let work = || {
            let space = File::open(format!("/run/netns/{}", self.name)).unwrap();
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        // In a thread of its own, since it stays there.
        let done = thread::scope(|scope| scope.spawn(work).join());
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Of the packets that come by the cable and that `which` matches, so many are lost.
    pub(super) fn lose(&self, which: &[&str], probability: &str) -> Result<(), String> {
        let some = ["-m", "statistic", "--mode", "random", "--probability", probability];
        self.iptables(&[&["-A", "INPUT", "-i", CABLE], which, &some, &["-j", "DROP"]].concat()).map(drop)
    }

    /// How many were lost by the rules in whose description this is.
    pub(super) fn lost(&self, words: &str) -> usize {
        let rules = self.iptables(&["-L", "INPUT", "-n", "-v", "-x"]).unwrap();
        let rules = rules.lines().filter(|rule| rule.contains(words));
        rules.map(|rule| rule.split_whitespace().next().unwrap().parse::<usize>().unwrap()).sum()
    }

    /// What goes out by the cable, save what is marked so, goes to that queue.
    pub(super) fn queue(&self, queue: &str, unless_marked: &str) -> Result<(), String> {
        let rule = ["-A", "OUTPUT", "-o", CABLE, "-m", "mark", "!", "--mark", unless_marked];
        self.iptables(&[&rule[..], &["-j", "NFQUEUE", "--queue-num", queue]].concat()).map(drop)
    }

    /// From now on nothing comes by the cable.
    pub(super) fn cut_off(&self) {
        self.iptables(&["-I", "INPUT", "-i", CABLE, "-j", "DROP"]).unwrap();
    }

    /// From now on it does again.
    pub(super) fn heal(&self) {
        self.iptables(&["-D", "INPUT", "-i", CABLE, "-j", "DROP"]).unwrap();
    }

    fn iptables(&self, arguments: &[&str]) -> Result<String, String> {
        command("ip", &[&["netns", "exec", &self.name, "iptables", "-w"], arguments].concat())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = command("ip", &["netns", "delete", &self.name]);
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("no {program}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    Err(format!("{program} {}: {}", arguments.join(" "), said(&output.stderr)))
}
