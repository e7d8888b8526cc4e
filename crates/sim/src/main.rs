//! `onceflow-sim`: runs seeds, and shows what they found.
//!
//! ```text
//! onceflow-sim protocol|engine [--seeds N] [--from SEED]   run seeds on all cores; fails on a violation, or if something was never reached
//! onceflow-sim protocol|engine --seed SEED                 run one seed and print its trace
//! onceflow-sim planted [--seeds N]                         plant each fault in turn: it must be found within N seeds
//! ```

use std::process::ExitCode;

mod campaign;
#[cfg(feature = "planted-faults")]
mod hunt;

use onceflow_sim::Plans;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let plans = |what: &str| (what == "engine").then(Plans::compile);
    match arguments.first().map(String::as_str) {
        Some(what @ ("protocol" | "engine")) => match option("--seed") {
            Some(seed) => campaign::replay(what, seed, plans(what)),
            None => {
                let seeds = option("--seeds").unwrap_or(if what == "engine" { 5_000 } else { 100_000 });
                campaign::run(what, option("--from").unwrap_or(1), seeds, plans(what))
            }
        },
        #[cfg(feature = "planted-faults")]
        Some("planted") => hunt::run(option("--seeds").unwrap_or(20_000)),
        _ => {
            eprintln!(
                "usage: onceflow-sim protocol|engine [--seeds N] [--from SEED] [--seed SEED] | planted [--seeds N]"
            );
            ExitCode::from(2)
        }
    }
}
