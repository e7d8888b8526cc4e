//! The proof at the end of the demo: what committed readers see equals the fold of the input, the pipeline's own counts add up, and
//! a reader that ignores transactions sees the duplicates that they hid.
//!
//! Everything is read from Kafka, from the beginning, by plain readers: nothing is remembered from producing, except how many
//! records were written.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Run;
use super::fold::{Fold, Match, Place, Totals};
use super::progress::grouped;
use crate::kafka::plain::{PlainRecord, Visible};

/// One statement of the proof.
pub struct Statement {
    /// What it is about, in a word.
    pub about: &'static str,
    /// What was found, in a sentence.
    pub text: String,
    /// Whether that is what has to be found.
    pub holds: bool,
}

/// What the newest decision says became of the records.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Counts {
    /// Records read.
    #[serde(rename = "in")]
    pub read: u64,
    /// Those that entered a window.
    pub used: u64,
    /// Those that a `where` left out.
    pub filtered: u64,
    /// Late ones.
    pub late: u64,
    /// Those that could not be read.
    pub dead: u64,
}

#[derive(Deserialize)]
struct Decision {
    counts: Counts,
}

impl Counts {
    /// The counts of a record of the control topic, if it is a decision.
    pub fn of(record: &PlainRecord<'_>) -> Option<Self> {
        if record.key != Some(b"decision") {
            return None;
        }
        serde_json::from_slice::<Decision>(record.value?).ok().map(|decision| decision.counts)
    }
}

#[derive(Deserialize)]
struct Row {
    user_id: String,
    window_start: i64,
    #[serde(flatten)]
    totals: Totals,
}

/// Reads everything and judges. An error means that the proof could not be made, not that it failed.
pub fn prove(run: &Run, written: u64) -> Result<Vec<Statement>> {
    let letters = Letters::read(run, Visible::Committed)?;
    let mut fold = Fold::default();
    // The letters that were compared with their record, byte by byte.
    let mut intact = 0_usize;
    let input = run.kafka.read(&run.orders, Visible::Committed, |record| {
        let place = (record.partition, record.offset);
        let value = record.value.unwrap_or_default();
        fold.add(place, value, &letters.late);
        intact += usize::from(letters.bytes.get(&place).is_some_and(|bytes| bytes == value));
        Ok(())
    })?;

    let mut found: HashMap<&str, u64> = HashMap::new();
    let rows = run.kafka.read(&run.totals, Visible::Committed, |record| {
        let row = row(record)?;
        let kind = match fold.check(&row.user_id, row.window_start, &row.totals) {
            Match::Right => "right",
            Match::Wrong => "wrong",
            Match::Doubled => "doubled",
            Match::Invented => "invented",
        };
        *found.entry(kind).or_default() += 1;
        Ok(())
    })?;
    let (expected, lost) = (fold.len() as u64, fold.unseen() as u64);
    let count = |kind: &str| found.get(kind).copied().unwrap_or(0);

    let mut counts = Counts::default();
    run.kafka.read(&run.control, Visible::Committed, |record| {
        counts = Counts::of(record).unwrap_or(counts);
        Ok(())
    })?;
    let sum = counts.used + counts.filtered + counts.late + counts.dead;
    let (late, broken) = (letters.late.len() as u64, letters.broken.len() as u64);
    let hidden = hidden(run, rows + letters.total)?;

    Ok(vec![
        Statement {
            about: "input",
            text: format!("{} orders are in the topic; {} were written", grouped(input), grouped(written)),
            holds: input == written,
        },
        Statement {
            about: "results",
            text: format!(
                "{} rows of {} expected (user, minute): {} equal the fold of the input; {} lost, {} doubled, {} wrong, {} invented",
                grouped(rows),
                grouped(expected),
                grouped(count("right")),
                grouped(lost),
                grouped(count("doubled")),
                grouped(count("wrong")),
                grouped(count("invented")),
            ),
            holds: count("right") == expected && rows == expected && lost == 0,
        },
        Statement {
            about: "late",
            text: format!(
                "{} orders came hours too late: each in the dead letter topic once, in no row",
                grouped(late)
            ),
            holds: late > 0 && late == fold.late,
        },
        Statement {
            about: "broken",
            text: format!(
                "{} of {} broken records are in the dead letter topic; {} letters, {} doubled, {} unchanged to the byte",
                grouped(broken),
                grouped(fold.broken.len() as u64),
                grouped(letters.total),
                grouped(letters.doubled),
                grouped(intact as u64),
            ),
            holds: letters.broken == fold.broken
                && letters.doubled == 0
                && letters.total == late + broken
                && intact as u64 == letters.total,
        },
        Statement {
            about: "counts",
            text: format!(
                "{} read = {} used + {} filtered + {} late + {} broken, say the decisions",
                grouped(counts.read),
                grouped(counts.used),
                grouped(counts.filtered),
                grouped(counts.late),
                grouped(counts.dead)
            ),
            holds: counts.read == input
                && sum == input
                && (counts.used, counts.filtered, counts.late, counts.dead)
                    == (fold.used, fold.filtered, late, broken),
        },
        hidden,
    ])
}

/// The control: without transactions the deaths would show. If they do not, the kills proved nothing.
fn hidden(run: &Run, committed: u64) -> Result<Statement> {
    let mut seen = HashSet::new();
    let mut doubled = 0_u64;
    let mut all = run.kafka.read(&run.totals, Visible::All, |record| {
        let row = row(record)?;
        doubled += u64::from(!seen.insert((row.window_start, row.user_id)));
        Ok(())
    })?;
    let letters = Letters::read(run, Visible::All)?;
    doubled += letters.doubled;
    all += letters.total;
    let text = match doubled {
        0 => "a read_uncommitted reader sees no duplicates either: the kills hit nothing, so that this run proves nothing".to_owned(),
        _ => format!(
            "a read_uncommitted reader sees {} rows and letters instead of {}, {} of them doubled: what the transactions hid",
            grouped(all),
            grouped(committed),
            grouped(doubled)
        ),
    };
    Ok(Statement { about: "control", text, holds: doubled > 0 })
}

/// The dead letters, by the place of the record they came from.
#[derive(Default)]
struct Letters {
    late: HashSet<Place>,
    broken: HashSet<Place>,
    bytes: HashMap<Place, Vec<u8>>,
    doubled: u64,
    total: u64,
}

impl Letters {
    fn read(run: &Run, visible: Visible) -> Result<Self> {
        let mut letters = Letters::default();
        letters.total = run.kafka.read(&run.dead_letter, visible, |record| {
            let place = (number(record, "onceflow.partition")?, number(record, "onceflow.offset")?);
            let late = text(record, "onceflow.reason")? == "late";
            let kind = if late { &mut letters.late } else { &mut letters.broken };
            letters.doubled += u64::from(!kind.insert(place));
            letters.bytes.insert(place, record.value.unwrap_or_default().to_vec());
            Ok(())
        })?;
        Ok(letters)
    }
}

fn row(record: &PlainRecord<'_>) -> Result<Row> {
    serde_json::from_slice(record.value.unwrap_or_default())
        .with_context(|| format!("the result at {}/{} is not a row", record.partition, record.offset))
}

fn text<'a>(record: &PlainRecord<'a>, header: &str) -> Result<&'a str> {
    let value = record.header(header).and_then(|value| std::str::from_utf8(value).ok());
    value
        .with_context(|| format!("the dead letter at {}/{} has no {header}", record.partition, record.offset))
}

fn number<T: FromStr>(record: &PlainRecord<'_>, header: &str) -> Result<T> {
    text(record, header)?.parse().ok().with_context(|| {
        format!("the dead letter at {}/{} has no number in {header}", record.partition, record.offset)
    })
}
