//! An explanation as a Mermaid flowchart, for a page or a review.

use std::fmt::Write;

use super::Explanation;
use super::human::duration;

impl Explanation {
    /// The graph: topics, sources, steps, sinks.
    pub fn mermaid(&self) -> String {
        let mut graph = Graph { text: String::from("flowchart LR\n"), nodes: vec![] };
        for source in &self.sources {
            let label = format!("{}<br/>{} columns", source.name, source.reads.len());
            let node = graph.node(&source.name, &label, ("[", "]"));
            for topic in &source.topics {
                let topic = graph.topic(topic);
                graph.edge(&topic, &node, "");
            }
        }
        for step in &self.steps {
            let window = step.window.as_ref().map(|window| {
                let keys = window.group_by.iter().map(|group| group.name.as_str()).collect::<Vec<_>>();
                match window.kind {
                    "deduplicate" => format!("<br/>one {} in {}", keys.join(", "), duration(window.size_ms)),
                    _ => format!("<br/>{} by {}", duration(window.size_ms), keys.join(", ")),
                }
            });
            let shape = if window.is_some() { ("[[", "]]") } else { ("[", "]") };
            let label = format!("{}{}", step.name, window.unwrap_or_default());
            let node = graph.node(&step.name, &label, shape);
            for from in &step.from {
                let from = graph.named(from);
                graph.edge(&from, &node, step.filter.as_deref().unwrap_or_default());
            }
        }
        for sink in &self.sinks {
            let side = sink.from.rsplit_once('.').map(|(stream, _)| (stream, sink.from.as_str()));
            let (stream, label) =
                side.unwrap_or((sink.from.as_str(), sink.filter.as_deref().unwrap_or_default()));
            let from = graph.named(stream);
            for topic in &sink.topics {
                let topic = graph.topic(topic);
                graph.edge(&from, &topic, label);
            }
        }
        if let Some(topic) = &self.dead_letter {
            let topic = graph.topic(topic);
            let sources = self.sources.iter().filter(|source| source.on_error == "dead_letter");
            let late = self
                .steps
                .iter()
                .filter(|step| step.window.as_ref().is_some_and(|window| window.late == "dead_letter"));
            let names = sources.map(|source| &source.name).chain(late.map(|step| &step.name));
            for name in names {
                let from = graph.named(name);
                // Writing to a string does not fail.
                let _ = writeln!(graph.text, "  {from} -.-> {topic}");
            }
        }
        graph.text
    }
}

/// Nodes get short names of our own: Mermaid's may hold neither dots nor its keywords.
struct Graph {
    text: String,
    nodes: Vec<String>,
}

impl Graph {
    fn topic(&mut self, topic: &str) -> String {
        let name = format!("topic {topic}");
        match self.nodes.contains(&name) {
            true => self.named(&name),
            false => self.node(&name, topic, ("[(", ")]")),
        }
    }

    fn node(&mut self, name: &str, label: &str, (open, close): (&str, &str)) -> String {
        self.nodes.push(name.to_owned());
        let node = self.named(name);
        let _ = writeln!(self.text, "  {node}{open}\"{}\"{close}", escaped(label));
        node
    }

    fn named(&self, name: &str) -> String {
        let place = self.nodes.iter().position(|known| known == name);
        place.map_or_else(|| "n".to_owned(), |place| format!("n{place}"))
    }

    fn edge(&mut self, from: &str, to: &str, label: &str) {
        let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(label)) };
        let _ = writeln!(self.text, "  {from} -->{label} {to}");
    }
}

/// Mermaid's own escapes; line breaks in labels are ours.
fn escaped(label: &str) -> String {
    let escaped = label.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
    escaped.replace("#lt;br/#gt;", "<br/>")
}
