//! A plot of a sweep: tokens per second against the context, a line for each number of sequences and each
//! number format of the cache, dashed what memory allows.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::FontFamily;

use super::sweep::Point;

/// The colors of the lines, in turns.
const COLORS: [RGBColor; 6] = [
    RGBColor(0x25, 0x63, 0xeb),
    RGBColor(0xd9, 0x77, 0x06),
    RGBColor(0x05, 0x96, 0x69),
    RGBColor(0x93, 0x33, 0xea),
    RGBColor(0xdc, 0x26, 0x26),
    RGBColor(0x59, 0x63, 0x6e),
];

/// Writes the plot as SVG.
pub(super) fn write(file: &Path, title: &str, points: &[Point]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, points).map_err(|error| anyhow!("{error}"))?;
    std::fs::write(file, svg).with_context(|| format!("--svg: {} could not be written", file.display()))
}

fn draw(svg: &mut String, title: &str, points: &[Point]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (880, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let x = range(&mut points.iter().map(|point| point.context as f64));
    let y = range(&mut points.iter().flat_map(|point| [point.tokens_per_s, point.limit]));
    let font = |size: i32| (FontFamily::SansSerif, size);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, font(18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((x.0 / 1.1..x.1 * 1.1).log_scale(), (y.0 / 1.3..y.1 * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("tokens in the cache of each sequence")
        .y_desc("tokens/s")
        .label_style(font(13))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    let of_one = |a: &Point, b: &Point| a.cache == b.cache && a.sequences == b.sequences;
    for (index, line) in points.chunk_by(of_one).enumerate() {
        let color = COLORS[index % COLORS.len()];
        let plural = if line[0].sequences == 1 { "" } else { "s" };
        let name = format!("{} sequence{plural}, {}", line[0].sequences, line[0].cache);
        let at = |of: fn(&Point) -> f64| line.iter().map(move |point| (point.context as f64, of(point)));
        let measured =
            chart.draw_series(LineSeries::new(at(|point| point.tokens_per_s), color.stroke_width(2)))?;
        measured
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], color.filled()));
        chart.draw_series(DashedLineSeries::new(at(|point| point.limit), 5, 4, color.stroke_width(1)))?;
        chart.draw_series(at(|point| point.tokens_per_s).map(|at| Circle::new(at, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .label_font(font(13))
        .draw()?;
    area.present()?;
    Ok(())
}
