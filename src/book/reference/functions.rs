//! Functions of SQL expressions, from the list that the planner looks them up in.

use std::collections::BTreeMap;

use onceflow_engine::expr::{ScalarFunction, scalar_functions};

use super::cell;

/// Without links, and in one line.
fn plain(markdown: &str) -> String {
    let mut plain = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((text, behind)) =
            link.split_once("](").and_then(|(text, to)| Some((text, to.split_once(')')?.1)))
        else {
            break;
        };
        plain.push_str(before);
        plain.push_str(text);
        rest = behind;
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn page() -> String {
    let mut sections: BTreeMap<&str, Vec<&ScalarFunction>> = BTreeMap::new();
    let functions = scalar_functions();
    for function in &functions {
        sections.entry(function.section).or_default().push(function);
    }
    let mut text = "# Functions\n\n\
        The scalar functions that an expression may call. They are Apache DataFusion's, and so are these descriptions; a function whose \
        result is not the same when a record is read again (`now()`, `random()`) is refused. An expression's result must have a type that \
        a column may have ([types](../sql.md#types)). The aggregates of a window are in [windows](../windows.md#aggregates).\n"
        .to_owned();
    for (section, functions) in sections {
        text.push_str(&format!("\n## {section}\n\n| call | gives | also called |\n| --- | --- | --- |\n"));
        for ScalarFunction { call, about, aliases, .. } in functions {
            let aliases: Vec<String> = aliases.iter().map(|alias| format!("`{alias}`")).collect();
            text.push_str(&format!(
                "| `{}` | {} | {} |\n",
                cell(call),
                cell(&plain(about)),
                aliases.join(", ")
            ));
        }
    }
    text
}
