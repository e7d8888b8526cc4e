//! What this process knows and does not tell: secrets of settings and pipelines, masked in logs and in HTTP answers.
//!
//! Whoever reads a secret [`learn`]s it here before anything can be said about it. It is never forgotten: what is running may still use
//! the value that a file no longer holds.

use std::borrow::Cow;
use std::io::{Write, stderr};
use std::sync::{PoisonError, RwLock};

use onceflow_engine::diagnostics::Secrets;

static KNOWN: RwLock<Option<Secrets>> = RwLock::new(None);

/// From now on these are masked.
pub fn learn(secrets: &Secrets) {
    if !secrets.is_empty() {
        let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_default().extend(secrets);
    }
}

/// A text for people.
pub fn mask(text: &str) -> Cow<'_, str> {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(known) => known.mask(text),
        None => Cow::Borrowed(text),
    }
}

/// JSON, or Prometheus' text format: only what stands in quotes is masked, and no name of a member, so that it stays what it is.
pub fn mask_quoted(text: &str) -> Cow<'_, str> {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(known) => Cow::Owned(quoted_without(known, text)),
        None => Cow::Borrowed(text),
    }
}

fn quoted_without(secrets: &Secrets, text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut from) = (false, false, 0);
    for (at, _) in text.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'"' | b'\\')) {
        // A backslash concerns the byte behind it only.
        if std::mem::take(&mut escaped) && text.as_bytes()[at - 1] == b'\\' {
            continue;
        }
        if text.as_bytes()[at] == b'\\' {
            escaped = quoted;
            continue;
        }
        let part = &text[from..at];
        let is_name = text[at + 1..].trim_start().starts_with(':');
        match quoted && !is_name {
            true => out.push_str(&secrets.mask(part)),
            false => out.push_str(part),
        }
        out.push('"');
        quoted = !quoted;
        from = at + 1;
    }
    let rest = &text[from..];
    out.push_str(&if quoted { secrets.mask(rest) } else { Cow::Borrowed(rest) });
    out
}

/// Standard error for the log: a line comes whole, and leaves masked.
#[derive(Clone, Copy, Debug)]
pub struct MaskedLog {
    /// Whether lines are JSON.
    pub json: bool,
}

impl Write for MaskedLog {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let masked = if self.json { mask_quoted(&text) } else { mask(&text) };
        stderr().write_all(masked.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let mut secrets = Secrets::default();
        ["hunter2", "a\"b c", "true", "pipeline"].iter().for_each(|value| secrets.add(value));
        secrets
    }

    #[test]
    fn json_stays_json() {
        for (json, masked) in [
            (
                r#"{"pipeline": "hunter2","true" : "x","ready":true,"why":["it is a\"b c",1]}"#,
                r#"{"pipeline": "***","true" : "x","ready":true,"why":["it is ***",1]}"#,
            ),
            (r#"{"a":"\\","b":"hunter2","c":"\\\"hunter2\\"}"#, r#"{"a":"\\","b":"***","c":"\\\"***\\"}"#),
            (r#"{"open":"hunter2"#, r#"{"open":"***"#),
        ] {
            assert_eq!(quoted_without(&secrets(), json), masked);
        }
    }

    #[test]
    fn metrics_stay_metrics() {
        let metrics =
            "# HELP x The pipeline.\nx{pipeline=\"hunter2\",a=\"say \\\"true\\\"\",b=\"\"} 1\ntrue 2\n";
        let masked = "# HELP x The pipeline.\nx{pipeline=\"***\",a=\"say \\\"***\\\"\",b=\"\"} 1\ntrue 2\n";
        assert_eq!(quoted_without(&secrets(), metrics), masked);
    }
}
