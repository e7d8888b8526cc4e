//! Three brokers, three replicas, two of which must be in sync: one may die, and nobody waits for it.

use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::Settings;

use crate::run::{Run, Stage, commits, restarts};

/// A silent broker loses its partitions after three seconds, not after nine.
const QUICK: [&str; 2] = ["broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500"];

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn one_of_three_brokers_dies_and_work_goes_on_without_it() {
    let mut stage = Run::begin("cluster").on_own_brokers(3, &QUICK, Orders::default());
    let Stage { run, scenario, .. } = &mut stage;
    let kafka = scenario.kafka;
    let file = scenario.write_windowed(&Settings { parallelism: 2, timeout: "20s", ..Settings::default() });
    let mut daemon = Daemon::run(scenario, &file);
    let rounds = run.either(2, 9);
    for round in 0..rounds {
        let node = 1 + round % 3;
        commits(scenario, &mut daemon, 3);
        std::thread::sleep(run.moment(200));
        // Every third time it hangs instead of dying: its connections stay open.
        let hangs = round % 3 == 2;
        if hangs {
            kafka.signal(node, libc::SIGSTOP)
        } else {
            kafka.kill(node)
        }
        commits(scenario, &mut daemon, 10);
        std::thread::sleep(run.moment(3_000));
        if hangs {
            kafka.signal(node, libc::SIGCONT)
        } else {
            kafka.restart(node)
        }
        commits(scenario, &mut daemon, 10);
        run.event(format_args!(
            "{} of {rounds}: node {node} {}, committed without it and after its return; restarts so far {:?}",
            round + 1,
            if hangs { "hung" } else { "was killed" },
            restarts(&mut daemon)
        ));
        // In-sync replicas of all partitions, so that the next loss is one of three again.
        std::thread::sleep(Duration::from_secs(3));
    }
    stage.settle(&file, daemon).held(format_args!("{rounds} losses of one broker of three"));
}

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn two_of_three_brokers_die_and_come_back() {
    let mut stage = Run::begin("minority").on_own_brokers(3, &QUICK, Orders::default());
    let Stage { run, scenario, .. } = &mut stage;
    let kafka = scenario.kafka;
    let file = scenario.write_windowed(&Settings { parallelism: 2, timeout: "5s", ..Settings::default() });
    let mut daemon = Daemon::run(scenario, &file);
    let rounds = run.either(1, 4);
    for round in 0..rounds {
        let (one, other) = (1 + round % 3, 1 + (round + 1) % 3);
        commits(scenario, &mut daemon, 3);
        kafka.kill(one);
        std::thread::sleep(run.moment(2_000));
        kafka.kill(other);
        std::thread::sleep(Duration::from_secs(10));
        assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200), "the process must stay up");
        kafka.restart_all();
        commits(scenario, &mut daemon, 10);
        run.event(format_args!(
            "{} of {rounds}: nodes {one} and {other} were killed and came back; restarts so far {:?}",
            round + 1,
            restarts(&mut daemon)
        ));
        std::thread::sleep(Duration::from_secs(3));
    }
    stage.settle(&file, daemon).held(format_args!("{rounds} losses of two brokers of three"));
}
