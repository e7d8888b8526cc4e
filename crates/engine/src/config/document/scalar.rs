//! A text of the file, of which every byte knows where it stands.

use std::ops::Range;

use saphyr_parser::ScalarStyle;

use crate::diagnostics::Span;

/// A text after YAML's unquoting, unfolding and unescaping.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// Whether it stands without quotes.
    pub plain: bool,
    /// For each byte of the text, and for its end, the byte of the file that it comes from.
    pub(super) origin: Vec<u32>,
}

impl Scalar {
    /// `raw` is the text as it stands in the file at `span`, quotes and indicators included.
    pub(super) fn new(text: String, style: ScalarStyle, raw: &str, span: Span) -> Scalar {
        let origin = align(&text, style, raw).into_iter().map(|at| at + span.start as u32).collect();
        Scalar { text, plain: matches!(style, ScalarStyle::Plain), origin }
    }

    /// Whether it stands for nothing: empty, `~` or `null`, without quotes.
    pub fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }

    /// Where a part of the text stands in the file.
    pub fn span_of(&self, part: Range<usize>) -> Span {
        let at = |i: usize| self.origin[i.min(self.origin.len() - 1)] as usize;
        let start = at(part.start);
        Span { start, end: at(part.end).max(start + usize::from(part.end > part.start)) }
    }
}

/// Walks over the text and its source side by side: they differ in quotes, escapes, line breaks and indentation only. Where they
/// cannot be matched, the bytes point to where the match was lost.
fn align(text: &str, style: ScalarStyle, raw: &str) -> Vec<u32> {
    let quoted = matches!(style, ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
    let escapes = matches!(style, ScalarStyle::DoubleQuoted);
    let mut at = 0;
    if quoted && raw.starts_with(['\'', '"']) {
        at = 1;
    } else if !quoted && raw.starts_with(['|', '>']) && !matches!(style, ScalarStyle::Plain) {
        at = raw.find('\n').map_or(raw.len(), |newline| newline + 1);
    }
    let mut origin = Vec::with_capacity(text.len() + 1);
    for c in text.chars() {
        let mut start = at;
        while let Some(next) = raw[at..].chars().next() {
            if escapes && next == '\\' {
                let (length, is_break) = escape(&raw[at..]);
                if !is_break {
                    start = at;
                    at += length;
                    break;
                }
                at += length;
            } else if next == c {
                start = at;
                at += next.len_utf8();
                if style == ScalarStyle::SingleQuoted && c == '\'' && raw[at..].starts_with('\'') {
                    at += 1;
                }
                break;
            } else if next.is_whitespace() && !c.is_whitespace() {
                at += next.len_utf8();
                start = at;
            } else {
                // A space for a folded line break, or a match that was lost.
                break;
            }
        }
        origin.extend(std::iter::repeat_n(start as u32, c.len_utf8()));
    }
    origin.push(at as u32);
    origin
}

/// Bytes of the escape at the start of `raw`, and whether it only joins two lines.
fn escape(raw: &str) -> (usize, bool) {
    let mut chars = raw.char_indices().skip(1);
    let Some((_, kind)) = chars.next() else { return (raw.len(), false) };
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => 0,
    };
    let end = chars.nth(digits).map_or(raw.len(), |(at, _)| at);
    (end, kind == '\n' || kind == '\r')
}
