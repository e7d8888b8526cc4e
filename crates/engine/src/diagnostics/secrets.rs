//! Hides secrets: values that are known to be some, wherever they turn up, and in what diagnostics show of a file.
//!
//! The latter looks at lines, not at YAML: a file that is no YAML must not betray its passwords either. So it hides too much rather than too
//! little: everything behind a key that sounds like a secret, to the end of the line and on all further lines that are indented more
//! deeply than it; and whatever stands in PEM armour.

use std::borrow::Cow;
use std::fmt;

/// Parts of names whose values are secrets. `jaas` and `oauthbearer.config`: their values hold a password among other things.
const SECRET: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas",
    "oauthbearer.config",
    ".pem",
    "keystore.key",
];

/// Kafka's properties are told from words in other places even where the colon behind them is missing.
const PROPERTIES: &[&str] = &["sasl.", "ssl."];

/// Whether a setting of this name holds a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part)) && !name.ends_with(".location")
}

/// What is shown in place of a secret.
const MASK: &str = "***";

/// Shorter values are found only where they stand alone: else they would take every text apart.
const LEAST: usize = 4;

/// Values that may not be shown. Printed for debugging they are not.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// Longest first: one may be part of another.
    values: Vec<String>,
}

impl Secrets {
    /// Adds a value, its lines (a key file is printed line by line), and how it looks where it is quoted.
    pub fn add(&mut self, value: &str) {
        let lines = value.lines().map(str::trim).filter(|line| line.len() >= LEAST);
        for form in std::iter::once(value).chain(lines) {
            for form in [form.to_owned(), form.escape_debug().to_string()] {
                if !form.trim().is_empty() && !self.values.contains(&form) {
                    self.values.push(form);
                }
            }
        }
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Adds another's.
    pub fn extend(&mut self, others: &Secrets) {
        for value in &others.values {
            if !self.values.contains(value) {
                self.values.push(value.clone());
            }
        }
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The text with `***` in place of each of them.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut masked = Cow::Borrowed(text);
        for value in &self.values {
            if masked.contains(value) {
                masked = Cow::Owned(replace(&masked, value, value.len() < LEAST));
            }
        }
        masked
    }

    /// The same, and of each of their words and of what is quoted of them: for what is said of a text that holds one.
    pub fn mask_words(&self, text: &str) -> String {
        let parts = self.mask(text);
        // Every second part stands between backquotes.
        let quoted = |(i, part): (usize, &str)| {
            let is_part = i % 2 == 1 && self.values.iter().any(|value| value.contains(part));
            if is_part { MASK.to_owned() } else { part.to_owned() }
        };
        let mut masked = parts.split('`').enumerate().map(quoted).collect::<Vec<_>>().join("`");
        for word in self.values.iter().flat_map(|value| value.split(|c: char| !is_of_word(c))) {
            if !word.is_empty() {
                masked = replace(&masked, word, true);
            }
        }
        masked
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces `value` everywhere, or only where no word goes on before or behind it.
fn replace(text: &str, value: &str, alone: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = 0;
    for (at, _) in text.match_indices(value) {
        let end = at + value.len();
        let goes_on = text[..at].chars().next_back().is_some_and(is_of_word)
            || text[end..].chars().next().is_some_and(is_of_word);
        if !(alone && goes_on) {
            out.push_str(&text[rest..at]);
            out.push_str(MASK);
            rest = end;
        }
    }
    out.push_str(&text[rest..]);
    out
}

/// The text with every byte of a secret replaced by `*`, so that all others keep their places.
pub fn hide(text: &str) -> String {
    let mut hidden = String::with_capacity(text.len());
    // The indentation of the key whose secret may go on, and whether a PEM text has begun and not ended.
    let mut below: Option<usize> = None;
    let mut armoured = false;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end_matches(['\n', '\r']);
        let indent = content.len() - content.trim_start().len();
        if below.is_some_and(|key| indent <= key && indent < content.len()) {
            below = None;
        }
        armoured |= content.contains("-----BEGIN");
        let from = match value_of_secret(content) {
            _ if below.is_some() || armoured => indent,
            Some(from) => {
                below = Some(indent);
                from
            }
            None => content.len(),
        };
        armoured &= !content.contains("-----END");
        hidden.push_str(&content[..from]);
        hidden.extend(content[from..].bytes().map(|_| '*'));
        hidden.push_str(&line[content.len()..]);
    }
    hidden
}

/// Where in a line the value of its first secret begins.
fn value_of_secret(line: &str) -> Option<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut rest = 0;
    while let Some(found) = line[rest..].find(is_name) {
        let start = rest + found;
        let end = line[start..].find(|c| !is_name(c)).map_or(line.len(), |length| start + length);
        let name = &line[start..end];
        // Which credential it is may be seen.
        let refers = name == "credential" && line[..start].ends_with("${");
        if is_secret(name) && !refers {
            let behind = line[end..].trim_start_matches(['"', '\'']).trim_start();
            if behind.starts_with([':', '=']) {
                return Some(line.len() - behind.len() + 1);
            }
            if PROPERTIES.iter().any(|prefix| name.starts_with(prefix)) {
                return Some(end);
            }
        }
        rest = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_are_masked_wherever_they_turn_up() {
        let mut secrets = Secrets::default();
        for value in ["hunter2", "hunter2-and-more", "7x", "a \"b\"\nline two of it\n", ""] {
            secrets.add(value);
        }
        for (text, expected) in [
            ("password hunter2!", "password ***!"),
            ("xhunter2y", "x***y"),
            ("hunter2-and-more", "***"),
            ("a 7x in 17x and 7x1", "a *** in 17x and 7x1"),
            ("it said a \"b\"\nline two of it\n.", "it said ***."),
            (r#"it said "a \"b\"\nline two of it\n"."#, r#"it said "***"."#),
            ("| line two of it", "| ***"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(secrets.mask(text), expected);
        }
        assert_eq!(
            secrets.mask_words("`more` is no number, nor is `moreover`"),
            "`***` is no number, nor is `moreover`"
        );
        assert_eq!(secrets.mask_words("ends before `ter2`, not `zz`"), "ends before `***`, not `zz`");
        assert_eq!(format!("{secrets:?}"), "***");
        assert!(Secrets::default().mask("x").eq("x") && Secrets::default().is_empty());
    }

    #[test]
    fn secrets_are_hidden_and_nothing_moves() {
        for (text, expected) in [
            ("sasl.password: abc\nacks: all\n", "sasl.password:****\nacks: all\n"),
            ("a: { sasl.password: é, acks: 1 }", "a: { sasl.password:**************"),
            ("\"ssl.key.password\" : \"x\"\r\ny: 1", "\"ssl.key.password\" :****\r\ny: 1"),
            ("sasl.password abc", "sasl.password****"),
            (
                "  sasl.password:\n    abc\n\n    def\n  next: 1\n",
                "  sasl.password:\n    ***\n\n    ***\n  next: 1\n",
            ),
            (
                "k: |\n-----BEGIN X-----\nabc\n-----END X-----\nb: 1\n",
                "k: |\n*****************\n***\n***************\nb: 1\n",
            ),
            ("ssl.ca.location: /etc/ca.pem\n", "ssl.ca.location: /etc/ca.pem\n"),
            ("where: token > 5", "where: token > 5"),
            ("API_TOKEN=abc", "API_TOKEN=***"),
            ("a: ${credential:x}", "a: ${credential:x}"),
            ("a: ${TOKEN:-abc}", "a: ${TOKEN:*****"),
        ] {
            assert_eq!(hide(text), expected);
            assert_eq!(hide(text).len(), text.len());
        }
    }
}
