//! A short search in every test run; `make sim` is the long one.

use onceflow_sim::{Coverage, Plans, run};

fn search(seeds: std::ops::Range<u64>, plans: Option<Plans>) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let report = run(seed, plans.clone(), false);
        assert_eq!(report.violation, None, "seed {seed}");
        coverage.add(&report.coverage);
    }
    coverage
}

#[test]
fn no_seed_of_the_protocol_finds_a_violation() {
    assert!(search(1..3_000, None).commits > 10_000);
}

#[test]
fn no_seed_of_the_engine_finds_a_violation() {
    assert!(search(1..200, Some(Plans::compile())).commits > 500);
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let trace = |seed| run(seed, None, true).trace;
    assert!(!trace(7).is_empty());
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
