//! Keeps the book (`docs/`, `README.md`) true: every pipeline in it compiles, every command line parses, every link leads somewhere, every
//! metric exists, and the reference pages say what the code says.
//!
//! The info string of a YAML block says what it is:
//!
//! | block | is |
//! | --- | --- |
//! | `yaml` | a whole pipeline; it compiles without a diagnostic |
//! | `yaml fragment` | some sections of one (`sources`, `steps`, …); what is missing is added |
//! | `yaml settings` | the daemon's settings file |
//! | `yaml prometheus` | rules for Prometheus |
//!
//! In `sh` blocks every `onceflow …` is parsed by the command line's own definition, and run if it needs no Kafka.
//!
//! Run with `INSTA_UPDATE=always`, these tests write the reference pages anew.

mod commands;
mod links;
mod pipelines;
mod reference;

use std::fs;
use std::path::{Path, PathBuf};

/// A page of the book.
struct Page {
    /// From the root of the project, with `/`.
    name: String,
    text: String,
}

/// A fenced block of a page.
struct Block<'p> {
    page: &'p Page,
    /// The line of the page on which its contents begin; lines count from 1.
    line: usize,
    /// What follows the fence: `yaml fragment`.
    info: &'p str,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and everything under docs/.
fn pages() -> Vec<Page> {
    let mut paths = vec![root().join("README.md")];
    gather(&root().join("docs"), &mut paths);
    let page = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Page { name, text: fs::read_to_string(&path).unwrap() }
    };
    paths.into_iter().map(page).collect()
}

fn gather(directory: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            gather(&path, paths);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            paths.push(path);
        }
    }
}

impl Page {
    /// Fenced blocks, in order. One that is not closed reaches to the end.
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = vec![];
        let mut open: Option<Block> = None;
        for (line, text) in self.text.lines().enumerate() {
            match (text.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    open = Some(Block { page: self, line: line + 2, info: info.trim(), text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => {
                    block.text.push_str(text);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        blocks.extend(open);
        blocks
    }

    /// Lines outside of fenced blocks, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(line, text)| {
            let fence = text.starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((line + 1, text))
        })
    }
}

impl Block<'_> {
    fn place(&self) -> String {
        format!("{}:{}", self.page.name, self.line)
    }
}

/// Fails with all of `problems`, if there are any.
fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}
