//! `scale`: what a delivery costs with more and more subscribers, a fan-out bench for each number.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::error::Error;
use crate::fanout::fanout;
use crate::options::Options;
use crate::progress::Progress;
use crate::report::{Report, chart, duration};

/// What the benches found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScaleReport {
    /// A report for each number of subscribers.
    pub steps: Vec<Report>,
}

/// Runs [`fanout()`] for each number of subscribers, each time with a server of its own if it is
/// started here.
///
/// # Errors
/// As `fanout`: the first ends it.
pub fn scale(
    options: &Options,
    subscribers: &[u32],
    progress: &mut dyn Progress,
) -> Result<ScaleReport, Error> {
    if subscribers.is_empty() {
        return Err(Error::Options("there must be at least one number of subscribers".into()));
    }
    let step = |subscribers: u32| Options { subscribers, ..options.clone() };
    subscribers.iter().try_for_each(|count| step(*count).check())?;
    let steps = subscribers.iter().map(|count| fanout(&step(*count), progress));
    Ok(ScaleReport { steps: steps.collect::<Result<_, _>>()? })
}

impl ScaleReport {
    /// Draws the cost of a delivery by the number of subscribers.
    ///
    /// # Errors
    /// [`Error::Plot`], mostly for a file that cannot be written.
    pub fn plot_svg(&self, path: &Path) -> Result<(), Error> {
        let line = |name, cost: fn(&Report) -> Option<f64>| {
            let point = |step: &Report| Some((f64::from(step.subscribers), cost(step)?));
            (name, self.steps.iter().filter_map(point).collect::<Vec<_>>())
        };
        let mut lines = vec![
            line("server", |step| step.server.as_ref()?.cpu_ns_per_delivery),
            line("bare loop", |step| step.floor.as_ref()?.cpu_ns_per_delivery),
        ];
        lines.retain(|(_, points)| !points.is_empty());
        let title = self.steps.first().map(Report::title).unwrap_or_default();
        chart(path, &title, "subscribers", "ns of CPU a delivery", &lines)
    }
}

impl fmt::Display for ScaleReport {
    /// A table of plain text, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>11} {:>12} {:>10} {:>10} {:>6} {:>10} {:>10} {:>12}",
            "subscribers", "deliveries/s", "server ns", "bare ns", "ratio", "p50", "p99", "idle bytes"
        )?;
        for step in &self.steps {
            let number = |number: Option<f64>, decimals: usize| {
                number.map_or_else(|| "?".to_owned(), |number| format!("{number:.decimals$}"))
            };
            let (server, floor) = (step.server.as_ref(), step.floor.as_ref());
            write!(
                f,
                "\n{:>11} {:>12.0} {:>10} {:>10} {:>6} {:>10} {:>10} {:>12}",
                step.subscribers,
                step.deliveries_per_second,
                number(server.and_then(|server| server.cpu_ns_per_delivery), 0),
                number(floor.and_then(|floor| floor.cpu_ns_per_delivery), 0),
                number(floor.and_then(|floor| floor.ratio), 2),
                duration(step.latency.p50_ns),
                duration(step.latency.p99_ns),
                number(server.map(|server| server.idle_bytes_per_connection), 0),
            )?;
            if step.load.saturated {
                write!(f, "  the load had no time left")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    #[test]
    fn the_table_has_a_line_for_each_number_of_subscribers() {
        let idle = Report { server: None, floor: None, ..full() };
        let report = ScaleReport { steps: vec![full(), idle] };
        let expected = [
            "subscribers deliveries/s  server ns    bare ns  ratio        p50        p99   idle bytes",
            "         10          200       3300       3000   1.10     850 ns    12.3 µs         2048  \
             the load had no time left",
            "         10          200          ?          ?      ?     850 ns    12.3 µs            ?  \
             the load had no time left",
        ];
        assert_eq!(report.to_string().lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn cost_is_drawn_by_subscribers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cost.svg");
        let more = Report { subscribers: 1000, ..full() };
        ScaleReport { steps: vec![full(), more] }.plot_svg(&path).unwrap();
        let svg = std::fs::read_to_string(path).unwrap();
        for text in ["ns of CPU a delivery", "bare loop", "subscribers"] {
            assert!(svg.contains(text), "{text}");
        }
    }
}
