//! Charts as SVG.

use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::RGBColor;

use super::{Axis, Chart, Scale, figure};
use crate::Result;

const WIDTH: u32 = 1000;
const HEIGHT: u32 = 440;
/// Beside the plot, where it hides nothing.
const LEGEND_WIDTH: u32 = 150;
const LEGEND_TOP: i32 = 24;
const LEGEND_STEP: i32 = 21;
const LEGEND_STROKE: i32 = 26;

/// Told apart by most eyes, also those that see few colours (after Paul Tol). Of more lines than these, references are dashed.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x33, 0x22, 0x88),
    RGBColor(0xcc, 0x66, 0x77),
    RGBColor(0x11, 0x77, 0x33),
    RGBColor(0xdd, 0x99, 0x22),
    RGBColor(0x44, 0xaa, 0xee),
    RGBColor(0x88, 0x22, 0x55),
    RGBColor(0x66, 0x66, 0x66),
    RGBColor(0x99, 0x99, 0x33),
];

/// # Errors
/// Only what plotters finds wrong.
pub(super) fn svg(chart: &Chart) -> Result<String> {
    let (x, y) = (
        chart.range(&chart.x, |point| point.0),
        chart.range(&chart.y, |point| point.1),
    );
    match (chart.x.scale, chart.y.scale) {
        (Scale::Linear, Scale::Linear) => draw(chart, x, y),
        (Scale::Logarithmic, Scale::Linear) => draw(chart, x.log_scale(), y),
        (Scale::Linear, Scale::Logarithmic) => draw(chart, x, y.log_scale()),
        (Scale::Logarithmic, Scale::Logarithmic) => draw(chart, x.log_scale(), y.log_scale()),
    }
}

impl Chart {
    /// What the points span, a little more where that is nothing; scales from zero where that is not far.
    fn range(&self, axis: &Axis, of: impl Fn(&(f64, f64)) -> f64) -> std::ops::Range<f64> {
        let values = || {
            self.lines
                .iter()
                .flat_map(|line| &line.points)
                .map(&of)
                .filter(|value| axis.scale == Scale::Linear || *value > 0.0)
        };
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        if least > most {
            return if axis.scale == Scale::Linear {
                0.0..1.0
            } else {
                1.0..10.0
            };
        }
        if axis.scale == Scale::Logarithmic {
            return least..most.max(least * 1.1);
        }
        let least = if least >= 0.0 && least < most / 2.0 {
            0.0
        } else {
            least
        };
        let margin = ((most - least) * 0.04).max(most.abs() * 0.01).max(1e-6);
        let from = if least == 0.0 { 0.0 } else { least - margin };
        from..most + margin
    }
}

fn draw<X, Y>(chart: &Chart, x: X, y: Y) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
        let wrong = |error: &dyn std::fmt::Display| format!("drawing {}: {error}", chart.title);
        area.fill(&WHITE).map_err(|error| wrong(&error))?;
        let (left, right) = area.split_horizontally(WIDTH - LEGEND_WIDTH);
        let mut plot = ChartBuilder::on(&left)
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)
            .map_err(|error| wrong(&error))?;
        plot.configure_mesh()
            .x_desc(&chart.x.label)
            .y_desc(&chart.y.label)
            .axis_desc_style(("sans-serif", 14))
            .label_style(("sans-serif", 12))
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .light_line_style(RGBColor(0xf2, 0xf2, 0xf2))
            .bold_line_style(RGBColor(0xdd, 0xdd, 0xdd))
            .draw()
            .map_err(|error| wrong(&error))?;
        for (index, line) in chart.lines.iter().enumerate() {
            let style =
                COLOURS[index % COLOURS.len()].stroke_width(if line.is_reference { 1 } else { 3 });
            let points = line.points.iter().copied();
            let top = LEGEND_TOP + LEGEND_STEP * index as i32;
            let stroke = [(4, top), (4 + LEGEND_STROKE, top)];
            if line.is_reference {
                let (on, between) = (5, 4);
                plot.draw_series(DashedLineSeries::new(points, on, between, style))
                    .map_err(|error| wrong(&error))?;
                right
                    .draw(&DashedPathElement::new(stroke, on, between, style))
                    .map_err(|error| wrong(&error))?;
            } else {
                plot.draw_series(LineSeries::new(points, style))
                    .map_err(|error| wrong(&error))?;
                right
                    .draw(&PathElement::new(stroke, style))
                    .map_err(|error| wrong(&error))?;
            }
            let name = Text::new(
                line.name.clone(),
                (LEGEND_STROKE + 10, top - 6),
                ("sans-serif", 13),
            );
            right.draw(&name).map_err(|error| wrong(&error))?;
        }
        area.present().map_err(|error| wrong(&error))?;
    }
    Ok(text)
}

/// A number beside an axis.
fn short(number: f64) -> String {
    let text = figure(number);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::Line;
    use super::*;

    #[test]
    fn charts_of_nothing_and_of_one_point_are_drawn() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for points in [
                vec![],
                vec![(0.0, 0.0)],
                vec![(2.0, 2.0)],
                vec![(0.1, 5.0), (3.0, 7.0)],
            ] {
                let axis = || Axis {
                    label: "axis".into(),
                    scale,
                };
                let chart = Chart {
                    title: "t".into(),
                    x: axis(),
                    y: axis(),
                    lines: vec![Line {
                        name: "a & b".into(),
                        is_reference: scale == Scale::Linear,
                        points,
                    }],
                };
                let text = svg(&chart).unwrap();
                assert!(
                    text.starts_with("<svg") && text.contains("a &amp; b"),
                    "{text}"
                );
            }
        }
    }
}
