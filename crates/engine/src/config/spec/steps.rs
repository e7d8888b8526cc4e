//! `steps`.

use onceflow_protocol::WindowSpec;

use super::fields::{Fields, first, list, map, not_yet, stream_name, text, texts};
use super::values::{duration, positive_duration, signed_duration, sql, word};
use super::{Named, Part, Spanned, Step, Window};
use crate::config::document::{Key, Node, Value};
use crate::diagnostics::{Code, Diagnostic};
use crate::metadata::Metadata;
use crate::plan::{Emits, Late};

/// Most panes of a window: more would make each firing a long walk.
const MAX_PANES: i64 = 10_000;

/// Clauses that mean nothing without groups.
const GROUP_CLAUSES: &[&str] = &["group_by", "aggregate", "having", "emit"];

/// Those that mean nothing without state.
const LATE_CLAUSES: &[&str] = &["allowed_lateness", "late"];

pub(super) fn read(node: Option<&Node>, found: &mut Vec<Diagnostic>) -> Vec<Step> {
    let entries = node.and_then(|node| map(node, "`steps`", found)).unwrap_or_default();
    entries.iter().map(|(key, node)| step(key, node, found)).collect()
}

fn step(key: &Key, node: &Node, found: &mut Vec<Diagnostic>) -> Step {
    let name = stream_name(key, "a step", found);
    let mut step = Step {
        name,
        was: None,
        from: vec![],
        filter: None,
        select: Part::Absent,
        set: Part::Absent,
        unset: Part::Absent,
        unnest: Part::Absent,
        window: Part::Absent,
    };
    let Some(fields) = Fields::open(node, "a step", found) else {
        step.select = Part::Invalid;
        return step;
    };
    let mut fields = fields.named(key.span);
    step.from =
        fields.require("from", found).and_then(|node| texts(node, "`from`", found)).unwrap_or_default();
    step.was = fields.get("was").and_then(|node| text(node, "`was`", found));
    step.filter = fields.get("where").and_then(|node| sql(node, "`where`", found));
    if let Some(node) = fields.get("select") {
        step.select = named(node, "`select`", found);
    }
    changes(&mut step, &mut fields, found);
    if let Some((key, node)) = fields.entry("unnest") {
        step.unnest = unnest(key, node, &step, found);
    }
    step.window = match (fields.entry("window"), fields.entry("ttl"), fields.entry("deduplicate")) {
        (window, ttl, Some((key, node))) => {
            if let Some((other, _)) = window.or(ttl) {
                let message = "a step has groups or `deduplicate`, not both";
                let hint = "put the groups into the next step, with all that they need";
                found.push(Diagnostic::new(Code::BadValue, other.span, message).hint(hint));
                // Their clauses are no further mistakes.
                GROUP_CLAUSES.iter().for_each(|clause| {
                    fields.entry(clause);
                });
            } else {
                let hint = "`deduplicate` lets rows go on as they are: put groups into the next step";
                refuse(GROUP_CLAUSES, "a `window` or a `ttl`", hint, &mut fields, found);
            }
            deduplicate(key, node, &mut fields, found)
        }
        (Some((key, node)), ttl, None) => {
            if let Some((key, _)) = ttl {
                let message = "a window's groups go with the window";
                let hint = "leave `ttl` out, or `window` for totals that go on";
                found.push(Diagnostic::new(Code::BadValue, key.span, message).hint(hint));
            }
            window(key, node, &mut fields, found)
        }
        (None, Some((key, node)), None) => running(key, node, &mut fields, found),
        (None, None, None) => {
            let hint = "for example `window: { tumbling: 1m }`; or `ttl: 30d` for totals that go on, of groups that are forgotten when they have had \
                        no row for so long";
            refuse(GROUP_CLAUSES, "a `window` or a `ttl`", hint, &mut fields, found);
            refuse(LATE_CLAUSES, "a `window`, a `ttl` or a `deduplicate`", hint, &mut fields, found);
            Part::Absent
        }
    };
    if let (Part::Is(window), false) = (&step.window, matches!(step.unnest, Part::Absent)) {
        let message = match window.emits.value {
            Emits::Rows => "a step has `unnest` or `deduplicate`, not both",
            Emits::Final | Emits::Updates { .. } | Emits::Totals => "a step has `unnest` or groups, not both",
        };
        let hint = "put one of them into the next step";
        found.push(Diagnostic::new(Code::BadValue, window.span, message).hint(hint));
    }
    for name in ["join", "sql"] {
        if let Some((key, _)) = fields.entry(name) {
            found.push(not_yet(key.span, &format!("`{name}`")));
            // The columns are not known, then.
            step.select = Part::Invalid;
        }
    }
    fields.finish(found);
    step
}

/// `set` and `unset`, which change what is there, where `select` would replace it.
fn changes(step: &mut Step, fields: &mut Fields, found: &mut Vec<Diagnostic>) {
    let (set, unset) = (fields.entry("set"), fields.entry("unset"));
    if let (false, Some((key, _))) = (matches!(step.select, Part::Absent), set.or(unset)) {
        let message =
            format!("`{}` has nothing to keep beside `select`, which replaces all columns", key.name);
        found.push(
            Diagnostic::new(Code::BadValue, key.span, message)
                .hint("`select` alone, or `set` and `unset`, or one step after the other"),
        );
        return;
    }
    if let Some((_, node)) = set {
        step.set = named(node, "`set`", found);
    }
    if let Some((_, node)) = unset {
        step.unset = texts(node, "`unset`", found).map_or(Part::Invalid, Part::Is);
    }
    let set = step.set.get().into_iter().flatten();
    for name in set.clone().map(|set| &set.name).filter(|name| Metadata::parse(&name.value).is_some()) {
        let message = format!("`{}` is of the Kafka record, which can be read and not set", name.value);
        let hint = "what a record is written with, a sink says: `key`, `headers`, `timestamp`, `partition`";
        found.push(Diagnostic::new(Code::NameClash, name.span, message).hint(hint));
    }
    for name in step.unset.get().into_iter().flatten() {
        if set.clone().any(|set| set.name.value == name.value) {
            let message = format!("`{}` is set and unset", name.value);
            found.push(Diagnostic::new(Code::Repeated, name.span, message));
        }
    }
}

/// `items`, or `{item: items}`.
fn unnest(key: &Key, node: &Node, step: &Step, found: &mut Vec<Diagnostic>) -> Part<Named> {
    let absent = |parts: [bool; 3]| parts.into_iter().all(|absent| absent);
    let alone = absent([
        matches!(step.select, Part::Absent),
        matches!(step.set, Part::Absent),
        matches!(step.unset, Part::Absent),
    ]);
    if !alone {
        let message = "`unnest` stands alone in its step, but for `where`";
        let hint = "put `select`, `set` and `unset` into the step before or behind it";
        found.push(Diagnostic::new(Code::BadValue, key.span, message).hint(hint));
        return Part::Invalid;
    }
    let Value::Map(_) = node.value else {
        let Some(sql) = sql(node, "`unnest`", found) else { return Part::Invalid };
        let name = Spanned { value: sql.text().to_owned(), span: node.span };
        return Part::Is(Named { name, sql: Some(sql) });
    };
    match named(node, "`unnest`", found) {
        Part::Is(mut named) if named.len() == 1 => named.pop().map_or(Part::Invalid, Part::Is),
        Part::Is(_) => {
            let message = "`unnest` takes one list apart";
            let hint = "several lists take several steps, and every pair of their elements is a row then";
            found.push(Diagnostic::new(Code::BadValue, first(node.span), message).hint(hint));
            Part::Invalid
        }
        Part::Absent | Part::Invalid => Part::Invalid,
    }
}

/// `window` with its clauses.
fn window(key: &Key, node: &Node, fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Part<Window> {
    let mut window = clauses(key, fields, found);
    window.spec = sizes(node, found);
    if window.spec.is_some_and(|spec| spec.session_gap_ms().is_some()) && window.emits.value != Emits::Final {
        let message = "a session is emitted once, when it is over";
        let hint = "leave `emit` out: until then a later event may join two sessions into one, and their rows could not be replaced by key";
        found.push(Diagnostic::new(Code::ByDesign, window.emits.span, message).hint(hint));
    }
    Part::Is(window)
}

/// `ttl` with the same clauses: totals that go on.
fn running(key: &Key, node: &Node, fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Part<Window> {
    if let Some((key, _)) = fields.entry("allowed_lateness") {
        let message = "`allowed_lateness` is for windows: totals take rows for as long as the `ttl`";
        found.push(Diagnostic::new(Code::BadValue, key.span, message).hint("leave it out"));
    }
    let mut window = clauses(key, fields, found);
    let refusal = match window.emits.value {
        Emits::Final if window.emits.span != key.span => Some("without a window no result is final"),
        Emits::Updates { early_ms: Some(_) } => {
            Some("without a window no result is early: what has changed is written with every checkpoint")
        }
        _ => None,
    };
    if let Some(message) = refusal {
        let hint = "leave `emit` out, or write `emit: updates`";
        found.push(Diagnostic::new(Code::ByDesign, window.emits.span, message).hint(hint));
    }
    window.emits.value = Emits::Totals;
    let ttl = positive_duration(node, "`ttl`", found);
    window.spec = ttl.and_then(|ttl| WindowSpec::session(ttl.value.as_millis() as i64));
    Part::Is(window)
}

/// Reports clauses that mean nothing here.
fn refuse(
    clauses: &[&'static str],
    need: &str,
    hint: &str,
    fields: &mut Fields,
    found: &mut Vec<Diagnostic>,
) {
    for clause in clauses {
        if let Some((key, _)) = fields.entry(clause) {
            let message = format!("`{clause}` needs {need}");
            found.push(Diagnostic::new(Code::NeedsWindow, key.span, message).hint(hint));
        }
    }
}

/// `{key: id, within: 10m}`, with `allowed_lateness` and `late` beside it.
fn deduplicate(key: &Key, node: &Node, fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Part<Window> {
    let (lateness_ms, late) = lateness(fields, found);
    let Some(own) = Fields::open(node, "`deduplicate`", found) else { return Part::Invalid };
    let mut own = own.named(key.span);
    let group_by = own.require("key", found).map_or(Part::Invalid, |node| groups(node, "`key`", found));
    let within = own.require("within", found).and_then(|node| positive_duration(node, "`within`", found));
    own.finish(found);
    let spec = within.as_ref().and_then(|within| WindowSpec::session(within.value.as_millis() as i64));
    if let (Some(spec), Some(within)) = (spec, within)
        && (spec.size_ms() + lateness_ms) / spec.every_ms() > MAX_PANES
    {
        let message = format!("`allowed_lateness` is more than {} times as long", MAX_PANES / 8);
        let hint = "times are remembered in slices of an eighth of `within`, and so many are too many";
        found.push(Diagnostic::new(Code::WindowSize, within.span, message).hint(hint));
    }
    let emits = Spanned { value: Emits::Rows, span: key.span };
    let aggregate = Part::Is(vec![]);
    let span = key.span;
    Part::Is(Window { span, spec, group_by, aggregate, having: None, lateness_ms, emits, late })
}

/// `allowed_lateness`, milliseconds, and `late`.
fn lateness(fields: &mut Fields, found: &mut Vec<Diagnostic>) -> (i64, Part<Spanned<Late>>) {
    let lateness =
        fields.get("allowed_lateness").and_then(|node| duration(node, "`allowed_lateness`", found));
    let late = match fields.get("late") {
        None => Part::Absent,
        Some(node) => {
            let words = [("dead_letter", Late::DeadLetter), ("drop", Late::Drop), ("stream", Late::Stream)];
            word(node, "late", &words, &[], found).map_or(Part::Invalid, Part::Is)
        }
    };
    (lateness.map_or(0, |lateness| lateness.value.as_millis() as i64), late)
}

/// What is said beside `window` or `ttl`, which stands at `key`.
fn clauses(key: &Key, fields: &mut Fields, found: &mut Vec<Diagnostic>) -> Window {
    let group_by = match fields.require("group_by", found) {
        Some(node) => groups(node, "`group_by`", found),
        None => Part::Invalid,
    };
    let aggregate = match fields.require("aggregate", found) {
        Some(node) => named(node, "`aggregate`", found),
        None => Part::Invalid,
    };
    let having = fields.get("having").and_then(|node| sql(node, "`having`", found));
    let emits = fields.get("emit").and_then(|node| emits(node, found));
    let (lateness_ms, late) = lateness(fields, found);
    Window {
        span: key.span,
        spec: None,
        group_by,
        aggregate,
        having,
        emits: emits.unwrap_or(Spanned { value: Emits::Final, span: key.span }),
        lateness_ms,
        late,
    }
}

/// `final`, `updates` or `{early: 10s}`.
fn emits(node: &Node, found: &mut Vec<Diagnostic>) -> Option<Spanned<Emits>> {
    let Value::Map(_) = &node.value else {
        let words = [("final", Emits::Final), ("updates", Emits::Updates { early_ms: None })];
        return word(node, "emit", &words, &[], found);
    };
    let mut fields = Fields::open(node, "`emit`", found)?;
    let early = fields.require("early", found).and_then(|node| positive_duration(node, "`early`", found));
    fields.finish(found);
    early.map(|early| Spanned {
        value: Emits::Updates { early_ms: Some(early.value.as_millis() as i64) },
        span: first(node.span),
    })
}

/// `{tumbling: 1m}`, `{hopping: 10m, every: 1m}` or `{cumulative: 1h, every: 5m}`, each with an `offset` or without; or
/// `{session: 30s}`.
fn sizes(node: &Node, found: &mut Vec<Diagnostic>) -> Option<WindowSpec> {
    let before = found.len();
    let mut fields = Fields::open(node, "`window`", found)?;
    let size = |name: &'static str, fields: &mut Fields, found: &mut Vec<Diagnostic>| {
        let node = fields.get(name)?;
        positive_duration(node, &format!("`{name}`"), found)
            .map(|size| Spanned { value: size.value.as_millis() as i64, span: size.span })
    };
    let tumbling = size("tumbling", &mut fields, found);
    let hopping = size("hopping", &mut fields, found);
    let cumulative = size("cumulative", &mut fields, found);
    let every = size("every", &mut fields, found);
    let session = size("session", &mut fields, found);
    let offset = fields.get("offset").and_then(|node| signed_duration(node, "`offset`", found));
    fields.finish(found);
    if found.len() > before {
        return None;
    }
    let spec = match (tumbling, hopping.as_ref(), cumulative.as_ref(), session, every) {
        (Some(size), None, None, None, None) => WindowSpec::tumbling(size.value),
        (None, None, None, Some(gap), None) => {
            if let Some(offset) = offset {
                let message = "sessions begin with their first event: there is nothing to shift";
                found
                    .push(Diagnostic::new(Code::WindowSize, offset.span, message).hint("leave `offset` out"));
                return None;
            }
            WindowSpec::session(gap.value)
        }
        (None, Some(size), None, None, Some(every)) | (None, None, Some(size), None, Some(every)) => {
            let wrong = if every.value > size.value {
                Some("`every` is longer than the window: records between two windows would vanish".to_owned())
            } else if size.value % every.value != 0 {
                Some("`every` does not divide the window".to_owned())
            } else if size.value / every.value > MAX_PANES {
                Some(format!("`every` divides the window into more than {MAX_PANES} parts"))
            } else {
                None
            };
            match wrong {
                Some(message) => {
                    found.push(Diagnostic::new(Code::WindowSize, every.span, message));
                    None
                }
                None if hopping.is_some() => WindowSpec::hopping(size.value, every.value),
                None => WindowSpec::cumulative(size.value, every.value),
            }
        }
        _ => {
            let message = "a window is `{ tumbling: 1m }`, `{ hopping: 10m, every: 1m }`, `{ cumulative: 1h, every: 5m }` or `{ session: 30s }`";
            found.push(Diagnostic::new(Code::WindowSize, first(node.span), message));
            None
        }
    }?;
    let Some(offset) = offset else { return Some(spec) };
    if offset.value.abs() >= spec.period_ms() {
        let message = "`offset` is not shorter than the distance between two windows";
        let hint = "windows start at multiples of that distance, shifted by the offset: a longer one says nothing more";
        found.push(Diagnostic::new(Code::WindowSize, offset.span, message).hint(hint));
    }
    Some(spec.shifted(offset.value))
}

/// A map of names and expressions.
fn named(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Part<Vec<Named>> {
    let Some(entries) = map(node, what, found) else { return Part::Invalid };
    if entries.is_empty() {
        found.push(Diagnostic::new(Code::BadValue, node.span, format!("{what} names nothing")));
        return Part::Invalid;
    }
    let named = entries.iter().map(|(key, node)| {
        if key.name.is_empty() {
            found.push(Diagnostic::new(Code::BadValue, key.span, "a column needs a name"));
        }
        let name = Spanned { value: key.name.clone(), span: key.span };
        Named { name, sql: sql(node, &format!("`{}`", key.name), found) }
    });
    Part::Is(named.collect())
}

/// `a`, `[a, b]`, or a map of names and expressions.
fn groups(node: &Node, what: &str, found: &mut Vec<Diagnostic>) -> Part<Vec<Named>> {
    if let Value::Map(_) = node.value {
        return named(node, what, found);
    }
    let items = match &node.value {
        Value::Scalar(_) => Some(std::slice::from_ref(node)),
        _ => list(node, what, found),
    };
    let Some(items) = items else { return Part::Invalid };
    if items.is_empty() {
        let message = format!("{what} names nothing");
        found.push(Diagnostic::new(Code::BadValue, node.span, message));
        return Part::Invalid;
    }
    let mut groups: Vec<Named> = vec![];
    for item in items {
        let Some(sql) = sql(item, "a group", found) else { continue };
        let name = Spanned { value: sql.text().to_owned(), span: item.span };
        if groups.iter().any(|group| group.name.value == name.value) {
            found.push(Diagnostic::new(
                Code::Repeated,
                name.span,
                format!("`{}` is there twice", name.value),
            ));
        } else {
            groups.push(Named { name, sql: Some(sql) });
        }
    }
    Part::Is(groups)
}
