//! The daemon's own settings: built-in values, then a file (YAML), then the environment.
//!
//! A variable is `ONCEFLOW_` and the path of the setting, in capitals, with `__` between its parts: `ONCEFLOW_HTTP__LISTEN`,
//! `ONCEFLOW_DEFAULTS__CHECKPOINT__STORAGE`. Unknown settings are refused. Variables that neither contain `__` nor name a
//! setting are left alone: container platforms set such ones for any service of the same name (`ONCEFLOW_SERVICE_HOST`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{Config, Environment, File, FileFormat};
use onceflow_engine::config::substitute;
use serde::{Deserialize, Deserializer, Serialize};

use crate::inputs::Surroundings;
use crate::storage::check_component;

/// Where the settings are looked for if nobody says otherwise; they need not be there.
pub const DEFAULT_FILE: &str = "/etc/onceflow/onceflow.yaml";

/// The settings, complete and checked.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// First part of every name that pipelines use in Kafka and in the checkpoint storage.
    pub namespace: String,
    /// The HTTP server.
    pub http: Http,
    /// Logs.
    pub log: Log,
    /// Directory of the pipelines that run where the command line names none.
    pub pipelines: Option<PathBuf>,
    /// What pipelines get that do not say it themselves.
    pub defaults: Defaults,
}

/// `http`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What the API wants to see where `listen` is not loopback.
    pub token: Option<Secret>,
    /// Further names that this server is asked by, without ports.
    #[serde(deserialize_with = "names")]
    pub hosts: Vec<String>,
}

/// `log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least severity that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// `log.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

impl Secret {
    /// Itself, for whoever has to mask it, or to show it to the daemon.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is it. How long that takes tells nothing about where they differ.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let pairs = given.iter().zip(own.iter().cycle());
        let differing = pairs.fold(0, |differing, (one, other)| differing | (one ^ other));
        given.len() == own.len() && std::hint::black_box(differing) == 0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Secret {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A list of names, or a text with commas between them, as a variable holds it.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        Text(String),
        List(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::Text(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        Names::List(names) => names,
    })
}

/// `defaults`: sections of a pipeline file, in the same form. They are checked together with the pipeline that uses them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "named like the sections")]
pub struct Defaults {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<serde_json::Value>,
}

/// What is wrong with the settings, and where.
#[derive(Debug, thiserror::Error)]
#[error("settings: {0}")]
pub struct SettingsError(String);

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            namespace: "onceflow".to_owned(),
            http: Http::default(),
            log: Log::default(),
            pipelines: None,
            defaults: Defaults::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Http {
        Http { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), token: None, hosts: vec![] }
    }
}

impl Settings {
    /// Reads the settings with the environment of this process, less what is not UTF-8.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn of_process(file: Option<&Path>) -> Result<Settings, SettingsError> {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::load(file, std::env::vars_os().filter_map(text))
    }

    /// Reads the settings. `file` must exist; without one, [`DEFAULT_FILE`] is read if it does. `variables` is the environment.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Settings, SettingsError> {
        let (path, required) = match file {
            Some(file) => (file, true),
            None => (Path::new(DEFAULT_FILE), false),
        };
        // Text settings stay text, also `0123`. Defaults are read by others, who tell a number from a text.
        let (defaults, own): (HashMap<_, _>, HashMap<_, _>) = variables
            .into_iter()
            .filter(|(name, _)| names_a_setting(name))
            .partition(|(name, _)| name.starts_with("ONCEFLOW_DEFAULTS__"));
        let environment =
            || Environment::with_prefix("ONCEFLOW").prefix_separator("_").separator("__").ignore_empty(true);
        let mut settings: Settings = Config::builder()
            .add_source(File::from(path).format(FileFormat::Yaml).required(required))
            .add_source(environment().source(Some(own)))
            .add_source(environment().source(Some(defaults)).try_parsing(true))
            .build()
            .and_then(Config::try_deserialize)
            .map_err(|error| SettingsError(error.to_string()))?;
        if let Some(Secret(token)) = &mut settings.http.token {
            (*token, _) = substitute("http.token", token, &Surroundings)
                .map_err(|diagnostics| SettingsError(diagnostics.to_string()))?;
        }
        if settings.http.token.as_ref().is_some_and(|token| token.0.is_empty()) {
            return Err(SettingsError("http.token: it is empty".to_owned()));
        }
        check_component(&settings.namespace)
            .map_err(|what| SettingsError(format!("namespace `{}`: {what}", settings.namespace)))?;
        Ok(settings)
    }
}

fn names_a_setting(variable: &str) -> bool {
    matches!(variable, "ONCEFLOW_NAMESPACE" | "ONCEFLOW_PIPELINES")
        || (variable.starts_with("ONCEFLOW_") && variable.contains("__"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Settings::load(Some(file.path()), variables)
    }

    #[test]
    fn nothing_said_is_the_default() {
        let settings = load("", &[("ONCEFLOW_SERVICE_HOST", "10.0.0.1"), ("PATH", "/bin")]).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.namespace, "onceflow");
        assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((settings.log.level, settings.log.format), (LogLevel::Info, LogFormat::Text));
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let yaml = "namespace: staging\nhttp: {listen: 0.0.0.0:9000}\nlog: {level: warn}\n\
                    defaults:\n  kafka: {bootstrap_servers: a:1, properties: {security.protocol: SSL}}\n  \
                    checkpoint: {interval: 1s}\n";
        let variables = [
            ("ONCEFLOW_NAMESPACE", "0123"),
            ("ONCEFLOW_LOG__FORMAT", "json"),
            ("ONCEFLOW_HTTP__LISTEN", "[::1]:0"),
            ("ONCEFLOW_DEFAULTS__CHECKPOINT__STORAGE", "file:///srv/Check"),
            ("ONCEFLOW_DEFAULTS__CHECKPOINT__RETAINED", "5"),
        ];
        let settings = load(yaml, &variables).unwrap();
        assert_eq!(settings.namespace, "0123");
        assert_eq!(settings.http.listen.to_string(), "[::1]:0");
        assert_eq!(settings.log, Log { level: LogLevel::Warn, format: LogFormat::Json });
        assert_eq!(
            settings.defaults.checkpoint,
            Some(serde_json::json!({"interval": "1s", "storage": "file:///srv/Check", "retained": 5}))
        );
        assert_eq!(
            settings.defaults.kafka,
            Some(serde_json::json!({"bootstrap_servers": "a:1", "properties": {"security.protocol": "SSL"}}))
        );
    }

    #[test]
    fn a_token_is_compared_and_never_printed() {
        let variables = [("ONCEFLOW_HTTP__TOKEN", "0123"), ("ONCEFLOW_HTTP__HOSTS", "a.example, b.example")];
        let settings = load("http: {token: other, hosts: [c.example]}", &variables).unwrap();
        assert_eq!(settings.http.hosts, ["a.example", "b.example"]);
        let token = settings.http.token.as_ref().unwrap();
        for (given, is) in [("0123", true), ("0124", false), ("012", false), ("01230123", false), ("", false)]
        {
            assert_eq!(token.is(given.as_bytes()), is, "{given}");
        }
        assert!(!format!("{settings:?}").contains("0123"), "{settings:?}");
    }

    #[test]
    fn mistakes_are_refused_by_name() {
        for (yaml, variables, named) in [
            ("htpp: {}", &[][..], "htpp"),
            ("http: {listn: 127.0.0.1:1}", &[], "listn"),
            ("http: {listen: here}", &[], "http.listen"),
            ("log: {level: loud}", &[], "loud"),
            ("defaults: {sources: {}}", &[], "sources"),
            ("namespace: ../up", &[], "../up"),
            ("http: {token: ''}", &[], "http.token"),
            ("", &[("ONCEFLOW_HTTP__LISTN", "127.0.0.1:1")], "listn"),
            ("", &[("ONCEFLOW_LOG__LEVEL", "loud")], "loud"),
        ] {
            let error = load(yaml, variables).expect_err(yaml).to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(Settings::load(Some(Path::new("/nowhere/onceflow.yaml")), []).is_err());
    }
}
