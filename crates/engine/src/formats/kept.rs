//! Members of JSON records that no column is declared for, carried as text beside the columns (`unknown_fields: keep`).
//!
//! The column [`KEPT`](crate::plan::KEPT) holds one JSON object a row, with the names and values as they stood in the record, byte for
//! byte and in their order, without the white space between them; nothing at all where there is no such member. The JSON encoder
//! writes its members behind the columns. No member in it has the name of a column beside it: the decoder leaves declared ones out,
//! and whoever adds a column takes its name out of here ([`without`]).

use arrow::array::{Array, StringArray, StringBuilder};
use arrow::error::ArrowError;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decode::json::string;

/// Appends a member to a text that is being built: name and value as JSON.
pub(super) fn push(kept: &mut Vec<u8>, name: &str, value: &str) {
    kept.push(if kept.is_empty() { b'{' } else { b',' });
    kept.extend_from_slice(name.as_bytes());
    kept.push(b':');
    kept.extend_from_slice(value.as_bytes());
}

/// Ends a text that members were pushed to.
pub(super) fn close(kept: &mut Vec<u8>) {
    if !kept.is_empty() {
        kept.push(b'}');
    }
}

/// The members of a row's text, with a comma between each two.
pub(super) fn members(kept: &str) -> &str {
    kept.strip_prefix('{').and_then(|kept| kept.strip_suffix('}')).unwrap_or_default()
}

/// The same texts without the members of these names.
///
/// # Errors
/// A text that the decoder did not write.
pub(crate) fn without(kept: &StringArray, names: &[String]) -> Result<StringArray, ArrowError> {
    let mut others = StringBuilder::with_capacity(kept.len(), kept.value_data().len());
    let mut row = vec![];
    for text in kept.iter().map(Option::unwrap_or_default) {
        row.clear();
        if !text.is_empty() {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            Others { names, kept: &mut row }
                .deserialize(&mut deserializer)
                .map_err(|error| ArrowError::ParseError(error.to_string()))?;
            close(&mut row);
        }
        // What was cut out of a text between its members is text.
        others.append_value(
            std::str::from_utf8(&row).map_err(|error| ArrowError::ParseError(error.to_string()))?,
        );
    }
    Ok(others.finish())
}

/// Copies the members whose names are not among `names`.
struct Others<'a> {
    names: &'a [String],
    kept: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Others<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Others<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("kept members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<&RawValue>()? {
            let value = map.next_value::<&RawValue>()?;
            if !string(name.get()).is_some_and(|name| self.names.iter().any(|other| **other == *name)) {
                push(self.kept, name.get(), value.get());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_taken_out_by_name_and_the_others_stay_as_they_were() {
        let texts = StringArray::from(vec![
            "",
            r#"{"a":1}"#,
            r#"{"a":1,"b":{ "a" : 2 },"\u0061":3,"c\u0061":"\u00e9 é","b":1e400}"#,
        ]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = |names: &[String]| {
            without(&texts, names).unwrap().iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            all(&names(&["x"])),
            texts.iter().map(|text| text.unwrap().to_owned()).collect::<Vec<_>>()
        );
        assert_eq!(all(&names(&["a"])), ["", "", r#"{"b":{ "a" : 2 },"c\u0061":"\u00e9 é","b":1e400}"#]);
        assert_eq!(all(&names(&["b", "ca"])), ["", r#"{"a":1}"#, r#"{"a":1,"\u0061":3}"#]);
        assert_eq!(members(r#"{"a":1,"b":2}"#), r#""a":1,"b":2"#);
        assert_eq!(members(""), "");
    }
}
