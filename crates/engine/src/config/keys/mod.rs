//! The keys of a pipeline file, described once: for the JSON Schema that editors use, and for whoever writes a reference.
//!
//! The readers in `spec` decide what a key means; this says in a sentence what it is for, which form its value has, and what holds
//! where it is not given. A test compares the two over every example and every golden mistake: a key, a required key or a word that only
//! one of them knows fails it.

mod json_schema;
mod sections;

#[cfg(test)]
mod tests;

pub use json_schema::json_schema;
pub use sections::{DEFAULTS, PIPELINE};

/// A map with keys of ours.
#[derive(Debug)]
pub struct Section {
    /// A name that no other section has.
    pub id: &'static str,
    /// What it describes, as diagnostics call it: "a source". Sections may share it, where their keys depend on where they stand.
    pub what: &'static str,
    /// Its keys, in the order in which people write them.
    pub keys: &'static [Key],
    /// Sets of keys of which one must be there; none where [`Key::required`] says it all.
    pub one_of: &'static [&'static [&'static str]],
}

/// A key of a [`Section`].
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// Keys that must be there as well where this one is.
    pub needs: &'static [&'static str],
    /// The form of its value.
    pub form: Form,
    /// What holds where it is missing; empty where nothing does, or where the text says it.
    pub default: &'static str,
    /// What it is for: a sentence or two.
    pub about: &'static str,
}

/// The form of a value. Wherever a text, a number or a word may stand, so may a `${VARIABLE}`.
#[derive(Debug)]
pub enum Form {
    /// Anything: a text, a number, a list, a map.
    Any,
    /// A text.
    Text,
    /// A text of which a regular expression says more.
    Matching(&'static str),
    /// An SQL expression.
    Sql,
    /// `5s`.
    Duration,
    /// `-8h` too.
    SignedDuration,
    /// `64MiB`.
    Size,
    /// A whole number, from the first to the second.
    Number(u64, u64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// A list of one form, with at least one item.
    List(&'static Form),
    /// The same, perhaps empty.
    ListOrNone(&'static Form),
    /// One of a form, or a list of them.
    OneOrMore(&'static Form),
    /// Names of the user's own, each with a value.
    Map(&'static Form),
    /// Keys of ours.
    Section(&'static Section),
    /// One of these forms.
    Either(&'static [Form]),
}

impl Key {
    /// A key that may be missing.
    pub const fn new(name: &'static str, form: Form, about: &'static str) -> Key {
        Key { name, required: false, needs: &[], form, default: "", about }
    }

    /// The same, which must be there.
    pub const fn required(mut self) -> Key {
        self.required = true;
        self
    }

    /// The same, with what holds where it is missing.
    pub const fn default(mut self, default: &'static str) -> Key {
        self.default = default;
        self
    }

    /// The same, which needs other keys.
    pub const fn needs(mut self, keys: &'static [&'static str]) -> Key {
        self.needs = keys;
        self
    }
}

impl Section {
    /// This section and all below it, each once, in the order in which they come up.
    pub fn all(&'static self) -> Vec<&'static Section> {
        let mut all = vec![];
        self.gather(&mut all);
        all
    }

    fn gather(&'static self, all: &mut Vec<&'static Section>) {
        if all.iter().any(|known| known.id == self.id) {
            return;
        }
        all.push(self);
        for key in self.keys {
            key.form.gather(all);
        }
    }
}

impl Form {
    fn gather(&'static self, all: &mut Vec<&'static Section>) {
        match self {
            Form::Section(section) => section.gather(all),
            Form::List(form) | Form::ListOrNone(form) | Form::OneOrMore(form) | Form::Map(form) => {
                form.gather(all)
            }
            Form::Either(forms) => forms.iter().for_each(|form| form.gather(all)),
            _ => {}
        }
    }
}
