//! What each stage of the engine costs, without Kafka: batches of 4,096 records of the workload, one stage at a time.
//!
//! Criterion's figures are per batch; `elem/s` is records (or rows) per second. `make bench` shows them as nanoseconds per record.

use std::cell::{LazyCell, RefCell};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onceflow_benches::workload::{Order, Workload};
use onceflow_engine::config::{self, Defaults};
use onceflow_engine::formats::decode::Decoder;
use onceflow_engine::formats::json_encode::JsonEncoder;
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::output::Output;
use onceflow_engine::plan::{Plan, SinkValue};
use onceflow_engine::state::cold::{ColdError, ColdStore, MemoryColdStore, Run, RunRows, Scan};
use onceflow_engine::state::key;
use onceflow_engine::state::window_state::{Change, FrozenPane, Origin, WindowRows, WindowState};
use onceflow_engine::worker::{StepStart, Worker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records of a batch: what a worker takes from a partition at a time.
const BATCH: usize = 4096;
/// Batches that take turns, so that no cache and no branch predictor knows the next one.
const BATCHES: usize = 64;
const USERS: [(&str, u32); 3] = [("1k-users", 1_000), ("100k-users", 100_000), ("1m-users", 1_000_000)];

fn plan(pipeline: &str) -> Arc<Plan> {
    let path = format!("{}/pipelines/{pipeline}.yaml", concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let text = std::fs::read_to_string(&path).expect("a pipeline of the measurement");
    let environment = |name: &str| {
        Some(match name {
            "BENCH_PARALLELISM" => "1".to_owned(),
            "BENCH_INTERVAL" => "1s".to_owned(),
            "BENCH_BACKEND" => "memory".to_owned(),
            "BENCH_DIR" => "/nowhere".to_owned(),
            other => other.to_lowercase(),
        })
    };
    let plan = config::compile(&path, &text, &Defaults::default(), &environment);
    Arc::new(plan.unwrap_or_else(|mistakes| panic!("{mistakes}")))
}

/// Records of so many users, all of them in any run of that length, in no order; no fewer than [`BATCHES`] batches.
fn batches(users: u32) -> Vec<Vec<OwnedMessage>> {
    let batches = (2 * users as usize).div_ceil(BATCH).max(BATCHES);
    let orders = (BATCH * batches) as i64;
    let message = |order: Order| {
        // A prime that divides no number of users.
        let user = (order.id * 2_654_435_761 % i64::from(users)) as u32;
        let order = Order { user, ..order };
        OwnedMessage {
            offset: order.id,
            timestamp: order.time,
            key: Some(order.user_name().into_bytes()),
            value: Some(order.json(0).into_bytes()),
            headers: vec![],
        }
    };
    let messages: Vec<_> = Workload { orders, users, padding: 0 }.orders().map(message).collect();
    messages.chunks(BATCH).map(<[_]>::to_vec).collect()
}

fn worker(plan: &Arc<Plan>) -> Worker {
    let windows = plan.steps.iter().filter_map(|step| step.window.as_ref());
    let starts: Vec<_> = windows.map(|window| StepStart::fresh(1, window)).collect();
    Worker::new(plan.clone(), 0, 1, &starts, Arc::new(MemoryColdStore::new())).expect("a worker")
}

/// One after the other, for ever.
struct Turns<'a, T>(std::iter::Cycle<std::slice::Iter<'a, T>>);

impl<'a, T> Turns<'a, T> {
    fn of(items: &'a [T]) -> Self {
        Turns(items.iter().cycle())
    }

    fn next(&mut self) -> &'a T {
        self.0.next().expect("there are some")
    }
}

/// Bytes to columns.
fn decode(c: &mut Criterion<Cpu>) {
    let (plan, messages) = (plan("tumbling"), batches(100_000));
    let mut decoder = Decoder::new(&plan.sources[0]).expect("a decoder");
    let mut turns = Turns::of(&messages);
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("4-of-7-members", |b| {
        b.iter(|| decoder.decode(turns.next(), 0..BATCH).expect("decoded"));
    });
}

/// `where` and `select`.
fn expressions(c: &mut Criterion<Cpu>) {
    let (plan, messages) = (plan("tumbling"), batches(100_000));
    let mut decoder = Decoder::new(&plan.sources[0]).expect("a decoder");
    let rows: Vec<_> =
        messages.iter().map(|batch| decoder.decode(batch, 0..BATCH).expect("decoded").batch).collect();
    let mut turns = Turns::of(&rows);
    let mut group = c.benchmark_group("expressions");
    group.throughput(Throughput::Elements(BATCH as u64));
    let step = &plan.steps[0];
    group.bench_function("where-and-select", |b| {
        b.iter(|| {
            let rows = turns.next();
            black_box(step.filter.as_ref().map(|filter| filter.evaluate(&rows.columns)));
            for expr in step.project.iter().flatten() {
                black_box(expr.evaluate(&rows.columns));
            }
        });
    });
}

/// Group columns, arguments and event times of a batch, as the window gets them.
struct Rows {
    groups: Vec<ArrayRef>,
    arguments: Vec<Option<ArrayRef>>,
    event_time: Int64Array,
}

/// All in one window.
fn rows(plan: &Plan, users: u32) -> Vec<Rows> {
    let mut decoder = Decoder::new(&plan.sources[0]).expect("a decoder");
    let of = |batch: &Vec<OwnedMessage>| {
        let rows = decoder.decode(batch, 0..batch.len()).expect("decoded").batch;
        let cents = Int64Array::from_iter_values(0..batch.len() as i64);
        Rows {
            groups: vec![rows.columns.column(0).clone()],
            arguments: vec![None, Some(Arc::new(cents))],
            event_time: Int64Array::from(vec![1_767_225_600_000; batch.len()]),
        }
    };
    batches(users).iter().map(of).collect()
}

fn state(plan: &Plan) -> WindowState {
    let window = plan.steps.iter().find_map(|step| step.window.as_ref()).expect("a windowed step");
    let start = StepStart::fresh(1, window);
    WindowState::new(1, window, start.columns).expect("a state")
}

fn fill(state: &mut WindowState, rows: &[Rows]) {
    rows.iter().for_each(|rows| update(state, rows));
}

fn update(state: &mut WindowState, rows: &Rows) {
    state.update(&rows.groups, &rows.arguments, &rows.event_time, i64::MIN).expect("updated");
}

/// A state that has seen all of them.
fn filled(plan: &Plan, rows: &[Rows]) -> WindowState {
    let mut state = state(plan);
    fill(&mut state, rows);
    state
}

/// The time that `measured` takes, `before` each time not included.
fn timed<S>(times: u64, mut before: impl FnMut() -> S, mut measured: impl FnMut(&mut S)) -> Duration {
    let once = |_| {
        let mut state = before();
        let began = ThreadTime::now();
        measured(&mut state);
        began.elapsed()
    };
    (0..times).map(once).sum()
}

/// Rows into a table that knows their groups; what a barrier copies out, and its way back; a window's end; a sorted run.
fn windows(c: &mut Criterion<Cpu>) {
    let plan = plan("tumbling");
    for (name, users) in USERS {
        // Made only for benchmarks that are asked for.
        let rows = LazyCell::new(|| rows(&plan, users));
        let resident = LazyCell::new(|| RefCell::new(filled(&plan, &rows)));

        let mut group = c.benchmark_group("table-update");
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(name, |b| {
            let (mut state, mut turns) = (resident.borrow_mut(), Turns::of(&rows));
            b.iter(|| update(&mut state, turns.next()));
        });
        group.finish();

        let mut group = c.benchmark_group("freeze-batch");
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(name, |b| {
            let mut turns = Turns::of(&rows);
            resident.borrow_mut().freeze();
            let mut before = || update(&mut resident.borrow_mut(), turns.next());
            b.iter_custom(|times| {
                timed(times, &mut before, |()| drop(black_box(resident.borrow_mut().freeze())))
            });
        });
        group.finish();

        // From here on a row is a group.
        for name_of in ["freeze-all", "close", "sorted-run", "restore"] {
            let mut group = c.benchmark_group(name_of);
            group.throughput(Throughput::Elements(users.into()));
            group.bench_function(name, |b| match name_of {
                "freeze-all" => {
                    let fill = || fill(&mut resident.borrow_mut(), &rows);
                    b.iter_custom(|times| {
                        timed(times, fill, |()| drop(black_box(resident.borrow_mut().freeze())))
                    });
                }
                "close" => b.iter(|| close(&mut resident.borrow_mut())),
                "restore" => {
                    let frozen = filled(&plan, &rows).freeze();
                    b.iter_custom(|times| timed(times, || state(&plan), |state| restore(state, &frozen)));
                }
                _ => b.iter_custom(|times| {
                    timed(
                        times,
                        || filled(&plan, &rows),
                        |state| {
                            state.evict(&Taking, None, &mut || 1).expect("evicted");
                        },
                    )
                }),
            });
        }
    }
}

fn restore(state: &mut WindowState, frozen: &[FrozenPane]) {
    for pane in frozen {
        let (Change::Delta(rows) | Change::Whole(rows)) = &pane.change else { panic!("rows that are new") };
        let mut restore = state.begin_restore(pane.pane).expect("a pane of the step");
        restore.add(rows).expect("rows of the step");
        state.finish_restore(restore, Origin::Own).expect("restored");
    }
}

fn close(state: &mut WindowState) {
    let end = state.next_end(i64::MIN).expect("an open window");
    let partials = state.close(end, None, 0, 1).expect("closed");
    let emit = &mut |rows: WindowRows| {
        black_box(rows);
        Ok(())
    };
    state.merge(end, None, &partials, key::lanes_of(0, 1), &MemoryColdStore::new(), emit).expect("merged");
}

/// A cold store that only takes rows, so that no store is measured.
struct Taking;

impl ColdStore for Taking {
    fn ingest(&self, _: Run, rows: &mut dyn RunRows) -> Result<(), ColdError> {
        while let Some(row) = rows.next_row()? {
            black_box(row);
        }
        Ok(())
    }

    fn scan(&self, _: Run, _: Range<u16>) -> Result<Scan<'_>, ColdError> {
        Ok(Box::new(std::iter::empty()))
    }

    fn get(&self, _: Run, keys: &[(u16, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, ColdError> {
        Ok(vec![None; keys.len()])
    }

    fn remove(&self, _: Run) -> Result<(), ColdError> {
        Ok(())
    }
}

/// Rows to JSON.
fn encode(c: &mut Criterion<Cpu>) {
    let (plan, messages) = (plan("stateless"), batches(100_000));
    let mut decoder = Decoder::new(&plan.sources[0]).expect("a decoder");
    let rows: Vec<_> = messages
        .iter()
        .map(|batch| decoder.decode(batch, 0..BATCH).expect("decoded").batch.columns)
        .collect();
    let SinkValue::Json(format) = &plan.sinks[0].value else { panic!("the sink writes JSON") };
    let encoder = JsonEncoder::new(&plan.sources[0].schema, *format);
    let mut turns = Turns::of(&rows);
    let mut out = vec![];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("5-members", |b| {
        b.iter(|| {
            out.clear();
            let rows = encoder.bind(turns.next()).expect("rows of the schema");
            (0..BATCH).for_each(|row| rows.write(row, &mut out).expect("written"));
            black_box(out.len())
        });
    });
}

/// All of it: from bytes to tables, or to output.
fn whole(c: &mut Criterion<Cpu>) {
    let messages = batches(100_000);
    let mut group = c.benchmark_group("worker");
    group.throughput(Throughput::Elements(BATCH as u64));
    for name in ["tumbling", "stateless"] {
        let mut worker = worker(&plan(name));
        let mut turns = Turns::of(&messages);
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut out = Output::default();
                worker.process(0, "orders", 0, turns.next(), &mut out).expect("processed");
                out
            });
        });
    }
}

/// Time of the processor and not of the clock, so that others on the machine disturb less.
struct Cpu;

impl Measurement for Cpu {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }
    fn end(&self, began: ThreadTime) -> Duration {
        began.elapsed()
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Cpu).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(10);
    targets = decode, expressions, windows, encode, whole
}
criterion_main!(benches);
