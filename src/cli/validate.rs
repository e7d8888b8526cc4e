//! `onceflow validate`: every mistake in pipeline files and, where asked, in what they need around them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use onceflow_engine::plan::{Kafka, Plan};
use onceflow_protocol::coordinator::Requests;
use serde::Serialize;

use super::against::against_running;
use super::exit::{ended, refuse};
use super::progress::Progress;
use super::status::Format;
use crate::connect::{self, Check, Verdict, connect_arguments, default_principal, needed, needed_by};
use crate::daemon;
use crate::inputs::{Inputs, Loaded};
use crate::kafka::{KafkaError, Permission};
use crate::metrics::Metrics;
use crate::pipeline::Context;
use crate::secrets::{mask, mask_quoted};

/// Check pipeline files: every mistake, with its place; exit code 78 if there is one
#[derive(Debug, Args)]
#[command(after_help = "Example: onceflow validate orders-per-user.yaml\n\n\
    Before the first deployment, with the network:\n  \
    onceflow validate --connect orders-per-user.yaml\n  \
    onceflow validate --print-acls --principal User:onceflow orders-per-user.yaml | sh")]
pub struct ValidateArgs {
    /// Pipeline files, or directories of them
    #[arg(required = true, value_name = "FILE|DIR")]
    files: Vec<PathBuf>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Also ask the cluster and this machine: brokers, topics, permissions, transaction limits, storage
    #[arg(long)]
    connect: bool,
    /// Print the commands that grant a pipeline exactly what it needs, instead of a verdict
    #[arg(long, conflicts_with_all = ["connect", "format"])]
    print_acls: bool,
    /// Whom to grant it [default: the SASL user of the pipeline, or User:onceflow]
    #[arg(long, value_name = "PRINCIPAL", requires = "print_acls")]
    principal: Option<String>,
    /// Tell what a deployment would do to the pipelines as they run now: what goes on, and what would be refused
    #[arg(long, conflicts_with_all = ["connect", "print_acls", "format"])]
    against_running: bool,
    /// How to say it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A pipeline without mistakes in its file.
#[derive(Serialize)]
struct Valid {
    file: String,
    pipeline: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

impl ValidateArgs {
    /// Checks, and says what is wrong.
    pub fn run(&self) -> ExitCode {
        let inputs = Inputs { named: self.files.clone(), config: self.config.clone() };
        let loaded = match inputs.load() {
            Ok(loaded) => loaded,
            Err(mistakes) if self.format == Format::Json => {
                let answer =
                    serde_json::json!({ "valid": false, "pipelines": [], "mistakes": mistakes.json() });
                println!("{}", mask_quoted(&format!("{answer:#}")));
                return ExitCode::from(daemon::CONFIG);
            }
            Err(mistakes) => return refuse(&mistakes),
        };
        if self.against_running {
            return ended(against_running(&loaded));
        }
        ended(if self.print_acls { self.print_permissions(&loaded) } else { self.judge(&loaded) })
    }

    fn judge(&self, loaded: &Loaded) -> anyhow::Result<ExitCode> {
        let progress = Progress::new();
        let mut pipelines = vec![];
        for pipeline in &loaded.pipelines {
            let name = &pipeline.plan.pipeline;
            let checks = match self.connect {
                false => None,
                true => Some(match checked(loaded, &pipeline.plan)? {
                    Ok(context) => {
                        connect::check(&context, &mut |what| progress.show(&format!("{name}: {what}")))
                    }
                    Err(check) => vec![check],
                }),
            };
            pipelines.push(Valid {
                file: pipeline.file.display().to_string(),
                pipeline: name.clone(),
                checks,
            });
        }
        progress.clear();
        let failed = || {
            pipelines
                .iter()
                .flat_map(|valid| valid.checks.iter().flatten())
                .filter(|check| check.result == Verdict::Failed)
        };
        let code = match failed().next() {
            None => 0,
            // That may go away by itself.
            Some(_) if failed().all(|check| check.what.starts_with("brokers")) => daemon::TEMPORARY,
            Some(_) => daemon::CONFIG,
        };
        match self.format {
            Format::Json => {
                let answer =
                    serde_json::json!({ "valid": code == 0, "pipelines": pipelines, "mistakes": [] });
                println!("{}", mask_quoted(&format!("{answer:#}")));
            }
            Format::Text => {
                for Valid { file, pipeline, checks } in &pipelines {
                    println!("{file}: pipeline `{pipeline}` is valid");
                    checks.iter().flatten().for_each(|check| println!("{}", mask(&check.to_string())));
                }
            }
        }
        Ok(ExitCode::from(code))
    }

    fn print_permissions(&self, loaded: &Loaded) -> anyhow::Result<ExitCode> {
        for pipeline in &loaded.pipelines {
            let plan = &pipeline.plan;
            let context = checked(loaded, plan)?
                .map_err(|check| anyhow::anyhow!("{}: {}", check.what, check.detail))?;
            let principal = self.principal.clone().unwrap_or_else(|| default_principal(&plan.kafka));
            println!("# What pipeline `{}` needs, as {principal}, and nothing more.", plan.pipeline);
            let grant = |kafka: &Kafka, permissions: &[Permission]| {
                for permission in permissions {
                    println!("{}", permission.kafka_acls(&connect_arguments(kafka), &principal));
                }
            };
            grant(&plan.kafka, &needed(&context));
            for source in &plan.sources {
                if let Some(kafka) = &source.kafka {
                    println!("# For source `{}`, on its own cluster.", source.name);
                    grant(kafka, &needed_by(&context, source));
                }
                for pattern in &source.patterns {
                    println!(
                        "# Source `{}` also needs Read on every topic that {} matches.",
                        source.name,
                        pattern.as_str()
                    );
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What the pipeline's threads would know; or that librdkafka refuses its properties.
pub(super) fn context(loaded: &Loaded, plan: &Arc<Plan>) -> anyhow::Result<Result<Context, KafkaError>> {
    let metrics = Arc::new(Metrics::new()?.pipeline(&plan.pipeline)?);
    Ok(Context::new(plan.clone(), &loaded.settings.namespace, false, Requests::default(), metrics))
}

fn checked(loaded: &Loaded, plan: &Arc<Plan>) -> anyhow::Result<Result<Context, Check>> {
    Ok(context(loaded, plan)?.map_err(|error| Check {
        what: "kafka.properties".to_owned(),
        result: Verdict::Failed,
        detail: error.to_string(),
        advice: Some("correct the properties; they are librdkafka's, by their own names".to_owned()),
    }))
}
