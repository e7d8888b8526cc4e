use std::cmp::Ordering;

use arrow::array::{Date32Array, Float32Array, Float64Array, Int8Array, Int64Array};
use proptest::prelude::*;

use super::*;

/// A value of any column, as a person would write it.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Decimal(i128),
    Text(String),
}

fn types() -> Vec<DataType> {
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(38, 4),
        DataType::Utf8,
        DataType::Date32,
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
    ]
}

fn doubles() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1.0,
            -1.0
        ]),
    ]
}

fn values(data_type: &DataType) -> BoxedStrategy<Value> {
    fn ints<T: Arbitrary + Into<i64> + 'static>() -> BoxedStrategy<Value> {
        any::<T>().prop_map(|value| Value::Int(value.into())).boxed()
    }
    let some = match data_type {
        DataType::Boolean => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int8 => ints::<i8>(),
        DataType::Int16 => ints::<i16>(),
        DataType::Int32 | DataType::Date32 => ints::<i32>(),
        DataType::Float32 => doubles().prop_map(|value| Value::Double((value as f32).into())).boxed(),
        DataType::Float64 => doubles().prop_map(Value::Double).boxed(),
        DataType::Decimal128(_, _) => any::<i128>().prop_map(Value::Decimal).boxed(),
        DataType::Utf8 => {
            prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'b', 'é', '\u{ff}']), 0..5)
                .prop_map(|chars| Value::Text(chars.into_iter().collect()))
                .boxed()
        }
        _ => ints::<i64>(),
    };
    prop_oneof![1 => Just(Value::Null), 5 => some].boxed()
}

fn column(data_type: &DataType, values: &[Value]) -> ArrayRef {
    let ints = || values.iter().map(|value| if let Value::Int(value) = value { Some(*value) } else { None });
    let doubles =
        || values.iter().map(|value| if let Value::Double(value) = value { Some(*value) } else { None });
    macro_rules! integers {
        ($type:ty) => {
            Arc::new(
                ints()
                    .map(|value| value.map(|value| value.try_into().unwrap()))
                    .collect::<PrimitiveArray<$type>>()
                    .with_data_type(data_type.clone()),
            )
        };
    }
    match data_type {
        DataType::Boolean => {
            let bools =
                values.iter().map(|value| if let Value::Bool(value) = value { Some(*value) } else { None });
            Arc::new(bools.collect::<BooleanArray>())
        }
        DataType::Int8 => integers!(Int8Type),
        DataType::Int16 => integers!(Int16Type),
        DataType::Int32 => integers!(Int32Type),
        DataType::Int64 => integers!(Int64Type),
        DataType::Date32 => integers!(Date32Type),
        DataType::Float32 => {
            Arc::new(doubles().map(|value| value.map(|value| value as f32)).collect::<Float32Array>())
        }
        DataType::Float64 => Arc::new(doubles().collect::<Float64Array>()),
        DataType::Decimal128(_, _) => {
            let decimals = values
                .iter()
                .map(|value| if let Value::Decimal(value) = value { Some(*value) } else { None });
            Arc::new(decimals.collect::<PrimitiveArray<Decimal128Type>>().with_data_type(data_type.clone()))
        }
        DataType::Utf8 => {
            let texts =
                values.iter().map(|value| if let Value::Text(value) = value { Some(value) } else { None });
            Arc::new(texts.collect::<StringArray>())
        }
        _ => integers!(TimestampMillisecondType),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        // NaN is one value, the largest; otherwise the order of the numbers, with one zero.
        (Value::Double(a), Value::Double(b)) => {
            a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        }
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => unreachable!("two values of one column"),
    }
}

/// Types of a few columns, and rows of them.
fn table() -> impl Strategy<Value = (Vec<DataType>, Vec<Vec<Value>>)> {
    prop::collection::vec(prop::sample::select(types()), 1..4).prop_flat_map(|types| {
        let row: Vec<_> = types.iter().map(values).collect();
        (Just(types), prop::collection::vec(row, 1..12))
    })
}

fn columns(types: &[DataType], rows: &[Vec<Value>]) -> Vec<ArrayRef> {
    let of = |at: usize| rows.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
    types.iter().enumerate().map(|(at, data_type)| column(data_type, &of(at))).collect()
}

proptest! {
    #[test]
    fn bytes_compare_as_values_do((types, rows) in table()) {
        let keys = encode_columns(&columns(&types, &rows), rows.len()).unwrap();
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                let expected = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
                let expected = expected.unwrap_or(Ordering::Equal);
                prop_assert_eq!(keys.get(i).cmp(keys.get(j)), expected, "{:?} {:?}", a, b);
                prop_assert!(expected.is_eq() || !keys.get(i).starts_with(keys.get(j)), "a prefix");
                prop_assert_eq!(keys.hash(i) == keys.hash(j), expected.is_eq());
            }
        }
    }

    #[test]
    fn keys_come_back((types, rows) in table()) {
        let encoded = encode_columns(&columns(&types, &rows), rows.len()).unwrap();
        let decoded = decode_columns(encoded.iter(), &types).unwrap();
        for (column, data_type) in decoded.iter().zip(&types) {
            prop_assert_eq!(column.data_type(), data_type);
        }
        let again = encode_columns(&decoded, rows.len()).unwrap();
        prop_assert_eq!(encoded.iter().collect::<Vec<_>>(), again.iter().collect::<Vec<_>>());
        // The one form of a value is the value, but for zeros and NaNs.
        let compared: Vec<_> = columns(&types, &rows);
        for (decoded, original) in decoded.iter().zip(&compared) {
            if !matches!(decoded.data_type(), DataType::Float32 | DataType::Float64) {
                prop_assert_eq!(decoded, original);
            }
        }
    }

    /// A slice of a column is encoded like the column itself.
    #[test]
    fn slices_are_respected((types, rows) in table(), from in 0usize..12) {
        let from = from.min(rows.len());
        let whole = encode_columns(&columns(&types, &rows), rows.len()).unwrap();
        let sliced: Vec<_> = columns(&types, &rows).iter().map(|c| c.slice(from, rows.len() - from)).collect();
        let part = encode_columns(&sliced, rows.len() - from).unwrap();
        prop_assert_eq!(whole.iter().skip(from).collect::<Vec<_>>(), part.iter().collect::<Vec<_>>());
    }

    /// What decodes is canonical: it encodes to the same bytes.
    #[test]
    fn damaged_keys_are_refused_or_canonical((types, rows) in table(), at in 0usize..40, flip in 1u8.., cut in 0usize..40) {
        let keys = encode_columns(&columns(&types, &rows), rows.len()).unwrap();
        let mut key = keys.get(0).to_vec();
        let at = at % key.len();
        key[at] ^= flip;
        key.truncate(key.len().saturating_sub(cut).max(1));
        if let Ok(decoded) = decode_columns(std::iter::once(key.as_slice()), &types) {
            let again = encode_columns(&decoded, 1).unwrap();
            prop_assert_eq!(again.get(0), key.as_slice());
        }
    }

    #[test]
    fn lanes_are_shared_out(workers in 1usize..300, lane in 0..LANES) {
        let owner = owner_of(lane, workers);
        prop_assert!(owner < workers);
        for worker in 0..workers {
            prop_assert_eq!(lanes_of(worker, workers).contains(&lane), worker == owner);
        }
    }
}

/// The format of version 1: these bytes may never change without another layout version.
#[test]
fn golden() {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![-2, 1])),
        Arc::new(Int64Array::from(vec![i64::MIN, 258])),
        Arc::new(Float32Array::from(vec![-0.0, -1.5])),
        Arc::new(Float64Array::from(vec![f64::NAN, 1.5])),
        Arc::new(
            PrimitiveArray::<Decimal128Type>::from(vec![-1, 1234]).with_precision_and_scale(12, 2).unwrap(),
        ),
        Arc::new(StringArray::from(vec!["a\0b", "é"])),
        Arc::new(Date32Array::from(vec![-1, 20_000])),
    ];
    let keys = encode_columns(&columns, 2).unwrap();
    let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected = [
        concat!(
            "0101",
            "017ffffffffffffffe",
            "010000000000000000",
            "018000000000000000",
            "01fff8000000000000",
            "017fffffffffffffffffffffffffffffff",
            "016100ff620000",
            "017fffffff"
        ),
        concat!(
            "00",
            "018000000000000001",
            "018000000000000102",
            "014007ffffffffffff",
            "01bff8000000000000",
            "01800000000000000000000000000004d2",
            "01c3a90000",
            "0180004e20"
        ),
    ];
    assert_eq!(keys.iter().map(hex).collect::<Vec<_>>(), expected);
    // XXH3-64 of nothing and of "a", as its author's reference implementation has them.
    assert_eq!((hash(b""), hash(b"a")), (0x2d06_8005_38d3_94c2, 0xe6c6_32b6_1e96_4e1f));
    assert_eq!(lane(0x0000_00ab_0000_0000), 0xab);
}

#[test]
fn no_column_is_one_key() {
    let keys = encode_columns(&[], 3).unwrap();
    assert_eq!(keys.iter().collect::<Vec<_>>(), [b"", b"", b""]);
    assert!(decode_columns(keys.iter(), &[]).unwrap().is_empty());
}
