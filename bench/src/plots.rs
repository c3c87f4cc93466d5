//! Draws the plots of `performance.md`.

use std::path::Path;

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
};

use crate::{
    failure::Failure,
    report::{Report, StatementResult},
};

// Colours that people with red-green colour blindness can distinguish: blue, vermilion and green. Where schemas are
// compared, the first is that of this project's schema ("this schema"), and the second that of the specification's.
// `LINE_COLOR` is grey.
const FIRST_COLOR: RGBColor = RGBColor(0, 114, 178);
const SECOND_COLOR: RGBColor = RGBColor(213, 94, 0);
const THIRD_COLOR: RGBColor = RGBColor(0, 158, 115);
const LINE_COLOR: RGBColor = RGBColor(90, 90, 90);

/// Draws every plot for which the report has measurements.
pub fn draw_plots(report: &Report, folder: &Path) -> Result<(), Failure> {
    draw_statements(report, &folder.join("statements.svg")).map_err(plot_failure)?;
    draw_statements_by_scale(report, &folder.join("growth.svg")).map_err(plot_failure)?;
    if !report.operations.is_empty() {
        draw_operations(report, &folder.join("operations.svg")).map_err(plot_failure)?;
    }
    if !report.load_steps.is_empty() {
        draw_load_test(report, &folder.join("load_test.svg")).map_err(plot_failure)?;
    }
    if !report.days.is_empty() {
        draw_event_table_size(report, &folder.join("days.svg")).map_err(plot_failure)?;
    }
    Ok(())
}

/// The name in the legend, the colour and the points of a curve.
type Curve = (&'static str, RGBColor, Vec<(f64, f64)>);

type DrawResult = Result<(), Box<dyn std::error::Error>>;

#[allow(clippy::needless_pass_by_value, reason = "the signature that map_err needs")]
fn plot_failure(error: Box<dyn std::error::Error>) -> Failure {
    Failure::Message(format!("drawing a plot failed: {error}"))
}

/// Draws a line for each pair of statements, from the time in this schema to the time in the specification's schema.
/// The plot shows scale 1, or the largest scale if 1 was not measured.
fn draw_statements(report: &Report, path: &Path) -> DrawResult {
    let scale = report.statements.iter().map(|statement| statement.scale).find(|scale| *scale == 1.0);
    let scale = scale.or(report.statements.last().map(|statement| statement.scale)).unwrap_or(1.0);
    // Reversed, because the vertical axis begins at the bottom.
    let statements: Vec<_> = report.statements.iter().filter(|statement| statement.scale == scale).rev().collect();
    if statements.is_empty() {
        return Ok(());
    }
    let height = 110 + 22 * u32::try_from(statements.len())?;
    let root = SVGBackend::new(path, (1000, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let times_ms = statements.iter().flat_map(|statement| [statement.specification_ms, statement.ours_ms]);
    let max_ms = times_ms.fold(1.0, f64::max) * 2.0;
    let row_count = statements.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Milliseconds per statement, scale {scale}"), ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 290)
        .set_label_area_size(LabelAreaPosition::Bottom, 36)
        .build_cartesian_2d((0.01..max_ms).log_scale(), -0.5..row_count - 0.5)?;
    let row_label =
        |row: &f64| statements.get(row.round() as usize).map_or_else(String::new, |statement| statement.name.clone());
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(statements.len())
        .y_label_formatter(&row_label)
        .x_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (row, statement) in statements.iter().enumerate() {
        let row = row as f64;
        let (ours, specification) = ((statement.ours_ms, row), (statement.specification_ms, row));
        chart.draw_series([PathElement::new([ours, specification], LINE_COLOR.mix(0.4))])?;
        chart.draw_series([Circle::new(specification, 4, SECOND_COLOR.filled())])?;
        chart.draw_series([Circle::new(ours, 4, FIRST_COLOR.filled())])?;
    }
    draw_legend(
        &mut chart,
        SeriesLabelPosition::MiddleRight,
        &[("this schema", FIRST_COLOR), ("specification", SECOND_COLOR)],
    )?;
    root.present()?;
    Ok(())
}

/// Draws the legend. Each entry belongs to an empty series, because only a series can have an entry.
fn draw_legend<'a, X, Y>(
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
        .border_style(LINE_COLOR)
        .label_font(("sans-serif", 14))
        .position(position)
        .draw()?;
    Ok(())
}

/// Draws the time of each statement at each scale. The specification's times are those of the alternating measurement,
/// this schema's those of the measurement in isolation ([`StatementResult::ours_isolated_ms`]), as in the second table
/// of the section *Growth*.
fn draw_statements_by_scale(report: &Report, path: &Path) -> DrawResult {
    let mut names: Vec<&str> = report.statements.iter().map(|statement| statement.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut scales: Vec<f64> = report.statements.iter().map(|statement| statement.scale).collect();
    scales.sort_by(f64::total_cmp);
    let (Some(smallest), Some(largest)) = (scales.first(), scales.last()) else { return Ok(()) };
    let root = SVGBackend::new(path, (1000, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Milliseconds per statement as the tables grow", ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 70)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .build_cartesian_2d((smallest * 0.8..largest * 1.25).log_scale(), (0.01..60_000.0).log_scale())?;
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
        let points_of = |ms_of: fn(&StatementResult) -> f64| -> Vec<_> {
            let results_at_scales = report.statements.iter().filter(|statement| statement.name == name);
            results_at_scales.map(|statement| (statement.scale, ms_of(statement))).collect()
        };
        for (points, color) in [
            (points_of(|statement| statement.specification_ms), SECOND_COLOR),
            (points_of(|statement| statement.ours_isolated_ms), FIRST_COLOR),
        ] {
            chart.draw_series(LineSeries::new(points.clone(), color.mix(0.7)))?;
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, color.filled())))?;
        }
    }
    // The legend is at the upper left, between the heights of 1 s and 30 s (the statement timeout). It covers no
    // points: at the smallest scale, a statement takes less than a second or is stopped after 30 s.
    draw_legend(
        &mut chart,
        SeriesLabelPosition::Coordinate(70, 50),
        &[("this schema", FIRST_COLOR), ("specification", SECOND_COLOR)],
    )?;
    root.present()?;
    Ok(())
}

/// Draws two bars for each operation and number of clients: the service's throughput, and pgbench's without pipelining.
fn draw_operations(report: &Report, path: &Path) -> DrawResult {
    let operations = &report.operations;
    let root = SVGBackend::new(path, (1200, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let max_throughput = operations
        .iter()
        .map(|operation| operation.operations_per_second.max(operation.pgbench_operations_per_second))
        .fold(1.0, f64::max)
        * 1.1;
    let mut chart = ChartBuilder::on(&root)
        .caption("Operations per second", ("sans-serif", 20))
        .margin(12)
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, 46)
        .build_cartesian_2d(-0.5..operations.len() as f64 - 0.5, 0.0..max_throughput)?;
    let bars_label = |x: &f64| {
        let is_integer = (x - x.round()).abs() < 0.01;
        operations
            .get(x.round() as usize)
            .filter(|_| is_integer)
            .map_or_else(String::new, |operation| format!("{}, {}", operation.name, operation.clients))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_desc("operation, number of clients")
        .x_labels(operations.len())
        .x_label_formatter(&bars_label)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 11))
        .draw()?;
    for (x, operation) in operations.iter().enumerate() {
        let x = x as f64;
        let bar = |left: f64, right: f64, height: f64, color: RGBColor| {
            Rectangle::new([(x + left, 0.0), (x + right, height)], color.filled())
        };
        let service = bar(-0.36, 0.0, operation.operations_per_second, FIRST_COLOR);
        let pgbench = bar(0.0, 0.36, operation.pgbench_operations_per_second, THIRD_COLOR);
        chart.draw_series([service, pgbench])?;
    }
    draw_legend(&mut chart, SeriesLabelPosition::UpperLeft, &[("the service", FIRST_COLOR), ("pgbench", THIRD_COLOR)])?;
    root.present()?;
    Ok(())
}

/// Draws the latency of a roll (median and 99th percentile) by number of sessions.
fn draw_load_test(report: &Report, path: &Path) -> DrawResult {
    let max_sessions = report.load_steps.iter().map(|step| step.sessions).max().unwrap_or(1) as f64;
    let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let curves: [Curve; 2] = [
        (
            "median",
            FIRST_COLOR,
            report.load_steps.iter().map(|step| (step.sessions as f64, step.roll_p50_ms)).collect(),
        ),
        (
            "99th percentile",
            SECOND_COLOR,
            report.load_steps.iter().map(|step| (step.sessions as f64, step.roll_p99_ms)).collect(),
        ),
    ];
    draw_curves(
        &root,
        "Latency of a roll by number of sessions",
        ("sessions of six players", "ms"),
        0.0..max_sessions * 1.05,
        (0.2..20_000.0).log_scale(),
        &curves,
    )?;
    root.present()?;
    Ok(())
}

/// Draws the size of `session_events` and of its indexes over simulated days.
fn draw_event_table_size(report: &Report, path: &Path) -> DrawResult {
    const MIB: f64 = 1024.0 * 1024.0;
    let days = &report.days;
    let max_days = days.iter().map(|day| day.elapsed_days).fold(1.0, f64::max);
    let max_mib = days.iter().map(|day| day.table_bytes.max(day.index_bytes) / MIB).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let curves: [Curve; 2] = [
        ("table", FIRST_COLOR, days.iter().map(|day| (day.elapsed_days, day.table_bytes / MIB)).collect()),
        ("indexes", SECOND_COLOR, days.iter().map(|day| (day.elapsed_days, day.index_bytes / MIB)).collect()),
    ];
    draw_curves(
        &root,
        "Size of session_events",
        ("simulated days", "MiB"),
        0.0..max_days * 1.02,
        0.0..max_mib * 1.2,
        &curves,
    )?;
    root.present()?;
    Ok(())
}

/// Draws a chart with axes, curves and their legend.
fn draw_curves<'a, X, Y>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    caption: &str,
    (x_title, y_title): (&str, &str),
    x_range: X,
    y_range: Y,
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
        .build_cartesian_2d(x_range, y_range)?;
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (_, color, points) in curves {
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    let entries: Vec<(&str, RGBColor)> = curves.iter().map(|(name, color, _)| (*name, *color)).collect();
    draw_legend(&mut chart, SeriesLabelPosition::LowerRight, &entries)
}
