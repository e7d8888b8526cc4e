//! Finds the members of a JSON object that columns come from, all of them in one pass.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// More children than this are looked up by hash instead of one by one.
const LINEAR: usize = 16;

/// Where a column's member was found in the current record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Slot<'a> {
    /// Nowhere.
    Missing,
    /// Here: valid JSON without white space around it.
    Found(&'a str),
    /// The first `depth` names of its path lead to something that is no object.
    Blocked {
        /// How much of the path was followed.
        depth: usize,
        /// What stands there.
        found: &'static str,
    },
}

/// The paths of all columns, merged by their common beginnings.
#[derive(Debug)]
pub(super) struct PathTrie {
    /// The first one is the root: the record itself.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    depth: usize,
    /// Columns whose path ends here.
    columns: Vec<usize>,
    /// Columns whose path goes on from here.
    below: Vec<usize>,
    children: Vec<(Box<str>, usize)>,
    /// The same as `children`, where there are many.
    by_name: HashMap<Box<str>, usize>,
}

impl Node {
    fn child(&self, name: &str) -> Option<usize> {
        if self.children.len() > LINEAR {
            return self.by_name.get(name).copied();
        }
        self.children.iter().find(|(child, _)| **child == *name).map(|(_, node)| *node)
    }
}

impl PathTrie {
    /// A trie over the paths of columns 0, 1, …
    pub(super) fn new<'a>(paths: impl Iterator<Item = &'a [String]>) -> PathTrie {
        let mut nodes = vec![Node::default()];
        for (column, path) in paths.enumerate() {
            let mut at = 0;
            for name in path {
                nodes[at].below.push(column);
                at = match nodes[at].child(name) {
                    Some(child) => child,
                    None => {
                        let child = nodes.len();
                        nodes.push(Node { depth: nodes[at].depth + 1, ..Node::default() });
                        nodes[at].children.push((name.as_str().into(), child));
                        nodes[at].by_name.insert(name.as_str().into(), child);
                        child
                    }
                };
            }
            nodes[at].columns.push(column);
        }
        PathTrie { nodes }
    }

    /// Sets the slots of the columns that `record` has members for; the others stay as they are.
    ///
    /// # Errors
    /// Text that is not one JSON object.
    pub(super) fn find<'de>(&self, record: &'de str, slots: &mut [Slot<'de>]) -> Result<(), String> {
        let first = record.trim_ascii_start().bytes().next().map(kind);
        if let Some(found) = first.filter(|kind| *kind != OBJECT)
            && serde_json::from_str::<IgnoredAny>(record).is_ok()
        {
            return Err(format!("expected an object, found {found}"));
        }
        self.find_at(0, record, slots).map_err(|error| format!("not JSON: {error}"))
    }

    fn find_at<'de>(
        &self,
        node: usize,
        text: &'de str,
        slots: &mut [Slot<'de>],
    ) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        Members { trie: self, node: &self.nodes[node], slots }.deserialize(&mut deserializer)?;
        deserializer.end()
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
struct Members<'t, 's, 'de> {
    trie: &'t PathTrie,
    node: &'t Node,
    slots: &'s mut [Slot<'de>],
}

impl Members<'_, '_, '_> {
    fn block(self, found: &'static str) {
        for column in &self.node.below {
            self.slots[*column] = Slot::Blocked { depth: self.node.depth, found };
        }
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(OBJECT)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Members { trie, node, slots } = self;
        while let Some(child) = map.next_key_seed(Name(node))? {
            let Some(child) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let node = &trie.nodes[child];
            // An earlier member of this name counts no more, nor does anything inside of it.
            for column in &node.below {
                slots[*column] = Slot::Missing;
            }
            if node.columns.is_empty() {
                map.next_value_seed(Members { trie, node, slots })?;
                continue;
            }
            let text = map.next_value::<&RawValue>()?.get();
            for column in &node.columns {
                slots[*column] = Slot::Found(text);
            }
            if !node.below.is_empty() {
                trie.find_at(child, text, slots).map_err(A::Error::custom)?;
            }
        }
        Ok(())
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

/// A member's name, resolved to the node that it leads to.
struct Name<'t>(&'t Node);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.child(name))
    }
}

/// The text of a JSON string, borrowed unless it has escapes. `None` where `json` is no string or has a lone surrogate.
pub(super) fn string(json: &str) -> Option<std::borrow::Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(inner.into());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    String::deserialize(&mut deserializer).ok().map(Into::into)
}
