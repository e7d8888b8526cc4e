//! The input: orders in JSON, from a seed, and their parsing.
//!
//! Event time advances by a fixed step per record, each record up to `disorder_ms` behind it, which is within the pipelines' delay: such a
//! record is never late. A *far late* one is dated two to three hours before the first order: once any frontier has moved, all
//! its windows are purged, whole windows at a time, so that a record is either counted in all its windows or in the dead letter.

use serde_json::Value;

use crate::rng::Rng;
use crate::topic::NewRecord;

/// The event time of the first order: 2026-01-01T00:00:00Z, in milliseconds.
pub const BASE: i64 = 1_767_225_600_000;
const HOUR: i64 = 3_600_000;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The same seed gives the same orders.
    pub seed: u64,
    /// How many records.
    pub records: u64,
    /// Over how many partitions, in turn: so a user's orders are spread over all of them.
    pub partitions: i32,
    /// How many users.
    pub users: u64,
    /// Bytes in a user's name, 11 at least.
    pub name_length: usize,
    /// Event time per record, in milliseconds.
    pub step_ms: i64,
    /// How far behind a record may be, in milliseconds.
    pub disorder_ms: u64,
    /// One in so many is far late; 0 for none.
    pub late_one_in: u64,
    /// One in so many is broken; 0 for none.
    pub broken_one_in: u64,
}

impl Default for Orders {
    fn default() -> Self {
        Self {
            seed: 1,
            records: 20_000,
            partitions: 4,
            users: 500,
            name_length: 11,
            step_ms: 30,
            disorder_ms: 4_000,
            late_one_in: 200,
            broken_one_in: 500,
        }
    }
}

impl Orders {
    /// The records, in the order of their production.
    pub fn generate(&self) -> impl Iterator<Item = NewRecord> + Send + use<> {
        let spec = self.clone();
        let mut rng = Rng::new(spec.seed);
        (0..spec.records).map(move |index| {
            let now = BASE + index as i64 * spec.step_ms;
            // The first records of each partition are on time, so that a partition's watermark never starts hours before BASE.
            let settled = index >= 4 * spec.partitions as u64;
            let late = rng.one_in(spec.late_one_in) && settled;
            let ts = match late {
                true => BASE - 2 * HOUR - rng.below(HOUR as u64) as i64,
                false => (now - rng.below(spec.disorder_ms + 1) as i64).max(BASE),
            };
            let user = format!("user-{:06}", rng.below(spec.users));
            let user = format!("{user:x<width$}", width = spec.name_length);
            let mut value = order(&mut rng, index, &user, ts).into_bytes();
            if rng.one_in(spec.broken_one_in) && settled {
                // Cut anywhere before the closing brace: never a whole JSON object.
                value.truncate(rng.below(value.len() as u64 - 1) as usize);
            }
            NewRecord {
                partition: (index % spec.partitions as u64) as i32,
                timestamp: now,
                key: Some(user.into_bytes()),
                value: Some(value),
                headers: vec![("trace".into(), Some(index.to_be_bytes().to_vec()))],
            }
        })
    }

    /// The same orders without an end, for a [`Live`](crate::topic::Live) producer that is stopped.
    pub fn endless(&self) -> impl Iterator<Item = NewRecord> + Send + use<> {
        Self { records: u64::MAX, ..self.clone() }.generate()
    }

    /// Parts of the input: the first `n` records, and the rest.
    pub fn split(&self, n: usize) -> (Vec<NewRecord>, Vec<NewRecord>) {
        let mut first: Vec<NewRecord> = self.generate().collect();
        let rest = first.split_off(n);
        (first, rest)
    }
}

fn order(rng: &mut Rng, index: u64, user: &str, ts: i64) -> String {
    let country = match rng.below(12) {
        0 => "null".to_owned(),
        1 => "\"XX\"".to_owned(),
        n => format!("{:?}", ["DE", "FR", "NL", "PL", "IT"][n as usize % 5]),
    };
    // Refunds and empty orders, which the pipelines filter out, are a twentieth.
    let cents = if rng.one_in(20) { -(rng.below(500) as i64) } else { 1 + rng.below(99_999) as i64 };
    let sign = if cents < 0 { "-" } else { "" };
    let (units, hundredths) = (cents.abs() / 100, cents.abs() % 100);
    // Quarters: their sums are exact in binary, whatever the order of the additions.
    let weight = rng.below(4_000) as f64 / 4.0;
    format!(
        concat!(
            r#"{{"order_id":"o-{index}","user_id":"{user}","customer":{{"name":"Zoë \"Z\" Ünal","#,
            r#""address":{{"city":"Köln","country":{country}}}}},"amount":{sign}{units}.{hundredths:02},"weight":{weight},"#,
            r#""ts":{ts},"items":[{{"sku":"A-{index}","quantity":2}}],"note":null}}"#
        ),
        index = index,
        user = user,
        country = country,
        sign = sign,
        units = units,
        hundredths = hundredths,
        weight = weight,
        ts = ts
    )
}

/// An order as its bytes say.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Who ordered.
    pub user: String,
    /// The customer's country, which may be missing.
    pub country: Option<String>,
    /// The amount in hundredths.
    pub cents: i64,
    /// A number whose sums are exact.
    pub weight: f64,
    /// Event time, milliseconds since 1970.
    pub ts: i64,
}

impl Order {
    /// Parses a generated order; `None` for a broken one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            user: value["user_id"].as_str()?.to_owned(),
            country: value["customer"]["address"]["country"].as_str().map(str::to_owned),
            cents: (value["amount"].as_f64()? * 100.0).round() as i64,
            weight: value["weight"].as_f64()?,
            ts: value["ts"].as_i64()?,
        })
    }

    /// Whether it is one of those that are dated hours before all others.
    pub fn is_far_late(&self) -> bool {
        self.ts < BASE
    }

    /// The `where` of the pipelines in [`crate::scenario`].
    pub fn is_paid(&self) -> bool {
        self.cents > 0 && self.country.as_deref() != Some("XX")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let spec = Orders::default();
        let values = |spec: &Orders| spec.generate().map(|record| record.value).collect::<Vec<_>>();
        assert_eq!(values(&spec), values(&spec));
        assert_ne!(values(&spec), values(&Orders { seed: 2, ..spec.clone() }));
    }

    #[test]
    fn every_kind_of_order_occurs() {
        let spec = Orders::default();
        let orders: Vec<_> =
            spec.generate().map(|record| Order::parse(record.value.as_deref().unwrap())).collect();
        let broken = orders.iter().filter(|order| order.is_none()).count();
        let whole: Vec<&Order> = orders.iter().flatten().collect();
        assert!((20..80).contains(&broken), "{broken}");
        assert!((50..200).contains(&whole.iter().filter(|order| order.is_far_late()).count()));
        assert!(whole.iter().any(|order| order.country.is_none()));
        assert!(whole.iter().filter(|order| !order.is_paid()).count() > 1_000);
    }
}
