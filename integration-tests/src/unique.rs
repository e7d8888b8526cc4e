//! The judgement of a deduplication by `order_id`: committed output and dead letters against the input, and both against the decisions.
//!
//! Which of several duplicates goes on depends on where epochs were cut. So there are two judgements: what holds wherever that was, and
//! what follows from where it was, as the decisions say it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use crate::fold::Place;
use crate::scenario::{Scenario, offsets_of};
use crate::topic::Record;
use crate::verify::dead_letters;

/// What the pipeline was told. Its rows are the records of the input, with `at_partition` and `at_offset` beside them.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// `within`, in milliseconds.
    pub within_ms: i64,
    /// How far behind a record is not late yet, in milliseconds: the delay of the watermark, and the allowed lateness.
    pub slack_ms: i64,
}

/// What was counted on the way; everything else is already checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Input records.
    pub input: usize,
    /// Output rows.
    pub kept: usize,
    /// Records that are nowhere else, for the sake of those rows.
    pub dropped: usize,
    /// Those of them that have all such rows in other partitions.
    pub across_partitions: usize,
    /// Those of them that have all such rows from before the daemon was started anew.
    pub across_starts: usize,
    /// Those of them that are as far from such rows as a duplicate may be.
    pub at_limit: usize,
    /// Those of them that are earlier in event time than all such rows.
    pub before: usize,
    /// Output rows that are a millisecond too far from another one for a duplicate.
    pub beyond_limit: usize,
    /// Dead letters that were late.
    pub late: usize,
    /// Dead letters that could not be read.
    pub broken: usize,
}

/// Checks that a deduplication which has come to the end of its input wrote what it should, once. Panics with the first difference
/// otherwise.
pub fn verify_unique(scenario: &Scenario, promise: Promise) -> Verdict {
    let input = scenario.committed(&scenario.input());
    let letters = dead_letters(scenario, &input);
    let epochs = epochs(scenario);
    let (mut orders, mut late) = (vec![], HashSet::new());
    for record in &input {
        let place = (record.partition, record.offset);
        let reason = letters.get(&place).map(String::as_str);
        match Order::parse(record, &epochs) {
            None => assert_eq!(reason, Some("decode"), "the broken record at {place:?}"),
            Some(order) => {
                assert!(matches!(reason, None | Some("late")), "{order:?} is a dead letter: {reason:?}");
                late.extend(reason.map(|_| place));
                orders.push(order);
            }
        }
    }
    let kept = rows(&scenario.committed(&scenario.output()), &input);
    let partitions = scenario.input_ends().len();
    let judged = Judged { promise, partitions, orders: &orders, kept: &kept, late: &late }.judge();
    let verdict = Verdict { input: input.len(), broken: input.len() - orders.len(), ..judged };
    check_counts(scenario, &verdict);
    verdict
}

/// Where the decisions have cut the input.
struct Epoch {
    /// The next offset of each partition.
    ends: Vec<i64>,
    /// How many times the daemon had been started.
    start: usize,
}

fn epochs(scenario: &Scenario) -> Vec<Epoch> {
    let decisions = scenario.decisions();
    let (mut epochs, mut start) = (vec![], 0);
    for (number, decision) in decisions.iter().enumerate() {
        assert_eq!(decision["epoch"].as_u64(), Some(number as u64), "a decision is missing: {decision}");
        start += usize::from(number > 0 && decision["claim"] != decisions[number - 1]["claim"]);
        let ends = offsets_of(decision).unwrap_or_else(|| panic!("no positions: {decision}"));
        assert_eq!(ends.len(), scenario.input_ends().len(), "{decision}");
        epochs.push(Epoch { ends, start });
    }
    epochs
}

/// An order of the input, and when it was read.
#[derive(Debug, Clone)]
struct Order {
    place: Place,
    id: String,
    ts: i64,
    epoch: usize,
    start: usize,
}

impl Order {
    /// `None` for a broken one.
    fn parse(record: &Record, epochs: &[Epoch]) -> Option<Order> {
        let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        let place = (record.partition, record.offset);
        let epoch = epochs.partition_point(|epoch| epoch.ends[record.partition as usize] <= record.offset);
        let start = epochs.get(epoch).unwrap_or_else(|| panic!("no decision is behind {place:?}")).start;
        Some(Order { place, id: value["order_id"].as_str()?.into(), ts: value["ts"].as_i64()?, epoch, start })
    }
}

/// The places of the records that the rows of an output topic were. Panics if one was written twice, or is not as it came.
fn rows(output: &[Record], input: &[Record]) -> HashSet<Place> {
    let input: HashMap<Place, &Record> =
        input.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut places = HashSet::new();
    for row in output {
        let value = row.json();
        let integer =
            |name: &str| value[name].as_i64().unwrap_or_else(|| panic!("no integer {name}: {value}"));
        let place: Place = (integer("at_partition") as i32, integer("at_offset"));
        let record = input.get(&place).unwrap_or_else(|| panic!("a row of no record: {value}"));
        let mut expected = record.json();
        expected["country"] = Value::Null;
        expected["at_partition"] = place.0.into();
        expected["at_offset"] = place.1.into();
        assert_eq!(value, expected, "the row of {place:?} has other columns");
        assert_eq!(row.key, record.key, "the row of {place:?} has another key");
        assert_eq!(row.headers, record.headers, "the row of {place:?} has other headers");
        assert_eq!(Some(row.timestamp), expected["ts"].as_i64(), "the timestamp of the row of {place:?}");
        assert!(places.insert(place), "the record at {place:?} was written twice");
    }
    places
}

/// Orders, and what has become of them.
struct Judged<'a> {
    promise: Promise,
    partitions: usize,
    orders: &'a [Order],
    kept: &'a HashSet<Place>,
    late: &'a HashSet<Place>,
}

impl<'a> Judged<'a> {
    fn judge(&self) -> Verdict {
        let kept = self.kept_by_id();
        self.check_lateness();
        self.check_kept(&kept);
        let verdict = self.check_dropped(&kept);
        self.check_choice();
        let distance = self.promise.within_ms + 1;
        let is_beyond = |pair: &&[&Order]| pair[1].ts - pair[0].ts == distance;
        let beyond_limit = kept.values().map(|orders| orders.windows(2).filter(is_beyond).count()).sum();
        Verdict { kept: self.kept.len(), late: self.late.len(), beyond_limit, ..verdict }
    }

    /// The orders that went on, those of each id in the order of their event times.
    fn kept_by_id(&self) -> HashMap<&'a str, Vec<&'a Order>> {
        let mut by_id: HashMap<&str, Vec<&Order>> = HashMap::new();
        for order in self.orders.iter().filter(|order| self.kept.contains(&order.place)) {
            by_id.entry(&order.id).or_default().push(order);
        }
        by_id.values_mut().for_each(|orders| orders.sort_by_key(|order| order.ts));
        by_id
    }

    /// Nothing is late that is within the slack of its own partition, and everything is that no slack, nor what is remembered, could cover.
    /// What was read in the epochs before counts.
    fn check_lateness(&self) {
        let mut orders: Vec<&Order> = self.orders.iter().collect();
        orders.sort_by_key(|order| order.epoch);
        let mut newest: BTreeMap<i32, i64> = BTreeMap::new();
        for epoch in orders.chunk_by(|a, b| a.epoch == b.epoch) {
            let all = newest.values().min().filter(|_| newest.len() == self.partitions);
            for order in epoch {
                let behind = |newest: Option<&i64>| newest.map_or(0, |newest| newest - order.ts);
                if self.late.contains(&order.place) {
                    let own = behind(newest.get(&order.place.0));
                    assert!(own > self.promise.slack_ms, "{order:?} is late, {own} ms behind");
                } else {
                    let most = self.promise.slack_ms + self.promise.within_ms;
                    assert!(behind(all) <= most, "{order:?} is not late, {} ms behind", behind(all));
                }
            }
            for order in epoch {
                let newest = newest.entry(order.place.0).or_insert(order.ts);
                *newest = order.ts.max(*newest);
            }
        }
    }

    /// No two rows are duplicates of each other, and none is late.
    fn check_kept(&self, kept: &HashMap<&str, Vec<&Order>>) {
        for pair in kept.values().flat_map(|orders| orders.windows(2)) {
            let apart = pair[1].ts - pair[0].ts;
            assert!(apart > self.promise.within_ms, "both went on, {apart} ms apart: {pair:?}");
        }
        let both = self.kept.intersection(self.late).next();
        assert_eq!(both, None, "in the output, and late");
    }

    /// Each order that is nowhere is a duplicate of one that went on.
    fn check_dropped(&self, kept: &HashMap<&str, Vec<&Order>>) -> Verdict {
        let mut verdict = Verdict::default();
        let is_kept = |order: &Order| self.kept.contains(&order.place);
        let is_nowhere = |order: &&Order| !is_kept(order) && !self.late.contains(&order.place);
        for order in self.orders.iter().filter(is_nowhere) {
            let others = kept.get(order.id.as_str()).into_iter().flatten();
            let others: Vec<_> = others.filter(|other| self.are_near(order, other)).collect();
            assert!(!others.is_empty(), "lost: {order:?}");
            let all = |holds: &dyn Fn(&Order) -> bool| usize::from(others.iter().all(|other| holds(other)));
            verdict.dropped += 1;
            verdict.across_partitions += all(&|other| other.place.0 != order.place.0);
            verdict.across_starts += all(&|other| other.start < order.start);
            verdict.at_limit += all(&|other| (other.ts - order.ts).abs() == self.promise.within_ms);
            verdict.before += all(&|other| other.ts > order.ts);
        }
        verdict
    }

    /// Of the orders that were not late went on what the epochs, one after the other, had to let through: of each the first by event time,
    /// partition and offset, unless one near it had gone on.
    fn check_choice(&self) {
        let is_late = |order: &&Order| self.late.contains(&order.place);
        let mut orders: Vec<&Order> = self.orders.iter().filter(|order| !is_late(order)).collect();
        orders.sort_by_key(|order| (order.epoch, order.ts, order.place));
        let mut by_id: HashMap<&str, Vec<&Order>> = HashMap::new();
        for order in orders {
            let others = by_id.entry(&order.id).or_default();
            let near = others.iter().find(|other| self.are_near(order, other));
            let is_kept = self.kept.contains(&order.place);
            assert_eq!(is_kept, near.is_none(), "{order:?} went on: {is_kept}, near it: {near:?}");
            if is_kept {
                others.push(order);
            }
        }
    }

    fn are_near(&self, one: &Order, other: &Order) -> bool {
        (one.ts - other.ts).abs() <= self.promise.within_ms
    }
}

/// What the last decision has counted.
fn check_counts(scenario: &Scenario, verdict: &Verdict) {
    let decisions = scenario.decisions();
    let counts = &decisions.last().expect("no decision")["counts"];
    let Verdict { input, kept, dropped, late, broken, .. } = *verdict;
    let expected = [
        ("in", input),
        ("used", kept),
        ("filtered", dropped),
        ("late", late),
        ("dead", broken),
        ("dropped", 0),
    ];
    for (name, expected) in expected {
        assert_eq!(counts[name].as_u64(), Some(expected as u64), "decided {name}: {counts}, {verdict:?}");
    }
    assert_eq!(input, kept + dropped + late + broken, "{verdict:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Partition, event time, epoch; whether it went on (`k`), was late (`l`) or is nowhere (`-`).
    fn judge(orders: &[(i32, i64, usize, char)]) -> Verdict {
        let order = |(offset, (partition, ts, epoch, _)): (usize, &(i32, i64, usize, char))| Order {
            place: (*partition, offset as i64),
            id: "o".into(),
            ts: *ts,
            epoch: *epoch,
            start: *epoch,
        };
        let all: Vec<Order> = orders.iter().enumerate().map(order).collect();
        let of_fate = |fate: char| -> HashSet<Place> {
            let with_fate = all.iter().zip(orders).filter(|(_, order)| order.3 == fate);
            with_fate.map(|(order, _)| order.place).collect()
        };
        let promise = Promise { within_ms: 10, slack_ms: 5 };
        let (kept, late) = (of_fate('k'), of_fate('l'));
        Judged { promise, partitions: 2, orders: &all, kept: &kept, late: &late }.judge()
    }

    #[test]
    fn what_is_right_passes() {
        let verdict = judge(&[
            (0, 100, 0, 'k'),
            (1, 110, 0, '-'),
            (1, 111, 0, 'k'),
            (0, 122, 1, 'k'),
            (1, 95, 1, '-'),
            (1, 90, 2, 'l'),
            (0, 120, 2, '-'),
        ]);
        let expected = Verdict {
            kept: 3,
            dropped: 3,
            across_partitions: 1,
            across_starts: 2,
            before: 1,
            beyond_limit: 2,
            late: 1,
            ..Verdict::default()
        };
        assert_eq!(verdict, expected);
        assert_eq!(judge(&[(0, 100, 0, 'k'), (0, 110, 1, '-')]).at_limit, 1);
    }

    #[test]
    #[should_panic(expected = "both went on, 10 ms apart")]
    fn a_duplicate_is_found() {
        judge(&[(0, 100, 0, 'k'), (1, 110, 1, 'k')]);
    }

    #[test]
    #[should_panic(expected = "lost")]
    fn a_lost_order_is_found() {
        judge(&[(0, 100, 0, 'k'), (1, 111, 0, '-')]);
    }

    #[test]
    #[should_panic(expected = "went on: false, near it: None")]
    fn a_wrong_choice_within_an_epoch_is_found() {
        judge(&[(0, 100, 0, '-'), (1, 100, 0, 'k')]);
    }

    #[test]
    #[should_panic(expected = "went on: false, near it: None")]
    fn a_forgotten_row_of_an_earlier_epoch_is_found() {
        judge(&[(0, 100, 0, '-'), (1, 99, 1, 'k')]);
    }

    #[test]
    #[should_panic(expected = "is late, 5 ms behind")]
    fn what_is_late_too_early_is_found() {
        judge(&[(0, 100, 0, 'k'), (1, 120, 0, 'k'), (0, 95, 1, 'l')]);
    }

    #[test]
    #[should_panic(expected = "is not late, 16 ms behind")]
    fn what_should_have_been_late_is_found() {
        judge(&[(0, 100, 0, 'k'), (1, 120, 0, 'k'), (1, 84, 1, 'k')]);
    }

    fn record(partition: i32, key: &str, value: &str) -> Record {
        let value = Some(value.as_bytes().to_vec());
        Record { partition, offset: 3, timestamp: 7, key: Some(key.into()), value, headers: vec![] }
    }

    const ROW: &str = r#"{"order_id":"o","ts":7,"country":null,"at_partition":1,"at_offset":3}"#;

    fn rows_of(output: &[Record]) -> HashSet<Place> {
        rows(output, &[record(1, "o", r#"{"order_id":"o","ts":7}"#)])
    }

    #[test]
    fn a_row_says_where_it_was() {
        assert_eq!(rows_of(&[record(0, "o", ROW)]), HashSet::from([(1, 3)]));
    }

    #[test]
    #[should_panic(expected = "was written twice")]
    fn a_doubled_row_is_found() {
        rows_of(&[record(0, "o", ROW), record(1, "o", ROW)]);
    }

    #[test]
    #[should_panic(expected = "has another key")]
    fn a_row_with_another_key_is_found() {
        rows_of(&[record(0, "p", ROW)]);
    }

    #[test]
    #[should_panic(expected = "a row of no record")]
    fn an_invented_row_is_found() {
        rows_of(&[record(0, "o", &ROW.replace(":3", ":4"))]);
    }

    #[test]
    #[should_panic(expected = "has other columns")]
    fn an_altered_row_is_found() {
        rows_of(&[record(0, "o", &ROW.replace("\"o\"", "\"p\""))]);
    }
}
