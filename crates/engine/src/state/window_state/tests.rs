//! Window state against a plain map from pane and group to the rows themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use arrow::array::types::{Decimal128Type, Int64Type};
use arrow::array::{AsArray, Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;
use crate::plan::AggregateFunction::{Avg, Count, Max, Min, Sum};
use crate::state::aggregate::AggregateSpec;
use crate::state::cold::{BorrowedRow, ColdError, MemoryColdStore, RunRows, Scan};
use crate::state::extents::{LiveExtents, PaneId, WrittenChange, WrittenPane};
use crate::state::segment::{SegmentWriter, read_extent, read_footer};

type Group = (Option<String>, i64);

#[derive(Clone, Debug)]
struct Row {
    time: i64,
    group: Group,
    amount: Option<i64>,
    text: Option<String>,
}

/// Results of one group: count(*), count(amount), sum(amount) or failed, avg(cents), min(text), max(amount).
#[derive(Clone, Debug, PartialEq)]
struct Out {
    count: i64,
    counted: i64,
    sum: Option<i64>,
    failed: bool,
    avg: Option<i128>,
    min: Option<String>,
    max: Option<i64>,
}

type Windows = BTreeMap<(i64, Group), Out>;

fn layout() -> Arc<Layout> {
    let cents = DataType::Decimal128(30, 2);
    let spec = |function, argument: &DataType, result: &DataType| AggregateSpec {
        function,
        argument: argument.clone(),
        result: result.clone(),
    };
    let aggregates = vec![
        spec(Count, &DataType::Null, &DataType::Int64),
        spec(Count, &DataType::Int64, &DataType::Int64),
        spec(Sum, &DataType::Int64, &DataType::Int64),
        spec(Avg, &cents, &DataType::Decimal128(34, 6)),
        spec(Min, &DataType::Utf8, &DataType::Utf8),
        spec(Max, &DataType::Int64, &DataType::Int64),
    ];
    Arc::new(Layout::new(vec![DataType::Utf8, DataType::Int64], aggregates).unwrap())
}

fn update(state: &mut WindowState, rows: &[Row], purged: i64) -> Updated {
    let amounts: ArrayRef = Arc::new(rows.iter().map(|row| row.amount).collect::<Int64Array>());
    let cents = rows.iter().map(|row| row.amount.map(i128::from)).collect::<Decimal128Array>();
    let cents: ArrayRef = Arc::new(cents.with_precision_and_scale(30, 2).unwrap());
    let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.text.as_deref()).collect::<StringArray>());
    let groups: [ArrayRef; 2] = [
        Arc::new(rows.iter().map(|row| row.group.0.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(row.group.1)).collect::<Int64Array>()),
    ];
    let times = rows.iter().map(|row| Some(row.time)).collect::<Int64Array>();
    let arguments =
        [None, Some(amounts.clone()), Some(amounts.clone()), Some(cents), Some(texts), Some(amounts)];
    state.update(&groups, &arguments, &times, purged).unwrap()
}

fn collect(rows: &WindowRows, windows: &mut Windows) {
    let count = rows.groups[0].len();
    assert!(count > 0 && count <= 4096);
    let long = |at: usize, row: usize| {
        let column = rows.aggregates[at].as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let failed: BTreeSet<u32> = rows.failed.iter().map(|(row, _)| *row).collect();
    let text = |column: &ArrayRef, row: usize| {
        column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned())
    };
    for row in 0..count {
        let group = (text(&rows.groups[0], row), rows.groups[1].as_primitive::<Int64Type>().value(row));
        let avg = rows.aggregates[3].as_primitive::<Decimal128Type>();
        let out = Out {
            count: long(0, row).unwrap(),
            counted: long(1, row).unwrap(),
            sum: long(2, row),
            failed: failed.contains(&(row as u32)),
            avg: avg.is_valid(row).then(|| avg.value(row)),
            min: text(&rows.aggregates[4], row),
            max: long(5, row),
        };
        let Bounds::One { end, .. } = rows.bounds else { panic!("no session") };
        assert!(windows.insert((end, group), out).is_none(), "a group came twice");
    }
}

/// What a window must say of a group's rows.
fn fold(rows: &[&Row]) -> Out {
    let amounts: Vec<i64> = rows.iter().filter_map(|row| row.amount).collect();
    let sum: i128 = amounts.iter().map(|&amount| i128::from(amount)).sum();
    let count = amounts.len() as i128;
    let fits = i64::try_from(sum).ok().filter(|_| count > 0);
    let mean = || (2 * sum.abs() * 10_000 + count) / (2 * count) * sum.signum();
    Out {
        count: rows.len() as i64,
        counted: amounts.len() as i64,
        sum: fits,
        failed: count > 0 && fits.is_none(),
        avg: (count > 0).then(mean),
        min: rows.iter().filter_map(|row| row.text.clone()).min(),
        max: amounts.iter().copied().max(),
    }
}

/// Workers of one step, their store, and beside them the model.
struct World {
    spec: WindowSpec,
    workers: Vec<WindowState>,
    cold: MemoryColdStore,
    generation: u64,
    purged: i64,
    epoch: u32,
    live: LiveExtents,
    files: BTreeMap<String, Vec<u8>>,
    model: BTreeMap<i64, Vec<Row>>,
    snapshot: Snapshot,
}

/// What a barrier leaves behind.
#[derive(Default)]
struct Snapshot {
    workers: usize,
    runs: Vec<(usize, i64, Vec<Run>)>,
    cold: MemoryColdStore,
    live: LiveExtents,
    model: BTreeMap<i64, Vec<Row>>,
    purged: i64,
}

/// Copies a run row by row.
struct Copied<'a>(Scan<'a>, Option<crate::state::cold::ColdRow>);

impl RunRows for Copied<'_> {
    fn next_row(&mut self) -> Result<Option<BorrowedRow<'_>>, ColdError> {
        self.1 = self.0.next().transpose()?;
        Ok(self.1.as_ref().map(|row| (row.lane, row.key.as_slice(), row.state.as_slice())))
    }
}

fn copy_runs(from: &MemoryColdStore, runs: &[(usize, i64, Vec<Run>)]) -> MemoryColdStore {
    let copy = MemoryColdStore::new();
    for &run in runs.iter().flat_map(|(_, _, runs)| runs) {
        copy.ingest(run, &mut Copied(from.scan(run, 0..key::LANES).unwrap(), None)).unwrap();
    }
    copy
}

impl World {
    fn new(spec: WindowSpec, workers: usize) -> World {
        let mut world = World {
            spec,
            workers: vec![],
            cold: MemoryColdStore::new(),
            generation: 0,
            purged: i64::MIN,
            epoch: 0,
            live: LiveExtents::default(),
            files: BTreeMap::new(),
            model: BTreeMap::new(),
            snapshot: Snapshot { workers, purged: i64::MIN, ..Snapshot::default() },
        };
        world.restart(workers);
        world
    }

    fn batch(&mut self, worker: usize, rows: &[Row]) {
        let worker = worker % self.workers.len();
        let mut expected = Updated::default();
        for (at, row) in rows.iter().enumerate() {
            let (every, offset) = (self.spec.every_ms(), self.spec.offset_ms());
            let pane = (row.time - offset).div_euclid(every) * every + offset;
            if self.spec.last_end(pane) <= self.purged {
                expected.late.push(at as u32);
                continue;
            }
            expected.partly_late += u64::from(self.spec.first_end(pane) <= self.purged);
            expected.used += 1;
            self.model.entry(pane).or_default().push(row.clone());
        }
        assert_eq!(update(&mut self.workers[worker], rows, self.purged), expected);
    }

    fn let_go(&mut self, worker: usize) {
        let worker = worker % self.workers.len();
        self.workers[worker].let_go();
    }

    fn evict(&mut self, worker: usize) {
        let worker = worker % self.workers.len();
        let generation = &mut self.generation;
        let mut next = || {
            *generation += 1;
            *generation
        };
        let before = self.workers[worker].groups();
        let freed = self.workers[worker].evict(&self.cold, None, &mut next).unwrap();
        assert_eq!(freed > 0, before > 0);
        assert_eq!(self.workers[worker].groups() < before, before > 0);
    }

    fn expected(&self, purged: i64) -> Windows {
        let mut ends: BTreeSet<i64> = BTreeSet::new();
        for &pane in self.model.keys() {
            let mut end = self.spec.first_end(pane);
            while end <= self.spec.last_end(pane) {
                ends.insert(end);
                end += self.spec.every_ms();
            }
        }
        let mut windows = Windows::new();
        for end in ends.into_iter().filter(|end| *end > self.purged && *end <= purged) {
            let mut groups: BTreeMap<Group, Vec<&Row>> = BTreeMap::new();
            for row in self.model.range(self.spec.start(end)..end).flat_map(|(_, rows)| rows) {
                groups.entry(row.group.clone()).or_default().push(row);
            }
            windows.extend(groups.into_iter().map(|(group, rows)| ((end, group), fold(&rows))));
        }
        windows
    }

    /// Fires, purges, freezes, and writes a real segment.
    fn barrier(&mut self, purged: i64) {
        let purged = purged.max(self.purged);
        let count = self.workers.len();
        let mut fired = Windows::new();
        let mut frontier = self.purged;
        while let Some(end) = self.workers.iter().filter_map(|state| state.next_end(frontier)).min()
            && end <= purged
        {
            frontier = end;
            let closed: Vec<Vec<Partials>> = self
                .workers
                .iter_mut()
                .enumerate()
                .map(|(at, state)| state.close(end, None, at, count).unwrap())
                .collect();
            for (owner, state) in self.workers.iter_mut().enumerate() {
                let partials: Vec<Partials> = closed.iter().map(|owners| owners[owner].clone()).collect();
                let lanes = key::lanes_of(owner, count);
                let mut emit = |rows: WindowRows| {
                    collect(&rows, &mut fired);
                    Ok(())
                };
                state.merge(end, None, &partials, lanes, &self.cold, &mut emit).unwrap();
            }
        }
        assert_eq!(fired, self.expected(purged));
        self.purged = purged;
        self.model.retain(|&pane, _| self.spec.last_end(pane) > purged);

        self.epoch += 1;
        let mut runs = vec![];
        let mut panes = vec![];
        let mut writer = SegmentWriter::new(vec![]).unwrap();
        let rewrites = self.live.mostly_dead();
        for (at, state) in self.workers.iter_mut().enumerate() {
            state.purge(purged, &self.cold).unwrap();
            for id in rewrites.iter().filter(|id| usize::from(id.worker) == at) {
                state.rewrite(id.pane);
            }
            for frozen in state.freeze() {
                let change = match frozen.change {
                    Change::Unchanged => WrittenChange::Unchanged,
                    Change::Delta(rows) => WrittenChange::Delta(writer.write_extent(&rows).unwrap()),
                    Change::Whole(rows) if rows.is_empty() => WrittenChange::Whole(None),
                    Change::Whole(rows) => WrittenChange::Whole(Some(writer.write_extent(&rows).unwrap())),
                };
                panes.push(WrittenPane {
                    id: PaneId { step: 7, pane: frozen.pane, worker: at as u16 },
                    change,
                });
                runs.push((at, frozen.pane, frozen.runs));
            }
        }
        let name = format!("segment-{}", self.epoch);
        self.live = self.live.after(&name, &panes);
        let manifest = serde_json::to_vec(&self.live).unwrap();
        self.files.insert(name, writer.finish(&manifest).unwrap().0);
        let used: BTreeSet<String> = self.live.files().map(str::to_owned).collect();
        self.files.retain(|file, _| used.contains(file));
        if count == 1 {
            let every = self.spec.every_ms();
            let spec = self.spec;
            let ends_of = |&pane: &i64| {
                let all = (1..=spec.size_ms() / every).map(move |i| pane + i * every);
                all.filter(move |end| *end <= spec.last_end(pane))
            };
            let ends: BTreeSet<i64> =
                self.model.keys().flat_map(ends_of).filter(|end| *end > purged).collect();
            assert_eq!(self.workers[0].open_windows(purged), ends.len() as u64);
        }
        self.snapshot = Snapshot {
            workers: count,
            cold: copy_runs(&self.cold, &runs),
            runs,
            live: self.live.clone(),
            model: self.model.clone(),
            purged,
        };
    }

    /// Loses everything since the last barrier and starts again from files.
    fn restart(&mut self, workers: usize) {
        let snapshot = &self.snapshot;
        let origin = if workers == snapshot.workers { Origin::Own } else { Origin::Other };
        self.workers = (0..workers).map(|_| WindowState::with_layout(7, self.spec, layout())).collect();
        for (id, extents) in snapshot.live.panes() {
            let state = &mut self.workers[usize::from(id.worker) % workers];
            let mut restore = state.begin_restore(id.pane).unwrap();
            for extent in extents {
                let mut file = Cursor::new(&self.files[&extent.file]);
                read_footer(&mut file).unwrap();
                restore.add(&read_extent(&mut file, &extent.location).unwrap()).unwrap();
            }
            state.finish_restore(restore, origin).unwrap();
        }
        for (worker, pane, runs) in &snapshot.runs {
            self.workers[worker % workers].restore_cold(*pane, runs).unwrap();
        }
        self.cold = copy_runs(&snapshot.cold, &snapshot.runs);
        self.live = snapshot.live.clone();
        self.model = snapshot.model.clone();
        self.purged = snapshot.purged;
    }
}

#[derive(Clone, Debug)]
enum Op {
    Batch(usize, Vec<Row>),
    Evict(usize),
    LetGo(usize),
    Barrier(i64),
    Crash(usize),
}

fn row() -> impl Strategy<Value = Row> {
    let text = prop::sample::select(vec!["", "a", "b", "a\0", "longer than the others"]);
    let amount = prop_oneof![8 => -100i64..100, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let any = (prop::option::weighted(0.9, text.clone().prop_map(str::to_owned)), 0i64..4);
    // One is in many panes.
    let group = prop_oneof![any, Just((None, 0))];
    (1i64..120, group, prop::option::weighted(0.8, amount), prop::option::of(text.prop_map(str::to_owned)))
        .prop_map(|(time, group, amount, text)| Row { time, group, amount, text })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0usize..3, prop::collection::vec(row(), 0..30)).prop_map(|(worker, rows)| Op::Batch(worker, rows)),
        3 => (0usize..3).prop_map(Op::Evict),
        1 => (0usize..3).prop_map(Op::LetGo),
        3 => (-10i64..140).prop_map(Op::Barrier),
        2 => (1usize..4).prop_map(Op::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn windows_are_the_fold_of_their_rows(
        (every, slices) in prop::sample::select(vec![(20, 1), (5, 4), (10, 2), (7, 3), (3, 8), (2, 21)]),
        cumulative: bool,
        offset in prop_oneof![Just(0), 0i64..20],
        workers in 1usize..4,
        ops in prop::collection::vec(op(), 0..40),
    ) {
        let new = if cumulative { WindowSpec::cumulative } else { WindowSpec::hopping };
        let mut world = World::new(new(every * slices, every).unwrap().shifted(offset), workers);
        for op in ops {
            match op {
                Op::Batch(worker, rows) => world.batch(worker, &rows),
                Op::Evict(worker) => world.evict(worker),
                Op::LetGo(worker) => world.let_go(worker),
                Op::Barrier(purged) => world.barrier(purged),
                Op::Crash(workers) => world.restart(workers),
            }
        }
        world.barrier(1_000);
        prop_assert!(world.model.is_empty());
        prop_assert!(world.workers.iter().all(|state| state.groups() == 0 && state.next_end(i64::MIN).is_none()));
        prop_assert_eq!(world.files.len(), 0);
    }
}

fn rows(groups: std::ops::Range<i64>, time: i64) -> Vec<Row> {
    let row = |n| Row { time, group: (Some(format!("user {n}")), n), amount: Some(n), text: None };
    groups.map(row).collect()
}

#[test]
fn large_windows_come_in_chunks() {
    for workers in 1..=3 {
        for evictions in [0, 1, 6] {
            let mut world = World::new(WindowSpec::tumbling(100).unwrap(), workers);
            for round in 0..=evictions {
                for worker in 0..workers as i64 {
                    let groups = 1_000 * (round + worker)..1_000 * (round + worker) + 9_000;
                    world.batch(worker as usize, &rows(groups, 5));
                    if round < evictions {
                        world.evict(worker as usize);
                        assert!(world.workers[worker as usize].panes[&0].runs.len() <= MAX_RUNS);
                    }
                }
            }
            world.barrier(50);
            world.restart(workers);
            world.barrier(100);
        }
    }
}

#[test]
fn a_freeze_costs_what_changed_until_the_extents_outgrow_the_table() {
    let mut state = WindowState::with_layout(7, WindowSpec::tumbling(100).unwrap(), layout());
    let mut frozen = |groups: std::ops::Range<i64>| {
        update(&mut state, &rows(groups, 5), i64::MIN);
        match state.freeze().remove(0).change {
            Change::Unchanged => "unchanged".to_owned(),
            Change::Delta(rows) => format!("delta of {}", rows.count),
            Change::Whole(rows) => format!("whole of {}", rows.count),
        }
    };
    assert_eq!(frozen(0..1000), "delta of 1000");
    assert_eq!(frozen(0..0), "unchanged");
    assert_eq!(frozen(10..20), "delta of 10");
    assert_eq!(frozen(990..1500), "delta of 510");
    assert_eq!(frozen(0..1500), "delta of 1500");
    assert_eq!(frozen(0..1500), "whole of 1500");
    assert_eq!(frozen(3..4), "delta of 1");
    assert_eq!(frozen(0..0), "unchanged");
}

#[test]
fn damaged_rows_are_refused() {
    let mut state = WindowState::with_layout(7, WindowSpec::tumbling(100).unwrap(), layout());
    update(&mut state, &rows(0..3, 5), i64::MIN);
    let Change::Delta(whole) = state.freeze().remove(0).change else { panic!("no delta") };
    for at in 0..whole.bytes.len() {
        let mut rows = whole.clone();
        rows.bytes.truncate(at);
        let mut restore = state.begin_restore(0).unwrap();
        assert!(matches!(restore.add(&rows), Err(StateError::Damaged(_))), "cut off at {at}");
    }
    let other = Run { step: 8, pane: 0, generation: 1 };
    assert!(matches!(state.restore_cold(0, &[other]), Err(StateError::Bug(_))));
}

#[test]
fn what_emit_and_the_store_report_comes_through() {
    let mut world = World::new(WindowSpec::tumbling(100).unwrap(), 1);
    world.batch(0, &rows(0..3, 5));
    let refused = StateError::TooLarge("enough".into());
    let partials = world.workers[0].close(100, None, 0, 1).unwrap();
    let result = world.workers[0]
        .merge(100, None, &partials, 0..key::LANES, &world.cold, &mut |_| Err(refused.clone()));
    assert_eq!(result, Err(refused));
    world.evict(0);
    let partials = world.workers[0].close(100, None, 0, 1).unwrap();
    let empty = MemoryColdStore::new();
    let result = world.workers[0].merge(100, None, &partials, 0..key::LANES, &empty, &mut |_| Ok(()));
    assert!(matches!(result, Err(StateError::Damaged(_))));
}

#[test]
fn columns_that_do_not_fit_are_a_bug() {
    let mut state = WindowState::with_layout(7, WindowSpec::tumbling(100).unwrap(), layout());
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let times = Int64Array::from(vec![1]);
    let result = state.update(std::slice::from_ref(&column), &[], &times, 0);
    assert!(matches!(result, Err(StateError::Bug(_))), "{result:?}");
    let far = Int64Array::from(vec![i64::MAX, 1]);
    let result = state.update(&[column.clone(), column], &[], &far, 0);
    assert!(matches!(result, Err(StateError::Bug(_))), "{result:?}");
}

/// Counts by one group column over tumbling windows of 10, and sums where the layout has them.
fn totals(columns: Vec<StateColumn>) -> WindowState {
    let spec = |function, argument| AggregateSpec { function, argument, result: DataType::Int64 };
    let planned = [spec(Sum, DataType::Int64), spec(Count, DataType::Null)];
    let planned = if columns.len() == 1 { &planned[1..] } else { &planned };
    let layout = Layout::with_columns(vec![DataType::Int64], planned, columns).unwrap();
    WindowState::with_layout(7, WindowSpec::tumbling(10).unwrap(), Arc::new(layout))
}

fn add(state: &mut WindowState, rows: &[(i64, i64)], sums: bool) {
    let groups: [ArrayRef; 1] = [Arc::new(rows.iter().map(|_| Some(1)).collect::<Int64Array>())];
    let amounts: ArrayRef = Arc::new(rows.iter().map(|(_, amount)| Some(*amount)).collect::<Int64Array>());
    let times = rows.iter().map(|(time, _)| Some(*time)).collect::<Int64Array>();
    let arguments = if sums { vec![Some(amounts), None] } else { vec![None] };
    state.update(&groups, &arguments, &times, i64::MIN).unwrap();
}

#[test]
fn an_added_aggregate_is_known_from_the_first_window_that_opened_after_it() {
    for evicted in [false, true] {
        let cold = MemoryColdStore::default();
        // Before: `n: count(*)`. After: `total: sum(amount)` stands before it in the file.
        let mut before = totals(StateColumn::planned(1));
        add(&mut before, &[(3, 100), (4, 100), (15, 100)], false);
        let mut generation = 0;
        let mut next_generation = || {
            generation += 1;
            generation
        };
        while evicted && before.evict(&cold, None, &mut next_generation).unwrap() > 0 {}
        let frozen = before.freeze();
        let count = StateColumn { aggregate: 1, since: i64::MIN };
        let mut after = totals(vec![count, StateColumn { aggregate: 0, since: 20 }]);
        for FrozenPane { pane, change, runs } in frozen {
            let mut restore = after.begin_restore(pane).unwrap();
            if let Change::Delta(rows) | Change::Whole(rows) = change {
                restore.add(&rows).unwrap();
            }
            after.finish_restore(restore, Origin::Own).unwrap();
            after.restore_cold(pane, &runs).unwrap();
        }
        add(&mut after, &[(5, 1), (25, 2), (26, 3)], true);
        let mut seen = vec![];
        for end in [10, 20, 30] {
            let partials = after.close(end, None, 0, 1).unwrap();
            let mut emit = |rows: WindowRows| {
                let of = |at: usize| {
                    let column = rows.aggregates[at].as_primitive::<Int64Type>();
                    column.is_valid(0).then(|| column.value(0))
                };
                seen.push((end, of(0), of(1)));
                Ok(())
            };
            after.merge(end, None, &partials, 0..key::LANES, &cold, &mut emit).unwrap();
        }
        assert_eq!(seen, [(10, None, Some(3)), (20, None, Some(1)), (30, Some(5), Some(2))], "{evicted}");
    }
}

#[test]
fn columns_must_be_the_plans_aggregates() {
    let count = || AggregateSpec { function: Count, argument: DataType::Null, result: DataType::Int64 };
    let column = |aggregate| StateColumn { aggregate, since: i64::MIN };
    for columns in [vec![], vec![column(1)], vec![column(0), column(0)]] {
        assert!(Layout::with_columns(vec![], &[count()], columns).is_err());
    }
}
