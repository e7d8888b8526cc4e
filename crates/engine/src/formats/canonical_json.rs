//! JSON in one spelling for everything that means the same: for comparing what was written with what was expected.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deepest nesting; the engine's own reader of JSON allows as much.
const MAX_DEPTH: usize = 128;

/// The text without blanks, with members in the order of their names and numbers in their shortest decimal form; `None` if it is not JSON,
/// or nested too deeply.
/// Numbers are compared as they are written, not as doubles: `12.50` is `12.5`, and no digit of a decimal is lost.
pub fn canonical(json: &str) -> Option<String> {
    let mut text = String::new();
    write(serde_json::from_str(json).ok()?, 0, &mut text)?;
    Some(text)
}

fn write(json: &RawValue, depth: usize, out: &mut String) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    match json.get().as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json.get()).ok()?;
            out.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::to_string(&name).ok()?);
                out.push(':');
                write(value, depth + 1, out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json.get()).ok()?;
            out.push('[');
            for (i, item) in items.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, depth + 1, out)?;
            }
            out.push(']');
        }
        b'"' => {
            let text: String = serde_json::from_str(json.get()).ok()?;
            out.push_str(&serde_json::to_string(&text).ok()?);
        }
        b't' | b'f' | b'n' => out.push_str(json.get()),
        _ => out.push_str(&number(json.get())),
    }
    Some(())
}

/// A JSON number: its digits without noughts at either end, and a point or an exponent where they need one.
fn number(text: &str) -> String {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    // An exponent beyond that is left as it is.
    let Ok(exponent) = exponent.parse::<i32>() else { return text.to_owned() };
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let noughts = digits.len() - digits.trim_end_matches('0').len();
    // The value is `significant` times ten to this.
    let power = i64::from(exponent) - fraction.len() as i64 + noughts as i64;
    let length = significant.len() as i64;
    let written = match power {
        0 => significant.to_owned(),
        1..=20 => format!("{significant}{}", "0".repeat(power as usize)),
        _ if (1 - length..0).contains(&power) => {
            let (whole, fraction) = significant.split_at((length + power) as usize);
            format!("{whole}.{fraction}")
        }
        _ if (-20..0).contains(&power) => {
            format!("0.{}{significant}", "0".repeat((-power - length) as usize))
        }
        _ => format!("{significant}e{power}"),
    };
    format!("{sign}{written}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_written_alike() {
        let same = [
            (r#"{ "b": 1.50, "a": [ 1e2, "\u0041" ] }"#, r#"{"a":[100,"A"],"b":1.5}"#),
            ("-0.0", "0"),
            ("12.50", "12.5"),
            ("0.0050", "0.005"),
            ("-100", "-100"),
            ("1.00E+1", "10"),
            ("120e-1", "12"),
            ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
            ("1e30", "1e30"),
            ("1e-30", "1e-30"),
            ("0.1e-25", "1e-26"),
            ("null", "null"),
        ];
        for (json, expected) in same {
            assert_eq!(canonical(json).as_deref(), Some(expected), "{json}");
            assert_eq!(canonical(expected).as_deref(), Some(expected), "{expected}");
        }
        assert_ne!(canonical("9007199254740993"), canonical("9007199254740992"));
        assert_eq!(canonical("{"), None);
        assert_eq!(canonical("no"), None);
    }
}
