//! Plots as SVG.

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
};

/// A plot that could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plot {title:?}: {reason}")]
pub struct PlotError {
    title: String,
    reason: String,
}

/// Colours that people who see colours differently can tell apart (Okabe and Ito).
pub(super) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

pub(super) fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

const SIZE: (u32, u32) = (760, 340);
const FONT: (&str, u32) = ("sans-serif", 13);

/// What a plot says beside its lines.
pub(super) struct Labels<'a> {
    pub(super) title: &'a str,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// Lines, each with its points by rising x.
pub(super) type Lines = Vec<Vec<(f64, f64)>>;

fn lines_on<X>(labels: &Labels<'_>, lines: &Lines, x: X, top: f64) -> Result<String, PlotError>
where
    X: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let failed = |reason: String| PlotError { title: labels.title.to_owned(), reason };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .margin_right(20)
            .x_label_area_size(42)
            .y_label_area_size(64)
            .build_cartesian_2d(x, 0.0..top)
            .map_err(|error| failed(error.to_string()))?;
        chart
            .configure_mesh()
            .x_desc(labels.x)
            .y_desc(labels.y)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(error.to_string()))?;
        for (index, line) in lines.iter().enumerate() {
            let style = color(index).stroke_width(2);
            let series = LineSeries::new(line.iter().copied(), style);
            chart.draw_series(series).map_err(|error| failed(error.to_string()))?;
        }
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    Ok(svg)
}

fn highest(lines: &Lines, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    lines.iter().flatten().map(of).fold(0.0, f64::max)
}

/// Lines over a linear axis.
pub(super) fn over_time(labels: &Labels<'_>, lines: &Lines) -> Result<String, PlotError> {
    let (right, top) = (highest(lines, |point| point.0), highest(lines, |point| point.1));
    lines_on(labels, lines, 0.0..right.max(1e-3), (top * 1.05).max(1e-3))
}

/// Cumulative distributions of sorted values, over a logarithmic axis.
pub(super) fn distributions(labels: &Labels<'_>, sorted: &[Vec<f64>]) -> Result<String, PlotError> {
    const LEAST: f64 = 1e-3;
    let line = |values: &Vec<f64>| {
        // As many points as can be told apart.
        let step = (values.len() / 400).max(1);
        let picked = values.iter().enumerate().filter(|(rank, _)| rank % step == 0 || rank + 1 == values.len());
        picked.map(|(rank, value)| (value.max(LEAST), (rank + 1) as f64 * 100.0 / values.len() as f64)).collect()
    };
    let lines: Lines = sorted.iter().map(line).collect();
    let right = highest(&lines, |point| point.0).max(LEAST * 10.0);
    lines_on(labels, &lines, (LEAST..right * 1.05).log_scale(), 105.0)
}

/// Bars with the margins of their estimates.
pub(super) fn bars(labels: &Labels<'_>, estimates: &[(f64, f64)]) -> Result<String, PlotError> {
    let failed = |reason: String| PlotError { title: labels.title.to_owned(), reason };
    let top = estimates.iter().map(|(mean, margin)| mean + margin).fold(0.0, f64::max).max(1e-6) * 1.08;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (370, 260)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(12)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..estimates.len().max(1) as f64, 0.0..top)
            .map_err(|error| failed(error.to_string()))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(labels.y)
            .label_style(FONT)
            .axis_desc_style(FONT)
            .light_line_style(WHITE)
            .draw()
            .map_err(|error| failed(error.to_string()))?;
        let bars = estimates.iter().enumerate().map(|(index, (mean, _))| {
            let left = index as f64;
            Rectangle::new([(left + 0.2, 0.0), (left + 0.8, *mean)], color(index).mix(0.75).filled())
        });
        chart.draw_series(bars).map_err(|error| failed(error.to_string()))?;
        let margins = estimates.iter().enumerate().filter(|(_, (_, margin))| *margin > 0.0);
        let margins = margins.map(|(index, (mean, margin))| {
            ErrorBar::new_vertical(
                index as f64 + 0.5,
                (mean - margin).max(0.0),
                *mean,
                mean + margin,
                BLACK.filled(),
                12,
            )
        });
        chart.draw_series(margins).map_err(|error| failed(error.to_string()))?;
        area.present().map_err(|error| failed(error.to_string()))?;
    }
    Ok(svg)
}
