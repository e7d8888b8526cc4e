//! Patterns of topics: `^orders\..*`.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// A regular expression over names of topics. A topic matches if its whole name does; Kafka's own topics (`__consumer_offsets`)
/// never do.
#[derive(Clone)]
pub struct TopicPattern {
    text: String,
    regex: Regex,
}

impl TopicPattern {
    /// The pattern `text`, which begins with `^`.
    ///
    /// # Errors
    /// Why it is none, in a line.
    pub fn new(text: &str) -> Result<TopicPattern, String> {
        let inner = text.strip_prefix('^').ok_or("a pattern begins with `^`")?;
        // Apart from the whole: in it, a pattern's mistakes would be those of another text.
        let compile = |text: &str| RegexBuilder::new(text).size_limit(SIZE_LIMIT).build();
        let regex = compile(inner).and_then(|_| compile(&format!("^(?:{inner})$"))).map_err(|error| {
            let text = error.to_string();
            let last = text.lines().next_back().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })?;
        Ok(TopicPattern { text: text.to_owned(), regex })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is a pattern of this topic.
    pub fn matches(&self, topic: &str) -> bool {
        !topic.starts_with("__") && self.regex.is_match(topic)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicPattern({:?})", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match() {
        let pattern = TopicPattern::new(r"^orders\..*|returns").unwrap();
        for topic in ["orders.", "orders.de", "returns"] {
            assert!(pattern.matches(topic), "{topic}");
        }
        for topic in ["orders", "ordersX", "returns2", "old.orders.de", ""] {
            assert!(!pattern.matches(topic), "{topic}");
        }
        let all = TopicPattern::new("^.*").unwrap();
        assert!(all.matches("x") && !all.matches("__consumer_offsets"));
    }

    #[test]
    fn mistakes_are_told_in_a_line() {
        assert_eq!(TopicPattern::new("^orders(").unwrap_err(), "unclosed group");
        // Not to be mended by what is put around it.
        assert!(TopicPattern::new("^a)|(b").is_err());
        assert!(TopicPattern::new("^(a{1000}){1000}").unwrap_err().contains("size limit"));
    }
}
