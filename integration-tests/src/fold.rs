//! What the output of a windowed pipeline has to be: the plainest fold over the input that can be written.

use std::collections::{BTreeMap, HashSet};

use crate::orders::Order;
use crate::topic::Record;

/// The windows of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// Windows that begin at fixed distances since 1970; tumbling if the two are the same.
    Fixed {
        /// Length, in milliseconds.
        size: i64,
        /// Distance between two beginnings, in milliseconds.
        every: i64,
    },
    /// Sessions of each user. (Orders are on time, or so late that no session is near: one that comes shortly after a session of its user was
    /// emitted would begin another one.)
    Sessions {
        /// The longest time between two orders of one session, in milliseconds.
        gap: i64,
    },
    /// No windows: totals of each user that go on.
    None {
        /// A user is forgotten after so long without an order, in milliseconds.
        ttl: i64,
    },
}

impl Window {
    /// One minute after the other.
    pub const TUMBLING: Window = Window::Fixed { size: 60_000, every: 60_000 };
    /// Five minutes, every minute.
    pub const HOPPING: Window = Window::Fixed { size: 300_000, every: 60_000 };
    /// Five minutes, every twenty seconds: so many panes that sums of them are kept.
    pub const FINE: Window = Window::Fixed { size: 300_000, every: 20_000 };
    /// Until a minute passes without an order.
    pub const SESSIONS: Window = Window::Sessions { gap: 60_000 };

    /// No windows; an hour is longer than any test's orders.
    pub const NONE: Window = Window::None { ttl: 3_600_000 };

    /// A user's orders by window, with its beginning and its end. Without windows those that are left at last, and the time of the last order.
    pub fn assign(self, mut orders: Vec<Order>) -> Vec<(i64, i64, Vec<Order>)> {
        match self {
            Window::Fixed { size, every } => {
                let mut windows = BTreeMap::<i64, Vec<Order>>::new();
                for order in orders {
                    let newest = order.ts.div_euclid(every) * every;
                    for start in (0..size / every).map(|back| newest - back * every) {
                        windows.entry(start).or_default().push(order.clone());
                    }
                }
                windows.into_iter().map(|(start, orders)| (start, start + size, orders)).collect()
            }
            Window::Sessions { gap } => {
                orders.sort_by_key(|order| order.ts);
                let sessions = orders.chunk_by(|before, order| order.ts - before.ts <= gap);
                sessions
                    .map(|orders| (orders[0].ts, orders[orders.len() - 1].ts + gap, orders.to_vec()))
                    .collect()
            }
            Window::None { ttl } => {
                orders.sort_by_key(|order| order.ts);
                let newest = orders.chunk_by(|before, order| order.ts - before.ts <= ttl).next_back();
                newest.map(|orders| (0, orders[orders.len() - 1].ts, orders.to_vec())).into_iter().collect()
            }
        }
    }

    /// The event time of a result: the last instant that belongs to its window.
    pub fn last_instant(self, end: i64) -> i64 {
        match self {
            Window::Fixed { .. } => end - 1,
            Window::Sessions { .. } | Window::None { .. } => end,
        }
    }

    /// The columns that say which row replaces which.
    pub fn identity(self) -> &'static str {
        match self {
            Window::Fixed { .. } | Window::Sessions { .. } => "[user_id, window_start]",
            Window::None { .. } => "user_id",
        }
    }

    /// As it is written in a pipeline file.
    pub fn yaml(self, lateness: &str) -> String {
        let window = match self {
            Window::Fixed { size, every } if size == every => format!("tumbling: {size}ms"),
            Window::Fixed { size, every } => format!("hopping: {size}ms, every: {every}ms"),
            Window::Sessions { gap } => format!("session: {gap}ms"),
            Window::None { ttl } => return format!("ttl: {ttl}ms"),
        };
        format!("window: {{ {window} }}\n    allowed_lateness: {lateness}")
    }
}

/// Where a record was read: partition and offset in the input topic.
pub type Place = (i32, i64);

/// A user and the beginning of a window, in milliseconds.
pub type Group = (String, i64);

/// The aggregates of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// End of the window, in milliseconds.
    pub end: i64,
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

    fn none(end: i64) -> Self {
        Self {
            end,
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
    let mut by_user = BTreeMap::<String, Vec<Order>>::new();
    for record in input {
        let Some(order) = Order::parse(record.value.as_deref().unwrap_or_default()) else { continue };
        if order.is_paid() && !late.contains(&(record.partition, record.offset)) {
            by_user.entry(order.user.clone()).or_default().push(order);
        }
    }
    let mut groups = BTreeMap::new();
    for (user, orders) in by_user {
        for (start, end, orders) in window.assign(orders) {
            let mut totals = Totals::none(end);
            orders.iter().for_each(|order| totals.add(order));
            groups.insert((user.clone(), start), totals);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::{Order, Window};

    fn windows(window: Window, times: &[i64]) -> Vec<(i64, i64, Vec<i64>)> {
        let order = |ts: &i64| Order { user: "u".into(), country: None, cents: 1, weight: 0.0, ts: *ts };
        let assigned = window.assign(times.iter().map(order).collect());
        let times = |orders: Vec<Order>| orders.iter().map(|order| order.ts).collect();
        assigned.into_iter().map(|(start, end, orders)| (start, end, times(orders))).collect()
    }

    #[test]
    fn an_instant_lies_in_the_windows_that_hold_it() {
        assert_eq!(windows(Window::TUMBLING, &[59_999]), [(0, 60_000, vec![59_999])]);
        assert_eq!(windows(Window::TUMBLING, &[60_000]), [(60_000, 120_000, vec![60_000])]);
        assert_eq!(windows(Window::TUMBLING, &[-1]), [(-60_000, 0, vec![-1])]);
        let hopping = windows(Window::Fixed { size: 3, every: 1 }, &[10]);
        assert_eq!(hopping, [(8, 11, vec![10]), (9, 12, vec![10]), (10, 13, vec![10])]);
    }

    #[test]
    fn a_session_lasts_while_no_gap_is_too_long() {
        let window = Window::Sessions { gap: 5 };
        assert_eq!(windows(window, &[12, 1, 6]), [(1, 11, vec![1, 6]), (12, 17, vec![12])]);
    }
}
