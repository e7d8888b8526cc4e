use proptest::prelude::*;

use super::run::Run;
use super::*;
use crate::lookup::{Key as SearchKey, parse_key};
use crate::operators::counts::Counts;

fn totals(size_ms: i64, every_ms: i64) -> Plan {
    let totals = step("totals", vec![Stream::Source(0)], orders_schema())
        .filtered(positive_amount())
        .windowed(&["user"], "amount", size_ms, every_ms, Late::DeadLetter);
    let schema = totals.output_schema.clone();
    plan(
        vec![orders("orders", OnError::DeadLetter)],
        vec![totals],
        vec![sink("totals", Stream::Step(0), schema, Key::Json(vec![0, 1]))],
    )
}

fn paid(offset: i64, time: i64, user: &str, amount: i64) -> OwnedMessage {
    order(offset, time, &format!(r#"{{"user":"{user}","amount":{amount}}}"#))
}

#[test]
fn a_window_fires_once_its_end_is_reached() {
    let mut run = Run::new(totals(100, 100), 1);
    run.process(
        0,
        vec![paid(0, 110, "a", 1), paid(1, 199, "a", 2), paid(2, 200, "a", 4), paid(3, 150, "b", 0)],
    )
    .unwrap();
    run.barrier(199).unwrap();
    assert_eq!(run.values(), [""; 0]);
    run.barrier(200).unwrap();
    assert_eq!(run.values(), [r#"{"user":"a","window_start":100,"window_end":200,"n":2,"total":3}"#]);
    assert_eq!(run.written[0].key.as_deref(), Some(r#"{"user":"a","window_start":100}"#));
    assert_eq!(run.written[0].timestamp, 199);

    run.process(0, vec![paid(4, 199, "a", 8), paid(5, 200, "a", 16)]).unwrap();
    let dead = run.dead();
    assert_eq!(dead[0].header("onceflow.reason"), Some("late"));
    assert_eq!((dead[0].header("onceflow.offset"), dead[0].timestamp), (Some("4"), 199));
    run.barrier(10_000).unwrap();
    assert_eq!(run.values()[1..], [r#"{"user":"a","window_start":200,"window_end":300,"n":2,"total":20}"#]);
    let counts = Counts { records_in: 6, used: 4, filtered: 1, late: 1, out: 2, ..Counts::default() };
    assert_eq!(run.counts(), counts);
    assert_eq!(run.workers[0].counts().dead_letters.iter().sum::<u64>(), 1);
}

/// A clock that moves on by one nanosecond whenever it is looked at.
fn ticking() -> u64 {
    thread_local!(static NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) });
    NOW.with(|now| now.replace(now.get() + 1))
}

#[test]
fn time_belongs_to_one_stage_at_a_time() {
    let mut run = Run::new(totals(100, 100), 1);
    run.workers[0].set_clock(ticking);
    let times = |run: &Run| {
        let counts = run.workers[0].counts();
        [counts.sources[0].ns, counts.steps[0].ns, counts.sinks[0].ns]
    };
    run.process(0, vec![paid(0, 110, "a", 1)]).unwrap();
    // Source, step, source again, end: three times between four looks.
    assert_eq!(times(&run), [2, 1, 0]);
    run.barrier(199).unwrap();
    assert_eq!(times(&run), [2, 1, 0]);
    // Step, sink, step again, nobody while the output is handed over.
    run.barrier(200).unwrap();
    assert_eq!(times(&run), [2, 3, 1]);
}

#[test]
fn having_holds_results_back_and_failing_ones_become_letters() {
    let mut plan = totals(100, 100);
    let condition = (lit(10i64) / (ident("total") - lit(5i64))).gt(lit(0i64));
    plan.steps = plan.steps.into_iter().map(|step| step.having(condition.clone())).collect();
    let mut run = Run::new(plan, 1);
    run.process(0, vec![paid(0, 1, "few", 1), paid(1, 1, "some", 5), paid(2, 1, "many", 6)]).unwrap();
    run.barrier(100).unwrap();
    assert_eq!(run.values(), [r#"{"user":"many","window_start":0,"window_end":100,"n":1,"total":6}"#]);
    let dead = run.dead();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        dead[0].value.as_deref(),
        Some(
            r#"{"user":"some","window_start":"1970-01-01T00:00:00.000Z","window_end":"1970-01-01T00:00:00.100Z","n":1,"total":5}"#
        )
    );
    assert_eq!(dead[0].header("onceflow.step"), Some("totals"));
    assert_eq!(dead[0].header("onceflow.window_end"), Some("100"));
    assert_eq!(dead[0].header("onceflow.offset"), None);
    assert_eq!(run.workers[0].counts().steps[0].filtered, 1);
    // Results are not records: the counts of records know nothing of them.
    assert_eq!(run.counts(), Counts { records_in: 3, used: 3, out: 1, ..Counts::default() });
}

#[test]
fn a_sum_that_does_not_fit_is_a_letter_of_its_result() {
    let mut run = Run::new(totals(100, 100), 1);
    run.process(0, vec![paid(0, 1, "big", i64::MAX), paid(1, 1, "big", 1), paid(2, 1, "ok", 1)]).unwrap();
    run.barrier(100).unwrap();
    assert_eq!(run.values().len(), 1);
    assert_eq!(run.dead()[0].header("onceflow.reason"), Some("overflow"));
    assert!(run.dead()[0].value.as_deref().unwrap().contains(r#""total":null"#));
}

#[test]
fn windows_of_windows_get_every_result_in_time() {
    let chained = || {
        let mut plan = totals(100, 100);
        let inner = plan.steps[0].output_schema.clone();
        let outer =
            step("outer", vec![Stream::Step(0)], inner).windowed(&[], "total", 300, 300, Late::DeadLetter);
        let schema = outer.output_schema.clone();
        plan.steps.push(outer);
        plan.sinks.push(sink("outer", Stream::Step(1), schema, Key::Incoming));
        plan
    };
    for workers in [1, 2] {
        let mut run = Run::new(chained(), workers);
        run.process(0, vec![paid(0, 50, "a", 1), paid(1, 150, "b", 2), paid(2, 350, "a", 4)]).unwrap();
        run.barrier(299).unwrap();
        run.process(workers - 1, vec![paid(3, 299, "a", 8)]).unwrap();
        run.barrier(300).unwrap();
        run.barrier(10_000).unwrap();
        let outer: Vec<_> = run.values().into_iter().filter(|value| !value.contains("user")).collect();
        assert_eq!(
            outer,
            [
                r#"{"window_start":0,"window_end":300,"n":3,"total":11}"#,
                r#"{"window_start":300,"window_end":600,"n":1,"total":4}"#
            ]
        );
        assert_eq!(run.dead(), Vec::<&super::run::Written>::new());
    }
}

/// What happens to a pipeline between two batches.
#[derive(Clone, Debug)]
enum Event {
    Batch { worker: usize, orders: Vec<(i64, u8, i64)> },
    Barrier,
    Evict,
    Restart { workers: usize },
}

fn some_event() -> impl Strategy<Value = Event> {
    let orders = prop::collection::vec((0i64..200, 0u8..6, -3i64..50), 1..12);
    prop_oneof![
        4 => (0usize..3, orders).prop_map(|(worker, orders)| Event::Batch { worker, orders }),
        2 => Just(Event::Barrier),
        1 => Just(Event::Evict),
        1 => (1usize..4).prop_map(|workers| Event::Restart { workers }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any history of batches, barriers, evictions and restarts at another parallelism gives the fold of the input.
    #[test]
    fn equals_a_fold(events in prop::collection::vec(some_event(), 1..25), every in 10i64..40, overlap in 1i64..4) {
        let size = every * overlap;
        let mut run = Run::new(totals(size, every), 2);
        let (mut watermark, mut purged, mut offset, mut base) = (i64::MIN, i64::MIN, 0, 1000);
        let mut counts = Counts::default();
        let mut folded: BTreeMap<(i64, String), (i64, i64)> = BTreeMap::new();
        for event in events {
            match event {
                Event::Batch { worker, orders } => {
                    let mut messages = vec![];
                    for (ahead, user, amount) in orders {
                        let time = base + ahead;
                        messages.push(paid(offset, time, &format!("u{user}"), amount));
                        offset += 1;
                        counts.records_in += 1;
                        watermark = watermark.max(time - 50);
                        // By definition: the windows that hold `time`, less those that are purged.
                        let last_start = time.div_euclid(every) * every;
                        let open: Vec<_> = (0..overlap).map(|i| last_start - i * every + size).filter(|end| *end > purged).collect();
                        match (amount > 0, open.len() as i64) {
                            (false, _) => counts.filtered += 1,
                            (true, 0) => counts.late += 1,
                            (true, windows) => {
                                counts.used += 1;
                                counts.partly_late += u64::from(windows < overlap);
                            }
                        }
                        if amount > 0 {
                            for end in open {
                                let group = folded.entry((end, format!("u{user}"))).or_default();
                                *group = (group.0 + 1, group.1 + amount);
                            }
                        }
                    }
                    base += 20;
                    let worker = worker % run.workers.len();
                    run.process(worker, messages).unwrap();
                }
                Event::Barrier => {
                    run.barrier(watermark).unwrap();
                    purged = purged.max(watermark);
                }
                Event::Evict => run.evict(),
                Event::Restart { workers } => {
                    let before = run.counts();
                    run.restart(workers);
                    prop_assert_eq!(run.counts(), Counts::default());
                    counts = minus(counts, before);
                }
            }
        }
        run.barrier(i64::MAX / 2).unwrap();
        let expected: Vec<String> = folded
            .iter()
            .map(|((end, user), (n, total))| {
                format!(r#"{{"user":"{user}","window_start":{},"window_end":{end},"n":{n},"total":{total}}}"#, end - size)
            })
            .collect();
        let mut values: Vec<_> = run.values().into_iter().map(str::to_owned).collect();
        values.sort();
        let mut expected_sorted = expected;
        expected_sorted.sort();
        prop_assert_eq!(values, expected_sorted);
        counts.out = run.counts().out;
        prop_assert_eq!(run.counts(), counts);
    }
}

/// What is left of `all` for the workers made since.
fn minus(all: Counts, before: Counts) -> Counts {
    Counts {
        records_in: all.records_in - before.records_in,
        used: all.used - before.used,
        filtered: all.filtered - before.filtered,
        late: all.late - before.late,
        partly_late: all.partly_late - before.partly_late,
        dead: 0,
        dropped: 0,
        out: 0,
    }
}

#[test]
fn a_key_is_found_in_memory_and_in_the_cold_store() {
    let plan = totals(300, 100);
    let key = |text| parse_key(&plan.steps[0].window.as_ref().unwrap().group_by, text).unwrap();
    let (a, nobody) = (key("a"), key("nobody"));
    let mut run = Run::new(plan, 2);
    let panes = |run: &Run, key: &SearchKey| -> Vec<Vec<i64>> {
        let found = run.workers.iter().map(|worker| worker.find(0, key).unwrap());
        found.map(|found| found.traces.iter().map(|trace| trace.pane).collect()).collect()
    };
    run.process(0, vec![paid(0, 110, "a", 1), paid(1, 250, "b", 1)]).unwrap();
    run.evict();
    run.process(0, vec![paid(2, 120, "a", 1)]).unwrap();
    run.process(1, vec![paid(0, 250, "a", 1), paid(1, 250, "b", 1)]).unwrap();
    assert_eq!(panes(&run, &a), [[100], [200]]);
    assert_eq!(panes(&run, &nobody), [[]; 2] as [[i64; 0]; 2]);
    run.restart(1);
    assert_eq!(panes(&run, &a), [[100, 200]]);
    run.barrier(400).unwrap();
    assert_eq!(panes(&run, &a), [[200]]);
    run.barrier(500).unwrap();
    assert_eq!(panes(&run, &a), [[]] as [[i64; 0]; 1]);
}
