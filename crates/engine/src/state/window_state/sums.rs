//! Sums of neighbouring panes, so that a window of many panes adds up few tables.
//!
//! The panes of overlapping windows are added up again and again. As in a segment tree, two neighbours are added up once, two such pairs once, and
//! so on: a **block** of level `n` is 2^n panes, and begins at a multiple of that. Any window is made of two blocks of each level at most; and of
//! the blocks that a window is made of, the next one needs all but a few again. (Arasu and Widom, "Resource sharing in continuous sliding-window
//! aggregates", VLDB 2004, calls this base intervals.)
//!
//! Blocks are made when a window first needs them, are forgotten as soon as one of their panes changes, and are nothing that a snapshot knows of.
//! A block is kept only where it is smaller than what it is made of: where hardly any key is in two panes, adding them up gains nothing. All
//! together take no more memory than the panes do.

use std::collections::BTreeMap;
use std::ops::Range;

use onceflow_protocol::WindowSpec;
use onceflow_protocol::planted::{Planted, is_planted};

use super::WindowState;
use crate::state::StateError;
use crate::state::key;
use crate::state::table::GroupTable;

/// Windows of fewer panes add up those.
const MIN_PANES: i64 = 8;

/// A block is not made of more tables: they would be looked through for too long to find out whether it is worth it.
const MAX_PARTS: usize = 64;

/// Groups that are looked up for that.
const SAMPLE: usize = 64;

/// Level, and number of the first pane.
type Place = (u32, i64);

/// The blocks of a step's panes on one worker.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// What is here is the sum of its panes as they are; nothing where its halves are as good.
    blocks: BTreeMap<Place, Option<GroupTable>>,
    bytes: usize,
    /// When memory was too short, the newest pane: windows that begin with it or before make no sums.
    short_to: Option<i64>,
}

impl Sums {
    /// Bytes held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// A pane is to change.
    pub(super) fn forget(&mut self, spec: WindowSpec, pane: i64) {
        if self.blocks.is_empty() || is_planted(Planted::SumsKept) {
            return;
        }
        let number = number_of(spec, pane);
        for level in 1..i64::BITS {
            if self.blocks.range((level, i64::MIN)..).next().is_none() {
                return;
            }
            let block = self.blocks.remove(&(level, number & (-1 << level)));
            self.bytes -= block.flatten().map_or(0, |sum| sum.memory_bytes());
        }
    }

    /// Lets go of the memory that they take, for a window's length if `newest` is the newest pane. Returns the bytes freed.
    pub(super) fn let_go(&mut self, newest: Option<i64>) -> usize {
        self.blocks.retain(|_, sum| sum.is_none());
        if self.bytes > 0 {
            self.short_to = newest;
        }
        std::mem::take(&mut self.bytes)
    }

    fn keep(&mut self, place: Place, sum: Option<GroupTable>) {
        self.bytes += sum.as_ref().map_or(0, GroupTable::memory_bytes);
        self.blocks.insert(place, sum);
    }
}

impl WindowState {
    /// Makes the sums that the window that ends at `end` is made of.
    ///
    /// # Errors
    /// `TooLarge` as [`GroupTable::upsert`].
    pub(super) fn make_sums(&mut self, end: i64) -> Result<(), StateError> {
        let is_short = self.sums.short_to.is_some_and(|newest| self.spec.start(end) <= newest);
        if is_short || self.spec.size_ms() / self.spec.every_ms() < MIN_PANES {
            return Ok(());
        }
        let budget = self.pane_bytes();
        blocks(self.numbers(end)).try_for_each(|place| self.make_sum(place, budget))
    }

    fn make_sum(&mut self, place: Place, budget: usize) -> Result<(), StateError> {
        if place.0 == 0 || self.sums.blocks.contains_key(&place) || !self.has_panes(place) {
            return Ok(());
        }
        halves(place).into_iter().try_for_each(|half| self.make_sum(half, budget))?;
        if self.sums.bytes >= budget {
            return Ok(());
        }
        let mut tables = vec![];
        halves(place).into_iter().for_each(|half| self.gather(half, &mut tables));
        let mut sum = None;
        if (2..=MAX_PARTS).contains(&tables.len()) && 3.0 * distinct(&tables) <= 2.0 {
            let bytes: usize = tables.iter().map(|table| table.memory_bytes()).sum();
            let mut table = GroupTable::new(self.layout.clone())?;
            tables.into_iter().try_for_each(|part| table.merge_table(part, 0..key::LANES))?;
            sum = Some(table).filter(|sum| 3 * sum.memory_bytes() <= 2 * bytes);
        }
        self.sums.keep(place, sum);
        Ok(())
    }

    /// Whether there is anything in a block.
    fn has_panes(&self, (level, first): Place) -> bool {
        let first_behind = pane_of_number(self.spec, first + (1 << level));
        self.panes.range(pane_of_number(self.spec, first)..first_behind).next().is_some()
    }

    /// The tables that make up the window that ends at `end`, in order of time: sums where they are made, panes otherwise.
    pub(super) fn tables(&self, end: i64) -> Vec<&GroupTable> {
        let mut tables = vec![];
        blocks(self.numbers(end)).for_each(|place| self.gather(place, &mut tables));
        tables
    }

    fn gather<'t>(&'t self, place: Place, tables: &mut Vec<&'t GroupTable>) {
        match (self.sums.blocks.get(&place), place) {
            (Some(Some(sum)), _) => tables.push(sum),
            (_, (0, number)) => {
                let pane = self.panes.get(&pane_of_number(self.spec, number));
                tables.extend(pane.map(|pane| &pane.table).filter(|table| !table.is_empty()));
            }
            _ if !self.has_panes(place) => {}
            _ => halves(place).into_iter().for_each(|half| self.gather(half, tables)),
        }
    }

    /// Numbers of the panes of the window that ends at `end`.
    fn numbers(&self, end: i64) -> Range<i64> {
        number_of(self.spec, self.spec.start(end))..number_of(self.spec, end)
    }
}

/// The most tables that a window of so many panes is added up from, where the sums of neighbours are worth it.
pub fn most_tables(panes: i64) -> i64 {
    if panes < MIN_PANES { panes } else { 2 * i64::from((panes + 1).ilog2()) }
}

/// The groups of the sum of these tables, for each group of theirs; estimated from a sample. A group that is in `n` of them is one of `n`.
fn distinct(tables: &[&GroupTable]) -> f64 {
    let groups: usize = tables.iter().map(|table| table.len()).sum();
    let step = groups.div_ceil(SAMPLE).max(1);
    let (mut next, mut sampled, mut sum) = (0, 0.0, 0.0);
    for table in tables {
        while let Some(group) = table.groups().nth(next) {
            let (key, hash) = (table.key(group), table.hash(group));
            let with = tables.iter().filter(|table| table.find(key, hash).is_some()).count();
            sum += 1.0 / with.max(1) as f64;
            sampled += 1.0;
            next += step;
        }
        next -= table.len();
    }
    if sampled > 0.0 { sum / sampled } else { 1.0 }
}

/// Number of a pane; neighbours have neighbouring numbers.
fn number_of(spec: WindowSpec, pane: i64) -> i64 {
    (pane - spec.offset_ms()).div_euclid(spec.every_ms())
}

/// The pane of that number.
fn pane_of_number(spec: WindowSpec, number: i64) -> i64 {
    number * spec.every_ms() + spec.offset_ms()
}

/// The two blocks that a block of more than one pane is made of.
fn halves((level, first): Place) -> [Place; 2] {
    [(level - 1, first), (level - 1, first + (1 << (level - 1)))]
}

/// The largest blocks that these panes are made of, in order.
fn blocks(numbers: Range<i64>) -> impl Iterator<Item = Place> {
    let mut next = numbers.start;
    std::iter::from_fn(move || {
        let left = u64::try_from(numbers.end - next).ok().filter(|left| *left > 0)?;
        let place = (next.trailing_zeros().min(left.ilog2()), next);
        next += 1 << place.0;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::DataType;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::AggregateFunction::Count;
    use crate::state::aggregate::AggregateSpec;
    use crate::state::cold::MemoryColdStore;
    use crate::state::table::Layout;

    /// Windows of 64 panes of ten milliseconds that count rows by key.
    fn state() -> WindowState {
        let count = AggregateSpec { function: Count, argument: DataType::Null, result: DataType::Int64 };
        let layout = Layout::new(vec![DataType::Int64], vec![count]).unwrap();
        WindowState::with_layout(1, WindowSpec::hopping(640, 10).unwrap(), Arc::new(layout))
    }

    fn add(state: &mut WindowState, keys: Range<i64>, time: i64) {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
        let times = Int64Array::from_iter_values(keys.map(|_| time));
        state.update(&[column], &[None], &times, i64::MIN).unwrap();
    }

    /// Groups in the tables that the window that ends at `end` is added up from, and the number of those.
    fn cost(state: &mut WindowState, end: i64) -> (usize, usize) {
        state.close(end, None, 0, 1).unwrap();
        let tables = state.tables(end);
        (tables.iter().map(|table| table.len()).sum(), tables.len())
    }

    #[test]
    fn windows_of_keys_that_recur_are_added_up_from_few_tables() {
        let mut state = state();
        for pane in 1..=200 {
            add(&mut state, 0..100, pane * 10);
        }
        for end in (650..1_900).step_by(10) {
            let (groups, tables) = cost(&mut state, end);
            assert!(
                tables as i64 <= most_tables(64) && groups == 100 * tables,
                "{end}: {groups} in {tables}"
            );
        }
        let (panes, sums) = (state.pane_bytes(), state.sums.memory_bytes());
        assert!(sums > 0 && sums <= panes + panes / 8, "{sums} beside {panes}");
        // A row that comes late is in every window that is added up after it.
        add(&mut state, 0..1, 1_500);
        let sum_of = |state: &mut WindowState, end| {
            let mut merged = GroupTable::new(state.layout.clone()).unwrap();
            state.close(end, None, 0, 1).unwrap();
            state.tables(end).into_iter().for_each(|table| merged.merge_table(table, 0..key::LANES).unwrap());
            merged
        };
        let late = sum_of(&mut state, 1_900);
        state.let_go();
        let mut rows = [Default::default(), Default::default()];
        for (rows, table) in rows.iter_mut().zip([late, sum_of(&mut state, 1_900)]) {
            table.sorted(0..key::LANES).into_iter().for_each(|group| table.encode_row(group, rows));
        }
        assert_eq!(rows[0], rows[1]);
        state.purge(2_010 + 640, &MemoryColdStore::new()).unwrap();
        assert_eq!((state.sums.memory_bytes(), state.sums.blocks.len()), (0, 0));
    }

    #[test]
    fn nothing_is_kept_of_keys_that_do_not_recur_and_when_memory_is_short() {
        let mut state = state();
        for pane in 1..=64 {
            add(&mut state, pane * 10..pane * 10 + 10, pane * 10);
        }
        assert_eq!(cost(&mut state, 650), (640, 64));
        assert_eq!(state.sums.memory_bytes(), 0);

        for pane in 1..=64 {
            add(&mut state, 0..1_000, pane * 10);
        }
        assert!(cost(&mut state, 650).1 <= 12);
        let held = state.memory_bytes();
        let freed = state.let_go();
        assert!(freed > 0 && state.memory_bytes() == held - freed);
        assert_eq!(cost(&mut state, 650).1, 64, "memory is as short as before");
        assert_eq!(cost(&mut state, 1_280).1, 1);
        add(&mut state, 0..1_000, 650);
        assert_eq!(cost(&mut state, 1_280).1, 2, "a window that begins with the newest pane of then");
        add(&mut state, 0..1_000, 660);
        add(&mut state, 0..1_000, 670);
        assert_eq!(cost(&mut state, 1_300).1, 1);
    }

    #[test]
    fn keys_that_recur_after_a_while_are_added_up_over_that_while() {
        let mut state = state();
        // Every key comes each eighth pane.
        for pane in 1..=128 {
            add(&mut state, pane % 8 * 100..pane % 8 * 100 + 100, pane * 10);
        }
        let (groups, tables) = cost(&mut state, 650);
        assert!(groups < 4_000 && tables < 40, "{groups} in {tables}");
        assert_eq!(distinct(&state.tables(90)[..1]), 1.0);
        let all: Vec<&GroupTable> = state.panes.values().take(16).map(|pane| &pane.table).collect();
        assert_eq!(distinct(&all), 0.5);
        assert_eq!(distinct(&[]), 1.0);
    }

    proptest! {
        #[test]
        fn blocks_are_neighbours_and_few(first in -5_000i64..5_000, panes in 0i64..5_000) {
            let blocks: Vec<Place> = blocks(first..first + panes).collect();
            let mut next = first;
            for (level, begins) in &blocks {
                prop_assert_eq!(*begins, next);
                prop_assert_eq!(begins.rem_euclid(1 << level), 0);
                next += 1 << level;
            }
            prop_assert_eq!(next, first + panes);
            prop_assert!(blocks.len() as i64 <= 2 * i64::from((panes + 1).ilog2()));
        }
    }
}
