//! The curves of a run, drawn from its log: loss and learning rate over the steps, and Recall@1 at the validations.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use plotters::prelude::*;
use serde_json::Value;

type Points = Vec<(f64, f64)>;

/// Draws `curves.svg` in the folder of the run; nothing if its log has no steps.
pub(crate) fn draw(run: &Path) -> anyhow::Result<Option<PathBuf>> {
    let log = run.join("train.jsonl");
    let text = std::fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let points = |key: &str| -> Points {
        lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line[key].as_f64()?))).collect()
    };
    let panels =
        [("loss", points("loss")), ("learning rate", points("lr")), ("Recall@1", points("recall_at_1"))];
    let panels: Vec<_> = panels.into_iter().filter(|(_, points)| !points.is_empty()).collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let path = run.join("curves.svg");
    chart(&path, &panels).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    Ok(Some(path))
}

fn chart(path: &Path, panels: &[(&str, Points)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (900, 260 * panels.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (name, points)) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let over = |pick: fn(&(f64, f64)) -> f64| {
            let (low, high) = points
                .iter()
                .map(pick)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            // A single point or a flat line still needs an axis.
            let room = (high - low).max(1e-9 * high.abs().max(1e-3)) * 0.05;
            low - room..high + room
        };
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(over(|p| p.0), over(|p| p.1))?;
        let number =
            |v: &f64| if v.abs() < 0.01 && *v != 0.0 { format!("{v:.1e}") } else { format!("{v:.2}") };
        chart
            .configure_mesh()
            .y_desc(*name)
            .x_label_formatter(&|v| format!("{v:.0}"))
            .y_label_formatter(&number)
            .light_line_style(WHITE)
            .draw()?;
        chart.draw_series(LineSeries::new(points.iter().copied(), &BLUE))?;
        if points.len() < 50 {
            chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, BLUE.filled())))?;
        }
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_a_picture_and_an_empty_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("train.jsonl");
        std::fs::write(&log, "").unwrap();
        assert_eq!(draw(dir.path()).unwrap(), None);
        let text = "{\"step\":0,\"recall_at_1\":0.5,\"best\":true}\n{\"step\":1,\"loss\":2.5,\"lr\":0.1}\n\
                    {\"step\":2,\"loss\":1.5,\"lr\":0.1}\n{\"step\":3, \"lo";
        std::fs::write(&log, text).unwrap();
        let svg = std::fs::read_to_string(draw(dir.path()).unwrap().unwrap()).unwrap();
        for word in ["<svg", "loss", "learning rate", "Recall@1", "polyline"] {
            assert!(svg.contains(word), "{word}");
        }
        assert!(draw(&dir.path().join("elsewhere")).is_err());
    }
}
