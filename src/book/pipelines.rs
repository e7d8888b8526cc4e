//! Every YAML block compiles, and the tests that pipelines carry pass.

use std::fs;
use std::sync::Arc;

use onceflow_engine::config::{Defaults, Environment, compile, read_defaults};
use onceflow_engine::plan::Plan;
use onceflow_engine::rehearsal::rehearse;

use super::{Block, none, pages, root};
use crate::inputs::Inputs;

/// What fragments are completed with. A section that a fragment has replaces the one here; where it has steps, each gets a sink, and
/// where it has only sources, each of those.
const BASE: &[(&str, &str)] = &[
    ("pipeline", "pipeline: fragment\n"),
    (
        "sources",
        "sources:
  orders:
    topics: [orders]
    format: json
    schema:
      id: bigint not null
      user_id: varchar not null
      country: { type: varchar, path: customer.address.country }
      email: varchar
      note: varchar
      amount: decimal(12,2) not null
      quantity: int
      ts: bigint not null
    event_time: { column: ts, unit: ms }
    watermark: { delay: 5s, idle_after: 30s }
    on_error: dead_letter
",
    ),
    (
        "steps",
        "steps:
  paid:
    from: orders
    where: amount > 0
  per_user:
    from: paid
    window: { tumbling: 1m }
    group_by: [user_id]
    aggregate:
      order_count: count(*)
      total: sum(amount)
",
    ),
    ("dead_letter", "dead_letter: { topic: fragment.dead-letter }\n"),
];

/// Names of the entries of a section that is written as a block.
fn entries(text: &str, section: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| *line != format!("{section}:")).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let names = lines.filter(|line| line.starts_with("  ") && !line[2..].starts_with([' ', '#']));
    names.filter_map(|line| Some(line[2..].split_once(':')?.0.to_owned())).collect()
}

fn has(text: &str, section: &str) -> bool {
    text.lines().any(|line| line.starts_with(&format!("{section}:")))
}

/// The fragment, and behind it what it needs to be a pipeline.
fn complete(fragment: &str) -> String {
    let mut whole = fragment.to_owned();
    let own_sources = has(fragment, "sources");
    for (section, text) in BASE {
        let replaced = has(fragment, section) || (*section == "steps" && own_sources);
        if !replaced {
            whole.push_str(text);
        }
    }
    if !has(fragment, "sinks") {
        whole.push_str("sinks:\n");
        let read = if has(fragment, "steps") { "steps" } else { "sources" };
        for name in entries(&whole, read) {
            whole.push_str(&format!("  to-{name}: {{ from: {name}, topic: to-{name}, format: json }}\n"));
        }
    }
    whole
}

/// Where Kafka is, which a daemon may say for all of its pipelines.
fn defaults() -> Defaults {
    read_defaults("defaults", "kafka: { bootstrap_servers: \"kafka:9092\" }", &EverythingSet).unwrap()
}

/// Where every variable is set, and every file and credential is there.
struct EverythingSet;

impl Environment for EverythingSet {
    fn variable(&self, name: &str) -> Option<String> {
        Some(format!("value-of-{}", name.to_lowercase()))
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Ok("from a file".to_owned())
    }

    fn credential(&self, _: &str) -> Result<String, String> {
        Ok("from a credential".to_owned())
    }
}

/// What is wrong with a block, if anything is.
fn problem(block: &Block) -> Option<String> {
    let text = match block.info {
        "yaml" => block.text.clone(),
        "yaml fragment" => complete(&block.text),
        "yaml settings" => return settings(&block.text).err(),
        // Names of metrics are looked at on every page.
        "yaml prometheus" => return None,
        other => return Some(format!("a block of {other}: is it a pipeline, a fragment, or settings?")),
    };
    match compile(&block.page.name, &text, &defaults(), &EverythingSet) {
        Ok(plan) => failed_test(Arc::new(plan)),
        Err(mistakes) => Some(mistakes.to_string()),
    }
}

/// The first of a pipeline's own tests that fails.
fn failed_test(plan: Arc<Plan>) -> Option<String> {
    plan.tests.iter().find_map(|test| {
        let failure = rehearse(&plan, test).err()?;
        Some(format!("{}: {}\n{failure}", plan.pipeline, test.name))
    })
}

fn settings(text: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (config, pipeline) = (dir.path().join("onceflow.yaml"), dir.path().join("pipeline.yaml"));
    fs::write(&config, text).unwrap();
    fs::write(&pipeline, complete("kafka: { bootstrap_servers: \"kafka:9092\" }\n")).unwrap();
    let inputs = Inputs { named: vec![pipeline], config: Some(config) };
    inputs.load().map(|_| ()).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn every_pipeline_of_the_book_compiles() {
    let pages = pages();
    let mut problems = vec![];
    let (mut whole, mut fragments) = (0, 0);
    for block in pages.iter().flat_map(|page| page.blocks()).filter(|block| block.info.starts_with("yaml")) {
        whole += usize::from(block.info == "yaml");
        fragments += usize::from(block.info == "yaml fragment");
        if let Some(problem) = problem(&block) {
            problems.push(format!("{}:\n{problem}", block.place()));
        }
    }
    none(problems);
    assert!(
        whole > 2 && fragments > 5,
        "{whole} pipelines and {fragments} fragments: were they looked for rightly?"
    );
}

#[test]
fn every_example_carries_tests_that_pass() {
    let files = fs::read_dir(root().join("config/examples")).unwrap().map(|entry| entry.unwrap().path());
    let plans = files.map(|file| {
        let text = fs::read_to_string(&file).unwrap();
        compile(&file.display().to_string(), &text, &defaults(), &EverythingSet).unwrap()
    });
    let check = |plan: Plan| match plan.tests.len() {
        0 => Some(format!("{} has no tests", plan.pipeline)),
        _ => failed_test(Arc::new(plan)),
    };
    none(plans.filter_map(check).collect());
}

#[test]
fn a_mistake_is_noticed() {
    let page = super::Page {
        name: "page.md".to_owned(),
        text:
            "```yaml fragment\nsteps:\n  a: { from: orders, where: amont > 0 }\n```\n```yaml fragments\n```\n"
                .to_owned(),
    };
    let problems: Vec<Option<String>> = page.blocks().iter().map(problem).collect();
    assert!(problems[0].as_ref().unwrap().contains("did you mean `amount`?"), "{problems:?}");
    assert!(problems[1].is_some());
}
