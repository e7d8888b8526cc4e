//! kill -9 at random moments, again and again, while orders keep coming: the output is the fold of the input, each row once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::rng::Rng;
use onceflow_integration_tests::scenario::{Emit, Scenario, Settings};
use onceflow_integration_tests::topic::Live;
use onceflow_integration_tests::verify::{verify, verify_updates};

/// How often a pipeline is killed.
pub const KILLS: u32 = 20;

/// Long names and many open panes: far more than 8 MiB of groups.
fn orders(seed: u64) -> Orders {
    Orders { seed, users: 8_000, name_length: 160, step_ms: 5, ..Orders::default() }
}

/// Runs a pipeline and kills it, [`KILLS`] times. Returns whether a pane was ever evicted.
pub fn kill_again_and_again(scenario: &Scenario, file: &Path, seed: u64) -> bool {
    let mut rng = Rng::new(seed);
    let mut evicted = false;
    for kill in 0..KILLS {
        let before = scenario.kafka.end_offset(&scenario.control(), 0).unwrap_or(0);
        let mut daemon = Daemon::run(scenario, file);
        // One half dies anywhere, the start included; the other after some decisions (a claim and its marker come before), so
        // that there is progress however slow the machine.
        if kill % 2 == 1 {
            daemon.eventually_alive("to commit", |_| {
                scenario.kafka.end_offset(&scenario.control(), 0).filter(|end| *end >= before + 6)
            });
        }
        std::thread::sleep(Duration::from_millis(rng.below(600)));
        evicted |= scenario.has_cold_files();
        daemon.kill();
    }
    evicted
}

/// Runs a pipeline with one number of workers after the other, and kills it each time. Returns its last file.
pub fn rescale(scenario: &Scenario, write: impl Fn(u32) -> PathBuf) -> PathBuf {
    let mut file = scenario.dir().to_owned();
    for parallelism in [1, 3, 2, 1, 4, 1] {
        file = write(parallelism);
        let before = scenario.kafka.end_offset(&scenario.control(), 0).unwrap_or(0);
        let mut daemon = Daemon::run(scenario, &file);
        daemon.eventually_alive("to commit", |_| {
            scenario.kafka.end_offset(&scenario.control(), 0).filter(|end| *end >= before + 8)
        });
        daemon.kill();
    }
    file
}

fn check(name: &str, seed: u64, settings: Settings, evicts: bool) {
    let scenario = Scenario::new(name);
    scenario.create_topics(4);
    let file = scenario.write_windowed(&settings);
    // Windows that fire before all of their records have come, within the lateness.
    let disorder_ms = if settings.emit != Emit::Final { 120_000 } else { Orders::default().disorder_ms };
    let orders = Orders { disorder_ms, ..orders(seed) };
    let live = Live::start(scenario.kafka, &scenario.input(), 10_000, orders.endless());
    let evicted = kill_again_and_again(&scenario, &file, seed);
    live.stop();
    Daemon::run_until_end(&scenario, &file);
    let verdict = match settings.emit {
        Emit::Final => verify(&scenario, settings.window),
        Emit::Updates | Emit::Early => {
            let (verdict, replaced) = verify_updates(&scenario, settings.window);
            println!("{name}: {replaced} rows were replaced");
            assert!(replaced > 1_000, "{replaced} rows were replaced: too few to show anything");
            verdict
        }
    };
    println!("{name}: {KILLS} kills, {verdict:?}, {} decisions", scenario.decisions().len());
    assert!(verdict.late > 100 && verdict.broken > 100, "{verdict:?}");
    assert!(
        !evicts || evicted,
        "no pane was ever evicted: the budget of {} was never reached",
        settings.memory
    );
}

macro_rules! scenarios {
    ($($name:ident: $seed:literal, $parallelism:literal, $window:ident, $emit:ident;)*) => {$(
        #[test]
        fn $name() {
            let settings = Settings {
                window: Window::$window, parallelism: $parallelism, lateness: "6m", emit: Emit::$emit, ..Settings::default()
            };
            check(&stringify!($name).replace('_', "-"), $seed, settings, false);
        }
    )*};
}

scenarios! {
    tumbling_with_one_worker: 11, 1, TUMBLING, Final;
    tumbling_with_two_workers: 12, 2, TUMBLING, Final;
    hopping_with_one_worker: 13, 1, HOPPING, Final;
    hopping_with_two_workers: 14, 2, HOPPING, Final;
    updates_of_tumbling_with_one_worker: 15, 1, TUMBLING, Updates;
    updates_of_hopping_with_two_workers: 16, 2, HOPPING, Updates;
    early_of_tumbling_with_one_worker: 32, 1, TUMBLING, Early;
    early_of_hopping_with_two_workers: 33, 2, HOPPING, Early;
    many_panes_with_two_workers: 34, 2, FINE, Final;
    updates_of_many_panes_with_one_worker: 35, 1, FINE, Updates;
    sessions_with_one_worker: 17, 1, SESSIONS, Final;
    sessions_with_two_workers: 18, 2, SESSIONS, Final;
    totals_with_one_worker: 19, 1, NONE, Updates;
    totals_with_two_workers: 20, 2, NONE, Updates;
}

/// The same with a budget that is reached all the time, so that panes go to RocksDB and come back merged.
#[cfg(feature = "rocksdb")]
mod evicting {
    use super::*;

    macro_rules! scenarios {
        ($($name:ident: $seed:literal, $parallelism:literal, $window:ident, $emit:ident;)*) => {$(
            #[test]
            fn $name() {
                let settings = Settings {
                    window: Window::$window,
                    parallelism: $parallelism,
                    lateness: "6m",
                    memory: "8MiB",
                    emit: Emit::$emit,
                    ..Settings::default()
                };
                check(&format!("evicting-{}", stringify!($name).replace('_', "-")), $seed, settings, true);
            }
        )*};
    }

    scenarios! {
        tumbling_with_one_worker: 21, 1, TUMBLING, Final;
        tumbling_with_two_workers: 22, 2, TUMBLING, Final;
        hopping_with_one_worker: 23, 1, HOPPING, Final;
        hopping_with_two_workers: 24, 2, HOPPING, Final;
        many_panes_with_two_workers: 30, 2, FINE, Final;
        updates_with_two_workers: 25, 2, TUMBLING, Updates;
        early_with_two_workers: 29, 2, TUMBLING, Early;
        sessions_with_one_worker: 26, 1, SESSIONS, Final;
        sessions_with_two_workers: 27, 2, SESSIONS, Final;
        totals_with_two_workers: 28, 2, NONE, Updates;
    }
}

/// The number of workers may change from start to start: tables are merged, and nothing is counted twice.
#[test]
fn the_number_of_workers_changes_between_starts() {
    let scenario = Scenario::new("rescaled");
    scenario.create_topics(4);
    let live = Live::start(scenario.kafka, &scenario.input(), 10_000, orders(31).endless());
    let file = rescale(&scenario, |parallelism| {
        scenario.write_windowed(&Settings { parallelism, lateness: "6m", ..Settings::default() })
    });
    live.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}
