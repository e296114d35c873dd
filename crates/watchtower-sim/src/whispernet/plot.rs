//! Draws a report: what each node received, how long messages took, and how
//! many they reached after some failed.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Error;
use super::report::{Measured, Report};

const SIZE: (u32, u32) = (900, 1_100);
const FONT: &str = "sans-serif";
const BEFORE: RGBColor = RGBColor(31, 119, 180);
const AFTER: RGBColor = RGBColor(255, 127, 14);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Writes an SVG file.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), Error> {
    draw_all(report, path).map_err(|error| Error::Plot { path: path.to_owned(), reason: error.to_string() })
}

fn draw_all(report: &Report, path: &Path) -> Drawn {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&report.title(), (FONT, 18))?;
    let areas = root.split_evenly((3, 1));
    let [copies, latency, rounds] = areas.as_slice() else { return Ok(()) };
    draw_curves(
        copies,
        ("routing nodes, in the order of what they received", "copies"),
        curves(report, |measured| sorted(measured.copies.iter().copied())),
    )?;
    draw_curves(
        latency,
        ("milliseconds", "part of the deliveries"),
        curves(report, |measured| turned(sorted(measured.latencies.iter().map(|latency| *latency as f64)))),
    )?;
    let numbered = (1_u32..).map(f64::from);
    let reached = report.rounds.iter().map(|round| round.at_once as f64 / round.due.max(1) as f64);
    draw_curves(
        rounds,
        ("round after the failure", "part reached within 1 s"),
        vec![("after the failure", AFTER, numbered.zip(reached).collect())],
    )?;
    root.present()?;
    Ok(())
}

/// One curve for all nodes, one for those that did not fail.
fn curves(report: &Report, points: impl Fn(&Measured) -> Vec<(f64, f64)>) -> Vec<Curve> {
    let before = Some(("all up", BEFORE, points(&report.before)));
    let after = report.after.as_ref().map(|after| ("after the failure", AFTER, points(after)));
    before.into_iter().chain(after).collect()
}

/// The most points of a curve.
const POINTS_MAX: usize = 500;

/// Sorted values over which part of them is below.
fn sorted(values: impl ExactSizeIterator<Item = f64>) -> Vec<(f64, f64)> {
    let count = values.len();
    let every = count.div_ceil(POINTS_MAX).max(1);
    let part = |number: usize| number as f64 / count.saturating_sub(1).max(1) as f64;
    let is_drawn = |number: usize| number.is_multiple_of(every) || number + 1 == count;
    values
        .enumerate()
        .filter(|(number, _)| is_drawn(*number))
        .map(|(number, value)| (part(number), value))
        .collect()
}

fn turned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.into_iter().map(|(x, y)| (y, x)).collect()
}

fn draw_curves(area: &Area<'_>, (x_desc, y_desc): (&str, &str), curves: Vec<Curve>) -> Drawn {
    let points = || curves.iter().flat_map(|(.., points)| points.iter().copied());
    let right = points().map(|(x, _)| x).fold(1.0, f64::max);
    let top = points().map(|(_, y)| y).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.1)?;
    chart.configure_mesh().x_desc(x_desc).y_desc(y_desc).draw()?;
    for (name, color, points) in curves {
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .border_style(BLACK)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}
