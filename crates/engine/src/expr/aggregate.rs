//! Aggregates: one call of one function of the allow-list.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Spanned,
};

use super::check::AGGREGATES;
use super::planner::{Typed, analyze_part};
use super::syntax::Syntax;
use super::types::{is_scalar, sql_type};
use super::{Mistake, Scope};
use crate::diagnostics::Code;
use crate::plan::AggregateFunction;

/// A checked aggregate.
#[derive(Clone, Debug)]
pub struct AggregateCall {
    /// Which function.
    pub function: AggregateFunction,
    /// Its argument; `None` for `count(*)`.
    pub argument: Option<Typed>,
    /// Type of the result.
    pub result_type: DataType,
    /// The call in one canonical spelling.
    pub sql: String,
}

/// Most values that `count(distinct …)` and `array_agg` may keep of a group.
const MAX_LIMIT: u32 = 1_000_000;

/// The functions by their names; where there are several of one, the first is that in [`AggregateCall::sql`]. Those that keep values
/// get their limit from the call.
const FUNCTIONS: &[(&[&str], AggregateFunction)] = &[
    (&["count"], AggregateFunction::Count),
    (&["sum"], AggregateFunction::Sum),
    (&["min"], AggregateFunction::Min),
    (&["max"], AggregateFunction::Max),
    (&["avg"], AggregateFunction::Avg),
    (&["bool_and"], AggregateFunction::BoolAnd),
    (&["bool_or"], AggregateFunction::BoolOr),
    (&["var_samp", "variance", "var"], AggregateFunction::VarSamp),
    (&["var_pop"], AggregateFunction::VarPop),
    (&["stddev_samp", "stddev"], AggregateFunction::StddevSamp),
    (&["stddev_pop"], AggregateFunction::StddevPop),
    (&["first_value"], AggregateFunction::First),
    (&["last_value"], AggregateFunction::Last),
    (&["array_agg"], AggregateFunction::ArrayAgg { limit: 0 }),
    (&["approx_distinct"], AggregateFunction::ApproxDistinct),
    (&["approx_percentile", "approx_percentile_cont"], AggregateFunction::ApproxPercentile { millionths: 0 }),
];

/// Parses and types an aggregate. As with [`analyze`](super::analyze), an empty list of mistakes means that they have been reported.
///
/// # Errors
/// All mistakes that can be told apart.
pub fn analyze_aggregate(text: &str, scope: &Scope) -> Result<AggregateCall, Vec<Mistake>> {
    let syntax = Syntax::parse(text, scope).map_err(|mistake| vec![mistake])?;
    let mut ast = &syntax.ast;
    while let Ast::Nested(inner) = ast {
        ast = inner;
    }
    let Ast::Function(call) = ast else {
        return Err(vec![not_one_call(&syntax, ast)]);
    };
    let at = syntax.range(call.name.span());
    let written = call.name.to_string();
    let lower = written.to_lowercase();
    let Some((names, function)) = FUNCTIONS.iter().find(|(names, _)| names.contains(&lower.as_str())) else {
        if AGGREGATES.contains(&lower.as_str()) {
            let message = format!("the aggregate `{written}` is not supported yet");
            return Err(vec![Mistake::new(Code::NotYet, at, message)]);
        }
        return Err(vec![not_one_call(&syntax, ast)]);
    };
    let Arguments { argument, rank, distinct, limit } = arguments(call, *function, &syntax, &written)?;
    let function = with_limit(*function, distinct, limit, &written, at.clone())?;
    let function = with_rank(function, rank, &syntax)?;
    let filter = call.filter.as_deref().map(|filter| condition(filter, &syntax, scope)).transpose()?;
    let name = names[0];
    let typed = match argument {
        Some(argument) => Some(analyze_part(argument, &syntax, scope)?),
        None if function == AggregateFunction::Count => None,
        None => {
            let message = format!("`{written}` needs one argument");
            return Err(vec![Mistake::new(Code::NotAggregate, at, message)]);
        }
    };
    let data_type = typed.as_ref().map_or(DataType::Null, |typed| typed.data_type.clone());
    let Some(result_type) = result_type(function, &data_type) else {
        let message = format!("`{written}` does not take {}", sql_type(&data_type));
        let at = argument.map_or(at, |argument| syntax.range_of(argument));
        return Err(vec![Mistake::new(Code::TypeMismatch, at, message)]);
    };
    let mut sql = match (&typed, function) {
        (None, _) => "count(*)".to_owned(),
        (Some(typed), AggregateFunction::CountDistinct { limit }) => {
            format!("{name}(distinct {} limit {limit})", typed.sql)
        }
        (Some(typed), AggregateFunction::ArrayAgg { limit }) => {
            format!("{name}({} limit {limit})", typed.sql)
        }
        (Some(typed), AggregateFunction::ApproxPercentile { millionths }) => {
            format!("{name}({}, {})", typed.sql, f64::from(millionths) / 1e6)
        }
        (Some(typed), _) => format!("{name}({})", typed.sql),
    };
    let argument = match filter {
        None => typed,
        Some(filter) => {
            sql += &format!(" filter (where {})", filter.sql);
            Some(typed.unwrap_or_else(Typed::always).only_where(filter))
        }
    };
    Ok(AggregateCall { function, argument, result_type, sql })
}

fn not_one_call(syntax: &Syntax, ast: &Ast) -> Mistake {
    let names: Vec<&str> = FUNCTIONS.iter().map(|(names, _)| names[0]).collect();
    let message = format!("an aggregate is one call of {}", names.join(", "));
    Mistake::new(Code::NotAggregate, syntax.range_of(ast), message).hint(
        "compute with columns inside of it, `sum(price * quantity)`, and with its result in the `select` of a later step",
    )
}

/// `where` of a `filter`.
fn condition(filter: &Ast, syntax: &Syntax, scope: &Scope) -> Result<Typed, Vec<Mistake>> {
    let typed = analyze_part(filter, syntax, scope)?;
    if typed.data_type != DataType::Boolean {
        let message = format!("`filter (where …)` must be boolean, this is {}", sql_type(&typed.data_type));
        return Err(vec![Mistake::new(Code::TypeMismatch, syntax.range_of(filter), message)]);
    }
    Ok(typed)
}

/// What stands between the parentheses of a call.
struct Arguments<'a> {
    /// `None` for `*`.
    argument: Option<&'a Ast>,
    /// The second argument, of a percentile.
    rank: Option<&'a Ast>,
    distinct: bool,
    limit: Option<&'a Ast>,
}

fn arguments<'a>(
    call: &'a Function,
    function: AggregateFunction,
    syntax: &Syntax,
    written: &str,
) -> Result<Arguments<'a>, Vec<Mistake>> {
    let at = syntax.range(call.span());
    let mistake = |code, message: String| vec![Mistake::new(code, at.clone(), message)];
    if call.over.is_some() {
        let message =
            "SQL's window functions have no place here: the step's `window` says which rows belong together";
        return Err(mistake(Code::NotScalar, message.to_owned()));
    }
    let is_percentile = matches!(function, AggregateFunction::ApproxPercentile { .. });
    let one_argument = || match is_percentile {
        true => {
            let message = format!("`{written}` needs two arguments");
            let hint = format!("for example `{written}(amount, 0.99)`");
            vec![Mistake::new(Code::NotAggregate, at.clone(), message).hint(hint)]
        }
        false => mistake(Code::NotAggregate, format!("`{written}` needs one argument")),
    };
    let FunctionArguments::List(list) = &call.args else { return Err(one_argument()) };
    let mut limit = None;
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::Limit(most) => limit = Some(most),
            _ => {
                return Err(mistake(
                    Code::NotYet,
                    "an order in an aggregate is not supported yet".to_owned(),
                ));
            }
        }
    }
    if !call.within_group.is_empty() || call.null_treatment.is_some() {
        return Err(mistake(Code::NotYet, "an order in an aggregate is not supported yet".to_owned()));
    }
    use FunctionArg::Unnamed;
    use FunctionArgExpr::{Expr, Wildcard};
    let (argument, rank) = match list.args.as_slice() {
        [Unnamed(Expr(argument)), Unnamed(Expr(rank))] if is_percentile => (Some(argument), Some(rank)),
        [Unnamed(Wildcard)] if !is_percentile => (None, None),
        [Unnamed(Expr(argument))] if !is_percentile => (Some(argument), None),
        _ => return Err(one_argument()),
    };
    let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
    Ok(Arguments { argument, rank, distinct, limit })
}

/// The function with the part that a percentile asks for.
fn with_rank(
    function: AggregateFunction,
    rank: Option<&Ast>,
    syntax: &Syntax,
) -> Result<AggregateFunction, Vec<Mistake>> {
    let Some(rank) = rank else { return Ok(function) };
    let written = rank.to_string().parse::<f64>().ok().filter(|rank| (0.0..=1.0).contains(rank));
    // What is written in decimals is seldom exactly that in binary.
    let is_whole = |millionths: &f64| (millionths - millionths.round()).abs() < 1e-6;
    let millionths = written.map(|rank| rank * 1e6).filter(is_whole).map(f64::round);
    match millionths {
        Some(millionths) => Ok(AggregateFunction::ApproxPercentile { millionths: millionths as u32 }),
        None => {
            let message = "a percentile is a number from 0 to 1 with six decimals at most";
            let hint = "`0.5` is the median, `0.99` what 99 of 100 values do not exceed";
            Err(vec![Mistake::new(Code::NotAggregate, syntax.range_of(rank), message).hint(hint)])
        }
    }
}

/// The function as the call asks for it: with its limit, where it keeps values.
fn with_limit(
    function: AggregateFunction,
    distinct: bool,
    limit: Option<&Ast>,
    written: &str,
    at: std::ops::Range<usize>,
) -> Result<AggregateFunction, Vec<Mistake>> {
    use AggregateFunction::{ArrayAgg, Count, CountDistinct};
    let mistake =
        |code, message: String, hint: &str| vec![Mistake::new(code, at.clone(), message).hint(hint)];
    let keeps = match (function, distinct) {
        (Count, true) => true,
        (ArrayAgg { .. }, false) => true,
        (_, true) => {
            let message = format!("`{written}` does not take `distinct`; only `count` does");
            return Err(mistake(
                Code::NotAggregate,
                message,
                "min, max, bool_and and bool_or are the same without it",
            ));
        }
        (_, false) => false,
    };
    let most = limit
        .map(|limit| limit.to_string().parse::<u32>().ok().filter(|most| (1..=MAX_LIMIT).contains(most)));
    match (keeps, most) {
        (false, None) => Ok(function),
        (false, Some(_)) => {
            let message = format!("`{written}` keeps no values: it has no `limit`");
            Err(mistake(
                Code::NotAggregate,
                message,
                "`count(distinct x limit n)` and `array_agg(x limit n)` have one",
            ))
        }
        (true, Some(Some(limit))) if function == Count => Ok(CountDistinct { limit }),
        (true, Some(Some(limit))) => Ok(ArrayAgg { limit }),
        (true, Some(None)) => {
            let message = format!("a `limit` is a whole number from 1 to {MAX_LIMIT}");
            Err(mistake(Code::NotAggregate, message, "so many values are kept for each group"))
        }
        (true, None) => {
            let message = format!("`{written}` keeps values, and must say how many of a group at most");
            let hint = match function {
                Count => {
                    "write `count(distinct x limit 10000)`: a group with more has no result, which goes to the dead letters"
                }
                _ => "write `array_agg(x limit 100)`: the first by event time",
            };
            Err(mistake(Code::NotAggregate, message, hint))
        }
    }
}

fn result_type(function: AggregateFunction, argument: &DataType) -> Option<DataType> {
    use AggregateFunction::*;
    let integer = argument.is_integer();
    let float = argument.is_floating();
    let decimal = matches!(argument, DataType::Decimal128(..));
    match (function, argument) {
        (Count, _) => Some(DataType::Int64),
        (Sum, _) if integer => Some(DataType::Int64),
        (Sum | Avg, _) if float => Some(DataType::Float64),
        (Avg, _) if integer => Some(DataType::Float64),
        (Sum, DataType::Decimal128(_, scale)) => Some(DataType::Decimal128(38, *scale)),
        (Avg, DataType::Decimal128(_, scale)) => Some(DataType::Decimal128(38, (*scale + 4).min(38))),
        (Min | Max, DataType::Boolean) => None,
        (Min | Max | First | Last, _) => is_scalar(argument).then(|| argument.clone()),
        (Sum | Avg, _) => None,
        (BoolAnd | BoolOr, _) => (*argument == DataType::Boolean).then_some(DataType::Boolean),
        (VarPop | VarSamp | StddevPop | StddevSamp | ApproxPercentile { .. }, _) => {
            (integer || float || decimal).then_some(DataType::Float64)
        }
        (CountDistinct { .. } | ApproxDistinct, _) => is_scalar(argument).then_some(DataType::Int64),
        (ArrayAgg { .. }, _) => {
            is_scalar(argument).then(|| DataType::List(Arc::new(Field::new("item", argument.clone(), true))))
        }
    }
}
