use std::sync::Arc;

use arrow::array::types::{Decimal128Type, Int64Type};
use arrow::array::{
    BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMillisecondArray,
};
use proptest::prelude::*;

use super::*;

fn spec(function: plan::AggregateFunction, argument: DataType, result: DataType) -> AggregateSpec {
    AggregateSpec { function, argument, result }
}

fn decimals(precision: u8, scale: i8, values: Vec<Option<i128>>) -> ArrayRef {
    Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
}

fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal128(precision, scale)
}

/// Every aggregate with an argument of six rows: the first four go to group 0, the last two, null, to group 1.
fn cases() -> Vec<(AggregateSpec, ArrayRef, &'static str, &'static str)> {
    use DataType::{Boolean, Date32, Float32, Float64, Int32, Int64, Utf8};
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), Some(-300), None, Some(7), None, None]));
    let longs: ArrayRef =
        Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MAX), Some(-1), None, None, None]));
    let doubles: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(1e100), Some(1.5), Some(-1e100), Some(-0.0), None, None]));
    let floats: ArrayRef =
        Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(0.0), Some(-0.0), None, None, None]));
    let cents = decimals(12, 2, vec![Some(1), Some(1), None, Some(-4), None, None]);
    let nines = 10i128.pow(38) - 1;
    let huge = decimals(38, 0, vec![Some(nines), Some(nines), Some(-nines), Some(1), None, None]);
    let text: ArrayRef =
        Arc::new(StringArray::from(vec![Some("b"), Some("abc"), None, Some("é"), None, None]));
    let bools: ArrayRef =
        Arc::new(BooleanArray::from(vec![Some(false), Some(true), None, Some(false), None, None]));
    let dates: ArrayRef = Arc::new(Date32Array::from(vec![Some(5), Some(-5), None, Some(0), None, None]));
    let times: ArrayRef = Arc::new(
        TimestampMillisecondArray::from(vec![Some(9), Some(-1), None, Some(0), None, None])
            .with_timezone("UTC"),
    );
    let time = times.data_type().clone();
    vec![
        (spec(Count, Int32, Int64), ints.clone(), "03 | 00", "3"),
        (spec(Sum, Int32, Int64), ints.clone(), "02defe | 00", "-290"),
        (spec(Min, Int32, Int32), ints.clone(), "01d4feffffffffffff | 00", "-300"),
        (spec(Max, Int32, Int32), ints.clone(), "010700000000000000 | 00", "7"),
        (spec(Avg, Int32, Float64), ints, "0302defe | 00", "-96.66666666666667"),
        (spec(Sum, Int64, Int64), longs, "09fdffffffffffffff00 | 00", "the sum exceeds the range of bigint"),
        (spec(Sum, Float64, Float64), doubles.clone(), "010000000000000000000000000000f83f | 00", "1.5"),
        (spec(Avg, Float64, Float64), doubles.clone(), "040000000000000000000000000000f83f | 00", "0.375"),
        (spec(Min, Float64, Float64), doubles, "017dc39425ad49b2d4 | 00", "-1e100"),
        (spec(Min, Float32, Float32), floats.clone(), "010000000000000000 | 00", "0.0"),
        (spec(Max, Float32, Float32), floats.clone(), "01000000000000f87f | 00", "NaN"),
        (spec(Sum, Float32, Float64), floats, "01000000000000f87f0000000000000000 | 00", "NaN"),
        (spec(Sum, decimal(12, 2), decimal(22, 2)), cents.clone(), "01fe | 00", "-0.02"),
        (spec(Avg, decimal(12, 2), decimal(16, 6)), cents.clone(), "0301fe | 00", "-0.006667"),
        (spec(Max, decimal(12, 2), decimal(12, 2)), cents, "0101000000000000000000000000000000 | 00", "0.01"),
        (
            spec(Sum, decimal(38, 0), decimal(38, 0)),
            huge.clone(),
            "100000000040228a097ac4865aa84c3b4b | 00",
            "the sum exceeds decimal(38,0)",
        ),
        (
            spec(Avg, decimal(38, 0), decimal(38, 4)),
            huge,
            "04100000000040228a097ac4865aa84c3b4b | 00",
            "the mean exceeds decimal(38,4)",
        ),
        (spec(Min, Utf8, Utf8), text.clone(), "0103616263 | 00", "abc"),
        (spec(Max, Utf8, Utf8), text, "0102c3a9 | 00", "é"),
        (spec(Max, Boolean, Boolean), bools.clone(), "0101 | 00", "true"),
        (spec(Min, Boolean, Boolean), bools, "0100 | 00", "false"),
        (spec(Min, Date32, Date32), dates, "01fbffffff | 00", "1969-12-27"),
        (spec(Max, time.clone(), time), times, "010900000000000000 | 00", "1970-01-01T00:00:00.009Z"),
    ]
}

const GROUPS: [u32; 6] = [0, 0, 0, 0, 1, 1];

fn updated(
    spec: &AggregateSpec,
    rows: Rows<'_>,
    groups: &[u32],
    argument: &ArrayRef,
) -> Box<dyn AggregateColumn> {
    let mut column = spec.column().unwrap();
    column.resize(2);
    column.update(rows, groups, Some(argument)).unwrap();
    column
}

fn encoded(column: &dyn AggregateColumn) -> String {
    let hex = |group| {
        let mut out = vec![];
        column.encode_row(group, &mut out);
        out.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    format!("{} | {}", hex(0), hex(1))
}

/// The first group's result, or why there is none; the second must be NULL without failing (for `count` 0).
fn result(column: &dyn AggregateColumn, spec: &AggregateSpec) -> String {
    let mut failed = vec![];
    let results = column.finish(0..2, &mut failed).unwrap();
    assert_eq!(results.data_type(), &spec.result);
    assert!(
        results.is_null(1) || spec.function == Count && results.as_primitive::<Int64Type>().value(1) == 0
    );
    match failed.as_slice() {
        [] => arrow::util::display::array_value_to_string(&results, 0).unwrap(),
        [(0, reason)] => {
            assert!(results.is_null(0));
            reason.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// The state bytes of version 1 and the results; these bytes may never change without another layout version.
#[test]
fn golden() {
    for (spec, argument, bytes, expected) in cases() {
        let column = updated(&spec, Rows::All, &GROUPS, &argument);
        assert_eq!(encoded(&*column), bytes, "{spec:?}");
        assert_eq!(result(&*column, &spec), expected, "{spec:?}");
    }
}

/// However the rows are split, merged and copied, the state is the same.
#[test]
fn merging_is_updating() {
    for (spec, argument, _, expected) in cases() {
        for split in 0u32..64 {
            let pick = |side: u32| (0..6u32).filter(|row| split >> row & 1 == side).collect::<Vec<_>>();
            let part = |rows: &[u32]| {
                let groups: Vec<u32> = rows.iter().map(|&row| GROUPS[row as usize]).collect();
                updated(&spec, Rows::These(rows), &groups, &argument)
            };
            let (mut merged, other) = (part(&pick(0)), part(&pick(1)));
            let mut through_bytes = spec.column().unwrap();
            through_bytes.resize(2);
            for group in 0..2 {
                for from in [&merged, &other] {
                    let mut state = vec![];
                    from.encode_row(group, &mut state);
                    let mut rest = state.as_slice();
                    through_bytes.merge_row(group, &mut rest).unwrap();
                    assert!(rest.is_empty());
                }
            }
            merged.merge_from(Rows::All, &[0, 1], other.as_ref()).unwrap();
            assert_eq!(result(&*merged, &spec), expected, "{spec:?} {split:b}");
            assert_eq!(result(&*through_bytes, &spec), expected, "{spec:?} {split:b}");
            assert_eq!(encoded(&*merged), encoded(&*through_bytes), "{spec:?} {split:b}");
        }
    }
}

#[test]
fn states_that_are_cut_off_are_refused() {
    for (spec, argument, ..) in cases() {
        let column = updated(&spec, Rows::All, &GROUPS, &argument);
        let mut state = vec![];
        column.encode_row(0, &mut state);
        for length in 0..state.len() {
            let mut target = spec.column().unwrap();
            target.resize(1);
            let cut = target.merge_row(0, &mut &state[..length]);
            assert!(matches!(cut, Err(StateError::Damaged(_))), "{spec:?} {length}");
        }
    }
}

#[test]
fn different_aggregates_do_not_merge() {
    let cases = cases();
    let (count, sum) = (cases[0].0.column().unwrap(), &cases[1].0);
    assert!(matches!(
        sum.column().unwrap().merge_from(Rows::All, &[], count.as_ref()),
        Err(StateError::Bug(_))
    ));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let mut column = sum.column().unwrap();
    column.resize(1);
    assert!(matches!(column.update(Rows::All, &[0], Some(&text)), Err(StateError::Bug(_))));
    assert!(spec(Sum, DataType::Utf8, DataType::Utf8).column().is_err());
}

#[test]
fn means_round_half_away_from_zero() {
    for (values, expected) in [
        (vec![1, 0], 5_000),
        (vec![1, 1, 1, 0, 0, 0, 0, 0], 3_750),
        (vec![1, 0, 0], 3_333),
        (vec![2, 0, 0], 6_667),
        (vec![-2, 0, 0], -6_667),
        ([vec![1], vec![0; 31]].concat(), 313), // 312.5
        ([vec![-1], vec![0; 31]].concat(), -313),
    ] {
        let spec = spec(Avg, decimal(10, 2), decimal(14, 6));
        let argument = decimals(10, 2, values.iter().map(|value| Some(*value)).collect());
        let column = updated(&spec, Rows::All, &vec![0; values.len()], &argument);
        let means = column.finish(0..1, &mut vec![]).unwrap();
        assert_eq!(means.as_primitive::<Decimal128Type>().value(0), expected, "{values:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_states_end(bytes: Vec<u8>, case in 0usize..23) {
        let spec = &cases()[case].0;
        let mut column = spec.column().unwrap();
        column.resize(1);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && column.merge_row(0, &mut rest).is_ok() {}
        let _ = column.finish(0..1, &mut vec![]);
    }

    #[test]
    fn exact_sums_have_one_shortest_form(value: i128, shift in 0u32..127) {
        let value = (value >> shift).max(-i128::MAX);
        let mut bytes = vec![];
        exact::put(value, &mut bytes);
        prop_assert_eq!(exact::take_value::<i128>(&mut bytes.as_slice()).unwrap(), Some(value));
        let bits = 129 - (if value < 0 { !value } else { value }).leading_zeros();
        prop_assert_eq!(bytes[0] as u32, bits.div_ceil(8));
    }

    /// The compensated sum does not depend on the order here, where plain addition would.
    #[test]
    fn sums_of_doubles_hold_under_shuffling(values in prop::collection::vec(-1e9f64..1e9, 1..200), seed: u64) {
        let sum = |values: &[f64]| {
            values.iter().fold(double::DoubleSum::ZERO, |sum, value| sum.plus(double::DoubleSum::from_value(*value))).value()
        };
        let mut shuffled = values.clone();
        shuffled.sort_by_key(|value| (value.to_bits() ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        prop_assert_eq!(sum(&values), sum(&shuffled));
    }
}
