//! `where` and `select` over batches. A row whose expression fails leaves the batch; the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt32Array,
};
use arrow::compute::{filter, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;

use crate::batch::Batch;
use crate::expr::Expr;
use crate::formats::kept;
use crate::plan::KEPT;

/// Rows that failed, by their number in the batch that came in, with the reason.
pub(crate) type Failed = Vec<(u32, String)>;

/// The rows for which `condition` is true, and those for which it failed.
pub(crate) fn keep_where(condition: &Expr, rows: &Batch) -> Result<(Batch, Failed), ArrowError> {
    let (keep, failed) = truth(condition, rows)?;
    let kept = if keep.true_count() == rows.len() { rows.clone() } else { rows.filter(&keep)? };
    Ok((kept, failed))
}

/// The rows for which `condition` is not true, without those for which it fails.
pub(crate) fn held_back_by(condition: &Expr, rows: &Batch) -> Result<Batch, ArrowError> {
    let (keep, failed) = truth(condition, rows)?;
    let mut held_back: Vec<bool> = keep.iter().map(|keep| keep != Some(true)).collect();
    failed.iter().for_each(|(row, _)| held_back[*row as usize] = false);
    rows.filter(&held_back.into())
}

/// A condition's value for each row, and the rows for which it failed.
fn truth(condition: &Expr, rows: &Batch) -> Result<(BooleanArray, Failed), ArrowError> {
    let evaluated = condition.evaluate(&rows.columns);
    let values = evaluated.values.as_boolean_opt().filter(|values| values.len() == rows.len()).cloned();
    let values =
        values.ok_or_else(|| ArrowError::InvalidArgumentError("a condition that is not boolean".into()))?;
    Ok((values, evaluated.failed))
}

/// The values of all expressions for the rows where none of them fails. Returns those rows, too.
pub(crate) fn evaluate_all<'e>(
    exprs: impl Iterator<Item = &'e Expr>,
    rows: Batch,
) -> Result<(Batch, Vec<ArrayRef>, Failed), ArrowError> {
    let mut columns = vec![];
    let mut failed = BTreeMap::new();
    for expr in exprs {
        let evaluated = expr.evaluate(&rows.columns);
        columns.push(evaluated.values);
        for (row, reason) in evaluated.failed {
            failed.entry(row).or_insert(reason);
        }
    }
    if failed.is_empty() {
        return Ok((rows, columns, vec![]));
    }
    let keep: BooleanArray = (0..rows.len() as u32).map(|row| Some(!failed.contains_key(&row))).collect();
    let columns = columns.iter().map(|column| filter(column, &keep)).collect::<Result<_, _>>()?;
    Ok((rows.filter(&keep)?, columns, failed.into_iter().collect()))
}

/// The rows with the expressions' values as their columns.
pub(crate) fn project(
    exprs: &[Expr],
    schema: &SchemaRef,
    rows: Batch,
) -> Result<(Batch, Failed), ArrowError> {
    let (rows, columns, failed) = evaluate_all(exprs.iter(), rows)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let columns = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    Ok((Batch { columns, ..rows }, failed))
}

/// A row for each element of the lists in a column, in their order; and how many rows had none. `schema` has the elements' type there.
pub(crate) fn unnest(rows: Batch, column: usize, schema: &SchemaRef) -> Result<(Batch, usize), ArrowError> {
    let lists = rows.columns.column(column);
    let lists = lists
        .as_list_opt::<i32>()
        .ok_or_else(|| ArrowError::InvalidArgumentError("a column to unnest that is no list".into()))?;
    let (mut of_row, mut elements, mut empty) = (vec![], vec![], 0);
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        let (start, end) = (ends[0] as u32, ends[1] as u32);
        if lists.is_null(row) || start == end {
            empty += 1;
            continue;
        }
        elements.extend(start..end);
        of_row.extend(std::iter::repeat_n(row as u32, (end - start) as usize));
    }
    let (of_row, elements) = (UInt32Array::from(of_row), UInt32Array::from(elements));
    let columns = rows.columns.columns().iter().enumerate().map(|(i, values)| match i == column {
        true => take(lists.values(), &elements, None),
        false => take(values, &of_row, None),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let origin = rows.origin.as_ref().map(|origin| take(origin, &of_row, None)).transpose()?;
    let unnested = Batch {
        columns: RecordBatch::try_new(schema.clone(), columns)?,
        event_time: Int64Array::from(take(&rows.event_time, &of_row, None)?.to_data()),
        origin: origin.map(|origin| UInt32Array::from(origin.to_data())),
        retracted: rows.retracted,
    };
    Ok((unnested, empty))
}

/// The rows without the undeclared members of these names.
pub(crate) fn remove_kept(rows: Batch, names: &[String]) -> Result<Batch, ArrowError> {
    let schema = rows.columns.schema();
    let Some((column, _)) = schema.column_with_name(KEPT) else { return Ok(rows) };
    let mut columns = rows.columns.columns().to_vec();
    let texts = columns[column]
        .as_string_opt::<i32>()
        .ok_or_else(|| ArrowError::InvalidArgumentError("undeclared members that are not text".into()))?;
    columns[column] = Arc::new(kept::without(texts, names)?);
    Ok(Batch { columns: RecordBatch::try_new(schema, columns)?, ..rows })
}

/// The rows with as many of their columns as the schema has.
pub(crate) fn first_columns(rows: Batch, schema: &SchemaRef) -> Result<Batch, ArrowError> {
    let columns = rows.columns.columns()[..schema.fields().len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(Batch { columns: RecordBatch::try_new_with_options(schema.clone(), columns, &options)?, ..rows })
}
