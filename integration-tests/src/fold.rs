//! What the output of a windowed pipeline has to be: the plainest fold over the input that can be written.

use std::collections::{BTreeMap, HashSet};

use crate::orders::Order;
use crate::topic::Record;

/// Windows of `size` milliseconds that begin every `every` milliseconds since 1970; tumbling if the two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Length, in milliseconds.
    pub size: i64,
    /// Distance between two beginnings, in milliseconds.
    pub every: i64,
}

impl Window {
    /// One minute after the other.
    pub const TUMBLING: Window = Window { size: 60_000, every: 60_000 };
    /// Five minutes, every minute.
    pub const HOPPING: Window = Window { size: 300_000, every: 60_000 };

    /// The beginnings of the windows that hold the instant `ts`.
    pub fn starts(self, ts: i64) -> impl Iterator<Item = i64> {
        let newest = ts.div_euclid(self.every) * self.every;
        (0..self.size / self.every).map(move |back| newest - back * self.every)
    }

    /// As it is written in a pipeline file.
    pub fn yaml(self) -> String {
        if self.size == self.every {
            format!("{{ tumbling: {}s }}", self.size / 1000)
        } else {
            format!("{{ hopping: {}s, every: {}s }}", self.size / 1000, self.every / 1000)
        }
    }
}

/// Where a record was read: partition and offset in the input topic.
pub type Place = (i32, i64);

/// A user and the beginning of a window, in milliseconds.
pub type Group = (String, i64);

/// The aggregates of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// `count(*)`.
    pub orders: i64,
    /// `sum(cents)`.
    pub cents: i64,
    /// `min(cents)`.
    pub smallest: i64,
    /// `max(cents)`.
    pub largest: i64,
    /// `avg(cents)`.
    pub average: f64,
    /// `sum(amount)`, a decimal, in hundredths.
    pub amount: i64,
    /// `sum(weight)`, a double.
    pub weight: f64,
    /// `max(country)`, a text; missing if no order of the group had one.
    pub country: Option<String>,
}

impl Totals {
    fn add(&mut self, order: &Order) {
        self.orders += 1;
        self.cents += order.cents;
        self.smallest = self.smallest.min(order.cents);
        self.largest = self.largest.max(order.cents);
        self.average = self.cents as f64 / self.orders as f64;
        self.amount += order.cents;
        self.weight += order.weight;
        self.country = self.country.take().max(order.country.clone());
    }

    fn none() -> Self {
        Self {
            orders: 0,
            cents: 0,
            smallest: i64::MAX,
            largest: i64::MIN,
            average: 0.0,
            amount: 0,
            weight: 0.0,
            country: None,
        }
    }
}

/// The expected rows: all paid orders of the input, less those at the places in `late`.
pub fn fold(input: &[Record], late: &HashSet<Place>, window: Window) -> BTreeMap<Group, Totals> {
    let mut groups = BTreeMap::new();
    for record in input {
        let Some(order) = Order::parse(record.value.as_deref().unwrap_or_default()) else { continue };
        if !order.is_paid() || late.contains(&(record.partition, record.offset)) {
            continue;
        }
        for start in window.starts(order.ts) {
            groups.entry((order.user.clone(), start)).or_insert_with(Totals::none).add(&order);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::Window;

    #[test]
    fn an_instant_lies_in_the_windows_that_hold_it() {
        let starts = |window: Window, ts| window.starts(ts).collect::<Vec<_>>();
        assert_eq!(starts(Window::TUMBLING, 59_999), [0]);
        assert_eq!(starts(Window::TUMBLING, 60_000), [60_000]);
        assert_eq!(starts(Window::TUMBLING, -1), [-60_000]);
        assert_eq!(starts(Window { size: 3, every: 1 }, 10), [10, 9, 8]);
        assert!(
            starts(Window::HOPPING, 1_000_000)
                .iter()
                .all(|start| (0..300_000).contains(&(1_000_000 - start)))
        );
    }
}
