//! Finds the members of a JSON object that columns come from, all of them in one pass, and deals with the others.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::scan::Shapes;
use crate::formats::kept;

/// More children than this are looked up by hash instead of one by one.
const LINEAR: usize = 16;

/// Where a column's member was found in the current record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Slot<'a> {
    /// Nowhere.
    Missing,
    /// Here: valid JSON without white space around it.
    Found(&'a str),
    /// The same, and it is a string without escapes.
    Text(&'a str),
    /// The first `depth` names of its path lead to something that is no object.
    Blocked {
        /// How much of the path was followed.
        depth: usize,
        /// What stands there.
        found: &'static str,
    },
}

/// What becomes of members that no column is declared for.
pub(super) enum Undeclared<'k> {
    /// They are checked for syntax and skipped.
    Ignore,
    /// Those of the record itself are [pushed](kept::push) here. A member that columns read parts of is kept whole: what is
    /// declared is the column, not the member.
    Keep(&'k mut Vec<u8>),
    /// The name of the first one goes here.
    Refuse(&'k mut Option<String>),
}

/// Finds the members of records that columns come from.
#[derive(Debug)]
pub(super) struct Finder {
    trie: PathTrie,
    /// How the records so far were written.
    shapes: Shapes,
}

impl Finder {
    /// Of the members at the paths of columns 0, 1, …; some more paths may be declared.
    pub(super) fn new<'a>(
        paths: impl Iterator<Item = &'a [String]>,
        declared: impl Iterator<Item = &'a [String]>,
    ) -> Finder {
        let trie = PathTrie::new(paths, declared);
        Finder { shapes: Shapes::new(&trie), trie }
    }

    /// Finds the member of each column.
    ///
    /// # Errors
    /// Text that is not one JSON object.
    pub(super) fn find<'de>(
        &mut self,
        record: &'de str,
        slots: &mut [Slot<'de>],
        undeclared: &mut Undeclared,
    ) -> Result<(), String> {
        slots.fill(Slot::Missing);
        if matches!(undeclared, Undeclared::Ignore) {
            if self.trie.scan(&mut self.shapes, record, slots).is_some() {
                return Ok(());
            }
            slots.fill(Slot::Missing);
        }
        self.trie.read(record, slots, undeclared)
    }
}

/// The paths of all columns, merged by their common beginnings.
#[derive(Debug)]
pub(super) struct PathTrie {
    /// The first one is the root: the record itself.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    depth: usize,
    /// Columns whose path ends here.
    columns: Vec<usize>,
    /// Columns whose path goes on from here.
    below: Vec<usize>,
    /// Whether a column is declared for the member as a whole, perhaps one that nobody decodes.
    declared: bool,
    children: Vec<(Box<str>, usize)>,
    /// The same as `children`, where there are many.
    by_name: HashMap<Box<str>, usize>,
}

impl Node {
    pub(super) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Whether no path goes on from here.
    pub(super) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    pub(super) fn child(&self, name: &str) -> Option<usize> {
        if self.children.len() > LINEAR {
            return self.by_name.get(name).copied();
        }
        // Names of one length that begin alike are few; only those are compared in full.
        let first = name.as_bytes().first();
        let same = |(child, _): &&(Box<str>, usize)| child.as_bytes().first() == first && **child == *name;
        self.children.iter().find(same).map(|(_, node)| *node)
    }
}

impl PathTrie {
    /// A trie over the paths of columns 0, 1, …, and those that are declared besides.
    pub(super) fn new<'a>(
        paths: impl Iterator<Item = &'a [String]>,
        declared: impl Iterator<Item = &'a [String]>,
    ) -> PathTrie {
        let mut trie = PathTrie { nodes: vec![Node::default()] };
        for (column, path) in paths.enumerate() {
            let (end, way) = trie.insert(path);
            way.into_iter().for_each(|node| trie.nodes[node].below.push(column));
            trie.nodes[end].columns.push(column);
        }
        for path in declared {
            trie.insert(path);
        }
        trie
    }

    /// Adds a path; returns the node of its end and those on the way.
    fn insert(&mut self, path: &[String]) -> (usize, Vec<usize>) {
        let (mut at, mut way) = (0, vec![]);
        for name in path {
            way.push(at);
            at = match self.nodes[at].child(name) {
                Some(child) => child,
                None => {
                    let child = self.nodes.len();
                    self.nodes.push(Node { depth: self.nodes[at].depth + 1, ..Node::default() });
                    self.nodes[at].children.push((name.as_str().into(), child));
                    self.nodes[at].by_name.insert(name.as_str().into(), child);
                    child
                }
            };
        }
        self.nodes[at].declared = true;
        (at, way)
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    /// Finds the member of each column by serde_json. The slots must be empty.
    ///
    /// # Errors
    /// Text that is not one JSON object.
    pub(super) fn read<'de>(
        &self,
        record: &'de str,
        slots: &mut [Slot<'de>],
        undeclared: &mut Undeclared,
    ) -> Result<(), String> {
        let first = record.trim_ascii_start().bytes().next().map(kind);
        if let Some(found) = first.filter(|kind| *kind != OBJECT)
            && serde_json::from_str::<IgnoredAny>(record).is_ok()
        {
            return Err(format!("expected an object, found {found}"));
        }
        self.find_at(0, record, slots, undeclared).map_err(|error| format!("not JSON: {error}"))
    }

    fn find_at<'de>(
        &self,
        node: usize,
        text: &'de str,
        slots: &mut [Slot<'de>],
        undeclared: &mut Undeclared,
    ) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Members { trie: self, node: &self.nodes[node], slots, undeclared }.deserialize(&mut deserializer)?;
        deserializer.end()
    }
}

impl PathTrie {
    /// An earlier member of this name counts no more, nor does anything inside of it.
    pub(super) fn forget(&self, node: usize, slots: &mut [Slot]) {
        for column in &self.nodes[node].below {
            slots[*column] = Slot::Missing;
        }
    }

    /// Takes in the value of the member at `child`.
    fn member<'de, A: MapAccess<'de>>(
        &self,
        child: usize,
        map: &mut A,
        slots: &mut [Slot<'de>],
        undeclared: &mut Undeclared,
    ) -> Result<(), A::Error> {
        let node = &self.nodes[child];
        self.forget(child, slots);
        if node.columns.is_empty() {
            if node.children.is_empty() {
                map.next_value::<IgnoredAny>()?;
                return Ok(());
            }
            return map.next_value_seed(Members { trie: self, node, slots, undeclared });
        }
        let text = map.next_value::<&RawValue>()?.get();
        for column in &node.columns {
            slots[*column] = Slot::Found(text);
        }
        if node.children.is_empty() {
            return Ok(());
        }
        self.find_at(child, text, slots, undeclared).map_err(A::Error::custom)
    }
}

const OBJECT: &str = "an object";

/// What kind of value begins with this byte.
pub(super) fn kind(first: u8) -> &'static str {
    match first {
        b'"' => "a string",
        b'{' => OBJECT,
        b'[' => "an array",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

/// The members of the object at one node.
struct Members<'t, 's, 'u, 'de> {
    trie: &'t PathTrie,
    node: &'t Node,
    slots: &'s mut [Slot<'de>],
    undeclared: &'s mut Undeclared<'u>,
}

impl Members<'_, '_, '_, '_> {
    fn block(self, found: &'static str) {
        for column in &self.node.below {
            self.slots[*column] = Slot::Blocked { depth: self.node.depth, found };
        }
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(OBJECT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Members { trie, node, slots, undeclared } = self;
        loop {
            if let Undeclared::Keep(kept) = undeclared
                && node.depth == 0
            {
                let Some(written) = map.next_key::<&RawValue>()? else { return Ok(()) };
                let name = string(written.get()).ok_or_else(|| A::Error::custom("a name that is no text"))?;
                let child = node.child(&name);
                if let Some(child) = child.filter(|child| trie.nodes[*child].declared) {
                    trie.member(child, &mut map, slots, undeclared)?;
                    continue;
                }
                let value = map.next_value::<&RawValue>()?.get();
                kept::push(kept, written.get(), value);
                if let Some(child) = child {
                    trie.forget(child, slots);
                    trie.find_at(child, value, slots, undeclared).map_err(A::Error::custom)?;
                }
                continue;
            }
            let Some(name) =
                map.next_key_seed(Name { node, owned: matches!(undeclared, Undeclared::Refuse(None)) })?
            else {
                return Ok(());
            };
            match name {
                Ok(child) => trie.member(child, &mut map, slots, undeclared)?,
                Err(name) => {
                    if let Undeclared::Refuse(first) = undeclared {
                        first.get_or_insert(name);
                    }
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.block("a boolean");
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.block("a number");
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.block("a number");
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.block("a number");
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.block("a string");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.block("an array");
        Ok(())
    }
}

/// A member's name, resolved to the node that it leads to; else the name itself, if somebody wants it.
struct Name<'t> {
    node: &'t Node,
    owned: bool,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.node.child(name).ok_or_else(|| if self.owned { name.to_owned() } else { String::new() }))
    }
}

/// The text of a JSON string, borrowed unless it has escapes. `None` where `json` is no string or has a lone surrogate.
pub(crate) fn string(json: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(inner.into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    String::deserialize(&mut deserializer).ok().map(Into::into)
}
