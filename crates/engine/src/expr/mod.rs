//! SQL expressions, planned and type-checked once, evaluated a batch at a time.
//!
//! [`analyze`] parses a text over a [`Scope`] of columns, refuses what has no place in a stream (subqueries, window functions,
//! functions whose result is not the same when a record is read again), and finds its type. [`Typed::build`] then makes the
//! [`Expr`] that operators evaluate. DataFusion plans, coerces and evaluates; the rules are these:
//!
//! - Identifiers are case-sensitive. A bare name that is a column is always the column, `user`, `date` and `end` too, wherever
//!   SQL allows an operand; only `not`, `case`, `when`, `null`, `true`, `false` and `exists` need double quotes as columns.
//! - Arithmetic on integers fails where it overflows, division by zero fails, `cast` fails where it does not fit (`try_cast` gives
//!   NULL). A failure concerns its record.
//! - Numbers with a point are decimals. Text is never compared or computed with anything else but by an explicit cast; a
//!   literal takes the type of the other side.
//! - Results have the types of [`crate::plan`] and no others. A `json` column that goes through as it is stays JSON; to functions and
//!   operators it is its text.
//! - Where rows come from Kafka records one to one, [`Metadata`](crate::metadata::Metadata) can be read like columns.

mod aggregate;
mod check;
mod planner;
mod syntax;
mod types;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion_common::Result;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;

use crate::diagnostics::Code;
use crate::metadata::Metadata;

pub use aggregate::{AggregateCall, analyze_aggregate};
pub use check::{ScalarFunction, scalar_functions};
pub use planner::{Typed, analyze};
pub use types::{JSON, LIST_ITEM, TIMESTAMP, is_scalar, sql_type};

/// The columns that an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// In order; names are unique.
    pub columns: Vec<ScopeColumn>,
    /// There may be others, because of mistakes that have been reported: names that are not here are no mistake.
    pub open: bool,
    /// Every row comes from one Kafka record, whose metadata can be read where no column has the name.
    pub records: bool,
}

/// A column of a [`Scope`].
#[derive(Clone, Debug, PartialEq)]
pub struct ScopeColumn {
    /// Its name, case-sensitive.
    pub name: String,
    /// Its type; `None` where that is unknown because of a mistake that has been reported.
    pub data_type: Option<DataType>,
    /// Whether it may be NULL.
    pub nullable: bool,
}

impl Scope {
    /// The column `name`, or the metadata of that name.
    pub fn find(&self, name: &str) -> Option<ScopeColumn> {
        self.get(name).cloned().or_else(|| {
            let metadata = Metadata::parse(name).filter(|_| self.records)?.field();
            let (data_type, nullable) = (Some(metadata.data_type().clone()), metadata.is_nullable());
            Some(ScopeColumn { name: name.to_owned(), data_type, nullable })
        })
    }

    /// The column `name`.
    pub fn get(&self, name: &str) -> Option<&ScopeColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// What is wrong with an expression, and where in its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// Which kind.
    pub code: Code,
    /// Bytes of the text.
    pub at: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// A few words beside the caret.
    pub label: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Mistake {
    fn new(code: Code, at: Range<usize>, message: impl Into<String>) -> Mistake {
        Mistake { code, at, message: message.into(), label: None, hint: None }
    }

    fn label(mut self, label: impl Into<String>) -> Mistake {
        self.label = Some(label.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Mistake {
        self.hint = Some(hint.into());
        self
    }
}

/// An expression over the columns of one schema, of a known type.
#[derive(Clone, Debug)]
pub struct Expr {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    sql: Arc<str>,
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
    /// Wraps a physical expression whose result has type `data_type`; `sql` is how it is spelled, for people.
    pub fn new(physical: Arc<dyn PhysicalExpr>, data_type: DataType, sql: &str) -> Expr {
        Expr { physical, data_type, sql: sql.into() }
    }

    /// The expression in one canonical spelling.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// The column at `index` of a batch, as it is.
    pub fn column(name: &str, index: usize, data_type: DataType) -> Expr {
        Expr::new(Arc::new(Column::new(name, index)), data_type, name)
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
                failed.push((row as u32, planner::readable(&error)));
                new_null_array(&self.data_type, 1)
            }));
        }
        let parts: Vec<_> = values.iter().map(|value| value.as_ref()).collect();
        let values = concat(&parts).unwrap_or_else(|_| new_null_array(&self.data_type, rows.num_rows()));
        Evaluated { values, failed }
    }
}

#[cfg(test)]
mod tests;
