//! A terminal for the real binary: what it shows, and keys for it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::whispernet::PATIENCE;

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// A terminal with a program in it.
pub(crate) struct Terminal {
    child: Child,
    /// Where keys go in.
    controller: File,
    /// The program's end.
    device: File,
    came: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// All that was written to it.
    pub(crate) written: Vec<u8>,
}

impl Terminal {
    /// Runs the program in a new terminal that controls it.
    pub(crate) fn run(program: &Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let noctty = OFlags::NOCTTY.bits().cast_signed();
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(noctty)
            .open(name.to_str().unwrap())
            .unwrap();
        let controller = File::from(controller);
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).unwrap();
        // The terminal of whoever runs the tests is not the program's.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args()).env_clear();
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let end = || device.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (bytes, came) = channel();
        let mut reader = controller.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if bytes.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let size = |cells| NonZero::new(cells).unwrap();
        let screen = vt100::Parser::new(size(ROWS), size(COLUMNS), 1000);
        Self { child, controller, device, came, screen, written: Vec::new() }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.controller.write_all(keys.as_bytes()).unwrap();
    }

    /// What is on the screen, without what is empty below.
    pub(crate) fn shown(&self) -> String {
        self.screen.screen().contents().trim_end().to_owned()
    }

    /// Waits until the screen is so.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.shown()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.came.recv_timeout(left) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.written.extend(bytes);
                }
                Err(_) => panic!("not {what}:\n{}", self.shown()),
            }
        }
        self.shown()
    }

    /// Waits until that is on the screen.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.wait(text, |shown| shown.contains(text))
    }

    /// Waits until the last row is that.
    #[track_caller]
    pub(crate) fn wait_for_row(&mut self, row: &str) -> String {
        self.wait(row, |shown| shown.lines().last().map(str::trim_end) == Some(row))
    }

    pub(crate) fn resize(&self, columns: u16) {
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.controller, size).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the program's end; its code. The terminal must be left as it was found: with lines,
    /// and with an echo.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let modes = tcgetattr(&self.device).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG), "{modes:?}");
        code
    }
}

/// A test that fails leaves nothing behind.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
