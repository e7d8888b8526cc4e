//! Recoveries as a table and as a picture.

use std::fmt::Write as _;

use crate::cases::Contender;
use crate::recovery::{Measured, RATE, Recovery};
use crate::report::{self, spread};

/// What was measured of a contender, one figure for each round.
pub struct Figures {
    /// Who.
    pub contender: Contender,
    measured: Vec<Measured>,
}

impl Figures {
    /// Nothing yet.
    pub fn new(contender: Contender) -> Figures {
        Figures { contender, measured: vec![] }
    }

    /// A round.
    pub fn add(&mut self, measured: Measured) {
        self.measured.push(measured);
    }

    fn spread(&self, figure: impl Fn(&Measured) -> f64) -> (f64, f64, f64) {
        spread(&self.measured.iter().map(figure).collect::<Vec<_>>())
    }

    fn middle(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        self.spread(figure).0
    }
}

/// A table in Markdown.
pub fn table(what: &Recovery, all: &[Figures]) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let state = all.iter().find(|figures| figures.contender == Contender::Onceflow);
    let state = state.map_or(f64::NAN, |figures| figures.middle(|one| one.state.unwrap_or(f64::NAN)));
    let mut text = format!(
        "### {}\n\n{} users, state of {:.0} MB (`onceflow_state_bytes`, of Onceflow), {RATE} orders a second, a checkpoint every {} ms; \
         kill -9, then at once a new process\n\n\
         | | s to the first commit (range) | s to a commit of every partition (range) | CPU s until then | peak RSS until then, MiB | on disk, MiB | answers compared |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        what.case.name,
        what.crowd.users,
        state / 1e6,
        what.case.interval_ms
    );
    for figures in all {
        let (first, first_least, first_most) = figures.spread(|one| one.first_s);
        let (every, least, most) = figures.spread(|one| one.every_s);
        let _ = writeln!(
            text,
            "| {} | {first:.2} ({first_least:.2}–{first_most:.2}) | {every:.2} ({least:.2}–{most:.2}) | {:.1} | {:.0} | {:.0} | {:.0} |",
            figures.contender.name(),
            figures.middle(|one| one.cpu_s),
            figures.middle(|one| one.peak_rss as f64) / MIB,
            figures.middle(|one| one.disk as f64) / MIB,
            figures.middle(|one| one.rows as f64),
        );
    }
    text
}

/// The times as a picture.
pub fn bars(name: &str, all: &[Figures]) -> String {
    let bars: Vec<_> = all
        .iter()
        .map(|figures| (figures.contender.name().to_owned(), figures.middle(|one| one.every_s)))
        .collect();
    report::bars(&format!("{name}: from kill -9 to commits"), "s", &bars)
}
