//! How a contender's cost changes with one thing, the rest being equal: pictures over several cases.

use std::fmt::Write as _;

use crate::cases::{Case, Contender, base};
use crate::report::{Figures, spread};

/// One thing that cases differ in.
struct Axis {
    /// Of the file.
    name: &'static str,
    title: &'static str,
    /// Where a case stands, if it differs from the first case in nothing else.
    place: fn(&Case) -> Option<u64>,
    label: fn(u64) -> String,
}

const AXES: [Axis; 2] = [
    Axis {
        name: "by-keys",
        title: "CPU per record, by number of users",
        place: |case| {
            let other = Case { users: case.users, ..base() };
            same(case, &other).then_some(u64::from(case.users))
        },
        label: |users| match users {
            1_000_000.. => format!("{} M", users / 1_000_000),
            1_000.. => format!("{} K", users / 1_000),
            _ => users.to_string(),
        },
    },
    Axis {
        name: "by-interval",
        title: "CPU per record, by time between checkpoints",
        place: |case| {
            same(case, &Case { interval_ms: case.interval_ms, ..base() }).then_some(case.interval_ms)
        },
        label: |ms| if ms < 1_000 { format!("{ms} ms") } else { format!("{} s", ms / 1_000) },
    },
];

/// Whether all but the name and the contenders is equal.
fn same(one: &Case, other: &Case) -> bool {
    let key = |case: &Case| {
        (case.job, case.users, case.padding, case.interval_ms, case.parallelism, case.linger_ms)
    };
    key(one) == key(other)
}

/// A line of a picture: who, and the figure at each place.
type Line = (Contender, Vec<f64>);

/// Names and pictures (SVG), one for each thing that two or more of the cases differ in.
pub fn pictures(measured: &[(Case, Vec<Figures>)]) -> Vec<(&'static str, String)> {
    let picture = |axis: &Axis| {
        let mut places: Vec<(u64, &[Figures])> =
            measured.iter().filter_map(|(case, figures)| Some(((axis.place)(case)?, &figures[..]))).collect();
        places.sort_by_key(|(place, _)| *place);
        let labels: Vec<String> = places.iter().map(|(place, _)| (axis.label)(*place)).collect();
        let (_, first) = places.first().filter(|_| places.len() > 1)?;
        // A line goes through all places, or is not drawn.
        let line = |contender: Contender| -> Option<Line> {
            let at = |figures: &[Figures]| {
                figures.iter().find(|one| one.contender == contender).map(|one| spread(&one.cpu).0)
            };
            Some((contender, places.iter().map(|(_, figures)| at(figures)).collect::<Option<_>>()?))
        };
        let lines: Vec<Line> = first.iter().filter_map(|figures| line(figures.contender)).collect();
        Some((axis.name, draw(axis.title, &labels, &lines)))
    };
    AXES.iter().filter_map(picture).collect()
}

/// Lines over places that are equally far apart; microseconds upwards, from nought.
fn draw(title: &str, labels: &[String], lines: &[Line]) -> String {
    const COLORS: [&str; 5] = ["#64748b", "#0d9488", "#2563eb", "#7c3aed", "#94a3b8"];
    let most = lines
        .iter()
        .flat_map(|(_, figures)| figures)
        .fold(f64::MIN_POSITIVE, |most, figure| most.max(*figure));
    let x = |place: usize| 80.0 + 440.0 * place as f64 / (labels.len() - 1) as f64;
    let y = |figure: f64| 320.0 - 250.0 * figure / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"370\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{title}, µs</text>\n\
         <path d=\"M80 320H520\" stroke=\"#94a3b8\"/>\n"
    );
    for (place, label) in labels.iter().enumerate() {
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"342\" text-anchor=\"middle\">{label}</text>", x(place));
    }
    for (row, (contender, figures)) in lines.iter().enumerate() {
        let color = if *contender == Contender::Onceflow { "#c2410c" } else { COLORS[row % COLORS.len()] };
        let points: Vec<String> = figures
            .iter()
            .enumerate()
            .map(|(place, figure)| format!("{:.1},{:.1}", x(place), y(*figure)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (place, figure) in figures.iter().enumerate() {
            let (x, y) = (x(place), y(*figure));
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{figure:.2}</text>",
                y - 8.0
            );
        }
        let end = figures.last().map_or(320.0, |figure| y(*figure));
        let _ = writeln!(
            svg,
            "<text x=\"548\" y=\"{:.1}\" fill=\"{color}\">{}</text>",
            end + 4.0,
            contender.name()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::cases;

    fn measured(names: &[&str]) -> Vec<(Case, Vec<Figures>)> {
        let figures = |contender: &Contender| Figures {
            contender: *contender,
            cpu: vec![1.5],
            broker: vec![],
            paused: vec![],
            small_cpu: vec![],
            rate: vec![],
            rss: vec![],
        };
        let known = cases().into_iter().filter(|case| names.contains(&case.name));
        known.map(|case| (case.clone(), case.contenders.iter().map(figures).collect())).collect()
    }

    #[test]
    fn a_picture_shows_what_differs_in_one_thing() {
        let names = |of: &[&str]| pictures(&measured(of)).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(&["tumbling", "1m-users", "10m-users", "every-100-ms"]), ["by-keys", "by-interval"]);
        assert_eq!(names(&["1m-users", "every-100-ms"]), [""; 0]);
        assert_eq!(names(&["tumbling", "hopping", "stateless", "tumbling-2-workers"]), [""; 0]);
    }

    #[test]
    fn a_line_goes_through_all_places() {
        let drawn = pictures(&measured(&["tumbling", "1k-users"]));
        let svg = &drawn[0].1;
        assert!(svg.contains("Onceflow") && svg.contains("Flink DataStream, heap"), "{svg}");
        assert!(!svg.contains("Kafka Streams"), "it takes no part in 1k-users: {svg}");
        assert!(svg.find(">1 K<") < svg.find(">100 K<"), "{svg}");
    }
}
