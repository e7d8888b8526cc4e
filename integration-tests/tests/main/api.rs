//! The API, and the commands that talk through it.

use std::process::Output;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;
use onceflow_integration_tests::verify::verify;
use serde_json::Value;

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A daemon that has read 20,000 orders.
fn running(scenario: &Scenario, interval: &'static str) -> Daemon {
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { interval, ..Settings::default() });
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    let mut daemon = Daemon::run(scenario, &file);
    daemon.eventually_alive("to read everything", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records == 20_000.0)
    });
    daemon
}

#[test]
fn a_partition_without_records_is_named_as_what_windows_wait_for() {
    let scenario = Scenario::new("waiting");
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings { interval: "100ms", ..Settings::default() });
    write_all(scenario.kafka, &scenario.input(), Orders { partitions: 1, ..Orders::default() }.generate());
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    let why = daemon.eventually_alive("to say what it waits for", |daemon| {
        Some(said(&daemon.command(&["why", &scenario.name])))
            .filter(|why| why.contains("the window that ends"))
    });
    let silent = format!("{}-1 has had no record yet", scenario.input());
    assert!(why.contains(&silent), "{why}");
    daemon.stop();
}

#[test]
fn a_pipeline_is_shown_as_it_is() {
    let scenario = Scenario::new("shown");
    let mut daemon = running(&scenario, "100ms");
    let path = format!("/pipelines/{}", scenario.name);
    let shown = daemon.eventually_alive("to commit everything", |daemon| {
        Some(daemon.api(&path)).filter(|shown| shown["counts"]["in"] == 20_000 && shown["lag_records"] == 0)
    });
    assert_eq!((&shown["name"], &shown["state"]), (&scenario.name.as_str().into(), &"running".into()));
    assert_eq!(
        (&shown["ready"], &shown["restarts"], &shown["fenced_by"]),
        (&true.into(), &0.into(), &Value::Null)
    );
    assert!(shown["uptime_ms"].as_i64().is_some_and(|uptime| uptime > 0), "{shown:#}");
    let decisions = scenario.decisions();
    assert!(shown["epoch"].as_u64() <= decisions.last().unwrap()["epoch"].as_u64());
    let offsets: i64 =
        shown["partitions"].as_array().unwrap().iter().map(|at| at["next_offset"].as_i64().unwrap()).sum();
    assert_eq!(offsets, scenario.input_ends().iter().sum::<i64>(), "{shown:#}");
    assert!(shown["watermark_ms"].as_i64() >= shown["steps"][0]["fired_ms"].as_i64(), "{shown:#}");
    assert_eq!(shown["steps"][0]["name"], "per_user");
    assert_eq!(shown["last_checkpoint"]["status"], "completed");

    let all = daemon.api("/pipelines");
    assert_eq!(all["pipelines"][0]["name"], scenario.name.as_str());
    let status = said(&daemon.command(&["status"]));
    assert!(status.contains(&scenario.name) && status.contains("running"), "{status}");
    let why = said(&daemon.command(&["why", &scenario.name]));
    let held = format!("held by {}-", scenario.input());
    assert!(why.contains("per_user: the window that ends") && why.contains(&held), "{why}");
    assert!(why.contains("of event time are missing"), "{why}");
    assert_eq!(daemon.api(&format!("{path}/why"))["steps"][0]["step"], "per_user");
    let status = said(&daemon.command(&["status", &scenario.name]));
    assert!(status.contains("20000 in") && status.contains(&format!("{}-3", scenario.input())), "{status}");

    for (path, status) in [
        ("/api/v1/pipelines/absent", 404),
        ("/api/v1/absent", 404),
        (&*format!("/api/v1{path}/checkpoints?limit=x"), 400),
    ] {
        let answer = daemon.get(path).unwrap();
        assert_eq!(answer.status, status, "{path}");
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert!(said["error"].is_string(), "{path}: {}", answer.body);
    }
    let unknown = daemon.command(&["status", "absent"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no pipeline `absent`"));
    daemon.stop();
}

#[test]
fn checkpoints_are_taken_on_request_and_remembered_over_restarts() {
    let scenario = Scenario::new("history");
    // None comes by itself.
    let daemon = running(&scenario, "10m");
    let path = format!("/pipelines/{}/checkpoints", scenario.name);
    let taken = daemon.post(&format!("/api/v1{path}"), "");
    assert_eq!(taken.status, 200, "{}", taken.body);
    let taken: Value = serde_json::from_str(&taken.body).unwrap();
    let checkpoint = &taken["checkpoint"];
    assert_eq!((&taken["status"], &checkpoint["trigger"]), (&"completed".into(), &"request".into()));
    assert_eq!(checkpoint["records_in"], 20_000, "{taken:#}");
    for figure in ["duration_us", "async_us", "commit_us", "written_bytes", "full_bytes"] {
        assert!(checkpoint[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {taken:#}");
    }
    let decided = scenario.decisions().pop().unwrap();
    assert_eq!((&decided["epoch"], &decided["counts"]["in"]), (&checkpoint["epoch"], &20_000.into()));
    assert!(scenario.shard().join(checkpoint["snapshot"].as_str().unwrap()).exists());

    let unchanged = said(&daemon.command(&["checkpoint", "trigger", &scenario.name]));
    assert!(unchanged.contains("nothing has changed"), "{unchanged}");
    daemon.stop();

    let file = scenario.dir().join("pipeline.yaml");
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    let remembered = daemon.api(&path);
    let of_request =
        |known: &Value| known["checkpoints"].as_array().unwrap().iter().any(|known| known == checkpoint);
    assert!(of_request(&remembered), "{remembered:#}");
    let listed = said(&daemon.command(&["checkpoint", "list", &scenario.name]));
    assert!(listed.contains("request"), "{listed}");
    let epoch = checkpoint["epoch"].to_string();
    let shown = said(&daemon.command(&["checkpoint", "show", &scenario.name, &epoch]));
    assert!(shown.contains(checkpoint["snapshot"].as_str().unwrap()), "{shown}");
    assert_eq!(daemon.command(&["checkpoint", "show", &scenario.name, "999999"]).status.code(), Some(1));
    daemon.stop();
}

#[test]
fn a_drain_closes_every_window_and_an_end_without_a_checkpoint_loses_nothing() {
    let scenario = Scenario::new("ended");
    let mut daemon = running(&scenario, "10m");
    // Nothing is committed yet, and nothing is now.
    let stopped = said(&daemon.command(&["stop", "--now", &scenario.name]));
    assert!(stopped.contains("read again"), "{stopped}");
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
    assert_eq!(scenario.committed(&scenario.output()), []);

    let mut daemon = Daemon::run(&scenario, &scenario.dir().join("pipeline.yaml"));
    daemon.eventually_alive("to read everything again", |daemon| {
        daemon.metric("onceflow_records_in_total", &[]).filter(|records| *records == 20_000.0)
    });
    let drained = daemon.command(&["stop", "--drain", &scenario.name]);
    assert!(said(&drained).contains("everything that was read is committed"));
    assert!(String::from_utf8_lossy(&drained.stderr).contains("warning: "));
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
    // As after a run to the end: every window, once.
    verify(&scenario, Window::TUMBLING);
}

#[test]
fn a_stopped_pipeline_says_so_to_whoever_asks_again() {
    let scenario = Scenario::new("stopped");
    let pipelines = scenario.dir().join("pipelines");
    std::fs::create_dir(&pipelines).unwrap();
    scenario.create_topics(2);
    let file = scenario.write_windowed(&Settings::default());
    std::fs::rename(file, pipelines.join("pipeline.yaml")).unwrap();
    let mut daemon = Daemon::run(&scenario, &pipelines);
    daemon.wait_until_ready();
    let path = format!("/api/v1/pipelines/{}", scenario.name);
    assert_eq!(daemon.post(&format!("{path}/stop"), "{\"mode\": \"sideways\"}").status, 400);
    assert_eq!(daemon.post("/api/v1/pipelines/absent/stop", "").status, 404);
    for _ in 0..2 {
        let stopped = daemon.post(&format!("{path}/stop"), "{\"mode\": \"checkpoint\"}");
        let stopped: Value = serde_json::from_str(&stopped.body).unwrap();
        assert_eq!(stopped["outcome"], "done");
    }
    assert_eq!(daemon.api(&format!("/pipelines/{}", scenario.name))["state"], "stopped");
    let refused = daemon.post(&format!("{path}/checkpoints"), "");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(daemon.get(&format!("{path}/why?key=anybody")).unwrap().status, 409);
    daemon.stop();
}

#[test]
fn damage_in_a_snapshot_is_found_without_a_daemon() {
    let scenario = Scenario::new("verified");
    let file = scenario.dir().join("pipeline.yaml");
    // One checkpoint, at the end, with all of the state.
    running(&scenario, "10m").stop();
    let verify = || onceflow().args(["checkpoint", "verify"]).arg(&file).output().unwrap();
    let sound = said(&verify());
    assert!(sound.contains("is whole"), "{sound}");
    let newest = scenario.files("snapshots").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    // Behind the header, so in an extent; then only the end mark is missing.
    for (at, named) in [(64, "extent"), (bytes.len() - 1, "end mark")] {
        bytes[at] ^= 1;
        std::fs::write(&newest, &bytes).unwrap();
        let damaged = verify();
        let report = String::from_utf8_lossy(&damaged.stdout).into_owned();
        assert_eq!(damaged.status.code(), Some(1), "{report}");
        assert!(report.contains("DAMAGED") && report.contains(named), "{report}");
        bytes[at] ^= 1;
    }
}

#[test]
fn a_command_without_a_daemon_says_where_it_looked() {
    let output = onceflow().args(["status", "--url", "http://127.0.0.1:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no daemon answers at http://127.0.0.1:9"), "{text}");
}
