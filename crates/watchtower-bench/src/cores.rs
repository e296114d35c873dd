//! Which core runs what, and what a process has used of them.
//!
//! Server and load on a core each is the layout in which a cost per delivery means something: on
//! one core they take turns, and on many a server's threads wander.

use std::time::Duration;

use nix::time::ClockId;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::error::Error;

/// The core of each side; `None` means wherever the system puts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Placement {
    pub(crate) server: Option<usize>,
    pub(crate) load: Option<usize>,
}

impl Placement {
    /// Takes what was asked for, and for what was not the first core that this process may use and
    /// the other side does not. With fewer than two cores nothing is pinned unasked.
    ///
    /// # Errors
    /// [`Error::Options`] for a core that this process may not use.
    pub(crate) fn choose(server: Option<usize>, load: Option<usize>) -> Result<Self, Error> {
        let allowed = allowed_cores()?;
        for core in [server, load].into_iter().flatten() {
            if !allowed.contains(&core) {
                return Err(Error::Options(format!(
                    "core {core} cannot be used: this process may run on {allowed:?}"
                )));
            }
        }
        Ok(Self::among(&allowed, server, load))
    }

    fn among(allowed: &[usize], server: Option<usize>, load: Option<usize>) -> Self {
        let free = |taken: Option<usize>| {
            let mut free = allowed.iter().copied().filter(|core| Some(*core) != taken);
            free.next().filter(|_| allowed.len() > 1)
        };
        let server = server.or_else(|| free(load));
        Self { server, load: load.or_else(|| free(server)) }
    }
}

/// The cores that this process may run on, lowest first.
fn allowed_cores() -> Result<Vec<usize>, Error> {
    let set = sched_getaffinity(None).map_err(|errno| Error::io("ask for the usable cores")(errno.into()))?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

/// Ties the calling thread, and whatever threads and processes it starts from now on, to a core.
pub(crate) fn pin_this_thread(core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).map_err(|errno| Error::io(format!("stay on core {core}"))(errno.into()))
}

/// A process's CPU clock: every nanosecond that any of its threads, living or ended, has run.
///
/// Per-thread statistics (`/proc/PID/task/*/schedstat`) would forget threads that ended between
/// two readings; `/proc/PID/stat` counts in hundredths of a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuClock(ClockId);

impl CpuClock {
    /// The clock of a process that this user may see.
    pub(crate) fn of(pid: Pid) -> Result<Self, Error> {
        ClockId::pid_cpu_clock_id(nix::unistd::Pid::from_raw(pid.as_raw_nonzero().get()))
            .map(Self)
            .map_err(|errno| Error::io("read a process's CPU clock")(errno.into()))
    }

    /// The clock of this process.
    pub(crate) fn own() -> Self {
        Self(ClockId::CLOCK_PROCESS_CPUTIME_ID)
    }

    /// CPU time used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn read(self) -> Result<Duration, Error> {
        self.0
            .now()
            .map(Duration::from)
            .map_err(|errno| Error::io("read a process's CPU clock")(errno.into()))
    }
}

/// How long the calling thread has been ready to run while something else had its core.
pub(crate) fn waited_for_core() -> Result<Duration, Error> {
    const PATH: &str = "/proc/thread-self/schedstat";
    let text = std::fs::read_to_string(PATH).map_err(Error::io(format!("read {PATH}")))?;
    parse_waited(&text)
        .ok_or_else(|| Error::io(format!("understand {PATH}"))(std::io::ErrorKind::InvalidData.into()))
}

/// The second field of a `schedstat`: time run, time waited, turns.
fn parse_waited(schedstat: &str) -> Option<Duration> {
    let waited = schedstat.split_ascii_whitespace().nth(1)?;
    waited.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_does_not_exist_is_refused_by_name() {
        let error = Placement::choose(Some(CpuSet::MAX_CPU + 1), None).unwrap_err();
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }

    #[test]
    fn each_side_gets_a_core_of_its_own_where_there_are_two() {
        let check = |allowed: &[usize], server, load, expected| {
            let Placement { server, load } = Placement::among(allowed, server, load);
            assert_eq!((server, load), expected);
        };
        check(&[2, 5, 7], None, None, (Some(2), Some(5)));
        check(&[2, 5, 7], Some(5), None, (Some(5), Some(2)));
        check(&[2, 5, 7], None, Some(2), (Some(5), Some(2)));
        check(&[2], None, None, (None, None));
        check(&[2], Some(2), None, (Some(2), None));
    }

    #[test]
    fn what_was_asked_for_is_kept() {
        let core = allowed_cores().unwrap()[0];
        let placement = Placement::choose(Some(core), Some(core)).unwrap();
        assert_eq!(placement, Placement { server: Some(core), load: Some(core) });
    }

    #[test]
    fn a_pinned_thread_may_run_on_that_core_alone() {
        let core = allowed_cores().unwrap()[0];
        let seen = std::thread::spawn(move || {
            pin_this_thread(core).unwrap();
            allowed_cores().unwrap()
        });
        assert_eq!(seen.join().unwrap(), [core]);
    }

    #[test]
    fn the_cpu_clock_counts_threads_that_have_ended() {
        let clock = CpuClock::of(rustix::process::getpid()).unwrap();
        let before = clock.read().unwrap();
        let worked = std::thread::spawn(|| {
            let own = ClockId::CLOCK_THREAD_CPUTIME_ID;
            while Duration::from(own.now().unwrap()) < Duration::from_millis(5) {}
        });
        worked.join().unwrap();
        assert!(clock.read().unwrap() - before >= Duration::from_millis(5));
    }
    #[test]
    fn waiting_for_a_core_is_told_apart_from_running() {
        assert_eq!(parse_waited("106759 3062964 2\n"), Some(Duration::from_nanos(3_062_964)));
        assert_eq!(parse_waited("106759\n"), None);
        let before = waited_for_core().unwrap();
        assert!(waited_for_core().unwrap() >= before);
    }
}
