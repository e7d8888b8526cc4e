//! Hides secrets in what diagnostics show of a file.
//!
//! It looks at lines, not at YAML: a file that is no YAML must not betray its passwords either. So it hides too much rather than too
//! little: everything behind a key that sounds like a secret, to the end of the line and on all further lines that are indented more
//! deeply than it; and whatever stands in PEM armour.

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
        if is_secret(name) {
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
        ] {
            assert_eq!(hide(text), expected);
            assert_eq!(hide(text).len(), text.len());
        }
    }
}
