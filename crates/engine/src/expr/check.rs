//! What an expression may be made of: columns in scope, known functions that always give the same result, no queries.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use datafusion_expr::{ScalarUDF, Volatility};
use datafusion_sql::sqlparser::ast::{
    Expr as Ast, Function, FunctionArguments, Ident, Spanned, Value, Visit, Visitor,
};

use super::syntax::Syntax;
use super::{Mistake, Scope};
use crate::diagnostics::{Code, nearest};

/// All scalar functions, by every name they have.
pub(super) static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        for alias in function.aliases() {
            functions.insert(alias.clone(), Arc::clone(&function));
        }
        functions.insert(function.name().to_owned(), function);
    }
    functions
});

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

/// Columns that will give access to the Kafka record.
const METADATA: &[&str] = &["_key", "_topic", "_partition", "_offset", "_timestamp", "_headers"];

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
    let _ = ast.visit(&mut walk);
    walk.checked
}

struct Walk<'a> {
    syntax: &'a Syntax,
    scope: &'a Scope,
    checked: Checked,
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, ast: &Ast) -> ControlFlow<()> {
        match ast {
            Ast::Identifier(name) => self.column(name),
            Ast::CompoundIdentifier(names) => {
                let name = names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>().join(".");
                let mistake = self.mistake(Code::UnknownColumn, ast, format!("there is no column `{name}`"));
                self.checked.mistakes.push(mistake.hint(format!(
                    "a nested member becomes a column in the source's `schema`: `name: {{ type: varchar, path: {name} }}`"
                )));
            }
            Ast::Function(function) => return self.function(function),
            Ast::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                let mistake = self.mistake(Code::NotScalar, ast, "placeholders have no value here");
                self.checked
                    .mistakes
                    .push(mistake.hint("a variable of the environment is written `${NAME}`"));
            }
            Ast::InSubquery { .. } | Ast::Subquery(_) | Ast::Exists { .. } => {
                let mistake = self.mistake(
                    Code::NotScalar,
                    ast,
                    "an expression sees one row: queries have no place in it",
                );
                self.checked.mistakes.push(mistake);
                return ControlFlow::Break(());
            }
            Ast::IsFalse(_)
            | Ast::IsNotFalse(_)
            | Ast::IsTrue(_)
            | Ast::IsNotTrue(_)
            | Ast::IsNull(_)
            | Ast::IsNotNull(_)
            | Ast::IsUnknown(_)
            | Ast::IsNotUnknown(_)
            | Ast::IsDistinctFrom(..)
            | Ast::IsNotDistinctFrom(..)
            | Ast::InList { .. }
            | Ast::Between { .. }
            | Ast::BinaryOp { .. }
            | Ast::Like { .. }
            | Ast::ILike { .. }
            | Ast::SimilarTo { .. }
            | Ast::UnaryOp { .. }
            | Ast::Cast { .. }
            | Ast::AtTimeZone { .. }
            | Ast::Extract { .. }
            | Ast::Ceil { .. }
            | Ast::Floor { .. }
            | Ast::Position { .. }
            | Ast::Substring { .. }
            | Ast::Trim { .. }
            | Ast::Overlay { .. }
            | Ast::Nested(_)
            | Ast::Value(_)
            | Ast::TypedString(_)
            | Ast::Case { .. }
            | Ast::Interval(_) => {}
            _ => {
                let mistake =
                    self.mistake(Code::NotScalar, ast, "this form of SQL is not supported in expressions");
                self.checked.mistakes.push(mistake);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Walk<'_> {
    fn mistake(&self, code: Code, ast: &Ast, message: impl Into<String>) -> Mistake {
        Mistake::new(code, self.syntax.range_of(ast), message)
    }

    fn column(&mut self, name: &Ident) {
        if let Some(column) = self.scope.get(&name.value) {
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
        if METADATA.contains(&name.value.as_str()) {
            let message = format!("`{}`, metadata of the Kafka record, is not supported yet", name.value);
            self.checked.mistakes.push(Mistake::new(Code::NotYet, at, message));
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

    fn function(&mut self, function: &Function) -> ControlFlow<()> {
        let at = self.syntax.range(function.name.span());
        let written = function.name.to_string();
        let name = written.to_lowercase();
        let mut report = |code, message: String, hint: Option<&str>| {
            let mut mistake = Mistake::new(code, at.clone(), message);
            mistake.hint = hint.map(str::to_owned);
            self.checked.mistakes.push(mistake);
            ControlFlow::Break(())
        };
        let known = FUNCTIONS.get(&name);
        let stable = known.is_some_and(|function| function.signature().volatility != Volatility::Immutable);
        if stable || NOT_DETERMINISTIC.contains(&name.as_str()) {
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
            return report(Code::NotYet, "`header(…)` is not supported yet".to_owned(), None);
        }
        if matches!(function.args, FunctionArguments::None) {
            // `user` without parentheses, where there is no such column.
            let ident = Ident { value: written, quote_style: None, span: function.name.span() };
            self.unknown_column(&ident);
            return ControlFlow::Continue(());
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
            return ControlFlow::Continue(());
        }
        let plain = function.filter.is_none()
            && function.within_group.is_empty()
            && function.null_treatment.is_none()
            && matches!(function.parameters, FunctionArguments::None)
            && matches!(&function.args, FunctionArguments::List(list) if list.duplicate_treatment.is_none() && list.clauses.is_empty());
        if !plain {
            return report(Code::NotScalar, format!("`{written}` takes arguments only"), None);
        }
        ControlFlow::Continue(())
    }
}
