//! Expressions: any text is a mistake that points into it, or has values of its type for every row, the same whenever it is asked.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int8Array, Int64Array,
    RecordBatch, StringArray, TimestampMillisecondArray,
};
use onceflow_engine::expr::{Mistake, Scope, ScopeColumn, analyze, analyze_aggregate};

use crate::allocation::bounded;

/// Rows with the values at which functions go wrong.
static ROWS: LazyLock<RecordBatch> = LazyLock::new(|| {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from(vec![Some(0), Some(i64::MAX), Some(i64::MIN), None, Some(-1)]))),
        ("i", Arc::new(Int8Array::from(vec![Some(1), Some(i8::MAX), Some(i8::MIN), None, Some(0)]))),
        ("f", Arc::new(Float64Array::from(vec![Some(0.5), Some(f64::MAX), Some(-0.0), None, Some(1e-320)]))),
        (
            "m",
            Arc::new(
                Decimal128Array::from(vec![
                    Some(1),
                    Some(999_999_999_999),
                    Some(-999_999_999_999),
                    None,
                    Some(0),
                ])
                .with_precision_and_scale(12, 2)
                .unwrap(),
            ),
        ),
        ("s", Arc::new(StringArray::from(vec![Some("a,b"), Some(""), Some("é\u{0}🦀x"), None, Some("12")]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), Some(true), None, Some(false)]))),
        ("d", Arc::new(Date32Array::from(vec![Some(0), Some(2_932_896), Some(-719_162), None, Some(1)]))),
        (
            "t",
            Arc::new(TimestampMillisecondArray::from(vec![
                Some(0),
                Some(253_402_300_799_999),
                Some(-62_135_596_800_000),
                None,
                Some(1),
            ])),
        ),
        ("end", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
});

static SCOPE: LazyLock<Scope> = LazyLock::new(|| {
    let schema = ROWS.schema();
    let columns = schema.fields().iter().map(|field| ScopeColumn {
        name: field.name().clone(),
        data_type: Some(field.data_type().clone()),
        nullable: true,
    });
    Scope { columns: columns.collect(), ..Scope::default() }
});

pub fn target(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let bound = (16 << 20) + (64 << 10) * text.len();
    match bounded("planning", bound, || analyze(&text, &SCOPE)) {
        Ok(typed) => {
            let expr = typed.build(&ROWS.schema()).unwrap();
            let bound = (32 << 20) + (64 << 10) * text.len();
            let whole = bounded("evaluating", bound, || expr.evaluate(&ROWS));
            assert_eq!(whole.values.len(), ROWS.num_rows());
            assert_eq!(*whole.values.data_type(), typed.data_type);
            for (row, reason) in &whole.failed {
                assert!(whole.values.is_null(*row as usize) && !reason.is_empty(), "row {row}: {reason}");
            }
            // A row's value is its own: it does not depend on its neighbours or on the day. (What fails in a batch may be saved from
            // failing alone, by a `case` that needs not be evaluated; it is only the other way that may not be.)
            for row in 0..ROWS.num_rows() {
                let alone = expr.evaluate(&ROWS.slice(row, 1));
                let failed = whole.failed.iter().any(|(failed, _)| *failed as usize == row);
                assert_eq!(failed, !alone.failed.is_empty(), "row {row} of `{text}`");
                assert_eq!(*whole.values.slice(row, 1), *alone.values, "row {row} of `{text}`");
            }
        }
        Err(mistakes) => check(&mistakes, &text),
    }
    if let Err(mistakes) = analyze_aggregate(&text, &SCOPE) {
        check(&mistakes, &text);
    }
}

/// There is a mistake (every column here has a type), and each points into the text.
fn check(mistakes: &[Mistake], text: &str) {
    assert!(!mistakes.is_empty(), "`{text}` is wrong, but nobody says why");
    for mistake in mistakes {
        assert!(
            mistake.at.start <= mistake.at.end && mistake.at.end <= text.len(),
            "{mistake:?} of `{text}`"
        );
        assert!(text.is_char_boundary(mistake.at.start), "{mistake:?} of `{text}`");
        assert!(!mistake.message.is_empty());
    }
}
