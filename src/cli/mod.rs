//! The command line: one file for each group of commands.
//!
//! A command is a struct of its arguments with a `run` that returns the exit code. What is shared: `exit` (how a process ends), and
//! [`Inputs`](crate::inputs::Inputs) (settings and plans, or every mistake).

mod against;
mod checkpoint;
mod client;
mod exit;
mod explain;
mod generate;
mod progress;
mod run;
mod savepoint;
mod status;
mod table;
mod test;
mod validate;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::demo::{self, DemoArgs};

/// Exactly-once stream pipelines over Kafka.
#[derive(Debug, Parser)]
#[command(name = "onceflow", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Validate(validate::ValidateArgs),
    Test(test::TestArgs),
    Explain(explain::ExplainArgs),
    Schema(explain::SchemaArgs),
    Status(status::StatusArgs),
    Why(why::WhyArgs),
    Stop(status::StopArgs),
    Checkpoint(checkpoint::CheckpointArgs),
    Savepoint(savepoint::SavepointArgs),
    /// A pipeline under load that is killed again and again, and the proof that nothing is lost or doubled
    Demo(DemoArgs),
    Completions(generate::CompletionsArgs),
    Man(generate::ManArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if !matches!(cli.command, Command::Run(_) | Command::Demo(_)) {
        end_with_the_pipe();
    }
    cli.run()
}

/// Lets a closed pipe (`… | head`) end a command that only prints, as people expect. What runs pipelines must not die of one.
fn end_with_the_pipe() {
    // SAFETY: no other thread runs yet, and the default action needs no handler.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

impl Cli {
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Run(args) => args.run(),
            Command::Validate(args) => args.run(),
            Command::Test(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Schema(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Why(args) => args.run(),
            Command::Stop(args) => args.run(),
            Command::Checkpoint(args) => args.run(),
            Command::Savepoint(args) => args.run(),
            Command::Demo(args) => exit::ended(demo::run(&args)),
            Command::Completions(args) => args.run(Cli::command()),
            Command::Man(args) => args.run(Cli::command()),
        }
    }
}
