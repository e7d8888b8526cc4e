//! Figures as a table and as pictures.

use std::fmt::Write as _;

use crate::cases::{Case, Contender};

/// What was measured of a contender in a case, one figure for each round.
pub struct Figures {
    /// Who.
    pub contender: Contender,
    /// CPU seconds per million orders: the slope between the two sizes.
    pub cpu: Vec<f64>,
    /// CPU seconds of the broker per million orders: the slope.
    pub broker: Vec<f64>,
    /// CPU seconds for the smaller size, start included.
    pub small_cpu: Vec<f64>,
    /// Orders per second of wall time: the slope.
    pub rate: Vec<f64>,
    /// Peak memory at the larger size, bytes.
    pub rss: Vec<f64>,
    /// Shares of the time that Onceflow's workers stood still for checkpoints, and while windows fired.
    pub paused: Vec<(f64, f64)>,
}

/// The middle figure, the smallest and the largest.
pub fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return (f64::NAN, f64::NAN, f64::NAN);
    };
    let middle = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
    (middle, *least, *most)
}

/// A table in Markdown.
pub fn table(case: &Case, all: &[Figures]) -> String {
    let ours = all.iter().find(|figures| figures.contender == Contender::Onceflow);
    let ours = ours.map_or(f64::NAN, |figures| spread(&figures.cpu).0);
    let mut text = format!(
        "### {}\n\n{}, {} users, {} bytes, a checkpoint every {} ms, parallelism {}\n\n\
         | | µs CPU per record (range) | of Onceflow's | start and the first records, CPU s | records/s | peak RSS, MiB | µs CPU per record of the broker |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        case.name,
        case.job.name(),
        case.users,
        139 + case.padding,
        case.interval_ms,
        case.parallelism
    );
    let mut pauses = String::new();
    for figures in all {
        let (cpu, least, most) = spread(&figures.cpu);
        let _ = writeln!(
            text,
            "| {} | {cpu:.2} ({least:.2}–{most:.2}) | {:.1} × | {:.1} | {:.0} | {:.0} | {:.2} |",
            figures.contender.name(),
            cpu / ours,
            spread(&figures.small_cpu).0,
            spread(&figures.rate).0,
            spread(&figures.rss).0 / f64::from(1 << 20),
            spread(&figures.broker).0
        );
        let percent = |share: fn(&(f64, f64)) -> f64| {
            spread(&figures.paused.iter().map(share).collect::<Vec<_>>()).0 * 100.0
        };
        if !figures.paused.is_empty() {
            let (copying, firing) = (percent(|paused| paused.0), percent(|paused| paused.1));
            pauses = format!(
                "\n{} stood still for {copying:.2} % of the time to copy out what had changed, and for {firing:.2} % while windows fired.\n",
                figures.contender.name()
            );
        }
    }
    text + &pauses
}

/// Horizontal bars as SVG: a label, a figure, and what the figure is of.
pub fn bars(title: &str, unit: &str, bars: &[(String, f64)]) -> String {
    const ROW: usize = 28;
    const LABEL: usize = 210;
    const WIDTH: usize = 420;
    let most = bars.iter().map(|(_, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
    let height = 56 + ROW * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{title}</text>\n",
        LABEL + WIDTH + 90
    );
    for (row, (label, figure)) in bars.iter().enumerate() {
        let (y, width) = (44 + ROW * row, figure / most * WIDTH as f64);
        let color = if label.starts_with("Onceflow") { "#c2410c" } else { "#94a3b8" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{figure:.2} {unit}</text>",
            LABEL - 8,
            y + 14,
            LABEL as f64 + width + 6.0,
            y + 14
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_figure_is_shown_with_its_range() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (2.0, 1.0, 3.0));
        assert_eq!(spread(&[4.0]), (4.0, 4.0, 4.0));
        assert_eq!(spread(&[4.0, 2.0]), (3.0, 2.0, 4.0));
        assert!(spread(&[]).0.is_nan());
    }

    #[test]
    fn the_longest_bar_is_the_largest_figure() {
        let svg = bars("CPU", "µs", &[("Onceflow".to_owned(), 1.0), ("other".to_owned(), 4.0)]);
        assert!(svg.contains("width=\"420.0\"") && svg.contains("width=\"105.0\""), "{svg}");
    }
}
