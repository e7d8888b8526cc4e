//! Savepoints: made of a running pipeline, gone back to once however often that is asked for, and safe from everything that is tidied up.

use std::collections::BTreeSet;
use std::path::Path;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Record, write_all};
use onceflow_integration_tests::verify::verify;

/// The rows that are in a topic and were not there before, in a form that does not depend on their order.
fn added(all: &[Record], before: &[Record]) -> Vec<String> {
    let known: BTreeSet<(i32, i64)> = before.iter().map(|record| (record.partition, record.offset)).collect();
    let added = all.iter().filter(|record| !known.contains(&(record.partition, record.offset)));
    let mut rows: Vec<String> = added.map(|record| record.json().to_string()).collect();
    rows.sort();
    rows
}

/// A pipeline that was stopped in the middle of its input, a savepoint of that moment, and its output until then.
fn with_savepoint(name: &str, settings: &Settings) -> (Scenario, std::path::PathBuf, Vec<Record>) {
    let scenario = Scenario::new(name);
    scenario.create_topics(4);
    let file = scenario.write_windowed(settings);
    let small = settings.memory == "8MiB";
    // Enough groups and open windows to reach the small budget.
    let orders = match small {
        true => Orders { records: 60_000, users: 8_000, name_length: 160, step_ms: 5, ..Orders::default() },
        false => Orders::default(),
    };
    let (first, second) = orders.split(orders.records as usize / 2);
    write_all(scenario.kafka, &scenario.input(), first);
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to read the first part", |_| scenario.is_drained().then_some(()));
    let path = format!("/api/v1/pipelines/{}/savepoints", scenario.name);
    let made = daemon.post(&path, "{\"name\": \"half\"}");
    assert_eq!(made.status, 201, "{}", made.body);
    let again = daemon.post(&path, "{\"name\": \"half\"}");
    assert_eq!(again.status, 409, "{}", again.body);
    assert_eq!(daemon.post(&path, "{\"name\": \"../half\"}").status, 400);
    assert_eq!(daemon.post("/api/v1/pipelines/others/savepoints", "").status, 404);
    let made = told(daemon.command(&["savepoint", "create", &scenario.name, "later"]));
    assert!(made.starts_with("savepoint later of epoch "), "{made}");
    let listed = told(daemon.command(&["savepoint", "list", "--format", "json", &scenario.name]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed["savepoints"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["half", "later"], "{listed}");
    let table = told(daemon.command(&["savepoint", "list", &scenario.name]));
    assert!(table.starts_with("NAME ") && table.lines().count() == 3, "{table}");
    daemon.stop();
    if small {
        assert!(scenario.shard().join("savepoints/half/cold").is_dir(), "nothing was evicted");
    }
    let then = scenario.committed(&scenario.output());
    write_all(scenario.kafka, &scenario.input(), second);
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
    (scenario, file, then)
}

/// What a command printed that succeeded.
fn told(output: std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn go_back(scenario: &Scenario, file: &Path, more: &[&str], environment: &[(&str, &str)]) -> Daemon {
    let arguments = [&["--until-end", "--from-savepoint", "half"], more].concat();
    Daemon::start(scenario, file, &arguments, environment)
}

fn done(mut daemon: Daemon) {
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
}

fn check(name: &str, settings: &Settings) {
    let (scenario, file, then) = with_savepoint(name, settings);
    let first = scenario.committed(&scenario.output());
    let since = added(&first, &then);
    assert!(!since.is_empty());

    let mut refused = go_back(&scenario, &file, &[], &[]);
    assert_eq!(refused.wait().code(), Some(1), "{}", refused.log_end());
    assert!(refused.log().contains("--accept-repeats"), "{}", refused.log());

    // However often the command line is repeated, what came since the savepoint comes once more.
    let mut twice = vec![];
    for _ in 0..2 {
        done(go_back(&scenario, &file, &["--accept-repeats"], &[]));
        twice = scenario.committed(&scenario.output());
        assert_eq!(added(&twice, &first), since);
    }
    // Deaths on the way to it, and on the way from it, do not make it come oftener.
    let again = ["--accept-repeats", "--again", "2"];
    for point in ["after-claim", "after-import", "after-epoch-zero", "after-snapshot", "before-snapshot"] {
        go_back(&scenario, &file, &again, &[("ONCEFLOW_KILL_AT", point)]).wait_for_self_kill();
    }
    done(go_back(&scenario, &file, &again, &[]));
    let all = scenario.committed(&scenario.output());
    assert_eq!(added(&all, &twice), since);
    let decision = scenario.decisions().pop().expect("no decision");
    assert_eq!(decision["requests"].as_array().map(Vec::len), Some(2), "{decision}");

    // Applied, it may go; asked for anew, it would have to be there.
    std::fs::remove_dir_all(scenario.shard().join("savepoints/half")).unwrap();
    done(go_back(&scenario, &file, &again, &[]));
    let mut missing = go_back(&scenario, &file, &["--accept-repeats", "--again", "3"], &[]);
    assert_eq!(missing.wait().code(), Some(1), "{}", missing.log_end());
    assert!(missing.log().contains("no savepoint `half`"), "{}", missing.log());
    assert_eq!(scenario.committed(&scenario.output()).len(), all.len());
}

#[test]
fn are_gone_back_to_once() {
    check("savepoint", &Settings::default());
}

#[test]
fn hold_what_memory_could_not() {
    if cfg!(feature = "rocksdb") {
        // So little that panes are evicted all the time.
        check(
            "savepoint-cold",
            &Settings { memory: "8MiB", lateness: "6m", parallelism: 2, ..Settings::default() },
        );
    }
}

#[test]
fn get_over_a_lost_control_topic() {
    let (scenario, file, then) = with_savepoint("savepoint-lost", &Settings::default());
    let first = scenario.committed(&scenario.output());
    scenario.kafka.delete_topic(&scenario.control());
    done(go_back(&scenario, &file, &["--accept-repeats"], &[]));
    let all = scenario.committed(&scenario.output());
    assert_eq!(added(&all, &first), added(&first, &then));
    // Lost once more, the command line that still stands there does not hide it.
    scenario.kafka.delete_topic(&scenario.control());
    let mut refused = go_back(&scenario, &file, &["--accept-repeats"], &[]);
    assert_eq!(refused.wait().code(), Some(1), "{}", refused.log_end());
}

/// What lies after an older checkpoint comes again, and nothing else does, when its successor is lost.
#[test]
fn are_made_of_an_older_checkpoint_when_the_newest_is_damaged() {
    let (scenario, file, _) = with_savepoint("savepoint-rescue", &Settings::default());
    let first = scenario.committed(&scenario.output());
    let verify = |code: i32| -> serde_json::Value {
        let output =
            onceflow().args(["checkpoint", "verify", "--format", "json"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let epoch = verify(0)["pipelines"][0]["snapshots"][1]["epoch"].as_u64().expect("no older snapshot");
    let newest = scenario.files("snapshots").pop().expect("no snapshot");
    std::fs::write(&newest, "lost").unwrap();
    verify(1);
    let mut refused = Daemon::start(&scenario, &file, &["--until-end"], &[]);
    assert_eq!(refused.wait().code(), Some(1), "{}", refused.log_end());
    assert!(refused.log().contains("savepoint from-checkpoint"), "{}", refused.log());

    let rescue = |epoch: u64, name: &str| {
        let arguments = ["savepoint", "from-checkpoint", file.to_str().unwrap(), &epoch.to_string(), name];
        onceflow().args(arguments).output().unwrap()
    };
    let unknown = rescue(epoch + 1_000, "unknown");
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(said.contains("there are: ") && said.contains(&epoch.to_string()), "{said}");
    let made = told(rescue(epoch, "rescued"));
    assert!(made.starts_with(&format!("savepoint rescued of epoch {epoch}: ")), "{made}");
    assert_eq!(rescue(epoch, "rescued").status.code(), Some(1), "a savepoint was overwritten");

    let arguments = ["--until-end", "--from-savepoint", "rescued", "--accept-repeats"];
    for _ in 0..2 {
        done(Daemon::start(&scenario, &file, &arguments, &[]));
    }
    let decisions = scenario.decisions();
    let out = |epoch: u64| {
        let decision = decisions.iter().find(|decision| decision["epoch"].as_u64() == Some(epoch));
        decision.expect("a decision was compacted")["counts"]["out"].as_u64().unwrap()
    };
    let all = scenario.committed(&scenario.output());
    let again = added(&all, &first);
    assert_eq!(again.len() as u64, first.len() as u64 - out(epoch), "of epoch {epoch}");
    assert!(!again.is_empty());
    let before = added(&first, &[]);
    assert!(again.iter().all(|row| before.binary_search(row).is_ok()), "a row is not as it was");
}
