//! SQL expressions, planned and type-checked once, evaluated a batch at a time.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_physical_expr::PhysicalExpr;

/// An expression over the columns of one schema, of a known type.
#[derive(Clone, Debug)]
pub struct Expr {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
}

/// The value of an expression for every row of a batch.
#[derive(Debug)]
pub struct Evaluated {
    /// One value a row; null for the rows that failed.
    pub values: ArrayRef,
    /// Rows that failed, in order, each with the reason: an error concerns its record, not the batch.
    pub failed: Vec<(u32, String)>,
}

impl Expr {
    /// Wraps a physical expression whose result has type `data_type`.
    pub fn new(physical: Arc<dyn PhysicalExpr>, data_type: DataType) -> Expr {
        Expr { physical, data_type }
    }

    /// Type of the values.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Evaluates over all rows. Where the batch as a whole fails, every row is evaluated alone, so that only the
    /// offenders are lost.
    pub fn evaluate(&self, rows: &RecordBatch) -> Evaluated {
        match self.evaluate_whole(rows) {
            Ok(values) => Evaluated { values, failed: vec![] },
            Err(_) => self.evaluate_each(rows),
        }
    }

    fn evaluate_whole(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        self.physical.evaluate(rows)?.into_array(rows.num_rows())
    }

    fn evaluate_each(&self, rows: &RecordBatch) -> Evaluated {
        let mut failed = vec![];
        let mut values = Vec::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            values.push(self.evaluate_whole(&rows.slice(row, 1)).unwrap_or_else(|error| {
                failed.push((row as u32, error.strip_backtrace()));
                new_null_array(&self.data_type, 1)
            }));
        }
        let parts: Vec<_> = values.iter().map(|value| value.as_ref()).collect();
        let values = concat(&parts).unwrap_or_else(|_| new_null_array(&self.data_type, rows.num_rows()));
        Evaluated { values, failed }
    }
}
