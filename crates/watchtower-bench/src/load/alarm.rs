//! Wakes an epoll loop at the moment when the next message is due, to the nanosecond: epoll's own
//! time-out is in milliseconds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// A timer for one moment at a time.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// What it is set for.
    set_for: Option<u32>,
}

impl Alarm {
    /// Its events carry `data`.
    pub(crate) fn new(epoll: impl AsFd, data: u64) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        // Edge-triggered, it need not be read: setting it anew forgets what is past.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(epoll, &timer, epoll::EventData::new_u64(data), flags)?;
        Ok(Self { timer, set_for: None })
    }

    /// Goes off once, so long from now, for the message of this index; does nothing if it is set
    /// for that already.
    pub(crate) fn set(&mut self, index: u32, from_now: Duration) -> io::Result<()> {
        if self.set_for == Some(index) {
            return Ok(());
        }
        // Zero would switch it off.
        let from_now = from_now.max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(from_now).map_err(io::Error::other)?;
        let times = Itimerspec { it_interval: Timespec::default(), it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &times)?;
        self.set_for = Some(index);
        Ok(())
    }

    /// Forgets what it was set for, so that the same index can be set again.
    pub(crate) fn reset(&mut self) {
        self.set_for = None;
    }
}

#[cfg(test)]
mod tests {
    use rustix::buffer::spare_capacity;

    use super::*;

    #[test]
    fn it_goes_off_each_time_that_it_is_set_and_not_before() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut alarm = Alarm::new(&epoll, 7).unwrap();
        for index in 0..3 {
            let set = std::time::Instant::now();
            let after = Duration::from_micros(300 * u64::from(index));
            alarm.set(index, after).unwrap();
            let mut events = Vec::with_capacity(4);
            let count = epoll::wait(&epoll, spare_capacity(&mut events), None).unwrap();
            assert_eq!(count, 1);
            assert_eq!({ events[0].data }.u64(), 7);
            assert!(set.elapsed() >= after);
        }
    }
}
