//! Links lead somewhere, every page is in the table of contents, and metrics that are named exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::reference::metrics;
use super::{Page, none, pages, root};

/// Names that begin as metrics do and are none.
const NO_METRICS: [&str; 3] = ["onceflow_engine", "onceflow_protocol", "onceflow_sql"];

/// Targets of Markdown links in a line: `](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, _)| line[at + 2..].split(')').next())
}

/// The name that a heading is linked by, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let page = Page { name: String::new(), text: text.to_owned() };
    let headings = page.prose().filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| anchor(line.trim_start_matches('#'))).collect()
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn links_lead_somewhere() {
    let mut problems = vec![];
    for page in pages() {
        for (line, text) in page.prose() {
            for target in targets(text).filter(|target| !target.contains("://")) {
                let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
                let file = match path {
                    "" => root().join(&page.name),
                    path => normal(&root().join(&page.name).parent().unwrap().join(path)),
                };
                if !file.exists() {
                    problems.push(format!("{}:{line}: there is no {target}", page.name));
                } else if !fragment.is_empty()
                    && !anchors(&fs::read_to_string(&file).unwrap()).contains(fragment)
                {
                    problems.push(format!("{}:{line}: {path} has no heading #{fragment}", page.name));
                }
            }
        }
    }
    none(problems);
}

#[test]
fn the_table_of_contents_has_every_page() {
    let contents = fs::read_to_string(root().join("docs/README.md")).unwrap();
    let linked: BTreeSet<&str> = contents.lines().flat_map(targets).collect();
    let missing = pages().into_iter().filter_map(|page| {
        let name = page.name.strip_prefix("docs/").filter(|name| *name != "README.md")?.to_owned();
        // Decisions have a list of their own.
        let listed = linked.contains(name.as_str()) || name.starts_with("decisions/0");
        (!listed).then(|| format!("docs/README.md does not link {name}"))
    });
    none(missing.collect());
}

#[test]
fn metrics_that_are_named_exist() {
    let known: BTreeSet<String> = metrics::names();
    let mut problems = vec![];
    for page in pages() {
        for (line, text) in page.text.lines().enumerate() {
            for (at, _) in text.match_indices("onceflow_") {
                let rest = &text[at..];
                let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
                let name = &rest[..end];
                let series =
                    ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending));
                let exists = |name: &str| known.contains(name) || NO_METRICS.contains(&name);
                // `onceflow_checkpoint_…` stands for several.
                let several = rest[end..].starts_with(['*', '…']);
                if !several && !exists(name) && !series.is_some_and(exists) {
                    problems.push(format!("{}:{}: there is no metric {name}", page.name, line + 1));
                }
            }
        }
    }
    none(problems);
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(anchor(" What `min.insync.replicas` is for"), "what-mininsyncreplicas-is-for");
    assert_eq!(targets("a [b](c.md#d) and [e](f)").collect::<Vec<_>>(), ["c.md#d", "f"]);
}
