//! Deduplication under kill -9, again and again, while orders come that came before, in any partition: of those no further apart than
//! `within` one is in the output, as it came.

use std::path::{Path, PathBuf};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::repeats::Repeats;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Isolation, Live, read_all};
use onceflow_integration_tests::unique::{Promise, Verdict, verify_unique};

use crate::kills::{KILLS, kill_again_and_again, rescale};

/// How far the watermark of [`Scenario::source`] is behind, in milliseconds.
const DELAY_MS: i64 = 5_000;
/// Deaths between the sends and the commit: they leave rows that only a reader without transactions sees.
const POINTS: [&str; 3] = ["after-decision:2", "after-commit:2", "after-decision:3"];

/// A pipeline that lets each order through once.
struct Case {
    within_ms: i64,
    lateness_ms: i64,
    /// Bytes in an order's id.
    id_length: usize,
    settings: Settings,
}

impl Case {
    fn new(within_ms: i64, lateness_ms: i64, parallelism: u32) -> Case {
        let settings = Settings { parallelism, ..Settings::default() };
        Case { within_ms, lateness_ms, id_length: 10, settings }
    }

    fn promise(&self) -> Promise {
        Promise { within_ms: self.within_ms, slack_ms: DELAY_MS + self.lateness_ms }
    }

    /// 5,000 orders a second, and ten seconds of event time with them.
    fn load(&self, scenario: &Scenario, seed: u64) -> Live {
        let Promise { within_ms, slack_ms } = self.promise();
        let orders = Repeats {
            seed,
            within_ms,
            disorder_ms: slack_ms,
            id_length: self.id_length,
            ..Repeats::default()
        };
        Live::start(scenario.kafka, &scenario.input(), 5_000, orders.endless())
    }

    fn write(&self, scenario: &Scenario, parallelism: u32) -> PathBuf {
        let settings = Settings { parallelism, ..self.settings.clone() };
        let text = scenario.preamble(&settings)
            + &scenario.source(&settings)
            + &format!(
                "steps:
  unique:
    from: orders
    set: {{ at_partition: _partition, at_offset: _offset }}
    deduplicate: {{ key: [order_id], within: {}ms }}
    allowed_lateness: {}ms
    late: dead_letter
sinks:
  once: {{ from: unique, topic: {}, format: json }}
",
                self.within_ms,
                self.lateness_ms,
                scenario.output()
            );
        scenario.write("pipeline.yaml", &text)
    }

    fn check(&self, name: &str, seed: u64, evicts: bool) {
        let scenario = Scenario::new(name);
        scenario.create_topics(4);
        let file = self.write(&scenario, self.settings.parallelism);
        let live = self.load(&scenario, seed);
        Daemon::die_at(&scenario, &file, &POINTS);
        let evicted = kill_again_and_again(&scenario, &file, seed);
        live.stop();
        self.settle(&scenario, &file);
        assert!(
            !evicts || evicted,
            "no pane was ever evicted: the budget of {} was never reached",
            self.settings.memory
        );
        // What a reader without transactions sees: rows of epochs that were read again.
        let all = read_all(scenario.kafka, &scenario.output(), Isolation::Uncommitted).len();
        let committed = scenario.committed(&scenario.output()).len();
        println!("{name}: {} more than {KILLS} kills, {} aborted rows", POINTS.len(), all - committed);
        assert!(all > committed, "no kill ever hit an open transaction");
    }

    /// Comes to the end of the input, and judges all of it.
    fn settle(&self, scenario: &Scenario, file: &Path) {
        Daemon::run_until_end(scenario, file);
        let verdict = verify_unique(scenario, self.promise());
        println!("{}: {verdict:?}, {} decisions", scenario.name, scenario.decisions().len());
        assert_telling(&verdict);
    }
}

/// Everything that could go wrong had many chances to.
fn assert_telling(verdict: &Verdict) {
    let Verdict { kept, dropped, across_partitions, across_starts, at_limit, before, beyond_limit, .. } =
        *verdict;
    assert!(kept > 5_000 && dropped > 2_000 && across_partitions > 1_000, "{verdict:?}");
    assert!(at_limit > 200 && beyond_limit > 200, "{verdict:?}");
    assert!(across_starts > 50 && before > 20, "{verdict:?}");
    // Far late ones are one in two hundred, and those that are a little late hardly more: never a good part of all.
    assert!(verdict.broken > 20 && (50..verdict.input / 10).contains(&verdict.late), "{verdict:?}");
}

#[test]
fn with_one_worker() {
    Case::new(4_000, 0, 1).check("deduplicate-with-one-worker", 41, false);
}

#[test]
fn with_two_workers() {
    Case::new(10_000, 10_000, 2).check("deduplicate-with-two-workers", 42, false);
}

/// Long ids, remembered for long, and a budget that is reached all the time: panes go to RocksDB, and rows are looked up there.
#[cfg(feature = "rocksdb")]
#[test]
fn evicting_with_two_workers() {
    let case = Case::new(30_000, 30_000, 2);
    let settings = Settings { memory: "4MiB", ..case.settings };
    Case { id_length: 160, settings, ..case }.check("evicting-deduplicate-with-two-workers", 43, true);
}

/// What each worker has kept is remembered, whoever has its partitions after the next start.
#[test]
fn the_number_of_workers_changes_between_starts() {
    let case = Case::new(10_000, 10_000, 1);
    let scenario = Scenario::new("deduplicate-rescaled");
    scenario.create_topics(4);
    let live = case.load(&scenario, 44);
    let file = rescale(&scenario, |parallelism| case.write(&scenario, parallelism));
    live.stop();
    case.settle(&scenario, &file);
}
