//! Settings and pipeline files, for every command that needs them: all of it valid, or every mistake in any of it.

use std::path::{Path, PathBuf};

use onceflow_engine::config::{Defaults, compile, read_defaults};
use onceflow_engine::plan::Plan;

use crate::settings::{self, Settings};

/// Settings and plans, or every mistake in any of the files.
pub fn load(files: &[PathBuf], config: Option<&Path>) -> Result<(Settings, Vec<Plan>), String> {
    let settings = Settings::load(config, std::env::vars()).map_err(|error| format!("{error}\n"))?;
    let environment = |name: &str| std::env::var(name).ok();
    let defaults = defaults(&settings, config, &environment)?;
    let mut mistakes = String::new();
    let mut plans: Vec<Plan> = vec![];
    for file in files {
        let name = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                mistakes.push_str(&format!("{name}: cannot be read: {error}\n"));
                continue;
            }
        };
        match compile(&name, &text, &defaults, &environment) {
            Ok(plan) => match plans.iter().find(|other| other.pipeline == plan.pipeline) {
                Some(_) => mistakes.push_str(&format!(
                    "{name}: pipeline `{}` is in another file too: they would fence each other\n",
                    plan.pipeline
                )),
                None => plans.push(plan),
            },
            Err(diagnostics) => mistakes.push_str(&diagnostics.to_string()),
        }
    }
    if mistakes.is_empty() { Ok((settings, plans)) } else { Err(mistakes) }
}

/// The sections of a pipeline that the daemon's settings hold. They went through the settings file and the environment, so that
/// their mistakes point into what came of both.
fn defaults(
    settings: &Settings,
    config: Option<&Path>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Defaults, String> {
    let file = config.unwrap_or(Path::new(settings::DEFAULT_FILE));
    let sections = serde_json::to_string_pretty(&settings.defaults).map_err(|error| format!("{error}\n"))?;
    read_defaults(&format!("{} (defaults)", file.display()), &sections, environment)
        .map_err(|diagnostics| diagnostics.to_string())
}
