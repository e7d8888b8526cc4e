//! Rows between operators: columns, plus what travels with a row beside them.

use arrow::array::{Array, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{filter, filter_record_batch};
use arrow::error::ArrowError;

/// Rows of one stream. All parts have the same number of rows.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The stream's columns.
    pub columns: RecordBatch,
    /// Event time of each row, milliseconds since the epoch; never null.
    pub event_time: Int64Array,
    /// Row → index of its source record in the [`MessageBatch`](crate::message::MessageBatch) being processed; `None`
    /// for rows that a window emitted, which have no source record.
    pub origin: Option<UInt32Array>,
    /// The rows take away what was emitted of them before: conditions do not hold them back, and sinks write null values.
    pub retracted: bool,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.columns.num_rows()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows for which `keep` is true (null counts as false, as SQL's WHERE has it).
    pub fn filter(&self, keep: &BooleanArray) -> Result<Batch, ArrowError> {
        let event_time = filter(&self.event_time, keep)?;
        let origin = self.origin.as_ref().map(|origin| filter(origin, keep)).transpose()?;
        Ok(Batch {
            columns: filter_record_batch(&self.columns, keep)?,
            event_time: Int64Array::from(event_time.to_data()),
            origin: origin.map(|origin| UInt32Array::from(origin.to_data())),
            retracted: self.retracted,
        })
    }

    /// The rows of these numbers, ascending.
    pub fn only(&self, rows: &[u32]) -> Result<Batch, ArrowError> {
        let mut keep = vec![false; self.len()];
        rows.iter().for_each(|row| keep[*row as usize] = true);
        self.filter(&keep.into())
    }

    /// The same rows, which take away what was emitted of them before.
    pub fn retracted(self) -> Batch {
        Batch { retracted: true, ..self }
    }
}
