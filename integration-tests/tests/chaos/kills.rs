//! The daemon's end: kill -9 at random and at the named points, through one pipeline's whole life: the number of workers and the budget of
//! the state change from start to start, so that panes go to RocksDB and come back in every combination.

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::scenario::{Scenario, Settings};

use crate::run::{Run, Stage, commits, hidden, many_groups};

/// Those that every start passes; the start offsets are committed once only.
const POINTS: [&str; 7] = [
    "after-claim",
    "before-snapshot",
    "after-snapshot",
    "after-decision",
    "after-commit",
    "after-confirmed",
    "before-retire",
];

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn the_daemon_is_killed_again_and_again() {
    let mut stage = Run::begin("kills").under_load(many_groups());
    let Stage { run, scenario, .. } = &mut stage;
    let kills = run.either(16, 240);
    let mut evicted = false;
    let mut settings = Settings { lateness: "6m", ..Settings::default() };
    for kill in 0..kills {
        settings.parallelism = 1 + kill % 2;
        settings.memory = if cfg!(feature = "rocksdb") && kill / 2 % 2 == 0 { "8MiB" } else { "256MiB" };
        let file = scenario.write_windowed(&settings);
        let how = if kill == 0 {
            armed(scenario, &file, "after-epoch-zero")
        } else if run.rng.one_in(2) {
            let turn = 1 + run.rng.below(4);
            let point = POINTS[run.rng.below(POINTS.len() as u64) as usize];
            // Nothing is claimed twice in one run.
            armed(
                scenario,
                &file,
                &if point == "after-claim" { point.to_owned() } else { format!("{point}:{turn}") },
            )
        } else {
            let moment = run.moment(2_500);
            let daemon = Daemon::run(scenario, &file);
            std::thread::sleep(moment);
            daemon.kill();
            format!("after {} ms", moment.as_millis())
        };
        evicted |= scenario.has_cold_files();
        run.event(format_args!(
            "kill {} of {kills}, {how}; {} workers, {}",
            kill + 1,
            settings.parallelism,
            settings.memory
        ));
    }
    let file = scenario.write_windowed(&settings);
    let daemon = Daemon::run(scenario, &file);
    let settled = stage.settle(&file, daemon);
    assert!(hidden(&settled.scenario) > 0, "no kill ever hit an open transaction");
    assert!(evicted || !cfg!(feature = "rocksdb"), "no pane was ever evicted");
    settled.held(format_args!("{kills} kills of the daemon"));
}

/// A request to stop may come at any moment, and many threads hold a store then: none may fall over the process's end.
#[test]
fn the_daemon_is_asked_to_stop_again_and_again() {
    let mut stage = Run::begin("stops").under_load(many_groups());
    let Stage { run, scenario, .. } = &mut stage;
    let memory = if cfg!(feature = "rocksdb") { "8MiB" } else { "256MiB" };
    let file =
        scenario.write_windowed(&Settings { parallelism: 2, lateness: "6m", memory, ..Settings::default() });
    let stops = run.either(6, 60);
    let mut unfinished = 0;
    for stop in 0..stops {
        let mut daemon = Daemon::run(scenario, &file);
        if stop % 2 == 0 {
            commits(scenario, &mut daemon, 5);
        } else {
            // From the first line of its log on it listens to signals.
            daemon.wait_for_log("onceflow");
        }
        std::thread::sleep(run.moment(1_000));
        daemon.signal(libc::SIGTERM);
        let status = daemon.wait();
        // 75: it could not commit what it had read, and will read it again.
        assert!(matches!(status.code(), Some(0 | 75)), "{status}\n{}", daemon.log_end());
        unfinished += u32::from(status.code() == Some(75));
        run.event(format_args!("stop {} of {stops}: {status}", stop + 1));
    }
    let daemon = Daemon::run(scenario, &file);
    stage.settle(&file, daemon).held(format_args!("{stops} stops, {unfinished} without a last checkpoint"));
}

fn armed(scenario: &Scenario, file: &std::path::Path, point: &str) -> String {
    Daemon::run_armed(scenario, file, point).wait_for_self_kill();
    format!("at {point}")
}
