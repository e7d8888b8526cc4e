//! The short way through a JSON record: a scanner that looks at eight bytes at a time and knows only what nearly every record is made of.
//!
//! Whatever else there is (an escape in a name, a value that is no object where a path goes on, deep nesting, and every mistake) makes it
//! give up, and serde_json decides: what the scanner takes is JSON, and means the same there. The fuzz target `json` compares both with a
//! model.
//!
//! The search for a string's end is the one of "Hacker's Delight", chapter 6 (find the first byte of a word with some property).

use super::json::{Node, PathTrie, Slot};

/// Objects and arrays inside of each other that it follows.
const MAX_DEPTH: usize = 32;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

impl PathTrie {
    /// Sets the slots of the columns that `record` has members for. `None` where this is not for the scanner to say; some slots may be set
    /// then.
    pub(super) fn scan<'de>(&self, record: &'de str, slots: &mut [Slot<'de>]) -> Option<()> {
        let mut scanner = Scanner { trie: self, text: record, bytes: record.as_bytes(), at: 0, slots };
        scanner.space();
        scanner.members(self.root(), 0)?;
        scanner.space();
        (scanner.at == record.len()).then_some(())
    }
}

struct Scanner<'t, 's, 'de> {
    trie: &'t PathTrie,
    text: &'de str,
    bytes: &'de [u8],
    at: usize,
    slots: &'s mut [Slot<'de>],
}

impl<'de> Scanner<'_, '_, 'de> {
    /// The object of a node, with a slot for each of its columns.
    fn members(&mut self, node: &Node, depth: usize) -> Option<()> {
        let trie = self.trie;
        self.object(depth, |scanner, name| {
            let Some(child) = node.child(name) else { return scanner.value(depth + 1).map(drop) };
            // An earlier member of this name counts no more, nor does anything inside of it.
            trie.forget(child, scanner.slots);
            let node = trie.node(child);
            match (node.columns().is_empty(), node.is_leaf()) {
                (true, true) => scanner.value(depth + 1).map(drop),
                (true, false) => scanner.members(node, depth + 1),
                (false, true) => {
                    let found = Slot::Found(scanner.value(depth + 1)?);
                    node.columns().iter().for_each(|column| scanner.slots[*column] = found);
                    Some(())
                }
                (false, false) => None,
            }
        })
    }

    /// An object; `member` takes each value.
    fn object(
        &mut self,
        depth: usize,
        mut member: impl FnMut(&mut Self, &'de str) -> Option<()>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.expect(b'{')?;
        self.space();
        if self.next_is(b'}') {
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            member(self, &name[1..name.len() - 1])?;
            self.space();
            if self.next_is(b'}') {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.expect(b'[')?;
        self.space();
        if self.next_is(b']') {
            return Some(());
        }
        loop {
            self.value(depth + 1)?;
            self.space();
            if self.next_is(b']') {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    /// Any value, as it stands there.
    fn value(&mut self, depth: usize) -> Option<&'de str> {
        let start = self.at;
        match self.peek()? {
            b'"' => return self.string(),
            b'{' => self.object(depth, |scanner, _| scanner.value(depth + 1).map(drop))?,
            b'[' => self.array(depth)?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => self.number()?,
        }
        self.text.get(start..self.at)
    }

    /// A string without escapes, with its quotes.
    fn string(&mut self) -> Option<&'de str> {
        let start = self.at;
        self.expect(b'"')?;
        while let Some(word) = self.bytes.get(self.at..self.at + 8) {
            let word = u64::from_le_bytes(word.try_into().ok()?);
            let (quote, escape) = (word ^ (LOW * u64::from(b'"')), word ^ (LOW * u64::from(b'\\')));
            // The highest bit of each byte that is zero, or a control character; above the first such byte it may be wrong.
            let found = (quote.wrapping_sub(LOW) & !quote)
                | (escape.wrapping_sub(LOW) & !escape)
                | (word.wrapping_sub(LOW * 0x20) & !word);
            let found = found & HIGH;
            if found != 0 {
                self.at += found.trailing_zeros() as usize / 8;
                break;
            }
            self.at += 8;
        }
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' | 0..0x20 => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.text.get(start..self.at)
    }

    fn number(&mut self) -> Option<()> {
        self.next_is(b'-');
        if !self.next_is(b'0') {
            self.digits()?;
        }
        if self.next_is(b'.') {
            self.digits()?;
        }
        if self.next_is(b'e') || self.next_is(b'E') {
            if !self.next_is(b'+') {
                self.next_is(b'-');
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let found = self.bytes.get(self.at..self.at + literal.len())? == literal.as_bytes();
        self.at += literal.len();
        found.then_some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.next_is(byte).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::Undeclared;
    use super::*;

    /// Columns of `a`, of `o.p` and `o.q`, and of both `w` and `w.x`.
    fn trie() -> PathTrie {
        let paths = [&["a"][..], &["o", "p"], &["o", "q"], &["w"], &["w", "x"]];
        let paths = paths.map(|path| path.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        PathTrie::new(paths.iter().map(Vec::as_slice), [["b".to_owned()]].iter().map(|path| path.as_slice()))
    }

    fn scanned(record: &str) -> Option<[Slot<'_>; 5]> {
        let mut slots = [Slot::Missing; 5];
        trie().scan(record, &mut slots).map(|()| slots)
    }

    #[test]
    fn takes_what_is_plain() {
        let record =
            r#" {"b" : [1, {"a":2}, []],"a":"a text without escapes","o":{"q":-0.5e+3,"p":null},"z":{}} "#;
        let expected = [
            Slot::Found("\"a text without escapes\""),
            Slot::Found("null"),
            Slot::Found("-0.5e+3"),
            Slot::Missing,
            Slot::Missing,
        ];
        assert_eq!(scanned(record), Some(expected));
        // Of two members of one name the second counts, as a whole.
        let twice = scanned(r#"{"o":{"p":1},"a":1,"o":{"q":2},"a":true}"#).unwrap();
        assert_eq!(twice[..3], [Slot::Found("true"), Slot::Missing, Slot::Found("2")]);
        assert_eq!(scanned("{}"), Some([Slot::Missing; 5]));
        let nested = |depth: usize| format!("{{\"z\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(scanned(&nested(MAX_DEPTH)).is_some() && scanned(&nested(MAX_DEPTH + 1)).is_none());
    }

    #[test]
    fn leaves_the_rest_to_serde_json() {
        for record in [
            r#"{"a":"an \" escape"}"#,
            r#"{"\u0061":1}"#,
            r#"{"o":1}"#,
            r#"{"o":null}"#,
            r#"{"w":{}}"#,
            "",
            "1",
            "[]",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,}"#,
            r#"{"a":1}}"#,
            r#"{"a":1} x"#,
            r#"{"a":01}"#,
            r#"{"a":1.}"#,
            r#"{"a":.5}"#,
            r#"{"a":1e}"#,
            r#"{"a":+1}"#,
            r#"{"a":-}"#,
            r#"{"a":tru}"#,
            r#"{"a":nulll}"#,
            r#"{"z":[1,]}"#,
            r#"{"z":[1 2]}"#,
            "{\"a\":\"tab\tin a text\"}",
            r#"{"a":"open}"#,
            r#"{a:1}"#,
        ] {
            assert_eq!(scanned(record), None, "{record}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Pieces that nearly make up records: what the scanner takes, serde_json takes, and finds the same in it.
        #[test]
        fn never_disagrees_with_serde_json(pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", " ", "\"a\":", "\"o\":{", "\"p\":", "\"q\":", "\"w\":", "\"x\":", "\"b\":", "\"z\":[",
            "0", "-1", "1.5", "2e9", "1e999", "true", "null", "\"text\"", "\"é, and more than eight bytes\"", "\"\\n\"", "\"", "\u{1}", "7",
        ]), 0..12)) {
            let record = format!("{{{}}}", pieces.concat());
            if let Some(slots) = scanned(&record) {
                let mut read = [Slot::Missing; 5];
                prop_assert_eq!(trie().read(&record, &mut read, &mut Undeclared::Ignore), Ok(()));
                prop_assert_eq!(read, slots);
            }
        }
    }
}
