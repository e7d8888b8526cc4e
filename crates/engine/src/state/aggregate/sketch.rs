//! `approx_distinct(x)` and `approx_percentile(x, p)`: sketches of Apache DataSketches, whose bytes are a documented format with a version.
//!
//! - Distinct values: HyperLogLog (Flajolet et al., 2007) of 4,096 registers, exact in effect up to some hundred values, and with a standard error of
//!   1.6 % beyond. What is hashed is the hash of a value as a group key. The estimate is the one that does not depend on the order of the values.
//! - Percentiles: a t-digest (Dunning and Ertl, 2019) with a compression of 100, which is most exact at both ends. Here the order in which parts are
//!   merged may move the last digits.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::types::Decimal128Type;
use arrow::array::{Array, ArrayRef, Float64Array, Int64Array};
use arrow::datatypes::DataType;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use datasketches::tdigest::TDigestMut;

use super::{
    AggregateColumn, Failed, Rows, StateError, argument_of, each_double, each_integer, each_primitive,
    is_double, is_integer, same,
};
use crate::state::bytes::{put_varint, take, take_varint};
use crate::state::key::{self, Keys};

/// The registers of a HyperLogLog are two to the power of this.
const LOG_REGISTERS: u8 = 12;
/// Centroids of a t-digest: at most about twice as many.
const COMPRESSION: u16 = 100;

pub(super) fn distinct(value: &DataType) -> Option<Box<dyn AggregateColumn>> {
    key::is_supported(value).then(|| {
        Box::new(DistinctColumn { sketches: Sketches::default(), keys: Keys::default() })
            as Box<dyn AggregateColumn>
    })
}

/// `rank` is from 0 to 1.
pub(super) fn percentile(argument: &DataType, rank: f64) -> Option<Box<dyn AggregateColumn>> {
    let is_number =
        is_integer(argument) || is_double(argument) || matches!(argument, DataType::Decimal128(..));
    is_number.then(|| {
        Box::new(PercentileColumn { sketches: Sketches::default(), rank }) as Box<dyn AggregateColumn>
    })
}

/// What both kinds can do.
trait Sketch: Clone + Debug + Sized {
    fn empty() -> Result<Self, StateError>;
    fn merge(&mut self, other: &Self) -> Result<(), StateError>;
    fn to_bytes(&self) -> Vec<u8>;
    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError>;
    /// Bytes in memory.
    fn size(&self) -> usize;
}

fn damaged(error: impl std::fmt::Display) -> StateError {
    StateError::damaged(format!("a sketch: {error}"))
}

impl Sketch for HllSketch {
    fn empty() -> Result<Self, StateError> {
        HllSketch::new(LOG_REGISTERS, HllType::Hll8).map_err(|error| StateError::bug(error.to_string()))
    }

    fn merge(&mut self, other: &Self) -> Result<(), StateError> {
        let mut union = HllUnion::new(LOG_REGISTERS).map_err(|error| StateError::bug(error.to_string()))?;
        union.update(self);
        union.update(other);
        *self = union.to_sketch(HllType::Hll8);
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.serialize()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let sketch = HllSketch::deserialize(bytes).map_err(damaged)?;
        match sketch.lg_config_k() == LOG_REGISTERS {
            true => Ok(sketch),
            false => Err(damaged("another number of registers")),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.estimated_size()
    }
}

impl Sketch for TDigestMut {
    fn empty() -> Result<Self, StateError> {
        TDigestMut::new(COMPRESSION).map_err(|error| StateError::bug(error.to_string()))
    }

    fn merge(&mut self, other: &Self) -> Result<(), StateError> {
        // Only damaged bytes can say so many.
        let weight = self.total_weight().checked_add(other.total_weight()).filter(|sum| *sum < u64::MAX);
        weight.ok_or_else(|| damaged("more values than can be counted"))?;
        TDigestMut::merge(self, other);
        Ok(())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.clone().serialize()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        // That would be taken for the format of another library, and its length for the truth.
        if bytes.starts_with(&[0, 0, 0]) {
            return Err(damaged("no t-digest of DataSketches"));
        }
        let sketch = TDigestMut::deserialize(bytes).map_err(damaged)?;
        match sketch.k() == COMPRESSION {
            true => Ok(sketch),
            false => Err(damaged("another compression")),
        }
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.estimated_size()
    }
}

/// A sketch for each group that has had a value.
#[derive(Debug)]
struct Sketches<S> {
    of: Vec<Option<Box<S>>>,
    /// Bytes that they take.
    bytes: usize,
}

impl<S> Default for Sketches<S> {
    fn default() -> Self {
        Sketches { of: vec![], bytes: 0 }
    }
}

impl<S: Sketch> Sketches<S> {
    fn resize(&mut self, groups: usize) {
        self.of.resize_with(groups, || None);
    }

    /// Changes a group's sketch, which is made if it is not there.
    fn change(
        &mut self,
        group: usize,
        change: impl FnOnce(&mut S) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let sketch = match &mut self.of[group] {
            Some(sketch) => {
                self.bytes -= sketch.size();
                sketch
            }
            missing => missing.insert(Box::new(S::empty()?)),
        };
        let changed = change(sketch);
        self.bytes += sketch.size();
        changed
    }

    fn merge_from(&mut self, rows: Rows<'_>, groups: &[u32], other: &Sketches<S>) -> Result<(), StateError> {
        let mut result = Ok(());
        rows.each(groups, |row, group| {
            if let (Some(theirs), true) = (&other.of[row], result.is_ok()) {
                result = self.change(group, |own| own.merge(theirs));
            }
        });
        result
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        let length = take_varint(state)?;
        if length == 0 {
            return Ok(());
        }
        let theirs = S::from_bytes(take(state, length)?)?;
        self.change(group as usize, |own| own.merge(&theirs))
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        let bytes = self.of[group as usize].as_ref().map(|sketch| sketch.to_bytes()).unwrap_or_default();
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }

    fn memory_bytes(&self) -> usize {
        self.of.capacity() * size_of::<Option<Box<S>>>() + self.bytes
    }

    fn clear(&mut self) {
        self.of.clear();
        self.bytes = 0;
    }
}

#[derive(Debug)]
struct DistinctColumn {
    sketches: Sketches<HllSketch>,
    /// Filled anew by each batch.
    keys: Keys,
}

impl AggregateColumn for DistinctColumn {
    fn resize(&mut self, groups: usize) {
        self.sketches.resize(groups);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        self.keys.encode(std::slice::from_ref(argument), argument.len())?;
        let mut result = Ok(());
        rows.each(groups, |row, group| {
            if argument.is_valid(row) && result.is_ok() {
                let hash = self.keys.hash(row);
                result = self.sketches.change(group, |sketch| {
                    sketch.update(hash);
                    Ok(())
                });
            }
        });
        result
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        self.sketches.merge_from(rows, groups, &same::<Self>(other)?.sketches)
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        self.sketches.merge_row(group, state)
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        self.sketches.encode_row(group, out);
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let estimate = |sketch: &Option<Box<HllSketch>>| {
            sketch.as_ref().map_or(0.0, |sketch| sketch.composite_estimate())
        };
        let estimates = self.sketches.of[groups].iter().map(|sketch| Some(estimate(sketch).round() as i64));
        Ok(Arc::new(estimates.collect::<Int64Array>()))
    }

    fn memory_bytes(&self) -> usize {
        self.sketches.memory_bytes() + self.keys.memory_bytes()
    }

    fn clear(&mut self) {
        self.sketches.clear();
    }
}

#[derive(Debug)]
struct PercentileColumn {
    sketches: Sketches<TDigestMut>,
    rank: f64,
}

impl AggregateColumn for PercentileColumn {
    fn resize(&mut self, groups: usize) {
        self.sketches.resize(groups);
    }

    fn update(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        argument: Option<&ArrayRef>,
    ) -> Result<(), StateError> {
        let argument = argument_of(argument)?;
        let mut result = Ok(());
        let mut add = |group: usize, value: f64| {
            // Neither NaN nor an infinity has a rank.
            if value.is_finite() && result.is_ok() {
                result = self.sketches.change(group, |sketch| {
                    sketch.update(value);
                    Ok(())
                });
            }
        };
        match argument.data_type() {
            DataType::Decimal128(_, scale) => {
                let unit = 10f64.powi((*scale).into());
                each_primitive::<Decimal128Type>(argument, rows, groups, |group, value| {
                    add(group, value as f64 / unit);
                })?;
            }
            data_type if is_integer(data_type) => {
                each_integer(argument, rows, groups, |group, value| add(group, value as f64))?;
            }
            _ => each_double(argument, rows, groups, add)?,
        }
        result
    }

    fn merge_from(
        &mut self,
        rows: Rows<'_>,
        groups: &[u32],
        other: &dyn AggregateColumn,
    ) -> Result<(), StateError> {
        self.sketches.merge_from(rows, groups, &same::<Self>(other)?.sketches)
    }

    fn merge_row(&mut self, group: u32, state: &mut &[u8]) -> Result<(), StateError> {
        self.sketches.merge_row(group, state)
    }

    fn encode_row(&self, group: u32, out: &mut Vec<u8>) {
        self.sketches.encode_row(group, out);
    }

    fn finish(&self, groups: Range<usize>, _: &mut Failed) -> Result<ArrayRef, StateError> {
        let value = |sketch: &Option<Box<TDigestMut>>| {
            let quantile = sketch.as_ref().map(|sketch| sketch.as_ref().clone().quantile(self.rank));
            quantile.transpose().map(Option::flatten).map_err(|error| StateError::bug(error.to_string()))
        };
        let values = self.sketches.of[groups].iter().map(value);
        Ok(Arc::new(values.collect::<Result<Float64Array, _>>()?))
    }

    fn memory_bytes(&self) -> usize {
        self.sketches.memory_bytes()
    }

    fn clear(&mut self) {
        self.sketches.clear();
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type};

    use super::*;

    /// Values in two groups, spread over parts that are merged, one of them from its bytes.
    fn in_parts(make: impl Fn() -> Box<dyn AggregateColumn>, values: &[i64], parts: usize) -> ArrayRef {
        let mut merged = make();
        merged.resize(2);
        for part in 0..parts {
            let of_part: Vec<i64> = values.iter().copied().skip(part).step_by(parts).collect();
            let argument: ArrayRef = Arc::new(Int64Array::from(of_part.clone()));
            let groups: Vec<u32> = of_part.iter().map(|value| (value % 2) as u32).collect();
            let mut column = make();
            column.resize(2);
            column.update(Rows::All, &groups, Some(&argument)).unwrap();
            if part % 2 == 0 {
                merged.merge_from(Rows::All, &[0, 1], column.as_ref()).unwrap();
            } else {
                for group in 0..2 {
                    let mut bytes = vec![];
                    column.encode_row(group, &mut bytes);
                    let mut rest = bytes.as_slice();
                    merged.merge_row(group, &mut rest).unwrap();
                    assert!(rest.is_empty());
                }
            }
        }
        assert!(merged.memory_bytes() > 0);
        merged.finish(0..2, &mut vec![]).unwrap()
    }

    #[test]
    fn distinct_values_are_counted_within_the_error_and_alike_in_any_parts() {
        for count in [0, 1, 10, 300, 100_000] {
            let values: Vec<i64> = (0..count).chain(0..count).collect();
            let make = || distinct(&DataType::Int64).unwrap();
            let whole = in_parts(make, &values, 1);
            assert_eq!(&whole, &in_parts(make, &values, 7), "{count}");
            let whole = whole.as_primitive::<Int64Type>();
            let wrong = (whole.value(0) + whole.value(1) - count) as f64;
            assert!(
                wrong.abs() <= 0.05 * count as f64 && (count > 300 || wrong == 0.0),
                "{count}: {whole:?}"
            );
        }
    }

    #[test]
    fn percentiles_are_about_right() {
        for (rank, parts) in [(0.0, 1), (0.5, 3), (0.99, 1), (0.99, 8), (1.0, 4)] {
            let make = || percentile(&DataType::Int64, rank).unwrap();
            let values: Vec<i64> = (0..20_000).map(|i| i * 7919 % 20_000).collect();
            let found = in_parts(make, &values, parts);
            let found = found.as_primitive::<Float64Type>().value(0);
            assert!((found - rank * 20_000.0).abs() < 100.0, "{rank} in {parts}: {found}");
            assert!(in_parts(make, &[1], 1).is_null(0));
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let mut column = distinct(&DataType::Int64).unwrap();
        column.resize(1);
        for mut bytes in [&[9, 1, 2][..], &[3, 1, 2, 3], &[0x80]] {
            assert!(column.merge_row(0, &mut bytes).is_err());
        }
        let mut column = percentile(&DataType::Int64, 0.5).unwrap();
        column.resize(1);
        assert!(column.merge_row(0, &mut &[4, 1, 2, 3, 4][..]).is_err());
    }
}
