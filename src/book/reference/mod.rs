//! The reference pages, made from what the code itself is made of.

mod commands;
mod functions;
mod keys;
pub(super) mod metrics;
mod mistakes;
mod settings;

use std::fs;

use super::{none, root};

/// What every page says of itself.
const MADE: &str = "<!-- Made from the code. To make it again: INSTA_UPDATE=always cargo test --release --workspace --lib book -->";

/// The pages: paths from the root of the project, and texts.
fn pages() -> Vec<(&'static str, String)> {
    let pages = [
        ("docs/reference/pipeline.md", keys::pipeline()),
        ("docs/reference/settings.md", keys::settings()),
        ("docs/reference/commands.md", commands::page()),
        ("docs/reference/metrics.md", metrics::page()),
        ("docs/reference/functions.md", functions::page()),
        ("docs/reference/mistakes.md", mistakes::page()),
    ];
    pages.into_iter().map(|(path, text)| (path, format!("{MADE}\n{}\n", text.trim_end()))).collect()
}

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn reference_pages_say_what_the_code_says() {
    let update = std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always");
    let mut problems = vec![];
    for (path, text) in pages() {
        let file = root().join(path);
        if fs::read_to_string(&file).is_ok_and(|committed| committed == text) {
            continue;
        }
        if update {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            problems.push(format!(
                "{path} is out of date: run the tests with INSTA_UPDATE=always, and look at the difference"
            ));
        }
    }
    none(problems);
}
