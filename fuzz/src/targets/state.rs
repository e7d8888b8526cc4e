//! Rows of state, and the aggregate states in them.

use arrow::datatypes::DataType;
use onceflow_engine::plan::AggregateFunction::{self, Avg, Count, Max, Min, Sum};
use onceflow_engine::state::aggregate::{AggregateColumn, AggregateSpec};
use onceflow_engine::state::rows::EncodedRows;

use crate::allocation::bounded;
use crate::draw::Draw;

/// Function, argument, result, and whether the order of merging can never show.
const AGGREGATES: [(AggregateFunction, DataType, DataType, bool); 15] = {
    use DataType::*;
    [
        (Count, Null, Int64, true),
        (Sum, Int64, Int64, true),
        (Sum, Int8, Int64, true),
        (Sum, Float64, Float64, false),
        (Sum, Decimal128(12, 2), Decimal128(22, 2), true),
        (Sum, Decimal128(38, 0), Decimal128(38, 0), true),
        (Min, Int64, Int64, true),
        (Max, Float64, Float64, true),
        (Min, Float32, Float32, true),
        (Max, Utf8, Utf8, true),
        (Min, Boolean, Boolean, true),
        (Max, Date32, Date32, true),
        (Avg, Int64, Float64, true),
        (Avg, Float64, Float64, false),
        (Avg, Decimal128(12, 2), Decimal128(16, 6), true),
    ]
};

pub fn target(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let (function, argument, result, exact) = AGGREGATES[draw.below(AGGREGATES.len())].clone();
    let spec = AggregateSpec { function, argument, result };
    let count = u64::from(draw.byte()) | u64::from(draw.byte()) << 56;
    any_rows(draw.0, count);
    written_rows(&mut Draw(draw.0));
    any_state(&spec, draw.0);
    merged(&spec, exact, &mut draw);
}

/// Any bytes end after at most as many rows as they claim to have, or are what their rows encode to.
fn any_rows(bytes: &[u8], count: u64) {
    let rows = EncodedRows { count, bytes: bytes.to_vec() };
    let read: Vec<_> = bounded("reading rows", (4 << 10) + 256 * bytes.len(), || rows.iter().collect());
    let failed = read.iter().position(Result::is_err);
    assert!(failed.is_none_or(|at| at + 1 == read.len()), "rows after an error");
    if failed.is_none() {
        assert_eq!(read.len() as u64, count);
        let mut again = EncodedRows::default();
        for (key, state) in read.into_iter().flatten() {
            again.push(key, |out| out.extend_from_slice(state));
        }
        assert_eq!(again, rows);
    }
}

fn written_rows(draw: &mut Draw) {
    let mut rows = EncodedRows::default();
    let mut expected = vec![];
    while !draw.is_empty() {
        let (key, state) = (draw.bytes(), draw.bytes());
        rows.push(key, |out| out.extend_from_slice(state));
        expected.push((key, state));
    }
    assert!(rows.iter().eq(expected.into_iter().map(Ok)));
}

/// A column with one group that has seen this state; what was wrong with it, if anything was.
fn column(spec: &AggregateSpec, states: &[&[u8]]) -> Option<Box<dyn AggregateColumn>> {
    let mut column = spec.column().unwrap();
    column.resize(1);
    for mut state in states.iter().copied() {
        column.merge_row(0, &mut state).ok()?;
    }
    Some(column)
}

fn encoded(column: &dyn AggregateColumn) -> Vec<u8> {
    let mut out = vec![];
    column.encode_row(0, &mut out);
    out
}

/// The result of the group, as text.
fn finished(column: &dyn AggregateColumn, spec: &AggregateSpec) -> String {
    let mut failed = vec![];
    let result = column.finish(0..1, &mut failed).unwrap();
    assert_eq!((result.len(), result.data_type()), (1, &spec.result));
    assert!(failed.is_empty() || result.is_null(0) && failed.len() == 1 && failed[0].0 == 0);
    format!("{result:?} {failed:?}")
}

/// What is read is written in a form that reads as the same.
fn any_state(spec: &AggregateSpec, bytes: &[u8]) {
    let bound = (16 << 10) + 16 * bytes.len();
    let Some(read) = bounded("reading a state", bound, || column(spec, &[bytes])) else { return };
    let once = encoded(read.as_ref());
    let again = column(spec, &[&once]).expect("what was written cannot be read");
    assert_eq!(encoded(again.as_ref()), once);
    assert_eq!(finished(again.as_ref(), spec), finished(read.as_ref(), spec));
}

/// States add up in any order: by bytes and by columns.
fn merged(spec: &AggregateSpec, exact: bool, draw: &mut Draw) {
    let (a, b, c) = (draw.bytes(), draw.bytes(), draw.bytes());
    let Some(forwards) = column(spec, &[a, b, c]) else { return };
    let backwards = column(spec, &[c, b, a]).expect("the order of states decides whether they can be read");
    let mut pair = column(spec, &[a]).unwrap();
    let rest = column(spec, &[b, c]).unwrap();
    pair.merge_from(onceflow_engine::state::aggregate::Rows::All, &[0], rest.as_ref()).unwrap();
    finished(forwards.as_ref(), spec);
    finished(backwards.as_ref(), spec);
    finished(pair.as_ref(), spec);
    if exact && saturates(spec, &[a, b, c]) {
        return;
    }
    if exact {
        assert_eq!(encoded(forwards.as_ref()), encoded(backwards.as_ref()));
        assert_eq!(encoded(forwards.as_ref()), encoded(pair.as_ref()));
    }
}

/// Whether sums that nobody could have added up are among them: at the bounds of their width they stay there, and order shows.
fn saturates(spec: &AggregateSpec, states: &[&[u8]]) -> bool {
    matches!(spec.function, Sum | Avg) && states.iter().any(|state| state.len() > 15)
}
