//! Shows a person how far a bench is.

use indicatif::{ProgressBar, ProgressStyle};
use watchtower_bench::{Phase, Progress};

/// A bar on the terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        Self(ProgressBar::new(0))
    }
}

impl Progress for Bar {
    fn begin(&mut self, phase: Phase, total: u64) {
        let template = match total {
            0 => "{msg}",
            _ => "{msg:28} {wide_bar} {human_pos}/{human_len}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_length(total);
        self.0.set_position(0);
        self.0.set_message(phase.label());
    }

    fn done(&mut self, count: u64) {
        self.0.set_position(count);
    }
}

/// What was drawn makes room for the report.
impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
