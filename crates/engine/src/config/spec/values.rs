//! Scalars with a form of their own: durations, sizes, numbers, words.

use std::time::Duration;

use chrono::DateTime;

use super::fields::{first, not_yet, text};
use super::{Spanned, Sql};
use crate::config::document::{Node, Value};
use crate::diagnostics::{Code, Diagnostic};

/// Longest duration: about 1,000 years.
const MAX_DURATION_MS: u64 = 1000 * 366 * 86_400_000;

/// `5s`, `100ms`, `1m`, `1h`, `1d`.
pub fn duration(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Spanned<Duration>> {
    let text = text(node, what, found)?;
    match parse_duration(&text.value) {
        Some(value) => Some(Spanned { value, span: text.span }),
        None => {
            let message = format!("{what} is a duration, `{}` is not", text.value);
            found.push(
                Diagnostic::new(Code::BadValue, text.span, message)
                    .hint("a whole number and a unit: `100ms`, `5s`, `1m`, `1h`, `1d`"),
            );
            None
        }
    }
}

/// A [`duration`] above zero.
pub fn positive_duration(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Spanned<Duration>> {
    let duration = duration(node, what, found)?;
    if duration.value.is_zero() {
        found.push(Diagnostic::new(
            Code::BadValue,
            duration.span,
            format!("{what} must be longer than nothing"),
        ));
        return None;
    }
    Some(duration)
}

/// A [`duration`] that may have a minus sign, milliseconds.
pub fn signed_duration(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Spanned<i64>> {
    let text = text(node, what, found)?;
    let (sign, digits) = text.value.strip_prefix('-').map_or((1, text.value.as_str()), |rest| (-1, rest));
    match parse_duration(digits) {
        Some(value) => Some(Spanned { value: sign * value.as_millis() as i64, span: text.span }),
        None => {
            let message = format!("{what} is a duration, `{}` is not", text.value);
            found.push(
                Diagnostic::new(Code::BadValue, text.span, message)
                    .hint("a whole number and a unit, with a minus sign or without: `8h`, `-30m`"),
            );
            None
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_number(text)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.checked_mul(unit).filter(|ms| *ms <= MAX_DURATION_MS)?;
    Some(Duration::from_millis(ms))
}

/// `2026-01-01T00:00:00Z`, or milliseconds since the epoch.
pub fn instant(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<i64> {
    let text = text(node, what, found)?;
    let parsed = text.value.parse::<i64>().ok();
    let parsed = parsed.or_else(|| Some(DateTime::parse_from_rfc3339(&text.value).ok()?.timestamp_millis()));
    if parsed.is_none() {
        let message = format!("{what} is a point in time, `{}` is not", text.value);
        found.push(
            Diagnostic::new(Code::BadValue, text.span, message)
                .hint("for example `2026-01-01T00:00:00Z`, or milliseconds since 1970"),
        );
    }
    parsed
}

/// `64MiB`, `1GB`, or bytes without a unit.
pub fn size(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Spanned<u64>> {
    let text = text(node, what, found)?;
    match parse_size(&text.value) {
        Some(value) => Some(Spanned { value, span: text.span }),
        None => {
            let message = format!("{what} is a size, `{}` is not", text.value);
            found.push(
                Diagnostic::new(Code::BadValue, text.span, message)
                    .hint("a whole number and a unit: `512KiB`, `64MiB`, `1GiB`, `1GB`"),
            );
            None
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let unit: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok())
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim_start()))
}

/// A whole number between `least` and `most`.
pub fn number(node: &Node, what: &str, least: u64, most: u64, found: &mut Vec<Diagnostic>) -> Option<u64> {
    let text = text(node, what, found)?;
    let digits = text.value.replace('_', "");
    match digits.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            let range =
                if most == u64::MAX { format!("from {least}") } else { format!("from {least} to {most}") };
            let message = format!("{what} is a whole number {range}, `{}` is not", text.value);
            found.push(Diagnostic::new(Code::BadValue, text.span, message));
            None
        }
    }
}

/// One of `words`; those of `later` are known, but not supported yet.
pub fn word<T: Copy>(
    node: &Node,
    what: &str,
    words: &[(&str, T)],
    later: &[&str],
    found: &mut Vec<Diagnostic>,
) -> Option<Spanned<T>> {
    #[cfg(test)]
    super::heard::words(what, words.iter().map(|(word, _)| *word));
    let text = text(node, what, found)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(Spanned { value: *value, span: text.span });
    }
    if later.contains(&text.value.as_str()) {
        found.push(not_yet(text.span, &format!("`{what}: {}`", text.value)));
        return None;
    }
    let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let message = format!("`{what}` cannot be `{}`", text.value);
    found.push(
        Diagnostic::new(Code::BadValue, text.span, message)
            .nearest(&text.value, names.iter().copied())
            .hint(format!("it is one of: {}", names.join(", "))),
    );
    None
}

/// An SQL expression.
pub fn sql(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Option<Sql> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.text.trim().is_empty() => {
            Some(Sql { scalar: scalar.clone(), span: node.span })
        }
        Value::Invalid => None,
        _ => {
            found.push(Diagnostic::new(
                Code::WrongType,
                first(node.span),
                format!("{what} is an SQL expression"),
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(ms("100ms"), Some(100));
        assert_eq!(ms("0s"), Some(0));
        assert_eq!(ms("5 s"), Some(5_000));
        assert_eq!(ms("2d"), Some(172_800_000));
        for wrong in ["", "5", "s", "-1s", "1.5s", "1h30m", "5S", "99999999999999999999s", "999999999d", "٣s"]
        {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("1 GB"), Some(1_000_000_000));
        assert_eq!(parse_size("77"), Some(77));
        for wrong in ["", "MiB", "-1B", "1mb", "1.5GiB", "16777216TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
