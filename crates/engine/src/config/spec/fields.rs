//! Reading a map by its keys, so that none stays unread.

use super::Spanned;
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic, Span};

/// A map that is being read. What has not been asked for when it is [finished](Fields::finish) is unknown.
pub struct Fields<'n> {
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    what: &'static str,
    at: Span,
}

impl<'n> Fields<'n> {
    /// The map at `node`, which describes `what` ("a source").
    pub fn open(node: &'n Node, what: &'static str, found: &mut Vec<Diagnostic>) -> Option<Fields<'n>> {
        let entries = map(node, what, found)?;
        Some(Fields { entries, known: vec![], what, at: first(node.span) })
    }

    /// The same, where a missing key is to be reported at the map's `name` and not at its beginning.
    pub fn named(mut self, name: Span) -> Fields<'n> {
        self.at = name;
        self
    }

    /// The value of `key`.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.entry(key).map(|(_, node)| node)
    }

    /// Key and value of `key`.
    pub fn entry(&mut self, key: &'static str) -> Option<&'n (Key, Node)> {
        self.known.push(key);
        self.entries.iter().find(|(k, _)| k.name == key)
    }

    /// The value of `key`, which must be there.
    pub fn require(&mut self, key: &'static str, found: &mut Vec<Diagnostic>) -> Option<&'n Node> {
        #[cfg(test)]
        super::heard::required(self.what, key);
        let node = self.get(key);
        if node.is_none() {
            found.push(Diagnostic::new(Code::MissingKey, self.at, format!("{} needs `{key}`", self.what)));
        }
        node
    }

    /// Reports `key`, where it is there, as something that comes later.
    pub fn later(&mut self, key: &'static str, found: &mut Vec<Diagnostic>) {
        if let Some((at, _)) = self.entry(key) {
            found.push(not_yet(at.span, &format!("`{key}`")));
        }
    }

    /// Reports the keys that have not been asked for.
    pub fn finish(self, found: &mut Vec<Diagnostic>) {
        #[cfg(test)]
        super::heard::section(self.what, &self.known);
        for (key, _) in self.entries {
            if !self.known.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}` in {}", key.name, self.what);
                let mut diagnostic = Diagnostic::new(Code::UnknownKey, key.span, message)
                    .nearest(&key.name, self.known.iter().copied());
                if diagnostic.label.is_none() {
                    diagnostic = diagnostic.hint(format!("known here: {}", self.known.join(", ")));
                }
                found.push(diagnostic);
            }
        }
    }
}

/// "… is not supported yet".
pub fn not_yet(span: Span, what: &str) -> Diagnostic {
    Diagnostic::new(Code::NotYet, span, format!("{what} is not supported yet"))
}

/// The entries of a map.
pub fn map<'n>(node: &'n Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<&'n [(Key, Node)]> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Invalid => None,
        _ => wrong_type(node, &format!("{what} is a map of keys and values"), found),
    }
}

/// The items of a list.
pub fn list<'n>(node: &'n Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) => Some(items),
        Value::Invalid => None,
        _ => wrong_type(node, &format!("{what} is a list"), found),
    }
}

/// A text that is not nothing.
pub fn text(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => {
            Some(Spanned { value: scalar.text.clone(), span: node.span })
        }
        Value::Invalid => None,
        _ => wrong_type(node, &format!("{what} is a text"), found),
    }
}

/// One text, or a list of them; with at least one.
pub fn texts(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Vec<Spanned<String>>> {
    let Value::List(items) = &node.value else { return text(node, what, found).map(|text| vec![text]) };
    if items.is_empty() {
        found.push(Diagnostic::new(Code::BadValue, node.span, format!("{what} names nothing")));
        return None;
    }
    let texts: Vec<_> = items.iter().filter_map(|item| text(item, what, found)).collect();
    for (i, text) in texts.iter().enumerate() {
        if texts[..i].iter().any(|earlier| earlier.value == text.value) {
            found.push(Diagnostic::new(
                Code::Repeated,
                text.span,
                format!("`{}` is there twice", text.value),
            ));
        }
    }
    Some(texts)
}

fn wrong_type<T>(node: &Node, expected: &str, found: &mut Vec<Diagnostic>) -> Option<T> {
    let (is, span) = match &node.value {
        Value::Map(_) => ("a map", first(node.span)),
        Value::List(_) => ("a list", first(node.span)),
        Value::Scalar(scalar) if scalar.is_null() => ("nothing", node.span),
        Value::Scalar(_) | Value::Invalid => ("a text", node.span),
    };
    found.push(Diagnostic::new(Code::WrongType, span, format!("{expected}, this is {is}")));
    None
}

/// A whole map would be a long underline: its first character will do.
pub fn first(span: Span) -> Span {
    Span { start: span.start, end: span.end.min(span.start + 1) }
}

/// Names of sources, steps and sinks: `[A-Za-z0-9_-]`, as they become parts of metrics and of identities.
pub fn stream_name(key: &Key, what: &str, found: &mut Vec<Diagnostic>) -> Spanned<String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if key.name.is_empty() || key.name.len() > 100 || !key.name.chars().all(valid) {
        let message = format!("`{}` cannot name {what}", key.name);
        found.push(
            Diagnostic::new(Code::BadValue, key.span, message)
                .hint("names are up to 100 of the characters a-z, A-Z, 0-9, _ and -"),
        );
    }
    Spanned { value: key.name.clone(), span: key.span }
}

/// The names that Kafka allows for topics.
pub fn topic(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Spanned<String>> {
    let topic = text(node, "a topic", found)?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.value.starts_with('^') {
        let message = format!("`{}` is a pattern: only sources have patterns of topics", topic.value);
        found.push(Diagnostic::new(Code::BadValue, topic.span, message));
        return None;
    }
    if topic.value.len() > 249 || !topic.value.chars().all(valid) || matches!(&*topic.value, "" | "." | "..")
    {
        let message = format!("`{}` cannot be the name of a topic", topic.value);
        found.push(
            Diagnostic::new(Code::BadValue, topic.span, message)
                .hint("Kafka allows up to 249 of the characters a-z, A-Z, 0-9, ., _ and -"),
        );
        return None;
    }
    Some(topic)
}
