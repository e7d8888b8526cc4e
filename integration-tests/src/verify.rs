//! The judgement: committed output against the fold of the input, dead letters against the records they came from, decisions
//! against both.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::fold::{Group, Place, Totals, Window, fold};
use crate::orders::Order;
use crate::scenario::Scenario;
use crate::topic::Record;

/// What was counted on the way; everything else is already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Input records.
    pub input: usize,
    /// Output rows, each (key, window) once.
    pub rows: usize,
    /// Dead letters that were late.
    pub late: usize,
    /// Dead letters that could not be read.
    pub broken: usize,
}

/// Checks that a windowed pipeline which has come to the end of its input wrote exactly what it should. Panics with the first
/// differences otherwise.
pub fn verify(scenario: &Scenario, window: Window) -> Verdict {
    verify_with_refused(scenario, window, |_| false).0
}

/// [`verify`] for a pipeline whose rows replace each other: what counts is the last one of each key. Also returns how many have been replaced.
pub fn verify_updates(scenario: &Scenario, window: Window) -> (Verdict, usize) {
    let records = scenario.committed(&scenario.output());
    let mut last: BTreeMap<Vec<u8>, &Record> = BTreeMap::new();
    for record in &records {
        let key = record.key.clone().expect("a row without a key");
        let newest = last.entry(key).or_insert(record);
        assert_eq!(newest.partition, record.partition, "a key in two partitions");
        if newest.offset < record.offset {
            *newest = record;
        }
    }
    let replaced = records.len() - last.len();
    // Without what was taken away, and under the key that rows have which come once.
    let left = last.into_iter().filter(|(_, record)| record.value.is_some()).map(|(key, record)| {
        let row = record.json();
        if window.identity() != "user_id" {
            let key: Value = serde_json::from_slice(&key).expect("a key that is no JSON");
            assert_eq!(
                (&key["user_id"], &key["window_start"]),
                (&row["user_id"], &row["window_start"]),
                "{row}"
            );
        }
        let user = row["user_id"].as_str().unwrap_or_else(|| panic!("no user_id: {row}"));
        Record { key: Some(user.as_bytes().to_vec()), ..record.clone() }
    });
    (judge(scenario, window, &left.collect::<Vec<_>>(), |_| false).0, replaced)
}

/// [`verify`] for an output topic that does not take every row: a row is in the output or a dead letter of its own, never both, and
/// only those of users that `may_be_refused` names are the latter. Also returns how many those are.
pub fn verify_with_refused(
    scenario: &Scenario,
    window: Window,
    may_be_refused: impl Fn(&str) -> bool,
) -> (Verdict, usize) {
    judge(scenario, window, &scenario.committed(&scenario.output()), may_be_refused)
}

fn judge(
    scenario: &Scenario,
    window: Window,
    output: &[Record],
    may_be_refused: impl Fn(&str) -> bool,
) -> (Verdict, usize) {
    let input = scenario.committed(&scenario.input());
    let letters = dead_letters(scenario, &input);
    let late: HashSet<Place> =
        letters.iter().filter(|(_, reason)| *reason == "late").map(|(place, _)| *place).collect();

    let mut broken = 0;
    let mut filtered = 0;
    for record in &input {
        let place = (record.partition, record.offset);
        let reason = letters.get(&place).map(String::as_str);
        match Order::parse(record.value.as_deref().unwrap_or_default()) {
            None => {
                assert_eq!(
                    reason,
                    Some("decode"),
                    "the broken record at {place:?} is not in the dead letter topic"
                );
                broken += 1;
            }
            Some(order) if !order.is_paid() => {
                assert_eq!(reason, None, "the filtered record at {place:?} is in the dead letter topic");
                filtered += 1;
            }
            // What is within the delay may never be late; what is far behind may have come before the first frontier.
            Some(order) => assert!(
                reason.is_none() || (order.is_far_late() && reason == Some("late")),
                "the good record at {place:?} is in the dead letter topic: {reason:?}, {order:?}"
            ),
        }
    }

    let expected = fold(&input, &late, window);
    let refused = refused_rows(scenario, may_be_refused);
    let count_of_refused = refused.len();
    let rows = output_rows(&[output, &refused].concat(), window);
    compare(&expected, &rows);

    let verdict = Verdict { input: input.len(), rows: rows.len(), late: late.len(), broken };
    let decisions = scenario.decisions();
    let counts = &decisions.last().expect("no decision")["counts"];
    let count = |name: &str| counts[name].as_u64().unwrap_or(0) as usize;
    assert_eq!(count("in"), input.len(), "decided input: {counts}");
    assert_eq!(count("late"), late.len(), "decided late records: {counts}");
    assert_eq!(count("dead"), broken, "decided dead letters: {counts}");
    assert_eq!(count("filtered"), filtered, "decided filtered records: {counts}");
    assert_eq!(count("in"), count("used") + count("filtered") + count("late") + count("dead"), "{counts}");
    (verdict, count_of_refused)
}

/// The dead letters that are results of windows, in the form that the output would have had them.
fn refused_rows(scenario: &Scenario, may_be_refused: impl Fn(&str) -> bool) -> Vec<Record> {
    let letters = scenario.committed(&scenario.dead_letter()).into_iter();
    let of_windows = letters.filter(|letter| letter.header("onceflow.window_start").is_some());
    of_windows
        .map(|letter| {
            let row = letter.json();
            let user = row["user_id"].as_str().unwrap_or_else(|| panic!("no user_id: {row}"));
            assert!(may_be_refused(user), "this row was to be in the output: {row}");
            assert_eq!(letter.header("onceflow.reason"), Some("refused"), "{row}");
            assert_eq!(letter.header("onceflow.pipeline"), Some(scenario.name.as_str()), "{row}");
            assert_eq!(letter.key, None, "{row}");
            let start = instant(&row["window_start"]).to_string();
            assert_eq!(letter.header("onceflow.window_start"), Some(start.as_str()), "{row}");
            Record { key: Some(user.as_bytes().to_vec()), ..letter.clone() }
        })
        .collect()
}

/// The dead letters by the place they came from, with their reason. Each place occurs once, and the letter carries the bytes, the
/// key and, before its own, the headers of the record at that place.
pub fn dead_letters(scenario: &Scenario, input: &[Record]) -> HashMap<Place, String> {
    let originals: HashMap<Place, &Record> =
        input.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut letters = HashMap::new();
    for letter in scenario.committed(&scenario.dead_letter()) {
        if letter.header("onceflow.window_start").is_some() {
            // A window's result has no record that it came from: see `refused_rows`.
            continue;
        }
        let header = |name: &str| {
            letter
                .header(name)
                .unwrap_or_else(|| panic!("a dead letter without {name}: {:?}", letter.headers))
        };
        assert_eq!(header("onceflow.pipeline"), scenario.name);
        assert_eq!(header("onceflow.topic"), scenario.input());
        assert!(!header("onceflow.error").is_empty());
        let place: Place =
            (header("onceflow.partition").parse().unwrap(), header("onceflow.offset").parse().unwrap());
        let original =
            originals.get(&place).unwrap_or_else(|| panic!("a dead letter of no record: {place:?}"));
        assert_eq!(letter.value, original.value, "the dead letter of {place:?} has other bytes");
        assert_eq!(letter.key, original.key, "the dead letter of {place:?} has another key");
        assert_eq!(
            letter.headers.get(..original.headers.len()),
            Some(&original.headers[..]),
            "the dead letter of {place:?} has other headers"
        );
        let twice = letters.insert(place, header("onceflow.reason").to_owned());
        assert_eq!(twice, None, "two dead letters of {place:?}");
    }
    letters
}

/// The rows of an output topic. Panics if a (key, window) occurs twice, or if key, end or timestamp of a record contradict its window.
pub fn output_rows(records: &[Record], window: Window) -> BTreeMap<Group, Totals> {
    let mut rows = BTreeMap::new();
    for record in records {
        let row = record.json();
        let texts: HashMap<&str, &RawValue> =
            serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        let user = row["user_id"].as_str().unwrap_or_else(|| panic!("no user_id: {row}")).to_owned();
        let (start, end) = match window {
            Window::None { .. } => (0, record.timestamp),
            _ => (instant(&row["window_start"]), instant(&row["window_end"])),
        };
        assert_eq!(record.timestamp, window.last_instant(end), "the timestamp of {row}");
        assert_eq!(record.key.as_deref(), Some(user.as_bytes()), "the key of {row}");
        let integer = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no integer {name}: {row}"));
        // Not serde_json's own reading of doubles: it may be off by the last bit.
        let double = |name: &str| -> f64 {
            let text = texts.get(name).map(|text| text.get());
            text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no number {name}: {row}"))
        };
        let totals = Totals {
            end,
            orders: integer("orders"),
            cents: integer("cents"),
            smallest: integer("smallest"),
            largest: integer("largest"),
            average: double("average"),
            amount: (double("amount") * 100.0).round() as i64,
            weight: double("weight"),
            country: row["country"].as_str().map(str::to_owned),
        };
        let group = (user, start);
        if let Some(first) = rows.insert(group.clone(), totals.clone()) {
            panic!("{group:?} was written twice: {first:?}, then {totals:?}");
        }
    }
    rows
}

fn compare(expected: &BTreeMap<Group, Totals>, rows: &BTreeMap<Group, Totals>) {
    let lost = expected.keys().filter(|group| !rows.contains_key(*group)).count();
    let invented = rows.keys().filter(|group| !expected.contains_key(*group)).count();
    let wrong: Vec<_> = expected.iter().filter(|(group, totals)| rows.get(*group) != Some(totals)).collect();
    if lost + invented + wrong.len() == 0 {
        return;
    }
    let mut report = format!(
        "{} rows expected, {} written: {lost} lost, {invented} invented, {} wrong",
        expected.len(),
        rows.len(),
        wrong.len() - lost
    );
    for (group, totals) in wrong.iter().take(5) {
        report += &format!("\n  {group:?}\n    expected {totals:?}\n    written  {:?}", rows.get(*group));
    }
    for (group, totals) in rows.iter().filter(|(group, _)| !expected.contains_key(*group)).take(5) {
        report += &format!("\n  {group:?}\n    expected nothing\n    written  {totals:?}");
    }
    panic!("{report}");
}

/// Milliseconds since 1970 of a JSON timestamp: a number, or RFC 3339 in UTC.
pub fn instant(value: &Value) -> i64 {
    let parsed = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => rfc3339(text),
        _ => None,
    };
    parsed.unwrap_or_else(|| panic!("not an instant: {value}"))
}

/// `YYYY-MM-DDTHH:MM:SS[.fff]Z`, and nothing else.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "000"));
    let mut clock = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    let millis: i64 = if fraction.len() == 3 { fraction.parse().ok()? } else { return None };
    // Days since 1970-03-01 in years that begin with March, so that the leap day comes last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1;
    let seconds = ((days - 719_468) * 24 + hours) * 3600 + minutes * 60 + seconds;
    Some(seconds * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::BASE;

    #[test]
    fn instants_are_read() {
        assert_eq!(rfc3339("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(rfc3339("2026-01-01T00:00:00.000Z"), Some(BASE));
        assert_eq!(rfc3339("2024-02-29T23:59:59.999Z"), Some(1_709_251_199_999));
        assert_eq!(rfc3339("1969-12-31T23:59:59Z"), Some(-1_000));
        assert_eq!(rfc3339("2026-01-01 00:00:00Z"), None);
        assert_eq!(rfc3339("2026-01-01T00:00:00+01:00"), None);
    }

    fn row(user: &str, cents: i64) -> Record {
        let value = format!(
            r#"{{"user_id":"{user}","window_start":0,"window_end":60000,"orders":1,"cents":{cents},"smallest":{cents},
                "largest":{cents},"average":{cents},"amount":{},"weight":0.25,"country":null}}"#,
            cents as f64 / 100.0
        );
        let (key, value) = (Some(user.into()), Some(value.into_bytes()));
        Record { partition: 0, offset: 0, timestamp: 59_999, key, value, headers: Vec::new() }
    }

    fn rows(records: &[Record]) -> BTreeMap<Group, Totals> {
        output_rows(records, Window::TUMBLING)
    }

    #[test]
    fn what_is_equal_passes() {
        let expected = rows(&[row("a", 1), row("b", 2)]);
        compare(&expected, &rows(&[row("b", 2), row("a", 1)]));
    }

    #[test]
    #[should_panic(expected = "1 lost, 0 invented, 0 wrong")]
    fn a_lost_row_is_found() {
        compare(&rows(&[row("a", 1), row("b", 2)]), &rows(&[row("a", 1)]));
    }

    #[test]
    #[should_panic(expected = "0 lost, 1 invented, 0 wrong")]
    fn an_invented_row_is_found() {
        compare(&rows(&[row("a", 1)]), &rows(&[row("a", 1), row("b", 2)]));
    }

    #[test]
    #[should_panic(expected = "0 lost, 0 invented, 1 wrong")]
    fn a_wrong_row_is_found() {
        compare(&rows(&[row("a", 1)]), &rows(&[row("a", 2)]));
    }

    #[test]
    #[should_panic(expected = "was written twice")]
    fn a_doubled_row_is_found() {
        rows(&[row("a", 1), row("a", 1)]);
    }
}
