//! YAML text → a tree of nodes that know where they stand.
//!
//! The subset is what a configuration needs: maps with text keys, lists, scalars, in block or flow style. Aliases are refused (they
//! can make a small file explode), as are tags, several documents and nesting beyond [`MAX_DEPTH`]. All scalars are text here:
//! `no` is a country before it is a boolean, and only the field that reads it knows which. Variables, files and credentials are
//! put in after the parse, so that a value can never become structure.
//!
//! A part that could not be understood is reported once, here, and stands in the tree as [`Value::Invalid`]; whoever reads the tree
//! passes over it silently.

mod environment;
mod scalar;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks, StrInput, Tag};

use crate::diagnostics::{Code, Diagnostic, Secrets, Span};

pub use environment::Environment;
pub use scalar::Scalar;

/// Deepest nesting of maps and lists.
const MAX_DEPTH: usize = 32;

/// Largest file, bytes.
const MAX_BYTES: usize = 1 << 20;

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// What is there.
    pub value: Value,
    /// Where.
    pub span: Span,
}

/// What it says, wherever it stands.
impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.value {
            Value::Scalar(scalar) => (0u8, &scalar.text, scalar.plain).hash(state),
            Value::List(items) => (1u8, items).hash(state),
            Value::Map(entries) => {
                (2u8, entries.len()).hash(state);
                entries.iter().for_each(|(key, node)| (&key.name, node).hash(state));
            }
            Value::Invalid => 3u8.hash(state),
        }
    }
}

/// What a node holds.
#[derive(Debug)]
pub enum Value {
    /// A text.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A map.
    Map(Vec<(Key, Node)>),
    /// Something that has been reported already.
    Invalid,
}

/// A key of a map.
#[derive(Debug)]
pub struct Key {
    /// Its name; never a variable.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

/// A whole file.
#[derive(Default)]
pub struct Document {
    /// What it holds; `None` where it is no YAML or has no root.
    pub root: Option<Node>,
    /// Values that were put in and may not be shown.
    pub secrets: Secrets,
    /// The texts that they are part of.
    pub secret_spans: Vec<Span>,
}

/// Parses `text`. `found` says what is wrong with it.
pub fn parse(text: &str, environment: &dyn Environment, found: &mut Vec<Diagnostic>) -> Document {
    let mut document = Document::default();
    if text.len() > MAX_BYTES {
        found.push(Diagnostic::new(Code::TooLarge, Span::default(), "the file is larger than 1 MiB"));
        return document;
    }
    // saphyr counts characters from the start of the text; spans are bytes.
    let mut bytes: Vec<u32> = text.char_indices().map(|(at, _)| at as u32).collect();
    bytes.push(text.len() as u32);
    let events = Parser::new_from_str(text);
    let mut tree = Tree { text, bytes, events, environment, document: &mut document, found };
    let root = tree.document().ok().flatten();
    document.root = root;
    document
}

/// Puts values in place of the `${…}` of a text outside of any document.
pub fn substitute(text: &str, environment: &dyn Environment) -> Result<(String, Secrets), Box<Diagnostic>> {
    let span = Span { start: 0, end: text.len() };
    let scalar = Scalar::new(text.to_owned(), ScalarStyle::Plain, text, span);
    let mut document = Document::default();
    let scalar = environment::substitute(scalar, span, environment, &mut document)?;
    Ok((scalar.text, document.secrets))
}

/// The parse ended early; why is among the diagnostics.
struct Stop;

struct Tree<'t, 'd> {
    text: &'t str,
    bytes: Vec<u32>,
    events: Parser<'t, StrInput<'t>>,
    environment: &'d dyn Environment,
    document: &'d mut Document,
    found: &'d mut Vec<Diagnostic>,
}

impl<'t> Tree<'t, '_> {
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd | Event::Nothing => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, span, 0)?);
                }
                _ => {
                    let message = "a pipeline file holds one document";
                    self.report(Code::UnsupportedYaml, span, message);
                    return Err(Stop);
                }
            }
        }
        if root.is_none() {
            self.report(Code::MissingKey, Span::default(), "the file is empty");
        }
        Ok(root)
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.events.next_event() {
            Some(Ok((event, marks))) => Ok((event, self.span(marks))),
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Err(error)) => {
                let at = self.byte(error.marker().index());
                let line = self.line(at);
                let mut diagnostic = Diagnostic::new(
                    Code::Syntax,
                    Span { start: at, end: at },
                    format!("this is not YAML: {}", error.info()),
                );
                if line.contains("${") {
                    diagnostic =
                        diagnostic.hint("quote a value with `${…}` that stands inside `{ }` or `[ ]`");
                } else if line.contains('\t') {
                    diagnostic = diagnostic.hint("YAML is indented with spaces, never with tabs");
                }
                self.found.push(diagnostic);
                Err(Stop)
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Stop> {
        if depth > MAX_DEPTH {
            self.report(Code::TooLarge, span, format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        match event {
            Event::Scalar(text, style, _, tag) => {
                let plain = matches!(style, ScalarStyle::Plain);
                let valid = self.no_tag(&tag, span);
                let scalar = Scalar::new(text.into_owned(), style, &self.text[span.start..span.end], span);
                let value = match environment::substitute(scalar, span, self.environment, self.document) {
                    Ok(mut scalar) => {
                        scalar.plain = plain;
                        if valid { Value::Scalar(scalar) } else { Value::Invalid }
                    }
                    Err(diagnostic) => {
                        self.found.push(*diagnostic);
                        Value::Invalid
                    }
                };
                Ok(Node { value, span })
            }
            Event::SequenceStart(_, tag) => {
                let valid = self.no_tag(&tag, span);
                let mut items = vec![];
                let end = loop {
                    match self.next()? {
                        (Event::SequenceEnd, end) => break end,
                        (Event::StreamEnd, _) => return Err(Stop),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                };
                if self.is_flow(span) {
                    items = self.mend_list(items);
                }
                let value = if valid { Value::List(items) } else { Value::Invalid };
                Ok(Node { value, span: self.around(span, end) })
            }
            Event::MappingStart(_, tag) => {
                let valid = self.no_tag(&tag, span);
                let mut entries: Vec<(Key, Node)> = vec![];
                let end = loop {
                    match self.next()? {
                        (Event::MappingEnd, end) => break end,
                        (Event::StreamEnd, _) => return Err(Stop),
                        (event, span) => {
                            let key = self.key(event, span, depth)?;
                            let (event, span) = self.next()?;
                            let node = self.node(event, span, depth + 1)?;
                            entries.extend(key.map(|key| (key, node)));
                        }
                    }
                };
                if self.is_flow(span) {
                    entries = self.mend_map(entries);
                }
                self.refuse_duplicates(&mut entries);
                let value = if valid { Value::Map(entries) } else { Value::Invalid };
                Ok(Node { value, span: self.around(span, end) })
            }
            Event::Alias(_) => {
                self.report(Code::UnsupportedYaml, span, "aliases are not supported: write the value out");
                Ok(Node { value: Value::Invalid, span })
            }
            _ => Err(Stop),
        }
    }

    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Option<Key>, Stop> {
        if let Event::Scalar(text, _, _, tag) = event {
            let valid = self.no_tag(&tag, span);
            if text == "<<" {
                self.report(Code::UnsupportedYaml, span, "merge keys are not supported: write the keys out");
                return Ok(None);
            }
            return Ok(valid.then(|| Key { name: text.into_owned(), span }));
        }
        self.node(event, span, depth + 1)?;
        let message = "a key must be a text";
        let hint = "quote a value with `${…}` that stands inside `{ }` or `[ ]`";
        self.found.push(Diagnostic::new(Code::UnsupportedYaml, span, message).hint(hint));
        Ok(None)
    }

    fn no_tag<T: std::borrow::Borrow<Tag>>(&mut self, tag: &Option<T>, span: Span) -> bool {
        if tag.is_some() {
            self.report(Code::UnsupportedYaml, span, "tags (`!…`) are not supported");
        }
        tag.is_none()
    }

    fn refuse_duplicates(&mut self, entries: &mut Vec<(Key, Node)>) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        entries.retain(|(key, _)| {
            let Some(first) = seen.get(&key.name) else {
                seen.insert(key.name.clone(), key.span.start);
                return true;
            };
            let line = self.text[..*first].matches('\n').count() + 1;
            let message = format!("`{}` is there twice", key.name);
            self.found.push(
                Diagnostic::new(Code::DuplicateKey, key.span, message).label(format!("first on line {line}")),
            );
            false
        });
    }

    /// `{ x: coalesce(a, b) }` arrives as `x: "coalesce(a"` and `"b)": null`. Reports that once and takes the pieces out.
    fn mend_map(&mut self, entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
        let mut whole: Vec<(Key, Node)> = vec![];
        let mut entries = entries.into_iter().peekable();
        while let Some((key, mut node)) = entries.next() {
            let mut open = open_parentheses(&node);
            if open > 0 && entries.peek().is_some() {
                let start = node.span;
                while open > 0 {
                    let Some((key, piece)) = entries.next() else { break };
                    open += balance(&key.name) + open_parentheses(&piece);
                }
                self.split_at_comma(start);
                node.value = Value::Invalid;
            }
            whole.push((key, node));
        }
        whole
    }

    /// The same for `[coalesce(a, b)]`.
    fn mend_list(&mut self, items: Vec<Node>) -> Vec<Node> {
        let mut whole: Vec<Node> = vec![];
        let mut items = items.into_iter().peekable();
        while let Some(mut node) = items.next() {
            let mut open = open_parentheses(&node);
            if open > 0 && items.peek().is_some() {
                let start = node.span;
                while open > 0 {
                    let Some(piece) = items.next() else { break };
                    open += open_parentheses(&piece);
                }
                self.split_at_comma(start);
                node.value = Value::Invalid;
            }
            whole.push(node);
        }
        whole
    }

    fn split_at_comma(&mut self, span: Span) {
        let message =
            "inside `{ }` and `[ ]` YAML ends a value at a comma: the parentheses here are not closed";
        self.found.push(
            Diagnostic::new(Code::SplitAtComma, span, message)
                .hint("put the expression in quotes, or write one entry a line without braces"),
        );
    }

    fn is_flow(&self, span: Span) -> bool {
        self.text[span.start..].starts_with(['{', '['])
    }

    fn report(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.found.push(Diagnostic::new(code, span, message));
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes[character.min(self.bytes.len() - 1)] as usize
    }

    fn span(&self, marks: Marks) -> Span {
        let start = self.byte(marks.start.index());
        Span { start, end: self.byte(marks.end.index()).max(start) }
    }

    /// From the start of a map or list to its end, less what only separates it from what follows.
    fn around(&self, start: Span, end: Span) -> Span {
        let end = end.end.max(start.end);
        Span { start: start.start, end: start.start + self.text[start.start..end].trim_end().len() }
    }

    fn line(&self, at: usize) -> &str {
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        self.text[start..].lines().next().unwrap_or_default()
    }
}

/// Opened less closed parentheses of a plain text, where a missing closing one suggests that YAML cut it.
fn open_parentheses(node: &Node) -> i32 {
    match &node.value {
        Value::Scalar(scalar) if scalar.plain => balance(&scalar.text),
        _ => 0,
    }
}

/// Opened less closed parentheses outside of quotes.
fn balance(text: &str) -> i32 {
    let (mut open, mut quote) = (0, None);
    for c in text.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '(' => open += 1,
            None if c == ')' => open -= 1,
            None => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<Node>, Vec<Code>) {
        let mut found = vec![];
        let root =
            parse(text, &|name: &str| (name == "SET").then(|| "value: [x]".to_owned()), &mut found).root;
        (root, found.into_iter().map(|diagnostic| diagnostic.code).collect())
    }

    /// Texts of all scalars with the source text that their characters point to.
    fn scalars(node: &Node, source: &str, out: &mut Vec<(String, String)>) {
        match &node.value {
            Value::Scalar(scalar) => {
                let pointed = scalar
                    .text
                    .char_indices()
                    .filter_map(|(i, c)| source[scalar.span_of(i..i + c.len_utf8()).start..].chars().next())
                    .collect();
                out.push((scalar.text.clone(), pointed));
            }
            Value::List(items) => items.iter().for_each(|item| scalars(item, source, out)),
            Value::Map(entries) => entries.iter().for_each(|(_, item)| scalars(item, source, out)),
            Value::Invalid => {}
        }
    }

    fn check_pointers(source: &str, expected: &[(&str, &str)]) {
        let (root, codes) = parsed(source);
        assert!(codes.is_empty(), "{codes:?}");
        let mut out = vec![];
        scalars(&root.unwrap(), source, &mut out);
        let out: Vec<_> = out.iter().map(|(text, pointed)| (text.as_str(), pointed.as_str())).collect();
        assert_eq!(out, expected);
    }

    #[test]
    fn characters_know_where_they_stand() {
        check_pointers("a: bé c\nd: 'x''y'\n", &[("bé c", "bé c"), ("x'y", "x'y")]);
        check_pointers("a: \"q\\\"r\\ts\"\n", &[("q\"r\ts", "q\\r\\s")]);
        check_pointers("a: {b: x + y, c: [z]}", &[("x + y", "x + y"), ("z", "z")]);
        check_pointers("é: ü\r\nb: x\r\n", &[("ü", "ü"), ("x", "x")]);
        check_pointers("a: |\n  one\n  two\nb: x\n", &[("one\ntwo\n", "one\ntwo\n"), ("x", "x")]);
        check_pointers("a: >-  # note (x)\n  one\n  two\n", &[("one two", "one\ntwo")]);
        check_pointers("a: one\n  two\n", &[("one two", "one\ntwo")]);
        check_pointers("\u{feff}a: one\n", &[("one", "one")]);
    }

    #[test]
    fn variables_cannot_become_structure() {
        check_pointers("a: x${SET}y\n", &[("xvalue: [x]y", "x$$$$$$$$$$y")]);
        check_pointers("a: ${NO:-d}$${z}\n", &[("d${z}", "$$${z}".replace("$$$", "$$").as_str())]);
    }

    #[test]
    fn what_is_not_supported_is_said() {
        for (text, code) in [
            ("a: &x 1\nb: *x\n", Code::UnsupportedYaml),
            ("a: !t 1\n", Code::UnsupportedYaml),
            ("? [a]\n: b\n", Code::UnsupportedYaml),
            ("a: 1\n---\nb: 1\n", Code::UnsupportedYaml),
            ("<<: 1\n", Code::UnsupportedYaml),
            ("a: 1\na: 2\n", Code::DuplicateKey),
            ("a: ${}\n", Code::BadVariable),
            ("a: ${NO}\n", Code::UnsetVariable),
            ("a: [\n", Code::Syntax),
            ("", Code::MissingKey),
            ("a: {b: f(c, d)}\n", Code::SplitAtComma),
            ("a: [f(c, g(d, e)), h]\n", Code::SplitAtComma),
        ] {
            assert_eq!(parsed(text).1, [code], "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        for text in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)]
        {
            let (_, codes) = parsed(&text);
            assert!(matches!(codes[..], [Code::TooLarge | Code::Syntax]), "{codes:?}");
        }
    }
}
