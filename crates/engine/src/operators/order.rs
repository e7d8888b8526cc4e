//! What orders the rows of a window: event time, then the partition and offset of the record behind each, then its topic.
//!
//! Rows that other windows emitted have no record; equal times among them are ordered by the values themselves. Nothing of this depends on
//! which worker took a row when, so a first value is the same after every crash.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StructArray};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Batch;
use crate::message::MessageBatch;

/// Types of the columns before the value: event time, partition, offset, a hash of the topic's name.
pub(crate) const ORDER_TYPES: [DataType; 4] =
    [DataType::Int64, DataType::Int32, DataType::Int64, DataType::Int64];

/// The columns of [`ORDER_TYPES`] for rows. `origin` is topic and partition of their records.
pub(crate) fn order_of(
    rows: &Batch,
    origin: Option<(&str, i32)>,
    messages: &dyn MessageBatch,
) -> Vec<ArrayRef> {
    let count = rows.len();
    let (partition, topic, offsets) = match (origin, &rows.origin) {
        (Some((topic, partition)), Some(records)) => {
            let offsets = records.values().iter().map(|record| messages.offset(*record as usize));
            (partition, xxh3_64(topic.as_bytes()) as i64, offsets.collect())
        }
        _ => (-1, 0, vec![0; count]),
    };
    vec![
        Arc::new(rows.event_time.clone()),
        Arc::new(Int32Array::from(vec![partition; count])),
        Arc::new(Int64Array::from(offsets)),
        Arc::new(Int64Array::from(vec![topic; count])),
    ]
}

/// A value with what orders it.
pub(crate) fn ordered(order: &[ArrayRef], value: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let names = ["time", "partition", "offset", "topic", "value"];
    let columns: Vec<ArrayRef> = order.iter().cloned().chain([value]).collect();
    let field = |(name, column): (&str, &ArrayRef)| {
        Arc::new(Field::new(name, arrow::array::Array::data_type(column).clone(), true))
    };
    let fields = names.into_iter().zip(&columns).map(field).collect();
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}
