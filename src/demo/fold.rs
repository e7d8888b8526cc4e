//! What the pipeline of the demo has to yield: the plainest fold over the orders, with none of the engine's code.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;

/// Length of a window, in milliseconds.
const MINUTE: i64 = 60_000;

/// Partition and offset of an order in its topic.
pub type Place = (i32, i64);

#[derive(Deserialize)]
struct Order<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    amount: f64,
    ts: i64,
    customer: Customer<'a>,
}

#[derive(Deserialize)]
struct Customer<'a> {
    #[serde(borrow)]
    address: Address<'a>,
}

#[derive(Deserialize)]
struct Address<'a> {
    #[serde(borrow)]
    country: Option<Cow<'a, str>>,
}

/// The aggregates of one user and minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Totals {
    /// Orders.
    pub order_count: i64,
    /// Their sum, in hundredths.
    pub total_cents: i64,
    /// The largest of them, in hundredths.
    pub largest_cents: i64,
}

/// The rows that must be in the output, and what became of the orders.
#[derive(Debug, Default)]
pub struct Fold {
    rows: HashMap<i64, HashMap<String, (Totals, bool)>>,
    /// Orders that are part of a row.
    pub used: u64,
    /// Orders that the pipeline's `where` leaves out.
    pub filtered: u64,
    /// Orders that are in the dead letter topic as late.
    pub late: u64,
    /// Records that are no orders.
    pub broken: HashSet<Place>,
}

/// How an output row compares with the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Equal, and seen for the first time.
    Right,
    /// Other aggregates, seen for the first time.
    Wrong,
    /// The row was there before.
    Doubled,
    /// There is no such row.
    Invented,
}

impl Fold {
    /// Adds one record of the input.
    pub fn add(&mut self, place: Place, value: &[u8], late: &HashSet<Place>) {
        let Ok(order) = serde_json::from_slice::<Order<'_>>(value) else {
            self.broken.insert(place);
            return;
        };
        let cents = (order.amount * 100.0).round() as i64;
        if cents <= 0 || order.customer.address.country.as_deref() == Some("XX") {
            self.filtered += 1;
        } else if late.contains(&place) {
            self.late += 1;
        } else {
            self.used += 1;
            let window = self.rows.entry(order.ts.div_euclid(MINUTE) * MINUTE).or_default();
            let (totals, _) = match window.get_mut(order.user_id.as_ref()) {
                Some(row) => row,
                None => window.entry(order.user_id.into_owned()).or_default(),
            };
            totals.order_count += 1;
            totals.total_cents += cents;
            totals.largest_cents = totals.largest_cents.max(cents);
        }
    }

    /// How many rows there must be.
    pub fn len(&self) -> usize {
        self.rows.values().map(HashMap::len).sum()
    }

    /// Compares a row of the output, and remembers that it was there.
    pub fn check(&mut self, user: &str, window_start: i64, totals: &Totals) -> Match {
        match self.rows.get_mut(&window_start).and_then(|window| window.get_mut(user)) {
            None => Match::Invented,
            Some((_, true)) => Match::Doubled,
            Some((expected, seen)) => {
                *seen = true;
                if expected == totals { Match::Right } else { Match::Wrong }
            }
        }
    }

    /// How many rows were never compared: lost ones, after all output was read.
    pub fn unseen(&self) -> usize {
        self.rows.values().flat_map(HashMap::values).filter(|(_, seen)| !seen).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(user: &str, amount: &str, country: &str, ts: i64) -> Vec<u8> {
        let address = format!(r#"{{"address":{{"country":{country}}}}}"#);
        format!(r#"{{"user_id":"{user}","amount":{amount},"ts":{ts},"customer":{address}}}"#).into_bytes()
    }

    #[test]
    fn every_order_has_one_fate() {
        let mut fold = Fold::default();
        let late = HashSet::from([(0, 3)]);
        let input = [
            order("a", "1.10", "\"DE\"", 0),
            order("a", "2.20", "null", 59_999),
            order("a", "1.00", "\"XX\"", 0),
            order("a", "1.00", "null", 0),
            order("a", "-1.00", "null", 0),
            b"{\"user_id\"".to_vec(),
            order("a", "4.05", "null", 60_000),
        ];
        for (offset, value) in (0..).zip(&input) {
            fold.add((0, offset), value, &late);
        }
        assert_eq!((fold.used, fold.filtered, fold.late), (3, 2, 1));
        assert_eq!(fold.broken, HashSet::from([(0, 5)]));
        assert_eq!(fold.len(), 2);
        let first = Totals { order_count: 2, total_cents: 330, largest_cents: 220 };
        assert_eq!(fold.check("a", 0, &first), Match::Right);
        assert_eq!(fold.check("a", 0, &first), Match::Doubled);
        assert_eq!(fold.check("b", 0, &first), Match::Invented);
        assert_eq!(fold.unseen(), 1);
        assert_eq!(fold.check("a", 60_000, &first), Match::Wrong);
        assert_eq!(fold.unseen(), 0);
    }
}
