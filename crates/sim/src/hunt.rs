//! Plants each fault in turn and counts the seeds until it is found.

use std::process::ExitCode;

use onceflow_protocol::planted::{Planted, plant};
use onceflow_sim::{Plans, run as run_seed};

/// Faults that only the engine can have; the others are hunted with the fold, which is faster.
const OF_THE_ENGINE: &[Planted] = &[
    Planted::NoHoldForColdState,
    Planted::OlderGenerationLost,
    Planted::LiveSegmentDropped,
    Planted::RowsLostByEviction,
    Planted::RowsDoubledByEviction,
    Planted::OldExtentsKept,
    Planted::ChangesLostByEviction,
    Planted::SessionCutAtPane,
    Planted::SessionMovedUnwritten,
    Planted::SessionBlindToRuns,
    Planted::DuplicateBlindToOthers,
    Planted::DuplicateBlindToRuns,
    Planted::DuplicateUnwritten,
    Planted::SumsKept,
];

/// Each must be found within `seeds` seeds.
pub fn run(seeds: u64) -> ExitCode {
    let plans = Plans::compile();
    let mut missed = 0;
    println!("{:<28} {:>7} {:>6}  found as", "planted fault", "with", "seeds");
    for fault in Planted::ALL {
        let engine = OF_THE_ENGINE.contains(fault);
        plant(Some(*fault));
        let found = (1..=seeds).find_map(|seed| {
            let report = run_seed(seed, engine.then(|| plans.clone()), false);
            Some((seed, report.violation?))
        });
        plant(None);
        let with = if engine { "engine" } else { "fold" };
        match found {
            Some((seed, violation)) => {
                let violation: String = violation.chars().take(120).collect();
                println!("{:<28} {with:>7} {seed:>6}  {violation}", format!("{fault:?}"));
            }
            None => {
                missed += 1;
                println!("{:<28} {with:>7} {:>6}  NOT FOUND in {seeds} seeds", format!("{fault:?}"), "-");
            }
        }
    }
    if missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
