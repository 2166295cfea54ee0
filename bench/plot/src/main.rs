//! Draws what `bench --json FILE` wrote: `bench-plot compare FILE OUT.svg` with all systems,
//! `bench-plot ours FILE OUT.svg` with ours alone, `bench-plot growth FILE OUT.svg`; or prints it as a table in Markdown: `bench-plot compare-table FILE`, `bench-plot growth-table FILE`.

mod markdown;

use std::collections::BTreeMap;
use std::error::Error;

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use serde_json::Value;

type Outcome = Result<(), Box<dyn Error>>;

const OURS: RGBColor = RGBColor(0x1b, 0x6f, 0xc2);
const PEER: RGBColor = RGBColor(0xa9, 0xb4, 0xbf);
const FLOOR: RGBColor = RGBColor(0xe0, 0xc3, 0x6b);
const COLOURS: [RGBColor; 6] = [
    OURS,
    RGBColor(0xc2, 0x5a, 0x1b),
    RGBColor(0x2d, 0x8a, 0x4e),
    RGBColor(0x7b, 0x4f, 0xa8),
    RGBColor(0xb0, 0x8a, 0x1e),
    RGBColor(0x55, 0x55, 0x55),
];

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["compare", from, to] => compare(&read(from)?, to),
        ["ours", from, to] => {
            let mut figures = read(from)?;
            figures.retain(|figure| figure["kind"] == "ours");
            compare(&figures, to)
        }
        ["growth", from, to] => growth(&read(from)?, to),
        ["compare-table", from] => {
            print!("{}", markdown::compare(&read(from)?));
            Ok(())
        }
        ["growth-table", from] => {
            print!("{}", markdown::growth(&read(from)?));
            Ok(())
        }
        _ => Err(
            "usage: bench-plot (compare | ours | growth) FILE.json OUT.svg\n       \
                  bench-plot (compare-table | growth-table) FILE.json"
                .into(),
        ),
    }
}

fn read(file: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let text = std::fs::read_to_string(file)?;
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

/// A bar a figure: how many times the best peer, in log scale. Rows without peers are left out.
fn compare(figures: &[Value], to: &str) -> Outcome {
    let mut bars = Vec::new();
    let mut last = "";
    for figure in figures {
        let Some(times) = figure["ratio_to_best_peer"].as_f64() else {
            continue;
        };
        let work = figure["work"].as_str().unwrap_or_default();
        if work != last {
            bars.push(None);
            last = work;
        }
        let system = figure["system"].as_str().unwrap_or_default();
        let kind = figure["kind"].as_str().unwrap_or_default();
        bars.push(Some((format!("{work}: {system}"), kind, times.max(0.011))));
    }
    let height = 70 + 15 * bars.len() as u32;
    let area = SVGBackend::new(to, (960, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let rows = bars.len() as f64;
    let most = bars.iter().flatten().map(|bar| bar.2).fold(10.0, f64::max) * 1.3;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "times the best peer (logarithmic; the line is the best peer)",
            ("sans-serif", 16),
        )
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 300)
        .set_label_area_size(LabelAreaPosition::Bottom, 25)
        .build_cartesian_2d((0.01..most).log_scale(), 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(8)
        .light_line_style(WHITE)
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let Some((label, kind, times)) = bar else {
            continue;
        };
        let bottom = rows - index as f64 - 1.0;
        let colour = match *kind {
            "ours" => OURS,
            "floor" => FLOOR,
            _ => PEER,
        };
        let corners = [(0.01, bottom + 0.15), (*times, bottom + 0.85)];
        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
        let style = ("sans-serif", 11).into_font();
        let (_, y) = chart.backend_coord(&(0.01, bottom + 0.85));
        area.draw(&Text::new(label.clone(), (8, y), style.clone()))?;
        let (x, _) = chart.backend_coord(&(*times, bottom));
        area.draw(&Text::new(format!("{times:.2}"), (x + 4, y), style))?;
    }
    chart.draw_series([PathElement::new(
        [(1.0, 0.0), (1.0, rows)],
        BLACK.stroke_width(1),
    )])?;
    area.present()?;
    Ok(())
}

/// A line a curve: cost of an operation over the size, against the smallest size.
fn growth(points: &[Value], to: &str) -> Outcome {
    let mut curves: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for point in points {
        let name = point["curve"].as_str().unwrap_or_default();
        if let (Some(size), Some(times)) =
            (point["size"].as_f64(), point["times_smallest"].as_f64())
        {
            curves.entry(name).or_default().push((size, times));
        }
    }
    let most = curves
        .values()
        .flatten()
        .map(|point| point.1)
        .fold(4.0, f64::max)
        * 1.1;
    let area = SVGBackend::new(to, (800, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            "CPU of an operation, in times of the smallest size",
            ("sans-serif", 16),
        )
        .margin(10)
        .set_label_area_size(LabelAreaPosition::Left, 45)
        .set_label_area_size(LabelAreaPosition::Bottom, 40)
        .build_cartesian_2d((1.0..1_000_000.0).log_scale(), 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("nodes, timers, connections, workers")
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in curves.into_iter().zip(COLOURS) {
        let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
        let drawn = chart.draw_series(line)?.label(name);
        drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
