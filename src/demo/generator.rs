//! Orders as a shop would write them, from a seed.
//!
//! Event time runs over one hour, whatever the number of orders, and each order is up to four seconds behind it: within the
//! pipeline's delay, so never late. Some come from a phone that was offline for hours, far beyond any lateness; some are cut short on the
//! way and cannot be read; some are refunds or test orders, which the pipeline filters out.

use std::fmt::Write;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The span of event time over which the orders are spread, in milliseconds.
const SPAN_MS: u64 = 3_600_000;
const USERS: u32 = 10_000;
const COUNTRIES: [&str; 8] = ["DE", "FR", "NL", "PL", "IT", "ES", "AT", "XX"];
const CITIES: [&str; 6] = ["Köln", "Lyon", "Utrecht", "Łódź", "Torino", "Málaga"];

/// The generator of one run.
pub struct Generator {
    rng: SmallRng,
    records: u64,
    next: u64,
    base_ms: i64,
    user: String,
    value: String,
}

/// One record, borrowed from the generator.
pub struct Generated<'a> {
    /// The user's name: the record's key.
    pub key: &'a [u8],
    /// The order as JSON, whole or not.
    pub value: &'a [u8],
    /// When it reached the shop, milliseconds since 1970.
    pub timestamp: i64,
}

impl Generator {
    /// `records` orders from `seed`, the first at `base_ms` (milliseconds since 1970).
    pub fn new(seed: u64, records: u64, base_ms: i64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { rng, records, next: 0, base_ms, user: String::new(), value: String::new() }
    }

    /// The next order, until there are enough.
    pub fn next(&mut self) -> Option<Generated<'_>> {
        if self.next == self.records {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let now = self.base_ms + (u128::from(number) * u128::from(SPAN_MS) / u128::from(self.records)) as i64;
        let rng = &mut self.rng;

        let offline = rng.random_ratio(1, 200);
        let ts = match offline {
            true => self.base_ms - rng.random_range(2 * 3_600_000..4 * 3_600_000),
            false => (now - rng.random_range(0..4_000)).max(self.base_ms),
        };
        let country = COUNTRIES[rng.random_range(0..COUNTRIES.len())];
        let city = CITIES[rng.random_range(0..CITIES.len())];
        let refund = if rng.random_ratio(1, 25) { "-" } else { "" };
        let (units, hundredths) = (rng.random_range(0..400), rng.random_range(1..100));
        let quantity = rng.random_range(1..6);
        let user = rng.random_range(0..USERS);

        self.user.clear();
        self.value.clear();
        // Writing into a String cannot fail.
        let _ = write!(self.user, "user-{user:05}");
        let _ = write!(
            self.value,
            concat!(
                r#"{{"order_id":"o-{number:08}","user_id":"user-{user:05}","customer":{{"name":"Zoë \"Z\" {user}","#,
                r#""address":{{"city":"{city}","country":"{country}"}}}},"amount":{refund}{units}.{hundredths:02},"#,
                r#""items":[{{"sku":"A-{units}","quantity":{quantity}}}],"ts":{ts},"note":null}}"#
            ),
            number = number,
            user = user,
            city = city,
            country = country,
            refund = refund,
            units = units,
            hundredths = hundredths,
            quantity = quantity,
            ts = ts,
        );
        let mut length = self.value.len();
        if self.rng.random_ratio(1, 1_000) {
            // Cut before the closing brace: not a whole JSON object, and perhaps not even whole UTF-8.
            length = self.rng.random_range(1..length);
        }
        Some(Generated { key: self.user.as_bytes(), value: &self.value.as_bytes()[..length], timestamp: now })
    }
}

#[cfg(test)]
mod tests {
    use super::Generator;

    fn all(seed: u64) -> Vec<Vec<u8>> {
        let mut generator = Generator::new(seed, 3_000, 1_767_225_600_000);
        std::iter::from_fn(|| generator.next().map(|order| order.value.to_vec())).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        assert_eq!(all(7).len(), 3_000);
    }

    #[test]
    fn a_few_are_broken() {
        let broken =
            all(7).iter().filter(|value| serde_json::from_slice::<serde_json::Value>(value).is_err()).count();
        assert!((1..20).contains(&broken), "{broken}");
    }
}
