//! Group keys: any bytes are an error or the one form of some values, and keys sort as values do.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array,
    StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use onceflow_engine::state::key::{LANES, decode_columns, encode_columns, hash, lane, lanes_of, owner_of};

use crate::allocation::bounded;
use crate::draw::Draw;

const TYPES: [DataType; 8] = [
    DataType::Boolean,
    DataType::Int8,
    DataType::Int64,
    DataType::Float32,
    DataType::Float64,
    DataType::Decimal128(38, 10),
    DataType::Utf8,
    DataType::Date32,
];

/// A value of a key column.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Decimal(i128),
    Text(String),
}

/// The order that keys promise: as the values, nulls first, NaN last, and one zero.
fn order(a: &Option<Value>, b: &Option<Value>) -> Ordering {
    use Value::*;
    match (a, b) {
        (Some(Double(a)), Some(Double(b))) => a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())),
        (Some(Boolean(a)), Some(Boolean(b))) => a.cmp(b),
        (Some(Integer(a)), Some(Integer(b))) => a.cmp(b),
        (Some(Decimal(a)), Some(Decimal(b))) => a.cmp(b),
        (Some(Text(a)), Some(Text(b))) => a.cmp(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn value(data_type: &DataType, draw: &mut Draw) -> Option<Value> {
    if draw.byte() < 32 {
        return None;
    }
    Some(match data_type {
        DataType::Boolean => Value::Boolean(draw.byte() & 1 == 1),
        DataType::Int8 => Value::Integer((draw.byte() as i8).into()),
        DataType::Date32 => Value::Integer(i32::from_le_bytes(draw.array()).into()),
        DataType::Float32 => Value::Double(f32::from_le_bytes(draw.array()).into()),
        DataType::Float64 => Value::Double(f64::from_le_bytes(draw.array())),
        DataType::Decimal128(..) => Value::Decimal(i128::from_le_bytes(draw.array())),
        DataType::Utf8 => Value::Text(draw.text()),
        _ => Value::Integer(draw.integer()),
    })
}

/// Two values as a column of the type.
fn column(data_type: &DataType, pair: &[Option<Value>; 2]) -> ArrayRef {
    let integers = || {
        pair.iter().map(|value| match value {
            Some(Value::Integer(value)) => Some(*value),
            _ => None,
        })
    };
    let doubles = || {
        pair.iter().map(|value| match value {
            Some(Value::Double(value)) => Some(*value),
            _ => None,
        })
    };
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(pair.iter().map(|value| match value {
            Some(Value::Boolean(value)) => Some(*value),
            _ => None,
        }))),
        DataType::Int8 => {
            Arc::new(Int8Array::from_iter(integers().map(|value| value.map(|value| value as i8))))
        }
        DataType::Int64 => Arc::new(Int64Array::from_iter(integers())),
        DataType::Timestamp(..) => Arc::new(TimestampMillisecondArray::from_iter(integers())),
        DataType::Date32 => {
            Arc::new(Date32Array::from_iter(integers().map(|value| value.map(|value| value as i32))))
        }
        DataType::Float32 => {
            Arc::new(Float32Array::from_iter(doubles().map(|value| value.map(|value| value as f32))))
        }
        DataType::Float64 => Arc::new(Float64Array::from_iter(doubles())),
        DataType::Utf8 => Arc::new(StringArray::from_iter(pair.iter().map(|value| match value {
            Some(Value::Text(value)) => Some(value),
            _ => None,
        }))),
        _ => Arc::new(
            Decimal128Array::from_iter(pair.iter().map(|value| match value {
                Some(Value::Decimal(value)) => Some(*value),
                _ => None,
            }))
            .with_data_type(data_type.clone()),
        ),
    }
}

pub fn target(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let count = draw.below(4);
    let types: Vec<DataType> = (0..count)
        .map(|_| TYPES.get(draw.below(TYPES.len() + 1)).cloned())
        .map(|data_type| data_type.unwrap_or(DataType::Timestamp(TimeUnit::Millisecond, None)))
        .collect();
    any_bytes(&types, draw.0);
    sorted(&types, &mut draw);
}

/// Bytes that decode are exactly the bytes that their values encode to.
fn any_bytes(types: &[DataType], bytes: &[u8]) {
    let bound = (16 << 10) + 16 * bytes.len();
    let Ok(columns) = bounded("decoding", bound, || decode_columns(std::iter::once(bytes), types)) else {
        return;
    };
    let again = encode_columns(&columns, 1).unwrap();
    assert_eq!(again.get(0), bytes, "another form of {columns:?}");
}

/// Two rows of values sort as their keys, and come back.
fn sorted(types: &[DataType], draw: &mut Draw) {
    let rows: Vec<[Option<Value>; 2]> =
        types.iter().map(|data_type| [value(data_type, draw), value(data_type, draw)]).collect();
    let columns: Vec<ArrayRef> =
        types.iter().zip(&rows).map(|(data_type, pair)| column(data_type, pair)).collect();
    let keys = encode_columns(&columns, 2).unwrap();
    let expected =
        rows.iter().map(|[a, b]| order(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
    assert_eq!(keys.get(0).cmp(keys.get(1)), expected, "{rows:?}");
    if expected.is_ne() {
        let (a, b) = (keys.get(0), keys.get(1));
        assert!(!a.starts_with(b) && !b.starts_with(a), "a key is a prefix of another: {rows:?}");
    }

    let back = decode_columns(keys.iter(), types).unwrap();
    let again = encode_columns(&back, 2).unwrap();
    assert!(again.iter().eq(keys.iter()), "{rows:?} come back as {back:?}");
    for row in 0..2 {
        let lane = lane(hash(keys.get(row)));
        assert!(keys.hash(row) == hash(keys.get(row)) && lane < LANES);
        let workers = 1 + draw.below(256);
        assert!(lanes_of(owner_of(lane, workers), workers).contains(&lane), "lane {lane} of {workers}");
    }
}
