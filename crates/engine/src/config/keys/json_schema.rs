//! The JSON Schema (draft 2020-12) of a pipeline file, from the description of its keys.
//!
//! It knows structure: keys, forms, words. What stands inside an SQL expression, and whether names fit together, only `validate` knows.

use serde_json::{Map, Value, json};

use super::{Form, Key, PIPELINE, Section};

/// A text with a variable in it: it gets its value, and is checked, when the pipeline is read.
const VARIABLE: &str = r"\$\{";

/// The schema of a pipeline file.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    for section in PIPELINE.all() {
        definitions.insert(section.id.to_owned(), object(section));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Onceflow pipeline",
        "$ref": reference(&PIPELINE),
        "$defs": definitions,
    })
}

fn reference(section: &Section) -> String {
    format!("#/$defs/{}", section.id)
}

fn object(section: &Section) -> Value {
    let properties: Map<String, Value> =
        section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let required: Vec<&str> = section.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    if !section.one_of.is_empty() {
        let sets = section.one_of.iter().map(|keys| json!({ "required": keys }));
        object["anyOf"] = sets.collect::<Vec<_>>().into();
    }
    let needs: Map<String, Value> = section
        .keys
        .iter()
        .filter(|key| !key.needs.is_empty())
        .map(|key| (key.name.to_owned(), json!(key.needs)))
        .collect();
    if !needs.is_empty() {
        object["dependentRequired"] = needs.into();
    }
    object
}

fn property(key: &Key) -> Value {
    let mut property = form(&key.form);
    let default = if key.default.is_empty() { String::new() } else { format!(" Default: {}.", key.default) };
    property["description"] = format!("{}{default}", key.about).into();
    property
}

fn form(form_: &Form) -> Value {
    match form_ {
        Form::Any => json!({}),
        Form::Text | Form::Sql => json!({ "type": ["string", "number", "boolean"] }),
        Form::Matching(pattern) => text(pattern),
        Form::Duration => text(r"^[0-9]+\s*(ms|s|m|h|d)$"),
        Form::SignedDuration => text(r"^-?[0-9]+\s*(ms|s|m|h|d)$"),
        Form::Size => {
            let written = text(r"^[0-9]+\s*(B|[kK]B|[MGT]B|[KMGT]iB)?$");
            json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, written] })
        }
        Form::Number(least, most) => {
            let mut number = json!({ "type": "integer", "minimum": least });
            if *most < u64::MAX {
                number["maximum"] = json!(most);
            }
            json!({ "anyOf": [number, text("^[0-9_]+$")] })
        }
        Form::Words(words) => {
            json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
        }
        Form::List(item) => json!({ "type": "array", "minItems": 1, "items": form(item) }),
        Form::ListOrNone(item) => json!({ "type": "array", "items": form(item) }),
        Form::OneOrMore(item) => {
            let list = json!({ "type": "array", "minItems": 1, "items": form(item) });
            json!({ "anyOf": [form(item), list] })
        }
        Form::Map(value) => {
            json!({ "type": "object", "propertyNames": { "minLength": 1 }, "additionalProperties": form(value) })
        }
        Form::Section(section) => json!({ "$ref": reference(section) }),
        Form::Either(forms) => json!({ "anyOf": forms.iter().map(form).collect::<Vec<_>>() }),
    }
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": format!("{pattern}|{VARIABLE}") })
}
