//! Pipeline files that change above a checkpoint with open windows: what goes on, what is refused, and what an operator may let go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, write_all};

/// 2026-01-01T00:00:00Z, milliseconds.
const BASE: i64 = 1_767_225_600_000;

/// Orders of one user at these seconds, each of one cent.
fn orders(seconds: &[i64]) -> Vec<NewRecord> {
    let order = |second: &i64| {
        let ts = BASE + second * 1000;
        NewRecord {
            partition: 0,
            timestamp: ts,
            key: None,
            value: Some(
                format!("{{\"user_id\":\"u\",\"amount\":0.01,\"weight\":1,\"ts\":{ts}}}").into_bytes(),
            ),
            headers: vec![],
        }
    };
    seconds.iter().map(order).collect()
}

struct Changing {
    scenario: Scenario,
}

impl Changing {
    fn new(name: &str) -> Changing {
        let scenario = Scenario::new(name);
        scenario.create_topics(1);
        Changing { scenario }
    }

    /// Windows of a minute (or as `step` says) under the name `name`.
    fn file(&self, name: &str, filter: &str, step: &str) -> PathBuf {
        let settings = Settings::default();
        let steps = format!(
            "steps:\n  paid: {{ from: orders, where: {filter} }}\n  {name}:\n    from: paid\n    group_by: [user_id]\n    late: drop\n{step}\
             sinks:\n  totals: {{ from: {name}, topic: {}, format: json }}\n",
            self.scenario.output()
        );
        let text = self.scenario.preamble(&settings) + &self.scenario.source(&settings) + &steps;
        self.scenario.write("pipeline.yaml", &text)
    }

    fn write(&self, seconds: &[i64]) {
        write_all(self.scenario.kafka, &self.scenario.input(), orders(seconds));
    }

    /// Reads what there is and stops, windows open.
    fn read(&self, file: &std::path::Path, arguments: &[&str]) -> String {
        let mut daemon = Daemon::start(&self.scenario, file, arguments, &[]);
        daemon.eventually_alive("to read everything", |_| self.scenario.is_drained().then_some(()));
        daemon.wait_until_ready();
        let log = daemon.log();
        daemon.stop();
        log
    }

    fn refused(&self, file: &std::path::Path, arguments: &[&str]) -> String {
        let mut daemon = Daemon::start(&self.scenario, file, arguments, &[]);
        assert_eq!(daemon.wait().code(), Some(1), "{}", daemon.log_end());
        daemon.log()
    }

    /// What `validate --against-running` says, and its exit code.
    fn foreseen(&self, file: &std::path::Path) -> (Option<i32>, String) {
        let output = onceflow().args(["validate", "--against-running"]).arg(file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Results by the minute in which their window begins.
    fn results(&self) -> BTreeMap<i64, serde_json::Value> {
        let records = self.scenario.committed(&self.scenario.output());
        let result = |record: &onceflow_integration_tests::topic::Record| {
            let mut row = record.json();
            let fields = row.as_object_mut().unwrap();
            fields.remove("window_start");
            fields.remove("window_end");
            fields.remove("user_id");
            ((record.timestamp + 1 - BASE) / 60_000 - 1, row)
        };
        records.iter().map(result).collect()
    }
}

const COUNT: &str = "    window: { tumbling: 1m }\n    aggregate: { n: count(*) }\n";

#[test]
fn an_aggregate_is_added_a_filter_changed_and_the_step_renamed() {
    let changing = Changing::new("change-free");
    changing.write(&[0, 1, 64]);
    let file = changing.file("per_user", "amount > 0", COUNT);
    let (code, said) = changing.foreseen(&file);
    assert!(code == Some(0) && said.contains("would start for the first time"), "{code:?} {said}");
    changing.read(&file, &[]);
    changing.write(&[66, 125, 126]);
    let step = "    was: per_user\n    window: { tumbling: 1m }\n    aggregate: { cents: sum(amount), n: count(*) }\n";
    let file = changing.file("by_user", "amount > 0 and weight > 0", step);
    let (code, said) = changing.foreseen(&file);
    assert!(
        code == Some(0) && said.contains("aggregate `cents` of step `by_user` is new"),
        "{code:?} {said}"
    );
    let log = changing.read(&file, &[]);
    assert!(log.contains("what reaches step `by_user` has changed"), "{log}");
    assert!(log.contains("aggregate `cents` of step `by_user` is new"), "{log}");
    changing.write(&[300]);
    Daemon::run_until_end(&changing.scenario, &file);
    let results: Vec<_> = changing.results().into_iter().collect();
    let expected = [
        (0, serde_json::json!({ "n": 2, "cents": null })),
        (1, serde_json::json!({ "n": 2, "cents": null })),
        (2, serde_json::json!({ "n": 2, "cents": 0.02 })),
        (5, serde_json::json!({ "n": 1, "cents": 0.01 })),
    ];
    assert_eq!(results, expected);
}

#[test]
fn what_the_state_is_made_of_is_refused_until_it_is_let_go() {
    let changing = Changing::new("change-refused");
    changing.write(&[0, 1, 64]);
    changing.read(&changing.file("per_user", "amount > 0", COUNT), &[]);
    changing.write(&[66]);
    let five = "    window: { tumbling: 5m }\n    aggregate: { n: count(*) }\n";
    let file = changing.file("per_user", "amount > 0", five);
    let (code, said) = changing.foreseen(&file);
    assert!(code == Some(78) && said.contains("--discard-state per_user"), "{code:?} {said}");
    let said = changing.refused(&file, &[]);
    assert!(
        said.contains("window or groups have changed") && said.contains("--discard-state per_user"),
        "{said}"
    );
    let other = changing.refused(&changing.file("others", "amount > 0", COUNT), &[]);
    assert!(other.contains("`was: per_user`"), "{other}");
    let unknown =
        changing.refused(&changing.file("per_user", "amount > 0", COUNT), &["--discard-state", "other"]);
    assert!(unknown.contains("no windowed step `other`"), "{unknown}");

    let file = changing.file("per_user", "amount > 0", five);
    let discard = ["--discard-state", "per_user"];
    // Decided, and dead before any snapshot without the old state: it stays discarded.
    let armed = [("ONCEFLOW_KILL_AT", "after-epoch-zero")];
    Daemon::start(&changing.scenario, &file, &discard, &armed).wait_for_self_kill();
    changing.read(&file, &discard);
    changing.write(&[67, 600]);
    // Repeated, the command line discards nothing any more.
    let arguments = [&["--until-end"][..], &discard].concat();
    let mut daemon = Daemon::start(&changing.scenario, &file, &arguments, &[]);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
    let counts: Vec<i64> = changing
        .scenario
        .committed(&changing.scenario.output())
        .iter()
        .map(|record| record.json()["n"].as_i64().unwrap())
        .collect();
    assert_eq!(counts, [2, 1], "what came before the change is gone, what came since is counted");
}
