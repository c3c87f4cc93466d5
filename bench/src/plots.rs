//! The plots.

use std::path::Path;

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
};

use crate::{Failure, report::Report};

/// Colours that people with red-green colour blindness can distinguish.
const OURS: RGBColor = RGBColor(0, 114, 178);
const THEIRS: RGBColor = RGBColor(213, 94, 0);
const THIRD: RGBColor = RGBColor(0, 158, 115);
const GREY: RGBColor = RGBColor(90, 90, 90);

/// Draws every plot for which the report has measurements.
pub fn plots(report: &Report, folder: &Path) -> Result<(), Failure> {
    statements(report, &folder.join("statements.svg")).map_err(plot_failure)?;
    growth(report, &folder.join("growth.svg")).map_err(plot_failure)?;
    if !report.operations.is_empty() {
        operations(report, &folder.join("operations.svg")).map_err(plot_failure)?;
    }
    if !report.evenings.is_empty() {
        evening(report, &folder.join("evening.svg")).map_err(plot_failure)?;
    }
    if !report.days.is_empty() {
        days(report, &folder.join("life.svg")).map_err(plot_failure)?;
    }
    Ok(())
}

/// Name, colour and points.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

type DrawResult = Result<(), Box<dyn std::error::Error>>;

#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
fn plot_failure(error: Box<dyn std::error::Error>) -> Failure {
    Failure::Message(format!("drawing a plot failed: {error}"))
}

/// Draws a line for each statement, from its time in this schema to its time in the specification's.
fn statements(report: &Report, path: &Path) -> DrawResult {
    let scale = report.measures.iter().map(|one| one.scale).find(|scale| *scale == 1.0);
    let scale = scale.or(report.measures.last().map(|one| one.scale)).unwrap_or(1.0);
    let measures: Vec<_> = report.measures.iter().filter(|one| one.scale == scale).rev().collect();
    if measures.is_empty() {
        return Ok(());
    }
    let height = 110 + 22 * u32::try_from(measures.len())?;
    let root = SVGBackend::new(path, (1000, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let maximum = measures.iter().map(|one| one.prd_ms).fold(1.0, f64::max) * 2.0;
    let rows = measures.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Milliseconds per statement, scale {scale}"), ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 290)
        .set_label_area_size(LabelAreaPosition::Bottom, 36)
        .build_cartesian_2d((0.01..maximum).log_scale(), -0.5..rows - 0.5)?;
    let names = |row: &f64| measures.get(row.round() as usize).map_or_else(String::new, |one| one.name.clone());
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(measures.len())
        .y_label_formatter(&names)
        .x_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (row, one) in measures.iter().enumerate() {
        let row = row as f64;
        chart.draw_series([PathElement::new([(one.ours_ms, row), (one.prd_ms, row)], GREY.mix(0.4))])?;
        chart.draw_series([Circle::new((one.prd_ms, row), 4, THEIRS.filled())])?;
        chart.draw_series([Circle::new((one.ours_ms, row), 4, OURS.filled())])?;
    }
    legend(&mut chart, SeriesLabelPosition::MiddleRight, &[("here", OURS), ("specification", THEIRS)])?;
    root.present()?;
    Ok(())
}

/// Draws the legend. Its entries are empty series.
fn legend<'a, X, Y>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>,
    position: SeriesLabelPosition,
    entries: &[(&str, RGBColor)],
) -> DrawResult
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    for (name, color) in entries {
        let color = *color;
        chart
            .draw_series(LineSeries::new(std::iter::empty(), color))?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], color.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(GREY)
        .label_font(("sans-serif", 14))
        .position(position)
        .draw()?;
    Ok(())
}

/// Draws each statement at each scale, in both schemas.
fn growth(report: &Report, path: &Path) -> DrawResult {
    let mut names: Vec<&str> = report.measures.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut scales: Vec<f64> = report.measures.iter().map(|one| one.scale).collect();
    scales.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (scales.first(), scales.last()) else { return Ok(()) };
    let root = SVGBackend::new(path, (1000, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Milliseconds per statement as the tables grow", ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .build_cartesian_2d((least * 0.8..greatest * 1.25).log_scale(), (0.02..60_000.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("scale")
        .y_desc("ms")
        .x_label_formatter(&|scale| format!("{scale}"))
        .y_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()?;
    for name in names {
        let of = |ms: fn(&crate::measure::StatementResult) -> f64| {
            report.measures.iter().filter(|one| one.name == name).map(|one| (one.scale, ms(one))).collect::<Vec<_>>()
        };
        for (points, color) in [(of(|one| one.prd_ms), THEIRS), (of(|one| one.isolated_ms), OURS)] {
            chart.draw_series(LineSeries::new(points.clone(), color.mix(0.7)))?;
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
        }
    }
    // No points are at the left between a second and the timeout.
    legend(&mut chart, SeriesLabelPosition::Coordinate(70, 50), &[("here", OURS), ("specification", THEIRS)])?;
    root.present()?;
    Ok(())
}

/// Draws bars for each operation and number of clients.
fn operations(report: &Report, path: &Path) -> DrawResult {
    let bars: Vec<_> = report.operations.iter().collect();
    let root = SVGBackend::new(path, (1200, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let maximum = bars.iter().map(|one| one.ops_s.max(one.pgbench_ops_s)).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&root)
        .caption("Operations per second", ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .build_cartesian_2d(-0.5..bars.len() as f64 - 0.5, 0.0..maximum)?;
    let names = |x: &f64| {
        let is_integer = (x - x.round()).abs() < 0.01;
        bars.get(x.round() as usize)
            .filter(|_| is_integer)
            .map_or_else(String::new, |one| format!("{}, {}", one.name, one.clients))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(bars.len())
        .x_label_formatter(&names)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 11))
        .draw()?;
    for (x, one) in bars.iter().enumerate() {
        let x = x as f64;
        let bar = |from: f64, to: f64, height: f64, color: RGBColor| {
            Rectangle::new([(x + from, 0.0), (x + to, height)], color.filled())
        };
        chart.draw_series([bar(-0.36, 0.0, one.ops_s, OURS), bar(0.0, 0.36, one.pgbench_ops_s, THIRD)])?;
    }
    legend(&mut chart, SeriesLabelPosition::UpperLeft, &[("the service", OURS), ("pgbench", THIRD)])?;
    root.present()?;
    Ok(())
}

/// Draws the latency of a roll by number of sessions.
fn evening(report: &Report, path: &Path) -> DrawResult {
    let last = report.evenings.iter().map(|one| one.sessions).max().unwrap_or(1) as f64;
    let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let curves: [Curve; 2] = [
        ("median", OURS, report.evenings.iter().map(|one| (one.sessions as f64, one.roll_p50_ms)).collect()),
        ("99th percentile", THEIRS, report.evenings.iter().map(|one| (one.sessions as f64, one.roll_p99_ms)).collect()),
    ];
    lines(
        &root,
        "Latency of a roll by number of sessions",
        ("sessions of six players", "ms"),
        0.0..last * 1.05,
        (0.2..20_000.0).log_scale(),
        &curves,
    )?;
    root.present()?;
    Ok(())
}

/// Draws the size of `session_events` over simulated days.
fn days(report: &Report, path: &Path) -> DrawResult {
    const MIB: f64 = 1024.0 * 1024.0;
    let days = &report.days;
    let last = days.iter().map(|day| day.day).fold(1.0, f64::max);
    let maximum = days.iter().map(|day| day.table_bytes.max(day.index_bytes) / MIB).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let curves: [Curve; 2] = [
        ("table", OURS, days.iter().map(|day| (day.day, day.table_bytes / MIB)).collect()),
        ("indexes", THEIRS, days.iter().map(|day| (day.day, day.index_bytes / MIB)).collect()),
    ];
    lines(&root, "Size of session_events", ("simulated days", "MiB"), 0.0..last * 1.02, 0.0..maximum * 1.2, &curves)?;
    root.present()?;
    Ok(())
}

fn lines<'a, X, Y>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    caption: &str,
    (x, y): (&str, &str),
    across: X,
    up: Y,
    curves: &[Curve],
) -> DrawResult
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(root)
        .caption(caption, ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .build_cartesian_2d(across, up)?;
    chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(WHITE).label_style(("sans-serif", 13)).draw()?;
    for (_, color, points) in curves {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    let entries: Vec<(&str, RGBColor)> = curves.iter().map(|(name, color, _)| (*name, *color)).collect();
    legend(&mut chart, SeriesLabelPosition::LowerRight, &entries)
}
