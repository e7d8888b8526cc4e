//! What the readers ask for, remembered in tests: the description of the keys is compared with it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that readers on this thread have asked for.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Keys by section.
    pub keys: BTreeMap<&'static str, BTreeSet<&'static str>>,
    /// Section and key of what was required.
    pub required: BTreeSet<(&'static str, &'static str)>,
    /// Words by key.
    pub words: BTreeMap<String, BTreeSet<String>>,
}

thread_local! {
    static HEARD: RefCell<Heard> = RefCell::default();
}

pub fn forget() {
    HEARD.with_borrow_mut(|heard| *heard = Heard::default());
}

pub fn all() -> Heard {
    HEARD.with_borrow(Clone::clone)
}

pub fn section(what: &'static str, keys: &[&'static str]) {
    HEARD.with_borrow_mut(|heard| heard.keys.entry(what).or_default().extend(keys));
}

pub fn required(what: &'static str, key: &'static str) {
    HEARD.with_borrow_mut(|heard| heard.required.insert((what, key)));
}

pub fn words<'w>(key: &str, words: impl Iterator<Item = &'w str>) {
    HEARD.with_borrow_mut(|heard| {
        heard.words.entry(key.to_owned()).or_default().extend(words.map(str::to_owned));
    });
}
