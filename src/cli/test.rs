//! `onceflow test`: a pipeline's own tests, without Kafka.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use onceflow_engine::rehearsal::rehearse;

use super::exit::refuse;
use crate::inputs::Inputs;
use crate::secrets::mask;

/// Run the tests that pipeline files carry, without Kafka; exit code 1 if one fails
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow test orders-per-user.yaml\n\n\
    A test says what happens, and what is to come out of it:\n\n  \
    tests:\n    \
      an order is counted in its minute:\n      \
        input:\n        \
          - { value: { user_id: ann, amount: 5, ts: 1000 } }\n        \
          - end\n      \
        output:\n        \
          totals:\n          \
            - { key: ann }")]
pub struct TestArgs {
    /// Pipeline files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only the tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

impl TestArgs {
    /// Runs them, and shows how those that fail differ.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        let loaded = match inputs.load_without_kafka() {
            Ok(loaded) => loaded,
            Err(mistakes) => return refuse(&mistakes),
        };
        let (mut passed, mut failed) = (0, 0);
        for pipeline in &loaded.pipelines {
            println!("{}", pipeline.file.display());
            let chosen = |name: &str| self.only.as_ref().is_none_or(|only| name.contains(only));
            for test in pipeline.plan.tests.iter().filter(|test| chosen(&test.name)) {
                match rehearse(&pipeline.plan, test) {
                    Ok(()) => {
                        println!("  ok    {}", test.name);
                        passed += 1;
                    }
                    Err(failure) => {
                        println!("  FAIL  {}", test.name);
                        for line in mask(&failure.to_string()).lines() {
                            println!("        {line}");
                        }
                        failed += 1;
                    }
                }
            }
        }
        match passed + failed {
            0 => println!("no tests: a pipeline has them under `tests:`"),
            all => println!("{all} tests, {failed} failed"),
        }
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
