//! Asking for one key: from the text that names it, over what each worker has of it, to the windows that it is in.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use onceflow_protocol::{EventTime, Frontiers};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::formats::decode::Decoder;
use crate::message::OwnedMessage;
use crate::plan::{Column, Emits, Group, Source, Window};
use crate::state::key::{self, Keys};
use crate::state::window_state::{Changed, ChangedGroups, Trace};

/// Most windows that an answer holds.
const MAX_WINDOWS: usize = 100;

/// What one worker has of a key in a windowed step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// How far the windows had got.
    pub frontiers: Frontiers,
    /// By pane, ascending.
    pub traces: Vec<Trace>,
}

/// What there is of a key in a windowed step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What is meant by windows here.
    pub kind: HeldKind,
    /// In order of time; none: nothing is open of the key. Of very many, the first, and those that have fired only where there is room.
    pub windows: Vec<HeldWindow>,
    /// How many more there are.
    pub more: usize,
}

/// What a step holds a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldKind {
    /// Windows that are known before any record.
    Windows,
    /// Sessions: from the first event up to the gap behind the last.
    Sessions,
    /// Totals that go on: from the first event up to the `ttl` behind the last.
    Totals,
    /// Rows that went on: from each up to `within` behind it.
    Rows,
}

/// A window that holds a key. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldWindow {
    /// Its first instant, or event.
    pub start_ms: i64,
    /// The instant at which it ends, as far as is known now.
    pub end_ms: i64,
    /// The watermark at which its results are due; none if that has passed, or nothing is due.
    pub fires_at_ms: Option<i64>,
    /// The watermark at which it is forgotten.
    pub closes_at_ms: i64,
}

/// A key of a windowed step, as state knows it.
#[derive(Clone, Debug)]
pub struct Key(Keys);

impl Key {
    pub(crate) fn groups(&self) -> ChangedGroups {
        let told = Changed { keys: self.0.clone(), places: vec![] };
        ChangedGroups::new(std::iter::once(&told))
    }
}

/// The key of a step that a text names: the value itself where there is one group, or a JSON object of all. Values are read as those of
/// records are: refused rather than rounded.
///
/// # Errors
/// What is to be written instead.
pub fn parse_key(groups: &[Group], text: &str) -> Result<Key, String> {
    let members: Option<BTreeMap<String, IgnoredAny>> = serde_json::from_str(text).ok();
    let is_whole = members.is_some_and(|members| {
        members.len() == groups.len() && groups.iter().all(|group| members.contains_key(&group.name))
    });
    match groups {
        _ if is_whole => decode(groups, text.to_owned()),
        [group] => {
            // Numbers and booleans stand without quotes. A text that looks like one is a text.
            let is_bare = group.data_type != DataType::Utf8
                && serde_json::from_str(text)
                    .is_ok_and(|value: Value| value.is_number() || value.is_boolean());
            let value = if is_bare { text.to_owned() } else { json!(text).to_string() };
            decode(groups, format!("{{{}: {value}}}", json!(group.name)))
        }
        _ => {
            let members: Vec<_> = groups.iter().map(|group| format!("\"{}\": …", group.name)).collect();
            Err(format!("its keys are written as a JSON object: {{{}}}", members.join(", ")))
        }
    }
}

/// The group columns of a record with this value.
fn decode(groups: &[Group], json: String) -> Result<Key, String> {
    let columns = groups.iter().map(|group| Column {
        name: group.name.clone(),
        path: vec![group.name.clone()],
        place: 0,
        data_type: group.data_type.clone(),
        not_null: false,
    });
    let record =
        OwnedMessage { offset: 0, timestamp: 1, key: None, value: Some(json.into()), headers: vec![] };
    let decoded = Decoder::new(&Source::json("key", columns.collect()))?.decode(&vec![record], 0..1);
    let decoded = decoded.map_err(|error| error.to_string())?;
    if let Some((_, _, error)) = decoded.failed.into_iter().next() {
        return Err(error);
    }
    let keys = key::encode_columns(decoded.batch.columns.columns(), 1);
    keys.map(Key).map_err(|error| error.to_string())
}

/// The windows that a key is in, from what all workers have of it between the same two barriers.
pub fn held(window: &Window, found: &[Found]) -> Held {
    let frontiers = found.first().map_or(Frontiers::START, |found| found.frontiers);
    let mut panes: BTreeMap<i64, Option<(i64, i64)>> = BTreeMap::new();
    for trace in found.iter().flat_map(|found| &found.traces) {
        let events = panes.entry(trace.pane).or_insert(trace.events);
        *events = events.zip(trace.events).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)));
    }
    let (kind, spans) = match (window.emits, window.spec.session_gap_ms()) {
        (_, None) => (HeldKind::Windows, windows(window, frontiers, panes.into_keys())),
        (Emits::Rows, Some(within_ms)) => {
            let rows = panes.into_values().flatten();
            (HeldKind::Rows, rows.map(|(time, _)| (time, time + within_ms)).collect())
        }
        (Emits::Totals, Some(ttl_ms)) => {
            // Those of before are forgotten, though not all are gone yet.
            let newest = sessions(ttl_ms, panes.into_values().flatten()).pop();
            (HeldKind::Totals, newest.into_iter().collect())
        }
        (Emits::Final | Emits::Updates { .. }, Some(gap_ms)) => {
            (HeldKind::Sessions, sessions(gap_ms, panes.into_values().flatten()))
        }
    };
    let more = spans.len().saturating_sub(MAX_WINDOWS);
    // Those that are still to fire are asked for.
    let fired = spans.partition_point(|(_, end)| *end <= frontiers.fired);
    let windows = spans.into_iter().skip(fired.min(more)).take(MAX_WINDOWS);
    let windows = windows.map(|span| dated(window, kind, frontiers, span));
    Held { kind, windows: windows.collect(), more }
}

/// Start and end of the windows that hold one of these panes, ascending, and are not closed.
fn windows(window: &Window, frontiers: Frontiers, panes: impl Iterator<Item = i64>) -> Vec<(i64, i64)> {
    let mut known_to = frontiers.purged;
    let mut windows = vec![];
    for pane in panes {
        while let Some(end) = window.spec.next_end(pane, known_to) {
            windows.push((window.spec.start(end), end));
            known_to = end;
        }
    }
    windows
}

/// First event of each session, and the end of the gap behind its last. A row that has moved to a later pane has its first event in an earlier
/// one, and what has come since may lie between them.
fn sessions(gap_ms: i64, events: impl Iterator<Item = (i64, i64)>) -> Vec<(i64, i64)> {
    let mut sessions: Vec<(i64, i64)> = vec![];
    for (first, last) in events {
        match sessions.last_mut() {
            Some((start, end)) if first <= *end => {
                *start = first.min(*start);
                *end = (last + gap_ms).max(*end);
            }
            _ => sessions.push((first, last + gap_ms)),
        }
    }
    sessions
}

/// When something becomes of a window.
fn dated(
    window: &Window,
    kind: HeldKind,
    frontiers: Frontiers,
    (start_ms, end_ms): (i64, i64),
) -> HeldWindow {
    let spec = window.spec;
    // What depends on events is over when the pane of the last of them is.
    let last_event = spec.session_gap_ms().and_then(|gap_ms| EventTime::new(end_ms - gap_ms));
    let over = last_event.map_or(end_ms, |last| spec.last_end(spec.pane_of(last)));
    let closes_at_ms = over.saturating_add(window.lateness_ms);
    let fires_at_ms = match (kind, window.emits) {
        (HeldKind::Totals | HeldKind::Rows, _) => None,
        (_, Emits::Updates { .. }) => Some(over),
        _ => Some(closes_at_ms),
    };
    HeldWindow { start_ms, end_ms, fires_at_ms: fires_at_ms.filter(|_| over > frontiers.fired), closes_at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    /// A pipeline with one step that keeps something by key, and what its sink says of that.
    fn plan(step: &str, key: &str) -> Plan {
        let text = format!(
            "pipeline: p\n\
             kafka: {{ bootstrap_servers: localhost:9092 }}\n\
             checkpoint: {{ storage: \"file:///c\" }}\n\
             sources:\n  s:\n    topics: [in]\n    format: json\n    schema: {{ id: bigint, price: \"decimal(9,2)\", name: varchar, at: timestamp }}\n    \
             event_time: {{ column: at }}\n    watermark: {{ delay: 0s }}\n\
             steps:\n  keyed:\n    from: s\n    late: drop\n{step}\
             sinks: {{ out: {{ from: keyed, topic: out, format: json{key} }} }}\n"
        );
        crate::config::compile("p.yaml", &text, &Default::default(), &|_: &str| None).unwrap()
    }

    fn window(plan: &Plan) -> &Window {
        plan.steps[0].window.as_ref().unwrap()
    }

    fn found(frontiers: (i64, i64), traces: &[(i64, Option<(i64, i64)>)]) -> Found {
        let (fired, purged) = frontiers;
        let traces = traces.iter().map(|(pane, events)| Trace { pane: *pane, events: *events });
        Found { frontiers: Frontiers { fired, purged }, traces: traces.collect() }
    }

    /// Start, end, when it fires, when it is forgotten.
    fn spans(held: &Held) -> Vec<(i64, i64, Option<i64>, i64)> {
        let span =
            |window: &HeldWindow| (window.start_ms, window.end_ms, window.fires_at_ms, window.closes_at_ms);
        held.windows.iter().map(span).collect()
    }

    #[test]
    fn a_key_is_a_value_or_an_object() {
        let totals = |by: &str| {
            plan(
                &format!("    ttl: 1d\n    group_by: {by}\n    aggregate: {{ n: count(*) }}\n"),
                &format!(", key: {by}"),
            )
        };
        let one = totals("[price]");
        let parse = |plan: &Plan, text: &str| parse_key(&window(plan).group_by, text).map(|key| key.0);
        let price = parse(&one, "7.5").unwrap();
        assert_eq!(parse(&one, r#"{"price": 7.50}"#).as_ref(), Ok(&price));
        assert_eq!(parse(&one, r#"{"price": "7.5"}"#).as_ref(), Ok(&price));
        assert_ne!(parse(&one, r#"{"price": null}"#).as_ref(), Ok(&price));
        for refused in ["cheap", "7.555", "[7]", "{}", "true", ""] {
            let error = parse(&one, refused).unwrap_err();
            assert!(error.starts_with("column price: expected a decimal(9,2), found "), "{refused}: {error}");
        }

        let text = totals("[name]");
        // A text may look like something else.
        assert_eq!(parse(&text, "7.50"), parse(&text, r#"{"name": "7.50"}"#));
        assert!(parse(&text, "{\"id\": 1}").is_ok() && parse(&text, "").is_ok());
        assert_eq!(parse(&text, r#"{"name": "7"}"#), parse(&text, "7"));

        let several = totals("[id, at]");
        let key = r#"{"at": "2026-01-01T00:00:00Z", "id": 1}"#;
        assert_eq!(parse(&several, key), parse(&several, r#"{"id": 1, "at": "2026-01-01T00:00:00Z"}"#));
        for not_both in ["1", r#"{"id": 1}"#, r#"{"id": 1, "name": "a"}"#, "[1, 2]"] {
            let said = parse(&several, not_both).unwrap_err();
            assert_eq!(said, "its keys are written as a JSON object: {\"id\": …, \"at\": …}");
        }
    }

    #[test]
    fn windows_follow_from_panes() {
        let hopping =
            "    window: { hopping: 30s, every: 10s }\n    group_by: [id]\n    aggregate: { n: count(*) }\n";
        let plan = plan(
            &format!("{hopping}    allowed_lateness: 5s\n    emit: updates\n"),
            ", key: [id, window_start]",
        );
        // One worker has the first pane, the other both.
        let workers = [
            found((50_000, 45_000), &[(20_000, None)]),
            found((50_000, 45_000), &[(20_000, None), (50_000, None)]),
        ];
        let held = held(window(&plan), &workers);
        assert_eq!((held.kind, held.more), (HeldKind::Windows, 0));
        let expected = [
            (20_000, 50_000, None, 55_000),
            (30_000, 60_000, Some(60_000), 65_000),
            (40_000, 70_000, Some(70_000), 75_000),
            (50_000, 80_000, Some(80_000), 85_000),
        ];
        assert_eq!(spans(&held), expected);
    }

    #[test]
    fn of_very_many_windows_the_first_are_told() {
        let plan = plan(
            "    window: { hopping: 1h, every: 1s }\n    group_by: [id]\n    aggregate: { n: count(*) }\n",
            "",
        );
        let held = held(window(&plan), &[found((0, 0), &[(7_200_000, None)])]);
        assert_eq!((held.windows.len(), held.more), (100, 3_500));
        assert_eq!(held.windows[0].end_ms, 7_201_000);
    }

    #[test]
    fn windows_that_have_fired_give_way_to_those_that_have_not() {
        let hopping = "    window: { cumulative: 1h, every: 1s, offset: 500ms }\n    group_by: [id]\n    aggregate: { n: count(*) }\n";
        let plan = plan(
            &format!("{hopping}    allowed_lateness: 1h\n    emit: {{ early: 10s }}\n"),
            ", key: [id, window_end]",
        );
        let held = held(window(&plan), &[found((3_000_500, 0), &[(500, None)])]);
        assert_eq!((held.windows.len(), held.more), (100, 3_500));
        assert_eq!(spans(&held)[0], (500, 3_001_500, Some(3_001_500), 6_601_500));
        let held = super::held(window(&plan), &[found((3_600_500, 0), &[(500, None)])]);
        assert_eq!(spans(&held)[99], (500, 3_600_500, None, 7_200_500));
    }

    #[test]
    fn sessions_are_put_together() {
        let plan =
            plan("    window: { session: 8s }\n    group_by: [id]\n    aggregate: { n: count(*) }\n", "");
        // The events of one session lie with two workers; an event at the very end belongs to it.
        let workers = [
            found((0, 0), &[(10_000, Some((10_500, 10_600))), (18_000, Some((18_700, 18_700)))]),
            found((0, 0), &[(10_000, Some((10_400, 10_700))), (40_000, Some((40_000, 40_000)))]),
        ];
        let held = held(window(&plan), &workers);
        assert_eq!(held.kind, HeldKind::Sessions);
        let expected = [(10_400, 26_700, Some(27_000), 27_000), (40_000, 48_000, Some(49_000), 49_000)];
        assert_eq!(spans(&held), expected);
    }

    #[test]
    fn of_totals_the_newest_and_of_duplicates_every_row() {
        let traces = [(10_000, Some((10_500, 10_500))), (20_000, Some((20_100, 20_100)))];
        let totals = plan("    ttl: 8s\n    group_by: [id]\n    aggregate: { n: count(*) }\n", ", key: [id]");
        let of_totals = held(window(&totals), &[found((0, 0), &traces)]);
        assert_eq!(
            (of_totals.kind, spans(&of_totals)),
            (HeldKind::Totals, vec![(20_100, 28_100, None, 29_000)])
        );
        let unique = plan("    deduplicate: { key: [id], within: 8s }\n", "");
        let of_rows = held(window(&unique), &[found((0, 0), &traces)]);
        assert_eq!(of_rows.kind, HeldKind::Rows);
        assert_eq!(spans(&of_rows), [(10_500, 18_500, None, 19_000), (20_100, 28_100, None, 29_000)]);
        let nothing = held(window(&unique), &[found((0, 0), &[]), found((0, 0), &[])]);
        assert_eq!(nothing, Held { kind: HeldKind::Rows, windows: vec![], more: 0 });
    }
}
