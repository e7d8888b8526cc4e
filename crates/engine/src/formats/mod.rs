//! Bytes to columns and back. A format decides about one record at a time: what is wrong with a record concerns that record,
//! never its batch.

pub mod canonical_json;
pub mod csv_encode;
pub mod decimal;
pub mod decode;
pub mod json_encode;
pub mod kept;
pub mod plain;
