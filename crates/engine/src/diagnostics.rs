//! What is wrong with a pipeline file: all of it at once, each mistake where it stands.
//!
//! A diagnostic points at bytes of the file and is printed in plain text, the same in a terminal, a pipe and a log:
//!
//! ```text
//! orders.yaml:12:5: error[E0103]: unknown key `groupby`
//!    |
//! 12 |     groupby: [user_id]
//!    |     ^^^^^^^ did you mean `group_by`?
//!    = help: …
//! ```
//!
//! Lines and columns count from 1; a column is a character. Codes are stable: a code is never used again for another mistake.

mod secrets;

use std::fmt;

pub use secrets::{Secrets, is_secret};

/// A range of bytes of the file, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// First byte after.
    pub end: usize,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal,)*) => {
        /// The kinds of mistakes. `E00`: text, `E01`: shape, `E02`: what this version has not, `E03`: streams and topics,
        /// `E04`: SQL, `E05`: time and windows, `E06`: Kafka.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])* $name,)*
        }

        impl Code {
            /// `E0103`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// What it means: a sentence.
            pub fn about(self) -> &'static str {
                match self { $(Code::$name => concat!($($doc),*).trim_start(),)* }
            }

            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name),*];
        }
    };
}

codes! {
    /// The text is not YAML.
    Syntax = "E0001",
    /// A key is there twice.
    DuplicateKey = "E0002",
    /// YAML that a pipeline file does not use: aliases, tags, several documents, keys that are no text.
    UnsupportedYaml = "E0003",
    /// The file is too large or nested too deeply.
    TooLarge = "E0004",
    /// A flow map or list split an expression at a comma.
    SplitAtComma = "E0005",
    /// A `${…}` that cannot be understood.
    BadVariable = "E0006",
    /// A variable of the environment that is not set.
    UnsetVariable = "E0007",
    /// A file or a credential that cannot be read.
    UnreadableValue = "E0008",
    /// A map, a list or a text where something else belongs.
    WrongType = "E0101",
    /// A required key is missing.
    MissingKey = "E0102",
    /// A key that nobody knows.
    UnknownKey = "E0103",
    /// A value that does not have the form of its field.
    BadValue = "E0104",
    /// An unknown SQL type.
    UnknownType = "E0105",
    /// Something is named twice.
    Repeated = "E0106",
    /// Something documented that this version does not do yet.
    NotYet = "E0201",
    /// Something that Onceflow does not do, with the reason.
    ByDesign = "E0202",
    /// `from` names no source or step.
    UnknownStream = "E0301",
    /// Steps read each other in a circle.
    Cycle = "E0302",
    /// The inputs of a union differ.
    UnionDiffers = "E0303",
    /// The pipeline writes to a topic that it reads.
    TopicLoop = "E0304",
    /// A topic is read by two sources.
    TopicTwice = "E0305",
    /// Something needs a dead letter topic and there is none.
    NoDeadLetter = "E0306",
    /// A side stream that nobody reads, or that is read and stays empty.
    SideStream = "E0307",
    /// Records without a value where there must be columns.
    Tombstones = "E0308",
    /// SQL that cannot be parsed.
    SqlSyntax = "E0401",
    /// A column that is not there.
    UnknownColumn = "E0402",
    /// A function that is not there.
    UnknownFunction = "E0403",
    /// Types that do not go together.
    TypeMismatch = "E0404",
    /// A function that would give another result when its record is read again.
    NotDeterministic = "E0405",
    /// SQL that has no place in an expression over one row.
    NotScalar = "E0406",
    /// A result of a type that a column cannot have.
    ResultType = "E0407",
    /// An expression over constants that fails for every record.
    AlwaysFails = "E0408",
    /// An aggregate that is not one call of an aggregate function.
    NotAggregate = "E0409",
    /// A clause without its window.
    NeedsWindow = "E0501",
    /// Sizes of a window that cannot be.
    WindowSize = "E0502",
    /// An event time that is no time.
    EventTime = "E0503",
    /// Two output columns of a windowed step with the same name.
    NameClash = "E0504",
    /// A sink that has no key of its own and cannot do without.
    NeedsKey = "E0505",
    /// A property that the guarantee needs otherwise.
    RefusedProperty = "E0601",
    /// A property of the Java client.
    JavaProperty = "E0602",
    /// No bootstrap servers.
    NoBootstrap = "E0603",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which kind.
    pub code: Code,
    /// Where.
    pub span: Span,
    /// What is wrong, without a full stop.
    pub message: String,
    /// A few words beside the caret.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A mistake without label and hint.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { code, span, message: message.into(), label: None, hint: None }
    }

    /// The same with a few words beside the caret.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    /// The same with what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// The same with other texts.
    pub fn map_texts(self, map: impl Fn(&str) -> String) -> Diagnostic {
        Diagnostic {
            message: map(&self.message),
            label: self.label.as_deref().map(&map),
            hint: self.hint.as_deref().map(&map),
            ..self
        }
    }

    /// The same, with the nearest of `names` as label, if one is near `wrong`.
    pub fn nearest<'n>(self, wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Diagnostic {
        match nearest(wrong, names) {
            Some(name) => self.label(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// All mistakes of one file, in the order of the file; at least one.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    file: String,
    text: String,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// `items` are about `text`, the contents of `file`. What in it sounds like a secret is not kept.
    pub fn new(file: &str, text: &str, mut items: Vec<Diagnostic>) -> Diagnostics {
        items.sort_by_key(|item| (item.span, item.code));
        items.dedup();
        Diagnostics { file: file.to_owned(), text: secrets::hide(text), items }
    }

    /// Name of the file as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The mistakes in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Line and column of the beginning of `span`, both from 1, the column in characters.
    pub fn position(&self, span: Span) -> (usize, usize) {
        let start = floor_char(&self.text, span.start);
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().filter(|c| *c != '\u{feff}').count();
        (before.matches('\n').count() + 1, column + 1)
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, item) in self.items.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.write(f, item)?;
        }
        Ok(())
    }
}

/// Longest part of a source line that is shown, in characters.
const SHOWN: usize = 160;

impl Diagnostics {
    fn write(&self, f: &mut fmt::Formatter<'_>, item: &Diagnostic) -> fmt::Result {
        let (line, column) = self.position(item.span);
        writeln!(f, "{}:{line}:{column}: error[{}]: {}", self.file, item.code, clean(&item.message))?;

        let source = self.text.lines().nth(line - 1).unwrap_or_default().trim_start_matches('\u{feff}');
        let length = self
            .text
            .get(item.span.start..item.span.end)
            .map_or(1, |part| part.lines().next().unwrap_or_default().chars().count().max(1));
        // A very long line is shown around its mistake.
        let skipped = if column > SHOWN { column - SHOWN / 2 } else { 0 };
        let shown: String = source.chars().skip(skipped).take(SHOWN).collect();
        let indent: String =
            shown.chars().take(column - 1 - skipped).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(length.min(SHOWN.saturating_sub(column - 1 - skipped)).max(1));
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {}", clean(&shown))?;
        write!(f, "{gutter} | {indent}{carets}")?;
        match &item.label {
            Some(label) => writeln!(f, " {}", clean(label))?,
            None => writeln!(f)?,
        }
        if let Some(hint) = &item.hint {
            writeln!(f, "{gutter} = help: {}", clean(hint))?;
        }
        Ok(())
    }
}

/// Control characters could do things to a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// The last character boundary at or before `at`.
fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The one of `names` that `wrong` was probably meant to be.
pub fn nearest<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    let fold = |text: &str| text.to_lowercase().replace(['-', ' ', '.'], "_");
    let folded = fold(wrong);
    names
        .into_iter()
        .map(|name| (distance(&folded, &fold(name)), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits between two texts, where a swap of neighbours is one edit (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(100).collect(), b.chars().take(100).collect());
    let mut before: Vec<usize> = vec![];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let mut best =
                (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if swap {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_name() {
        assert_eq!(nearest("groupby", ["where", "group_by", "having"]), Some("group_by"));
        assert_eq!(nearest("form", ["from", "for_all"]), Some("from"));
        assert_eq!(nearest("User_ID", ["user_id"]), Some("user_id"));
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("completely", ["different"]), None);
    }

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
    }

    #[test]
    fn points_into_the_line_in_characters() {
        let text = "a: é\u{1b}x\nb: wrong\n";
        let at = text.find("wrong").unwrap();
        let item = Diagnostic::new(Code::BadValue, Span { start: at, end: at + 5 }, "no").hint("do");
        let shown = Diagnostics::new("f.yaml", text, vec![item]).to_string();
        assert_eq!(shown, "f.yaml:2:4: error[E0104]: no\n  |\n2 | b: wrong\n  |    ^^^^^\n  = help: do\n");
        let x = text.find('x').unwrap();
        let item = Diagnostic::new(Code::BadValue, Span { start: x, end: x + 1 }, "no");
        let shown = Diagnostics::new("f.yaml", text, vec![item]).to_string();
        assert_eq!(shown, "f.yaml:1:6: error[E0104]: no\n  |\n1 | a: é\u{fffd}x\n  |      ^\n");
    }

    #[test]
    fn spans_beyond_the_text_do_no_harm() {
        let item = Diagnostic::new(Code::Syntax, Span { start: 99, end: 200 }, "no");
        assert!(Diagnostics::new("f", "ab", vec![item]).to_string().starts_with("f:1:3: error"));
    }
}
