//! The description against the readers, and the schema against every file there is.

mod validator;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use self::validator::mistakes;
use super::{Form, PIPELINE, Section, json_schema};
use crate::config::document::{self, Node, Scalar, Value};
use crate::config::spec::{self, heard};

/// Keys that the readers know only to say that they come later, or why they never will.
const REFUSED: &[(&str, &[&str])] = &[
    ("a pipeline", &["schema_registry"]),
    ("a step", &["join", "sql"]),
    ("a sink", &["subject", "register", "kafka"]),
    ("`checkpoint`", &["compression"]),
    ("`state`", &["rocksdb"]),
];

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn examples() -> Vec<PathBuf> {
    ["tests/pipelines", "../../config/examples"].into_iter().flat_map(yaml_files).collect()
}

/// What no file shows, one section each.
const SHOWN_NOWHERE: &[&str] = &[
    "kafka: { bootstrap_servers: \"a:1\", ids: { group_id: g, transactional_id: t, control_topic: c } }",
    "restart: { strategy: none }",
    "restart: { strategy: fixed, attempts: 3, delay: 1s }",
    "restart: { initial: 1s, max: 1m }",
    "restart: { strategy: failure_rate, failures: 3, per: 1m, delay: 1s }",
];

fn shown_nowhere() -> impl Iterator<Item = Node> {
    SHOWN_NOWHERE.iter().map(|section| {
        let text = format!(
            "pipeline: p\nsources: {{ s: {{ topics: [t], format: json, schema: {{ a: bigint }} }} }}\n\
             sinks: {{ o: {{ from: s, topic: u, format: json }} }}\n{section}\n"
        );
        parse_text(&text).expect(section)
    })
}

fn wrong_files() -> Vec<PathBuf> {
    yaml_files("tests/diagnostics")
}

fn parse(file: &Path) -> Option<Node> {
    parse_text(&std::fs::read_to_string(file).unwrap())
}

fn parse_text(text: &str) -> Option<Node> {
    // Variables keep their place, as they do in an editor.
    document::parse(text, &|name: &str| Some(format!("${{{name}}}")), &mut vec![]).root
}

#[test]
fn the_readers_know_exactly_what_is_described() {
    heard::forget();
    for file in examples().into_iter().chain(wrong_files()) {
        if let Some(root) = parse(&file) {
            spec::read(&root, &mut vec![]);
        }
    }
    for root in shown_nowhere() {
        spec::read(&root, &mut vec![]);
    }
    let heard = heard::all();
    let mut problems = vec![];
    let sections = PIPELINE.all();
    for (what, keys) in &heard.keys {
        let of: Vec<&Section> = sections.iter().copied().filter(|section| section.what == *what).collect();
        let described = || of.iter().flat_map(|section| section.keys);
        let refused = REFUSED.iter().filter(|(of, _)| of == what).flat_map(|(_, keys)| *keys);
        let refused: BTreeSet<&str> = refused.copied().collect();
        let known: BTreeSet<&str> = described().map(|key| key.name).collect();
        let read: BTreeSet<&str> = keys.difference(&refused).copied().collect();
        for key in read.symmetric_difference(&known) {
            let (read, known) = (read.contains(key), known.contains(key));
            problems.push(format!("`{key}` of {what}: read: {read}, described: {known}"));
        }
        let required = described().filter(|key| key.required).map(|key| key.name);
        for key in required.filter(|key| !heard.required.contains(&(*what, *key))) {
            problems.push(format!("`{key}` of {what} is described as required"));
        }
    }
    for section in sections.iter().filter(|section| !heard.keys.contains_key(section.what)) {
        problems.push(format!("{} is described, and no file has it", section.what));
    }
    let mut words = BTreeMap::<&str, BTreeSet<&str>>::new();
    for section in &sections {
        for key in section.keys {
            gather_words(&key.form, words.entry(key.name).or_default());
        }
    }
    for (what, read) in &heard.words {
        let described = words.get(what.as_str()).cloned().unwrap_or_default();
        let read: BTreeSet<&str> = read.iter().map(String::as_str).collect();
        if read != described {
            problems.push(format!("words of `{what}`: read: {read:?}, described: {described:?}"));
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

fn gather_words(form: &'static Form, words: &mut BTreeSet<&'static str>) {
    match form {
        Form::Words(own) => words.extend(*own),
        Form::Either(forms) => forms.iter().for_each(|form| gather_words(form, words)),
        Form::List(form) => gather_words(form, words),
        _ => {}
    }
}

/// What an editor makes of a file: YAML's core schema.
fn json(node: &Node) -> Json {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(key, node)| (key.name.clone(), json(node)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::List(items) => items.iter().map(json).collect::<Vec<_>>().into(),
        Value::Scalar(scalar) => typed(scalar),
        Value::Invalid => Json::Null,
    }
}

fn typed(scalar: &Scalar) -> Json {
    if scalar.is_null() {
        return Json::Null;
    }
    let written = || serde_json::from_str::<Json>(&scalar.text).ok();
    let simple = |value: &Json| value.is_number() || value.is_boolean();
    match scalar.plain {
        true => written().filter(simple).unwrap_or_else(|| scalar.text.clone().into()),
        false => scalar.text.clone().into(),
    }
}

#[test]
fn the_schema_accepts_every_example() {
    let schema = json_schema();
    let files = examples();
    assert!(files.len() >= 4);
    for file in files {
        let found = mistakes(&schema, &json(&parse(&file).unwrap()));
        assert!(found.is_empty(), "{}:\n{}", file.display(), found.join("\n"));
    }
    for (root, section) in shown_nowhere().zip(SHOWN_NOWHERE) {
        assert_eq!(mistakes(&schema, &json(&root)), [""; 0], "{section}");
    }
}

/// The golden mistakes say of themselves whether they are structural.
#[test]
fn the_schema_refuses_what_is_structurally_wrong() {
    let schema = json_schema();
    let (mut refused, mut accepted) = (0, 0);
    for file in wrong_files() {
        let Some(document) = parse(&file) else { continue };
        let said = std::fs::read_to_string(file.with_extension("snap")).unwrap();
        let has = |codes: &[&str]| codes.iter().any(|code| said.contains(&format!("error[{code}]")));
        let structural = has(&["E0101", "E0102", "E0103"]);
        // Values, types, windows, properties and what comes later may show in the structure; other mistakes do not.
        let may_show = has(&[
            "E0002", "E0003", "E0005", "E0006", "E0007", "E0104", "E0105", "E0201", "E0202", "E0501", "E0502",
        ]);
        let valid = mistakes(&schema, &json(&document)).is_empty();
        if structural {
            assert!(!valid, "{} is structurally wrong", file.display());
            refused += 1;
        } else if !may_show {
            assert!(valid, "{} has the right structure", file.display());
            accepted += 1;
        }
    }
    assert!(refused >= 5 && accepted >= 2, "{refused} refused, {accepted} accepted");
}

#[test]
fn durations_sizes_and_variables() {
    let schema = json_schema();
    let with = |checkpoint: Json| {
        serde_json::json!({
            "pipeline": "p",
            "sources": { "s": { "topics": ["t"], "format": "json", "schema": { "a": "bigint" } } },
            "sinks": { "o": { "from": "s", "topic": "u", "format": "json" } },
            "checkpoint": checkpoint,
        })
    };
    for good in [
        serde_json::json!({ "interval": "1s", "max_bytes": "64MiB", "max_records": 5 }),
        serde_json::json!({ "interval": "${INTERVAL}", "max_bytes": 4096, "max_records": "${N:-7}" }),
        serde_json::json!({ "retained": "1_0", "storage": "file://${DIR}" }),
    ] {
        assert_eq!(mistakes(&schema, &with(good)), [""; 0]);
    }
    for wrong in [
        serde_json::json!({ "interval": 5 }),
        serde_json::json!({ "interval": "1 fortnight" }),
        serde_json::json!({ "max_bytes": "64 apples" }),
        serde_json::json!({ "max_records": 0 }),
        serde_json::json!({ "retained": 1001 }),
        serde_json::json!([]),
    ] {
        assert!(!mistakes(&schema, &with(wrong.clone())).is_empty(), "{wrong}");
    }
}
