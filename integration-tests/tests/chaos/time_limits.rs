//! Silence that outlasts time limits: a broker that hangs (SIGSTOP) and goes on as if nothing had been, with requests in its sockets that
//! are minutes old; and a daemon that is stopped until its transaction is over.

use std::time::{Duration, Instant};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;

use crate::run::{RECOVERY, Run, Stage, commits, end, own_brokers, restarts};

/// A transaction's limit is interval + timeout + 30 s: 38 s with these settings; a start's is 60 s longer.
fn short_limits() -> Settings {
    Settings { timeout: "8s", parallelism: 2, ..Settings::default() }
}

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn the_broker_hangs_for_longer_than_the_time_limits() {
    let mut stage = Run::begin("hang").on_own_brokers(1, &[], Orders::default());
    let Stage { run, scenario, .. } = &mut stage;
    let kafka = scenario.kafka;
    let file = scenario.write_windowed(&short_limits());
    let mut daemon = Daemon::run(scenario, &file);
    // Longer than a checkpoint's limit, than a transaction's, than a start's; then briefly again, when all that is long ago.
    let hangs: &[u64] = run.either(&[45], &[12, 50, 150, 1, 3, 20, 70, 4]);
    for seconds in hangs {
        commits(scenario, &mut daemon, 3);
        std::thread::sleep(run.moment(200));
        kafka.signal(1, libc::SIGSTOP);
        std::thread::sleep(Duration::from_secs(*seconds));
        assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200), "the process must stay up");
        kafka.signal(1, libc::SIGCONT);
        let since = Instant::now();
        commits(scenario, &mut daemon, 3);
        run.event(format_args!(
            "the broker hung for {seconds} s; commits again after {:.1} s; restarts so far {:?}",
            since.elapsed().as_secs_f64(),
            restarts(&mut daemon)
        ));
    }
    stage.settle(&file, daemon).held(format_args!("a broker that hung for {hangs:?} seconds"));
}

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn a_transaction_outlives_its_time_limit() {
    // The broker looks for such transactions every second, not every ten.
    let soon = ["transaction.abort.timed.out.transaction.cleanup.interval.ms=1000"];
    let mut stage = Run::begin("transaction").on_own_brokers(1, &soon, Orders::default());
    let Stage { run, scenario, .. } = &mut stage;
    let kafka = scenario.kafka;
    // An epoch is long, so that dead letters are in an open transaction most of the time.
    let file = scenario.write_windowed(&Settings { interval: "3s", ..short_limits() });
    let mut daemon = Daemon::run(scenario, &file);
    let rounds = run.either(1, 4);
    for round in 0..rounds {
        commits(scenario, &mut daemon, 2);
        let before = restarts(&mut daemon);
        let is_open = || kafka.has_open_transaction(&scenario.dead_letter(), 0);
        loop {
            std::thread::sleep(run.moment(1_000));
            daemon.signal(libc::SIGSTOP);
            if is_open() {
                break;
            }
            daemon.signal(libc::SIGCONT);
        }
        let since = Instant::now();
        while is_open() {
            assert!(since.elapsed() < RECOVERY, "the broker does not give up on the transaction");
            std::thread::sleep(Duration::from_millis(500));
        }
        let waited = since.elapsed().as_secs_f64();
        daemon.signal(libc::SIGCONT);
        commits(scenario, &mut daemon, 2);
        let after = restarts(&mut daemon);
        assert_ne!(before, after, "a transaction that the broker aborted went unnoticed");
        run.event(format_args!(
            "{} of {rounds}: stopped for {waited:.1} s, until the broker aborted the transaction; running again, restarts {after:?}",
            round + 1
        ));
    }
    let log = daemon.log();
    assert!(log.contains("looking whether another instance has taken over"), "{log}");
    stage.settle(&file, daemon).held(format_args!("{rounds} transactions that outlived their limit"));
}

/// The partitions of a broker that hangs bring nothing, but that is no reason to stop waiting for them: what was written there would
/// be late afterwards.
#[test]
fn the_silence_of_a_broker_that_hangs_is_not_idleness() {
    let run = Run::begin("silence");
    let kafka = own_brokers(1, &[]);
    let scenario = Scenario::on(kafka, "silence");
    scenario.create_topics(4);
    let file = scenario.write_windowed(&Settings { idle_after: "3s", ..Settings::default() });
    write_all(kafka, &scenario.input(), Orders::default().generate());
    let mut daemon = Daemon::run(&scenario, &file);
    let idle = |daemon: &mut Daemon, count: f64| {
        daemon.within(RECOVERY, "to see partitions go idle, or not", |daemon| {
            std::thread::sleep(Duration::from_millis(20));
            daemon.metric("onceflow_partition_idle", &[]).filter(|idle| *idle == count)
        })
    };
    idle(&mut daemon, 4.0);
    kafka.signal(1, libc::SIGSTOP);
    idle(&mut daemon, 0.0);
    // For longer than silence takes to count.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(daemon.metric("onceflow_partition_idle", &[]), Some(0.0));
    kafka.signal(1, libc::SIGCONT);
    idle(&mut daemon, 4.0);
    daemon.stop();
    end(kafka);
    run.held_clearly("four silent partitions were idle, and not while their broker hung");
}
