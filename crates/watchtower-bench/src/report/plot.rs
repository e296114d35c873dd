//! Draws a report: the latency distribution, and deliveries round by round; and what a figure comes
//! to as another grows.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::Error;
use crate::report::{CurvePoint, Report};

const SIZE: (u32, u32) = (900, 800);
const FONT: &str = "sans-serif";
const SERVER_COLOR: RGBColor = RGBColor(31, 119, 180);
const FLOOR_COLOR: RGBColor = RGBColor(127, 127, 127);

/// A distribution is drawn up to this many nines: beyond, single deliveries are points of a line.
const NINES_MAX: f64 = 5.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Writes an SVG file.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), Error> {
    draw_both(report, path).map_err(|error| Error::Plot { path: path.to_owned(), reason: error.to_string() })
}

fn draw_both(report: &Report, path: &Path) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&report.title(), (FONT, 18))?;
    let (upper, lower) = root.split_vertically(SIZE.1 / 2);
    draw_latency(report, &upper)?;
    draw_deliveries(report, &lower)?;
    root.present()?;
    Ok(())
}

/// The colors of a chart's lines, in turn.
const COLORS: [RGBColor; 4] = [SERVER_COLOR, FLOOR_COLOR, RGBColor(214, 39, 40), RGBColor(148, 103, 189)];

/// Writes an SVG file of lines over two scales that grow by factors: each a name, and points.
pub(crate) fn chart(
    path: &Path,
    title: &str,
    x: &str,
    y: &str,
    lines: &[(&'static str, Vec<(f64, f64)>)],
) -> Result<(), Error> {
    draw_chart(path, title, x, y, lines)
        .map_err(|error| Error::Plot { path: path.to_owned(), reason: error.to_string() })
}

fn draw_chart(
    path: &Path,
    title: &str,
    x: &str,
    y: &str,
    lines: &[(&'static str, Vec<(f64, f64)>)],
) -> Drawn {
    let root = SVGBackend::new(path, (SIZE.0, SIZE.1 / 2)).into_drawing_area();
    root.fill(&WHITE)?;
    let area = root.titled(title, (FONT, 16))?;
    // From somewhat below the least to somewhat above the most; what is not above 0 has no place.
    let range = |of: fn(&(f64, f64)) -> f64| {
        let numbers = lines.iter().flat_map(|(_, points)| points).map(of).filter(|number| *number > 0.0);
        let (least, most) = numbers.fold((f64::INFINITY, 0.0), |(a, b), n| (f64::min(a, n), f64::max(b, n)));
        if least > most { 1.0..10.0 } else { least * 0.8..most * 1.25 }
    };
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(range(|point| point.0).log_scale(), range(|point| point.1).log_scale())?;
    let number = |number: &f64| format!("{}", (number * 10.0).round() / 10.0);
    chart
        .configure_mesh()
        .x_desc(x)
        .x_label_formatter(&number)
        .y_desc(y)
        .y_label_formatter(&number)
        .draw()?;
    for ((name, points), color) in lines.iter().zip(COLORS.into_iter().cycle()) {
        let points = points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0);
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        chart
            .draw_series(points.map(|point| Circle::new(point, 3, color.filled())))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

/// Latency over quantile, with as much room for each further nine.
fn draw_latency(report: &Report, area: &Area<'_>) -> Drawn {
    let mut curves = vec![("server", SERVER_COLOR, nines(&report.latency.curve))];
    if let Some(floor) = &report.floor {
        curves.push(("bare loop", FLOOR_COLOR, nines(&floor.latency.curve)));
    }
    let points = || curves.iter().flat_map(|(_, _, points)| points.iter().copied());
    let right = points().map(|(nines, _)| nines).fold(1.0, f64::max);
    let lowest = points().map(|(_, latency)| latency).fold(f64::INFINITY, f64::min).min(1e6);
    let highest = points().map(|(_, latency)| latency).fold(lowest, f64::max);

    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..right, (lowest * 0.8..highest * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("part of the deliveries")
        .x_label_formatter(&|nines| percentage(*nines))
        .y_desc("latency, µs")
        .y_label_formatter(&|latency| format!("{latency:.1}"))
        .draw()?;
    for (name, color, points) in curves {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    Ok(())
}

/// Deliveries a second, round by round.
fn draw_deliveries(report: &Report, area: &Area<'_>) -> Drawn {
    let numbered = |rate: Vec<f64>| (1_u32..).map(f64::from).zip(rate).collect::<Vec<_>>();
    let server = report.rounds.iter().map(|round| round.server.deliveries_per_second());
    let floor = report.rounds.iter().filter_map(|round| Some(round.floor?.deliveries_per_second()));
    let mut lines = vec![("server", SERVER_COLOR, numbered(server.collect()))];
    lines.push(("bare loop", FLOOR_COLOR, numbered(floor.collect())));
    lines.retain(|(_, _, points)| !points.is_empty());
    let highest =
        lines.iter().flat_map(|(_, _, points)| points.iter().map(|(_, rate)| *rate)).fold(1.0, f64::max);

    let last = report.rounds.len().max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.5..last + 0.5, 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("round")
        .x_label_formatter(&|round| format!("{round:.0}"))
        .y_desc("deliveries a second")
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    for (name, color, points) in lines {
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(1)))?;
        chart
            .draw_series(points.into_iter().map(|point| Circle::new(point, 4, color.filled())))?
            .label(name)
            .legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    Ok(())
}

/// A curve with its quantiles as numbers of nines (0.99 is 2) and latencies in microseconds.
fn nines(curve: &[CurvePoint]) -> Vec<(f64, f64)> {
    curve
        .iter()
        .map(|point| (-(1.0 - point.quantile).log10(), point.latency_ns as f64 / 1e3))
        .filter(|(nines, _)| *nines <= NINES_MAX)
        .collect()
}

/// The label of a whole number of nines; in between there is none.
fn percentage(nines: f64) -> String {
    let whole = nines.round();
    if (nines - whole).abs() > 1e-6 {
        return String::new();
    }
    let decimals = (whole as usize).saturating_sub(2);
    format!("{:.decimals$} %", 100.0 * (1.0 - 10_f64.powf(-whole)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::full;

    fn drawn(report: &Report) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plot.svg");
        report.plot_svg(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn both_sides_are_drawn_and_named() {
        let svg = drawn(&full());
        assert!(svg.starts_with("<svg"));
        for text in ["10 subscribers", "latency, µs", "deliveries a second", "bare loop"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_report_without_deliveries_is_drawn_empty() {
        let mut report = Report { floor: None, rounds: Vec::new(), ..full() };
        report.latency.curve.clear();
        let svg = drawn(&report);
        assert!(!svg.contains("bare loop"));
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("plot.svg");
        let error = full().plot_svg(&path).unwrap_err();
        assert!(error.to_string().contains("missing/plot.svg"), "{error}");
    }

    #[test]
    fn nines_count_the_distance_to_everything() {
        let point = |quantile| CurvePoint { quantile, latency_ns: 2_500 };
        let drawn = nines(&[point(0.0), point(0.9), point(1.0)]);
        assert_eq!(drawn, [(0.0, 2.5), (1.0, 2.5)]);
    }

    #[test]
    fn only_whole_nines_are_labelled() {
        let labels = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0].map(percentage);
        assert_eq!(labels, ["0 %", "", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }
}
