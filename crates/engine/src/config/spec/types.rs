//! SQL types in a schema: `bigint not null`, `decimal(12, 2)`.

use arrow::datatypes::DataType;

use crate::expr::{TIMESTAMP, sql_type};

/// What a type's text says.
#[derive(Debug, PartialEq)]
pub struct ColumnType {
    /// The type.
    pub data_type: DataType,
    /// `not null`.
    pub not_null: bool,
}

/// Why a text is no type.
#[derive(Debug, PartialEq)]
pub enum TypeError {
    /// Nobody knows it.
    Unknown(String),
    /// It is known, and comes later.
    NotYet(String),
    /// It is known, with a mistake in it.
    Wrong(String),
}

/// Names that [`parse`] understands, for suggestions.
pub const NAMES: &[&str] = &[
    "boolean",
    "tinyint",
    "smallint",
    "int",
    "integer",
    "bigint",
    "real",
    "float",
    "double",
    "decimal",
    "numeric",
    "varchar",
    "text",
    "string",
    "char",
    "date",
    "timestamp",
    "not",
    "null",
];

/// Parses a type.
pub fn parse(text: &str) -> Result<ColumnType, TypeError> {
    let lower = text.trim().to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let (words, not_null) = match words.as_slice() {
        [rest @ .., "not", "null"] => (rest, true),
        [rest @ .., "null"] => (rest, false),
        all => (all, false),
    };
    let written = words.join(" ");
    let (name, arguments) = arguments(&written)?;
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = |data_type: DataType| match arguments {
        None => Ok(data_type),
        Some(_) => Err(TypeError::Wrong(format!("`{name}` takes no arguments"))),
    };
    let data_type = match name.as_str() {
        "boolean" | "bool" => plain(DataType::Boolean)?,
        "tinyint" | "int1" => plain(DataType::Int8)?,
        "smallint" | "int2" => plain(DataType::Int16)?,
        "int" | "integer" | "int4" => plain(DataType::Int32)?,
        "bigint" | "int8" => plain(DataType::Int64)?,
        "real" | "float4" => plain(DataType::Float32)?,
        "double" | "double precision" | "float" | "float8" => plain(DataType::Float64)?,
        "decimal" | "numeric" | "dec" => decimal(arguments)?,
        "varchar" | "text" | "string" | "char" | "character" | "character varying" => match arguments {
            None => DataType::Utf8,
            Some(_) => {
                let message = format!("the length of `{name}` would not be kept to: write `varchar`");
                return Err(TypeError::Wrong(message));
            }
        },
        "date" => plain(DataType::Date32)?,
        "timestamp" | "timestamptz" | "timestamp with time zone" | "timestamp without time zone" => {
            match arguments {
                None | Some("3") => TIMESTAMP,
                Some(_) => {
                    return Err(TypeError::Wrong(
                        "timestamps have milliseconds: write `timestamp`".to_owned(),
                    ));
                }
            }
        }
        "time" | "interval" | "json" | "jsonb" | "uuid" | "binary" | "varbinary" | "bytea" | "blob"
        | "bytes" => {
            return Err(TypeError::NotYet(name));
        }
        _ if name.ends_with("[]")
            || name.starts_with("struct")
            || name.starts_with("array")
            || name.starts_with("map") =>
        {
            return Err(TypeError::NotYet(name));
        }
        _ => return Err(TypeError::Unknown(name)),
    };
    Ok(ColumnType { data_type, not_null })
}

/// `decimal(12, 2)` → `decimal`, `12, 2`.
fn arguments(text: &str) -> Result<(String, Option<&str>), TypeError> {
    let Some(open) = text.find('(') else { return Ok((text.to_owned(), None)) };
    match text[open + 1..].split_once(')') {
        Some((arguments, rest)) => Ok((format!("{} {rest}", &text[..open]), Some(arguments.trim()))),
        None => Err(TypeError::Wrong("a parenthesis is not closed".to_owned())),
    }
}

fn decimal(arguments: Option<&str>) -> Result<DataType, TypeError> {
    let wrong = || {
        TypeError::Wrong(
            "write `decimal(precision, scale)`: 1 to 38 digits, `scale` of them after the point".to_owned(),
        )
    };
    let (precision, scale) = match arguments {
        None => return Err(wrong()),
        Some(text) => text.split_once(',').unwrap_or((text, "0")),
    };
    let precision: u8 = precision.trim().parse().map_err(|_| wrong())?;
    let scale: i8 = scale.trim().parse().map_err(|_| wrong())?;
    if !(1..=38).contains(&precision) || !(0..=precision as i8).contains(&scale) {
        return Err(wrong());
    }
    Ok(DataType::Decimal128(precision, scale))
}

impl std::fmt::Display for ColumnType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", sql_type(&self.data_type), if self.not_null { " not null" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).unwrap().to_string(), expected);
    }

    #[test]
    fn types_and_their_other_names() {
        check("VARCHAR  NOT  NULL", "varchar not null");
        check("text", "varchar");
        check("int", "int");
        check("bigint null", "bigint");
        check("decimal(12,2) not null", "decimal(12,2) not null");
        check("numeric( 5 )", "decimal(5,0)");
        check("double precision", "double");
        check("timestamp(3) with time zone", "timestamp");
        check("timestamp", "timestamp");
        check("tinyint", "tinyint");
    }

    #[test]
    fn mistakes() {
        for text in [
            "decimal",
            "decimal(39,0)",
            "decimal(3,4)",
            "decimal(a)",
            "varchar(20)",
            "int(4)",
            "decimal(3",
            "x)(",
            "timestamp(9)",
        ] {
            assert!(matches!(parse(text), Err(TypeError::Wrong(_) | TypeError::Unknown(_))), "{text}");
        }
        for text in ["json", "int[]", "struct<a int>", "bytea", "time"] {
            assert!(matches!(parse(text), Err(TypeError::NotYet(_))), "{text}");
        }
        for text in ["", "not null", "varcha", "int not"] {
            assert!(matches!(parse(text), Err(TypeError::Unknown(_))), "{text}");
        }
    }
}
