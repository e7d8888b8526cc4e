//! The keys of the settings file, described as those of a pipeline are. A test compares them with the settings themselves.

use onceflow_engine::config::keys::Form::{List, Section as Of, Text, Words};
use onceflow_engine::config::keys::{DEFAULTS, Key, Section};

/// The settings file.
pub static SETTINGS: Section = Section {
    id: "settings",
    what: "the settings",
    one_of: &[],
    keys: &[
        Key::new(
            "namespace",
            Text,
            "First part of every group id, transactional id and control topic. Instances of a pipeline with the same one on the same \
             cluster fence each other: give staging another.",
        )
        .default("onceflow"),
        Key::new("http", Of(&HTTP), "The HTTP server."),
        Key::new("log", Of(&LOG), "Logs, which go to standard error."),
        Key::new("pipelines", Text, "The directory of the pipelines that run where the command line names none."),
        Key::new("defaults", Of(&DEFAULTS), "What pipelines get that do not say it themselves."),
    ],
};

static HTTP: Section = Section {
    id: "http",
    what: "`http`",
    one_of: &[],
    keys: &[
        Key::new("listen", Text, "Address and port; port 0 takes any free one.").default("127.0.0.1:8080"),
        Key::new(
            "token",
            Text,
            "What the API wants to see (`Authorization: Bearer …`) where `listen` is not loopback. Without one it answers nobody there; \
             `/metrics`, `/healthz` and `/readyz` need none.",
        ),
        Key::new(
            "hosts",
            List(&Text),
            "Further names by which this server is asked, without ports. In the environment: with commas between.",
        ),
    ],
};

static LOG: Section = Section {
    id: "log",
    what: "`log`",
    one_of: &[],
    keys: &[
        Key::new(
            "level",
            Words(&["error", "warn", "info", "debug", "trace"]),
            "The least severity that is written.",
        )
        .default("info"),
        Key::new("format", Words(&["text", "json"]), "For people, or one JSON object a line.")
            .default("text"),
    ],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::{Settings, SettingsError};

    fn load(yaml: &str) -> Result<Settings, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        Settings::load(Some(file.path()), [])
    }

    /// What serde says that it expected in place of a wrong key: "…, expected one of `a`, `b`".
    fn expected(yaml: &str) -> BTreeSet<String> {
        let error = load(yaml).unwrap_err().to_string();
        let (_, names) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
        names.split(" for key").next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn names(section: &Section) -> BTreeSet<String> {
        section.keys.iter().map(|key| key.name.to_owned()).collect()
    }

    #[test]
    fn the_settings_are_what_is_described() {
        assert_eq!(expected("nothing: 1"), names(&SETTINGS));
        assert_eq!(expected("http: { nothing: 1 }"), names(&HTTP));
        assert_eq!(expected("log: { nothing: 1 }"), names(&LOG));
        assert_eq!(expected("defaults: { nothing: 1 }"), names(&DEFAULTS));
        for key in LOG.keys {
            let Words(words) = &key.form else { panic!("{} is a word", key.name) };
            let accepted = |word: &str| load(&format!("log: {{ {}: {word} }}", key.name)).is_ok();
            assert!(words.iter().all(|word| accepted(word)) && !accepted("nothing"), "{}", key.name);
        }
    }
}
