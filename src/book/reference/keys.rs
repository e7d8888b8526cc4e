//! Keys of pipeline files and settings, from the descriptions that the JSON Schema is made from.

use onceflow_engine::config::keys::{Form, Key, PIPELINE, Section};

use super::cell;
use super::settings::SETTINGS;

/// How a value is written, in a few words.
fn form(value: &Form, own: &[&Section]) -> String {
    match value {
        Form::Any => "anything".to_owned(),
        Form::Text | Form::Matching(_) => "text".to_owned(),
        Form::Sql => "SQL".to_owned(),
        Form::Duration => "duration".to_owned(),
        Form::SignedDuration => "duration, also below zero".to_owned(),
        Form::Size => "size".to_owned(),
        Form::Number(least, u64::MAX) => format!("number from {least}"),
        Form::Number(least, most) => format!("number from {least} to {most}"),
        Form::Words(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Form::List(item) | Form::ListOrNone(item) => format!("list of {}", form(item, own)),
        Form::OneOrMore(item) => format!("{}, or a list", form(item, own)),
        Form::Map(value) => format!("names, each with {}", form(value, own)),
        Form::Section(section) => {
            let page = if own.iter().any(|own| own.id == section.id) { "" } else { "pipeline.md" };
            format!("[keys]({page}#{})", section.id)
        }
        Form::Either(forms) => forms.iter().map(|value| form(value, own)).collect::<Vec<_>>().join(", or "),
    }
}

fn row(key: &Key, section: &Section, own: &[&Section]) -> String {
    let mut about = key.about.to_owned();
    if !key.needs.is_empty() {
        let needs: Vec<String> = key.needs.iter().map(|need| format!("`{need}`")).collect();
        about.push_str(&format!(" Needs {}.", needs.join(" and ")));
    }
    let required = key.required || section.one_of == [[key.name]];
    let default = match (required, key.default) {
        (true, _) => "required".to_owned(),
        (false, "") => String::new(),
        // A value, rather than words about one.
        (false, default) if !default.contains(' ') => format!("`{default}`"),
        (false, default) => default.to_owned(),
    };
    format!("| `{}` | {} | {} | {} |\n", key.name, cell(&form(&key.form, own)), cell(&default), cell(&about))
}

fn tables(sections: &[&'static Section], text: &mut String) {
    for section in sections {
        let rows: String = section.keys.iter().map(|key| row(key, section, sections)).collect();
        let choice = match section.one_of {
            [_, _, ..] => {
                let sets = section.one_of.iter().map(|keys| format!("`{}`", keys.join("` and `")));
                format!("One of these must be there: {}.\n\n", sets.collect::<Vec<_>>().join("; "))
            }
            _ => String::new(),
        };
        text.push_str(&format!(
            "\n## {}\n\n{choice}| key | value | default | is |\n| --- | --- | --- | --- |\n{rows}",
            section.id
        ));
    }
}

pub(super) fn pipeline() -> String {
    let mut text = "# Every key of a pipeline file\n\n\
        Durations are a whole number and a unit (`100ms`, `5s`, `1m`, `1h`, `1d`), sizes too (`512KiB`, `64MiB`, `1GB`). SQL is explained \
        in [steps and SQL](../sql.md), `${…}` in [text rules](../configuration.md). `onceflow schema` prints the same as a JSON Schema, \
        with which editors check a file as it is written.\n"
        .to_owned();
    tables(&PIPELINE.all(), &mut text);
    text
}

pub(super) fn settings() -> String {
    let mut text = "# Every key of the settings file\n\n\
        The daemon's own settings: `/etc/onceflow/onceflow.yaml`, or the file that `--config` names. Each of them can be set in the \
        environment: `ONCEFLOW_` and its path, in capitals, with two underscores between the parts: `ONCEFLOW_HTTP__LISTEN`. The \
        sections below `defaults` have the keys of a [pipeline file](pipeline.md).\n"
        .to_owned();
    let of_pipelines = PIPELINE.all();
    let own: Vec<&Section> = SETTINGS
        .all()
        .into_iter()
        .filter(|section| !of_pipelines.iter().any(|known| known.id == section.id))
        .collect();
    tables(&own, &mut text);
    text
}
