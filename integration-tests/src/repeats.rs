//! The input of deduplications: orders that come again, under their id, in any partition.
//!
//! Event time advances by a fixed step per record. An order that comes again is dated around the one before: near it, at the limit of
//! what is a duplicate, a millisecond beyond, and further away; before it as well as after it. Records come out of order by up to
//! `disorder_ms`, which is what the pipeline forgives. Some are dated before that, so that they are late where time has got so far,
//! and a *far late* one is dated two to three hours before all others.

use std::collections::BTreeSet;

use crate::orders::BASE;
use crate::rng::Rng;
use crate::topic::NewRecord;

const HOUR: i64 = 3_600_000;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Repeats {
    /// The same seed gives the same orders.
    pub seed: u64,
    /// Over how many partitions, in turn: so an order comes again in any of them.
    pub partitions: i32,
    /// Bytes in an order's id, 10 at least.
    pub id_length: usize,
    /// Event time per record, in milliseconds.
    pub step_ms: i64,
    /// How far behind a record may be without being late, in milliseconds.
    pub disorder_ms: i64,
    /// How far apart duplicates are at most, in milliseconds.
    pub within_ms: i64,
    /// One new order in so many is far late; 0 for none.
    pub late_one_in: u64,
    /// One in so many is broken; 0 for none.
    pub broken_one_in: u64,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            seed: 1,
            partitions: 4,
            id_length: 10,
            step_ms: 2,
            disorder_ms: 5_000,
            within_ms: 4_000,
            late_one_in: 200,
            broken_one_in: 500,
        }
    }
}

impl Repeats {
    /// The records, in the order of their production, without an end.
    pub fn endless(&self) -> impl Iterator<Item = NewRecord> + Send + use<> {
        let spec = self.clone();
        let mut rng = Rng::new(spec.seed);
        // When an order comes again, its number and its event time.
        let mut due: BTreeSet<(i64, u64, i64)> = BTreeSet::new();
        (0..).map(move |index: u64| {
            let now = BASE + index as i64 * spec.step_ms;
            let is_due = due.first().is_some_and(|(when, ..)| *when <= now);
            let (order, ts) = match is_due.then(|| due.pop_first()).flatten() {
                Some((_, order, ts)) => (order, ts),
                None => {
                    let ts = spec.first_time(&mut rng, index, now);
                    due.extend(spec.repeats(&mut rng, now, index, ts));
                    (index, ts)
                }
            };
            spec.record(&mut rng, index, order, now, ts)
        })
    }

    /// The event time of a new order.
    fn first_time(&self, rng: &mut Rng, index: u64, now: i64) -> i64 {
        // The first records of each partition are on time, so that a partition's watermark never starts hours before BASE.
        let settled = index >= 4 * self.partitions as u64;
        match rng.one_in(self.late_one_in) && settled {
            true => BASE - 2 * HOUR - rng.below(HOUR as u64) as i64,
            false => now - self.disorder(rng),
        }
    }

    /// How far a record is behind: one half is not at all.
    fn disorder(&self, rng: &mut Rng) -> i64 {
        if rng.one_in(2) { 0 } else { rng.below(self.disorder_ms as u64 + 1) as i64 }
    }

    /// When an order that was at `ts` comes again, its number and its event times: one in two does, up to three times.
    fn repeats(&self, rng: &mut Rng, now: i64, order: u64, mut ts: i64) -> Vec<(i64, u64, i64)> {
        let times = if rng.one_in(2) { 1 + rng.below(3) } else { 0 };
        let mut repeats = vec![];
        for _ in 0..times {
            ts = self.time_again(rng, now, ts);
            repeats.push(((ts + self.disorder(rng)).max(now + self.step_ms), order, ts));
        }
        repeats
    }

    /// The event time of an order that comes again, where the one before is at `ts`.
    fn time_again(&self, rng: &mut Rng, now: i64, ts: i64) -> i64 {
        let up_to_within = rng.below(self.within_ms as u64 + 1) as i64;
        let apart = match rng.below(8) {
            0 => 0,
            1 | 2 => self.within_ms,
            3 | 4 => self.within_ms + 1,
            5 => self.within_ms + up_to_within,
            _ => up_to_within,
        };
        let would_be_late = ts - apart < now - self.disorder_ms;
        // Most that would be late come after the one before instead.
        if rng.one_in(2) && (!would_be_late || rng.one_in(20)) { ts - apart } else { ts + apart }
    }

    fn record(&self, rng: &mut Rng, index: u64, order: u64, now: i64, ts: i64) -> NewRecord {
        let id = format!("o-{order:08}");
        let id = format!("{id:x<width$}", width = self.id_length);
        let mut value = json(index, &id, ts).into_bytes();
        if rng.one_in(self.broken_one_in) {
            // Cut anywhere before the closing brace: never a whole JSON object.
            value.truncate(rng.below(value.len() as u64 - 1) as usize);
        }
        NewRecord {
            partition: (index % self.partitions as u64) as i32,
            timestamp: now,
            key: Some(id.into_bytes()),
            value: Some(value),
            headers: vec![("trace".into(), Some(index.to_be_bytes().to_vec()))],
        }
    }
}

/// No two records have the same value: which of the duplicates went on can be seen.
fn json(index: u64, id: &str, ts: i64) -> String {
    let (units, hundredths) = (index / 99 % 1_000_000, 1 + index % 99);
    format!(
        r#"{{"order_id":"{id}","user_id":"user-{}","amount":{units}.{hundredths:02},"weight":{}.25,"ts":{ts}}}"#,
        index % 7,
        index % 1_000
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn values(spec: &Repeats) -> Vec<Vec<u8>> {
        spec.endless().take(5_000).map(|record| record.value.unwrap()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let spec = Repeats::default();
        assert_eq!(values(&spec), values(&spec));
        assert_ne!(values(&spec), values(&Repeats { seed: 2, ..spec.clone() }));
    }

    #[test]
    fn every_kind_of_repetition_occurs() {
        let spec = Repeats::default();
        let mut before: HashMap<String, (i32, i64)> = HashMap::new();
        let (mut elsewhere, mut at_limit, mut beyond, mut back, mut broken) = (0, 0, 0, 0, 0);
        for record in spec.endless().take(50_000) {
            let value: Result<serde_json::Value, _> = serde_json::from_slice(&record.value.unwrap());
            let Ok(order) = value else {
                broken += 1;
                continue;
            };
            let (id, ts) = (order["order_id"].as_str().unwrap(), order["ts"].as_i64().unwrap());
            let Some((partition, first)) = before.insert(id.to_owned(), (record.partition, ts)) else {
                continue;
            };
            elsewhere += u32::from(partition != record.partition);
            at_limit += u32::from((ts - first).abs() == spec.within_ms);
            beyond += u32::from((ts - first).abs() == spec.within_ms + 1);
            back += u32::from(ts < first);
        }
        for kind in [elsewhere, at_limit, beyond, back] {
            assert!(kind > 1_000, "{elsewhere} {at_limit} {beyond} {back}");
        }
        assert!((50..200).contains(&broken), "{broken}");
    }
}
