//! A directory of pipelines and its reloads: what changed is stopped with a final checkpoint and started anew, what did not is not
//! touched, and one mistake anywhere changes nothing.

use std::path::{Path, PathBuf};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::Live;
use onceflow_integration_tests::verify::verify;

/// Puts the pipeline of a scenario into the directory, and returns its file there.
fn put(directory: &Path, scenario: &Scenario, settings: &Settings) -> PathBuf {
    let file = directory.join(format!("{}.yaml", scenario.name));
    std::fs::copy(scenario.write_windowed(settings), &file).unwrap();
    file
}

fn prepared(name: &str) -> (Scenario, Live) {
    let scenario = Scenario::new(name);
    scenario.create_topics(4);
    let live = Live::start(scenario.kafka, &scenario.input(), 2_000, Orders::default().endless());
    (scenario, live)
}

/// How often the pipeline was started.
fn starts(scenario: &Scenario) -> usize {
    let records = scenario.committed(&scenario.control());
    records.iter().filter(|record| record.key.as_deref() == Some(b"claim")).count()
}

fn last_reload(daemon: &Daemon) -> Option<f64> {
    daemon.metric("onceflow_config_last_reload_successful", &[])
}

fn state(daemon: &Daemon, scenario: &Scenario) -> Option<String> {
    let body = daemon.get("/readyz")?.body;
    let line = body.lines().find(|line| line.split(' ').next() == Some(&scenario.name))?;
    line.split([' ', ':']).nth(1).map(str::to_owned)
}

fn wait_until_running(daemon: &mut Daemon, scenario: &Scenario) {
    daemon.eventually_alive("to run a pipeline", |daemon| {
        state(daemon, scenario).filter(|state| state == "running")
    });
}

#[test]
fn only_what_changed_is_stopped_and_every_result_is_there_once() {
    let (kept, kept_live) = prepared("reload-kept");
    let (changed, changed_live) = prepared("reload-changed");
    let (added, added_live) = prepared("reload-added");
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings::default();
    put(directory.path(), &kept, &settings);
    let file = put(directory.path(), &changed, &settings);
    let mut daemon = Daemon::run(&kept, directory.path());
    daemon.wait_until_ready();
    assert_eq!((last_reload(&daemon), starts(&kept), starts(&changed)), (Some(1.0), 1, 1));

    // One mistake in a new file: the changed one stays as it is.
    put(directory.path(), &changed, &Settings { parallelism: 2, ..settings.clone() });
    let broken = directory.path().join("broken.yaml");
    std::fs::write(&broken, "pipeline: broken\nsource: {}\n").unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.eventually_alive("to refuse the reload", |daemon| last_reload(daemon).filter(|ok| *ok == 0.0));
    assert!(daemon.log().contains("broken.yaml:2:1: error"), "{}", daemon.log_end());
    assert!(daemon.is_ready());

    // Over the API, with the mistake gone and another pipeline there.
    std::fs::remove_file(&broken).unwrap();
    put(directory.path(), &added, &settings);
    let answer = daemon.ask("POST", "/api/v1/reload", &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let done: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let expected = serde_json::json!({
        "started": [added.name], "restarted": [changed.name], "removed": [], "unchanged": [kept.name],
    });
    assert_eq!((done, last_reload(&daemon)), (expected, Some(1.0)));
    daemon.wait_until_ready();
    assert_eq!((starts(&kept), starts(&changed), starts(&added)), (1, 2, 1));
    let log = daemon.log();
    let stopped = log
        .lines()
        .any(|line| line.contains(&changed.name) && line.contains("everything that was read is committed"));
    assert!(stopped, "it was not stopped with a checkpoint\n{}", daemon.log_end());

    // A file that goes takes its pipeline along, and nothing of it is left on the list.
    std::fs::remove_file(&file).unwrap();
    daemon.signal(libc::SIGHUP);
    daemon.eventually_alive("to let a pipeline go", |daemon| state(daemon, &changed).is_none().then_some(()));
    assert_eq!(daemon.metric("onceflow_pipeline_state", &[&changed.name]), None);
    assert!(daemon.is_ready());
    for live in [kept_live, changed_live, added_live] {
        live.stop();
    }
    assert_eq!(starts(&kept), 1, "the one that did not change was not touched");
    daemon.stop();
    for scenario in [&kept, &changed, &added] {
        Daemon::run_until_end(scenario, &scenario.write_windowed(&settings));
        verify(scenario, Window::TUMBLING);
    }
}

#[test]
fn each_pipeline_has_a_fate_of_its_own() {
    let (sound, live) = prepared("fate-sound");
    let broken = Scenario::new("fate-broken");
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), &sound, &Settings::default());
    put(directory.path(), &broken, &Settings::default());
    let mut daemon = Daemon::run(&sound, directory.path());
    wait_until_running(&mut daemon, &sound);
    // Its topics do not exist.
    daemon.eventually_alive("to fail", |daemon| state(daemon, &broken).filter(|state| state == "failed"));
    assert_eq!(daemon.get("/readyz").map(|answer| answer.status), Some(503));
    assert_eq!(state(&daemon, &sound).as_deref(), Some("running"));

    // An operator creates them, and reloads: what failed is started again.
    broken.create_topics(1);
    daemon.signal(libc::SIGHUP);
    daemon.wait_until_ready();
    assert_eq!(starts(&sound), 1);
    live.stop();
    daemon.stop();
}

#[test]
fn a_directory_of_the_settings_is_a_service_even_while_it_is_empty() {
    let (scenario, live) = prepared("settings-directory");
    let directory = tempfile::tempdir().unwrap();
    let settings = scenario.write("onceflow.yaml", &format!("pipelines: {}\n", directory.path().display()));
    let mut daemon = Daemon::without_files(&scenario, &["--config", settings.to_str().unwrap()], &[]);
    daemon.eventually_alive("to be up", |daemon| daemon.get("/healthz"));
    put(directory.path(), &scenario, &Settings::default());
    daemon.signal(libc::SIGHUP);
    wait_until_running(&mut daemon, &scenario);
    live.stop();
    daemon.stop();
}
