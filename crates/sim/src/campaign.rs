//! Many seeds on all cores, and one seed with its trace.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use onceflow_sim::{Coverage, Plans, run as run_seed};

/// Violations after which it is no use to go on.
const ENOUGH: usize = 10;

/// Runs seeds `from..from + seeds` and prints what they reached.
pub fn run(what: &str, from: u64, seeds: u64, plans: Option<Plans>) -> ExitCode {
    let next = AtomicU64::new(from);
    let sum = Mutex::new((Coverage::default(), Vec::<(u64, String)>::new()));
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("sim: {seeds} seeds of {what} from {from} on {cores} cores");
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let report = run_seed(seed, plans.clone(), false);
                    let Ok(mut sum) = sum.lock() else { return };
                    sum.0.add(&report.coverage);
                    if let Some(violation) = report.violation {
                        println!("sim: seed {seed}: {violation}");
                        sum.1.push((seed, violation));
                        if sum.1.len() >= ENOUGH {
                            next.store(from + seeds, Relaxed);
                        }
                    }
                }
            });
        }
        let mut shown = Instant::now();
        while next.load(Relaxed) < from + seeds {
            std::thread::sleep(Duration::from_millis(50));
            if shown.elapsed() > Duration::from_secs(10) {
                shown = Instant::now();
                println!(
                    "sim: {} of {seeds} seeds after {} s",
                    next.load(Relaxed) - from,
                    began.elapsed().as_secs()
                );
            }
        }
    });
    let (coverage, violations) = sum.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut unreached = 0;
    for (line, count) in coverage.lines(what == "engine") {
        let mark = if count == 0 { "   NEVER REACHED" } else { "" };
        unreached += u64::from(count == 0);
        println!("{count:>12}  {line}{mark}");
    }
    println!("sim: {what}: {} violations in {} s", violations.len(), began.elapsed().as_secs());
    if let Some((seed, _)) = violations.iter().min() {
        println!("sim: replay with: make sim WHAT={what} SEED={seed}");
        return ExitCode::FAILURE;
    }
    // A few seeds cannot reach everything.
    if unreached > 0 && seeds >= 5_000 {
        println!("sim: {unreached} things were never reached: this run proves nothing about them");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs one seed and prints what happened.
pub fn replay(what: &str, seed: u64, plans: Option<Plans>) -> ExitCode {
    println!("sim: seed {seed} of {what}; columns: time (ms), process (0 is the world), what");
    let report = run_seed(seed, plans, true);
    report.trace.iter().for_each(|line| println!("{line}"));
    match report.violation {
        None => {
            println!("sim: nothing is wrong");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("sim: {violation}");
            ExitCode::FAILURE
        }
    }
}
