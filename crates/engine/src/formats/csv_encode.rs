//! Rows to CSV records, as [`decode`](super::decode) reads them: one row one record, without a line's end.
//!
//! Fields stand in the order of the columns, as JSON has their values but without its quotes; text as it is. NULL is the
//! sink's text for it. A field is quoted where it holds the delimiter, a quote, a line's end or the text for NULL.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;

use super::plain::TextColumn;
use crate::plan::{Csv, JsonFormat};

/// Writes rows of one schema.
#[derive(Debug)]
pub struct CsvEncoder {
    csv: Csv,
    /// So many of the rows' columns, from the first.
    columns: usize,
    format: JsonFormat,
}

/// The rows of a batch, ready to be written.
pub struct CsvRows<'a> {
    csv: &'a Csv,
    columns: Vec<TextColumn<'a>>,
}

impl CsvEncoder {
    /// An encoder of the first `columns` columns; `format` says how timestamps are written.
    pub fn new(csv: Csv, columns: usize, format: JsonFormat) -> CsvEncoder {
        CsvEncoder { csv, columns, format }
    }

    /// Prepares the rows of a batch.
    ///
    /// # Errors
    /// A column of a type that cannot be written.
    pub fn bind<'a>(&'a self, rows: &'a RecordBatch) -> Result<CsvRows<'a>, String> {
        let bind = |(array, field): (&'a ArrayRef, &FieldRef)| {
            TextColumn::bind(array.as_ref(), self.format)
                .ok_or_else(|| format!("column {} cannot be written as CSV", field.name()))
        };
        let columns = rows.columns().iter().zip(rows.schema_ref().fields()).take(self.columns).map(bind);
        Ok(CsvRows { csv: &self.csv, columns: columns.collect::<Result<_, _>>()? })
    }
}

impl CsvRows<'_> {
    /// Appends row `row`.
    ///
    /// # Errors
    /// A value that cannot be said; `out` ends within the record then.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let begin = out.len();
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(self.csv.delimiter);
            }
            let start = out.len();
            match column.write(row, out)? {
                true => self.quote(start, out),
                false => out.extend_from_slice(self.csv.null.as_bytes()),
            }
        }
        if out.len() == begin {
            // Nothing at all would be no record.
            out.extend_from_slice(&[self.csv.quote, self.csv.quote]);
        }
        Ok(())
    }

    /// Puts quotes around the field that begins at `start`, where it needs them.
    fn quote(&self, start: usize, out: &mut Vec<u8>) {
        let (delimiter, quote) = (self.csv.delimiter, self.csv.quote);
        let field = &out[start..];
        let special = |byte: &u8| *byte == delimiter || *byte == quote || matches!(byte, b'\r' | b'\n');
        if !field.iter().any(special) && field != self.csv.null.as_bytes() {
            return;
        }
        // From the end to the beginning, so that each byte is moved once.
        let mut from = out.len();
        let quotes = field.iter().filter(|byte| **byte == quote).count();
        out.resize(out.len() + quotes + 2, quote);
        let mut to = out.len() - 1;
        while from > start {
            from -= 1;
            to -= 1;
            out[to] = out[from];
            if out[from] == quote {
                to -= 1;
                out[to] = quote;
            }
        }
        out[start] = quote;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, LargeStringArray, StringArray, TimestampMillisecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::formats::decode::Decoder;
    use crate::message::OwnedMessage;
    use crate::plan::{Column, Format, Source};

    fn write(csv: &Csv, columns: Vec<(&str, ArrayRef)>) -> String {
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let encoder = CsvEncoder::new(csv.clone(), rows.num_columns(), JsonFormat::DEFAULT);
        let mut out = b"before".to_vec();
        encoder.bind(&rows).unwrap().write(0, &mut out).unwrap();
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let csv = Csv { delimiter: b';', null: "-".to_owned(), ..Csv::default() };
        let text = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let record = write(
            &csv,
            vec![
                ("a", text(Some("plain, text"))),
                ("b", text(Some("a;b\"\"c\n"))),
                ("c", text(Some(""))),
                ("d", text(None)),
                ("e", text(Some("-"))),
                ("f", Arc::new(Int64Array::from(vec![-5]))),
                ("g", Arc::new(TimestampMillisecondArray::from(vec![1]))),
                ("h", Arc::new(LargeStringArray::from(vec![r#"{"a":1}"#]))),
            ],
        );
        assert_eq!(
            record,
            "plain, text;\"a;b\"\"\"\"c\n\";;-;\"-\";-5;1970-01-01T00:00:00.001Z;\"{\"\"a\"\":1}\""
        );
        assert_eq!(write(&Csv::default(), vec![("a", text(None))]), "\"\"");
        assert_eq!(write(&Csv::default(), vec![("a", text(Some(""))), ("b", text(None))]), "\"\",");
    }

    proptest! {
        /// What is written is read as the same, but for a text that is the one for NULL.
        #[test]
        fn comes_back(texts in prop::collection::vec("[a;',\"\n\r é-]{0,6}", 1..5), quote in prop::bool::ANY) {
            let csv = Csv {
                delimiter: b';',
                quote: if quote { b'\'' } else { b'"' },
                null: "-".to_owned(),
            };
            let names: Vec<String> = (0..texts.len()).map(|i| format!("c{i}")).collect();
            let columns = names.iter().zip(&texts).map(|(name, text)| {
                (name.as_str(), Arc::new(StringArray::from(vec![text.as_str()])) as ArrayRef)
            });
            let record = write(&csv, columns.collect());
            let column = |(place, name): (usize, &String)| Column {
                name: name.clone(),
                path: vec![name.clone()],
                place,
                data_type: arrow::datatypes::DataType::Utf8,
                not_null: false,
            };
            let source = Source {
                format: Format::Csv(csv),
                ..Source::json("csv", names.iter().enumerate().map(column).collect())
            };
            let message = OwnedMessage { timestamp: 1, value: Some(record.into_bytes()), ..OwnedMessage::default() };
            let decoded = Decoder::new(&source).unwrap().decode(&vec![message], 0..1).unwrap();
            prop_assert_eq!(&decoded.failed, &vec![]);
            for (column, text) in decoded.batch.columns.columns().iter().zip(&texts) {
                let found: Vec<_> = arrow::array::AsArray::as_string::<i32>(column.as_ref()).iter().collect();
                prop_assert_eq!(found, vec![Some(text.as_str()).filter(|text| *text != "-")]);
            }
        }
    }
}
