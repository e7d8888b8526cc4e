//! Pipeline files: any text becomes a plan, or diagnostics that point into it.

use onceflow_engine::config::{self, Defaults};
use onceflow_engine::diagnostics::Diagnostics;
use onceflow_engine::plan::SinkTopic;

use crate::allocation::bounded;

/// A file, a kilobyte of which may cost this much: expressions are planned with many small objects.
const BYTES_PER_BYTE: usize = 64 << 10;

fn environment(name: &str) -> Option<String> {
    match name {
        "A" => Some("a".to_owned()),
        "E" => Some(String::new()),
        "S" => Some("x: [1, {".to_owned()),
        "B" => Some("localhost:9092".to_owned()),
        _ => None,
    }
}

pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bound = (8 << 20) + BYTES_PER_BYTE * text.len();
    let compile = || config::compile("file.yaml", &text, &Defaults::default(), &environment);
    match bounded("compiling", bound, compile) {
        Ok(plan) => {
            assert!(!plan.pipeline.is_empty() && plan.parallelism > 0 && plan.checkpoint.retained > 0);
            let known = |topic: &u16| usize::from(*topic) < plan.output_topics.len();
            assert!(plan.sinks.iter().all(|sink| match &sink.topic {
                SinkTopic::One(topic) => known(topic),
                SinkTopic::Column { allowed, .. } => allowed.values().all(known),
            }));
            // Nothing about a plan depends on anything but the text.
            let again = compile().unwrap_or_else(|found| panic!("the second time it is wrong:\n{found}"));
            assert_eq!(format!("{again:?}"), format!("{plan:?}"));
        }
        Err(found) => check(&found, &text),
    }
    if let Err(found) = config::read_defaults("file.yaml", &text, &environment) {
        check(&found, &text);
    }
}

fn check(found: &Diagnostics, text: &str) {
    assert!(found.iter().count() > 0, "it is wrong, but nobody says why");
    let lines = text.matches('\n').count() + 1;
    for diagnostic in found.iter() {
        let span = diagnostic.span;
        assert!(span.start <= span.end && span.end <= text.len(), "{diagnostic:?} points behind the text");
        assert!(text.is_char_boundary(span.start), "{diagnostic:?} points into a character");
        let (line, column) = found.position(span);
        assert!((1..=lines).contains(&line) && column > 0, "{diagnostic:?} is at {line}:{column}");
    }
    let shown = found.to_string();
    assert!(shown.starts_with("file.yaml:"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{shown:?}");
}
