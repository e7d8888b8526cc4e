//! How far the records of a partition come out of order: a histogram that forgets, for a watermark whose delay follows it.
//!
//! A record's disorder is how far its event time lies behind the largest one before it in its partition, 0 if it is the largest itself. A
//! delay that covers p % of these is what an adaptive slack buffer waits (Ji et al., "Quality-Driven Processing of Sliding Window
//! Aggregates over Out-of-Order Data Streams", DEBS 2015). Buckets are log-linear as in HdrHistogram: exact below 16 ms, then eight to
//! a doubling, so that a delay is up to 12.5 % longer than it need be and never shorter. Whenever [`HALVE_AT`] records are counted all counts are
//! halved: what came before the last some hundred thousand records hardly counts any more.

use serde::{Deserialize, Serialize};

/// Records after which all counts are halved.
pub const HALVE_AT: u64 = 1 << 17;
/// Records that must have been seen before a quantile means anything.
const ENOUGH: u64 = 1_000;
/// Buckets: disorder is less than 2^48 ms, as event times are.
const BUCKETS: usize = 368;

/// A histogram of disorder, and the largest event time seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Durable", into = "Durable")]
pub struct Disorder {
    newest_ms: Option<i64>,
    /// By bucket, as far as the last that was needed.
    counts: Vec<u32>,
    total: u64,
}

impl Disorder {
    /// Counts a record with this event time, milliseconds.
    #[inline]
    pub fn observe(&mut self, time_ms: i64) {
        let newest = self.newest_ms.map_or(time_ms, |newest| newest.max(time_ms));
        let bucket = bucket(newest.abs_diff(time_ms)).min(BUCKETS - 1);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.newest_ms = Some(newest);
        self.counts[bucket] += 1;
        self.total += 1;
        if self.total >= HALVE_AT {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u64::from(*count)).sum();
        }
    }

    /// The largest event time seen, milliseconds.
    pub fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    /// The delay, milliseconds, that covers so many of a million records; `None` before there are enough of them.
    pub fn delay_ms(&self, cover_ppm: u32) -> Option<i64> {
        if self.total < ENOUGH {
            return None;
        }
        let wanted = (self.total * u64::from(cover_ppm)).div_ceil(1_000_000);
        let mut covered = 0;
        let bucket = self.counts.iter().position(|count| {
            covered += u64::from(*count);
            covered >= wanted
        });
        bucket.map(largest)
    }
}

fn bucket(disorder_ms: u64) -> usize {
    if disorder_ms < 8 {
        return disorder_ms as usize;
    }
    let exponent = disorder_ms.ilog2() as usize;
    (exponent - 2) * 8 + ((disorder_ms >> (exponent - 3)) & 7) as usize
}

/// The largest disorder that a bucket counts.
fn largest(bucket: usize) -> i64 {
    if bucket < 8 {
        return bucket as i64;
    }
    let width = 1i64 << (bucket / 8 - 1);
    (8 + (bucket % 8) as i64) * width + width - 1
}

/// The form in manifests: only what is not nought.
#[derive(Serialize, Deserialize)]
struct Durable {
    newest_ms: Option<i64>,
    /// Bucket and count.
    counts: Vec<(u16, u32)>,
}

impl From<Disorder> for Durable {
    fn from(disorder: Disorder) -> Durable {
        let counts = (0..).zip(disorder.counts).filter(|(_, count)| *count > 0).collect();
        Durable { newest_ms: disorder.newest_ms, counts }
    }
}

impl TryFrom<Durable> for Disorder {
    type Error = String;

    fn try_from(durable: Durable) -> Result<Disorder, String> {
        let mut disorder = Disorder { newest_ms: durable.newest_ms, ..Disorder::default() };
        for (bucket, count) in durable.counts {
            let bucket = usize::from(bucket);
            if bucket >= BUCKETS || u64::from(count) >= HALVE_AT {
                return Err(format!("a histogram of disorder counts {count} records in bucket {bucket}"));
            }
            if bucket >= disorder.counts.len() {
                disorder.counts.resize(bucket + 1, 0);
            }
            disorder.counts[bucket] = count;
        }
        disorder.total = disorder.counts.iter().map(|count| u64::from(*count)).sum();
        Ok(disorder)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_counted_in_it(disorder in prop_oneof![0u64..100, 0u64..1 << 47]) {
            let at = bucket(disorder);
            prop_assert!(at < BUCKETS);
            let largest = largest(at) as u64;
            prop_assert!(disorder <= largest && largest <= disorder + disorder / 8);
            prop_assert_eq!(bucket(largest), at);
            prop_assert_eq!(bucket(largest + 1), at + 1);
        }

        #[test]
        fn as_many_as_wanted_are_covered(disorders in prop::collection::vec(0i64..100_000, 1_000..3_000), cover in 500_000u32..1_000_000) {
            let mut observed = Disorder::default();
            observed.observe(1_000_000);
            disorders.iter().for_each(|disorder| observed.observe(1_000_000 - disorder));
            let delay = observed.delay_ms(cover).unwrap();
            let covered = 1 + disorders.iter().filter(|disorder| **disorder <= delay).count();
            prop_assert!(covered as f64 >= (disorders.len() + 1) as f64 * f64::from(cover) / 1e6);
            let back: Disorder = serde_json::from_str(&serde_json::to_string(&observed).unwrap()).unwrap();
            prop_assert_eq!(back, observed);
        }
    }

    #[test]
    fn old_disorder_is_forgotten() {
        let mut observed = Disorder::default();
        let mut now = 10_000_000;
        let mut run = |disorder: i64, records: u64| {
            for i in 0..records {
                now += 1;
                observed.observe(now - if i % 10 == 9 { disorder } else { 0 });
            }
            observed.delay_ms(990_000).unwrap()
        };
        assert!((5_000..=5_625).contains(&run(5_000, HALVE_AT)));
        assert!((100..=112).contains(&run(100, 8 * HALVE_AT)));
    }

    #[test]
    fn few_records_say_nothing_and_damage_is_refused() {
        let mut observed = Disorder::default();
        (0..999).for_each(|time| observed.observe(time));
        assert_eq!(observed.delay_ms(999_000), None);
        observed.observe(1_000);
        assert_eq!(observed.delay_ms(999_000), Some(0));
        for damaged in
            [r#"{"newest_ms":1,"counts":[[400,1]]}"#, r#"{"newest_ms":1,"counts":[[1,4000000000]]}"#]
        {
            assert!(serde_json::from_str::<Disorder>(damaged).is_err());
        }
    }
}
