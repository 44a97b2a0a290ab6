//! Plots as SVG.

use crate::args::Common;
use crate::experiment::file;
use crate::summary::{Point, Run, Spread};
use anyhow::anyhow;
use plotters::prelude::*;
use std::collections::BTreeMap;

const SIZE: (u32, u32) = (860, 420);

/// Colours that people with any colour vision tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
];

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// A bar per system, with the range of its runs.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn bars(
    name: &str,
    title: &str,
    unit: &str,
    common: &Common,
    points: &[Point],
) -> anyhow::Result<String> {
    let bars: Vec<(&str, Spread)> =
        points.iter().filter_map(|point| Some((point.system.as_str(), point.throughput()?))).collect();
    let top = bars.iter().map(|(_, spread)| spread.high).fold(1.0, f64::max) * 1.1;
    draw(name, common, |root| {
        let count = bars.len().max(1);
        let mut chart = ChartBuilder::on(root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(70)
            .build_cartesian_2d(-0.5..count as f64 - 0.5, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_label_formatter(&|y| format!("{y:.0}"))
            .y_desc(unit)
            .x_labels(count)
            .x_label_formatter(&|x| {
                let near = (x - x.round()).abs() < 0.01 && *x > -0.5;
                let bar = near.then(|| bars.get(x.round() as usize)).flatten();
                bar.map_or(String::new(), |(name, _)| (*name).to_string())
            })
            .draw()?;
        for (index, (_, spread)) in bars.iter().enumerate() {
            let x = index as f64;
            let bar = Rectangle::new([(x - 0.3, 0.0), (x + 0.3, spread.median)], colour(index).filled());
            let range = PathElement::new([(x, spread.low), (x, spread.high)], BLACK.stroke_width(2));
            chart.draw_series([bar])?;
            chart.draw_series([range])?;
        }
        Ok(())
    })
}

/// A line per name over the values of an axis; the medians.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn lines(
    name: &str,
    title: &str,
    labels: (&str, &str),
    common: &Common,
    series: &BTreeMap<String, Vec<(f64, f64)>>,
) -> anyhow::Result<String> {
    let all = || series.values().flatten();
    let right = all().map(|point| point.0).fold(1.0, f64::max);
    let top = all().map(|point| point.1).fold(1e-6, f64::max) * 1.1;
    draw(name, common, |root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart.configure_mesh().x_desc(labels.0).y_desc(labels.1).draw()?;
        for (index, (name, points)) in series.iter().enumerate() {
            let style = colour(index).stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style))?
                .label(name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
        Ok(())
    })
}

/// What is drawn into a timeline: a line and, at some seconds, what happened.
pub(crate) struct Timeline {
    pub(crate) seconds: Vec<(f64, f64)>,
    pub(crate) events: Vec<(f64, String)>,
}

/// Throughput second by second, with what happened.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn timeline(
    name: &str,
    title: &str,
    common: &Common,
    timeline: &Timeline,
) -> anyhow::Result<String> {
    let right = timeline.seconds.iter().map(|point| point.0).fold(1.0, f64::max);
    let top = timeline.seconds.iter().map(|point| point.1).fold(1.0, f64::max) * 1.2;
    draw(name, common, |root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart.configure_mesh().x_desc("seconds").y_desc("transactions per second").draw()?;
        let style = colour(0).stroke_width(2);
        chart.draw_series(LineSeries::new(timeline.seconds.iter().copied(), style))?;
        for (index, (at, what)) in timeline.events.iter().enumerate() {
            let style = colour(index + 1).stroke_width(1);
            chart.draw_series([PathElement::new([(*at, 0.0), (*at, top)], style)])?;
            let place = (*at, top * (0.98 - 0.06 * (index % 3) as f64));
            chart.draw_series([Text::new(format!(" {what}"), place, ("sans-serif", 13))])?;
        }
        Ok(())
    })
}

/// Latencies of NEW-ORDER and of COMMIT, a line per system; the names of both plots.
///
/// # Errors
/// When one cannot be written.
pub(crate) fn latencies(name: &str, common: &Common, points: &[Point]) -> anyhow::Result<[String; 2]> {
    let new_order = distributions(points, |run| &run.report.new_order_distribution);
    let commit = distributions(points, |run| &run.report.commit_distribution);
    let labels = ("ms", "share");
    let title = |of: &str| format!("Latency of {of}, up to the 99th percentile");
    Ok([
        lines(&format!("{name}-new-order"), &title("NEW-ORDER"), labels, common, &new_order)?,
        lines(&format!("{name}-commit"), &title("COMMIT alone"), labels, common, &commit)?,
    ])
}

/// The distribution of NEW-ORDER's or COMMIT's latency over all runs of a point, as shares up to the 99th percentile.
fn distributions(points: &[Point], of: fn(&Run) -> &[(f64, f64)]) -> BTreeMap<String, Vec<(f64, f64)>> {
    let median = |point: &Point| {
        // The median run's: percentiles of several runs do not add up.
        let mut runs: Vec<&Run> = point.runs.iter().collect();
        runs.sort_by(|a, b| a.report.tpm_total.total_cmp(&b.report.tpm_total));
        let shares: &[(f64, f64)] = runs.get(runs.len() / 2).map_or(&[], |run| of(run));
        shares.iter().copied().filter(|(_, share)| *share <= 0.99).collect()
    };
    points.iter().map(|point| (point.system.clone(), median(point))).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws one file and gives its name.
fn draw(
    name: &str,
    common: &Common,
    content: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn std::error::Error>>,
) -> anyhow::Result<String> {
    let path = file(common, name, "svg");
    let failed = |error: Box<dyn std::error::Error>| anyhow!("cannot draw {}: {error}", path.display());
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(error.into()))?;
    content(&root).map_err(failed)?;
    root.present().map_err(|error| failed(error.into()))?;
    Ok(format!("{name}.svg"))
}
