//! The JSON decoder beside serde_json. Records of an input are separated by zero bytes, which no JSON text holds.

use std::sync::LazyLock;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, TimeUnit};
use onceflow_engine::formats::decode::{Decoded, Decoder};
use onceflow_engine::formats::json_encode::JsonEncoder;
use onceflow_engine::message::OwnedMessage;
use onceflow_engine::plan::{Column, EventTimeFrom, JsonFormat, OnError, Source};

use super::json_model::{Verdict, judge};
use crate::allocation::bounded;

/// Name, path, type, `not null`. Two paths share a beginning, one goes on where another ends, and names are short, so that a mutation finds
/// them.
fn columns() -> Vec<Column> {
    let column = |name: &str, path: &str, data_type: DataType, not_null: bool| Column {
        name: name.to_owned(),
        path: path.split('.').map(str::to_owned).collect(),
        place: 0,
        data_type,
        not_null,
    };
    vec![
        column("id", "id", DataType::Utf8, true),
        column("n", "n", DataType::Int64, false),
        column("i", "i", DataType::Int8, false),
        column("f", "f", DataType::Float64, false),
        column("b", "b", DataType::Boolean, false),
        column("d", "d", DataType::Date32, false),
        column("t", "t", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        column("m", "m", DataType::Decimal128(12, 2), false),
        column("q", "o.p.q", DataType::Utf8, false),
        column("r", "o.r", DataType::Int64, false),
        column("w", "w", DataType::Float64, false),
        column("x", "w.x", DataType::Int64, false),
        column("é", "é", DataType::Decimal128(38, 38), false),
    ]
}

fn source(columns: Vec<Column>, event_time: EventTimeFrom) -> Source {
    Source { event_time, on_error: OnError::DeadLetter, ..Source::json("hostile", columns) }
}

static SOURCE: LazyLock<Source> = LazyLock::new(|| source(columns(), EventTimeFrom::Record));

/// The same columns, none of them nested, as the encoder writes them.
static FLAT: LazyLock<Source> = LazyLock::new(|| {
    let flat = columns().into_iter().map(|column| Column { path: vec![column.name.clone()], ..column });
    source(flat.collect(), EventTimeFrom::Record)
});

fn decode(source: &Source, values: &[&[u8]]) -> Decoded {
    let messages: Vec<OwnedMessage> = values
        .iter()
        .map(|value| OwnedMessage { timestamp: 1, value: Some(value.to_vec()), ..OwnedMessage::default() })
        .collect();
    Decoder::new(source).unwrap().decode(&messages, 0..messages.len()).unwrap()
}

pub fn target(bytes: &[u8]) {
    let values: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let bound = (64 << 10) + 512 * values.len() + 16 * bytes.len();
    let decoded = bounded("decoding", bound, || decode(&SOURCE, &values));
    assert_eq!(decoded.next, values.len());
    let rows = &decoded.batch.columns;
    let origin = decoded.batch.origin.as_ref().unwrap();
    assert_eq!(rows.num_rows(), origin.len());
    assert_eq!(rows.num_rows() + decoded.failed.len(), values.len());

    for (row, message) in origin.values().iter().enumerate() {
        match judge(values[*message as usize], &SOURCE.columns) {
            Verdict::Values(expected) => {
                for (column, expected) in rows.columns().iter().zip(expected) {
                    expected.check(column.as_ref(), row);
                }
            }
            Verdict::Refused(why) => panic!("record {message} was taken, but {why}"),
        }
    }
    for (message, _, reason) in &decoded.failed {
        assert!(!reason.is_empty() && reason.len() < 1_000, "{reason}");
        if let Verdict::Values(_) = judge(values[*message as usize], &SOURCE.columns) {
            panic!("record {message} was refused: {reason}");
        }
    }
    comes_back(rows);
}

/// What was decoded can be written, and reads as the same.
fn comes_back(rows: &RecordBatch) {
    let encoder = JsonEncoder::new(&rows.schema(), JsonFormat::DEFAULT);
    let bound = encoder.bind(rows).unwrap();
    let texts: Vec<Vec<u8>> = (0..rows.num_rows())
        .map(|row| {
            let mut text = vec![];
            bound.write(row, &mut text).unwrap();
            text
        })
        .collect();
    let again = decode(&FLAT, &texts.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(again.failed, [], "what was written is refused");
    assert_eq!(again.batch.columns, *rows, "what was written reads as something else");
}
