//! `window`, `group_by`, `aggregate`, `having`, `late`.

use std::fmt::Write;

use onceflow_protocol::WindowSpec;

use super::streams::{SideStream, boolean, typed};
use super::{DeadLetter, report};
use crate::config::spec::{Named, Part, Spanned, Step, Window};
use crate::diagnostics::{Code, Diagnostic};
use crate::expr::{
    AggregateCall, JSON, Scope, ScopeColumn, TIMESTAMP, Typed, analyze_aggregate, is_scalar, sql_type,
};
use crate::plan::{Emits, Late};

/// Columns that a windowed step has of its own. Totals have none, but these names are taken in their state, too.
const OWN_COLUMNS: &[&str] = &["window_start", "window_end"];

/// Where late rows can go.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub dead_letter: DeadLetter,
    pub late_is_read: bool,
}

/// A checked window.
#[derive(Debug)]
pub(super) struct AnalyzedWindow {
    pub spec: Option<WindowSpec>,
    pub groups: Vec<(String, Typed)>,
    pub aggregates: Vec<(String, AggregateCall)>,
    pub having: Option<Typed>,
    pub lateness_ms: i64,
    pub emits: Emits,
    pub late: Late,
}

impl AnalyzedWindow {
    /// What the state depends on, in one canonical spelling. Filters, selections, sinks and lateness may change above and below; this
    /// may not.
    pub fn identity(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        if let Some(gap_ms) = self.spec.and_then(WindowSpec::session_gap_ms) {
            let _ = match self.emits {
                Emits::Rows => write!(text, "no duplicates within {gap_ms}"),
                Emits::Totals => write!(text, "totals, forgotten after {gap_ms}"),
                Emits::Final | Emits::Updates { .. } => write!(text, "sessions with gaps of {gap_ms}"),
            };
        } else if let Some(spec) = self.spec {
            let kind = if spec.is_cumulative() { "cumulative " } else { "" };
            let _ = write!(text, "{kind}window {} every {}", spec.size_ms(), spec.every_ms());
            if spec.offset_ms() != 0 {
                let _ = write!(text, " offset {}", spec.offset_ms());
            }
        }
        text.push('\n');
        for (name, typed) in &self.groups {
            // The key of a deduplication is no column: its names say nothing.
            let name = if self.emits == Emits::Rows { String::new() } else { format!("{name:?} ") };
            let _ = writeln!(text, "group {name}{} = {}", sql_type(&typed.data_type), typed.sql);
        }
        text
    }

    /// The same for one aggregate.
    pub fn aggregate_identity(call: &AggregateCall) -> String {
        let argument = call.argument.as_ref().map_or("*".to_owned(), |typed| sql_type(&typed.data_type));
        format!("{} of {argument}", call.sql)
    }
}

/// The window, and the columns of the rows that it emits.
pub(super) fn analyze(
    step: &Step,
    window: &Window,
    input: &Scope,
    side: Side,
    found: &mut Vec<Diagnostic>,
) -> (AnalyzedWindow, Scope) {
    let mut output = Output { scope: Scope::default() };
    let mut groups = vec![];
    output.scope.open |=
        matches!(window.group_by, Part::Invalid) || matches!(window.aggregate, Part::Invalid);
    for group in window.group_by.get().into_iter().flatten() {
        let checked = typed(group.sql.as_ref(), input, found);
        let mut name = group.name.clone();
        // An entry of a list is named by its column; anything else needs a name.
        let listed = group.sql.as_ref().is_some_and(|sql| sql.span == group.name.span);
        if let (true, Some(checked)) = (listed, &checked) {
            match &checked.column {
                Some(column) => name.value.clone_from(column),
                None => {
                    let message = "a group that is no column needs a name";
                    let hint = format!("write `group_by: {{ name: {} }}`", name.value);
                    found.push(Diagnostic::new(Code::BadValue, name.span, message).hint(hint));
                    output.scope.open = true;
                    continue;
                }
            }
        }
        check_group(group, checked.as_ref(), found);
        let data_type = checked.as_ref().map(|typed| typed.data_type.clone());
        output.add(&name, data_type, checked.as_ref().is_none_or(|typed| typed.nullable), found);
        groups.extend(checked.map(|typed| (name.value, typed)));
    }
    let own_columns: &[&str] = if window.emits.value == Emits::Totals { &[] } else { OWN_COLUMNS };
    for name in own_columns {
        let column = ScopeColumn { name: (*name).to_owned(), data_type: Some(TIMESTAMP), nullable: false };
        output.scope.columns.push(column);
    }
    let mut aggregates = vec![];
    for named in window.aggregate.get().into_iter().flatten() {
        let call = named.sql.as_ref().and_then(|sql| {
            analyze_aggregate(sql.text(), input).map_err(|mistakes| report(sql, mistakes, found)).ok()
        });
        let data_type = call.as_ref().map(|call| call.result_type.clone());
        // Even a count: one that is added later is not known for the windows that are open then.
        output.add(&named.name, data_type, true, found);
        aggregates.extend(call.map(|call| (named.name.value.clone(), call)));
    }
    let having = window.having.as_ref().and_then(|sql| boolean(sql, "`having`", &output.scope, found));
    let late = late(step, window, side, found);
    let analyzed = AnalyzedWindow {
        spec: window.spec,
        groups,
        aggregates,
        having,
        lateness_ms: window.lateness_ms,
        emits: window.emits.value,
        late,
    };
    (analyzed, output.scope)
}

/// The key of a deduplication. Its names are nobody's columns.
pub(super) fn analyze_deduplicate(
    step: &Step,
    window: &Window,
    input: &Scope,
    side: Side,
    found: &mut Vec<Diagnostic>,
) -> AnalyzedWindow {
    let mut groups = vec![];
    for group in window.group_by.get().into_iter().flatten() {
        let checked = typed(group.sql.as_ref(), input, found);
        check_group(group, checked.as_ref(), found);
        groups.extend(checked.map(|typed| (group.name.value.clone(), typed)));
    }
    AnalyzedWindow {
        spec: window.spec,
        groups,
        aggregates: vec![],
        having: None,
        lateness_ms: window.lateness_ms,
        emits: window.emits.value,
        late: late(step, window, side, found),
    }
}

fn check_group(group: &Named, checked: Option<&Typed>, found: &mut Vec<Diagnostic>) {
    let Some(typed) = checked.filter(|typed| !is_scalar(&typed.data_type)) else { return };
    let message = format!("`{}` is {}: groups are scalars", group.name.value, sql_type(&typed.data_type));
    let span = group.sql.as_ref().map_or(group.name.span, |sql| sql.span);
    let hint = match typed.data_type == JSON {
        true => "give the source a column for a member of it, or group by its text: `cast(… as varchar)`",
        false => "group by a part of it, which the source's `schema` can name with a `path`",
    };
    found.push(Diagnostic::new(Code::TypeMismatch, span, message).hint(hint));
}

/// The columns of the output, each with a name of its own.
struct Output {
    scope: Scope,
}

impl Output {
    fn add(
        &mut self,
        name: &Spanned<String>,
        data_type: Option<arrow::datatypes::DataType>,
        nullable: bool,
        found: &mut Vec<Diagnostic>,
    ) {
        if OWN_COLUMNS.contains(&name.value.as_str()) {
            let message = format!("`{}` is a column that windows have of their own", name.value);
            found.push(Diagnostic::new(Code::NameClash, name.span, message).hint("give it another name"));
        } else if self.scope.get(&name.value).is_some() {
            let message = format!("the output has a column `{}` already", name.value);
            found.push(Diagnostic::new(Code::NameClash, name.span, message));
        } else {
            self.scope.columns.push(ScopeColumn { name: name.value.clone(), data_type, nullable });
        }
    }
}

fn late(step: &Step, window: &Window, side: Side, found: &mut Vec<Diagnostic>) -> Late {
    let Side { dead_letter, late_is_read } = side;
    match &window.late {
        Part::Is(late) => {
            if late.value == Late::DeadLetter {
                dead_letter.require(late.span, "`late: dead_letter`", found);
            }
            let side = SideStream { name: &step.name.value, side: "late", key: "late" };
            side.check(late.span, late.value == Late::Stream, late_is_read, found);
            late.value
        }
        Part::Absent if late_is_read => Late::Stream,
        Part::Absent if dead_letter == DeadLetter::Absent => {
            let message = format!("the step `{}` must say what happens to late records", step.name.value);
            let hint = "add `late: drop` to the step, or `dead_letter: { topic: … }` to the pipeline, or a sink that reads the late records";
            found.push(Diagnostic::new(Code::NoDeadLetter, window.span, message).hint(hint));
            Late::DeadLetter
        }
        Part::Absent | Part::Invalid => Late::DeadLetter,
    }
}
