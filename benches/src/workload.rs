//! The workload that speed is measured with: orders as JSON of about 139 bytes, keyed by user, up to 5 s out of order, the same for the
//! same numbers; and the answers to it, folded from the numbers and not from the records.

use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Event time of the first order: 2026-01-01, milliseconds.
const START_MS: i64 = 1_767_225_600_000;
/// Orders per second of event time.
pub const ORDERS_A_SECOND: i64 = 10_000;
/// No order is later than this, milliseconds.
pub const DISORDER_MS: i64 = 5_000;

/// What a topic is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Orders.
    pub orders: i64,
    /// Distinct users among them, at most.
    pub users: u32,
    /// Bytes by which each record is longer than it must be.
    pub padding: usize,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number, from 0.
    pub id: i64,
    /// Number of the user.
    pub user: u32,
    /// As it is written: with two decimals.
    pub amount: (u32, u32),
    /// Where it comes from.
    pub country: &'static str,
    /// Event time, milliseconds.
    pub time: i64,
}

impl Workload {
    /// All orders, in the order in which they are written.
    pub fn orders(self) -> impl Iterator<Item = Order> {
        let mut random = StdRng::seed_from_u64(7);
        (0..self.orders).map(move |id| Order {
            id,
            time: START_MS + id * 1000 / ORDERS_A_SECOND - random.random_range(0..DISORDER_MS),
            user: random.random_range(0..self.users),
            amount: (random.random_range(1..1000), random.random_range(0..100)),
            country: ["DE", "FR", "IT", "PL", "ES"][random.random_range(0..5)],
        })
    }

    /// Count and cents by user and window (its start, milliseconds): what a job with windows must answer.
    pub fn totals(self, size_ms: i64, slide_ms: i64) -> HashMap<(u32, i64), (i64, i64)> {
        let mut totals = HashMap::new();
        for order in self.orders().filter(Order::counts) {
            let mut start = order.time.div_euclid(slide_ms) * slide_ms;
            while start > order.time - size_ms {
                let total: &mut (i64, i64) = totals.entry((order.user, start)).or_default();
                total.0 += 1;
                total.1 += order.cents();
                start -= slide_ms;
            }
        }
        totals
    }

    /// The largest event time, milliseconds.
    pub fn last_ms(self) -> i64 {
        self.orders().map(|order| order.time).max().unwrap_or(START_MS)
    }
}

impl Order {
    /// What the record's key is, and the user's name in it.
    pub fn user_name(&self) -> String {
        format!("user-{:07}", self.user)
    }

    /// The record, with `padding` bytes more.
    pub fn json(&self, padding: usize) -> String {
        self.json_of(&self.user_name(), padding)
    }

    /// The same for a user of this name.
    pub fn json_of(&self, user: &str, padding: usize) -> String {
        let Order { id, time, country, amount: (whole, hundredths), .. } = self;
        let note = "x".repeat(padding);
        format!(
            r#"{{"user_id":"{user}","order_id":{id},"amount":{whole}.{hundredths:02},"country":"{country}","status":"paid","channel":"web{note}","ts":{time}}}"#
        )
    }

    /// Whether the job's filter lets it pass: more than 1, and from anywhere but XX.
    pub fn counts(&self) -> bool {
        self.amount > (1, 0)
    }

    /// The amount times a hundred, computed as the jobs do: with doubles, cut off.
    pub fn cents(&self) -> i64 {
        let (whole, hundredths) = self.amount;
        let amount: f64 = format!("{whole}.{hundredths:02}").parse().unwrap_or_default();
        (amount * 100.0) as i64
    }
}
