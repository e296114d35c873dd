//! The server that is measured: one that is started here, or one that is running already.

use std::time::Duration;

use rustix::process::Pid;

use crate::cores::{CpuClock, Placement};
use crate::error::Error;
use crate::options::Options;
use crate::process::{Addresses, Process, resident_bytes};
use crate::report::Cores;

/// A server, and as much of its process as may be looked at.
#[derive(Debug)]
pub(crate) struct Server {
    addresses: Addresses,
    /// `None` for one of another's.
    pid: Option<Pid>,
    /// One that was started here ends with this.
    process: Option<Process>,
}

impl Server {
    /// The one that the options name, or one that they say how to start, on this core.
    pub(crate) fn start(options: &Options, core: Option<usize>) -> Result<Self, Error> {
        let Some(tcp) = options.server else {
            let process = Process::start(&options.server_command, core)?;
            return Ok(Self {
                addresses: process.addresses(),
                pid: Some(process.pid()),
                process: Some(process),
            });
        };
        let addresses = Addresses { tcp, udp: tcp, webtalk_private: options.webtalk_private };
        let pid = options.server_pid.map(|pid| {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.ok_or_else(|| Error::Options("that is the number of no process".into()))
        });
        Ok(Self { addresses, pid: pid.transpose()?, process: None })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Which core runs what. Where another's server runs is not known.
    pub(crate) fn cores(&self, Placement { server, load }: Placement) -> Cores {
        Cores { server: server.filter(|_| self.process.is_some()), load }
    }

    pub(crate) fn cpu_clock(&self) -> Result<Option<CpuClock>, Error> {
        self.pid.map(CpuClock::of).transpose()
    }

    /// Bytes of its memory that are resident.
    pub(crate) fn resident_bytes(&self) -> Result<Option<u64>, Error> {
        self.pid.map(resident_bytes).transpose()
    }

    /// From its start to its `ready`.
    pub(crate) fn ready_after(&self) -> Option<Duration> {
        self.process.as_ref().map(Process::ready_after)
    }
}
