//! The short way through a JSON record: a scanner that looks at eight bytes at a time and knows only what nearly every record is made of.
//!
//! Whatever else there is (an escape in a name, a value that is no object where a path goes on, deep nesting, and every mistake) makes it
//! give up, and serde_json decides: what the scanner takes is JSON, and means the same there. The fuzz target `json` compares both with a
//! model.
//!
//! Most records of a topic are written by one program, which names the same members in the same order. So the scanner remembers how the
//! last object of a node was written ([`Shapes`]) and compares before it parses: a name that comes where it came before costs one comparison.
//!
//! The search for a string's end is the one of "Hacker's Delight", chapter 6 (find the first byte of a word with some property).

use super::json::{PathTrie, Slot};

/// Objects and arrays inside of each other that it follows.
const MAX_DEPTH: usize = 32;
/// Members of an object that are remembered.
const MAX_SHAPE: usize = 256;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// How the last object of each node was written.
#[derive(Debug)]
pub(super) struct Shapes(Vec<Vec<Named>>);

/// A member's name as it stood there, and where it leads.
#[derive(Clone, Debug, Default)]
struct Named {
    /// From the name's quote up to the value: `"amount": `.
    text: Vec<u8>,
    /// The first [`HEAD`] bytes of that, and a mask of those that there are.
    head: u128,
    mask: u128,
    child: Option<usize>,
}

/// Bytes that are compared at once.
const HEAD: usize = 16;

impl Named {
    fn set(&mut self, text: &[u8], child: Option<usize>) {
        // Its memory is used again: records whose members come in ever another order cost no allocations.
        self.text.clear();
        self.text.extend_from_slice(text);
        let (mut head, mut mask) = ([0; HEAD], [0; HEAD]);
        for (i, byte) in text.iter().take(HEAD).enumerate() {
            (head[i], mask[i]) = (*byte, u8::MAX);
        }
        (self.head, self.mask) = (u128::from_le_bytes(head), u128::from_le_bytes(mask));
        self.child = child;
    }

    #[inline(always)]
    fn begins(&self, bytes: &[u8]) -> bool {
        match bytes.first_chunk() {
            Some(head) if self.text.len() <= HEAD => {
                (u128::from_le_bytes(*head) ^ self.head) & self.mask == 0
            }
            _ => bytes.starts_with(&self.text),
        }
    }
}

impl Shapes {
    /// Of the nodes of `trie`, none of them seen yet.
    pub(super) fn new(trie: &PathTrie) -> Shapes {
        Shapes(vec![vec![]; trie.len()])
    }

    fn learn(&mut self, node: usize, number: usize, text: &[u8], child: Option<usize>) {
        let shape = &mut self.0[node];
        if number == shape.len() && number < MAX_SHAPE {
            shape.push(Named::default());
        }
        if let Some(named) = shape.get_mut(number) {
            named.set(text, child);
        }
    }
}

impl PathTrie {
    /// Sets the slots of the columns that `record` has members for. `None` where this is not for the scanner to say; some slots may be set
    /// then.
    pub(super) fn scan<'de>(
        &self,
        shapes: &mut Shapes,
        record: &'de str,
        slots: &mut [Slot<'de>],
    ) -> Option<()> {
        let mut scanner =
            Scanner { trie: self, shapes, text: record, bytes: record.as_bytes(), at: 0, slots };
        scanner.space();
        scanner.members(0, 0)?;
        scanner.space();
        (scanner.at == record.len()).then_some(())
    }
}

struct Scanner<'t, 's, 'de> {
    trie: &'t PathTrie,
    shapes: &'s mut Shapes,
    text: &'de str,
    bytes: &'de [u8],
    at: usize,
    slots: &'s mut [Slot<'de>],
}

impl<'de> Scanner<'_, '_, 'de> {
    /// The object of a node, with a slot for each of its columns.
    fn members(&mut self, node: usize, depth: usize) -> Option<()> {
        let (trie, mut number) = (self.trie, 0);
        self.elements(b'{', b'}', depth, |scanner| {
            let child = scanner.name(node, number)?;
            number += 1;
            let Some(child) = child else { return scanner.value(depth + 1).map(drop) };
            // An earlier member of this name counts no more, nor does anything inside of it.
            trie.forget(child, scanner.slots);
            let node = trie.node(child);
            match (node.columns().is_empty(), node.is_leaf()) {
                (true, true) => scanner.value(depth + 1).map(drop),
                (true, false) => scanner.members(child, depth + 1),
                (false, true) => {
                    let found = scanner.value(depth + 1)?;
                    node.columns().iter().for_each(|column| scanner.slots[*column] = found);
                    Some(())
                }
                (false, false) => None,
            }
        })
    }

    /// The name of an object's next member and what is between it and its value. Returns the node that it leads to, if any does.
    #[inline(always)]
    fn name(&mut self, node: usize, number: usize) -> Option<Option<usize>> {
        if let Some(known) = self.shapes.0[node].get(number)
            && known.begins(&self.bytes[self.at..])
        {
            let child = known.child;
            self.at += known.text.len();
            self.space();
            return Some(child);
        }
        let start = self.at;
        let name = self.string()?;
        let child = self.trie.node(node).child(&name[1..name.len() - 1]);
        self.colon()?;
        self.shapes.learn(node, number, &self.bytes[start..self.at], child);
        Some(child)
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// What stands between two brackets, separated by commas.
    #[inline(always)]
    fn elements(
        &mut self,
        open: u8,
        close: u8,
        depth: usize,
        mut element: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.expect(open)?;
        self.space();
        if self.next_is(close) {
            return Some(());
        }
        loop {
            element(self)?;
            self.space();
            if self.next_is(close) {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }

    /// Any value.
    #[inline]
    fn value(&mut self, depth: usize) -> Option<Slot<'de>> {
        let start = self.at;
        match self.peek()? {
            b'"' => return self.string().map(Slot::Text),
            b'{' => self.elements(b'{', b'}', depth, |scanner| {
                scanner.string()?;
                scanner.colon()?;
                scanner.value(depth + 1).map(drop)
            })?,
            b'[' => self.elements(b'[', b']', depth, |scanner| scanner.value(depth + 1).map(drop))?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => self.number()?,
        }
        self.text.get(start..self.at).map(Slot::Found)
    }

    /// A string without escapes, with its quotes.
    #[inline(always)]
    fn string(&mut self) -> Option<&'de str> {
        let start = self.at;
        self.expect(b'"')?;
        while let Some(word) = self.word() {
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

    #[inline(always)]
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
    #[inline(always)]
    fn digits(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at..)?;
        let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += digits;
        (digits > 0).then_some(())
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let found = self.bytes.get(self.at..self.at + literal.len())? == literal.as_bytes();
        self.at += literal.len();
        found.then_some(())
    }

    #[inline(always)]
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next eight bytes, the first one lowest.
    #[inline(always)]
    fn word(&self) -> Option<u64> {
        self.bytes.get(self.at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
    }

    #[inline(always)]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline(always)]
    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    #[inline(always)]
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
        let trie = trie();
        scanned_after(&trie, &mut Shapes::new(&trie), record)
    }

    /// Strings without escapes as serde_json's way finds them: like any other value.
    fn scanned_after<'r>(trie: &PathTrie, shapes: &mut Shapes, record: &'r str) -> Option<[Slot<'r>; 5]> {
        let mut slots = [Slot::Missing; 5];
        trie.scan(shapes, record, &mut slots)?;
        Some(slots.map(|slot| match slot {
            Slot::Text(json) => {
                assert_eq!(serde_json::from_str::<&str>(json).unwrap(), &json[1..json.len() - 1]);
                Slot::Found(json)
            }
            other => other,
        }))
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
    fn remembers_how_the_last_record_was_written() {
        let trie = trie();
        let mut shapes = Shapes::new(&trie);
        let find = |shapes: &mut Shapes, record| scanned_after(&trie, shapes, record).unwrap()[..2].to_vec();
        let (one, two) = (Slot::Found("1"), Slot::Found("2"));
        assert_eq!(find(&mut shapes, r#"{"a":1,"o":{"p":2}}"#), [one, two]);
        assert_eq!(
            shapes.0[0].iter().map(|named| named.text.as_slice()).collect::<Vec<_>>(),
            [b"\"a\":", b"\"o\":"]
        );
        // More space, another order, other names that begin alike: nothing is taken for something else.
        assert_eq!(find(&mut shapes, r#"{"a": 1 , "o":{ "p" :2}}"#), [one, two]);
        assert_eq!(find(&mut shapes, r#"{"o":{"q":0,"p":2},"a":1}"#), [one, two]);
        assert_eq!(find(&mut shapes, r#"{"ob":{"q":0,"p":0},"ab":0}"#), [Slot::Missing; 2]);
        assert_eq!(find(&mut shapes, r#"{"a":1,"a":2,"o":{"p":1,"p":2}}"#), [two, two]);
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

        /// Pieces that nearly make up records: what the scanner takes, serde_json takes, and finds the same in it, whatever records came before.
        #[test]
        fn never_disagrees_with_serde_json(records in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", " ", "\"a\":", "\"a\" :", "\"a\": ", "\"o\":{", "\"p\":", "\"q\":", "\"w\":", "\"x\":", "\"b\":", "\"z\":[",
            "0", "-1", "1.5", "2e9", "1e999", "12345678", "-1234567890123.25", "true", "null", "\"text\"", "\"é, and more than eight bytes\"", "\"\\n\"", "\"", "\u{1}", "7",
        ]), 0..12), 1..4)) {
            let trie = trie();
            let mut shapes = Shapes::new(&trie);
            for pieces in records {
                let record = format!("{{{}}}", pieces.concat());
                if let Some(slots) = scanned_after(&trie, &mut shapes, &record) {
                    let mut read = [Slot::Missing; 5];
                    prop_assert_eq!(trie.read(&record, &mut read, &mut Undeclared::Ignore), Ok(()));
                    prop_assert_eq!(read, slots);
                }
            }
        }
    }
}
