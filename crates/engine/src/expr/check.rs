//! What an expression may be made of: columns in scope, known functions that always give the same result, no queries.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion_expr::{ScalarUDF, Volatility};
use datafusion_sql::sqlparser::ast::{
    Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Spanned, Value,
};

use onceflow_sql::FUNCTIONS;

use super::syntax::Syntax;
use super::{Mistake, Scope};
use crate::diagnostics::{Code, nearest};
use crate::metadata::Metadata;

/// Functions of the clock, of chance and of the session, some of which SQL writes without parentheses.
const NOT_DETERMINISTIC: &[&str] = &[
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "today",
    "sysdate",
    "transaction_timestamp",
    "statement_timestamp",
    "clock_timestamp",
    "random",
    "rand",
    "uuid",
    "gen_random_uuid",
    "newid",
    "current_user",
    "session_user",
    "version",
];

/// A function that an expression may call, for whoever writes a reference.
#[derive(Clone, Debug)]
pub struct ScalarFunction {
    /// What it is about: "String Functions".
    pub section: &'static str,
    /// Its name, with what it takes.
    pub call: String,
    /// What it gives: a paragraph of Markdown.
    pub about: String,
    /// Other names of it.
    pub aliases: Vec<String>,
}

/// Every function that an expression may call, by name.
pub fn scalar_functions() -> Vec<ScalarFunction> {
    let mut functions: Vec<_> = FUNCTIONS
        .iter()
        .filter(|(name, function)| *name == function.name() && always_gives_the_same(name, function))
        .collect();
    functions.sort_by_key(|(name, _)| *name);
    let describe = |(name, function): (&String, &Arc<ScalarUDF>)| {
        let documentation = function.documentation();
        let about = documentation.map_or("", |documentation| documentation.description.trim());
        ScalarFunction {
            section: documentation.map_or("Other Functions", |documentation| documentation.doc_section.label),
            call: documentation
                .map_or_else(|| name.clone(), |documentation| documentation.syntax_example.clone()),
            about: about.split("\n\n").next().unwrap_or_default().to_owned(),
            aliases: function.aliases().to_vec(),
        }
    };
    functions.into_iter().map(describe).collect()
}

fn always_gives_the_same(name: &str, function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Immutable && !NOT_DETERMINISTIC.contains(&name)
}

/// Functions over several rows.
pub(super) const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "mean",
    "median",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var",
    "var_pop",
    "var_samp",
    "variance",
    "first_value",
    "last_value",
    "approx_distinct",
    "approx_median",
    "approx_percentile",
    "approx_percentile_cont",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "corr",
    "covar_pop",
    "covar_samp",
    "bit_and",
    "bit_or",
    "bit_xor",
    "percentile_cont",
];

/// Functions over a window of rows.
const WINDOW_FUNCTIONS: &[&str] =
    &["row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "nth_value"];

/// What a walk over an expression found.
#[derive(Default)]
pub(super) struct Checked {
    /// The columns that it names.
    pub columns: BTreeSet<String>,
    /// Whether it names a column whose type is not known.
    pub unknown: bool,
    /// What is wrong with it.
    pub mistakes: Vec<Mistake>,
}

/// Walks over `ast`, a part of `syntax`.
pub(super) fn check(ast: &Ast, syntax: &Syntax, scope: &Scope) -> Checked {
    let mut walk = Walk { syntax, scope, checked: Checked::default() };
    walk.visit(ast);
    walk.checked
}

/// The operands of `ast`, left to right; `None` for the forms that have no place in an expression over one row.
/// (sqlparser's own visitor would be compiled for all of SQL, and it visits no less.)
pub(super) fn operands(ast: &Ast) -> Option<Vec<&Ast>> {
    let mut operands: Vec<&Ast> = vec![];
    match ast {
        Ast::Identifier(_) | Ast::CompoundIdentifier(_) | Ast::Value(_) | Ast::TypedString(_) => {}
        Ast::IsFalse(a)
        | Ast::IsNotFalse(a)
        | Ast::IsTrue(a)
        | Ast::IsNotTrue(a)
        | Ast::IsNull(a)
        | Ast::IsNotNull(a)
        | Ast::IsUnknown(a)
        | Ast::IsNotUnknown(a)
        | Ast::Nested(a)
        | Ast::UnaryOp { expr: a, .. }
        | Ast::Cast { expr: a, .. }
        | Ast::Extract { expr: a, .. }
        | Ast::Ceil { expr: a, .. }
        | Ast::Floor { expr: a, .. } => operands.push(a),
        Ast::Interval(interval) => operands.push(&interval.value),
        Ast::IsDistinctFrom(a, b)
        | Ast::IsNotDistinctFrom(a, b)
        | Ast::BinaryOp { left: a, right: b, .. }
        | Ast::Like { expr: a, pattern: b, .. }
        | Ast::ILike { expr: a, pattern: b, .. }
        | Ast::SimilarTo { expr: a, pattern: b, .. }
        | Ast::AtTimeZone { timestamp: a, time_zone: b }
        | Ast::Position { expr: a, r#in: b } => operands.extend([&**a, b]),
        Ast::InList { expr, list, .. } => {
            operands.push(expr);
            operands.extend(list);
        }
        Ast::Between { expr, low, high, .. } => operands.extend([&**expr, low, high]),
        Ast::Substring { expr, substring_from, substring_for, .. } => {
            operands.push(expr);
            operands.extend(substring_from.as_deref());
            operands.extend(substring_for.as_deref());
        }
        Ast::Trim { expr, trim_what, trim_characters, .. } => {
            operands.extend(trim_what.as_deref());
            operands.push(expr);
            operands.extend(trim_characters.iter().flatten());
        }
        Ast::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
            operands.extend([&**expr, overlay_what, overlay_from]);
            operands.extend(overlay_for.as_deref());
        }
        Ast::Case { operand, conditions, else_result, .. } => {
            operands.extend(operand.as_deref());
            operands.extend(conditions.iter().flat_map(|case| [&case.condition, &case.result]));
            operands.extend(else_result.as_deref());
        }
        Ast::Function(function) => match &function.args {
            FunctionArguments::None => {}
            FunctionArguments::List(list) => {
                for argument in &list.args {
                    let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else { return None };
                    operands.push(argument);
                }
            }
            FunctionArguments::Subquery(_) => return None,
        },
        _ => return None,
    }
    Some(operands)
}

struct Walk<'a> {
    syntax: &'a Syntax,
    scope: &'a Scope,
    checked: Checked,
}

impl Walk<'_> {
    fn visit(&mut self, ast: &Ast) {
        match ast {
            Ast::Identifier(name) => self.column(name),
            Ast::CompoundIdentifier(names) => {
                let name = names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(".");
                let mistake = self.mistake(Code::UnknownColumn, ast, format!("there is no column `{name}`"));
                self.checked.mistakes.push(mistake.hint(format!(
                    "a nested member becomes a column in the source's `schema`: `name: {{ type: varchar, path: {name} }}`"
                )));
            }
            Ast::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                let mistake = self.mistake(Code::NotScalar, ast, "placeholders have no value here");
                self.checked
                    .mistakes
                    .push(mistake.hint("a variable of the environment is written `${NAME}`"));
            }
            Ast::InSubquery { .. } | Ast::Subquery(_) | Ast::Exists { .. } => {
                let message = "an expression sees one row: queries have no place in it";
                let mistake = self.mistake(Code::NotScalar, ast, message);
                self.checked.mistakes.push(mistake);
                return;
            }
            Ast::Function(function) if !self.function(function) => return,
            _ => {}
        }
        match operands(ast) {
            Some(operands) => operands.into_iter().for_each(|operand| self.visit(operand)),
            None => {
                let message = "this form of SQL is not supported in expressions";
                let mistake = self.mistake(Code::NotScalar, ast, message);
                self.checked.mistakes.push(mistake);
            }
        }
    }
}

impl Walk<'_> {
    fn mistake(&self, code: Code, ast: &Ast, message: impl Into<String>) -> Mistake {
        Mistake::new(code, self.syntax.range_of(ast), message)
    }

    fn column(&mut self, name: &Ident) {
        if let Some(column) = self.scope.find(&name.value) {
            self.checked.unknown |= column.data_type.is_none();
            self.checked.columns.insert(name.value.clone());
            return;
        }
        self.unknown_column(name);
    }

    fn unknown_column(&mut self, name: &Ident) {
        if self.scope.open {
            self.checked.unknown = true;
            return;
        }
        let at = self.syntax.range(name.span);
        if Metadata::parse(&name.value).is_some() {
            let message =
                format!("`{}` is of a Kafka record, and these rows were made by a window", name.value);
            let mistake = Mistake::new(Code::UnknownColumn, at, message);
            self.checked
                .mistakes
                .push(mistake.hint("group by it, or aggregate it, to have it behind the window"));
            return;
        }
        let mut mistake =
            Mistake::new(Code::UnknownColumn, at, format!("there is no column `{}`", name.value));
        let names: Vec<&str> = self.scope.columns.iter().map(|column| column.name.as_str()).collect();
        if let Some(near) = nearest(&name.value, names.iter().copied()) {
            mistake = mistake.label(format!("did you mean `{near}`?"));
        } else if name.quote_style == Some('"') {
            mistake = mistake.hint("double quotes are for names; a text has single quotes");
        } else {
            let more = if names.len() > 12 { ", …" } else { "" };
            let shown = names[..names.len().min(12)].join(", ");
            mistake = mistake.hint(format!("columns here: {shown}{more}"));
        }
        self.checked.mistakes.push(mistake);
    }

    /// Whether its arguments are worth a look.
    fn function(&mut self, function: &Function) -> bool {
        let at = self.syntax.range(function.name.span());
        let written = function.name.to_string();
        let name = written.to_lowercase();
        let mut report = |code, message: String, hint: Option<&str>| {
            let mut mistake = Mistake::new(code, at.clone(), message);
            mistake.hint = hint.map(str::to_owned);
            self.checked.mistakes.push(mistake);
            false
        };
        let known = FUNCTIONS.get(&name);
        let differs = known.is_some_and(|function| !always_gives_the_same(&name, function));
        if differs || NOT_DETERMINISTIC.contains(&name.as_str()) {
            let message = format!(
                "`{written}` would give another result when its record is read again after a failure"
            );
            return report(
                Code::NotDeterministic,
                message,
                Some("take times and identifiers from the record"),
            );
        }
        if name == "header" {
            return report(
                Code::BadValue,
                "`header` takes the name of one header, a text in single quotes".to_owned(),
                Some("for example `header('trace-id')`"),
            );
        }
        if matches!(function.args, FunctionArguments::None) {
            // `user` without parentheses, where there is no such column.
            let ident = Ident { value: written, quote_style: None, span: function.name.span() };
            self.unknown_column(&ident);
            return true;
        }
        if function.over.is_some() || WINDOW_FUNCTIONS.contains(&name.as_str()) {
            let message =
                format!("`{written}` looks at other rows: SQL's window functions have no place here");
            return report(Code::NotScalar, message, None);
        }
        if AGGREGATES.contains(&name.as_str()) {
            let message = format!("`{written}` is an aggregate function");
            let hint = "it belongs under `aggregate` of a step with a `window`; a later step can compute with its result";
            return report(Code::NotScalar, message, Some(hint));
        }
        if known.is_none() {
            let near = nearest(&name, FUNCTIONS.keys().map(String::as_str)).map(str::to_owned);
            let mut mistake =
                Mistake::new(Code::UnknownFunction, at, format!("there is no function `{written}`"));
            mistake.label = near.map(|near| format!("did you mean `{near}`?"));
            self.checked.mistakes.push(mistake);
            return true;
        }
        let plain = function.filter.is_none()
            && function.within_group.is_empty()
            && function.null_treatment.is_none()
            && matches!(function.parameters, FunctionArguments::None)
            && matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty());
        if !plain {
            return report(Code::NotScalar, format!("`{written}` takes arguments only"), None);
        }
        true
    }
}
