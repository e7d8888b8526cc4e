use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::message::OwnedMessage;
use crate::plan::Source;
use crate::plan::kept_field;

const MS: fn() -> DataType = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));

/// `(name, dotted path, type, not null)` of each column.
fn source(columns: &[(&str, &str, DataType, bool)], event_time: EventTimeFrom) -> Source {
    let column = |(name, path, data_type, not_null): &(&str, &str, DataType, bool)| Column {
        name: (*name).into(),
        path: path.split('.').map(Into::into).collect(),
        place: 0,
        data_type: data_type.clone(),
        not_null: *not_null,
    };
    Source { event_time, ..Source::json("orders", columns.iter().map(column).collect()) }
}

fn message(value: &[u8]) -> OwnedMessage {
    OwnedMessage { timestamp: 1, value: Some(value.to_vec()), ..OwnedMessage::default() }
}

fn decode(source: &Source, values: &[&[u8]]) -> Decoded {
    let messages: Vec<_> = values.iter().map(|value| message(value)).collect();
    Decoder::new(source).unwrap().decode(&messages, 0..messages.len()).unwrap()
}

/// The reason why the only record cannot be decoded.
fn failure(source: &Source, value: &[u8]) -> String {
    let good: &[u8] = br#"{"id":"x","n":1,"f":1,"b":true,"d":"2026-01-01","t":0,"m":1,"o":{"p":{"q":"z"}}}"#;
    let decoded = decode(source, &[good, value, good]);
    let origin = decoded.batch.origin.unwrap();
    assert_eq!(origin.values(), &[0, 2], "{:?}", decoded.failed);
    assert_eq!(decoded.batch.columns.num_rows(), 2);
    assert_eq!(decoded.batch.columns.slice(0, 1), decoded.batch.columns.slice(1, 1));
    assert_eq!(decoded.failed.len(), 1, "{} was taken", String::from_utf8_lossy(value));
    decoded.failed[0].2.clone()
}

fn all_types() -> Source {
    source(
        &[
            ("id", "id", DataType::Utf8, true),
            ("n", "n", DataType::Int64, false),
            ("f", "f", DataType::Float64, false),
            ("b", "b", DataType::Boolean, false),
            ("d", "d", DataType::Date32, false),
            ("t", "t", MS(), false),
            ("m", "m", DataType::Decimal128(12, 2), false),
            ("q", "o.p.q", DataType::Utf8, false),
        ],
        EventTimeFrom::Record,
    )
}

#[test]
fn decodes_every_type() {
    let decoded = decode(
        &all_types(),
        &[
            br#"{"id":"a\u00e9","n":-0,"f":3,"b":false,"d":"1969-12-31","t":"2026-01-01T01:00:00.1239+01:00","m":1.5e3,"o":{"p":{"q":"deep"}}}"#,
            br#" {"x":[{"id":1}],"id":"","n":null,"t":-5,"m":"0.10","o":{"p":null}} "#,
            br#"{"id":"a","o":null}"#,
            br#"{"\u0069d":"escaped name","f":0.1}"#,
        ],
    );
    assert_eq!(decoded.failed, []);
    assert_eq!(decoded.next, 4);
    let columns = &decoded.batch.columns;
    let text = |column: usize| columns.column(column).as_string::<i32>().iter().collect::<Vec<_>>();
    assert_eq!(text(0), [Some("aé"), Some(""), Some("a"), Some("escaped name")]);
    assert_eq!(text(7), [Some("deep"), None, None, None]);
    let n = columns.column(1).as_primitive::<Int64Type>();
    assert_eq!(n.iter().collect::<Vec<_>>(), [Some(0), None, None, None]);
    let f = columns.column(2).as_primitive::<Float64Type>();
    assert_eq!(f.iter().collect::<Vec<_>>(), [Some(3.0), None, None, Some(0.1)]);
    assert!(!columns.column(3).as_boolean().value(0));
    assert_eq!(columns.column(4).as_primitive::<Date32Type>().value(0), -1);
    let t = columns.column(5).as_primitive::<TimestampMillisecondType>();
    assert_eq!(t.iter().collect::<Vec<_>>(), [Some(1_767_225_600_123), Some(-5), None, None]);
    let m = columns.column(6).as_primitive::<Decimal128Type>();
    assert_eq!(m.iter().collect::<Vec<_>>(), [Some(150_000), Some(10), None, None]);
}

#[test]
fn each_bad_record_says_what_is_wrong() {
    let source = all_types();
    let deep = |open: &str, close: &str| {
        format!(r#"{{"id":"a","n":{}{}}}"#, open.repeat(20_000), close.repeat(20_000))
    };
    for (value, reason) in [
        (&b""[..], "empty value"),
        (b"  ", "not JSON: EOF"),
        (b"nonsense", "not JSON: expected"),
        (b"[1,2]", "expected an object, found an array"),
        (b"null", "expected an object, found null"),
        (b"17", "expected an object, found a number"),
        (br#"{"id":"a"} {}"#, "not JSON: trailing characters"),
        (br#"{"id":"a","n":1"#, "not JSON: EOF"),
        (br#"{"id":"a","n":01}"#, "not JSON"),
        (br#"{"id":"a","n":[1,,2]}"#, "not JSON"),
        (br#"{"id":"a",}"#, "not JSON"),
        (b"{\"id\":\"a\xff\"}", "not UTF-8: invalid byte at position 8"),
        (b"{\"id\":\"a\nb\"}", "not JSON: control character"),
        (br#"{"id":"\ud800"}"#, r#"column id: expected a string, found "\ud800""#),
        (br#"{"n":1}"#, "column id: is missing, but declared not null"),
        (br#"{"id":null}"#, "column id: is null, but declared not null"),
        (br#"{"id":5}"#, "column id: expected a string, found 5"),
        (br#"{"id":"a","n":"1"}"#, r#"column n: expected an integer (bigint), found "1""#),
        (br#"{"id":"a","n":1.0}"#, "column n: expected an integer (bigint), found 1.0"),
        (br#"{"id":"a","n":9223372036854775808}"#, "found 9223372036854775808"),
        (br#"{"id":"a","n":true}"#, "found true"),
        (br#"{"id":"a","f":1e400}"#, "column f: expected a number (double), found 1e400"),
        (br#"{"id":"a","f":"1"}"#, "column f"),
        (br#"{"id":"a","f":NaN}"#, "not JSON"),
        (br#"{"id":"a","b":1}"#, "column b: expected a boolean, found 1"),
        (br#"{"id":"a","d":"2026-02-29"}"#, "column d: expected a date"),
        (br#"{"id":"a","d":"2026-2-09"}"#, "column d"),
        (br#"{"id":"a","t":"2026-01-01"}"#, "column t: expected a timestamp"),
        (br#"{"id":"a","t":1.5}"#, "column t"),
        (br#"{"id":"a","t":9999999999999999}"#, "outside of the years 1 to 9999"),
        (
            br#"{"id":"a","m":0.001}"#,
            "column m: expected a decimal(12,2), found 0.001: too many digits after",
        ),
        (br#"{"id":"a","m":1e10}"#, "too many digits before"),
        (br#"{"id":"a","m":"x"}"#, "not a decimal number"),
        (br#"{"id":"a","o":{"p":[1]}}"#, "column q: expected an object at o.p, found an array"),
        (br#"{"id":"a","o":1}"#, "column q: expected an object at o, found a number"),
        (deep("[", "]").as_bytes(), "column n: expected an integer (bigint), found an array beginning [[["),
        (deep("[", "").as_bytes(), "not JSON"),
        (deep(r#"{"o":"#, "}").as_bytes(), "not JSON"),
    ] {
        let found = failure(&source, value);
        assert!(
            found.contains(reason),
            "{}: {found}",
            String::from_utf8_lossy(&value[..value.len().min(80)])
        );
        assert!(found.len() < 300, "{found}");
    }
}

#[test]
fn tombstones_are_errors_of_their_record() {
    let messages = vec![OwnedMessage { timestamp: 1, ..OwnedMessage::default() }];
    let decoded = Decoder::new(&all_types()).unwrap().decode(&messages, 0..1).unwrap();
    assert_eq!(decoded.failed, [(0, Reason::Decode, "null value".to_owned())]);
}

#[test]
fn the_last_member_of_a_name_counts_as_a_whole() {
    let source = source(
        &[("a", "a", DataType::Int64, false), ("c", "b.c", DataType::Int64, false)],
        EventTimeFrom::Record,
    );
    let decoded = decode(
        &source,
        &[
            br#"{"a":"no number","a":1,"b":{"c":1},"b":{"c":2}}"#,
            br#"{"a":1,"a":null,"b":{"c":1},"b":{}}"#,
            br#"{"b":7,"b":{"c":3}}"#,
        ],
    );
    assert_eq!(decoded.failed, []);
    let column =
        |i: usize| decoded.batch.columns.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(column(0), [Some(1), None, None]);
    assert_eq!(column(1), [Some(2), None, Some(3)]);
}

#[test]
fn a_path_may_begin_like_another() {
    let source = source(
        &[
            ("whole", "a", DataType::Int64, false),
            ("part", "a.b", DataType::Int64, false),
            ("again", "a", DataType::Int64, false),
        ],
        EventTimeFrom::Record,
    );
    let decoded = decode(&source, &[br#"{"a":null}"#, br#"{"a":{"b":2}}"#, br#"{"a":3}"#]);
    assert_eq!(decoded.batch.len(), 1);
    assert_eq!(decoded.failed.len(), 2);
    assert!(decoded.failed[0].2.starts_with("column whole: expected an integer"));
    assert!(decoded.failed[1].2.starts_with("column part: expected an object at a, found a number"));
}

#[test]
fn no_columns_still_count_rows() {
    let decoded = decode(&source(&[], EventTimeFrom::Record), &[b"{}", b"{\"a\":1}", b"[]"]);
    assert_eq!(decoded.batch.len(), 2);
    assert_eq!(decoded.failed.len(), 1);
}

#[test]
fn many_columns_are_found_by_hash() {
    let names: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
    let columns: Vec<_> =
        names.iter().map(|name| (name.as_str(), name.as_str(), DataType::Int64, true)).collect();
    let record = json!(
        names.iter().enumerate().map(|(i, name)| (name.clone(), json!(i))).collect::<serde_json::Map<_, _>>()
    );
    let decoded = decode(&source(&columns, EventTimeFrom::Record), &[record.to_string().as_bytes()]);
    assert_eq!(decoded.failed, []);
    for (i, column) in decoded.batch.columns.columns().iter().enumerate() {
        assert_eq!(column.as_primitive::<Int64Type>().value(0), i as i64);
    }
}

#[test]
fn event_times_are_converted_and_checked() {
    let seconds = EventTimeFrom::Column { column: 0, multiplier: 1000, divisor: 1 };
    let micros = EventTimeFrom::Column { column: 0, multiplier: 1, divisor: 1000 };
    for (event_time, value, expected) in [
        (seconds, "7", Ok(7000)),
        (seconds, "0", Err("outside of 1970")),
        (seconds, "9223372036854775807", Err("outside of 1970")),
        (micros, "1999", Ok(1)),
        (micros, "-1", Err("outside of 1970")),
        (micros, "null", Err("column n is null")),
        (
            EventTimeFrom::Column { column: 0, multiplier: 1, divisor: 1 },
            "253402300800000",
            Err("outside of 1970"),
        ),
        (EventTimeFrom::Record, "5", Ok(1)),
    ] {
        let source = source(&[("n", "n", DataType::Int64, false)], event_time);
        let decoded = decode(&source, &[format!(r#"{{"n":{value}}}"#).as_bytes()]);
        match expected {
            Ok(ms) => assert_eq!(decoded.batch.event_time.values(), &[ms], "{value}: {:?}", decoded.failed),
            Err(reason) => assert!(decoded.failed[0].2.contains(reason), "{value}: {:?}", decoded.failed),
        }
    }
    let source = source(&[], EventTimeFrom::Record);
    let messages = vec![OwnedMessage { timestamp: -1, ..message(b"{}") }];
    let decoded = Decoder::new(&source).unwrap().decode(&messages, 0..1).unwrap();
    assert_eq!(decoded.failed[0].2, "the record has no timestamp");
}

#[test]
fn event_time_from_text_is_refused() {
    let event_time = EventTimeFrom::Column { column: 0, multiplier: 1, divisor: 1 };
    assert!(Decoder::new(&source(&[("a", "a", DataType::Utf8, false)], event_time)).is_err());
}

/// `source` with undeclared members kept.
fn keeping(source: Source) -> Source {
    let fields = source.schema.fields().iter().cloned().chain([kept_field().into()]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Source { unknown_fields: UnknownFields::Keep, schema, ..source }
}

fn kept_texts(decoded: &Decoded) -> Vec<&str> {
    let columns = decoded.batch.columns.columns();
    columns.last().unwrap().as_string::<i32>().iter().map(Option::unwrap).collect()
}

#[test]
fn undeclared_members_are_kept_as_they_came() {
    let columns = [("a", "a", DataType::Int64, false), ("deep", "o.x", DataType::Int64, false)];
    let source = Source {
        declared: vec![vec!["b".into()], vec!["deep".into()]],
        ..keeping(source(&columns, EventTimeFrom::Record))
    };
    let decoded = decode(
        &source,
        &[
            br#"{"a":1,"b":2,"deep":3}"#,
            br#" { "z" : [ 1, {"a" :2} ] , "a":1, "\u00e9\"":"\u00e9 \/", "z":1E+400,"b":{}} "#,
            br#"{"c":1,"a":"no number"}"#,
            br#"{"o":{"y":1,"x":5}}"#,
            br#"{"o":{"x":6},"o":null,"\u0061":7}"#,
            br#"{}"#,
        ],
    );
    assert_eq!(decoded.failed.iter().map(|(i, ..)| *i).collect::<Vec<_>>(), [2]);
    assert_eq!(
        kept_texts(&decoded),
        [
            "",
            r#"{"z":[ 1, {"a" :2} ],"\u00e9\"":"\u00e9 \/","z":1E+400}"#,
            r#"{"o":{"y":1,"x":5}}"#,
            r#"{"o":{"x":6},"o":null}"#,
            ""
        ]
    );
    let column =
        |i: usize| decoded.batch.columns.column(i).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(column(0), [Some(1), Some(1), None, Some(7), None]);
    assert_eq!(column(1), [None, None, Some(5), None, None]);
}

#[test]
fn undeclared_members_can_be_refused() {
    let columns = [("a", "a", DataType::Int64, false), ("deep", "o.x", DataType::Int64, false)];
    let source = Source {
        unknown_fields: UnknownFields::Error,
        declared: vec![vec!["b".into(), "c".into()]],
        ..source(&columns, EventTimeFrom::Record)
    };
    let decoded = decode(
        &source,
        &[
            br#"{"a":1,"b":{"c":[{"q":1}]},"o":{"x":1}}"#,
            br#"{"a":1,"z":1,"y":2}"#,
            br#"{"o":{"x":1,"y":{}}}"#,
            br#"{"b":{"d":1}}"#,
            br#"{"b":7,"z":}"#,
        ],
    );
    let failed: Vec<_> = decoded.failed.iter().map(|(i, _, error)| (*i, error.as_str())).collect();
    assert_eq!(decoded.batch.len(), 1);
    assert_eq!(failed[0], (1, "the schema has no member `z`"));
    assert_eq!(failed[1], (2, "the schema has no member `y`"));
    assert_eq!(failed[2], (3, "the schema has no member `d`"));
    assert!(failed[3].1.starts_with("not JSON"), "{failed:?}");
}

#[test]
fn tombstones_can_be_skipped() {
    let source = Source { tombstones: Tombstones::Skip, ..source(&[], EventTimeFrom::Record) };
    let null = OwnedMessage { timestamp: 1, ..OwnedMessage::default() };
    let messages = vec![null.clone(), message(b"{}"), message(b""), null];
    let decoded = Decoder::new(&source).unwrap().decode(&messages, 0..4).unwrap();
    assert_eq!(decoded.skipped, [0, 3]);
    assert_eq!(decoded.batch.origin.unwrap().values(), &[1]);
    assert_eq!(decoded.failed, [(2, Reason::Decode, "empty value".to_owned())]);
}

#[test]
fn what_is_too_far_ahead_of_its_record_is_told() {
    let event_time = EventTimeFrom::Column { column: 0, multiplier: 1, divisor: 1 };
    let columns = [("n", "n", DataType::Int64, false)];
    let source = Source { max_ahead_ms: Some(10), ..source(&columns, event_time) };
    let at = |timestamp, value: &str| OwnedMessage { timestamp, ..message(value.as_bytes()) };
    let messages =
        vec![at(5, r#"{"n":15}"#), at(5, r#"{"n":16}"#), at(99, r#"{"n":1}"#), at(-1, r#"{"n":1}"#)];
    let decoded = Decoder::new(&source).unwrap().decode(&messages, 0..4).unwrap();
    assert_eq!(decoded.batch.event_time.values(), &[15, 1]);
    let failed: Vec<_> = decoded.failed.iter().map(|(i, reason, _)| (*i, *reason)).collect();
    assert_eq!(failed, [(1, Reason::Ahead), (3, Reason::Ahead)]);
    assert!(decoded.failed[0].2.contains("11 ms ahead"), "{:?}", decoded.failed);
}

/// What a column must hold, by way of serde_json's tree. `None`: the record is bad.
fn expected(value: &Value, path: &[String], data_type: &DataType) -> Option<Value> {
    let mut at = value;
    for name in path {
        match at {
            Value::Object(members) => at = members.get(name).unwrap_or(&Value::Null),
            Value::Null => return Some(Value::Null),
            _ => return None,
        }
    }
    let fits = match data_type {
        DataType::Int64 => at.is_i64(),
        DataType::Utf8 => at.is_string(),
        DataType::Boolean => at.is_boolean(),
        _ => at.is_number(),
    };
    (fits || at.is_null()).then(|| at.clone())
}

fn cell(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        _ => json!(column.as_primitive::<Float64Type>().value(row)),
    }
}

fn some_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(|float| json!((float * 8.0).floor() / 8.0)),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[abc]", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn model_columns() -> Source {
    source(
        &[
            ("text", "a", DataType::Utf8, false),
            ("int", "b", DataType::Int64, false),
            ("deep", "c.a", DataType::Float64, false),
            ("deeper", "c.b.a", DataType::Boolean, false),
        ],
        EventTimeFrom::Record,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn agrees_with_a_tree(records in prop::collection::vec(some_json(), 0..6)) {
        let source = model_columns();
        let texts: Vec<String> = records.iter().map(Value::to_string).collect();
        let decoded = decode(&source, &texts.iter().map(String::as_bytes).collect::<Vec<_>>());
        let mut row = 0;
        let mut failed = decoded.failed.iter().map(|(i, ..)| *i as usize);
        for (i, record) in records.iter().enumerate() {
            let cells: Option<Vec<_>> = source.columns.iter().map(|column| expected(record, &column.path, &column.data_type)).collect();
            match cells.filter(|_| record.is_object()) {
                None => prop_assert_eq!(failed.next(), Some(i), "{} was taken", record),
                Some(cells) => {
                    for (column, cell_expected) in decoded.batch.columns.columns().iter().zip(cells) {
                        let found = cell(column.as_ref(), row);
                        prop_assert!(found == cell_expected || found.as_f64() == cell_expected.as_f64(), "{} for {}", found, cell_expected);
                    }
                    row += 1;
                }
            }
        }
        prop_assert_eq!(row, decoded.batch.len());
        prop_assert_eq!(failed.next(), None);
    }

    /// Whatever is declared: a kept text and the declared members are the members of the record, no more and no less.
    #[test]
    fn what_is_kept_and_what_is_declared_are_the_record(record in some_json()) {
        let columns = [("a", "a", DataType::Utf8, false)];
        let source = keeping(source(&columns, EventTimeFrom::Record));
        let decoded = decode(&source, &[record.to_string().as_bytes()]);
        let Value::Object(mut members) = record else { return Ok(()) };
        let declared = members.remove("a").unwrap_or(Value::Null);
        prop_assert_eq!(decoded.failed.is_empty(), declared.is_string() || declared.is_null());
        if decoded.failed.is_empty() {
            let kept = kept_texts(&decoded)[0];
            let expected = if members.is_empty() { String::new() } else { Value::Object(members).to_string() };
            prop_assert_eq!(kept, expected);
        }
    }

    #[test]
    fn damaged_records_never_panic(
        record in some_json(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = json!({"a": "x", "c": record, "b": 1}).to_string().into_bytes();
        let damaged = at.index(bytes.len());
        bytes[damaged] = byte;
        bytes.truncate(bytes.len() - cut.index(3));
        let decoded = decode(&model_columns(), &[&bytes]);
        prop_assert_eq!(decoded.batch.len() + decoded.failed.len(), 1);
        // What is taken is JSON (skipped strings may hold lone surrogates, which a tree may not).
        if decoded.failed.is_empty() {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok());
        }
    }
}
