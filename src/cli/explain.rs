//! `onceflow explain` and `onceflow schema`: what a pipeline does, and what a pipeline file may say.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use onceflow_engine::config::keys::json_schema;
use onceflow_engine::plan::explain::Explanation;

use super::exit::{ended, refuse};
use crate::inputs::Inputs;
use crate::secrets::{mask, mask_quoted};

/// Show what a pipeline does: steps, types, columns read, state
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow explain --format mermaid orders-per-user.yaml")]
pub struct ExplainArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to show it
    #[arg(long, value_enum, default_value_t)]
    format: ExplainFormat,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ExplainFormat {
    /// For a terminal
    #[default]
    Text,
    /// For a program
    Json,
    /// A flowchart for a page or a review
    Mermaid,
}

impl ExplainArgs {
    /// Explains, or says what is wrong with the file.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: vec![self.file.clone()], config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) => return refuse(&mistakes),
        };
        for pipeline in &loaded.pipelines {
            let explanation = Explanation::of(&pipeline.plan);
            match self.format {
                ExplainFormat::Text => print!("{}", mask(&explanation.to_string())),
                ExplainFormat::Mermaid => print!("{}", mask(&explanation.mermaid())),
                ExplainFormat::Json => match serde_json::to_string_pretty(&explanation) {
                    Ok(json) => println!("{}", mask_quoted(&json)),
                    Err(error) => return ended(Err(error.into())),
                },
            }
        }
        ExitCode::SUCCESS
    }
}

/// Print the JSON Schema of a pipeline file, for editors
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow schema > pipeline.schema.json\n\n\
    Then, as the first line of a pipeline file, for editors with yaml-language-server:\n  \
    # yaml-language-server: $schema=pipeline.schema.json")]
pub struct SchemaArgs {}

impl SchemaArgs {
    /// Prints it.
    pub fn run(&self) -> ExitCode {
        println!("{:#}", json_schema());
        ExitCode::SUCCESS
    }
}
