//! Text → syntax tree, with positions, and with bare column names made safe from SQL's keywords.

use std::ops::Range;

use arrow::datatypes::DataType;
use datafusion_sql::sqlparser::ast::{Expr as Ast, Spanned};
use datafusion_sql::sqlparser::dialect::GenericDialect;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::{Mistake, Scope};
use crate::diagnostics::Code;
use crate::metadata::Metadata;

/// Most tokens of an expression. With [`MAX_DEPTH`] it bounds what recursion over the tree may cost.
const MAX_TOKENS: usize = 2_000;

/// Deepest tree; a chain of operators is as deep as it is long.
const MAX_DEPTH: usize = 150;

/// A parsed expression.
pub(super) struct Syntax {
    /// The tree.
    pub ast: Ast,
    lines: Lines,
}

impl Syntax {
    /// Parses `text`. Bare words that name a column of `scope` are columns.
    pub fn parse(text: &str, scope: &Scope) -> Result<Syntax, Mistake> {
        let lines = Lines::new(text);
        let whole = 0..text.len();
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|error| {
            let at = lines.byte(error.location);
            Mistake::new(Code::SqlSyntax, at..lines.end, lower_first(&error.message))
        })?;
        let mut tokens: Vec<_> =
            tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
        if tokens.is_empty() {
            return Err(Mistake::new(Code::SqlSyntax, whole, "there is no expression"));
        }
        if tokens.len() > MAX_TOKENS {
            return Err(Mistake::new(Code::TooLarge, whole, "the expression is too long"));
        }
        name_headers(&mut tokens);
        name_members(&mut tokens, scope);
        quote_columns(&mut tokens, scope);
        let chain = longest_chain(&tokens);
        if chain > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} operators in a row");
            return Err(
                Mistake::new(Code::TooLarge, whole, message).hint("use `in (…)`, or split it into steps")
            );
        }
        let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
        let ast = parser.parse_expr().map_err(|error| match error {
            ParserError::RecursionLimitExceeded => {
                Mistake::new(Code::TooLarge, whole.clone(), "the expression is nested too deeply")
            }
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
                let (message, at) = split_location(&message);
                let at = at.map_or(lines.end, |at| lines.byte(at));
                Mistake::new(Code::SqlSyntax, lines.word(text, at), lower_first(message))
            }
        })?;
        let next = parser.peek_token();
        if next.token != Token::EOF {
            let at = lines.range(next.span);
            let message = format!("the expression ends before `{}`", next.token);
            return Err(Mistake::new(Code::SqlSyntax, at, message));
        }
        Ok(Syntax { ast, lines })
    }

    /// Where `ast`, a part of the tree, stands in the text.
    pub fn range_of(&self, ast: &Ast) -> Range<usize> {
        self.range(ast.span())
    }

    /// The bytes of `span`.
    pub fn range(&self, span: Span) -> Range<usize> {
        self.lines.range(span)
    }
}

/// Byte positions of the lines of a text.
struct Lines {
    starts: Vec<Vec<usize>>,
    end: usize,
}

impl Lines {
    fn new(text: &str) -> Lines {
        let mut starts = vec![vec![]];
        for (at, c) in text.char_indices() {
            if let Some(line) = starts.last_mut() {
                line.push(at);
            }
            if c == '\n' {
                starts.push(vec![]);
            }
        }
        Lines { starts, end: text.len() }
    }

    /// Lines and columns count from 1; 0 is nowhere.
    fn byte(&self, at: Location) -> usize {
        let line = (at.line as usize).checked_sub(1).and_then(|line| self.starts.get(line));
        let column = (at.column as usize).checked_sub(1);
        line.zip(column).and_then(|(line, column)| line.get(column)).copied().unwrap_or(self.end)
    }

    fn range(&self, span: Span) -> Range<usize> {
        if span.start.line == 0 {
            return 0..self.end;
        }
        let start = self.byte(span.start);
        start..self.byte(span.end).max(start)
    }

    /// The word that begins at `at`, or the character there.
    fn word(&self, text: &str, at: usize) -> Range<usize> {
        let rest = &text[at..];
        let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        at..at + length.max(rest.chars().next().map_or(0, char::len_utf8))
    }
}

/// `Expected: an expression, found: EOF at Line: 1, Column: 5` → the message and the location.
fn split_location(message: &str) -> (&str, Option<Location>) {
    let Some((text, location)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let at = location
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(Location { line: line.parse().ok()?, column: column.parse().ok()? }));
    (text, at)
}

fn lower_first(message: &str) -> String {
    let message = message
        .replace("Expected: ", "expected ")
        .replace("found: EOF", "found the end")
        .replace("found: ", "found ");
    let message = message.strip_prefix("sql parser error: ").unwrap_or(&message);
    let mut chars = message.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The largest number of tokens between two parentheses or commas of one level: no chain of operators is longer.
fn longest_chain(tokens: &[TokenWithSpan]) -> usize {
    let (mut stack, mut longest) = (vec![0usize], 0);
    for token in tokens {
        match token.token {
            Token::LParen => stack.push(0),
            Token::RParen => {
                stack.pop();
            }
            Token::Comma => {
                stack.pop();
                stack.push(0);
            }
            _ => {}
        }
        if stack.is_empty() {
            stack.push(0);
        }
        if let Some(last) = stack.last_mut() {
            *last += 1;
            longest = longest.max(*last / 2);
        }
    }
    longest
}

/// What may come next, as far as it matters for telling a column from a keyword.
#[derive(Clone, Copy, PartialEq)]
enum Position {
    /// An operand, for example after an operator or a comma: here a bare word that is a column is the column.
    Operand,
    /// An operator, for example after an operand: a bare word is a keyword (`and`, `then`, `end`).
    Operator,
    /// After `is`: `not null`, `distinct from` …
    Is,
    /// A type, after `as` or `::`.
    Type,
}

/// Makes one name of each `header('x')`, which is read like a column.
fn name_headers(tokens: &mut Vec<TokenWithSpan>) {
    let mut i = 0;
    while i + 3 < tokens.len() {
        if let [header, open, name, close] = &tokens[i..i + 4]
            && matches!(&header.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("header"))
            && open.token == Token::LParen
            && close.token == Token::RParen
            && let Token::SingleQuotedString(name) = &name.token
        {
            let column = Metadata::Header(name.clone()).name();
            let span = Span::new(header.span.start, close.span.end);
            let column = TokenWithSpan::new(Token::make_word(&column, Some('"')), span);
            tokens.splice(i..i + 4, [column]);
        }
        i += 1;
    }
}

/// `line.sku`, where `line` is a column of structs, is a call of the function that reads a member.
fn name_members(tokens: &mut Vec<TokenWithSpan>, scope: &Scope) {
    let mut i = 0;
    while i + 2 < tokens.len() {
        let Token::Word(column) = &tokens[i].token else {
            i += 1;
            continue;
        };
        let known = scope.find(&column.value).and_then(|column| column.data_type.clone());
        let is_member = |pair: &&[TokenWithSpan]| {
            pair[0].token == Token::Period && matches!(pair[1].token, Token::Word(_))
        };
        let members = tokens[i + 1..].chunks_exact(2).take_while(is_member).count();
        let follows = i > 0 && tokens[i - 1].token == Token::Period;
        if members == 0 || follows || !matches!(known, Some(DataType::Struct(_))) {
            i += 1;
            continue;
        }
        let end = i + 1 + 2 * members;
        let span = Span::new(tokens[i].span.start, tokens[end - 1].span.end);
        let mut call = vec![Token::make_word("get_field", None), Token::LParen];
        call.push(Token::make_word(&column.value, Some('"')));
        for pair in tokens[i + 1..end].chunks_exact(2) {
            if let Token::Word(member) = &pair[1].token {
                call.extend([Token::Comma, Token::SingleQuotedString(member.value.clone())]);
            }
        }
        call.push(Token::RParen);
        let length = call.len();
        tokens.splice(i..end, call.into_iter().map(|token| TokenWithSpan::new(token, span)));
        i += length;
    }
}

/// Quotes the bare words that are columns, so that the parser does not take `user` for a function or `end` for a keyword.
fn quote_columns(tokens: &mut [TokenWithSpan], scope: &Scope) {
    let mut position = Position::Operand;
    for i in 0..tokens.len() {
        let next = tokens.get(i + 1).map(|token| &token.token);
        let calls = matches!(next, Some(Token::LParen));
        let types_a_literal = matches!(next, Some(Token::SingleQuotedString(_)));
        let after_extract = i >= 2
            && tokens[i - 1].token == Token::LParen
            && matches!(&tokens[i - 2].token, Token::Word(word) if word.value.eq_ignore_ascii_case("extract"));
        let after_case = i >= 1
            && matches!(&tokens[i - 1].token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("case"));
        position = match &tokens[i].token {
            Token::Word(word) if word.quote_style.is_some() => Position::Operator,
            Token::Word(word) => {
                let keyword = word.value.to_ascii_lowercase();
                match position {
                    Position::Operand if after_extract => Position::Operator,
                    Position::Operand => match keyword.as_str() {
                        "not" | "case" => Position::Operand,
                        "when" if after_case => Position::Operand,
                        "null" | "true" | "false" | "exists" => Position::Operator,
                        _ if calls || types_a_literal => Position::Operator,
                        _ if scope.find(&word.value).is_some() => {
                            tokens[i].token = Token::make_word(&word.value.clone(), Some('"'));
                            Position::Operator
                        }
                        _ => Position::Operator,
                    },
                    Position::Operator => match keyword.as_str() {
                        "and" | "or" | "xor" | "div" | "like" | "ilike" | "rlike" | "regexp" | "to"
                        | "between" | "in" | "when" | "then" | "else" | "from" | "for" | "escape"
                        | "placing" | "zone" => Position::Operand,
                        "is" => Position::Is,
                        "as" => Position::Type,
                        _ => Position::Operator,
                    },
                    Position::Is => match keyword.as_str() {
                        "not" | "distinct" => Position::Is,
                        "from" => Position::Operand,
                        _ => Position::Operator,
                    },
                    Position::Type => Position::Operator,
                }
            }
            Token::DoubleColon => Position::Type,
            Token::Number(..) | Token::SingleQuotedString(_) | Token::RParen | Token::RBracket => {
                Position::Operator
            }
            _ => Position::Operand,
        };
    }
}
