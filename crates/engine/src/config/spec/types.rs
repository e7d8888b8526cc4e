//! SQL types in a schema: `bigint not null`, `decimal(12, 2)`, `varchar[]`, `struct<sku varchar, parts json[]>`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

use crate::expr::{JSON, LIST_ITEM, TIMESTAMP, sql_type};

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
    "binary",
    "date",
    "timestamp",
    "json",
    "struct",
    "not",
    "null",
];

/// Deepest nesting of lists and structs: decoding and encoding recurse along the type.
const MAX_DEPTH: usize = 16;

/// Parses a type: a scalar's SQL name, `json`, `TYPE[]`, `struct<NAME TYPE [not null], …>`.
pub fn parse(text: &str) -> Result<ColumnType, TypeError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, depth: 0 };
    let column = parser.column()?;
    match parser.tokens {
        [] => Ok(column),
        [next, ..] => Err(TypeError::Unknown(format!("{} {next}", sql_type(&column.data_type)))),
    }
}

#[derive(Debug, PartialEq)]
enum Token {
    /// As it is written; quotes are gone.
    Word(String),
    Symbol(char),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Word(word) => f.write_str(word),
            Token::Symbol(symbol) => write!(f, "{symbol}"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, TypeError> {
    let mut tokens = vec![];
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => {
                let Some(end) = rest[1..].find('"') else {
                    return Err(TypeError::Wrong("a double quote is not closed".to_owned()));
                };
                tokens.push(Token::Word(rest[1..=end].to_owned()));
                end + 2
            }
            c if c.is_alphanumeric() || c == '_' || c == '-' => {
                let word = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
                let end = rest.find(word).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            symbol => {
                tokens.push(Token::Symbol(symbol));
                symbol.len_utf8()
            }
        };
        rest = rest[end..].trim_start();
    }
    Ok(tokens)
}

struct Parser<'t> {
    tokens: &'t [Token],
    depth: usize,
}

impl Parser<'_> {
    /// A type, and what may stand behind it.
    fn column(&mut self) -> Result<ColumnType, TypeError> {
        let data_type = self.data_type()?;
        let not = self.take_word("not");
        match self.take_word("null") {
            false if not => Err(TypeError::Unknown(format!("{} not", sql_type(&data_type)))),
            _ => Ok(ColumnType { data_type, not_null: not }),
        }
    }

    fn data_type(&mut self) -> Result<DataType, TypeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(TypeError::Wrong(format!("lists and structs nest up to {MAX_DEPTH} deep")));
        }
        let mut data_type = match self.tokens {
            [Token::Word(word), Token::Symbol('<'), ..] if word.eq_ignore_ascii_case("struct") => {
                self.members()?
            }
            _ => self.scalar()?,
        };
        self.depth -= 1;
        while self.take('[') {
            if !self.take(']') {
                return Err(TypeError::Wrong("a list is written `TYPE[]`, whatever its length".to_owned()));
            }
            data_type = DataType::List(Arc::new(Field::new(LIST_ITEM, data_type, true)));
        }
        Ok(data_type)
    }

    /// `struct<a bigint, b varchar not null>`
    fn members(&mut self) -> Result<DataType, TypeError> {
        let wrong = |message: &str| Err(TypeError::Wrong(format!("{message}: write `struct<name type, …>`")));
        self.tokens = &self.tokens[2..];
        let mut fields: Vec<Field> = vec![];
        loop {
            let [Token::Word(name), ..] = self.tokens else {
                return wrong("a member of a struct needs a name");
            };
            if name.is_empty() || fields.iter().any(|field| field.name() == name) {
                return wrong("members of a struct have names of their own");
            }
            self.tokens = &self.tokens[1..];
            if self.take(':') {
                return wrong("no colon stands between name and type");
            }
            let ColumnType { data_type, not_null } = self.column()?;
            fields.push(Field::new(name, data_type, !not_null));
            if self.take('>') {
                return Ok(DataType::Struct(fields.into()));
            }
            if !self.take(',') {
                return wrong("a struct is not closed");
            }
        }
    }

    fn scalar(&mut self) -> Result<DataType, TypeError> {
        let mut words: Vec<String> = vec![];
        let mut arguments = None;
        loop {
            match self.tokens {
                // `not null` stands behind the type.
                [Token::Word(not), Token::Word(null), ..]
                    if not.eq_ignore_ascii_case("not") && null.eq_ignore_ascii_case("null") =>
                {
                    break;
                }
                [Token::Word(null), ..] if null.eq_ignore_ascii_case("null") => break,
                [Token::Word(word), rest @ ..] => {
                    words.push(word.to_ascii_lowercase());
                    self.tokens = rest;
                }
                [Token::Symbol('('), rest @ ..] if arguments.is_none() => {
                    let Some(close) = rest.iter().position(|token| *token == Token::Symbol(')')) else {
                        return Err(TypeError::Wrong("a parenthesis is not closed".to_owned()));
                    };
                    arguments = Some(rest[..close].iter().map(Token::to_string).collect::<String>());
                    self.tokens = &rest[close + 1..];
                }
                _ => break,
            }
        }
        let name = words.join(" ");
        if name.is_empty() && self.depth > 1 {
            return Err(TypeError::Wrong("a member has no type: write `struct<name type, …>`".to_owned()));
        }
        match self.tokens {
            [Token::Symbol('<'), ..] if matches!(&*name, "array" | "list") => {
                Err(TypeError::Wrong("a list is written `TYPE[]`".to_owned()))
            }
            [Token::Symbol('<'), ..] if name == "map" => Err(TypeError::NotYet(name)),
            _ => scalar(name, arguments.as_deref()),
        }
    }

    fn take(&mut self, symbol: char) -> bool {
        match self.tokens {
            [Token::Symbol(next), rest @ ..] if *next == symbol => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }

    fn take_word(&mut self, word: &str) -> bool {
        match self.tokens {
            [Token::Word(next), rest @ ..] if next.eq_ignore_ascii_case(word) => {
                self.tokens = rest;
                true
            }
            _ => false,
        }
    }
}

fn scalar(name: String, arguments: Option<&str>) -> Result<DataType, TypeError> {
    let plain = |data_type: DataType| match arguments {
        None => Ok(data_type),
        Some(_) => Err(TypeError::Wrong(format!("`{name}` takes no arguments"))),
    };
    Ok(match name.as_str() {
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
        "binary" | "varbinary" | "bytea" | "blob" | "bytes" => plain(DataType::Binary)?,
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
        "json" | "jsonb" => plain(JSON)?,
        "struct" => return Err(TypeError::Wrong("write `struct<name type, …>`".to_owned())),
        "time" | "interval" | "uuid" | "map" => return Err(TypeError::NotYet(name)),
        _ => return Err(TypeError::Unknown(name)),
    })
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
        check("Bytea", "binary");
    }

    #[test]
    fn nested_types() {
        check("JSON not null", "json not null");
        check("bigint[]", "bigint[]");
        check("decimal( 5,2 ) [ ] [] not null", "decimal(5,2)[][] not null");
        check("struct<a bigint>", "struct<a bigint>");
        check(
            "Struct < Sku varchar not null, parts struct<n double precision, tags json[]>[], \"not null\" date null >[]",
            "struct<Sku varchar not null, parts struct<n double, tags json[]>[], \"not null\" date>[]",
        );
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
            "int[",
            "int[3]",
            "struct",
            "struct<>",
            "struct<a>",
            "struct<a int",
            "struct<a int, a int>",
            "struct<\"\" int>",
            "struct<a int not>",
            "struct<a: int>",
            "array<int>",
            "\"int",
            "json(1)",
            "int]",
            &format!("{}int{}", "struct<a ".repeat(17), ">".repeat(17)),
        ] {
            assert!(matches!(parse(text), Err(TypeError::Wrong(_) | TypeError::Unknown(_))), "{text}");
        }
        for text in ["uuid", "map<varchar, int>", "time"] {
            assert!(matches!(parse(text), Err(TypeError::NotYet(_))), "{text}");
        }
        for text in ["", "not null", "varcha", "int not"] {
            assert!(matches!(parse(text), Err(TypeError::Unknown(_))), "{text}");
        }
    }
}
