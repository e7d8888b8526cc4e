//! The few types that rows have between operators, and their SQL names.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};

/// SQL's `timestamp`: milliseconds since the epoch. The zone is UTC and is not written into the type, so that functions on
/// timestamps compute in UTC whatever the machine's zone.
pub const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// JSON text that is carried as it is. Where an expression does anything with it, it is text, and so is the result.
pub const JSON: DataType = DataType::LargeUtf8;

/// Arrow's name for the field that the values of a list have.
pub const LIST_ITEM: &str = "item";

/// Whether groups and aggregates can have this type.
pub fn is_scalar(data_type: &DataType) -> bool {
    use DataType::*;
    matches!(
        data_type,
        Boolean | Int8 | Int16 | Int32 | Int64 | Float32 | Float64 | Decimal128(..) | Utf8 | Date32
    ) || *data_type == TIMESTAMP
}

/// The SQL name of a type, as it is written in a schema.
pub fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "unsigned integer",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::Utf8View => "varchar",
        DataType::LargeUtf8 => "json",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(_, _) => "timestamp",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary"
        }
        DataType::Struct(fields) => {
            let members: Vec<String> = fields.iter().map(|field| member(field)).collect();
            return format!("struct<{}>", members.join(", "));
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            return format!("{}[]", sql_type(item.data_type()));
        }
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => return format!("decimal({p},{s})"),
        other => return other.to_string(),
    };
    name.to_owned()
}

fn member(field: &Field) -> String {
    let name = field.name();
    let plain = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let quote = if plain { "" } else { "\"" };
    let not_null = if field.is_nullable() { "" } else { " not null" };
    format!("{quote}{name}{quote} {}{not_null}", sql_type(field.data_type()))
}

/// The type that a column gets whose expression has type `data_type`; `None` where there is none.
pub(super) fn column_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Date32 => data_type.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::Timestamp(_, _) | DataType::Date64 => TIMESTAMP,
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s)
            if *s >= 0 && *s as u8 <= *p =>
        {
            DataType::Decimal128(*p, *s)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => return column_type(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new(LIST_ITEM, column_type(item.data_type())?, true)))
        }
        DataType::Struct(fields) => {
            let member = |field: &Arc<Field>| {
                let data_type = column_type(field.data_type())?;
                Some(Field::new(field.name(), data_type, field.is_nullable()))
            };
            DataType::Struct(fields.iter().map(member).collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}
