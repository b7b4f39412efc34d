//! The curves as SVG, drawn in the colours of a bright page; the style sheet repaints them for a dark one by these very
//! values.

use plotters::coord::Shift;
use plotters::prelude::*;
use serde::Serialize;

use crate::error::{QueryError, Result};
use crate::study::curves::{EfPoint, RecallPoint};
use crate::study::{ScoreStudy, Study};

const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const GRID: RGBColor = RGBColor(0xd8, 0xde, 0xe4);
const FIRST: RGBColor = RGBColor(0x0a, 0x69, 0xda);
const SECOND: RGBColor = RGBColor(0xbc, 0x4c, 0x00);
const SIZE: (u32, u32) = (600, 320);
const FONT: (&str, u32) = ("sans-serif", 14);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// The charts of a study; `None` where there is nothing to draw.
#[derive(Debug, Serialize)]
pub(super) struct Charts {
    recall: Option<String>,
    ef_recall: Option<String>,
    ef_speed: Option<String>,
    scores: Option<String>,
}

pub(super) fn of(study: &Study) -> Result<Charts> {
    let curve = &study.recall_curve;
    let sweep = &study.ef_sweep;
    Ok(Charts {
        recall: (curve.len() > 1).then(|| svg("recall", |area| recall(area, curve))).transpose()?,
        ef_recall: (sweep.len() > 2).then(|| svg("ef_recall", |area| ef_recall(area, sweep))).transpose()?,
        ef_speed: (sweep.len() > 2).then(|| svg("ef_speed", |area| ef_speed(area, sweep))).transpose()?,
        scores: study.scores.as_ref().map(|s| svg("scores", |area| scores(area, s))).transpose()?,
    })
}

fn svg(what: &str, draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    let drawn = draw(&area).and_then(|()| Ok(area.present()?));
    drawn.map_err(|e| QueryError::Render { what: format!("chart {what}"), reason: e.to_string() })?;
    drop(area);
    // Inside a page the name space goes without saying, and the page decides on the size.
    let size = format!("width=\"{}\" height=\"{}\" viewBox", SIZE.0, SIZE.1);
    Ok(text
        .replacen(&size, "role=\"img\" viewBox", 1)
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace("<svg ", "<svg aria-hidden=\"true\" "))
}

macro_rules! axes {
    ($area:expr, $x:expr, $y:expr, $x_name:expr, $y_name:expr, $x_text:expr, $y_text:expr) => {{
        let mut chart = ChartBuilder::on($area)
            .margin(10)
            .margin_right(18)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d($x, $y)?;
        chart
            .configure_mesh()
            .x_desc($x_name)
            .y_desc($y_name)
            .x_label_formatter(&$x_text)
            .y_label_formatter(&$y_text)
            .x_labels(8)
            .y_labels(6)
            .max_light_lines(1)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(FONT.into_font().color(&INK))
            .axis_desc_style(FONT.into_font().color(&INK))
            .draw()?;
        chart
    }};
}

fn recall(area: &Area<'_>, curve: &[RecallPoint]) -> Drawn {
    let deepest = curve.last().map_or(2, |point| point.k.max(2)) as f64;
    let lowest = curve.iter().map(|point| point.interval.low).fold(1.0, f64::min);
    let floor = (lowest * 10.0).floor() / 10.0;
    let mut chart = axes!(
        area,
        (1.0..deepest).log_scale(),
        floor..1.0,
        "K",
        "Recall@K",
        |k| format!("{k:.0}"),
        |value| format!("{value:.2}")
    );
    let x = |point: &RecallPoint| point.k as f64;
    let upper = curve.iter().map(|point| (x(point), point.interval.high));
    let lower = curve.iter().rev().map(|point| (x(point), point.interval.low));
    chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), FIRST.mix(0.18).filled())])?;
    chart.draw_series(LineSeries::new(
        curve.iter().map(|point| (x(point), point.value)),
        FIRST.stroke_width(3),
    ))?;
    Ok(())
}

/// Widths and one value of each.
fn points(sweep: &[EfPoint], value: fn(&EfPoint) -> f64) -> Vec<(f64, f64)> {
    sweep.iter().filter_map(|point| Some((point.ef_search? as f64, value(point)))).collect()
}

fn span(points: &[(f64, f64)]) -> std::ops::Range<f64> {
    let ends = points.first().zip(points.last());
    ends.map_or(1.0..2.0, |(first, last)| first.0..last.0.max(first.0 + 1.0))
}

fn ef_recall(area: &Area<'_>, sweep: &[EfPoint]) -> Drawn {
    let points = points(sweep, |point| point.ann_recall);
    let lowest = points.iter().map(|point| point.1).fold(1.0, f64::min);
    let floor = ((lowest - 0.005) * 20.0).floor() / 20.0;
    let mut chart = axes!(
        area,
        span(&points).log_scale(),
        floor..1.0,
        "ef_search",
        "ann_recall@10",
        |ef| format!("{ef:.0}"),
        |value| format!("{value:.2}")
    );
    chart.draw_series(LineSeries::new(points.clone(), FIRST.stroke_width(3)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, FIRST.filled())))?;
    Ok(())
}

fn ef_speed(area: &Area<'_>, sweep: &[EfPoint]) -> Drawn {
    let points = points(sweep, |point| point.queries_per_second);
    let exact = sweep.iter().find(|point| point.ef_search.is_none()).map(|point| point.queries_per_second);
    let highest = points.iter().map(|point| point.1).chain(exact).fold(1.0, f64::max);
    let mut chart = axes!(
        area,
        span(&points).log_scale(),
        0.0..highest * 1.08,
        "ef_search",
        "queries/s",
        |ef| format!("{ef:.0}"),
        |rate| if *rate >= 10_000.0 { format!("{:.0} k", rate / 1000.0) } else { format!("{rate:.0}") }
    );
    chart.draw_series(LineSeries::new(points.clone(), FIRST.stroke_width(3)))?;
    chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, FIRST.filled())))?;
    if let Some(exact) = exact {
        let Range { start, end } = span(&points);
        chart.draw_series(DashedLineSeries::new(
            [(start, exact), (end, exact)],
            8,
            6,
            SECOND.stroke_width(3),
        ))?;
    }
    Ok(())
}

use std::ops::Range;

fn scores(area: &Area<'_>, scores: &ScoreStudy) -> Drawn {
    let highest = scores.same.iter().chain(&scores.other).copied().fold(0.0, f64::max);
    let (low, high) = (f64::from(scores.low), f64::from(scores.high));
    let mut chart = axes!(
        area,
        low..high,
        0.0..highest * 1.08,
        "cosine",
        "share of the queries",
        |score| format!("{score:.2}"),
        |share| format!("{:.0} %", share * 100.0)
    );
    let width = (high - low) / scores.same.len() as f64;
    for (bars, colour) in [(&scores.other, SECOND), (&scores.same, FIRST)] {
        let steps: Vec<(f64, f64)> = bars
            .iter()
            .enumerate()
            .flat_map(|(bar, share)| [bar, bar + 1].map(|edge| (low + edge as f64 * width, *share)))
            .collect();
        chart.draw_series(AreaSeries::new(steps.clone(), 0.0, colour.mix(0.18)))?;
        if colour == FIRST {
            chart.draw_series(LineSeries::new(steps, colour.stroke_width(3)))?;
        } else {
            chart.draw_series(DashedLineSeries::new(steps, 6, 4, colour.stroke_width(3)))?;
        }
    }
    let threshold = f64::from(scores.threshold);
    chart
        .draw_series(LineSeries::new([(threshold, 0.0), (threshold, highest * 1.08)], INK.stroke_width(2)))?;
    Ok(())
}
