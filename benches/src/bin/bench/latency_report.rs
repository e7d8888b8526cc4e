//! Latencies as a table, and as curves.

use std::fmt::{Display, Formatter, Write as _};

use crate::cases::{Case, Contender};
use crate::latency::Pace;
use crate::report::spread;

/// What was measured of a contender in a round.
pub struct Figures {
    /// Milliseconds, in rising order.
    latencies_ms: Vec<f64>,
    /// Answers a second.
    rate: f64,
    /// The same until the orders were in Kafka.
    written_ms: Vec<f64>,
    /// CPU seconds used in the time measured.
    cpu_s: f64,
    /// Bytes.
    peak_rss: u64,
}

impl Figures {
    /// Of latencies in any order, milliseconds.
    pub fn new(
        mut latencies_ms: Vec<f64>,
        mut written_ms: Vec<f64>,
        rate: f64,
        cpu_s: f64,
        peak_rss: u64,
    ) -> Figures {
        latencies_ms.sort_by(f64::total_cmp);
        written_ms.sort_by(f64::total_cmp);
        Figures { latencies_ms, written_ms, rate, cpu_s, peak_rss }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(&self.latencies_ms, part));
        write!(
            f,
            "p50 {p50:.0} ms, p99 {p99:.0} ms, max {most:.0} ms, {:.0} answers/s, in Kafka p50 {:.0} ms",
            self.rate,
            quantile(&self.written_ms, 0.5)
        )
    }
}

/// The least figure that so much of all (0 to 1) does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// A table in Markdown: the middle of the rounds.
pub fn table(case: &Case, pace: Pace, all: &[(Contender, Vec<Figures>)]) -> String {
    let seconds = pace.measured.as_secs_f64();
    let mut text = format!(
        "### {}\n\n{}, {} orders/s for {seconds:.0} s, a checkpoint every {} ms, `linger.ms` {}, parallelism {}; milliseconds from \
         due to read, and from due to in Kafka\n\n\
         | | p50 | p99 | p99.9 | max | answered/s | CPU s | peak RSS, MiB | in Kafka, p50 | p99 |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        case.name,
        case.job.name(),
        pace.rate,
        case.interval_ms,
        case.linger_ms,
        case.parallelism
    );
    for (contender, rounds) in all {
        let middle =
            |figure: &dyn Fn(&Figures) -> f64| spread(&rounds.iter().map(figure).collect::<Vec<_>>()).0;
        let part = |part| middle(&|round| quantile(&round.latencies_ms, part));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} |",
            contender.name(),
            part(0.5),
            part(0.99),
            part(0.999),
            part(1.0),
            middle(&|round| round.rate),
            middle(&|round| round.cpu_s),
            middle(&|round| round.peak_rss as f64) / f64::from(1 << 20),
            middle(&|round| quantile(&round.written_ms, 0.5)),
            middle(&|round| quantile(&round.written_ms, 0.99))
        );
    }
    text
}

/// Curves as SVG: how many of the orders, to the right, are answered within how long, upwards; both logarithmic, so that the slowest are
/// seen. All rounds together.
pub fn curves(all: &[(Contender, Vec<Figures>)]) -> String {
    const COLORS: [&str; 3] = ["#c2410c", "#2563eb", "#64748b"];
    let pooled: Vec<(Contender, Vec<f64>)> = all
        .iter()
        .map(|(contender, rounds)| {
            let mut sorted: Vec<f64> = rounds.iter().flat_map(|round| &round.latencies_ms).copied().collect();
            sorted.sort_by(f64::total_cmp);
            (*contender, sorted)
        })
        .collect();
    let most =
        pooled.iter().filter_map(|(_, sorted)| sorted.last()).fold(100.0, |most: f64, ms| most.max(*ms));
    let decades = most.log10().ceil();
    // Nines to the right: 0 is no order, 1 is 90 %, 4 is 99.99 %.
    let x = |nines: f64| 70.0 + nines * 130.0;
    let y = |ms: f64| 330.0 - ms.max(1.0).log10() / decades * 280.0;
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"380\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"15\" font-weight=\"bold\">latency: milliseconds within which so many orders are answered</text>\n",
    );
    let line = "stroke=\"#e2e8f0\"";
    for (nines, label) in ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"].iter().enumerate() {
        let at = x(nines as f64);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.0} 50V330\" {line}/><text x=\"{at:.0}\" y=\"352\" text-anchor=\"middle\">{label}</text>"
        );
    }
    for decade in 0..=decades as i32 {
        let (ms, at) = (10f64.powi(decade), y(10f64.powi(decade)));
        let _ = writeln!(
            svg,
            "<path d=\"M70 {at:.0}H590\" {line}/><text x=\"62\" y=\"{:.0}\" text-anchor=\"end\">{ms}</text>",
            at + 4.0
        );
    }
    for ((contender, sorted), color) in pooled.iter().zip(COLORS) {
        let mut path = String::new();
        for step in 0..=160 {
            let nines = f64::from(step) / 40.0;
            let ms = quantile(sorted, 1.0 - 10f64.powf(-nines));
            let _ = write!(path, "{}{:.1} {:.1}", if step == 0 { 'M' } else { 'L' }, x(nines), y(ms));
        }
        let last = y(quantile(sorted, 0.9999));
        let _ = writeln!(
            svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\
             <text x=\"598\" y=\"{:.0}\" fill=\"{color}\">{}</text>",
            last + 4.0,
            contender.name()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_figure_that_was_measured() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.5), 500.0);
        assert_eq!(quantile(&sorted, 0.999), 999.0);
        assert_eq!(quantile(&sorted, 1.0), 1000.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
