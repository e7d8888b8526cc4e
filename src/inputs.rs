//! What a daemon runs: pipeline files and directories, and its settings, read again at every reload. Either all of it is right, or every
//! mistake in any of the files is told.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onceflow_engine::config::{Defaults, Environment, compile, read_defaults};
use onceflow_engine::diagnostics::{Diagnostics, Secrets};
use onceflow_engine::plan::Plan;

use crate::kafka;
use crate::pipeline::Names;
use crate::secrets;
use crate::settings::{self, Settings};

/// Endings of the files that count in a directory.
const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// Largest file that `${file:…}` takes for a value.
const MOST_BYTES: u64 = 1 << 20;

/// Where everything is read from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files and directories that the command line names; if there are none, the settings name a directory.
    pub named: Vec<PathBuf>,
    /// The file of the settings, where the command line names it.
    pub config: Option<PathBuf>,
}

/// What was read, without a mistake in it.
#[derive(Debug)]
pub struct Loaded {
    /// The daemon's own settings.
    pub settings: Settings,
    /// Pipelines, in the order of the command line, those of a directory by the name of their file.
    pub pipelines: Vec<Pipeline>,
    /// Whether a directory is among what was named: pipelines may come and go in it.
    pub directory: bool,
}

/// A pipeline that is to run.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Where it was read.
    pub file: PathBuf,
    /// What it does.
    pub plan: Arc<Plan>,
}

/// Everything that is wrong with what was read; at least one mistake. Printed, it ends with a newline.
#[derive(Clone, Debug, Default)]
pub struct Mistakes(Vec<Mistake>);

/// One mistake, or all of one file.
#[derive(Clone, Debug)]
enum Mistake {
    /// Those of a file, with their places.
    InFile(Diagnostics),
    /// One that has no place in a file.
    Other(String),
}

impl Mistakes {
    fn add(&mut self, message: impl Into<String>) {
        self.0.push(Mistake::Other(message.into()));
    }

    /// The same for programs: an object for each mistake, with `file`, `line`, `column` and `code` where it has a place.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let mut all = vec![];
        for mistake in &self.0 {
            match mistake {
                Mistake::Other(message) => all.push(serde_json::json!({ "message": message })),
                Mistake::InFile(diagnostics) => all.extend(diagnostics.iter().map(|item| {
                    let (line, column) = diagnostics.position(item.span);
                    serde_json::json!({
                        "file": diagnostics.file(),
                        "line": line,
                        "column": column,
                        "code": item.code.as_str(),
                        "message": item.message,
                        "label": item.label,
                        "hint": item.hint,
                    })
                })),
            }
        }
        all
    }
}

impl From<String> for Mistakes {
    fn from(message: String) -> Mistakes {
        Mistakes(vec![Mistake::Other(message)])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| match mistake {
            Mistake::InFile(diagnostics) => write!(f, "{diagnostics}"),
            Mistake::Other(message) => writeln!(f, "{message}"),
        })
    }
}

impl Inputs {
    /// Reads everything.
    ///
    /// # Errors
    /// Every mistake in any of the files.
    pub fn load(&self) -> Result<Loaded, Mistakes> {
        self.load_with(|_| ())
    }

    /// The same for what never asks Kafka: nobody need say where that is.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_without_kafka(&self) -> Result<Loaded, Mistakes> {
        self.load_with(|defaults| {
            defaults.kafka.bootstrap_servers.get_or_insert_with(|| "nowhere:9092".to_owned());
        })
    }

    fn load_with(&self, adjust: impl FnOnce(&mut Defaults)) -> Result<Loaded, Mistakes> {
        let settings = Settings::of_process(self.config.as_deref())
            .map_err(|error| Mistakes::from(error.to_string()))?;
        if let Some(token) = &settings.http.token {
            let mut secrets = Secrets::default();
            secrets.add(token.reveal());
            secrets::learn(&secrets);
        }
        let mut defaults = defaults(&settings, self.config.as_deref())?;
        adjust(&mut defaults);
        let mut mistakes = Mistakes::default();
        let (files, directory) = self.files(&settings, &mut mistakes);
        let mut pipelines: Vec<Pipeline> = vec![];
        for file in files {
            let name = file.display().to_string();
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) => {
                    mistakes.add(format!("{name}: cannot be read: {error}"));
                    continue;
                }
            };
            let compiled = compile(&name, &text, &defaults, &Surroundings);
            if let Ok(plan) = &compiled {
                secrets::learn(&plan.secrets);
            }
            match compiled {
                Ok(plan) => {
                    if let Some((what, other)) =
                        pipelines.iter().find_map(|other| same(other, &plan, &settings.namespace))
                    {
                        mistakes
                            .add(format!("{name}: {what} is in {other} too: they would fence each other"));
                        continue;
                    }
                    // A reload that finds them only on starting would have stopped what runs.
                    for (property, reason) in kafka::check(&plan.kafka.properties) {
                        let reason = secrets::mask(&reason).into_owned();
                        mistakes.add(format!("{name}: Kafka property `{property}`: {reason}"));
                    }
                    pipelines.push(Pipeline { file, plan: Arc::new(plan) });
                }
                Err(diagnostics) => mistakes.0.push(Mistake::InFile(diagnostics)),
            }
        }
        if mistakes.0.is_empty() { Ok(Loaded { settings, pipelines, directory }) } else { Err(mistakes) }
    }

    /// The pipeline files, and whether a directory is among their sources.
    fn files(&self, settings: &Settings, mistakes: &mut Mistakes) -> (Vec<PathBuf>, bool) {
        let named = if self.named.is_empty() { settings.pipelines.as_slice() } else { &self.named };
        if named.is_empty() {
            mistakes.add("no pipelines: name files or a directory, or set `pipelines` in the settings");
        }
        let (mut files, mut directory) = (vec![], false);
        for path in named {
            // Only the settings say that it must be one.
            if path.is_dir() || self.named.is_empty() {
                directory = true;
                match directory_files(path) {
                    Ok(found) => files.extend(found),
                    Err(error) => {
                        mistakes.add(format!("{}: cannot be listed: {error}", path.display()));
                    }
                }
            } else {
                files.push(path.clone());
            }
        }
        (files, directory)
    }
}

/// What two pipelines have in common that each must have of its own, and the other's file.
fn same(other: &Pipeline, plan: &Plan, namespace: &str) -> Option<(String, String)> {
    let (ours, theirs) = (Names::of(plan, namespace), Names::of(&other.plan, namespace));
    let what = if other.plan.pipeline == plan.pipeline {
        format!("pipeline `{}`", plan.pipeline)
    } else if ours.transactional_id == theirs.transactional_id {
        format!("the transactional id `{}`", ours.transactional_id)
    } else if ours.control_topic == theirs.control_topic {
        format!("the control topic `{}`", ours.control_topic)
    } else {
        return None;
    };
    Some((what, other.file.display().to_string()))
}

/// What `${…}` refers to: the process's environment, the machine's files, and the credentials that the service manager passed.
pub struct Surroundings;

impl Environment for Surroundings {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        read_value(Path::new(path))
    }

    fn credential(&self, name: &str) -> Result<String, String> {
        match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(directory) => read_value(&Path::new(&directory).join(name)),
            None => Err("no credentials were passed ($CREDENTIALS_DIRECTORY is not set)".to_owned()),
        }
    }
}

fn read_value(path: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    // Opening a pipe would wait for its writer.
    let about = std::fs::metadata(path).map_err(said)?;
    if !about.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if about.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, and at most {MOST_BYTES} make a value", about.len()));
    }
    String::from_utf8(std::fs::read(path).map_err(said)?).map_err(|_| "it is no UTF-8 text".to_owned())
}

/// The pipelines of a directory, by name. Its directories are not looked into, and hidden files not read: editors leave such behind, and
/// mounted volumes keep older versions in them.
fn directory_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ends = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if ends && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The sections of a pipeline that the daemon's settings hold. They went through the settings file and the environment, so that
/// their mistakes point into what came of both.
fn defaults(settings: &Settings, config: Option<&Path>) -> Result<Defaults, Mistakes> {
    let file = config.unwrap_or(Path::new(settings::DEFAULT_FILE));
    let sections = serde_json::to_string_pretty(&settings.defaults)
        .map_err(|error| Mistakes::from(error.to_string()))?;
    read_defaults(&format!("{} (defaults)", file.display()), &sections, &Surroundings)
        .map_err(|diagnostics| Mistakes(vec![Mistake::InFile(diagnostics)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(name: &str) -> String {
        format!(
            "pipeline: {name}\nkafka: {{ bootstrap_servers: \"k:1\" }}\n\
             sources: {{ in: {{ topics: [a], format: json, schema: {{ x: bigint }} }} }}\n\
             sinks: {{ out: {{ from: in, topic: b, format: json }} }}\n"
        )
    }

    fn inputs(directory: &Path, named: &[&str]) -> Inputs {
        std::fs::write(directory.join("settings"), "").unwrap();
        let named = named.iter().map(|name| directory.join(name)).collect();
        Inputs { named, config: Some(directory.join("settings")) }
    }

    fn names(inputs: &Inputs) -> Vec<String> {
        let loaded = inputs.load().unwrap_or_else(|mistakes| panic!("{mistakes}"));
        loaded.pipelines.iter().map(|pipeline| pipeline.plan.pipeline.clone()).collect()
    }

    #[test]
    fn a_directory_is_its_visible_yaml_files() {
        let dir = tempfile::tempdir().unwrap();
        let pipelines = dir.path().join("pipelines");
        std::fs::create_dir_all(pipelines.join("c.yaml")).unwrap();
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a")] {
            std::fs::write(pipelines.join(file), pipeline(name)).unwrap();
        }
        for noise in [".a.yaml", "a.yaml~", "README"] {
            std::fs::write(pipelines.join(noise), "no pipeline").unwrap();
        }
        let directory = inputs(dir.path(), &["pipelines"]);
        assert_eq!(names(&directory), ["a", "b"]);
        assert!(directory.load().unwrap().directory);
        let files = inputs(dir.path(), &["pipelines/b.yml", "pipelines/a.yaml"]);
        assert_eq!(names(&files), ["b", "a"]);
        assert!(!files.load().unwrap().directory);

        let settings = format!("pipelines: {}\n", pipelines.display());
        let from_settings = inputs(dir.path(), &[]);
        std::fs::write(dir.path().join("settings"), settings).unwrap();
        assert_eq!(names(&from_settings), ["a", "b"]);
    }

    #[test]
    fn every_mistake_of_every_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("a.yaml", pipeline("p")),
            ("b.yaml", pipeline("p")),
            ("c.yaml", "pipeline: A".to_owned()),
            ("d.yaml", pipeline("d").replace("\"k:1\"", "\"k:1\", properties: { linger.ms: soon }")),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let mistakes = inputs(dir.path(), &["", "absent.yaml"]).load().unwrap_err().to_string();
        for told in [
            "b.yaml: pipeline `p` is in",
            "c.yaml:1:11:",
            "d.yaml: Kafka property `linger.ms`",
            "absent.yaml: cannot be read",
        ] {
            assert!(mistakes.contains(told), "{mistakes}");
        }
        let nothing = inputs(dir.path(), &[]).load().unwrap_err().to_string();
        assert!(nothing.starts_with("no pipelines"), "{nothing}");
    }

    #[test]
    fn a_fingerprint_is_what_the_file_says_and_leaves_to_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let fingerprint = |text: &str, settings: &str| {
            let inputs = inputs(dir.path(), &["p.yaml"]);
            std::fs::write(dir.path().join("p.yaml"), text).unwrap();
            std::fs::write(dir.path().join("settings"), settings).unwrap();
            inputs.load().unwrap_or_else(|mistakes| panic!("{mistakes}")).pipelines[0].plan.fingerprint
        };
        let text = pipeline("p");
        let before = fingerprint(&text, "");
        assert_eq!(fingerprint(&format!("# a comment\n{text}"), ""), before);
        assert_eq!(fingerprint(&text, "defaults: { kafka: { bootstrap_servers: \"other:1\" } }"), before);
        assert_ne!(fingerprint(&text, "defaults: { checkpoint: { interval: 9s } }"), before);
        assert_ne!(fingerprint(&text, "defaults: { kafka: { properties: { client.id: x } } }"), before);
        assert_ne!(fingerprint(&text.replace("topic: b,", "topic: c,"), ""), before);
    }
}
