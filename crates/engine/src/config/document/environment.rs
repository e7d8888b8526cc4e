//! `${…}` in texts.
//!
//! | form | is |
//! | --- | --- |
//! | `${VAR}` | the variable; an error where it is not set |
//! | `${VAR:-default}` | the variable, or the default where it is not set or empty |
//! | `${VAR:?message}` | the variable, or an error with the message where it is not set or empty |
//! | `${file:PATH}` | what the file holds, less a newline at its end; a secret |
//! | `${credential:NAME}` | the same of a credential that the service manager passed; a secret |
//! | `$${` | `${` |
//!
//! A lone `$` is a `$`. What was put in is not looked at again.

use super::{Document, Scalar};
use crate::diagnostics::{Code, Diagnostic, Span};

/// What `${…}` refers to. A function from names to values is one that knows variables only.
pub trait Environment {
    /// A variable, if it is set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file, whole.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn file(&self, path: &str) -> Result<String, String> {
        let _ = path;
        Err("files are not read here".to_owned())
    }

    /// The text of a credential, whole.
    ///
    /// # Errors
    /// Why it cannot be read, for people.
    fn credential(&self, name: &str) -> Result<String, String> {
        let _ = name;
        Err("credentials are not read here".to_owned())
    }
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn variable(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// A value, and whether it may be shown.
struct Found {
    value: String,
    secret: bool,
}

impl Found {
    fn open(value: String) -> Found {
        Found { value, secret: false }
    }
}

/// Replaces the variables of `scalar`; their bytes then point to the `$`. Notes in `document` what is secret.
pub(super) fn substitute(
    scalar: Scalar,
    span: Span,
    environment: &dyn Environment,
    document: &mut Document,
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
        let Found { value, secret } = resolve(&scalar.text[dollar + 2..end - 1], here, environment)?;
        if secret {
            document.secrets.add(&value);
            document.secret_spans.push(span);
        }
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

/// `inside` is what stands between the braces.
fn resolve(inside: &str, here: Span, environment: &dyn Environment) -> Result<Found, Box<Diagnostic>> {
    if inside.contains("${") {
        return Err(bad(here, "`${…}` cannot stand inside another").into());
    }
    let length = inside.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inside.len());
    let (name, form) = inside.split_at(length);
    match (name, form.strip_prefix(':').filter(|place| !place.starts_with(['-', '?']))) {
        ("file", Some(path)) => return file(path, here, environment),
        ("credential", Some(name)) => return credential(name, here, environment),
        _ => {}
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad(here, "this names no variable").into());
    }
    let value = environment.variable(name);
    if form.is_empty() {
        return value.map(Found::open).ok_or_else(|| {
            let message = format!("the variable `{name}` is not set");
            let hint = format!("set it, or give a default: `${{{name}:-default}}`");
            Diagnostic::new(Code::UnsetVariable, here, message).hint(hint).into()
        });
    }
    let value = value.filter(|value| !value.is_empty());
    if let Some(default) = form.strip_prefix(":-") {
        return Ok(Found::open(value.unwrap_or_else(|| default.to_owned())));
    }
    if let Some(message) = form.strip_prefix(":?") {
        let message = if message.is_empty() { "is not set" } else { message };
        return value.map(Found::open).ok_or_else(|| {
            Diagnostic::new(Code::UnsetVariable, here, format!("`{name}`: {message}")).into()
        });
    }
    Err(bad(here, "unknown form of a variable").into())
}

fn file(path: &str, here: Span, environment: &dyn Environment) -> Result<Found, Box<Diagnostic>> {
    if !path.starts_with('/') {
        return Err(Diagnostic::new(Code::BadVariable, here, format!("`{path}` is not an absolute path"))
            .hint("where a relative one begins would depend on who starts the daemon")
            .into());
    }
    let value = environment.file(path).map_err(|why| unreadable(here, &format!("the file `{path}`"), why))?;
    Ok(secret(value))
}

fn credential(name: &str, here: Span, environment: &dyn Environment) -> Result<Found, Box<Diagnostic>> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(bad(here, "this names no credential").into());
    }
    let value = environment.credential(name).map_err(|why| {
        let hint = format!("the unit passes it with `LoadCredential={name}:/path/to/file`");
        unreadable(here, &format!("the credential `{name}`"), why).hint(hint)
    })?;
    Ok(secret(value))
}

/// Editors end a file with a newline that nobody means.
fn secret(mut value: String) -> Found {
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Found { value, secret: true }
}

fn unreadable(here: Span, what: &str, why: String) -> Diagnostic {
    Diagnostic::new(Code::UnreadableValue, here, format!("{what} cannot be read: {why}"))
}

fn bad(here: Span, message: &str) -> Diagnostic {
    Diagnostic::new(Code::BadVariable, here, message).hint(
        "forms are `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${file:/PATH}`, `${credential:NAME}`; `$${` is a plain `${`",
    )
}
