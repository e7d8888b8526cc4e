//! Instances that are stopped (SIGSTOP) at any moment, replaced, and wake up beside their successors, several at a time.

use std::time::Duration;

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::Settings;

use crate::run::{RECOVERY, Run, Stage, commits};

#[test]
#[ignore = "make chaos: wants a quiet machine"]
fn zombies_wake_up_beside_their_successors() {
    let mut stage = Run::begin("zombies").under_load(Orders::default());
    let Stage { run, scenario, .. } = &mut stage;
    let rounds = run.either(3, 25);
    let mut file = scenario.write_windowed(&Settings::default());
    let mut owner = Daemon::run(scenario, &file);
    let mut woken = 0;
    for round in 0..rounds {
        file = scenario.write_windowed(&Settings { parallelism: 1 + round % 2, ..Settings::default() });
        commits(scenario, &mut owner, 2);
        std::thread::sleep(run.moment(150));
        owner.signal(libc::SIGSTOP);
        let mut instances = vec![owner];
        // Some successors are stopped while they start: they may wake up with the fence still to be raised.
        for _ in 0..run.rng.below(3) {
            let moment = run.moment(1_500);
            let successor = Daemon::run(scenario, &file);
            std::thread::sleep(moment);
            successor.signal(libc::SIGSTOP);
            instances.push(successor);
        }
        let mut successor = Daemon::run(scenario, &file);
        if run.rng.one_in(2) {
            commits(scenario, &mut successor, 2);
        } else {
            std::thread::sleep(run.moment(1_500));
        }
        let zombies = instances.len();
        woken += zombies;
        instances.iter().for_each(|zombie| zombie.signal(libc::SIGCONT));
        instances.push(successor);
        let place = one_owner(&mut instances);
        run.event(format_args!(
            "round {} of {rounds}: {zombies} zombies woken, instance {} of {} owns the pipeline, the others know",
            round + 1,
            place + 1,
            zombies + 1
        ));
        owner = instances.remove(place);
        instances.into_iter().for_each(Daemon::stop);
    }
    stage.settle(&file, owner).held(format_args!("{woken} zombies in {rounds} rounds"));
}

/// Waits until one instance runs and all others are fenced, and says which. Whoever claimed last owns the pipeline: that may be a
/// zombie which was stopped before it had claimed.
fn one_owner(instances: &mut [Daemon]) -> usize {
    let start = std::time::Instant::now();
    loop {
        let ready: Vec<bool> = instances.iter().map(Daemon::is_ready).collect();
        let fenced = instances.iter().filter(|instance| instance.is_fenced()).count();
        let owner = ready.iter().position(|ready| *ready);
        if let Some(owner) = owner.filter(|_| fenced == instances.len() - 1) {
            return owner;
        }
        for instance in instances.iter_mut() {
            assert_eq!(instance.poll(), None, "an instance ended\n{}", instance.log_end());
        }
        assert!(start.elapsed() < RECOVERY, "ready: {ready:?}, and {fenced} fenced of {}", instances.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}
