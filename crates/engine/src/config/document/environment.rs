//! `${VAR}` in texts.
//!
//! | form | is |
//! | --- | --- |
//! | `${VAR}` | the variable; an error where it is not set |
//! | `${VAR:-default}` | the variable, or the default where it is not set or empty |
//! | `${VAR:?message}` | the variable, or an error with the message where it is not set or empty |
//! | `$${` | `${` |
//!
//! A lone `$` is a `$`. What a variable holds is not looked at again.

use super::{Environment, Scalar};
use crate::diagnostics::{Code, Diagnostic, Span};

/// Replaces the variables of `scalar`; their bytes then point to the `$`.
pub(super) fn substitute(
    scalar: Scalar,
    span: Span,
    environment: Environment,
) -> Result<Scalar, Box<Diagnostic>> {
    if !scalar.text.contains("${") {
        return Ok(scalar);
    }
    let mut out = Scalar { text: String::new(), plain: scalar.plain, origin: vec![] };
    let mut rest = 0;
    while let Some(found) = scalar.text[rest..].find("${") {
        let dollar = rest + found;
        if dollar > rest && scalar.text.as_bytes()[dollar - 1] == b'$' {
            copy(&scalar, rest..dollar - 1, &mut out);
            copy(&scalar, dollar..dollar + 2, &mut out);
            rest = dollar + 2;
            continue;
        }
        copy(&scalar, rest..dollar, &mut out);
        let Some(length) = scalar.text[dollar..].find('}') else {
            let here = scalar.span_of(dollar..scalar.text.len());
            return Err(bad(here, "`${` without `}`").into());
        };
        let end = dollar + length + 1;
        let here = scalar.span_of(dollar..end);
        let value = variable(&scalar.text[dollar + 2..end - 1], here, environment)?;
        out.text.push_str(&value);
        out.origin.extend(std::iter::repeat_n(scalar.origin[dollar], value.len()));
        rest = end;
    }
    copy(&scalar, rest..scalar.text.len(), &mut out);
    out.origin.push(scalar.origin.last().copied().unwrap_or(span.end as u32));
    Ok(out)
}

fn copy(from: &Scalar, part: std::ops::Range<usize>, to: &mut Scalar) {
    to.text.push_str(&from.text[part.clone()]);
    to.origin.extend_from_slice(&from.origin[part]);
}

fn variable(inside: &str, here: Span, environment: Environment) -> Result<String, Box<Diagnostic>> {
    let length = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, form) = inside.split_at(length);
    if let ("file" | "credential", Some(_)) =
        (name, form.strip_prefix(':').filter(|f| !f.starts_with(['-', '?'])))
    {
        let message = format!("`${{{name}:…}}` is not supported yet");
        return Err(Diagnostic::new(Code::NotYet, here, message)
            .hint("pass the value in the environment")
            .into());
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad(here, "this names no variable").into());
    }
    let value = environment(name);
    if form.is_empty() {
        return value.ok_or_else(|| {
            let message = format!("the variable `{name}` is not set");
            let hint = format!("set it, or give a default: `${{{name}:-default}}`");
            Diagnostic::new(Code::UnsetVariable, here, message).hint(hint).into()
        });
    }
    let value = value.filter(|value| !value.is_empty());
    if let Some(default) = form.strip_prefix(":-") {
        return Ok(value.unwrap_or_else(|| default.to_owned()));
    }
    if let Some(message) = form.strip_prefix(":?") {
        let message = if message.is_empty() { "is not set" } else { message };
        return value.ok_or_else(|| {
            Diagnostic::new(Code::UnsetVariable, here, format!("`{name}`: {message}")).into()
        });
    }
    Err(bad(here, "unknown form of a variable").into())
}

fn bad(here: Span, message: &str) -> Diagnostic {
    Diagnostic::new(Code::BadVariable, here, message)
        .hint("forms are `${VAR}`, `${VAR:-default}`, `${VAR:?message}`; `$${` is a plain `${`")
}
