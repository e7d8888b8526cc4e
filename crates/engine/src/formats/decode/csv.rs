//! One CSV record a message: fields by their place, in the order of the schema.
//!
//! RFC 4180 with any delimiter and quote, read by `csv-core`, which takes what is quoted halfway as it can. A field that is the
//! source's text for NULL (by default nothing) is NULL, quoted or not. Fields that are missing at the end are NULL too; further ones
//! are ignored, or refused under `unknown_fields: error`. Times, numbers and booleans are written as in JSON, without the quotes.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::plan::Csv;

/// Splits records into fields.
pub(super) struct CsvFields {
    reader: Reader,
    null: String,
    /// The fields of the current record, without quotes, one after the other.
    text: Vec<u8>,
    /// The end of each of them in `text`.
    ends: Vec<usize>,
    fields: usize,
}

impl std::fmt::Debug for CsvFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvFields").field("null", &self.null).finish_non_exhaustive()
    }
}

impl CsvFields {
    pub(super) fn new(csv: &Csv) -> CsvFields {
        let reader = ReaderBuilder::new().delimiter(csv.delimiter).quote(csv.quote).build();
        CsvFields { reader, null: csv.null.clone(), text: vec![], ends: vec![0; 16], fields: 0 }
    }

    /// Reads the one record of `value`.
    ///
    /// # Errors
    /// No record, or more than one.
    pub(super) fn read(&mut self, value: &str) -> Result<(), String> {
        self.reader.reset();
        // Unescaping makes nothing longer.
        self.text.resize(self.text.len().max(value.len() + 1), 0);
        let (mut input, mut written, mut fields) = (value.as_bytes(), 0, 0);
        let mut ended = false;
        loop {
            let (result, read, wrote, ends) =
                self.reader.read_record(input, &mut self.text[written..], &mut self.ends[fields..]);
            input = &input[read..];
            written += wrote;
            fields += ends;
            match result {
                // Asked again without input, the reader ends the record.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => return Err("not CSV: more text than the value has".into()),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record if ended => return Err("more than one CSV record".into()),
                ReadRecordResult::Record => {
                    ended = true;
                    self.fields = fields;
                }
                ReadRecordResult::End if ended => return Ok(()),
                ReadRecordResult::End => return Err("no CSV record".into()),
            }
        }
    }

    /// Fields of the record.
    pub(super) fn len(&self) -> usize {
        self.fields
    }

    /// Field `i`; `None` where it is NULL or the record ends before it.
    pub(super) fn get(&self, i: usize) -> Option<&str> {
        let end = *self.ends[..self.fields].get(i)?;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        // Fields are cut out of UTF-8 at ASCII characters, and so are UTF-8.
        let field = std::str::from_utf8(self.text.get(start..end)?).ok()?;
        (field != self.null).then_some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(csv: &Csv, value: &str) -> Result<Vec<Option<String>>, String> {
        let mut reader = CsvFields::new(csv);
        // What an earlier record left behind must not show.
        let _ = reader.read("1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,\"19");
        reader.read(value)?;
        Ok((0..reader.len()).map(|i| reader.get(i).map(str::to_owned)).collect())
    }

    #[test]
    fn fields_by_place() {
        let comma = Csv::default();
        let some = |texts: &[&str]| {
            Ok(texts.iter().map(|text| (!text.is_empty()).then(|| (*text).to_owned())).collect::<Vec<_>>())
        };
        for (value, expected) in [
            ("a,b", &["a", "b"][..]),
            ("a,b\r\n", &["a", "b"]),
            ("a,,", &["a", "", ""]),
            ("\"a,\"\"b\nc\",é", &["a,\"b\nc", "é"]),
            (" a ,\"\"", &[" a ", ""]),
        ] {
            assert_eq!(fields(&comma, value), some(expected), "{value:?}");
        }
        let many = (0..40).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(fields(&comma, &many.join(",")).unwrap().len(), 40);
        assert_eq!(fields(&comma, "a\nb"), Err("more than one CSV record".to_owned()));
        assert_eq!(fields(&comma, "\n"), Err("no CSV record".to_owned()));
        let other = Csv { delimiter: b';', quote: b'\'', null: "\\N".to_owned() };
        assert_eq!(
            fields(&other, "\\N;';';;\"").unwrap(),
            [None, Some(";".to_owned()), Some(String::new()), Some("\"".to_owned())]
        );
    }
}
